# SPDX-License-Identifier: Apache-2.0

"""The image service has evidence: ``verify --origin``, as it is typed."""

import json
import os
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.content import ledgers
from nova_imagecache.heal.sources import streams
from tests.support import confirming
from tests.support import image_server
from tests.support import nodes

BLOCK = confirming.BLOCK
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


class OriginTestCase(confirming.ConfirmTestCase):
    image = image_server.ID
    size = 4 * BLOCK - 512
    disk_format = 'raw'

    def setUp(self) -> None:
        super().setUp()
        self.patch(streams, '_RESERVE', 0)
        self.original = os.path.join(self.temporary, 'raw')
        with open(self.original, 'wb') as file:
            file.write(self.data)
        path = os.path.join(self.temporary, 'in_glance')
        nodes.qemu_img('convert', '-O', self.disk_format, self.original, path)
        self.server = self.useFixture(
            image_server.ImageServer(
                image_server.Stored(path, disk_format=self.disk_format)
            )
        )
        with open(self.nova_conf, 'a') as file:
            file.write(
                '[service_user]\nauth_type = none\n[glance]\n'
                f'endpoint_override = {self.server.url}\n'
            )

    def verify(self, *argv: str) -> tuple[int, str, str]:
        argv = ('--image', image_server.ID, *argv)
        return self.run_command('verify', '--origin', *argv, self.name)

    def trust(self) -> Any:
        _code, stdout, _stderr = self.run_command(
            'show', '-f', 'json', self.name
        )
        return json.loads(stdout)['trust']

    def current_ledger(self) -> ledgers.Ledger:
        file = base_file.BaseFile.named(self.node.layout, self.name)
        found = ledgers.Ledger.load(file)
        assert found is not None
        return found

    def damage_image(self) -> None:
        """Have an image that is other than all that is known of it."""
        other = bytearray(self.data)
        other[BLOCK + 5] ^= 1
        with open(self.original, 'wb') as file:
            file.write(other)
        nodes.qemu_img(
            'convert', '-O', self.disk_format,
            self.original, self.server.stored.path,
        )  # fmt: skip


class Suite:
    """What holds whether Nova converts the image or not."""

    def test_what_is_its_image_has_no_doubt_left(self: Any) -> None:
        self.suspect()
        self.assertEqual('suspect', self.trust())
        code, stdout, stderr = self.verify()
        self.assertEqual(0, code, stderr)
        self.assertIn('good', stdout)
        self.assertEqual('origin-verified', self.trust())
        self.assert_beyond_doubt()
        self.assertEqual(image_server.ID, self.current_ledger().image)

    def test_of_a_file_that_was_never_read_it_is_the_baseline(
        self: Any,
    ) -> None:
        code, _stdout, stderr = self.verify()
        self.assertEqual(0, code, stderr)
        self.assertEqual('origin-verified', self.trust())
        self.flip(1)
        self.node.run()
        self.assertEqual((2 * BLOCK), self.current_ledger().bad_ranges[0].end)

    def test_without_it_a_file_is_what_it_was(self: Any) -> None:
        self.read_twice()
        self.assertEqual('first-seen', self.trust())

    def test_of_two_that_differ_the_one_like_the_image_is_right(
        self: Any,
    ) -> None:
        # The earlier one had a bit that the image has not.
        self.flip(2)
        self.read_twice()
        nodes.write_after(self.path, self.data, self.sidecar)
        self.read_twice()
        self.assertTrue(self.current_ledger().differs)
        code, _stdout, stderr = self.verify()
        self.assertEqual(0, code, stderr)
        self.assertEqual('origin-verified', self.trust())

    def test_and_the_other_one_is_corrupt_where_it_is_other(
        self: Any,
    ) -> None:
        self.differs()
        self.assertTrue(self.current_ledger().differs)
        code, stdout, _stderr = self.verify()
        self.assertEqual(3, code)
        self.assertIn('CORRUPT', stdout)
        ledger = self.current_ledger()
        self.assertFalse(ledger.differs)
        self.assertEqual({2}, ledger.corrupt)

    def test_an_image_like_nothing_that_is_known_changes_nothing(
        self: Any,
    ) -> None:
        self.read_twice()
        before = self.current_ledger()
        self.damage_image()
        code, _stdout, stderr = self.verify()
        self.assertEqual(3, code)
        self.assertIn('nothing was changed', stderr)
        self.assertEqual(before, self.current_ledger())

    def test_an_image_that_is_gone_leaves_the_last_copy(self: Any) -> None:
        self.read_twice()
        before = self.current_ledger()
        self.server.stored.record_code = 404
        code, _stdout, stderr = self.verify()
        self.assertEqual(1, code)
        self.assertIn('the last copy', stderr)
        self.assertEqual(before, self.current_ledger())

    def test_an_image_service_that_is_down_changes_nothing(
        self: Any,
    ) -> None:
        self.read_twice()
        before = self.current_ledger()
        self.server.stored.record_code = 503
        code, _stdout, stderr = self.verify()
        self.assertEqual(1, code)
        self.assertIn('503', stderr)
        self.assertNotIn('Traceback', stderr)
        self.assertEqual(before, self.current_ledger())


