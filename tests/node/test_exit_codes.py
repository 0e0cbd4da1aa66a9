# SPDX-License-Identifier: Apache-2.0

"""All commands end with the same number where a node is the same."""

import errno
import os
import shutil
from typing import Any

from nova_imagecache.cli import exit_codes
from tests.support import base
from tests.support import nodes
from tests.support import shell

NOTED = (['pins'], ['hosts'], ['ignored'])
LOOKING = (['status'], ['list'], ['trash'], ['pass', '--dry-run'])
VERIFYING = (['verify'], ['pass', '--no-verify'], ['pass'])


class ExitCodesTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image')
        self.node.add_overlay('guest', self.name)
        for _time in range(2):
            self.run_command('verify')

    def assert_all(self, code: int, *commands: list[str]) -> None:
        for argv in commands:
            got, _stdout, stderr = self.run_command(*argv)
            self.assertEqual(code, got, f'{argv}: {stderr}')

    def test_all_commands_agree(self) -> None:
        """And go by the worst of what there is."""
        named = (['show', self.name], ['explain', self.name])
        everything = (*LOOKING, *VERIFYING)
        self.assert_all(exit_codes.FINE, *everything, *named)
        other = self.node.add_image('other')
        self.node.add_overlay('another', other)
        os.unlink(self.node.base_path(other))
        self.assert_all(exit_codes.COULD_NOT, *everything)
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('verify')
        self.assert_all(exit_codes.CORRUPTION, *everything, *named)

    def test_a_cache_that_is_full_stops_those_who_make_room(self) -> None:
        named = (['show', self.name], ['explain', self.name])
        self.write_conf(checksum_base_images='true', cache_max_size=1)
        self.assert_all(exit_codes.COULD_NOT, *LOOKING, ['pass'])
        self.assert_all(exit_codes.FINE, ['verify'], *named, *NOTED)

    def test_what_is_not_mounted_stops_all_who_look(self) -> None:
        everything = (
            *LOOKING, *VERIFYING, *NOTED,
            ['scrub'], ['scrub', '--if-enabled'], ['show', self.name],
            ['explain', self.name], ['pin', self.name],
        )  # fmt: skip
        self.assert_all(exit_codes.FINE, *everything)
        instances = self.node.layout.instances
        shutil.rmtree(instances)
        os.mkdir(instances)
        self.assert_all(exit_codes.COULD_NOT, *everything)
        self.assertEqual([], os.listdir(instances))

    def test_what_a_command_is_asked_is_not_how_the_node_is(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('verify')
        self.assert_all(
            exit_codes.FINE,
            *NOTED,
            ['explain', 'C01'], ['pin', self.name], ['unpin', self.name],
            ['metrics'],
        )  # fmt: skip

    def test_what_keeps_unused_files_stops_those_who_remove(self) -> None:
        self.node.add_file('backup', 'x', data=b'QFI\xfb' + b'\xff' * 99)
        self.assert_all(exit_codes.COULD_NOT, *LOOKING, ['pass'])
        self.assert_all(exit_codes.FINE, ['verify'], ['show', self.name])

    def test_what_a_scrub_has_found_is_damage(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        self.assert_all(
            exit_codes.CORRUPTION, ['scrub', '--bandwidth', '0'], *LOOKING
        )

    def test_a_file_that_the_disk_does_not_give_is_damage(self) -> None:
        path = self.node.base_path(self.name)

        # Mocked here; tests/node/test_medium.py has a disk that fails.
        def preadv(fd: int, buffers: Any, offset: int, *flags: int) -> int:
            if os.readlink(f'/proc/self/fd/{fd}') == path:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset, *flags)

        real = os.preadv
        self.patch(os, 'preadv', preadv)
        self.assert_all(
            exit_codes.CORRUPTION,
            ['scrub', '--bandwidth', '0'],
            *LOOKING,
            ['verify'],
        )

    def test_a_note_alone_makes_none(self) -> None:
        self.write_conf(
            checksum_base_images='true',
            checksum_interval_seconds=1,
            scrub_bandwidth_mib_per_second=1,
        )
        self.node.add_image('large', size=8 * base.MIB, data=b'x' * base.MIB)
        self.run_command('verify', '--bandwidth', '0')
        self.assert_all(exit_codes.FINE, ['status'], ['list'])
