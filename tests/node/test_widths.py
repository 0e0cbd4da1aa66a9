# SPDX-License-Identifier: Apache-2.0

"""What the shell prints for a person fits a terminal of 80 columns."""

import json
import os
import random
import uuid

import ddt
import fixtures

from nova_imagecache.cache import hosts
from nova_imagecache.cache import image_names
from tests.support import base
from tests.support import nodes
from tests.support import seeing
from tests.support import shell

LONG = 'ubuntu-24.04-minimal-cloudimg-amd64-of-the-second-of-the-two-regions'
HOST = f'compute-17.{"x" * 63}.example.com'
EVIDENCE = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


def is_path(line: str) -> bool:
    """Whether a line has a path, and nothing else."""
    return line.strip().startswith('/') and ' ' not in line.strip()


@ddt.ddt
class WidthsTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable('COLUMNS', '80'))
        self.write_conf(checksum_base_images='true')
        with open(self.nova_conf) as file:
            text = file.read()
        with open(self.nova_conf, 'w') as file:
            file.write(text.replace('[DEFAULT]', f'[DEFAULT]\nhost = {HOST}'))
        self.names = [self.add(number) for number in range(12)]
        self.bad, self.gone = self.names[0], self.names[-1]
        for guest in (seeing.GUEST, seeing.OTHER, seeing.THIRD):
            for number, name in enumerate(self.names[:-2]):
                self.node.add_overlay(guest, name, f'disk{number}')
        self.path = self.node.add_file(
            'backups', 'x' * 100, data=b'QFI\xfb' + b'\xff' * 99
        )
        for _time in range(2):
            self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.bad))
        self.node.add_overlay('dddddddd', self.add(99))
        os.unlink(self.node.base_path(self.add(99)))
        self.run_command('verify')

    def add(self, number: int) -> str:
        image = str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number)))
        data = random.Random(number).randbytes(64 * base.KIB)
        name = self.node.add_image(image, data=data, age=seeing.OLD)
        os.makedirs(self.node.layout.images, exist_ok=True)
        image_names.note(self.node.layout, image, f'{LONG}-{number}')
        return name

    def assert_fits(self, *argv: str) -> str:
        """Run a command; give what it prints."""
        _code, stdout, stderr = self.run_command(*argv)
        self.assertNotEqual('', stdout, stderr)
        # A path is never in pieces.
        lines = [each for each in stdout.splitlines() if not is_path(each)]
        for line in lines:
            self.assertLessEqual(len(line), 80, f'{argv}: {line}')
        return stdout

    def remove(self) -> None:
        """Have a file be in the trash."""
        self.run_command('ignore', self.path)
        self.run_command('pass')
        self.assertIn(self.gone, self.node.trash())

    @ddt.data(
        'status', 'list', 'pass', 'verify', 'scrub', 'hosts', 'trash',
    )  # fmt: skip
    def test_commands_on_a_node(self, command: str) -> None:
        self.assert_fits(command)

    @ddt.data('show', 'explain', 'repair')
    def test_commands_on_a_file_that_is_bad(self, command: str) -> None:
        self.assert_fits(command, self.bad)

    def test_all_guests_of_a_file(self) -> None:
        self.assertIn(seeing.THIRD, self.assert_fits(
            'explain', self.bad, '--guests')
        )  # fmt: skip

    def test_an_incident(self) -> None:
        self.assert_fits('explain', '1')

    def test_evidence(self) -> None:
        self.assert_fits('confirm', self.bad, '--sha1', EVIDENCE)

    def test_pins(self) -> None:
        image = str(uuid.uuid4())
        self.assert_fits('pin', self.bad, '--image-id', image)
        self.assert_fits('pins')
        self.assert_fits('unpin', self.bad, '--image-id', image)

    def test_what_is_ignored(self) -> None:
        self.assert_fits('ignore', self.path)
        self.assert_fits('ignored')
        self.assert_fits('unignore', self.path)

    def test_the_trash_and_what_comes_back(self) -> None:
        self.remove()
        self.assert_fits('pass')
        shown = self.assert_fits('trash')
        (short,) = [
            line.split()[0]
            for line in shown.splitlines()
            if line.startswith(self.gone[:8])
        ]
        self.assertLess(len(short), 30)
        self.assert_fits('undelete', short)
        self.assertIn(self.gone, self.node.files())

    def test_a_host_that_is_forgotten(self) -> None:
        self.assertIn(HOST, hosts.names_of(self.node.layout))
        self.assert_fits('forget-host', HOST)

    def test_where_there_is_room_names_are_whole(self) -> None:
        for width, whole in (('80', False), ('240', True)):
            self.useFixture(fixtures.EnvironmentVariable('COLUMNS', width))
            for command in ('scrub', 'list', 'pass'):
                _code, stdout, _stderr = self.run_command(command)
                self.assertEqual(whole, self.bad in stdout, command)

    def test_whoever_asks_for_columns_or_for_all_gets_them_whole(self) -> None:
        for argv in (
            ('pass', '--long'), ('trash', '--long', '--print-empty'),
            ('list', '--long'), ('scrub', '-c', 'name', '-c', 'reason'),
        ):  # fmt: skip
            _code, stdout, _stderr = self.run_command(*argv)
            self.assertIn('| name', stdout, argv[0])
            self.assertEqual(
                argv[0] != 'trash', self.bad in stdout, f'{argv}: {stdout}'
            )

    def test_verify_and_pass_say_what_images_are_called(self) -> None:
        for command in ('verify', 'pass'):
            self.assertIn('ubuntu-24', self.assert_fits(command))
            _code, stdout, _stderr = self.run_command(command, '-f', 'json')
            if command == 'pass':
                called = {each['image_name'] for each in json.loads(stdout)}
                self.assertIn(f'{LONG}-3', called)

    def test_a_name_that_is_short_for_several_is_refused(self) -> None:
        code, _stdout, stderr = self.run_command('pin', 'abc')
        self.assertEqual(2, code, stderr)
        self.assert_fits('pin', self.bad[:8])
        (pin,) = self.rows('pins')
        self.assertEqual(self.bad, pin['name'])
