# SPDX-License-Identifier: Apache-2.0

"""Small changes of a module, with names that other edits leave alone.

A name is that of the function, and its statement with what changes there:
``Disks.users: if path {!= -> ==} itself``.
"""

import ast
import collections
from collections.abc import Iterator
from collections.abc import Sequence
import copy
import dataclasses
import functools
import itertools
import re
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_NAMES = {'min': 'max', 'max': 'min', 'any': 'all', 'all': 'any'}

# Types are for mypy, and what a class is made with is not for tests.
_SKIPPED = frozenset({'annotation', 'returns', 'decorator_list'})

# What is below a statement, and not in its own line.
_BLOCKS = frozenset({'body', 'orelse', 'finalbody', 'handlers'}) | _SKIPPED

_TOKEN = re.compile(r'\d[\d.]*|\w+|\s+|[<>=!]+|//|[^\w\s]')

# Characters in a name of what changes, and on either side of it.
_CHANGED = 60
_BESIDE = 24


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A module with one change: another value of a field of a node."""

    name: str
    node: ast.AST
    field: str
    value: Any

    def apply(self) -> None:
        """Change the tree."""
        setattr(self.node, self.field, self.value)


def _like(node: ast.AST, **changes: Any) -> Any:
    changed = copy.copy(node)
    for field, value in changes.items():
        setattr(changed, field, value)
    return changed


def _without(items: list[Any]) -> Iterator[list[Any]]:
    for index in range(len(items)):
        yield items[:index] + items[index + 1 :]


@functools.singledispatch
def _others(node: ast.AST, _function: ast.AST | None) -> Iterator[ast.AST]:
    """Give what may stand in the place of a node, in a function if in any."""
    yield from ()


@_others.register
def _(node: ast.Compare, _function: ast.AST | None) -> Iterator[ast.AST]:
    for index, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            ops = [*node.ops[:index], other(), *node.ops[index + 1 :]]
            yield _like(node, ops=ops)


@_others.register
def _(node: ast.BoolOp, _function: ast.AST | None) -> Iterator[ast.AST]:
    yield _like(node, op=_OPERATORS[type(node.op)]())
    for rest in _without(node.values):
        yield _like(node, values=rest) if len(rest) > 1 else rest[0]


@_others.register
def _(node: ast.UnaryOp, _function: ast.AST | None) -> Iterator[ast.AST]:
    yield node.operand


@_others.register
def _(node: ast.BinOp, _function: ast.AST | None) -> Iterator[ast.AST]:
    if other := _OPERATORS.get(type(node.op)):
        yield _like(node, op=other())


@_others.register
def _(node: ast.Constant, _function: ast.AST | None) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield ast.Constant(0 if node.value == 1 else node.value + 1)


@_others.register
def _(node: ast.Name, _function: ast.AST | None) -> Iterator[ast.AST]:
    if node.id in _NAMES:
        yield _like(node, id=_NAMES[node.id])


@_others.register
def _(node: ast.Call, _function: ast.AST | None) -> Iterator[ast.AST]:
    for rest in _without(node.keywords):
        yield _like(node, keywords=rest)


@_others.register
def _(node: ast.Return, function: ast.AST | None) -> Iterator[ast.AST]:
    returns = getattr(function, 'returns', None)
    if (
        isinstance(returns, ast.Name)
        and returns.id == 'bool'
        and not isinstance(node.value, ast.Constant)
    ):
        yield ast.Return(ast.Constant(True))
        yield ast.Return(ast.Constant(False))


@_others.register
def _(node: ast.AugAssign, _function: ast.AST | None) -> Iterator[ast.AST]:
    if other := _OPERATORS.get(type(node.op)):
        yield _like(node, op=other())
    yield ast.Pass()


@_others.register
def _(node: ast.Assign, function: ast.AST | None) -> Iterator[ast.AST]:
    (target, *_more) = node.targets
    if not isinstance(target, ast.Name):
        yield ast.Pass()
    elif function is not None:
        # Without its only value nothing runs at all.
        stored = [
            each
            for each in ast.walk(function)
            if isinstance(each, ast.Name)
            and each.id == target.id
            and isinstance(each.ctx, ast.Store)
        ]
        if len(stored) > 1:
            yield ast.Pass()


@_others.register(ast.Raise)
@_others.register(ast.Continue)
@_others.register(ast.Break)
def _(_node: ast.AST, _function: ast.AST | None) -> Iterator[ast.AST]:
    yield ast.Pass()


@_others.register
def _(node: ast.Expr, _function: ast.AST | None) -> Iterator[ast.AST]:
    # A docstring does nothing.
    if not isinstance(node.value, ast.Constant):
        yield ast.Pass()


class _Wordless(ast.NodeTransformer):
    """Takes out f-strings, which each Python writes in its own way."""

    def visit_JoinedStr(self, _node: ast.JoinedStr) -> ast.AST:
        return ast.Constant('...')


def _text(line: ast.AST) -> str:
    """Write a statement, without what is below it, in one line."""
    head = copy.copy(line)
    for field in _BLOCKS.intersection(line._fields):
        if isinstance(getattr(line, field), list):
            setattr(head, field, [ast.Pass()] if field == 'body' else [])
    head = ast.fix_missing_locations(_Wordless().visit(copy.deepcopy(head)))
    return ' '.join(ast.unparse(head).split()).removesuffix(': pass')


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    """Say how many items are the same at the beginning of both."""
    pairs = zip(one, other, strict=False)
    return len([*itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)])


def _difference(before: str, after: str) -> str:
    """Write a line with what changes in it."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    first = _same(old, new)
    last = _same(old[first:][::-1], new[first:][::-1])
    gone = ''.join(old[first : len(old) - last]).strip()
    come = ''.join(new[first : len(new) - last]).strip()
    head, tail = ''.join(old[:first]), ''.join(old[len(old) - last :])
    if len(head) > _BESIDE:
        head = '..' + head[-_BESIDE:]
    if len(tail) > _BESIDE:
        tail = tail[:_BESIDE] + '..'
    if len(gone) > _CHANGED:
        gone = gone[:_CHANGED] + '..'
    return f'{head}{{{gone} -> {come}}}{tail}'


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a walk through the tree is.

    :ivar line: the statement
    """

    scope: str = 'module'
    line: ast.AST | None = None
    function: ast.AST | None = None

    def below(self, parent: ast.AST, node: ast.AST) -> '_Place':
        """Give the place of what is in a node."""
        scope, line, function = self.scope, self.line, self.function
        # What is in an f-string is a line of its own.
        if isinstance(node, ast.stmt) or isinstance(
            parent, ast.FormattedValue
        ):
            line = node
        if isinstance(node, ast.FunctionDef):
            function = node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            scope = f'{scope}.{node.name}'.removeprefix('module.')
        return _Place(scope, line, function)


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    """Give each field and what is in it, by its number in a list."""
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED:
            continue
        if isinstance(value, ast.AST):
            yield field, None, value
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, ast.AST):
                    yield field, index, each


def _walk(parent: ast.AST, place: _Place) -> Iterator[Mutant]:
    for field, index, node in _children(parent):
        below = place.below(parent, node)
        others = [*_others(node, place.function)]
        if (
            isinstance(node, ast.expr)
            and field in ('test', 'ifs')
            and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp)
        ):
            others.append(ast.UnaryOp(ast.Not(), node))
        value = getattr(parent, field)
        for other in others:
            changed: Any = other
            if index is not None:
                changed = [*value[:index], other, *value[index + 1 :]]
            line = below.line or node
            before = _text(line)
            setattr(parent, field, changed)
            after = _text(other if line is node else line)
            setattr(parent, field, value)
            name = f'{place.scope}: {_difference(before, after)}'
            yield Mutant(name, parent, field, changed)
        yield from _walk(node, below)


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Give all changes of a module, each with a name of its own."""
    seen: collections.Counter[str] = collections.Counter()
    for mutant in _walk(tree, _Place()):
        seen[mutant.name] += 1
        if (count := seen[mutant.name]) > 1:
            mutant = dataclasses.replace(
                mutant, name=f'{mutant.name} ({count})'
            )
        yield mutant
