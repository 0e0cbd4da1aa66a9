# SPDX-License-Identifier: Apache-2.0

"""No new disk from a base file that is known to be bad; real files."""

import contextlib
import errno
import inspect
import os
import sys
import threading
import time
from typing import Any
from unittest import mock
import uuid

import ddt
from nova.compute import manager as compute_manager
from nova.compute import vm_states
from nova import exception
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import utils as libvirt_utils
from oslo_utils.fixture import uuidsentinel

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import trash
from nova_imagecache import coalesce
from nova_imagecache.content import knowledge
from nova_imagecache.content import sidecars
from nova_imagecache import names
from nova_imagecache.nova import gate
from tests.nova import base
from tests.support import base as plain
from tests.support import libvirt_guests
from tests.support import nodes
from tests.support import turns

FRESH = b'fresh' * 8192
OTHER = uuidsentinel.other


# What sets a bad file aside cannot list the cache.
_UNLISTED = """
import errno, os
real = os.listdir
def listdir(path='.'):
    if path == {base!r}:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    return real(path)
os.listdir = listdir
"""


@ddt.ddt
class GateTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.guest = self.instance(image_ref=base.IMAGE)
        self.image = self.disk(self.guest)
        self.name = names.get_cache_fname(base.IMAGE)
        self.path = self.node.base_path(self.name)
        self.fetched = 0

    def fetch(self, target: str, **_kwargs: Any) -> None:
        """Write what Glance has."""
        self.fetched += 1
        with open(target, 'wb') as file:
            file.write(FRESH)

    def make_disk(self, image: Any = None) -> None:
        """Make the disk of the guest, as spawn and rebuild have it made."""
        self.driver._try_fetch_image_cache(
            image or self.image,
            self.fetch,
            self.context,
            self.name,
            base.IMAGE,
            self.guest,
            plain.MIB,
        )

    def backing_file(self) -> Any:
        return nodes.backing_chain(self.image.path)[0]['backing-filename']

    def assert_made_anew(self) -> None:
        self.assertEqual(1, self.fetched)
        with open(self.path, 'rb') as file:
            self.assertEqual(FRESH, file.read())
        self.assertEqual(self.path, self.backing_file())

    def assert_made_of_what_was_there(self) -> None:
        self.assertEqual(0, self.fetched)
        self.assertEqual(self.path, self.backing_file())

    def refused_elsewhere(self) -> bool:
        """Say whether another host, with locks of its own, may remove it."""
        there = layouts.Layout('/elsewhere', self.node.layout.base)
        with locks.remover_lock(there, [self.name]) as refused:
            return bool(refused)

    @ddt.data(True, False)
    def test_another_host_removes_nothing_that_is_made_into_a_disk(
        self, cow: bool
    ) -> None:
        kept = []
        backend = gate.Backend(self.driver._gate, cow)
        image = backend.by_name(self.guest, 'disk')
        kind: Any = type(image).__mro__[1]
        real = kind.create_image

        def create_image(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            kept.append(self.refused_elsewhere())

        def fetch(target: str, **kwargs: Any) -> None:
            self.fetch(target, **kwargs)
            kept.append(self.refused_elsewhere())

        self.node.add_directory(self.guest.uuid)
        with plain.patched(kind, 'create_image', create_image):
            image.cache(fetch, self.name, image_id=base.IMAGE)
        self.assertEqual([True, True], kept)
        self.assertFalse(self.refused_elsewhere())

    def test_others_use_a_file_as_soon_as_it_is_fetched(self) -> None:
        """And not only when a disk is made, which may take its time."""
        kind: Any = type(self.image).__mro__[1]
        real = kind.verify_base_size
        done = []

        def verify_base_size(*args: Any, **kwargs: Any) -> Any:
            there = layouts.Layout('/elsewhere', self.node.layout.base)
            with (
                mock.patch.object(time, 'sleep', self.fail),
                locks.user_lock(there, self.name),
            ):
                done.append(True)
            return real(*args, **kwargs)

        with plain.patched(kind, 'verify_base_size', verify_base_size):
            self.make_disk()
        self.assertEqual([True], done)

    def test_a_lock_that_cannot_be_had_stops_no_build(self) -> None:
        with mock.patch.object(
            locks, 'user_lock', autospec=True, side_effect=KeyError(1)
        ):
            self.make_disk()
        self.assert_made_anew()
        self.assertIn('cannot be kept from others', self.output)

    def test_a_disk_that_is_made_in_its_place_waits_for_no_other_host(
        self,
    ) -> None:
        image = self.disk(self.guest, 'disk.swap', 'raw')
        with mock.patch.object(locks, 'user_lock', autospec=True) as lock:
            image.cache(fetch_func=self.fetch, filename='swap_64')
        lock.assert_not_called()

    def test_an_image_that_is_not_cached_is_fetched(self) -> None:
        self.make_disk()
        self.assert_made_anew()

    def trash_image(self) -> bytes:
        """Have the base file be removed for its age; give its content."""
        data = b'removed' * 8192
        self.node.add_image(base.IMAGE, data=data, age=365 * plain.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        return data

    @ddt.data(True, False)
    def test_a_build_finds_its_image_in_the_trash(self, cow: bool) -> None:
        self.flags(use_cow_images=cow)
        self.flags(force_raw_images=True)
        data = self.trash_image()
        backend = gate.Backend(self.driver._gate, cow)
        self.image = backend.by_name(
            self.guest, 'disk', None,
            disk_info_mapping={'bus': 'virtio', 'dev': 'vda', 'type': 'disk'},
        )  # fmt: skip
        self.node.add_directory(self.guest.uuid)
        self.make_disk()
        self.assertEqual(0, self.fetched)
        self.assertEqual(set(), self.node.trash())
        self.assertEqual({self.name}, self.node.files())
        with open(self.path, 'rb') as file:
            self.assertEqual(data, file.read())
        if cow:
            self.assertEqual(self.path, self.backing_file())
        else:
            with open(self.image.path, 'rb') as file:
                self.assertEqual(data, file.read(len(data)))
        # As that of a file that Nova has used just now.
        self.assertLess(time.time() - os.stat(self.path).st_mtime, 60)

    def test_a_bad_copy_in_the_trash_is_not_used(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.assertIsNone(self.driver.image_cache_manager.set_aside(self.name))
        self.assertEqual({self.name}, self.node.trash())
        self.make_disk()
        self.assert_made_anew()
        self.assertEqual({self.name}, self.node.trash())

    @ddt.data(OSError(errno.EIO, 'Input/output error'), KeyError(1))
    def test_a_trash_that_cannot_be_read_stops_no_build(
        self, error: Exception
    ) -> None:
        self.trash_image()
        with mock.patch.object(
            trash, 'scan', autospec=True, side_effect=error
        ):
            self.make_disk()
        self.assert_made_anew()
        self.assertIn('in the trash cannot be told', self.output)

    def test_a_copy_in_the_trash_that_cannot_be_moved_stops_no_build(
        self,
    ) -> None:
        self.trash_image()
        with mock.patch.object(
            trash,
            'move_out',
            autospec=True,
            side_effect=OSError(errno.EIO, 'Input/output error'),
        ):
            self.make_disk()
        self.assert_made_anew()
        self.assertIn('cannot be brought back', self.output)

    def test_what_is_in_the_cache_is_not_taken_from_the_trash(self) -> None:
        self.trash_image()
        self.fetch(self.path)
        self.make_disk()
        self.assert_made_anew()
        self.assertEqual({self.name}, self.node.trash())

    def test_a_good_base_file_is_used_and_not_read(self) -> None:
        self.node.add_image(base.IMAGE, age=plain.HOUR)
        self.node.run()
        exists = mock.Mock()
        opened: list[str] = []

        def note(event: str, arguments: Any) -> None:
            if event == 'open' and watching:
                opened.append(str(arguments[0]))

        watching = True
        # It stays for as long as the process.
        sys.addaudithook(note)
        self.driver._gate.check(self.name, base.IMAGE, exists)
        watching = False
        exists.assert_not_called()
        self.assertIn(self.node.layout.ledger(self.name), opened)
        self.assertNotIn(self.path, opened)
        self.make_disk()
        self.assert_made_of_what_was_there()

    def test_a_bad_base_file_of_nobody_is_set_aside_and_fetched_anew(
        self,
    ) -> None:
        self.add_bad_image(base.IMAGE)
        self.make_disk()
        self.assert_made_anew()
        self.assertEqual({self.name}, self.node.trash())
        self.assertIn('made anew', self.output)
        # What was known of the bad one is not held against the new one.
        self.assertIsNone(self.driver.image_cache_manager.damage_of(self.name))

    def test_no_disk_is_made_from_a_bad_base_file_in_use(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(OTHER, self.name)
        error = self.assertRaises(gate.DamagedBaseFile, self.make_disk)
        self.assertIn('is corrupt', str(error))
        self.assertIn(base.IMAGE, str(error))
        self.assertIn('and stays: used by 1 guest', self.output)
        self.assertFalse(os.path.exists(self.image.path))
        self.assertEqual(0, self.fetched)
        self.assertIn(self.name, self.node.files())

    def test_no_disk_is_made_from_a_bad_base_file_used_just_now(self) -> None:
        self.add_bad_image(base.IMAGE, age=plain.HOUR)
        self.node.set_age(self.name, 60)
        self.assertRaises(gate.DamagedBaseFile, self.make_disk)
        self.assertFalse(os.path.exists(self.image.path))

    def test_the_user_learns_nothing_of_the_host_or_of_others(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_file(OTHER, 'disk', data=b'QFI\xfb')
        error = self.assertRaises(gate.DamagedBaseFile, self.make_disk)
        self.assertIn(OTHER, self.output)
        for secret in (OTHER, self.node.layout.instances):
            self.assertNotIn(secret, str(error))

    def test_of_many_builds_one_sets_it_aside_and_all_go_on(self) -> None:
        self.add_bad_image(base.IMAGE)
        disks = [
            self.disk(self.instance(uuid=str(uuid.uuid4())))
            for _build in range(5)
        ]
        problems = []
        turn = turns.Turn(len(disks))
        real = self.driver.image_cache_manager.set_aside
        calls = []

        def set_aside() -> Any:
            calls.append(self.name)
            if len(calls) == 1:
                turn.wait_for_all()
            return real(self.name)

        attempt = coalesce.Coalesced(set_aside)
        self.enterContext(plain.patched(attempt, '_turn', turn))
        self.driver._gate._attempts[self.name] = attempt

        def build(image: Any) -> None:
            try:
                self.make_disk(image)
            except Exception as error:
                problems.append(error)

        builds = [
            threading.Thread(target=build, args=[image]) for image in disks
        ]
        for each in builds:
            each.start()
        for each in builds:
            each.join()
        self.assertEqual([], problems)
        self.assertEqual(2, len(calls))
        self.assertEqual(1, self.fetched)
        self.assertEqual({self.name}, self.node.trash())

    def test_a_file_that_another_process_made_anew_is_used(self) -> None:
        self.add_bad_image(base.IMAGE)
        real = self.driver.image_cache_manager.set_aside

        def replace_first(name: str) -> Any:
            self.assertIsNone(real(name))
            self.fetch(self.path)
            return real(name)

        with mock.patch.object(
            self.driver.image_cache_manager, 'set_aside', replace_first
        ):
            self.make_disk()
        self.assert_made_anew()

    def test_a_disk_that_is_a_copy_does_not_hold_the_bad_base_file(
        self,
    ) -> None:
        self.add_bad_image(base.IMAGE)
        self.define_guest('raw')
        self.make_disk()
        self.assert_made_anew()

    def test_a_guest_whose_chain_cannot_be_seen_holds_it(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.define_guest('qcow2')
        self.assertRaises(gate.DamagedBaseFile, self.make_disk)

    def define_guest(self, kind: str) -> None:
        """Define a domain of Nova with a disk that is somewhere else."""
        connection = self.driver._host.get_connection()
        domain = connection.defineXML(
            libvirt_guests.guest_xml(OTHER, '/elsewhere', base.IMAGE, kind)
        )
        self.addCleanup(domain.undefine)

    @ddt.data('raw', 'qcow2')
    def test_a_disk_that_needs_no_base_file_is_never_stopped(
        self, kind: str
    ) -> None:
        self.add_bad_image(base.IMAGE)
        self.image = self.disk(self.guest, kind=kind)
        nodes.qemu_img('create', '-q', '-f', kind, self.image.path, '2M')
        fetch = mock.Mock(
            side_effect=exception.ImageNotFound(image_id=base.IMAGE)
        )
        self.image.cache(fetch, self.name, image_id=base.IMAGE)
        fetch.assert_not_called()
        self.assertIn(self.name, self.node.files())
        self.assertIn('used all the same', self.output)

    @ddt.data(
        ('kernel', 'raw', base.IMAGE),
        ('ramdisk', 'raw', base.IMAGE),
        ('disk.eph0', 'qcow2', 'ephemeral_1_40d1d2c'),
        ('disk.swap', 'qcow2', 'swap_64'),
    )
    @ddt.unpack
    def test_whatever_a_guest_is_given_is_checked(
        self, disk: str, kind: str, name: str
    ) -> None:
        of_image = {}
        if name == base.IMAGE:
            of_image, name = {'image_id': name}, self.name
        self.name, self.path = name, self.node.base_path(name)
        self.add_bad(name)
        image = self.disk(self.guest, disk, kind)
        image.cache(fetch_func=self.fetch, filename=name, **of_image)
        self.assertEqual(1, self.fetched)
        self.assertEqual({name}, self.node.trash())
        self.assertIn('is corrupt. Nobody uses it', self.output)

    def test_a_disk_that_is_there_is_never_stopped(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(self.guest.uuid, self.name)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('used all the same', self.output)
        self.assertEqual(set(), self.node.trash())

    def test_the_operator_may_have_disks_made_from_bad_base_files(
        self,
    ) -> None:
        self.options(refuse_damaged_base_images=False)
        self.add_bad_image(base.IMAGE)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('used all the same', self.output)

    def test_a_value_that_makes_no_sense_stops_no_build(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.options(checksum_interval_seconds=-1)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('may be used cannot be told', self.output)

    def test_an_error_of_any_kind_stops_no_build(self) -> None:
        self.add_bad_image(base.IMAGE)
        for error in (OSError(errno.EIO, 'Input/output error'), KeyError(1)):
            with mock.patch.object(
                knowledge, 'recall', autospec=True, side_effect=error
            ):
                self.make_disk()
            self.assert_made_of_what_was_there()
            self.assertIn('may be used cannot be told', self.output)

    @ddt.data('finish_migration', '_hard_reboot')
    def test_a_guest_that_was_there_gets_what_it_lacks(
        self, method: str
    ) -> None:
        self.name, self.path = 'swap_64', self.node.base_path('swap_64')
        self.add_bad('swap_64')
        self.node.add_overlay(OTHER, 'swap_64')
        image = self.disk(self.guest, 'disk.swap')
        # All that there may be.
        signature = inspect.signature(getattr(stock.LibvirtDriver, method))
        arguments = [*signature.parameters][1:]

        # The rest of what Nova does there needs a host.
        def make_swap(_driver: Any, *args: Any) -> None:
            self.assertEqual(arguments, list(args))
            image.cache(fetch_func=self.fetch, filename='swap_64')

        with mock.patch.object(stock.LibvirtDriver, method, make_swap):
            getattr(self.driver, method)(*arguments)
        self.assertTrue(os.path.exists(image.path))
        self.assertIn('used all the same', self.output)
        self.assertRaises(
            gate.DamagedBaseFile,
            self.disk(self.guest, 'disk.eph0').cache,
            self.fetch,
            'swap_64',
        )

    def test_a_disk_that_is_made_in_its_place_needs_no_base_file(
        self,
    ) -> None:
        self.add_bad('swap_64')
        self.node.add_overlay(OTHER, 'swap_64')
        image = self.disk(self.guest, 'disk.swap', 'raw')
        image.cache(fetch_func=self.fetch, filename='swap_64')
        self.assertEqual(1, self.fetched)
        with open(image.path, 'rb') as file:
            self.assertEqual(FRESH, file.read())

    def test_a_cache_that_cannot_be_listed_lets_no_bad_file_through(
        self,
    ) -> None:
        self.add_bad_image(base.IMAGE)
        # Mocked: a disk that returns an error for one directory.
        self.useFixture(
            nodes.Child(_UNLISTED.format(base=self.node.layout.base))
        )
        self.assertRaises(gate.DamagedBaseFile, self.make_disk)
        self.assertIn('and stays: ', self.output)
        self.assertIn('Input/output error', self.output)

    def test_damage_counts_where_the_checksum_cannot_be_read(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(OTHER, self.name)
        with mock.patch.object(
            sidecars,
            'load',
            autospec=True,
            side_effect=OSError(errno.EIO, 'Input/output error'),
        ):
            self.assertRaises(gate.DamagedBaseFile, self.make_disk)

    def test_damage_counts_where_the_ledger_says_nothing(self) -> None:
        self.add_bad_image(base.IMAGE)
        with open(self.node.layout.ledger(self.name), 'w') as file:
            file.write('cut')
        # As the state remembers it.
        self.make_disk()
        self.assert_made_anew()

    def test_a_ledger_that_says_nothing_is_told(self) -> None:
        self.add_bad_image(base.IMAGE)
        with open(self.node.layout.ledger(self.name), 'w') as file:
            file.write('cut')
        os.unlink(self.node.layout.state)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('may be used cannot be told', self.output)

    def test_a_pass_before_the_fetch_does_not_bring_the_bad_file_back(
        self,
    ) -> None:
        self.add_bad_image(base.IMAGE)
        manager = self.driver.image_cache_manager
        manager._clock = self.node.clock
        real = manager.set_aside

        def set_aside(name: str) -> Any:
            self.assertIsNone(real(name))
            manager.update(self.context, [self.guest], {})

        with mock.patch.object(manager, 'set_aside', set_aside):
            self.make_disk()
        self.assert_made_anew()

    def test_the_end_of_a_resize_puts_no_disk_on_a_bad_base(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(OTHER, self.name)
        with self.driver._gate.open():
            self.unshelve()
        (_alone,) = nodes.backing_chain(self.image.path)

    def unshelve(self) -> None:
        """Have a disk on a snapshot rebased to the base of its image."""
        snapshot = self.node.add_image(uuidsentinel.snapshot)
        self.node.add_overlay(self.guest.uuid, snapshot)
        self.guest.vm_state = vm_states.SHELVED_OFFLOADED
        self.guest.system_metadata = {'image_base_image_ref': base.IMAGE}
        with mock.patch.object(libvirt_utils, 'fetch_image', self.fetch):
            self.driver._rebase_original_qcow2_image(
                self.context, self.guest, self.image
            )

    def test_an_unshelved_disk_gets_the_base_of_its_image(self) -> None:
        self.node.add_image(base.IMAGE, age=plain.HOUR)
        self.node.run()
        self.unshelve()
        self.assert_made_of_what_was_there()

    def test_an_unshelved_disk_gets_a_base_that_is_fetched_anew(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.unshelve()
        self.assert_made_anew()

    def test_an_unshelved_disk_gets_no_bad_base(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(OTHER, self.name)
        self.unshelve()
        (_alone,) = nodes.backing_chain(self.image.path)
        self.assertEqual(0, self.fetched)
        self.assertIn('The disk is flattened', self.output)

    def test_the_compute_manager_has_another_host_tried(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(OTHER, self.name)
        compute = compute_manager.ComputeManager()
        self.addCleanup(compute.driver.image_cache_manager.stop)

        @contextlib.contextmanager
        def resources(*_args: Any) -> Any:
            yield {
                'accel_info': [],
                'allocs': {},
                'block_device_info': {},
                'network_info': [],
            }

        with (
            mock.patch.object(compute, '_build_resources', resources),
            plain.patched(compute, 'rt', mock.MagicMock()),
            mock.patch.object(
                compute.driver,
                'spawn',
                autospec=True,
                side_effect=lambda *_args, **_kwargs: self.make_disk(),
            ),
            mock.patch.object(
                compute, '_notify_about_instance_usage', autospec=True
            ),
            mock.patch(
                'nova.compute.utils.notify_about_instance_create',
                autospec=True,
            ),
            plain.patched(self.guest, 'save', mock.Mock()),
            mock.patch.object(
                compute,
                '_get_request_group_mapping',
                autospec=True,
                return_value={},
            ),
        ):
            error = self.assertRaises(
                exception.RescheduledException,
                compute._build_and_run_instance,
                self.context,
                self.guest,
                image={'id': base.IMAGE},
                injected_files=[],
                admin_password='',
                requested_networks=None,
                security_groups=[],
                block_device_mapping=[],
                node='node',
                limits={},
                filter_properties={},
                accel_uuids=[],
            )
        self.assertIn(f'The copy of image {base.IMAGE}', str(error))
