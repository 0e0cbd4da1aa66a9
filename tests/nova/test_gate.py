# SPDX-License-Identifier: Apache-2.0

"""No new disk from a base file that is known to be bad; real files."""

import contextlib
import errno
import os
from typing import Any
from unittest import mock

from nova.compute import manager as compute_manager
from nova import exception

from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache import names
from nova_imagecache.nova import manager
from tests import base as plain
from tests.nova import base

FRESH = b'fresh' * 8192
OTHER = 'a guest of before'


class GateTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.guest = self.instance(image_ref=base.IMAGE)
        self.image = self.disk(self.guest)
        self.name = names.get_cache_fname(base.IMAGE)
        self.path = self.node.base_path(self.name)
        self.fetched = 0

    def fetch(self, target: str, **_kwargs: Any) -> None:
        self.fetched += 1
        with open(target, 'wb') as file:
            file.write(FRESH)

    def make_disk(self) -> None:
        """Make the disk of the guest, as spawn and rebuild have it made."""
        self.driver._try_fetch_image_cache(
            self.image,
            self.fetch,
            self.context,
            self.name,
            base.IMAGE,
            self.guest,
            plain.MIB,
        )

    def backing_file(self) -> Any:
        return plain.backing_chain(self.image.path)[0]['backing-filename']

    def assert_made_anew(self) -> None:
        self.assertEqual(1, self.fetched)
        with open(self.path, 'rb') as file:
            self.assertEqual(FRESH, file.read())
        self.assertEqual(self.path, self.backing_file())

    def assert_made_of_what_was_there(self) -> None:
        self.assertEqual(0, self.fetched)
        self.assertEqual(self.path, self.backing_file())

    def test_an_image_that_is_not_cached_is_fetched(self) -> None:
        self.make_disk()
        self.assert_made_anew()

    def test_a_good_base_file_is_used_and_not_read(self) -> None:
        self.node.add_image(base.IMAGE, age=plain.HOUR)
        self.node.run()
        with mock.patch.object(self.image, 'exists', autospec=True) as exists:
            self.driver.image_cache_manager.check_sound(
                self.name, base.IMAGE, self.image.exists
            )
            exists.assert_not_called()
        self.make_disk()
        self.assert_made_of_what_was_there()

    def test_a_bad_base_file_of_nobody_is_set_aside_and_fetched_anew(
        self,
    ) -> None:
        self.add_bad_image(base.IMAGE)
        self.make_disk()
        self.assert_made_anew()
        self.assertEqual({self.name}, self.node.trash())
        self.assertIn('fetched anew', self.output)
        # What was known of the bad one is not held against the new one.
        self.assertIsNone(self.driver.image_cache_manager.damage_of(self.name))

    def test_no_disk_is_made_from_a_bad_base_file_in_use(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(OTHER, self.name)
        error = self.assertRaises(manager.DamagedBaseFile, self.make_disk)
        self.assertIn('is corrupt', str(error))
        self.assertIn(base.IMAGE, str(error))
        self.assertFalse(os.path.exists(self.image.path))
        self.assertEqual(0, self.fetched)
        self.assertIn(self.name, self.node.files())

    def test_no_disk_is_made_from_a_bad_base_file_used_just_now(self) -> None:
        self.add_bad_image(base.IMAGE, age=plain.HOUR)
        self.node.set_age(self.name, 60)
        self.assertRaises(manager.DamagedBaseFile, self.make_disk)
        self.assertFalse(os.path.exists(self.image.path))

    def test_a_disk_that_is_there_is_never_stopped(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.add_overlay(self.guest.uuid, self.name)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('is started from base file', self.output)
        self.assertEqual(set(), self.node.trash())

    def test_the_operator_may_have_disks_made_from_bad_base_files(
        self,
    ) -> None:
        self.options(refuse_damaged_base_images=False)
        self.add_bad_image(base.IMAGE)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('is started from base file', self.output)

    def test_a_value_that_makes_no_sense_stops_no_build(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.options(checksum_interval_seconds=-1)
        self.make_disk()
        self.assert_made_of_what_was_there()
        self.assertIn('is sound cannot be told', self.output)

    def test_an_error_of_any_kind_stops_no_build(self) -> None:
        self.add_bad_image(base.IMAGE)
        for error in (OSError(errno.EIO, 'Input/output error'), KeyError(1)):
            with mock.patch.object(
                knowledges, 'recall', autospec=True, side_effect=error
            ):
                self.make_disk()
            self.assert_made_of_what_was_there()
            self.assertIn('is sound cannot be told', self.output)

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
        self.assertIn(f'Base file {self.name}', str(error))
