# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator
import types
from typing import Any

import ddt

from nova_imagecache import names
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import testimonies
from tests.support import base

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'
SHA = names.get_cache_fname(IMAGE)


def instance(uuid: str | None = GUEST, **fields: Any) -> dict[str, Any]:
    return {'uuid': uuid, 'image_ref': IMAGE} | fields


def swap(size: int, **fields: Any) -> dict[str, Any]:
    return blank(size, guest_format='swap') | fields


def blank(size: int, **fields: Any) -> dict[str, Any]:
    return {
        'source_type': 'blank',
        'destination_type': 'local',
        'guest_format': None,
        'volume_size': size,
    } | fields


class NovaLikeInstance:
    """Has Nova's fields, and raises on all that would cost a query."""

    uuid = GUEST
    name = 'instance-00000001'
    host = 'compute'
    image_ref = IMAGE
    kernel_id = ''
    ramdisk_id = ''
    task_state = None
    vm_state = 'active'

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f'{name} was lazily loaded')


class LikeARow:
    """Nothing but item access."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]


@ddt.ddt
class InstanceTest(base.TestCase):
    def look(
        self, given: Any, *base_files: str, mappings: Any = None
    ) -> testimonies.Testimony:
        witness = instances.InstanceWitness(given, mappings)
        return witness.look(base_files or (SHA,))

    @ddt.data(
        instance(),
        types.SimpleNamespace(**instance()),
        LikeARow(**instance()),
        instance(task_state='resize_migrated', vm_state='resized'),
        instance(vm_state='soft-delete', host=None),
        instance(vm_state='shelved_offloaded', host='elsewhere'),
    )
    def test_an_instance_uses_its_image(self, given: Any) -> None:
        testimony = self.look([given])
        self.assertEqual((), testimony.failures)
        self.assertEqual({SHA: {GUEST}}, testimony.users)
        self.assertEqual({SHA: IMAGE}, testimony.images)

    def test_a_list_of_instances_shows_no_user(self) -> None:
        testimony = testimonies.combine([self.look([instance()])])
        self.assertEqual({SHA}, set(testimony.users))
        self.assertEqual(frozenset(), testimony.shown)

    def test_no_field_that_nova_loads_lazily_is_touched(self) -> None:
        testimony = self.look([NovaLikeInstance()])
        self.assertEqual((), testimony.failures)
        self.assertEqual({SHA: {GUEST}}, testimony.users)

    def test_kernel_and_ramdisk_count(self) -> None:
        given = instance(kernel_id='k', ramdisk_id='r')
        files = [names.get_cache_fname('k'), names.get_cache_fname('r')]
        self.assertEqual(set(files), set(self.look([given], *files).users))

    def test_resized_and_legacy_files_of_the_image_count(self) -> None:
        files = [f'{SHA}_20', f'{SHA}_sm', SHA]
        self.assertEqual(
            set(files), set(self.look([instance()], *files).users)
        )

    def test_a_guest_that_boots_from_a_volume_uses_no_image(self) -> None:
        for image in ('', None):
            testimony = self.look(
                [instance(image_ref=image)], names.get_cache_fname('')
            )
            self.assertEqual({}, testimony.users)
            self.assertEqual((), testimony.failures)

    def test_every_swap_and_ephemeral_device_counts(self) -> None:
        mappings = {
            GUEST: [swap(64), swap(128), blank(1), blank(20)],
            OTHER: [types.SimpleNamespace(**blank(20))],
        }
        files = [
            'swap_64', 'swap_128', 'swap_1', 'swap_20', 'ephemeral_1_0706d66',
            'ephemeral_20_0706d66', 'ephemeral_20_abcdef0',
            'ephemeral_64_0706d66',
        ]  # fmt: skip
        testimony = self.look(
            [instance(), instance(OTHER)], *files, mappings=mappings
        )
        self.assertEqual(
            {
                'swap_64': {GUEST},
                'swap_128': {GUEST},
                'ephemeral_1_0706d66': {GUEST},
                'ephemeral_20_0706d66': {GUEST, OTHER},
                'ephemeral_20_abcdef0': {GUEST, OTHER},
            },
            testimony.users,
        )

    def test_a_device_of_unknown_size_uses_no_file_of_another_size(
        self,
    ) -> None:
        mappings = {GUEST: [swap(1, volume_size=None), blank(20)]}
        testimony = self.look(
            [instance()],
            'swap_1',
            'ephemeral_20_0706d66',
            mappings=mappings,
        )
        self.assertEqual({'ephemeral_20_0706d66': {GUEST}}, testimony.users)
        self.assertEqual((), testimony.failures)

    def test_a_device_that_says_nothing_of_swap_is_ephemeral(self) -> None:
        device = blank(20)
        del device['guest_format']
        testimony = self.look(
            [instance()],
            'swap_20',
            'ephemeral_20_0706d66',
            mappings={GUEST: [device]},
        )
        self.assertEqual({'ephemeral_20_0706d66': {GUEST}}, testimony.users)
        self.assertEqual((), testimony.failures)

    @ddt.data(
        {'source_type': 'image'},
        {'source_type': 'volume'},
        {'destination_type': 'volume'},
    )
    def test_other_devices_do_not(self, fields: dict[str, str]) -> None:
        mappings = {GUEST: [swap(64, **fields)]}
        testimony = self.look([instance()], 'swap_64', mappings=mappings)
        self.assertEqual({}, testimony.users)

    def test_no_list_is_a_failure(self) -> None:
        self.assertEqual(1, len(self.look(None).failures))
        self.assertEqual((), self.look([]).failures)

    def test_a_list_that_breaks_off_is_a_failure(self) -> None:
        def listing() -> Iterator[Any]:
            yield instance()
            raise ConnectionError('the database has gone')

        (failure,) = self.look(listing()).failures
        self.assertIn('the database has gone', failure)

    @ddt.data(
        {'uuid': GUEST},
        {'image_ref': IMAGE},
        None,
        42,
        types.SimpleNamespace(uuid=GUEST),
        instance(None),
        instance(image_ref='\udcff'),
    )
    def test_an_instance_that_cannot_be_read_is_a_failure(
        self, given: Any
    ) -> None:
        testimony = self.look([given, instance(OTHER)])
        self.assertEqual(1, len(testimony.failures))
        self.assertEqual({SHA: {OTHER}}, testimony.users)

    def test_a_name_that_is_none_does_no_harm(self) -> None:
        for name in (None, ['x'], 7):
            testimony = self.look([instance(name=name)])
            self.assertEqual({SHA: {GUEST}}, testimony.users)
            self.assertEqual((), testimony.failures)

    def test_a_mapping_that_cannot_be_read_is_a_failure(self) -> None:
        testimony = self.look([instance()], mappings={GUEST: [{'no': 1}]})
        self.assertIn(GUEST, testimony.failures[0])

    def test_a_directory_with_the_instances_name_is_the_instances(
        self,
    ) -> None:
        said = self.look([instance(name='instance-00000001')])
        seen = testimonies.Testimony(
            users={SHA: frozenset({'instance-00000001'})}
        )
        self.assertEqual(
            {SHA: {GUEST}}, testimonies.combine([seen, said]).users
        )
