# SPDX-License-Identifier: Apache-2.0

"""What images are called is noted when a guest of them runs."""

import os
from typing import Any

import fixtures
from nova import exception
from nova import objects

from nova_imagecache.cache import image_names
from tests.nova import base


class NamesTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image(base.IMAGE)
        self.node.run()
        self.spawned: list[Any] = []

        def spawn(*args: Any, **_kwargs: Any) -> None:
            self.spawned.append(args)

        self.answer(spawn)

    def answer(self, spawn: Any) -> None:
        """Have Nova's own driver make a guest so."""
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.virt.libvirt.driver.LibvirtDriver.spawn', spawn
            )
        )

    def spawn(self, **image: Any) -> None:
        self.driver.spawn(
            self.context, self.instance(), objects.ImageMeta(**image), [],
            None, {}, power_on=False,
        )  # fmt: skip

    def called(self) -> str | None:
        found = image_names.load(self.node.layout, self.name)
        return found.name if found else None

    def test_it_is_noted_once_the_guest_runs(self) -> None:
        self.spawn(id=base.IMAGE, name='ubuntu-24.04')
        self.assertEqual(1, len(self.spawned))
        self.assertEqual('ubuntu-24.04', self.called())

    def test_what_nova_passes_on_is_as_it_was(self) -> None:
        meta = objects.ImageMeta.from_dict(
            {'id': base.IMAGE, 'name': 'x', 'properties': {}}
        )
        self.driver.spawn(self.context, None, meta, [], None, {})
        self.assertIs(meta, self.spawned[0][3])
        self.assertEqual('x', self.called())

    def test_an_image_without_a_name_or_an_id_is_fine(self) -> None:
        for image in (
            {}, {'id': base.IMAGE}, {'name': 'x'},
            {'id': base.IMAGE, 'name': ''},
        ):  # fmt: skip
            self.spawn(**image)
        self.assertIsNone(self.called())

    def test_a_guest_that_is_not_made_tells_nothing_new(self) -> None:
        def fail(*_args: Any, **_kwargs: Any) -> None:
            raise exception.NovaException('no')

        self.answer(fail)
        self.assertRaises(
            exception.NovaException, self.spawn, id=base.IMAGE, name='x'
        )
        self.assertIsNone(self.called())

    def test_that_it_cannot_be_noted_ends_no_guest(self) -> None:
        os.rmdir(self.node.layout.images)
        with open(self.node.layout.images, 'w'):
            pass
        self.spawn(id=base.IMAGE, name='x')
        self.assertEqual(1, len(self.spawned))
        self.assertIsNone(self.called())
