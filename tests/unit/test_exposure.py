# SPDX-License-Identifier: Apache-2.0

"""What damage in a base file does to guests, on real qcow2 disks."""

import json
import os
import random
import struct
import subprocess
from typing import Any

import ddt

from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import qcow2_map
from tests import base

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
Effect = qcow2_map.Effect
SIZE = 8 * base.MIB
CLUSTER = 64 * base.KIB
UNIT = 512

VARIANTS = (
    'compat=0.10', 'compat=1.1', 'compat=1.1,extended_l2=on',
    'compat=1.1,cluster_size=4096', 'compat=1.1,cluster_size=2M',
    'compat=1.1,compression_type=zstd', 'compat=1.1,lazy_refcounts=on',
)  # fmt: skip


def qemu_io(path: str, *commands: str) -> None:
    args = [part for command in commands for part in ('-c', command)]
    subprocess.run(
        ['qemu-io', '-f', 'qcow2', *args, path], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


@ddt.ddt
class MapTest(base.NodeTestCase):
    """Our reading of the tables against qemu-img map."""

    def setUp(self) -> None:
        super().setUp()
        self.base = self.node.add_base(
            'f' * 40, data=random.Random(1).randbytes(SIZE)
        )
        self.path = os.path.join(self.temporary, 'disk')

    def create(self, options: str, size: int = SIZE) -> None:
        base.qemu_img(
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
        output = base.qemu_img('map', '--output=json', '-U', self.path)
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
        qemu_io(self.path, *commands)
        self.assertEqual(self.expected(), self.mapped())

    def test_compressed_clusters_are_copies(self) -> None:
        self.create('compat=1.1')
        qemu_io(self.path, 'write -c 2M 64k')
        mapped = self.mapped()
        self.assertIs(Effect.COPIED, mapped[2 * base.MIB // UNIT])
        self.assertEqual(self.expected(), mapped)

    def test_an_external_data_file_makes_copies_too(self) -> None:
        self.create(f'compat=1.1,data_file={self.temporary}/data')
        qemu_io(self.path, 'write 0 64k', 'write 1M 64k')
        self.assertEqual(self.expected(), self.mapped())

    def test_internal_snapshots_do_not_matter(self) -> None:
        self.create('compat=1.1')
        qemu_io(self.path, 'write 0 64k')
        base.qemu_img('snapshot', '-c', 'one', self.path)
        qemu_io(self.path, 'write 1M 64k')
        self.assertEqual(self.expected(), self.mapped())

    def test_what_a_smaller_disk_cannot_see_is_left_out(self) -> None:
        self.create('compat=1.1', base.MIB)
        self.assertEqual(base.MIB // UNIT, len(self.mapped()))
        self.assertEqual([], self.mapped(2 * base.MIB, 3 * base.MIB))

    def test_a_larger_disk_is_its_own_past_the_base_file(self) -> None:
        self.create('compat=1.1', 2**40)
        qemu_io(self.path, f'write {2**39} 64k')
        self.assertIn(Effect.COPIED, self.mapped(2**39, 2**39 + 65536))

    @ddt.data(b'', b'x' * 600, b'QFI\xfb', b'QFI\xfb\0\0\0\7' + b'\0' * 600)
    def test_no_qcow2_has_no_map(self, data: bytes) -> None:
        with open(self.path, 'wb') as file:
            file.write(data)
        self.assertRaises(qcow2_map.NoMap, self.mapped)

    def test_tables_that_point_to_nowhere_have_no_map(self) -> None:
        self.create('compat=1.1')
        qemu_io(self.path, 'write 0 64k')
        with open(self.path, 'r+b') as file:
            file.seek(40)
            file.write(struct.pack('>Q', 2**60))
        self.assertRaises(qcow2_map.NoMap, self.mapped)


class ExposureTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image(
            'image', data=random.Random(1).randbytes(SIZE)
        )
        self.disk = self.node.add_overlay(GUEST, self.name)
        self.node.configure(checksum=True)
        self.node.run()

    def damage(self, offset: int) -> list[exposure.Exposure]:
        base.flip_bit(self.node.base_path(self.name), offset)
        report = self.node.run()
        return list(self.file_of(report, self.name).exposures)

    def effects(self, found: list[exposure.Exposure]) -> dict[Any, Any]:
        return {
            (each.guest, each.disk): [
                (extent.start, extent.end, extent.effect)
                for extent in each.extents
            ]
            for each in found
        }

    def test_each_guest_fares_in_its_own_way(self) -> None:
        other = self.node.add_overlay(OTHER, self.name)
        # A write of 4 KiB copies the rest of its cluster up.
        qemu_io(other, f'write {CLUSTER + 8192} 4k', 'write -z 128k 64k')
        effects = self.effects(self.damage(CLUSTER + 5))
        end = 4 * base.MIB
        self.assertEqual(
            {
                (GUEST, 'disk'): [(0, end, Effect.READS_THROUGH)],
                (OTHER, 'disk'): [
                    (0, CLUSTER, Effect.READS_THROUGH),
                    (CLUSTER, 2 * CLUSTER, Effect.COPIED),
                    (2 * CLUSTER, 3 * CLUSTER, Effect.ZEROED),
                    (3 * CLUSTER, end, Effect.READS_THROUGH),
                ],
            },
            effects,
        )
        self.assertIn(GUEST, self.node.run().corrupt[0].users)

    def test_a_copy_may_carry_the_damage(self) -> None:
        """What the documentation says of QEMU: it copies the bad bytes up."""
        base.flip_bit(self.node.base_path(self.name), CLUSTER + 5)
        qemu_io(self.disk, f'write {CLUSTER + 8192} 4k')
        bad = random.Random(1).randbytes(SIZE)[CLUSTER + 5] ^ 8
        qemu_io(self.disk, f'read -P {bad} {CLUSTER + 5} 1')

    def test_a_snapshot_is_followed_through_its_layers(self) -> None:
        qemu_io(self.disk, 'write 64k 64k')
        top = self.node.add_overlay(
            GUEST, self.disk, disk='disk.snap', form='qcow2'
        )
        qemu_io(top, 'write -z 128k 64k')
        effects = self.effects(self.damage(5))
        self.assertEqual([(GUEST, 'disk.snap')], list(effects))
        self.assertEqual(
            [
                (0, CLUSTER, Effect.READS_THROUGH),
                (CLUSTER, 2 * CLUSTER, Effect.COPIED),
                (2 * CLUSTER, 3 * CLUSTER, Effect.ZEROED),
                (3 * CLUSTER, 4 * base.MIB, Effect.READS_THROUGH),
            ],
            effects[GUEST, 'disk.snap'],
        )

    def test_a_disk_that_cannot_be_made_out_is_unknown(self) -> None:
        with open(self.disk, 'r+b') as file:
            file.seek(36)
            file.write(b'\xff' * 12)
        effects = self.effects(self.damage(5))
        self.assertEqual(
            [(0, 4 * base.MIB, Effect.UNKNOWN)], effects[GUEST, 'disk']
        )

    def test_offsets_in_a_qcow2_base_file_are_not_those_of_guests(
        self,
    ) -> None:
        name = self.node.add_image('qcow2', data=b'')
        base.qemu_img('create', '-f', 'qcow2', self.node.base_path(name), '1M')
        self.node.add_overlay(OTHER, name, form='qcow2')
        self.node.run()
        base.flip_bit(self.node.base_path(name), 65537)
        file = self.file_of(self.node.run(), name)
        self.assertEqual(((OTHER,), ()), (file.users, file.exposures))

    def test_damage_all_over_is_not_looked_up_for_ever(self) -> None:
        self.patch(exposure, '_MOST_EXTENTS', 5)
        self.patch(exposure, '_EXTENTS_EACH', 5)
        qemu_io(self.disk, *(f'write {n * 128}k 64k' for n in range(9)))
        effects = self.effects(self.damage(5))
        self.assertEqual(
            [(0, 4 * base.MIB, Effect.UNKNOWN)], effects[GUEST, 'disk']
        )

    def test_a_forged_disk_takes_nothing_from_the_others(self) -> None:
        self.patch(exposure, '_MOST_EXTENTS', 20)
        self.patch(exposure, '_EXTENTS_EACH', 10)
        other = self.node.add_overlay(OTHER, self.name)
        qemu_io(other, *(f'write {n * 128}k 64k' for n in range(20)))
        effects = self.effects(self.damage(5))
        self.assertEqual(
            [(0, 4 * base.MIB, Effect.READS_THROUGH)], effects[GUEST, 'disk']
        )
        self.assertEqual(
            [(0, 4 * base.MIB, Effect.UNKNOWN)], effects[OTHER, 'disk']
        )

    def test_a_disk_of_very_many_layers_is_not_followed(self) -> None:
        self.patch(exposure, '_MOST_LAYERS', 2)
        disk = self.disk
        for number in range(2):
            disk = self.node.add_overlay(
                GUEST, disk, disk=f'disk.{number}', form='qcow2'
            )
        effects = self.effects(self.damage(5))
        self.assertEqual(
            [(0, 4 * base.MIB, Effect.UNKNOWN)], effects[GUEST, 'disk.1']
        )

    def test_forged_headers_that_name_each_other_come_to_an_end(self) -> None:
        for number in range(30):
            names = ' '.join(f'd{each}' for each in range(30))
            header = f'json: {names} {self.name}'.encode()
            data = struct.pack('>4sIQI', b'QFI\xfb', 2, 104, len(header))
            self.node.add_file(
                GUEST, f'd{number}',
                data=data.ljust(104, b'\0') + header + bytes(600),
            )  # fmt: skip
        self.assertIn(GUEST, {each.guest for each in self.damage(5)})
