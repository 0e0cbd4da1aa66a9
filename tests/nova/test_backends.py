# SPDX-License-Identifier: Apache-2.0

"""Which kinds of disks are made out of a base file: Nova itself is asked."""

import itertools
import os
from typing import Any
from unittest import mock

import ddt
from nova.storage import rbd_utils
from nova.virt.libvirt import imagebackend
from nova.virt.libvirt.storage import lvm
from oslo_utils.fixture import uuidsentinel
from oslo_utils import units

from nova_imagecache import names
from nova_imagecache.nova import gate
from tests.nova import base
from tests.support import base as plain

KINDS = ('raw', 'flat', 'qcow2', 'lvm', 'rbd', 'ploop', 'default')
CALLS = ('root', 'from host', 'ephemeral', 'swap')

# Made where they are to be, and out of no base file.
IN_PLACE = {
    *itertools.product(('raw', 'flat', 'ploop'), CALLS[1:]),
    ('lvm', 'ephemeral'),
}
OUT_OF_BASE = [
    each for each in itertools.product(KINDS, CALLS) if each not in IN_PLACE
]


class Made(Exception):
    """Something is about to be made at a path."""


@ddt.ddt
class BackendTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.guest = self.instance(image_ref=base.IMAGE)
        self.flags(images_volume_group='vg', group='libvirt')
        self.flags(images_rbd_pool='pool', group='libvirt')
        # Mocked: neither volume groups nor a Ceph cluster are at hand.
        for owner, name in (
            (lvm, 'create_volume'),
            (lvm, 'remove_volumes'),
            (rbd_utils, 'RBDDriver'),
        ):
            self.enterContext(mock.patch.object(owner, name, autospec=True))
        exists = mock.patch.object(
            imagebackend.Rbd, 'exists', autospec=True, return_value=False
        )
        self.enterContext(exists)

    def call(self, call: str) -> dict[str, Any]:
        """Give arguments for ``cache`` as the driver of Nova passes them."""
        image = {
            'filename': names.get_cache_fname(base.IMAGE),
            'size': units.Gi,
        }
        made = {'context': self.context, 'size': units.Gi, 'safe': True}
        calls: dict[str, dict[str, Any]] = {
            # LibvirtDriver._try_fetch_image_cache.
            'root': {
                'context': self.context,
                'image_id': base.IMAGE,
                'trusted_certs': None,
                **image,
            },
            'from host': image,
            # LibvirtDriver._create_image.
            'ephemeral': {
                'filename': 'ephemeral_1_40d1d2c',
                'ephemeral_size': 1,
                'specified_fs': None,
                **made,
            },
            'swap': {'filename': 'swap_1024', 'swap_mb': 1024, **made},
        }
        return calls[call]

    def made(self, backend: Any, kind: str, call: str) -> str:
        """Have a disk be made; give the path of what is made first."""

        def fetch(target: str, **_kwargs: Any) -> None:
            raise Made(target)

        self.node.add_directory(self.guest.uuid)
        image = backend.by_name(self.guest, 'disk', kind)
        arguments = self.call(call)
        error = self.assertRaises(
            Made, image.cache, fetch_func=fetch, **arguments
        )
        return str(error)

    @ddt.data(*OUT_OF_BASE)
    @ddt.unpack
    def test_what_is_in_the_trash_is_not_fetched_for_a_disk_of_any_kind(
        self, kind: str, call: str
    ) -> None:
        name = self.call(call)['filename']
        path = self.node.add_base(name, age=365 * plain.DAY)
        inode = os.stat(path).st_ino
        self.node.run()
        self.assertEqual({name}, self.node.trash())
        self.node.add_directory(self.guest.uuid)
        image = self.driver.image_backend.by_name(self.guest, 'disk', kind)
        fetch = mock.Mock()
        # What comes after that differs, and is Nova's.
        stop = mock.patch.object(
            type(image).__mro__[1],
            'verify_base_size',
            autospec=True,
            side_effect=Made(path),
        )
        size = mock.patch(
            'nova.virt.disk.api.get_disk_size', autospec=True, return_value=1
        )
        with stop, size:
            self.assertRaises(
                Made, image.cache, fetch_func=fetch, **self.call(call)
            )
        fetch.assert_not_called()
        self.assertEqual(inode, os.stat(path).st_ino)
        self.assertEqual(set(), self.node.trash())

    @ddt.data(*itertools.product(KINDS, CALLS))
    @ddt.unpack
    def test_no_disk_of_any_kind_is_made_out_of_a_bad_base_file(
        self, kind: str, call: str
    ) -> None:
        """And one that Nova makes in its place does without."""
        name = self.call(call)['filename']
        path = self.node.base_path(name)
        made = self.made(imagebackend.Backend(True), kind, call)
        in_place = made != path
        self.assertEqual((kind, call) in IN_PLACE, in_place)
        self.add_bad(name)
        self.node.add_overlay(uuidsentinel.other, name)
        if in_place:
            self.assertEqual(
                made, self.made(self.driver.image_backend, kind, call)
            )
        else:
            error = self.assertRaises(
                gate.DamagedBaseFile,
                self.made,
                self.driver.image_backend,
                kind,
                call,
            )
            self.assertIn('is corrupt', str(error))
        self.assertTrue(os.path.exists(path))
