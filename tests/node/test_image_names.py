# SPDX-License-Identifier: Apache-2.0

"""Images are called what people call them, wherever that came from."""

import json
import os
from typing import Any

from nova_imagecache.cache import image_names
from nova_imagecache.content import incidents
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_service
from nova_imagecache import names
from tests.support import base
from tests.support import image_server
from tests.support import nodes
from tests.support import seeing
from tests.support import shell

ID = '5f0c2b1e-9a7d-4386-8e3b-7a904f265d1c'
OTHER = '8e3b7a90-4f26-4d1c-9a7d-43865f0c2b1e'


class ImageNamesTestCase(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = self.node.layout
        self.name = self.node.add_image(ID)
        self.node.add_overlay(seeing.GUEST, self.name)
        self.run_command('pass', '--no-verify')

    def call(self, name: Any, image: str = ID) -> None:
        image_names.note(self.layout, image, name)

    def called(self, name: str | None = None) -> str | None:
        found = image_names.load(self.layout, name or self.name)
        return found.name if found else None

    def add(self, image: str, name: str, **kwargs: Any) -> str:
        file = self.node.add_image(image, **kwargs)
        self.call(name, image)
        return file

    def shown(self, what: str) -> str:
        _code, stdout, stderr = self.run_command('show', what, '-f', 'json')
        self.assertEqual('', stderr)
        return str(json.loads(stdout)['name'])


class NotedTest(ImageNamesTestCase):
    def test_a_name_is_noted_until_there_is_another(self) -> None:
        self.assertIsNone(self.called())
        self.call('ubuntu-24.04')
        self.assertEqual('ubuntu-24.04', self.called())
        self.call('ubuntu-24.04-old')
        self.assertEqual('ubuntu-24.04-old', self.called())

    def test_what_is_known_already_is_not_written_again(self) -> None:
        self.call('ubuntu-24.04')
        path = os.path.join(self.layout.images, self.name)
        before = os.stat(path).st_ino
        self.call('ubuntu-24.04')
        self.assertEqual(before, os.stat(path).st_ino)

    def test_other_peoples_text_is_bounded_and_printable(self) -> None:
        self.call('\x1b[2Jcruel\nname\u202e')
        self.assertEqual('\\x1b[2Jcruel\\nname\\u202e', self.called())
        self.call('x' * 1000)
        self.assertEqual('x' * 255, self.called())
        self.call('\x00' * 255)
        self.assertEqual(255, len(self.called() or ''))

    def test_what_is_no_name_changes_nothing(self) -> None:
        self.call('ubuntu-24.04')
        for bad in (None, '', '   ', 7, b'x', ['x']):
            self.call(bad)
            self.assertEqual('ubuntu-24.04', self.called())

    def test_nothing_is_noted_of_an_image_that_is_not_cached(self) -> None:
        self.call('nothing', OTHER)
        self.assertEqual({}, image_names.load_all(self.layout))

    def test_nothing_is_noted_before_the_first_pass(self) -> None:
        os.rmdir(self.layout.images)
        self.call('ubuntu-24.04')
        self.assertFalse(os.path.exists(self.layout.images))

    def test_a_record_that_is_garbage_or_of_another_is_none(self) -> None:
        self.call('ubuntu-24.04')
        path = os.path.join(self.layout.images, self.name)
        other = names.get_cache_fname(OTHER)
        os.link(path, os.path.join(self.layout.images, other))
        self.assertIsNone(self.called(other))
        with open(path, 'r+b') as file:
            file.truncate(10)
        self.assertIsNone(self.called())
        self.assertEqual(0, self.run_command('list')[0])

    def test_that_it_cannot_be_noted_comes_out_nowhere(self) -> None:
        os.rmdir(self.layout.images)
        with open(self.layout.images, 'w'):
            pass
        self.call('ubuntu-24.04')
        self.assertIsNone(self.called())

    def test_it_is_forgotten_with_the_last_file_and_not_in_the_trash(
        self,
    ) -> None:
        self.call('ubuntu-24.04')
        gone = self.add(OTHER, 'cirros', age=seeing.OLD)
        self.run_command('pass', '--no-verify')
        self.assertEqual({gone}, self.node.trash())
        self.assertEqual('cirros', self.called(gone))
        for file in os.listdir(self.layout.trash):
            os.unlink(os.path.join(self.layout.trash, file))
        self.run_command('pass', '--no-verify')
        self.assertIsNone(self.called(gone))
        self.assertEqual('ubuntu-24.04', self.called())

    def test_the_image_service_tells_it_where_it_is_asked_for_data(
        self,
    ) -> None:
        name = self.node.add_image(image_server.ID)
        path = self.node.base_path(name)
        stored = image_server.Stored(path, name='ubuntu')
        server = self.useFixture(image_server.ImageServer(stored))
        source = image_service.ImageService(
            server.client, self.layout.temporary
        )
        size = os.path.getsize(path)
        source.image(sources.Base(name, path, size, image_server.ID))
        self.assertEqual('ubuntu', self.called(name))


class ShownTest(ImageNamesTestCase):
    def test_list_has_it_in_the_place_of_the_id(self) -> None:
        self.call('ubuntu-24.04')
        for width, shown in (
            (80, 'ubuntu-24.04'), (200, f'{ID} ubuntu-24.04'),
        ):  # fmt: skip
            _code, stdout, _stderr = self.run_command(
                'list', '--max-width', str(width)
            )
            self.assertIn(f'  {shown}  ', stdout)
            self.assertLessEqual(max(map(len, stdout.splitlines())), width)

    def test_a_long_name_leaves_room_for_the_rest(self) -> None:
        self.call('a-name-that-goes-on-for-much-longer-than-one-would-like')
        _code, stdout, _stderr = self.run_command('list', '--max-width', '80')
        self.assertIn('a-name-th...', stdout)
        self.assertLessEqual(max(map(len, stdout.splitlines())), 80)

    def test_show_has_both(self) -> None:
        self.call('ubuntu-24.04')
        _code, stdout, _stderr = self.run_command('show', self.name)
        self.assertIn(ID, stdout)
        self.assertIn('ubuntu-24.04', stdout)

    def test_json_has_the_id_and_the_name(self) -> None:
        self.call('ubuntu-24.04')
        (row,) = self.rows('list')
        self.assertEqual(
            (ID, 'ubuntu-24.04'), (row['image'], row['image_name'])
        )

    def test_status_explain_and_the_incident_have_it(self) -> None:
        self.call('ubuntu-24.04')
        for _time in range(2):
            self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.name))
        code, _stdout, stderr = self.run_command('verify')
        self.assertEqual(3, code)
        self.assertIn(f'(image {ID} "ubuntu-24.04")', stderr)
        (one,) = incidents.load(self.layout).incidents
        self.assertEqual('ubuntu-24.04', one.image_name)
        for argv in (('status',), ('explain', self.name), ('explain', '1')):
            _code, stdout, _stderr = self.run_command(*argv)
            self.assertIn('ubuntu-24.04', stdout, argv[0])

    def test_the_log_line_of_a_cruel_name_is_bounded(self) -> None:
        self.call('x' * 255)
        for _time in range(2):
            self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.name))
        _code, _stdout, stderr = self.run_command('verify')
        (line,) = [
            each for each in stderr.splitlines() if '[C01]' in each
        ]  # fmt: skip
        self.assertLess(len(line), 340)
        self.assertIn(seeing.GUEST, line)