class RawTest(Suite, OriginTestCase):
    def test_its_digest_is_enough(self) -> None:
        self.assertEqual(0, self.verify()[0])
        self.assertEqual([], self.server.asked)


class ConvertedTest(Suite, OriginTestCase):
    disk_format = 'qcow2'

    def test_a_store_without_parts_gives_all_of_it_once(self) -> None:
        self.server.stored.stores = 'rbd'
        self.server.stored.rangeless = ('rbd',)
        self.assertEqual(0, self.verify()[0])
        self.assertEqual(1, self.server.asked.count(None))


class LastCopyTest(OriginTestCase):
    """An image that is deleted, and what is made from it."""

    def setUp(self) -> None:
        super().setUp()
        with open(self.nova_conf) as file:
            text = file.read()
        keystone = (
            'auth_type = password\nusername = nova\npassword = secret\n'
            f'auth_url = {self.server.url}/v3\nproject_name = service\n'
            'user_domain_id = default\nproject_domain_id = default\n'
        )
        with open(self.nova_conf, 'w') as file:
            file.write(text.replace('auth_type = none\n', keystone))
        self.read_twice()

    def shown(self) -> tuple[bool, list[str]]:
        """Give what show and status say."""
        (row,) = self.rows('list')
        _code, stdout, _stderr = self.run_command('status', '-f', 'json')
        text = json.dumps(json.loads(stdout))
        return row['last_copy'], [code for code in ('N23',) if code in text]

    def test_it_is_shown_until_there_is_the_image_again(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.assertEqual((False, []), self.shown())
        self.server.stored.record_code = 404
        _code, _stdout, stderr = self.verify()
        self.assertIn('the last copy', stderr)
        self.assertEqual((True, ['N23']), self.shown())
        # Who cannot ask does not know better.
        self.server.stored.record_code = 503
        self.verify()
        self.assertEqual((True, ['N23']), self.shown())
        self.server.stored.record_code = 200
        self.assertEqual(0, self.verify()[0])
        self.assertEqual((False, []), self.shown())

    def test_a_404_for_who_may_not_see_it_says_nothing(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.server.stored.record_code = 404
        self.server.roles = ['service']
        self.verify()
        self.assertEqual((False, []), self.shown())

    def test_a_repair_notes_it_as_well(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        nodes.flip_bit(self.node.base_path(self.name), BLOCK + 5)
        self.run_command('verify', self.name)
        self.server.stored.record_code = 404
        code, _stdout, _stderr = self.run_command(
            'repair', '--image', image_server.ID, self.name
        )
        self.assertEqual(3, code)
        (row,) = self.rows('list', code=3)
        self.assertTrue(row['last_copy'])


@ddt.ddt
class UsageTest(OriginTestCase):
    @ddt.data(
        ('--origin',),
        ('--image', image_server.ID),
        ('--origin', '--image', image_server.ID),
    )
    def test_what_goes_with_nothing_is_refused(
        self, argv: tuple[str, ...]
    ) -> None:
        code, _stdout, stderr = self.run_command('verify', *argv)
        self.assertEqual(1, code)
        self.assertIn('--origin', stderr)
        self.assertEqual([], self.server.requests)

    def test_a_plain_verify_asks_no_image_service(self) -> None:
        self.run_command('verify', self.name)
        self.assertEqual([], self.server.requests)

    def test_the_image_of_another_file_is_refused(self) -> None:
        code, _stdout, stderr = self.run_command(
            'verify', '--origin', self.name,
            '--image', '11111111-2222-4333-8444-555555555555',
        )  # fmt: skip
        self.assertEqual(1, code)
        self.assertIn('is not made from image', stderr)
