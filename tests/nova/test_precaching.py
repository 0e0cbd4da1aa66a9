# SPDX-License-Identifier: Apache-2.0

"""Precaching through Nova's compute manager, with its own download path."""

import os
from typing import Any
from unittest import mock

from nova.compute import manager as compute_manager
from nova import exception
from oslo_utils.fixture import uuidsentinel

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.nova import gate
from tests.nova import base
from tests.support import base as plain

DATA = b'an image' * 8192


class PrecachingTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = names.get_cache_fname(base.IMAGE)
        self.path = self.node.base_path(self.name)
        self.locked: list[str] = []
        api = mock.Mock(spec=['download', 'get'])
        api.download.side_effect = self.download
        api.get.return_value = {'disk_format': 'raw'}
        self.api = api
        self.stub_out('nova.virt.images.IMAGE_API', api)

    def download(
        self, _context: Any, _image: str, dest_path: str, **_kwargs: Any
    ) -> None:
        """Give what Glance would, and note whether the locks are held."""
        there = layouts.Layout('/elsewhere', self.node.layout.base)
        with locks.remover_lock(there, [self.name]) as refused:
            self.assertIn(self.name, refused)
        try:
            with locks.nova_lock(self.node.layout, self.name, blocking=False):
                pass
        except errors.Locked:
            self.locked.append(self.name)
        with open(dest_path, 'wb') as file:
            file.write(DATA)

    def cache(self) -> Any:
        return self.driver.cache_image(self.context, base.IMAGE)

    def read(self) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read()

    def test_an_image_is_fetched_under_its_locks(self) -> None:
        self.assertIs(True, self.cache())
        self.assertEqual([self.name], self.locked)
        self.assertEqual(DATA, self.read())
        self.assertEqual({self.name}, self.node.files())

    def test_the_directory_is_made_where_nothing_was_ever_cached(self) -> None:
        os.rmdir(self.node.layout.base)
        self.assertIs(True, self.cache())
        self.assertEqual(DATA, self.read())

    def test_an_image_that_is_there_is_used_now(self) -> None:
        self.node.add_image(base.IMAGE, age=plain.DAY)
        before = os.stat(self.path)
        self.assertIs(False, self.cache())
        after = os.stat(self.path)
        self.assertEqual(before.st_ino, after.st_ino)
        self.assertGreater(after.st_mtime, before.st_mtime + plain.HOUR)
        self.api.download.assert_not_called()

    def test_an_image_in_the_trash_comes_back(self) -> None:
        data = b'x' * plain.KIB
        self.node.add_image(base.IMAGE, data=data, age=365 * plain.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        self.assertIs(False, self.cache())
        self.assertEqual(data, self.read())
        self.assertEqual(set(), self.node.trash())
        self.api.download.assert_not_called()

    def test_a_bad_base_file_of_nobody_is_fetched_anew(self) -> None:
        self.add_bad_image(base.IMAGE)
        self.assertIs(True, self.cache())
        self.assertEqual(DATA, self.read())
        self.assertEqual({self.name}, self.node.trash())

    def test_a_bad_base_file_of_late_is_an_error_and_gets_no_younger(
        self,
    ) -> None:
        self.add_bad_image(base.IMAGE)
        self.node.set_age(self.name, 60)
        before = os.stat(self.path)
        self.assertRaises(gate.DamagedBaseFile, self.cache)
        self.assertEqual(before.st_mtime_ns, os.stat(self.path).st_mtime_ns)
        self.api.download.assert_not_called()

    def test_values_that_make_no_sense_do_not_keep_it_from_working(
        self,
    ) -> None:
        self.options(checksum_interval_seconds=-1)
        self.assertIs(True, self.cache())

    def test_a_fetch_that_fails_leaves_nothing_odd(self) -> None:
        def fail(_context: Any, _image: str, dest_path: str, **_: Any) -> None:
            with open(dest_path, 'wb') as file:
                file.write(DATA[:100])
            raise exception.ImageNotFound(image_id=base.IMAGE)

        self.api.download.side_effect = fail
        self.assertRaises(exception.ImageNotFound, self.cache)
        self.assertEqual(set(), self.node.files())
        self.api.download.side_effect = self.download
        self.assertIs(True, self.cache())

    def test_an_image_that_nova_refuses_is_not_cached(self) -> None:
        self.api.get.return_value = {'disk_format': 'qcow2'}
        self.assertRaises(exception.ImageUnacceptable, self.cache)
        self.assertEqual(set(), self.node.files())

    def test_nova_says_what_became_of_each_image(self) -> None:
        compute = compute_manager.ComputeManager()
        self.addCleanup(compute.driver.image_cache_manager.stop)
        self.node.add_image(uuidsentinel.there)

        def download(context: Any, image: str, **kwargs: Any) -> None:
            if image == uuidsentinel.gone:
                raise exception.ImageNotFound(image_id=image)
            self.download(context, image, **kwargs)

        self.api.download.side_effect = download
        self.assertEqual(
            {
                base.IMAGE: 'cached',
                uuidsentinel.there: 'existing',
                uuidsentinel.gone: 'error',
            },
            compute.cache_images(
                self.context,
                [base.IMAGE, uuidsentinel.there, uuidsentinel.gone],
            ),
        )
