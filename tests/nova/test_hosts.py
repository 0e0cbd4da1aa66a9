# SPDX-License-Identifier: Apache-2.0

"""What a host notes for others while Nova makes a disk; real files."""

from typing import Any
from unittest import mock

import nova.conf

from nova_imagecache.cache import hosts
from nova_imagecache import names
from tests.nova import base
from tests.support import base as plain

CONF = nova.conf.CONF


class NotedUseTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.guest = self.instance(image_ref=base.IMAGE)
        self.image = self.disk(self.guest)
        self.name = names.get_cache_fname(base.IMAGE)
        # A first pass was made, by whomever.
        self.node.run()
        self.seen: set[str] = set()

    def noted(self) -> set[str]:
        return {*hosts.load(self.node.layout, CONF.host).below}

    def fetch(self, target: str, **_kwargs: Any) -> None:
        self.seen = self.noted()
        with open(target, 'wb') as file:
            file.write(b'fresh' * 8192)

    def make_disk(self) -> None:
        self.driver._try_fetch_image_cache(
            self.image,
            self.fetch,
            self.context,
            self.name,
            base.IMAGE,
            self.guest,
            plain.MIB,
        )

    def test_who_makes_a_disk_notes_it_before_it_is_there(self) -> None:
        self.make_disk()
        self.assertEqual({self.name}, self.seen)
        self.assertEqual({self.name}, self.noted())

    def test_to_fetch_an_image_ahead_of_time_makes_no_disk(self) -> None:
        with mock.patch(
            'nova.virt.images.fetch_to_raw', autospec=True
        ) as fetch:
            self.driver.cache_image(self.context, base.IMAGE)
        fetch.assert_called_once()
        self.assertEqual(set(), self.noted())

    def test_what_goes_wrong_stops_no_build(self) -> None:
        with mock.patch.object(
            hosts, 'load', autospec=True, side_effect=OSError('broken')
        ):
            self.driver._try_fetch_image_cache(
                self.image,
                self.write,
                self.context,
                self.name,
                base.IMAGE,
                self.guest,
                plain.MIB,
            )
        self.assertTrue(self.image.exists())

    def write(self, target: str, **_kwargs: Any) -> None:
        with open(target, 'wb') as file:
            file.write(b'fresh' * 8192)
