# SPDX-License-Identifier: Apache-2.0

"""Stock Nova's own manager over a cache that was ours."""

import os
from typing import Any

from nova.virt.libvirt import imagecache

from nova_imagecache.cache import coordination
from nova_imagecache import names
from tests.nova import base
from tests.support import base as plain

OLD = 2 * plain.DAY


class GoingBackTest(base.DatabaseTestCase):
    def pass_of_nova(self, *instances: Any) -> None:
        imagecache.ImageCacheManager().update(
            self.context, self.instances(*instances)
        )

    def test_stock_nova_takes_the_cache_over_as_it_is(self) -> None:
        used = self.node.add_image(base.IMAGE, age=OLD)
        unused = self.node.add_image('another image', age=OLD)
        trashed = self.node.add_image('a third image', age=OLD)
        instance = self.create_instance(image_ref=base.IMAGE)
        self.node.add_overlay(instance.uuid, used)
        self.node.configure(remove_unused=False)
        self.node.run()
        for name in (used, unused):
            os.utime(self.node.base_path(name))
        self.node.configure(remove_unused=True)
        self.assertEqual(
            [trashed], [file.name for file in self.node.run().removed]
        )
        self.node.set_age(unused, OLD)
        with coordination.coordinator(self.node.layout).turn():
            pass
        own = sorted(os.walk(self.node.layout.own))
        self.assertTrue(own)

        self.pass_of_nova(instance)

        # What is used stays, what is old goes, and nothing of ours is either
        # in the way or touched.
        self.assertEqual(
            {used, f'{used}.sha1'},
            self.node.files() - {names.sidecar_name(unused)},
        )
        self.assertEqual(own, sorted(os.walk(self.node.layout.own)))
        self.assertNotIn('Traceback', self.output)
