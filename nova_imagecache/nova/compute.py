# SPDX-License-Identifier: Apache-2.0

"""``nova-compute-imagecache``: nova-compute where Nova is elsewhere.

Nova looks for compute drivers in its own directory, ``nova/virt``. Where we
are installed in another one, as beside a distribution's packages, this is
started in the place of nova-compute; it has that looked into as well.
"""

import os
import sys


def extend() -> None:
    """Have Nova find our driver, which is beside us."""
    import nova.virt

    here = os.path.dirname(__file__)
    path = os.path.join(here, '..', '..', 'nova', 'virt')
    nova.virt.__path__.append(os.path.abspath(path))


def main() -> None:
    """Run nova-compute."""
    # Which names the configuration files that are read.
    sys.argv[0] = os.path.join(os.path.dirname(sys.argv[0]), 'nova-compute')

    # Before anything else: eventlet comes in here, or is kept out.
    from nova.cmd import compute

    extend()
    compute.main()
