# SPDX-License-Identifier: Apache-2.0

"""No server is made from a base file that is known to be bad."""

from collections.abc import Callable
import os
import time
from typing import Any

from nova_imagecache import clocks
from nova_imagecache import names
from tests.nova_functional import base
from tests.support import base as plain
from tests.support import nodes


class ScrubTest(base.ServersTestCase):
    """As on a node: a process of ours reads what the passes leave to it."""

    apart = True

    def setUp(self) -> None:
        super().setUp()
        self.clock = clocks.now
        self.one = self.add_host('one')
        self.options(checksum_base_images=True, checksum_interval_seconds=0)

    def run_passes_until(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            self.assertLess(time.monotonic(), deadline, 'nothing happens')
            self.run_pass('one')
            time.sleep(0.2)

    def damage_of(self, name: str) -> Any:
        ours = self.computes['one'].driver.image_cache_manager
        with self.hosts.on('one'):
            return ours.damage_of(name)

    def test_a_flipped_bit_is_found_and_no_server_made_of_it(self) -> None:
        image = self.add_image()
        name = names.get_cache_fname(image)
        server = self.create(image)
        self.one.set_age(name, plain.DAY)
        self.run_passes_until(lambda: f'{name}.sha1' in self.one.files())
        self.assertIsNone(self.damage_of(name))
        nodes.flip_bit(self.one.base_path(name))
        self.run_passes_until(lambda: self.damage_of(name))
        (bad,) = self.run_pass('one').corrupt
        self.assertEqual((server['id'],), bad.users)
        self.create(image, expected_state='ERROR')
        self.assertIn(name, self.one.files())


class GateTest(base.ServersTestCase):
    """What becomes of servers when the base file of another is bad."""

    def setUp(self) -> None:
        super().setUp()
        self.one = self.add_host('one')
        self.image = self.add_image()
        self.name = names.get_cache_fname(self.image)
        self.first = self.create(self.image)
        self.spoil('one', self.image)

    def test_a_build_goes_to_another_host(self) -> None:
        self.add_host('two')
        server = self.create(self.image)
        self.assertEqual('two', server['OS-EXT-SRV-ATTR:host'])
        self.assert_kept('two', self.image)
        self.assertEqual(
            self.name, self.backing_file(self.disk('two', server))
        )
        # Nothing of it is left on the first host, but what was there.
        self.assertFalse(
            os.path.exists(os.path.dirname(self.disk('one', server)))
        )
        self.assertIn(self.name, self.one.files())
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', self.first))
        )

    def test_without_another_host_the_log_says_why(self) -> None:
        server = self.create(self.image, expected_state='ERROR')
        self.assertIn('Exhausted all hosts', server['fault']['message'])
        self.assertIn(self.name, self.one.files())
        self.assertIn('Error from last host: one', self.output)
        self.assertIn(
            f'Base file {self.name} of image {self.image} is corrupt, and '
            'stays: used by 1 guest',
            self.output,
        )

    def test_without_another_try_the_fault_says_why(self) -> None:
        self.flags(max_attempts=1, group='scheduler')
        server = self.create(self.image, expected_state='ERROR')
        message = server['fault']['message']
        self.assertIn(f'image {self.image} on this host is corrupt', message)
        self.assertNotIn(self.first['id'], message)
        self.assertNotIn(self.temporary, message)

    def test_the_operator_may_have_it_built_all_the_same(self) -> None:
        self.options(refuse_damaged_base_images=False)
        server = self.create(self.image)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )

    def test_what_nobody_uses_is_fetched_anew(self) -> None:
        self._delete_server(self.first)
        self.clock.advance(plain.HOUR)
        server = self.create(self.image)
        self.assert_kept('one', self.image)
        self.assertEqual({self.name}, self.one.trash())
        self.assertEqual([self.image] * 2, self.downloads)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', server))
        )

    def test_a_server_that_is_there_starts_again(self) -> None:
        self._reboot_server(self.first, hard=True)
        self._start_server(self._stop_server(self.first))
        self.assertIn(self.name, self.one.files())

    def test_a_server_that_was_shelved_gets_no_bad_base_file(self) -> None:
        self.options(refuse_damaged_base_images=False)
        server = self._shelve_server(self.create(self.image))
        self.options(refuse_damaged_base_images=True)
        server = self._unshelve_server(server)
        (disk,) = nodes.backing_chain(self.disk('one', server))
        self.assertEqual('qcow2', disk['format'])
        self.assertIn('The disk is flattened', self.output)

    def test_a_server_that_is_there_is_resized(self) -> None:
        self.flags(allow_resize_to_same_host=True)
        self._resize_server(self.first, self.large)
        self.assertIn('used all the same', self.output)
        self._confirm_resize(self.first)
        self.assertEqual(
            self.name, self.backing_file(self.disk('one', self.first))
        )
