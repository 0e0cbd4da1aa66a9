# SPDX-License-Identifier: Apache-2.0

"""Making room on a disk that is really full. Takes root."""

import os

import ddt

from nova_imagecache import names
from tests.support import base
from tests.support import nodes
from tests.support import processes

SIZE = 64 * base.MIB
FILE = 10 * base.MIB


@ddt.ddt
class FullDiskTest(nodes.FileTestCase):
    def mount(self, kind: str) -> None:
        """Make a node on a file system of its own."""
        if os.geteuid() != 0:
            self.skipTest('only root can mount file systems')
        point = os.path.join(self.temporary, 'instances')
        os.mkdir(point)
        if kind == 'tmpfs':
            options = ['-t', 'tmpfs', '-o', f'size={SIZE}', 'none']
        else:
            disk = os.path.join(self.temporary, 'disk')
            # With room for what ext4 itself takes.
            size = SIZE + 16 * base.MIB
            processes.run('truncate', '-s', str(size), disk)
            processes.run('mkfs.ext4', '-q', '-m', '0', disk)
            options = ['-o', 'loop', disk]
        processes.run('mount', *options, point)
        self.addCleanup(processes.run, 'umount', '-l', point)
        self.node = nodes.Node(point)
        self.node.configure(high_watermark=80, low_watermark=50)
        self.names = [names.get_cache_fname(str(each)) for each in range(6)]
        for hours, name in enumerate(reversed(self.names), 1):
            self.node.add_base(
                name, data=os.urandom(FILE), age=hours * base.HOUR
            )

    def fill(self) -> None:
        path = self.node.add_file('guest', 'disk')
        with open(path, 'wb', buffering=0) as file:
            with self.assertRaisesRegex(OSError, 'No space'):
                while True:
                    file.write(bytes(4096))

    def used(self) -> float:
        found = os.statvfs(self.node.layout.base)
        return 1 - found.f_bavail / found.f_blocks

    @ddt.data('tmpfs', 'ext4')
    def test_room_is_made_when_there_is_none_left(self, kind: str) -> None:
        self.mount(kind)
        # A pass while there was space; a directory takes a block on ext4.
        self.node.configure(high_watermark=0)
        self.node.run()
        self.node.configure(high_watermark=80)
        self.fill()
        self.assertGreater(self.used(), 0.99)
        report = self.node.run()
        gone = {file.name for file in report.removed}
        # The ones not used for longest, and as many as it takes.
        number = len(gone)
        self.assertIn(number, (3, 4))
        self.assertEqual(set(self.names[:number]), gone)
        self.assertEqual(gone, self.node.trash())
        self.node.clock.advance(601)
        report = self.node.run()
        self.assertEqual(number, len(report.deleted))
        self.assertEqual(set(self.names[number:]), self.node.files())
        self.assertLess(self.used(), 0.5)
        self.node.clock.advance(601)
        self.assertEqual((), self.node.run().removed)
        self.assertEqual((), self.node.run().problems)

    def test_it_says_what_takes_the_space_when_there_is_no_way(self) -> None:
        self.mount('tmpfs')
        for number, name in enumerate(self.names):
            self.node.add_overlay(f'guest-{number}', name)
        self.fill()
        report = self.node.run()
        self.assertEqual((), report.removed)
        text = ' '.join(report.problems)
        self.assertIn('disk_high_watermark_percent', text)
        self.assertIn('60 MiB in use', text)
