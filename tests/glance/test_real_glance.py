# SPDX-License-Identifier: Apache-2.0

"""Getting blocks from a real Glance, whose store is of files."""

import os
from typing import ClassVar

import ddt

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_service
from nova_imagecache import names
from tests.glance import services
from tests.node import test_image_service
from tests.support import base
from tests.support import image_server
from tests.support import nodes

State = sources.State
BLOCK = test_image_service.BLOCK
CONTENT = test_image_service.make_content(8)

# What the service user of kolla and of a hardened cloud are.
ADMIN = 'service:admin,service'
SERVICE = 'service:service'


@ddt.ddt
class GlanceTest(nodes.FileTestCase):
    glance: ClassVar[services.Glance]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.glance = services.Glance()
        cls.glance.setUp()
        cls.addClassCleanup(cls.glance.cleanUp)

    def setUp(self) -> None:
        super().setUp()
        self.raw = os.path.join(self.temporary, 'raw')
        with open(self.raw, 'wb') as file:
            file.write(CONTENT)

    def upload(self, disk_format: str, *options: str) -> str:
        path = os.path.join(self.temporary, 'image')
        nodes.qemu_img('convert', '-O', disk_format, *options, self.raw, path)
        return self.glance.upload(path, disk_format)

    def source(self, token: str = ADMIN) -> image_service.ImageService:
        conf = image_server.make_conf(self.glance.nova_conf(token))
        return image_service.ImageService(
            clients.from_options(conf), self.temporary
        )

    def base_of(self, image: str) -> sources.Base:
        name = names.get_cache_fname(image)
        return sources.Base(name, self.raw, len(CONTENT), image)

    def assert_is(self, start: int, piece: sources.Piece) -> None:
        expected = CONTENT[start : start + BLOCK]
        self.assertTrue(expected == piece.data, 'the block is wrong')

    @ddt.data(
        ('raw', (), 64 * base.KIB),
        ('qcow2', (), 512 * base.KIB),
        ('qcow2', ('-c',), 512 * base.KIB),
        ('qcow2', ('-c', '-o', 'compression_type=zstd'), 512 * base.KIB),
        ('qcow2', ('-o', 'compat=0.10'), 512 * base.KIB),
    )
    @ddt.unpack
    def test_each_block_is_got_within_its_bytes(
        self, disk_format: str, options: tuple[str, ...], more: int
    ) -> None:
        image = self.upload(disk_format, *options)
        for start in range(0, len(CONTENT), BLOCK):
            source = self.source()
            wanted = sources.Wanted(start, BLOCK)
            (piece,) = source.read(self.base_of(image), [wanted])
            self.assert_is(start, piece)
            self.assertLessEqual(source.fetched, BLOCK + more)
            if options[:1] == ('-c',) and start == 2 * BLOCK:
                # Text: its clusters are small.
                self.assertLessEqual(source.fetched, more)

    def test_the_digest_is_one_that_tells(self) -> None:
        image = self.source().api.image(self.upload('raw'))
        self.assertEqual('sha512', image.algorithm)
        self.assertEqual(len(CONTENT), image.size)

    def assert_refused(self, state: State, image: str, token: str) -> None:
        pieces = self.source(token).read(
            self.base_of(image), [sources.Wanted(0, BLOCK)]
        )
        error = self.assertRaises(sources.Unavailable, next, pieces)
        self.assertEqual(state, error.state, str(error))

    def test_the_role_service_alone_does_not_see_private_images(self) -> None:
        image = self.upload('raw')
        self.assert_refused(State.NOT_FOUND, image, SERVICE)

    def test_a_deleted_image_is_not_found(self) -> None:
        image = self.upload('raw')
        self.glance.as_user('tenant:member,reader').image.delete_image(image)
        self.assert_refused(State.NOT_FOUND, image, ADMIN)

    def test_a_deactivated_image_is_had_by_an_administrator_alone(
        self,
    ) -> None:
        image = self.upload('raw')
        self.glance.as_user(ADMIN).image.deactivate_image(image)
        (piece,) = self.source().read(
            self.base_of(image), [sources.Wanted(0, BLOCK)]
        )
        self.assert_is(0, piece)
        self.assert_refused(State.DEACTIVATED, image, 'tenant:member,reader')

    def test_an_image_without_data_is_not_found(self) -> None:
        image = self.glance.as_user('tenant:member,reader').image.create_image(
            'empty', container_format='bare', disk_format='raw'
        )
        self.assert_refused(State.NOT_FOUND, image.id, ADMIN)
