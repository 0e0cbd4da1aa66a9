# SPDX-License-Identifier: Apache-2.0

"""A repair under a guest that reads the bad block itself, and goes on."""

import itertools
import os
import subprocess

import ddt

from tests.node import test_repair_media
from tests.support import boot_sectors
from tests.support import healing
from tests.support import nodes
from tests.support import processes

BLOCK = healing.BLOCK
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'

_QEMU = 'qemu-system-x86_64'


@ddt.ddt
class ReadingGuestTest(test_repair_media.MediaTestCase):
    """QEMU without any help of the processor; the guest is its boot sector."""

    boot_sector = boot_sectors.reading(BLOCK)

    def start(self, disk: str, cache: str) -> None:
        self.need(_QEMU)
        # As a flavor does; the BIOS starts from no smaller one.
        nodes.qemu_img('resize', disk, '1M')
        self.serial = os.path.join(self.temporary, 'serial')
        self.guest = subprocess.Popen(
            [_QEMU, '-machine', 'pc,accel=tcg', '-m', '16', '-nodefaults',
             '-display', 'none', '-serial', f'file:{self.serial}',
             '-drive', f'file={disk},format=qcow2,if=virtio,cache={cache}'],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.stack.callback(self.guest.wait)
        self.stack.callback(self.guest.kill)

    def shown(self) -> list[str]:
        """Give what the guest has read so far, as it shows that."""
        if not os.path.exists(self.serial):
            return []
        with open(self.serial) as file:
            return file.read().split('\n')[:-1]

    def wait_until_it_reads(self, data: bytes) -> None:
        expected = data[BLOCK : BLOCK + boot_sectors.SHOWN].hex()

        def reads_or_has_ended() -> bool:
            ended = self.guest.poll() is not None
            return ended or self.shown()[-1:] == [expected]

        self.assertTrue(
            processes.wait_for(reads_or_has_ended), 'it reads other bytes'
        )
        self.assertIsNone(self.guest.poll(), 'the guest has ended')

    @ddt.data(
        *itertools.product(('ext4', 'xfs', 'btrfs'), ('none', 'writeback'))
    )
    @ddt.unpack
    def test_a_guest_reads_bad_bytes_and_then_good_ones(
        self, kind: str, cache: str
    ) -> None:
        self.on(kind)
        self.start(self.node.add_overlay(GUEST, self.name), cache)
        self.wait_until_it_reads(self.data)
        self.damage(1)
        bad = self.content()
        self.assertFalse(bad == self.data, 'nothing is damaged')
        self.wait_until_it_reads(bad)
        code, _blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        self.wait_until_it_reads(self.data)
        self.assertEqual(
            [(GUEST, 'reads-good')],
            [(each['guest'], each['fate']) for each in summary['guests']],
        )
        self.assertEqual(2, len({*self.shown()}), 'it reads something else')
