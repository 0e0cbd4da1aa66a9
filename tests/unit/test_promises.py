# SPDX-License-Identifier: Apache-2.0

"""Each promise in the documentation names the tests that hold it."""

import ast
import functools
import os
import re

from tests.support import base

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
PAGE = os.path.join(ROOT, 'doc/source/contributor/promises.rst')

_ENTRY = re.compile(r'^``([A-Z]+-[0-9]+)``$', re.MULTILINE)
_TEST = re.compile(r'^    ``(tests\.[\w.]+)``$', re.MULTILINE)


def promises() -> dict[str, str]:
    """Give the text of each promise by its identifier."""
    with open(PAGE, encoding='utf-8') as file:
        _before, *parts = _ENTRY.split(file.read())
    identifiers, texts = parts[::2], parts[1::2]
    assert len(set(identifiers)) == len(identifiers), 'one is there twice'
    return dict(zip(identifiers, texts, strict=True))


@functools.cache
def methods(module: str) -> frozenset[tuple[str, str]]:
    """Give the tests in a module, each with the name of its class."""
    path = os.path.join(ROOT, *module.split('.')) + '.py'
    with open(path, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    return frozenset(
        (parent.name, method.name)
        for parent in tree.body
        if isinstance(parent, ast.ClassDef)
        for method in parent.body
        if isinstance(method, ast.FunctionDef)
    )


class PromisesTest(base.TestCase):
    def test_there_are_promises_of_every_kind(self) -> None:
        kinds = {name.partition('-')[0] for name in promises()}
        self.assertLessEqual(
            {'ANS', 'DEL', 'FILE', 'HEAL', 'LOCK', 'PROC', 'SCRUB', 'SUM'},
            kinds,
        )

    def test_each_promise_names_a_test(self) -> None:
        for name, text in promises().items():
            self.assertNotIn('MISSING', text, name)
            self.assertTrue(_TEST.findall(text), name)

    def test_each_test_that_a_promise_names_is_there(self) -> None:
        for name, text in promises().items():
            for test in _TEST.findall(text):
                module, parent, method = test.rsplit('.', 2)
                self.assertIn((parent, method), methods(module), name)
                self.assertTrue(method.startswith('test_'), name)
