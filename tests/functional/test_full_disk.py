# SPDX-License-Identifier: Apache-2.0

"""Making room on a disk that is really full. Takes root."""

import os
import subprocess

from nova_imagecache import names
from tests import base

SIZE = 64 * base.MIB
FILE = 10 * base.MIB


class FullDiskTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can mount file systems')
        point = os.path.join(self.temporary, 'instances')
        os.mkdir(point)
        subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={SIZE}', 'none', point],
            check=True,
        )
        self.addCleanup(subprocess.run, ['umount', '-l', point], check=True)
        self.node = base.Node(point)
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

    def test_room_is_made_when_there_is_none_left(self) -> None:
        self.fill()
        self.assertEqual(1, self.used())
        report = self.node.run()
        gone = {file.name for file in report.removed}
        # The ones not used for longest, and as many as it takes.
        self.assertEqual(set(self.names[:4]), gone)
        self.assertEqual(gone, self.node.trash())
        self.node.clock.advance(601)
        report = self.node.run()
        self.assertEqual(4, len(report.deleted))
        self.assertEqual(set(self.names[4:]), self.node.files())
        self.assertLess(self.used(), 0.5)
        self.node.clock.advance(601)
        self.assertEqual((), self.node.run().removed)
        self.assertEqual((), self.node.run().problems)

    def test_it_says_what_takes_the_space_when_there_is_no_way(self) -> None:
        for number, name in enumerate(self.names):
            self.node.add_overlay(f'guest-{number}', name)
        self.fill()
        report = self.node.run()
        self.assertEqual((), report.removed)
        text = ' '.join(report.problems)
        self.assertIn('disk_high_watermark_percent', text)
        self.assertIn('60 MiB in use', text)
