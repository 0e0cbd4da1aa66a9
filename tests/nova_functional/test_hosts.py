# SPDX-License-Identifier: Apache-2.0

"""Servers that go from one host to another, and images that come first."""

import json
import os
import time
from typing import Any

import fixtures

from nova_imagecache.cache import hosts
from nova_imagecache import names
from tests.nova_functional import base
from tests.support import base as plain
from tests.support import nodes


class ApartTest(base.ServersTestCase):
    """Two hosts, each with disks of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.add_host('one'), self.add_host('two')
        self.image = self.add_image()
        self.name = names.get_cache_fname(self.image)

    def create_and_resize(self) -> Any:
        """Create a server on one host, and resize it onto the other."""
        server = self.create(self.image, 'one')
        self.assertEqual(set(), self.two.files())
        server = self._resize_server(server, self.large)
        self.assertEqual('two', server['OS-EXT-SRV-ATTR:host'])
        return server

    def assert_runs_on(self, host: str, server: Any) -> None:
        path = self.disk(host, server)
        self.assertEqual(self.name, self.backing_file(path))
        _disk, backing = nodes.backing_chain(path)
        self.assertEqual(
            self.nodes[host].base_path(self.name), backing['filename']
        )

    def test_the_host_that_a_server_left_keeps_what_a_revert_needs(
        self,
    ) -> None:
        server = self.create_and_resize()
        self.assert_runs_on('two', server)
        for report in self.run_passes_long_after('one', 'two'):
            (file,) = report.files
            self.assertEqual((server['id'],), file.users)
        self.assert_kept('one', self.image)
        self.assert_kept('two', self.image)
        self._revert_resize(server)
        self.assert_runs_on('one', server)
        self.run_passes_long_after('one', 'two')
        self.assert_kept('one', self.image)
        self.assert_removed('two', self.image)

    def test_when_a_resize_is_confirmed_the_first_host_is_done_with_it(
        self,
    ) -> None:
        server = self.create_and_resize()
        self.run_passes_long_after('one', 'two')
        self._confirm_resize(server)
        self.run_passes_long_after('one', 'two')
        self.assert_removed('one', self.image)
        self.assert_kept('two', self.image)
        self.assert_runs_on('two', server)
        self._delete_server(server)
        self.run_passes_long_after('two')
        self.assert_removed('two', self.image)

    def test_a_server_is_evacuated_and_built_anew(self) -> None:
        server = self.create(self.image, 'one')
        self.stop('one')
        server = self._evacuate_server(server, expected_host='two')
        self.assert_runs_on('two', server)
        self.run_passes_long_after('two')
        self.assert_kept('two', self.image)
        # What is left on the host that comes back goes.
        self.start_again('one')
        self.assertFalse(os.path.exists(self.disk('one', server)))
        self.run_passes_long_after('one', 'two')
        self.assert_removed('one', self.image)
        self.assert_kept('two', self.image)


class SharedTest(base.ServersTestCase):
    """Two hosts with the same ``instances_path``."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.add_host('one')
        self.add_host('two', share='one')
        self.image = self.add_image()
        self.name = names.get_cache_fname(self.image)

    def forget(self, host: str) -> None:
        """Let a host have said nothing to the others for two days."""
        path = os.path.join(self.node.layout.instances, 'compute_nodes')
        with open(path) as file:
            nodes = json.load(file)
        nodes[host] = time.time() - 2 * plain.DAY
        with open(path, 'w') as file:
            json.dump(nodes, file)

    def test_each_host_keeps_what_servers_of_the_other_need(self) -> None:
        server = self.create(self.image, 'one')
        for report in self.run_passes_long_after('two', 'one'):
            (file,) = report.files
            self.assertEqual((server['id'],), file.users)
        self.assert_kept('one', self.image)
        self._delete_server(server)
        self.run_passes_long_after('two')
        self.assert_removed('one', self.image)

    def test_a_host_that_is_silent_has_servers_all_the_same(self) -> None:
        self.create(self.image, 'one')
        self.run_pass('one')
        self.forget('one')
        self.run_passes_long_after('two')
        self.assert_kept('one', self.image)

    def test_a_server_is_evacuated_with_its_disk(self) -> None:
        server = self.create(self.image, 'one')
        self.run_pass('one')
        before = os.stat(self.disk('one', server)).st_ino
        self.stop('one')
        self.forget('one')
        self.run_passes_long_after('two')
        server = self._evacuate_server(server, expected_host='two')
        self.assertEqual(before, os.stat(self.disk('two', server)).st_ino)
        self.run_passes_long_after('two')
        self.assert_kept('two', self.image)
        self.start_again('one')
        self.run_passes_long_after('one', 'two')
        self.assert_kept('two', self.image)
        self.assertEqual(
            self.name, self.backing_file(self.disk('two', server))
        )
        self._delete_server(server)
        self.run_passes_long_after('one')
        self.assert_removed('two', self.image)

    def test_a_resize_onto_the_other_host_keeps_the_base_file(self) -> None:
        server = self._resize_server(
            self.create(self.image, 'one'), self.large
        )
        self.assertEqual('two', server['OS-EXT-SRV-ATTR:host'])
        self.run_passes_long_after('one', 'two')
        self.assert_kept('one', self.image)
        self._revert_resize(server)
        self.run_passes_long_after('two', 'one')
        self.assert_kept('one', self.image)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )


