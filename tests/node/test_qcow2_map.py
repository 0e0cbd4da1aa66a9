# SPDX-License-Identifier: Apache-2.0

import json
import os
import random
import struct

import ddt

from nova_imagecache.witnesses import qcow2_map
from tests.support import base
from tests.support import nodes

Effect = qcow2_map.Effect
SIZE = 8 * base.MIB
UNIT = 512

VARIANTS = (
    'compat=0.10', 'compat=1.1', 'compat=1.1,extended_l2=on',
    'compat=1.1,cluster_size=4096', 'compat=1.1,cluster_size=2M',
    'compat=1.1,compression_type=zstd', 'compat=1.1,lazy_refcounts=on',
)  # fmt: skip


@ddt.ddt
class MapTest(nodes.NodeTestCase):
    """Our reading of the tables against qemu-img map."""

    def setUp(self) -> None:
        super().setUp()
        self.base = self.node.add_base(
            'f' * 40, data=random.Random(1).randbytes(SIZE)
        )
        self.path = os.path.join(self.temporary, 'disk')

    def create(self, options: str, size: int = SIZE) -> None:
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-o', options, '-b', self.base,
            '-F', 'raw', self.path, str(size),
        )  # fmt: skip

    def mapped(self, start: int = 0, end: int = 2**62) -> list[Effect]:
        """Give the effect for each unit of the disk."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            found: list[Effect] = []
            for extent in qcow2_map.Map(fd).extents(start, end):
                length = extent.end - extent.start
                found += [extent.effect] * (length // UNIT)
        finally:
            os.close(fd)
        return found

    def expected(self) -> list[Effect]:
        output = nodes.qemu_img('map', '--output=json', '-U', self.path)
        found: list[Effect] = []
        for entry in json.loads(output):
            effect = Effect.COPIED
            if entry['depth'] > 0 or not entry.get('present', True):
                effect = Effect.READS_THROUGH
            elif entry['zero']:
                effect = Effect.ZEROED
            found += [effect] * (entry['length'] // UNIT)
        return found

    @ddt.data(*VARIANTS)
    def test_it_agrees_with_qemu_img(self, options: str) -> None:
        self.create(options)
        self.assertEqual({Effect.READS_THROUGH}, set(self.mapped()))
        commands = ['write 64k 4k', 'write 1M 256k', 'write 7M 512k']
        if 'compat=1.1' in options:
            commands += ['write -z 3M 256k', 'write -z 5M 4k']
        nodes.qemu_io(self.path, *commands)
        self.assertEqual(self.expected(), self.mapped())

    def test_compressed_clusters_are_copies(self) -> None:
        self.create('compat=1.1')
        nodes.qemu_io(self.path, 'write -c 2M 64k')
        mapped = self.mapped()
        self.assertIs(Effect.COPIED, mapped[2 * base.MIB // UNIT])
        self.assertEqual(self.expected(), mapped)

    def test_an_external_data_file_makes_copies_too(self) -> None:
        self.create(f'compat=1.1,data_file={self.temporary}/data')
        nodes.qemu_io(self.path, 'write 0 64k', 'write 1M 64k')
        self.assertEqual(self.expected(), self.mapped())

    def test_internal_snapshots_do_not_matter(self) -> None:
        self.create('compat=1.1')
        nodes.qemu_io(self.path, 'write 0 64k')
        nodes.qemu_img('snapshot', '-c', 'one', self.path)
        nodes.qemu_io(self.path, 'write 1M 64k')
        self.assertEqual(self.expected(), self.mapped())

    def test_what_a_smaller_disk_cannot_see_is_left_out(self) -> None:
        self.create('compat=1.1', base.MIB)
        self.assertEqual(base.MIB // UNIT, len(self.mapped()))
        self.assertEqual([], self.mapped(2 * base.MIB, 3 * base.MIB))

    def test_a_larger_disk_is_its_own_past_the_base_file(self) -> None:
        self.create('compat=1.1', 2**40)
        nodes.qemu_io(self.path, f'write {2**39} 64k')
        self.assertIn(Effect.COPIED, self.mapped(2**39, 2**39 + 65536))

    @ddt.data(b'', b'x' * 600, b'QFI\xfb', b'QFI\xfb\0\0\0\7' + b'\0' * 600)
    def test_no_qcow2_has_no_map(self, data: bytes) -> None:
        with open(self.path, 'wb') as file:
            file.write(data)
        self.assertRaises(qcow2_map.NoMap, self.mapped)

    def test_tables_that_point_to_nowhere_have_no_map(self) -> None:
        self.create('compat=1.1')
        nodes.qemu_io(self.path, 'write 0 64k')
        with open(self.path, 'r+b') as file:
            file.seek(40)
            file.write(struct.pack('>Q', 2**60))
        self.assertRaises(qcow2_map.NoMap, self.mapped)
