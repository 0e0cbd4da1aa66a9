# SPDX-License-Identifier: Apache-2.0

"""The small changes that tox -e mutants makes, and the list of survivors."""

import ast
import os
import textwrap
import tomllib

import ddt

from tests.mutants import __main__ as mutants
from tests.mutants import operators
from tests.mutants import survivors
from tests.support import base

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


def parse(source: str) -> ast.Module:
    return ast.parse(textwrap.dedent(source))


def names(source: str) -> list[str]:
    return [each.name for each in operators.mutants(parse(source))]


@ddt.ddt
class OperatorsTest(base.TestCase):
    @ddt.data(
        ('x < y', ['x {< -> <=} y', 'x {< -> >=} y']),
        ('x == y', ['x {== -> !=} y']),
        ('x is None', ['x is { -> not}None']),
        ('x in y', ['x { -> not}in y']),
        ('x and y', ['x {and -> or} y', '{x and -> }y', 'x{and y -> }']),
        ('not x', ['{not -> }x']),
        ('x + y', ['x {+ -> -} y']),
        ('0', ['{0 -> 1}']),
        ('1', ['{1 -> 0}']),
        ('600', ['{600 -> 601}']),
        ('True', ['{True -> False}']),
        ("'text'", []),
        ('min(x)', ['{min -> max}(x)']),
        ('f(x, y=z)', ['f(x{, y=z -> })']),
        ('x if y else z', ['x if { -> not}y else z']),
        ("f'{x + y}'", ['x {+ -> -} y']),
    )
    @ddt.unpack
    def test_an_expression_is_changed(
        self, source: str, changes: list[str]
    ) -> None:
        found = names(f'def f():\n    return {source}\n')
        self.assertEqual(
            [f'f: {each}' for each in changes],
            [each.replace('return ', '') for each in found],
        )

    @ddt.data(
        ('raise ValueError', ['{raise ValueError -> pass}']),
        ('x.y = z', ['{x.y = z -> pass}']),
        ('x += y', ['x {+ -> -}= y', '{x += y -> pass}']),
        ('x = y', []),
        ('x = y; x = z', ['{x = y -> pass}', '{x = z -> pass}']),
        ('f(x)', ['{f(x) -> pass}']),
        ('if x: y', ['if { -> not}x', '{y -> pass}']),
        ('return x', ['return {x -> True}', 'return {x -> False}']),
        ('"""Say."""', []),
        ('x: int = y', []),
    )
    @ddt.unpack
    def test_a_statement_is_changed(
        self, source: str, changes: list[str]
    ) -> None:
        found = names(f'def f() -> bool:\n    {source}\n')
        self.assertEqual([f'f: {each}' for each in changes], found)

    def test_a_mutant_has_the_change_that_its_name_tells(self) -> None:
        tree = parse('class C:\n    def f(self):\n        return x < y\n')
        first, _second = operators.mutants(tree)
        self.assertEqual('C.f: return x {< -> <=} y', first.name)
        first.apply()
        self.assertIn('return x <= y', ast.unparse(tree))

    def test_names_are_the_same_after_an_edit_elsewhere(self) -> None:
        function = 'def f(x):\n    if x < 7:\n        return x + 1\n'
        edited = f'import os\n\ndef g(y):\n    return y\n\n{function}'
        self.assertEqual(names(function), names(edited))

    def test_names_are_the_same_in_another_layout(self) -> None:
        self.assertEqual(
            names('def f(x):\n    return g(x, x + 7)\n'),
            names('def f(x):\n    return g(\n        x, (x + 7),\n    )\n'),
        )

    def test_no_two_mutants_have_one_name(self) -> None:
        found = names('def f(x):\n    x.y = 1\n    x.y = 1\n')
        self.assertEqual(4, len(set(found)))


class SurvivorsTest(base.TestCase):
    def test_each_survivor_is_a_mutant(self) -> None:
        for module, listed in survivors.read().items():
            self.assertIn(module, mutants.TESTS)
            path = os.path.join(ROOT, 'nova_imagecache', *module.split('.'))
            with open(f'{path}.py', encoding='utf-8') as source:
                found = {*names(source.read())}
            self.assertEqual(set(), listed.keys() - found, module)

    def test_the_list_is_in_the_form_in_which_it_is_printed(self) -> None:
        known = survivors.read()
        printed = '\n'.join(
            survivors.write(module, [*listed], listed)
            for module, listed in known.items()
        )
        groups = tomllib.loads(printed)
        with open(survivors.PATH, 'rb') as file:
            self.assertEqual(tomllib.load(file), groups)

    def test_what_is_new_has_no_reason_yet(self) -> None:
        self.assertIn('why = ""', survivors.write('clocks', ['f: x'], {}))