class MeantTest(ImageNamesTestCase):
    def test_a_name_means_the_file_of_its_image(self) -> None:
        self.call('ubuntu-24.04')
        self.node.add_base(f'{self.name}_1073741824')
        self.assertEqual(self.name, self.shown('ubuntu-24.04'))

    def test_a_name_with_a_slash_does_too(self) -> None:
        self.call('golden/ubuntu')
        self.assertEqual(self.name, self.shown('golden/ubuntu'))

    def test_of_two_images_of_one_name_the_id_is_asked_for(self) -> None:
        self.call('ubuntu')
        self.add(OTHER, 'ubuntu')
        code, _stdout, stderr = self.run_command('show', 'ubuntu')
        self.assertEqual(1, code)
        self.assertIn('2 images are called ubuntu', stderr)
        self.assertIn(ID, stderr)
        self.assertIn(OTHER, stderr)

    def test_nobody_can_name_an_image_so_that_it_is_taken_for_another(
        self,
    ) -> None:
        other = self.node.add_image(OTHER, data=b'x' * base.KIB)
        for text in (OTHER, other, other[:8]):
            self.call(text)
            self.assertEqual(other, self.shown(text))
        os.unlink(self.node.base_path(other))
        self.call(OTHER)
        code, _stdout, _stderr = self.run_command('show', OTHER)
        self.assertEqual(1, code)

    def test_pin_takes_the_name_of_a_cached_image_and_no_other(self) -> None:
        self.call('ubuntu-24.04')
        (row,) = self.rows('pin', '--image-id', 'ubuntu-24.04')
        self.assertEqual((self.name, ID), (row['name'], row['image']))
        self.assertEqual(
            2, self.run_command('pin', '--image-id', 'ubuntu-22.04')[0]
        )
        self.add(OTHER, 'ubuntu-24.04')
        self.assertEqual(
            2, self.run_command('unpin', '--image-id', 'ubuntu-24.04')[0]
        )

    def test_an_incident_of_a_file_that_went_is_found_by_it(self) -> None:
        self.call('ubuntu-24.04')
        for _time in range(2):
            self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('verify')
        os.unlink(self.node.base_path(self.name))
        self.run_command('pass', '--no-verify')
        _code, stdout, _stderr = self.run_command('explain', 'ubuntu-24.04')
        self.assertIn('INCIDENT 1', stdout)
