# SPDX-License-Identifier: Apache-2.0

"""The page on the commands has the keys of their JSON, and in that order."""

import json
import os
import re

from tests.support import nodes
from tests.support import seeing
from tests.support import shell

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
PAGE = os.path.join(ROOT, 'doc/source/cli/index.rst')


def documented(sentence: str) -> list[str]:
    """Give the keys of the first table behind a sentence of the page."""
    with open(PAGE, encoding='utf-8') as file:
        _before, found, after = file.read().partition(sentence)
    assert found, sentence
    table = after.partition('.. list-table::')[2]
    rows = re.split(r'\n\n\S', table)[0]
    keys = re.findall(r'^   \* - (``.*)', rows, re.MULTILINE)
    return [key for row in keys for key in re.findall('``([^`]+)``', row)]


class KeysTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write_conf()
        self.name = self.node.add_image('image', age=seeing.OLD)
        self.node.add_overlay(seeing.OTHER, self.name)
        self.file = self.node.add_file('x.img', data=b'QFI\xfb' + b'\xff' * 99)
        self.run_command('pin', self.name)
        self.run_command('pass')

    def assert_documented(self, sentence: str, *argv: str) -> None:
        _code, stdout, stderr = self.run_command(*argv, '-f', 'json')
        shown = json.loads(stdout)
        row = shown if isinstance(shown, dict) else shown[0]
        self.assertEqual(documented(sentence), [*row], stderr)

    def test_files(self) -> None:
        keys = documented('print the same columns.')
        more = documented('there are more keys,')
        for argv in (
            ('list',), ('show', self.name), ('pass', '--dry-run')
        ):  # fmt: skip
            _code, stdout, _stderr = self.run_command(*argv, '-f', 'json')
            shown = json.loads(stdout)
            row = shown if isinstance(shown, dict) else shown[0]
            self.assertEqual(keys + more, [*row], argv[0])

    def test_files_in_the_trash(self) -> None:
        os.unlink(self.file)
        other = self.node.add_image('other', age=seeing.OLD)
        self.run_command('pass')
        self.assertEqual({other}, self.node.trash())
        (row,) = self.rows('trash')
        keys = documented('print the same columns.')
        self.assertEqual(keys + documented('there are more keys,'), [*row])

    def test_status(self) -> None:
        self.assert_documented(
            '``status -f json`` prints one object.', 'status'
        )

    def test_vetoes_in_status(self) -> None:
        _code, stdout, _stderr = self.run_command('status', '-f', 'json')
        (veto,) = json.loads(stdout)['vetoed_by']
        with open(PAGE, encoding='utf-8') as file:
            row = file.read().partition('``vetoed_by``\n')[2]
        for key in veto:
            self.assertIn(f'``{key}``', row.partition('\n   * -')[0])

    def test_the_scrub_and_damage_in_status(self) -> None:
        self.run_command('scrub', '--bandwidth', '0')
        self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('verify')
        _code, stdout, _stderr = self.run_command('status', '-f', 'json')
        shown = json.loads(stdout)
        self.assertEqual(
            documented('while one is at work, and has these keys:'),
            [*shown['scrub']],
        )
        self.assertEqual(
            {*documented('Each of ``damaged`` has these keys:')},
            {*shown['damaged'][0]},
        )
        for key in ('checks', 'incidents'):
            self.assertEqual(
                {*documented(f'Each of ``{key}`` has these keys:')},
                {*shown[key][0]},
            )
        self.assertEqual(
            documented('``space`` has these keys:'), [*shown['space']]
        )

    def test_what_is_ignored(self) -> None:
        self.run_command('ignore', self.file)
        self.assert_documented('``ignored`` prints:', 'ignored')

    def test_pins(self) -> None:
        self.assert_documented('``pins`` prints:', 'pins')

    def test_hosts(self) -> None:
        self.assert_documented('``hosts`` prints a line', 'hosts')
