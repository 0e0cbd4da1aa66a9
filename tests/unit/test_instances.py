# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator
import types
from typing import Any

import ddt

from nova_imagecache import names
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import needs
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
        self.assertEqual((), testimony.vetoes)
        self.assertEqual({SHA: {GUEST}}, testimony.users)
        self.assertEqual({SHA: IMAGE}, testimony.images)

    def test_a_list_of_instances_shows_no_user(self) -> None:
        testimony = testimonies.combine([self.look([instance()])])
        self.assertEqual({SHA}, set(testimony.users))
        self.assertEqual(frozenset(), testimony.shown)

    def test_no_field_that_nova_loads_lazily_is_touched(self) -> None:
        testimony = self.look([NovaLikeInstance()])
        self.assertEqual((), testimony.vetoes)
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
            self.assertEqual((), testimony.vetoes)

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
        self.assertEqual((), testimony.vetoes)

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
        self.assertEqual((), testimony.vetoes)

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
        self.assertEqual(1, len(self.look(None).vetoes))
        self.assertEqual((), self.look([]).vetoes)

    def test_a_list_that_breaks_off_is_a_failure(self) -> None:
        def listing() -> Iterator[Any]:
            yield instance()
            raise ConnectionError('the database has gone')

        (failure,) = self.look(listing()).vetoes
        self.assertIn('the database has gone', str(failure))

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
        self.assertEqual(1, len(testimony.vetoes))
        self.assertEqual({SHA: {OTHER}}, testimony.users)

    def test_a_name_that_is_none_does_no_harm(self) -> None:
        for name in (None, ['x'], 7):
            testimony = self.look([instance(name=name)])
            self.assertEqual({SHA: {GUEST}}, testimony.users)
            self.assertEqual((), testimony.vetoes)

    def test_a_mapping_that_cannot_be_read_is_a_failure(self) -> None:
        testimony = self.look([instance()], mappings={GUEST: [{'no': 1}]})
        self.assertIn(GUEST, str(testimony.vetoes[0]))

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


@ddt.ddt
class ExpectedTest(base.TestCase):
    """Which guests this host has, and where their directories are."""

    def look(
        self, *given: Any, host: str | None = 'here', mappings: Any = None
    ) -> testimonies.Testimony:
        witness = instances.InstanceWitness(given, mappings, host)
        return witness.look((SHA,))

    def here(self, **fields: Any) -> dict[str, Any]:
        found = {'name': 'i-1', 'host': 'here', 'vm_state': 'active'}
        return instance(**(found | fields))

    @ddt.data(
        'active', 'paused', 'rescued', 'resized', 'soft-delete', 'stopped',
        'suspended',
    )  # fmt: skip
    def test_one_that_is_built_has_a_directory(self, state: str) -> None:
        found = self.look(self.here(vm_state=state)).expected
        self.assertEqual({GUEST: {GUEST, 'i-1'}}, found)

    @ddt.data(
        {'vm_state': 'building'},
        {'vm_state': 'error'},
        {'vm_state': 'deleted'},
        {'vm_state': 'shelved_offloaded'},
        {'vm_state': None},
        {'task_state': 'migrating'},
        {'task_state': 'deleting'},
    )
    def test_one_that_is_not_need_not_have_one(
        self, fields: dict[str, Any]
    ) -> None:
        found = self.look(self.here(**fields)).expected
        self.assertEqual({GUEST: frozenset()}, found)

    def test_those_of_other_hosts_are_not_expected(self) -> None:
        found = self.look(self.here(host='there')).expected
        self.assertEqual({}, found)

    def test_no_guest_at_all_is_an_answer(self) -> None:
        self.assertEqual({}, self.look().expected)

    def test_where_no_host_is_told_it_is_not_known(self) -> None:
        self.assertIsNone(self.look(instance()).expected)
        self.assertIsNone(self.look(self.here(), host=None).expected)

    def test_one_that_names_no_host_among_others_is_not_expected(
        self,
    ) -> None:
        found = self.look(self.here(), instance(OTHER)).expected
        self.assertEqual({GUEST}, {*(found or ())})

    def test_what_it_may_need_is_known_wherever_it_is(self) -> None:
        found = self.look(self.here(host='there'), mappings={GUEST: [swap(5)]})
        self.assertEqual({GUEST: {SHA, 'swap_5'}}, found.known)

    def test_without_mappings_that_is_any_device(self) -> None:
        found = self.look(self.here())
        self.assertEqual({GUEST: {SHA} | needs.ANY_DEVICE}, found.known)

    @ddt.data(
        {'vm_state': 'rescued'},
        {'task_state': 'rescuing'},
        {'task_state': 'unrescuing'},
    )
    def test_of_one_that_is_rescued_it_is_not_known(
        self, fields: dict[str, Any]
    ) -> None:
        self.assertEqual({}, self.look(self.here(**fields)).known)

    def test_only_those_of_this_host_need_what_no_disk_shows(self) -> None:
        for host, said in (
            ('here', {SHA}), ('there', set()), (None, {SHA})
        ):  # fmt: skip
            found = self.look(self.here(host=host), self.here(uuid=OTHER,
                              image_ref='x', host='here'))  # fmt: skip
            self.assertEqual(said, {*found.said}, str(host))
