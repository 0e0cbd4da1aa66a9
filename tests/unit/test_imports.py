# SPDX-License-Identifier: Apache-2.0

"""The house as the documentation draws it: rooms, floors, and what is pure."""

import ast
from collections.abc import Iterator
import graphlib
import os

import nova_imagecache
from tests.support import base

PACKAGE = os.path.dirname(nova_imagecache.__file__)

# What a room may import of ours: itself, and what is on a floor below.
FLOORS = (
    ('cli', 'nova'),
    ('hook',),
    ('manager',),
    ('apart',),
    ('fetch', 'outlets'),
    ('passes',),
    ('heal',),
    ('scrub', 'witnesses'),
    ('content',),
    ('cache',),
    ('conf', 'pools'),
    (
        'children',
        'clocks',
        'coalesce',
        'codes',
        'errors',
        'host',
        'measures',
        'names',
        'stopwatches',
    ),
)

# That these stay pure is a promise; others may claim it too.
PURE = frozenset(
    {
        'cache.machines',
        'cache.sightings',
        'cache.uses',
        'cli.screens',
        'cli.tables',
        'codes',
        'heal.combining',
        'heal.guests',
        'heal.outcomes',
        'heal.policies',
        'measures',
        'outlets.health',
        'outlets.messages',
        'outlets.families',
        'outlets.metrics',
        'outlets.pages',
        'outlets.since',
        'outlets.totals',
        'passes.decide',
        'passes.observed',
        'passes.foresight',
        'passes.pressure',
        'scrub.comparisons',
        'scrub.conclusions',
        'scrub.jobs',
        'scrub.schedule',
        'witnesses.needs',
        'witnesses.qemu_options',
        'witnesses.references',
        'witnesses.vetoing',
    }
)

# What pure functions may use of Python and of others.
_PURE_IMPORTS = frozenset(
    {
        'collections', 'collections.abc', 'dataclasses', 'datetime', 'enum',
        'functools', 'hashlib', 'html', 'itertools', 'json', 'math',
        'operator', 're', 'textwrap', 'typing',
        'msgspec', 'oslo_utils.units',
    }
)  # fmt: skip

# And of ours: classes, what is in modules that are pure, and these.
_PURE_FUNCTIONS = frozenset(
    {
        'clocks.elapsed', 'clocks.jump', 'clocks.skew',
        'cache.identity.compare', 'cache.identity.merged',
        'content.ledgers.gather', 'content.ledgers.spread',
        'content.ledgers.runs_of', 'content.ledgers.blocks_in',
        'content.knowledge.judge',
    }
)  # fmt: skip
_PURE_MODULES = PURE | {'names', 'errors'}

# Methods of ours that look at the disk, the clock or the world.
_IMPURE_METHODS = frozenset(
    {
        'at', 'guard', 'load', 'load_blocks', 'look', 'look_again', 'named',
        'now', 'opened', 'publish', 'run', 'same', 'save', 'today', 'utcnow',
    }
)  # fmt: skip
_IMPURE_BUILTINS = frozenset(
    {'__import__', 'eval', 'exec', 'getattr', 'input', 'open', 'print'}
)
# Whose fields have names like these methods.
_OUR_FACTS = frozenset({'facts', 'self'})


def read_modules() -> dict[str, ast.Module]:
    """Parse each module of ours, by its name below the package."""
    found = {}
    for directory, _directories, files in os.walk(PACKAGE):
        for file in files:
            if not file.endswith('.py'):
                continue
            path = os.path.join(directory, file)
            name = os.path.relpath(path, PACKAGE).removesuffix('.py')
            name = name.replace(os.sep, '.').removesuffix('.__init__')
            with open(path, encoding='utf-8') as source:
                found[name] = ast.parse(source.read())
    # The one is empty, the other is the shell under another name.
    del found['__init__'], found['__main__']
    return found


MODULES = read_modules()


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Give what is imported, and the name that it has from then on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f'{node.module}.{alias.name}'
                yield name, alias.asname or alias.name


