# SPDX-License-Identifier: Apache-2.0

"""Each decision has a record, and is cited at the line that it explains."""

from collections.abc import Iterator
import functools
import os
import re

from tests.support import base

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
PACKAGE = os.path.join(ROOT, 'nova_imagecache')
RECORDS = os.path.join(ROOT, 'doc/source/contributor/decisions')

# Beside the package, what else a decision may be about.
OTHERS = ('HACKING.rst', 'pyproject.toml')

SECTIONS = ('Context', 'Decision', 'Consequence')

# A comment or a docstring may go on in the next line in between.
_CITATION = re.compile(r'\b[Dd]ecision[\s#:]+([0-9]{4})\b')
_SECTION = re.compile(r'^(\w+)\n=+$', re.MULTILINE)
_CITED_IN = re.compile(r'^Cited in: (.+(?:\n.+)*)$', re.MULTILINE)
_MODULE = re.compile(r'``([^`]+)``')


def read(path: str) -> str:
    with open(path, encoding='utf-8') as file:
        return file.read()


@functools.cache
def records() -> dict[str, str]:
    """Give the text of each record by the name of its file."""
    return {
        name: read(os.path.join(RECORDS, name))
        for name in sorted(os.listdir(RECORDS))
        if name != 'index.rst'
    }


def number(record: str) -> str:
    return record.partition('-')[0]


def modules() -> Iterator[tuple[str, str]]:
    """Give the path of each module below the package, and its text."""
    for directory, _directories, files in os.walk(PACKAGE):
        for file in files:
            if file.endswith('.py'):
                path = os.path.join(directory, file)
                yield os.path.relpath(path, PACKAGE), read(path)
    for name in OTHERS:
        yield name, read(os.path.join(ROOT, name))


@functools.cache
def citations() -> dict[str, set[str]]:
    """Give the modules that cite a decision, by its number."""
    found: dict[str, set[str]] = {}
    for module, text in modules():
        for cited in _CITATION.findall(text):
            found.setdefault(cited, set()).add(module)
    return found


class DecisionsTest(base.TestCase):
    def test_numbers_are_unique_and_without_gaps(self) -> None:
        self.assertEqual(
            [f'{count:04}' for count in range(1, len(records()) + 1)],
            [number(name) for name in records()],
        )

    def test_a_title_begins_with_the_number(self) -> None:
        for name, text in records().items():
            _line, title, *_rest = text.splitlines()
            self.assertEqual(number(name), title.partition(' ')[0], name)

    def test_each_record_has_its_sections(self) -> None:
        for name, text in records().items():
            self.assertEqual([*SECTIONS], _SECTION.findall(text), name)

    def test_each_record_is_cited_in_the_modules_that_it_names(self) -> None:
        for name, text in records().items():
            (named,) = _CITED_IN.findall(text)
            self.assertEqual(
                sorted(citations().get(number(name), ())),
                sorted(_MODULE.findall(named)),
                name,
            )

    def test_each_citation_names_a_record(self) -> None:
        numbers = {number(name) for name in records()}
        for cited, where in citations().items():
            self.assertIn(cited, numbers, f'in {sorted(where)}')
