# SPDX-License-Identifier: Apache-2.0

import ddt

from nova_imagecache.witnesses import owners
from tests.support import base


@ddt.ddt
class OwnersTest(base.TestCase):
    @ddt.data(
        ('/i/guest/disk', 'guest'),
        ('/i/guest/deep/in/it/disk', 'guest'),
        ('/i/guest', 'guest'),
        ('/i/guest_resize/disk', 'guest'),
        ('/i/guest_del/disk', 'guest'),
        ('/i/guest_resize_del/disk', 'guest'),
        ('/i/guest_resized/disk', 'guest_resized'),
        ('/i/_base/x', '_base'),
    )
    @ddt.unpack
    def test_a_path_is_of_whoever_has_the_directory(
        self, path: str, guest: str
    ) -> None:
        self.assertEqual(guest, owners.owner_of('/i', path))

    def test_a_file_beside_the_directories_is_called_as_it_is(self) -> None:
        self.assertEqual('x_del', owners.guest_of('/i', '/i', 'x_del'))
