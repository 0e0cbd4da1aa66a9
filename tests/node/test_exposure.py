# SPDX-License-Identifier: Apache-2.0

import random
import struct
from typing import Any

from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import qcow2_map
from tests.support import base
from tests.support import nodes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
Effect = qcow2_map.Effect
SIZE = 8 * base.MIB
CLUSTER = 64 * base.KIB


class ExposureTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image(
            'image', data=random.Random(1).randbytes(SIZE)
        )
        self.disk = self.node.add_overlay(GUEST, self.name)
        self.node.configure(checksum=True)
        self.node.run()

    def damage(self, offset: int) -> list[exposure.Exposure]:
        nodes.flip_bit(self.node.base_path(self.name), offset)
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
        nodes.qemu_io(other, f'write {CLUSTER + 8192} 4k', 'write -z 128k 64k')
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
        nodes.flip_bit(self.node.base_path(self.name), CLUSTER + 5)
        nodes.qemu_io(self.disk, f'write {CLUSTER + 8192} 4k')
        bad = random.Random(1).randbytes(SIZE)[CLUSTER + 5] ^ 8
        nodes.qemu_io(self.disk, f'read -P {bad} {CLUSTER + 5} 1')

    def test_a_snapshot_is_followed_through_its_layers(self) -> None:
        nodes.qemu_io(self.disk, 'write 64k 64k')
        top = self.node.add_overlay(
            GUEST, self.disk, disk='disk.snap', form='qcow2'
        )
        nodes.qemu_io(top, 'write -z 128k 64k')
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
        nodes.qemu_img(
            'create', '-f', 'qcow2', self.node.base_path(name), '1M'
        )
        self.node.add_overlay(OTHER, name, form='qcow2')
        self.node.run()
        nodes.flip_bit(self.node.base_path(name), 65537)
        file = self.file_of(self.node.run(), name)
        self.assertEqual(((OTHER,), ()), (file.users, file.exposures))

    def test_damage_all_over_is_not_looked_up_for_ever(self) -> None:
        self.patch(exposure, '_MOST_EXTENTS', 5)
        self.patch(exposure, '_EXTENTS_EACH', 5)
        nodes.qemu_io(self.disk, *(f'write {n * 128}k 64k' for n in range(9)))
        effects = self.effects(self.damage(5))
        self.assertEqual(
            [(0, 4 * base.MIB, Effect.UNKNOWN)], effects[GUEST, 'disk']
        )

    def test_a_forged_disk_takes_nothing_from_the_others(self) -> None:
        self.patch(exposure, '_MOST_EXTENTS', 20)
        self.patch(exposure, '_EXTENTS_EACH', 10)
        other = self.node.add_overlay(OTHER, self.name)
        nodes.qemu_io(other, *(f'write {n * 128}k 64k' for n in range(20)))
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
