# SPDX-License-Identifier: Apache-2.0

import ast
import os
import subprocess
import sys

import nova_imagecache
from tests import base

PACKAGE = os.path.dirname(nova_imagecache.__file__)

# What a module may import of ours: itself, and what is below it.
LEVELS = (
    ('cli', 'nova', '__main__'),
    ('hook',),
    ('manager', 'background'),
    ('passes', 'summary', 'scrubber', 'verification', 'act', 'look', 'fetch'),
    ('report',),
    ('decide',),
    ('pressure',),
    ('witnesses', 'integrity'),
    ('cache',),
    ('conf',),
    ('clock', 'coalesce', 'errors', 'names'),
)

_IMPORT_ALL = """
import importlib, pkgutil, sys
import nova_imagecache
for module in pkgutil.walk_packages(nova_imagecache.__path__,
                                    'nova_imagecache.'):
    if not (module.name.endswith('__main__')
            or module.name.startswith('nova_imagecache.nova.')):
        importlib.import_module(module.name)
print(set(sys.modules) & {'eventlet', 'asyncio', 'nova', 'libvirt', 'tooz',
                          'glanceclient', 'openstack'})
"""


def modules() -> dict[str, str]:
    """Give the source of each module by its dotted name."""
    found = {}
    for directory, _directories, files in os.walk(PACKAGE):
        for file in files:
            if file.endswith('.py'):
                path = os.path.join(directory, file)
                with open(path) as source:
                    found[os.path.relpath(path, PACKAGE)] = source.read()
    return found


def level(name: str) -> int:
    (found,) = [number for number, rooms in enumerate(LEVELS) if name in rooms]
    return found


def imported(source: str) -> set[str]:
    """Give the rooms of ours that a module imports."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = (node.module or '').split('.')
        if parts[0] != 'nova_imagecache':
            continue
        if len(parts) > 1:
            rooms.add(parts[1])
        else:
            rooms |= {alias.name for alias in node.names}
    return rooms


class ImportTest(base.TestCase):
    def test_it_needs_neither_nova_nor_libvirt_nor_eventlet(self) -> None:
        done = subprocess.run(
            [sys.executable, '-c', _IMPORT_ALL], capture_output=True, text=True
        )
        self.assertEqual(('set()\n', ''), (done.stdout, done.stderr))

    def test_imports_run_one_way(self) -> None:
        for path, source in modules().items():
            room = path.split(os.sep)[0].removesuffix('.py')
            if room == '__init__':
                continue
            for other in imported(source):
                self.assertLessEqual(
                    level(room), level(other), f'{path} imports {other}'
                )

    def test_deciding_does_no_input_or_output(self) -> None:
        source = modules()['decide.py']
        names = {
            alias.name.split('.')[0]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        self.assertEqual({'dataclasses', 'enum', 'functools'}, names)

    def test_nobody_uses_green_threads_or_asyncio(self) -> None:
        for path, source in modules().items():
            for word in ('import eventlet', 'import asyncio', 'greenlet'):
                self.assertNotIn(word, source, path)
