# SPDX-License-Identifier: Apache-2.0

"""What became of requests for base files is counted, in nova-compute."""

import os
from typing import Any

import fixtures
import nova.conf

from nova_imagecache.cache import tallies
from nova_imagecache import names
from nova_imagecache.nova import gate
from tests.nova import base
from tests.support import base as plain
from tests.support import nodes

Event = tallies.Event


class CountTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = names.get_cache_fname(base.IMAGE)
        self.node.run()

    def make_disk(self) -> None:
        guest = self.instance(image_ref=base.IMAGE)
        self.disk(guest).cache(
            self.fetch, self.name, size=plain.MIB, image_id=base.IMAGE
        )

    def fetch(self, target: str, **_kwargs: Any) -> None:
        with open(target, 'wb') as file:
            file.write(b'fresh' * 8192)

    def counts(self) -> dict[tallies.Event, int]:
        host = nova.conf.CONF.host
        found = tallies.load(self.node.layout, host)
        return {event: count for event, count in found.items() if count}

    def test_an_image_is_fetched_once_and_found_from_then_on(self) -> None:
        self.make_disk()
        self.assertEqual({Event.MISS: 1}, self.counts())
        for _guest in range(2):
            self.make_disk()
        self.assertEqual({Event.MISS: 1, Event.HIT: 2}, self.counts())

    def test_one_that_comes_back_from_the_trash_is_told_apart(self) -> None:
        self.node.add_image(base.IMAGE, age=365 * plain.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        self.make_disk()
        self.assertEqual({Event.RESTORED: 1}, self.counts())

    def test_a_guest_that_was_there_before_counts_no_hit(self) -> None:
        self.node.add_image(base.IMAGE)
        with self.driver._gate.open():
            self.make_disk()
        self.assertEqual({}, self.counts())

    def damage(self) -> None:
        """Have a base file that is used be known to be bad."""
        self.node.add_image(base.IMAGE)
        other = self.instance(image_ref=base.IMAGE)
        self.node.add_overlay(other.uuid, self.name)
        self.node.run()
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.run()

    def test_a_disk_that_is_refused_is_counted(self) -> None:
        self.damage()
        self.assertRaises(gate.DamagedBaseFile, self.make_disk)
        self.assertEqual({Event.REFUSED: 1}, self.counts())

    def test_an_image_that_is_not_precached_is_no_build(self) -> None:
        self.damage()
        self.assertRaises(
            gate.DamagedBaseFile,
            self.driver.cache_image,
            self.context,
            base.IMAGE,
        )
        self.assertEqual({}, self.counts())

    def test_a_disk_that_is_flattened_is_made(self) -> None:
        self.damage()
        self.patch_method('_needs_rebase_original_qcow2_image', True)
        self.patch_method('_rebase_with_qemu_img', None)
        guest = self.instance()
        guest.system_metadata = {'image_base_image_ref': base.IMAGE}
        self.driver._rebase_original_qcow2_image(
            self.context, guest, self.disk(guest)
        )
        self.assertEqual({}, self.counts())

    def patch_method(self, name: str, result: Any) -> None:
        self.useFixture(
            fixtures.MockPatchObject(self.driver, name, lambda *args: result)
        )

    def test_that_nothing_can_be_counted_stops_no_build(self) -> None:
        os.rmdir(self.node.layout.tallies)
        with open(self.node.layout.tallies, 'w'):
            pass
        self.make_disk()
        self.assertEqual({self.name}, self.node.files())
