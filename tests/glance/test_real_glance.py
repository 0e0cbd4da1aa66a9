# SPDX-License-Identifier: Apache-2.0

"""Getting blocks from a real Glance, whose store is of files."""

import json
import os
from typing import ClassVar

import ddt
from glance import policies
import yaml

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_service
from nova_imagecache.heal.sources import other_stores
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
# What the documentation has for one without the role admin.
READER = 'service:service,image_reader'

# Rules that let somebody see something, by how they begin.
_READING = ('get_', 'list_', 'download_', 'cache_list', 'stores_info')


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

    def source(
        self, token: str = ADMIN, knows_roles: bool = False
    ) -> image_service.ImageService:
        nova_conf = self.glance.nova_conf
        if knows_roles:
            nova_conf = self.glance.nova_conf_with_roles
        conf = image_server.make_conf(nova_conf(token))
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

    def assert_refused(
        self, state: State, image: str, token: str, knows_roles: bool = False
    ) -> None:
        pieces = self.source(token, knows_roles).read(
            self.base_of(image), [sources.Wanted(0, BLOCK)]
        )
        error = self.assertRaises(sources.Unavailable, next, pieces)
        self.assertEqual(state, error.state, str(error))

    def test_the_role_service_alone_does_not_see_private_images(self) -> None:
        image = self.upload('raw')
        self.assert_refused(State.NOT_FOUND, image, SERVICE)

    def assert_read(self, image: str, token: str) -> None:
        (piece,) = self.source(token).read(
            self.base_of(image), [sources.Wanted(0, BLOCK)]
        )
        self.assert_is(0, piece)

    def test_a_member_of_the_project_reads_its_private_images(self) -> None:
        image = self.upload('raw')
        self.assert_read(image, 'tenant:service,member,reader')
        self.assert_refused(
            State.NOT_FOUND, image, 'service:service,member,reader'
        )

    def test_a_role_for_reading_images_reads_them_and_changes_none(
        self,
    ) -> None:
        image = self.upload('raw')
        self.assert_read(image, READER)
        api = self.glance.as_user(READER).image
        name = {'op': 'replace', 'path': '/name', 'value': 'other'}
        media_type = 'application/openstack-images-v2.1-json-patch'
        for answer in (
            api.delete(f'/images/{image}'),
            api.patch(
                f'/images/{image}',
                data=json.dumps([name]),
                headers={'Content-Type': media_type},
            ),
            api.post(f'/images/{image}/actions/deactivate'),
            api.post('/images', json={'name': 'another'}),
        ):
            self.assertEqual(403, answer.status_code)
        self.assert_read(image, READER)

    def test_the_policy_of_the_documentation_is_that_of_glance(self) -> None:
        """But for what is read."""
        documented = yaml.safe_load(services.POLICY.read_text())
        see = documented.pop('context_is_admin')
        self.assertEqual('role:admin or role:image_reader', see)
        whole = 'rule:context_is_admin'
        self.assertEqual(
            {
                rule.name: rule.check_str.replace(whole, 'role:admin')
                for rule in policies.list_rules()
                if whole in rule.check_str
                and not rule.name.startswith(_READING)
            },
            documented,
        )

    def test_a_deleted_image_is_gone_for_who_would_see_it(self) -> None:
        """And for nobody else, as a private image of others looks so too."""
        deleted, private = self.upload('raw'), self.upload('raw')
        self.glance.as_user('tenant:member,reader').image.delete_image(deleted)
        self.assert_refused(State.GONE, deleted, ADMIN, knows_roles=True)
        # As there is a private image of another project that it sees.
        self.assert_refused(State.GONE, deleted, READER, knows_roles=True)
        for token in (SERVICE, 'service:member,reader'):
            for image in (deleted, private):
                self.assert_refused(
                    State.NOT_FOUND, image, token, knows_roles=True
                )
        # Nor for who sees those of his project alone, or cannot tell that.
        self.assert_refused(
            State.NOT_FOUND,
            deleted,
            'tenant:service,member,reader',
            knows_roles=True,
        )
        self.assert_refused(State.NOT_FOUND, deleted, ADMIN)
        # And what is there is there.
        (piece,) = self.source(ADMIN, knows_roles=True).read(
            self.base_of(private), [sources.Wanted(0, BLOCK)]
        )
        self.assert_is(0, piece)

    def test_a_token_that_is_none_is_unauthorized_and_nothing_is_gone(
        self,
    ) -> None:
        image = self.upload('raw')
        self.assert_refused(State.UNAUTHORIZED, image, 'nobody')
        self.assert_refused(
            State.UNAUTHORIZED, image, 'nobody', knows_roles=True
        )

    def test_an_image_that_is_seen_and_may_not_be_read_is_forbidden(
        self,
    ) -> None:
        image = self.upload('raw')
        self.assert_refused(State.FORBIDDEN, image, 'tenant:reader')

    def test_of_two_stores_the_one_that_is_not_damaged_gives_the_block(
        self,
    ) -> None:
        image = self.upload('raw')
        self.glance.copy_to_the_other_store(image)
        path = self.glance.path / 'images' / image
        with open(path, 'r+b') as file:
            file.seek(9)
            file.write(bytes([CONTENT[9] ^ 1]))
        source, wanted = self.source(), [sources.Wanted(0, BLOCK)]
        base_ = self.base_of(image)
        (first,) = source.read(base_, wanted)
        self.assertFalse(CONTENT[:BLOCK] == first.data, 'it is good')
        others = {
            piece.origin.split()[-1]: piece.data
            for piece in other_stores.OtherStores(source).read(base_, wanted)
        }
        self.assertEqual({'fs', 'other'}, {*others})
        self.assertTrue(first.data == others['fs'], 'it is another one')
        self.assertTrue(CONTENT[:BLOCK] == others['other'], 'it is bad too')

    def test_a_deactivated_image_is_had_by_an_administrator_alone(
        self,
    ) -> None:
        image = self.upload('raw')
        self.glance.as_user(ADMIN).image.deactivate_image(image)
        self.assert_read(image, ADMIN)
        self.assert_refused(State.DEACTIVATED, image, 'tenant:member,reader')

    def test_an_image_without_data_is_not_found(self) -> None:
        image = self.glance.as_user('tenant:member,reader').image.create_image(
            'empty', container_format='bare', disk_format='raw'
        )
        self.assert_refused(State.NOT_FOUND, image.id, ADMIN)
