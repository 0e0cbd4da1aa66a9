# SPDX-License-Identifier: Apache-2.0

"""The codes, their lines in the log, and their entries in the runbook."""

import ast
from collections.abc import Iterator
import os
import re

import hypothesis
from hypothesis import strategies

import nova_imagecache
from nova_imagecache.cli import runbook
from nova_imagecache import codes
from nova_imagecache.witnesses import vetoing
from tests.support import base

PACKAGE = os.path.dirname(nova_imagecache.__file__)

FIELDS = ['Means', 'Guests', 'Do', 'May they go on', 'Close']

_LOUD = frozenset({'warning', 'error', 'exception', 'critical'})
_CODED = re.compile(r'\[([A-Z][0-9]{2})\] ')


def loud_calls() -> Iterator[tuple[str, str]]:
    """Give each warning or error that is logged: where, and its words."""
    for directory, _directories, files in os.walk(PACKAGE):
        for file in filter(lambda name: name.endswith('.py'), files):
            path = os.path.join(directory, file)
            with open(path, encoding='utf-8') as source:
                tree = ast.parse(source.read())
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in _LOUD
                    # However it is reached, as self.app.LOG.
                    and ast.unparse(node.func.value).endswith('LOG')
                ):
                    (first, *_others) = node.args
                    words = (
                        first.value if isinstance(first, ast.Constant) else ''
                    )
                    yield f'{path}:{node.lineno}', str(words)


class CodesTest(base.TestCase):
    def test_each_is_a_letter_and_two_digits(self) -> None:
        for code in codes.Code:
            self.assertRegex(str(code), '^[CGVPN][0-9]{2}$')

    def test_those_of_damage_come_before_those_of_problems_and_notes(
        self,
    ) -> None:
        order = [*codes.Severity]
        found = [
            order.index(code.severity)
            for code in codes.Code
            if code is not codes.Code.FETCHED_ANEW
        ]
        self.assertEqual(sorted(found), found)

    def test_each_reason_of_a_veto_has_one_of_its_own(self) -> None:
        found = [vetoing.code(reason) for reason in vetoing.Reason]
        self.assertEqual(len(found), len({*found}))
        for code in found:
            self.assertTrue(str(code).startswith('V'))

    def test_a_problem_is_its_sentence(self) -> None:
        problem = codes.Problem(codes.Code.SPACE, 'a sentence', 'x', ('y',))
        self.assertEqual('a sentence', problem)
        self.assertEqual(
            (codes.Code.SPACE, 'x', ('y',)),
            (problem.code, problem.subject, problem.guests),
        )

    def test_no_warning_and_no_error_is_logged_without_one(self) -> None:
        known = {str(code) for code in codes.Code}
        for where, words in loud_calls():
            found = _CODED.match(words)
            assert found is not None, f'{where}: {words}'
            self.assertIn(found[1], known, where)

    def test_each_that_is_no_damage_and_no_veto_is_given_somewhere(
        self,
    ) -> None:
        """No code is in the table that nothing can show."""
        text = ''
        for directory, _directories, files in os.walk(PACKAGE):
            for file in files:
                if file.endswith('.py') and file != 'codes.py':
                    path = os.path.join(directory, file)
                    with open(path, encoding='utf-8') as source:
                        text += source.read()
        unused = [
            str(code)
            for code in codes.Code
            if f'Code.{code.name}' not in text and f'[{code}] ' not in text
        ]
        self.assertEqual([], unused)


class ClippedTest(base.TestCase):
    @hypothesis.given(
        strategies.text(max_size=500), strategies.text('abc ', max_size=20)
    )
    def test_it_never_takes_more_bytes_and_keeps_its_end(
        self, text: str, end: str
    ) -> None:
        found = codes.clipped(text, 100, end)
        self.assertLessEqual(len(found.encode(errors='replace')), 100)
        self.assertTrue(found.endswith(end))
        self.assertNotIn('\n', found)

    def test_what_fits_stays_as_it_is(self) -> None:
        self.assertEqual('a b', codes.clipped('a\nb', 3))
        self.assertEqual('a...', codes.clipped('abcdef', 4))


class RunbookTest(base.TestCase):
    def test_no_code_is_without_an_anchor_and_no_anchor_without_a_code(
        self,
    ) -> None:
        wanted = [code.anchor for code in codes.Code]
        wanted += [f'alert-{name}'.lower() for name in codes.ALERTS]
        self.assertEqual(wanted, [*runbook.entries()])

    def test_each_entry_has_its_title_and_all_that_is_asked_at_night(
        self,
    ) -> None:
        titles = {code.anchor: f'{code}: {code.title}' for code in codes.Code}
        titles |= {f'alert-{name}'.lower(): name for name in codes.ALERTS}
        for anchor, text in runbook.entries().items():
            self.assertEqual(titles[anchor], text.splitlines()[0])
            self.assertEqual(
                FIELDS, re.findall(r'^:([\w ]+):', text, re.MULTILINE), anchor
            )

    def test_an_entry_is_read_in_a_minute(self) -> None:
        for anchor, text in runbook.entries().items():
            # 200 words take a minute.
            self.assertLessEqual(len(text.split()), 200, anchor)

    def test_on_a_terminal_nothing_of_the_markup_is_left(self) -> None:
        for anchor in runbook.entries():
            text = runbook.text_of(anchor)
            self.assertNotIn('`', text)
            self.assertNotRegex(text, r'(?m)^:|^-{3}|^={3}')
            for field in FIELDS:
                self.assertIn(f'\n{field}: ', text)
