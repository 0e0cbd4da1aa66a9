# SPDX-License-Identifier: Apache-2.0

"""Who is not the owner is told so in a line, before anything is begun."""

import importlib
import os

import ddt

from nova_imagecache.cli import owner
from tests.support import nodes
from tests.support import shell


@ddt.ddt
class OwnerTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('needs to be root')
        self.name = self.node.add_image('image')
        self.run_command('pass', '--no-verify')
        os.chmod(self.temporary, 0o755)

    def run_as_other(self, *argv: str) -> tuple[int, str, str]:
        """Run a command that becomes somebody else, once it is found."""
        # Python may be installed where root alone can read.
        importlib.import_module('psutil')
        self.patch(
            owner, 'become_owner', lambda *_paths: os.seteuid(nodes.NOBODY)
        )
        try:
            return self.run_command(*argv)
        finally:
            os.seteuid(0)

    @ddt.data(
        ['verify'],
        ['scrub'],
        ['pass', '--no-verify'],
        ['pin', 'NAME'],
        ['unpin', 'NAME'],
        ['repair', 'NAME'],
        ['confirm', 'NAME', '--sha1', '0' * 40],
        ['undelete', 'NAME'],
        ['ignore', '/x'],
        ['unignore', '/x'],
        ['forget-host', 'x'],
    )
    def test_a_command_that_changes_something_says_who_may(
        self, argv: list[str]
    ) -> None:
        argv = [self.name if each == 'NAME' else each for each in argv]
        path = self.node.layout.instances
        self.assertEqual(
            (1, '', f'run this as root or as the owner of {path}, root\n'),
            self.run_as_other(*argv),
        )

    @ddt.data(
        ['list'],
        ['show', 'NAME'],
        ['pass', '--dry-run'],
    )
    def test_who_looks_may_be_anybody(self, argv: list[str]) -> None:
        argv = [self.name if each == 'NAME' else each for each in argv]
        _code, stdout, stderr = self.run_as_other(*argv)
        self.assertIn(self.name[:8], stdout)
        self.assertNotIn('run this as', stderr)

    def test_who_may_write_all_the_same_goes_on(self) -> None:
        for directory in (self.node.layout.instances, self.node.layout.base):
            os.chmod(directory, 0o777)
        _code, _stdout, stderr = self.run_as_other('verify')
        self.assertNotIn('run this as', stderr)
