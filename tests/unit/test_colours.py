# SPDX-License-Identifier: Apache-2.0

import io

import fixtures

from nova_imagecache.cli import colours
from tests.support import base


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ColoursTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable('NO_COLOR'))
        self.useFixture(fixtures.EnvironmentVariable('TERM', 'xterm'))

    def text(self, stream: io.StringIO) -> str:
        return colours.on_terminal(stream, 'x', colours.RED)

    def test_a_terminal_has_them_and_nothing_else_does(self) -> None:
        self.assertEqual('\033[1;31mx\033[0m', self.text(Terminal()))
        self.assertEqual('x', self.text(io.StringIO()))

    def test_who_wants_none_gets_none(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable('NO_COLOR', ''))
        self.assertEqual('x', self.text(Terminal()))

    def test_a_terminal_that_has_none_gets_none(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable('TERM', 'dumb'))
        self.assertEqual('x', self.text(Terminal()))
