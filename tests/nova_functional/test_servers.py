# SPDX-License-Identifier: Apache-2.0

"""What a server needs stays, whatever is done to it; then it goes.

On one host. Each time so much time passes that only what is known to be used
is left.
"""

import os
import shutil
from typing import Any

from nova_imagecache.cache import image_names
from nova_imagecache import names
from tests.nova_functional import base
from tests.support import nodes


class LifeTest(base.ServersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node = self.add_host('one')
        self.image = self.add_image()
        self.name = names.get_cache_fname(self.image)

    def test_a_base_file_stays_until_the_server_is_deleted(self) -> None:
        server = self.create(self.image)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )
        _first, report = self.run_passes_long_after('one')
        (file,) = report.files
        self.assertEqual((server['id'],), file.users)
        self.assert_kept('one', self.image)
        self._delete_server(server)
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)

    def test_images_are_called_what_glance_calls_them(self) -> None:
        image = self.add_image(name='ubuntu-24.04')
        other = self.add_image(name='cirros')
        self.run_pass('one')
        server = self.create(image)
        self.assertEqual('ubuntu-24.04', self.called(image))
        self._rebuild_server(server, other)
        self.assertEqual('cirros', self.called(other))

    def called(self, image_id: str) -> str | None:
        found = image_names.load(
            self.node.layout, names.get_cache_fname(image_id)
        )
        return found.name if found else None

    def test_a_base_file_stays_while_any_of_two_servers_is_left(self) -> None:
        first, second = self.create(self.image), self.create(self.image)
        self.assertEqual([self.image], self.downloads)
        self._delete_server(first)
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self._delete_server(second)
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)

    def test_a_base_file_of_a_server_that_is_off_stays(self) -> None:
        server = self._stop_server(self.create(self.image))
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self._start_server(server)
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)

    def test_swap_and_ephemeral_base_files_stay_as_long(self) -> None:
        self.flags(default_ephemeral_format='ext4')
        flavor = self._create_flavor(disk=1, ephemeral=1, swap=16)
        server = self.create(self.image, flavor_id=flavor)
        made = {
            self.backing_file(self.disk('one', server, disk))
            for disk in ('disk', 'disk.eph0', 'disk.swap')
        }
        self.assertEqual(made, self.node.files())
        self.assertEqual(3, len(made))
        self.run_passes_long_after('one')
        self.assertEqual(made, self.node.files())
        self._delete_server(server)
        self.run_passes_long_after('one')
        self.assertEqual(made, self.node.trash())

    def test_a_server_that_is_soft_deleted_may_come_back(self) -> None:
        self.flags(reclaim_instance_interval=3600)
        server = self.create(self.image)
        self.api.delete_server(server['id'])
        self._wait_for_state_change(server, 'SOFT_DELETED')
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.api.post_server_action(server['id'], {'restore': {}})
        self._wait_for_state_change(server, 'ACTIVE')
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.api.post_server_action(server['id'], {'forceDelete': {}})
        self._wait_until_deleted(server)
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)

    def test_the_image_of_a_rescue_stays_until_its_end(self) -> None:
        other = self.add_image()
        server = self.create(self.image)
        self.api.post_server_action(
            server['id'], {'rescue': {'rescue_image_ref': other}}
        )
        self._wait_for_state_change(server, 'RESCUE')
        self.assertEqual(
            names.get_cache_fname(other),
            self.backing_file(self.disk('one', server, 'disk.rescue')),
        )
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image, other)
        self._unrescue_server(server)
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.assert_removed('one', other)

    def test_a_rebuild_swaps_the_base_files(self) -> None:
        other = self.add_image()
        server = self._rebuild_server(self.create(self.image), other)
        self.run_passes_long_after('one')
        self.assert_kept('one', other)
        self.assert_removed('one', self.image)
        self._delete_server(server)
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image, other)

    def shelve_and_unshelve(
        self, gone: bool, kept: bool = True
    ) -> tuple[Any, str]:
        """Shelve a server for long; give it, and the id of its snapshot.

        :param gone: whether Glance no longer has its image meanwhile
        :param kept: whether its base file is in the trash meanwhile
        """
        server = self._shelve_server(self.create(self.image))
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)
        if gone:
            self.glance.delete(self.context, self.image)
        if not kept:
            shutil.rmtree(self.node.layout.trash)
        self.downloads.clear()
        server = self._unshelve_server(server)
        snapshot, *_more = self.downloads
        self.assertNotEqual(self.image, snapshot)
        self.assertNotIn(snapshot, self.glance.images)
        return server, snapshot

    def test_a_server_that_is_shelved_gets_its_base_file_back(self) -> None:
        server, snapshot = self.shelve_and_unshelve(gone=False)
        # Nova puts the disk onto the image of before.
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.assert_removed('one', snapshot)
        self._delete_server(server)
        self.run_passes_long_after('one')
        self.assertEqual(set(), self.node.files())

    def test_a_server_that_is_shelved_needs_no_image_that_is_gone(
        self,
    ) -> None:
        server, snapshot = self.shelve_and_unshelve(gone=True, kept=False)
        # Nova has put all of it into the disk.
        (disk,) = nodes.backing_chain(self.disk('one', server))
        self.assertEqual('qcow2', disk['format'])
        self.run_passes_long_after('one')
        self.assert_removed('one', snapshot)
        (disk,) = nodes.backing_chain(self.disk('one', server))
        self.assertEqual('qcow2', disk['format'])

    def test_a_server_that_is_shelved_finds_its_base_file_in_the_trash(
        self,
    ) -> None:
        server, snapshot = self.shelve_and_unshelve(gone=True)
        self.assertEqual([snapshot], self.downloads)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )
        self.assertNotIn(self.name, self.node.trash())
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.assert_removed('one', snapshot)

    def test_a_server_that_is_shelved_and_not_offloaded_needs_its_base(
        self,
    ) -> None:
        self.flags(shelved_offload_time=-1)
        server = self._shelve_server(self.create(self.image), 'SHELVED')
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        server = self._unshelve_server(server)
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )


class ResizeTest(base.ServersTestCase):
    """On the same host, where Nova keeps the old disks until it is over."""

    def setUp(self) -> None:
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.node = self.add_host('one')
        self.image = self.add_image()
        self.server = self._resize_server(self.create(self.image), self.large)
        self.old = os.path.join(
            f'{os.path.dirname(self.disk("one", self.server))}_resize', 'disk'
        )
        self.run_passes_long_after('one')

    def assert_base_stays_until_the_end(self) -> None:
        self.assertFalse(os.path.exists(self.old))
        self.assertEqual(
            names.get_cache_fname(self.image),
            self.backing_file(self.disk('one', self.server)),
        )
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self._delete_server(self.server)
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)

    def test_a_resize_that_nobody_confirms_keeps_both_disks_sound(
        self,
    ) -> None:
        for path in (self.old, self.disk('one', self.server)):
            self.assertEqual(
                names.get_cache_fname(self.image), self.backing_file(path)
            )
        self.assert_kept('one', self.image)

    def test_a_resize_is_confirmed_long_after(self) -> None:
        self._confirm_resize(self.server)
        self.assert_base_stays_until_the_end()

    def test_a_resize_is_reverted_long_after(self) -> None:
        self._revert_resize(self.server)
        self.assert_base_stays_until_the_end()
