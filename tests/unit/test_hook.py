# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator
import dataclasses
import inspect
import re
import typing
from typing import Any

from nova_imagecache import hook
from tests.support import base

_RAISES = re.compile(r':raises nova_imagecache\.errors\.(\w+)')

EXPORTED = {name: getattr(hook, name) for name in hook.__all__}


def public_functions(thing: Any) -> Iterator[Any]:
    """Give what may be called of something that the hook exports."""
    if inspect.isfunction(thing):
        yield thing
    elif inspect.isclass(thing):
        for name, member in inspect.getmembers(thing):
            if name.startswith('_') and name != '__init__':
                continue
            if isinstance(member, property):
                yield member.fget
            elif inspect.isfunction(member):
                yield member


def hints(thing: Any) -> Iterator[Any]:
    """Give the types that somebody who uses it comes across."""
    for function in public_functions(thing):
        if function.__module__.startswith('nova_imagecache'):
            yield from typing.get_type_hints(function).values()
    if dataclasses.is_dataclass(thing) or hasattr(thing, '__struct_fields__'):
        yield from typing.get_type_hints(thing).values()


def classes(hint: Any) -> Iterator[type]:
    """Give the classes that a type is made of."""
    if isinstance(hint, list | tuple):
        for part in hint:
            yield from classes(part)
    elif typing.get_args(hint):
        yield from classes(typing.get_args(hint))
    elif inspect.isclass(hint):
        yield hint


class HookTest(base.TestCase):
    def test_every_class_that_its_functions_show_is_exported(self) -> None:
        for name, thing in EXPORTED.items():
            for hint in hints(thing):
                for found in classes(hint):
                    if found.__module__.startswith('nova_imagecache'):
                        self.assertIn(found, EXPORTED.values(), f'of {name}')

    def test_every_error_that_its_functions_raise_is_exported(self) -> None:
        raised = {
            error
            for thing in EXPORTED.values()
            for function in public_functions(thing)
            for error in _RAISES.findall(function.__doc__ or '')
        }
        self.assertIn('KnownDamage', raised)
        self.assertEqual(set(), raised - EXPORTED.keys())

    def test_each_function_says_what_it_is_for(self) -> None:
        for name, thing in EXPORTED.items():
            for function in public_functions(thing):
                made = function.__name__ == '__init__' and (
                    dataclasses.is_dataclass(thing)
                )
                if not made and function.__module__.startswith(
                    'nova_imagecache'
                ):
                    self.assertTrue(function.__doc__, f'{name}: {function}')
