# SPDX-License-Identifier: Apache-2.0

"""What ``compute_driver = imagecache_ext.LibvirtDriver`` makes Nova import.

Nova imports ``nova.virt.<compute_driver>`` and nothing else, so these lines
have to be there (``load_compute_driver`` in nova/virt/driver.py).
"""

from typing import Any

from nova_imagecache.nova import reliances


def __getattr__(name: str) -> Any:
    """Give the driver, if Nova is what it is made for.

    It could not even be imported where some of that is missing.
    """
    if name != 'LibvirtDriver':
        raise AttributeError(name)
    reliances.insist(reliances.look())
    from nova_imagecache.nova import driver

    return driver.LibvirtDriver
