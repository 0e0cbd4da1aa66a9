# SPDX-License-Identifier: Apache-2.0

"""Makes the records in a directory beside this file: those of this release.

Run once for each change of a format, before the change, with the Python that
has the package: ``python -m tests.node.formats.make NAME``. The records of a
release are never made anew: what it wrote is what later ones have to read.
"""

import os
import shutil
import sys
import tempfile

from nova_imagecache.cache import pins
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import nodes

HERE = os.path.dirname(__file__)


def make(name: str) -> None:
    """Have a node whose base file is corrupt, and keep what is noted of it."""
    with tempfile.TemporaryDirectory() as path:
        node = nodes.Node(os.path.join(path, 'instances'))
        node.clock.wall, node.clock.boottime = 1.7e9, 1e6
        node.configure(checksum=True, remove_unused=False, host='a-host')
        data = bytes(range(256)) * 256
        base_file = node.add_image('image', data=data, size=9 * base.MIB)
        for _pass in range(2):
            node.run()
        nodes.flip_bit(node.base_path(base_file), 100)
        node.run()
        pins.pin(node.layout, pins.Pin(base_file, 'image'), node.clock())
        now = node.clock()
        activity = activities.Activity('a-host', now, now, current=base_file)
        activities.save(node.layout, activity)
        target = os.path.join(HERE, name)
        os.makedirs(target)
        for source, kind in (
            (node.layout.ledger(base_file), 'ledger'),
            (node.layout.state, 'state'),
            (os.path.join(node.layout.pins, base_file), 'pin'),
            (node.layout.scrub, 'scrub'),
            (f'{node.base_path(base_file)}.sha1', 'sha1'),
        ):
            shutil.copyfile(source, os.path.join(target, kind))


if __name__ == '__main__':
    make(sys.argv[1])
