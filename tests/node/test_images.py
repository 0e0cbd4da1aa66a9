# SPDX-License-Identifier: Apache-2.0

import os

from nova_imagecache.fetch import images
from tests.support import base
from tests.support import nodes


class InspectTest(nodes.FileTestCase):
    def test_the_virtual_size_is_the_guests(self) -> None:
        path = os.path.join(self.temporary, 'image')
        nodes.qemu_img('create', '-f', 'qcow2', path, '7M')
        self.assertEqual(
            images.Image('qcow2', 7 * base.MIB), images.inspect(path)
        )

    def test_a_small_raw_image_is_raw(self) -> None:
        path = os.path.join(self.temporary, 'image')
        for size in (0, 1, 511, 512, 4096):
            with open(path, 'wb') as file:
                file.write(b'x' * size)
            self.assertEqual(images.Image('raw', size), images.inspect(path))