def ours(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Give the modules of ours that are imported, and their names here.

    The package itself where a name is imported from a package.
    """
    for full, local in imports(tree):
        name = full.removeprefix('nova_imagecache.')
        if name != full:
            yield name if name in MODULES else name.rpartition('.')[0], local


def room(module: str) -> str:
    return module.partition('.')[0]


def floor(module: str) -> int:
    (found,) = [
        number for number, rooms in enumerate(FLOORS) if room(module) in rooms
    ]
    return found


class ImportTest(base.TestCase):
    def test_imports_lead_down_from_floor_to_floor(self) -> None:
        for module, tree in MODULES.items():
            for other, _name in ours(tree):
                if room(other) == room(module):
                    continue
                self.assertLess(
                    floor(module), floor(other), f'{module} imports {other}'
                )

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        graph = {
            module: {other for other, _name in ours(tree)} - {module}
            for module, tree in MODULES.items()
        }
        # Raises CycleError with the circle.
        self.assertTrue([*graphlib.TopologicalSorter(graph).static_order()])

    def test_a_module_of_ours_has_its_own_name_wherever_it_is_used(
        self,
    ) -> None:
        for module, tree in MODULES.items():
            for other, name in ours(tree):
                if other.rpartition('.')[2] != name:
                    defined = {
                        node.name
                        for node in ast.walk(MODULES[other])
                        if isinstance(node, ast.ClassDef | ast.FunctionDef)
                    }
                    exported = {
                        name for _full, name in imports(MODULES[other])
                    }
                    names = {
                        target.id
                        for node in ast.walk(MODULES[other])
                        if isinstance(node, ast.Assign)
                        for target in node.targets
                        if isinstance(target, ast.Name)
                    }
                    self.assertIn(
                        name, defined | exported | names, f'in {module}'
                    )

    def test_nobody_uses_green_threads_or_asyncio(self) -> None:
        for module, tree in MODULES.items():
            for full, _name in imports(tree):
                self.assertNotIn(
                    full.partition('.')[0],
                    ('asyncio', 'eventlet', 'greenlet'),
                    module,
                )

    def test_only_one_room_knows_nova(self) -> None:
        for module, tree in MODULES.items():
            if room(module) != 'nova':
                for full, _name in imports(tree):
                    self.assertNotEqual('nova', full.partition('.')[0], module)


def claims_purity(tree: ast.Module) -> bool:
    return 'pure function' in (ast.get_docstring(tree) or '').lower()


def impure_imports(tree: ast.AST) -> Iterator[str]:
    for full, _name in imports(tree):
        allowed = {full, full.rpartition('.')[0]} & _PURE_IMPORTS
        if not (allowed or full.startswith('nova_imagecache')):
            yield f'it imports {full}'


def impure_names(tree: ast.AST, local: dict[str, str]) -> Iterator[str]:
    """Name what is used of our modules that are not pure.

    :param local: modules of ours, by the names that they have here
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _IMPURE_BUILTINS:
            yield f'it uses {node.id}'
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr in _IMPURE_METHODS and not (
            isinstance(node.value, ast.Name) and node.value.id in _OUR_FACTS
        ):
            yield f'it uses .{node.attr}'
        if not isinstance(node.value, ast.Name) or node.value.id not in local:
            continue
        other = local[node.value.id]
        used = f'{other}.{node.attr}'
        pure = other in _PURE_MODULES and node.attr in defined(other)
        is_class = node.attr.lstrip('_')[0].isupper()
        if not (is_class or pure or used in _PURE_FUNCTIONS):
            yield f'it uses {used}'


def defined(module: str) -> set[str]:
    """Give what a module defines by itself."""
    found = set()
    for node in MODULES[module].body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {
                each.id for each in node.targets if isinstance(each, ast.Name)
            }
    return found


def impurities(module: str, tree: ast.AST) -> list[str]:
    """Name what makes a part of a module impure."""
    local = {
        name: other
        for other, name in ours(MODULES[module])
        if other in MODULES
    }
    return [*impure_imports(tree), *impure_names(tree, local)]


class PurityTest(base.TestCase):
    def test_what_is_to_be_pure_says_so(self) -> None:
        claimed = {
            name for name, tree in MODULES.items() if claims_purity(tree)
        }
        self.assertEqual(PURE, claimed)

    def test_what_says_that_it_is_pure_does_no_input_or_output(self) -> None:
        for module in PURE:
            self.assertEqual([], impurities(module, MODULES[module]), module)

    def test_what_is_taken_for_pure_elsewhere_is(self) -> None:
        for path in _PURE_FUNCTIONS:
            module, _dot, name = path.rpartition('.')
            (function,) = (
                node
                for node in MODULES[module].body
                if isinstance(node, ast.FunctionDef) and node.name == name
            )
            self.assertEqual([], impurities(module, function), path)
            outside = {
                node.value.id
                for node in ast.walk(function)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
            }
            self.assertEqual(set(), outside & {'ctypes', 'os', 'time'}, path)

    def test_names_are_judged_without_looking_at_files(self) -> None:
        used = {
            node.attr
            for node in ast.walk(MODULES['names'])
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == 'os'
        }
        self.assertEqual({'fsencode'}, used)

    def test_the_test_finds_what_is_not_pure(self) -> None:
        for line in (
            'import os',
            'import time',
            "__import__('os')",
            "open('/etc/passwd')",
            'datetime.date.today()',
            'read = ledgers.Ledger.load',
            'file.same()',
            'names.os',
            'clocks.now()',
            'states.remember()',
        ):
            self.assertNotEqual(
                [], impurities('passes.observed', ast.parse(line)), line
            )
