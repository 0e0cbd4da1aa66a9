# SPDX-License-Identifier: Apache-2.0

"""A base file that is another one now, below the disks of guests.

Their overlays hold differences to what it was.
"""

import json
import os
import random

import ddt

from nova_imagecache.cache import identity
from tests.support import base
from tests.support import nodes
from tests.support import shell

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
YOUNG = '33333333-cccc-4ccc-8ccc-000000000003'


class UnderGuestsTestCase(shell.ShellTestCase):
    def add_base(self, name: str) -> None:
        """Have a base file with two guests, of which all is known."""
        self.name = name
        self.path = self.node.add_base(name)
        self.sidecar = self.path + '.sha1'
        self.disk = self.node.add_overlay(GUEST, name)
        self.node.add_overlay(OTHER, name)
        for _pass in range(3):
            (row,) = self.rows('pass')
        self.assertEqual('good', row['checksum'])
        self.before = self.read_sidecar()

    def replace(self, data: bytes) -> None:
        """Have another file with the name, made after those disks."""
        new = os.path.join(self.temporary, 'new')
        nodes.write_after(new, data, self.disk)
        os.rename(new, self.path)

    def other_bytes(self) -> bytes:
        return random.Random(1).randbytes(64 * base.KIB)


@ddt.ddt
class OriginalTest(UnderGuestsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add_base('f' * 40)
        self.replace(self.other_bytes())

    @ddt.data('pass', 'verify')
    def test_whoever_reads_it_says_so_and_whom_it_hits(
        self, command: str
    ) -> None:
        for _time in range(2):
            code, stdout, stderr = self.run_command(command)
            self.assertEqual(3, code)
            self.assertIn('differs', stdout.lower())
            for text in (
                self.path,
                'differs from an earlier file of it',
                GUEST,
                OTHER,
            ):
                self.assertIn(text, stderr)
        self.assertEqual(self.before, self.read_sidecar())

    @ddt.data('list', 'status')
    def test_whoever_asks_hears_it_from_then_on(self, command: str) -> None:
        self.run_command('verify')
        code, stdout, stderr = self.run_command(command, '-f', 'json')
        self.assertEqual(3, code)
        for text in (GUEST, OTHER):
            self.assertIn(text, stdout)
            if command == 'list':
                self.assertIn(text, stderr)
        found = json.loads(stdout)
        (file,) = found['damaged'] if command == 'status' else found
        self.assertEqual('differs', file['checksum'])

    def test_before_it_was_read_it_is_not_accused(self) -> None:
        for command in ('list', 'status'):
            code, stdout, _stderr = self.run_command(command)
            self.assertEqual(0, code)
            self.assertNotIn('differs', stdout.lower())
            self.assertNotIn('corrupt', stdout.lower())

    def test_guests_whose_disks_are_older_are_named_as_such(self) -> None:
        self.run_command('verify')
        self.node.add_overlay(YOUNG, self.name)
        _code, _stdout, stderr = self.run_command('list')
        (line,) = [
            line
            for line in stderr.splitlines()
            if 'whose disks are older' in line
        ]
        self.assertIn(GUEST, line)
        self.assertIn(OTHER, line)
        self.assertNotIn(YOUNG, line)

    def test_it_is_over_when_the_earlier_bytes_are_back(self) -> None:
        self.run_command('verify')
        self.node.add_base(self.name)
        code, _stdout, stderr = self.run_command('verify')
        self.assertEqual(0, code, stderr)
        for command in ('list', 'pass'):
            self.assertEqual('good', self.rows(command)[0]['checksum'])
        self.assertEqual(self.before, self.read_sidecar())


class SameBytesTest(UnderGuestsTestCase):
    def test_a_file_with_the_same_bytes_hits_nobody(self) -> None:
        self.add_base('f' * 40)
        with open(self.path, 'rb') as file:
            self.replace(file.read())
        (row,) = self.rows('pass')
        self.assertEqual('good', row['checksum'])
        _code, _stdout, stderr = self.run_command('list')
        self.assertNotIn(GUEST, stderr)


@ddt.ddt
class MadeAnewTest(UnderGuestsTestCase):
    """Swap, ephemeral and resized files are made anew with new bytes."""

    NAMES = ('swap_64', 'ephemeral_1_abcdef0', f'{"f" * 40}_65536')

    def make_anew(self, name: str) -> None:
        self.add_base(name)
        self.replace(self.other_bytes())
        if '_65536' in name:
            # It is not read in the pass that sees it first.
            (row,) = self.rows('pass')
            self.assertIn('may still grow', row['reason'])

    @ddt.data(*NAMES)
    def test_it_is_a_new_baseline_and_noted(self, name: str) -> None:
        self.make_anew(name)
        row = self.rows('pass', code=3)[0]
        self.assertEqual('digested', row['checksum'])
        self.assertIn('made anew with other bytes', row['reason'])
        self.assertNotEqual(self.before, self.read_sidecar())
        row = self.rows('pass', code=3)[0]
        self.assertEqual('good', row['checksum'])
        self.assertIn('made anew with other bytes', row['reason'])

    @ddt.data(*NAMES)
    def test_older_guests_are_named_as_an_error_and_younger_are_not(
        self, name: str
    ) -> None:
        self.make_anew(name)
        for command in ('verify', 'pass', 'list', 'status'):
            # As one that was made since.
            self.node.add_overlay(YOUNG, name)
            code, stdout, stderr = self.run_command(command)
            self.assertEqual(3, code, command)
            # The screen of status has it, and the log of the others.
            told = stdout if command == 'status' else stderr
            self.assertIn('made anew', told)
            self.assertIn(GUEST, told)
            self.assertIn(OTHER, told)
            self.assertNotIn(YOUNG, told)

    def test_a_fleet_hears_of_it_too(self) -> None:
        self.make_anew('swap_64')
        self.run_command('pass')
        told = self.run_command('metrics')[1]
        for line in (
            'damaged_files{verdict="made_anew"} 1.0',
            'damaged_file_info{image_id="",name="swap_64",verdict="made_anew"}'
            ' 1.0',
            'damaged_file_readers{name="swap_64"} 2.0',
        ):
            self.assertIn(f'\nnova_imagecache_{line}\n', told)

    def test_without_older_guests_nothing_is_wrong(self) -> None:
        self.add_base('swap_64')
        os.unlink(self.disk)
        os.unlink(os.path.join(self.node.layout.instances, OTHER, 'disk'))
        new = os.path.join(self.temporary, 'new')
        nodes.write_after(new, self.other_bytes(), self.path)
        os.rename(new, self.path)
        young = self.node.add_overlay(YOUNG, self.name)
        self.assertGreaterEqual(
            identity.stat_of(young).incarnation.born or 0,
            identity.stat_of(self.path).incarnation.born or 0,
        )
        for command in ('pass', 'list'):
            code, _stdout, stderr = self.run_command(command)
            self.assertEqual(0, code, stderr)
            self.assertNotIn(YOUNG, stderr)