class PrecachingTest(base.ServersTestCase):
    """Through the API, onto the hosts of an aggregate."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.add_host('one'), self.add_host('two')
        self.image = self.add_image()
        self.aggregate = self._create_aggregate('both')
        for host in ('one', 'two'):
            self.api.add_host_to_aggregate(self.aggregate, host)

    def cache(self, *images: str) -> None:
        """Ask for images, and wait until all hosts have answered."""
        self.notifier.reset()
        self.api.api_post(
            f'/os-aggregates/{self.aggregate}/images',
            {'cache': [{'id': image} for image in images]},
            check_response_status=[202],
        )
        self.notifier.wait_for_versioned_notifications(
            'aggregate.cache_images.end'
        )

    def test_an_image_comes_before_its_server(self) -> None:
        self.cache(self.image)
        self.assertEqual([self.image] * 2, self.downloads)
        for host in ('one', 'two'):
            self.assert_kept(host, self.image)
        server = self.create(self.image, 'two')
        self.assertEqual(2, len(self.downloads))
        self.run_passes_long_after('one', 'two')
        self.assert_removed('one', self.image)
        self.assert_kept('two', self.image)
        self._delete_server(server)

    def test_what_is_cached_is_not_fetched_again(self) -> None:
        self.cache(self.image)
        self.cache(self.image)
        self.assertEqual(2, len(self.downloads))

    def test_what_is_in_the_trash_is_not_fetched_again(self) -> None:
        self.cache(self.image)
        self.run_passes_long_after('one', 'two')
        self.assert_removed('one', self.image)
        self.cache(self.image)
        self.assertEqual(2, len(self.downloads))
        for host in ('one', 'two'):
            self.assert_kept(host, self.image)

    def test_an_image_that_cannot_be_fetched_leaves_nothing(self) -> None:
        other = self.add_image(disk_format='qcow2')
        self.cache(other, self.image)
        for host in ('one', 'two'):
            self.assert_kept(host, self.image)
            self.assertEqual(
                {names.get_cache_fname(self.image)}, self.nodes[host].files()
            )


class SharedBaseTest(base.ServersTestCase):
    """Two hosts with disks of their own, and links to one ``_base``."""

    def setUp(self) -> None:
        super().setUp()
        self.shared = os.path.join(self.temporary, 'shared')
        os.mkdir(self.shared)
        for host in ('one', 'two'):
            instances = os.path.join(self.temporary, host, 'instances')
            os.makedirs(instances)
            os.symlink(self.shared, os.path.join(instances, '_base'))
            self.add_host(host)
        self.image = self.add_image()

    def be_off(self, host: str) -> None:
        """Let a host be off, and Nova have heard nothing of it for days.

        Its registry of hosts is below ``instances_path``, and so each has one
        of its own: a host asks Nova for the guests of itself alone.
        """
        self.stop(host)
        self.clock.advance(2 * plain.DAY)

    def lists_of(self, host: str) -> list[Any]:
        """Note what Nova hands to the manager of a host from now on."""
        handed: list[Any] = []
        ours = self.computes[host].driver.image_cache_manager
        real = ours.begin

        def begin(context: Any, instances: Any, *args: Any) -> Any:
            handed.extend(each.uuid for each in instances)
            return real(context, instances, *args)

        self.useFixture(fixtures.MockPatchObject(ours, 'begin', begin))
        return handed

    def test_a_host_that_is_off_for_days_finds_its_base_files(self) -> None:
        server = self.create(self.image, 'two')
        self.run_pass('two')
        self.be_off('two')
        handed = self.lists_of('one')
        self.run_passes_long_after('one')
        self.assertNotIn(server['id'], handed)
        self.assert_kept('one', self.image)
        nodes.backing_chain(self.disk('two', server))
        self.start_again('two')
        self._delete_server(server)
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        self.run_passes_long_after('two', 'one')
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)

    def test_one_that_has_made_no_pass_since_finds_them_too(self) -> None:
        self.run_pass('two')
        server = self.create(self.image, 'two')
        self.be_off('two')
        self.run_passes_long_after('one')
        self.assert_kept('one', self.image)
        nodes.backing_chain(self.disk('two', server))

    def test_without_what_hosts_note_of_themselves_they_would_go(self) -> None:
        self.create(self.image, 'two')
        self.run_pass('two')
        self.be_off('two')
        hosts.forget(self.nodes['one'].layout, 'two')
        self.run_passes_long_after('one')
        self.assert_removed('one', self.image)
