# SPDX-License-Identifier: Apache-2.0

"""Tests of one module, each time in a process of its own.

Nothing of ours is imported before the fork: the changed module is there
before anybody takes a name from it.
"""

import ast
import collections
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import tempfile
import types
from typing import Any
import unittest

import hypothesis

from tests.mutants import operators

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_PACKAGE = 'nova_imagecache'
_OURS = (_PACKAGE, 'nova', 'tests', '__main__')

# What a mutant may use that does not come to an end. Of the time of the
# processor it is, so that other work on the machine kills none; the clock is
# for one that sleeps.
_CPU_SECONDS = 5
_CPU_RATIO = 5
_CLOCK_SECONDS = 300
_MEMORY = 2 * 1024**3

# How a process ends, beside being killed.
_PASSED, _FAILED, _BROKEN = 0, 1, 3


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._code = compile(ast.fix_missing_locations(tree), path, 'exec')

    def get_code(self, _fullname: str) -> types.CodeType:
        return self._code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the changed module before the true one is found."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader

    def find_spec(
        self, fullname: str, _path: Any, _target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._loader.name:
            return None
        return importlib.util.spec_from_loader(fullname, self._loader)


def _run_tests(tests: Sequence[str]) -> list[str]:
    """Run tests up to the first that fails; say how that fails."""
    # It says what hypothesis does. Here none is to look for the least example
    # of a failure, and a slow machine is no failure.
    importlib.import_module('tests.support.base')
    hypothesis.settings.register_profile(
        'mutants',
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=[*hypothesis.HealthCheck],
        report_multiple_bugs=False,
    )
    hypothesis.settings.load_profile('mutants')
    suite = unittest.defaultTestLoader.loadTestsFromNames(tests)
    result = unittest.TestResult()
    result.failfast = True
    suite.run(result)
    return [text for _test, text in (*result.errors, *result.failures)]


@dataclasses.dataclass
class Module:
    """A module, and the tests that are to notice when it changes.

    :ivar name: below the package
    """

    name: str
    tests: Sequence[str]
    path: str = dataclasses.field(init=False)
    tree: ast.Module = dataclasses.field(init=False)
    mutants: list[operators.Mutant] = dataclasses.field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        parts = self.name.split('.')
        self.path = os.path.join(_ROOT, _PACKAGE, *parts) + '.py'
        with open(self.path, encoding='utf-8') as source:
            self.tree = ast.parse(source.read())
        self.mutants = [*operators.mutants(self.tree)]

    def _start(
        self, mutant: operators.Mutant | None, report: int | None = None
    ) -> int:
        """Begin to run the tests; give the ID of the process.

        :param mutant: None to change nothing
        :param report: where to write what is imported, or what fails
        """
        if pid := os.fork():
            return pid
        status = _BROKEN
        try:
            if mutant is not None:
                mutant.apply()
                limit = int(_CPU_SECONDS + _CPU_RATIO * self.seconds)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
                resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            signal.alarm(_CLOCK_SECONDS)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            loader = _Loader(f'{_PACKAGE}.{self.name}', self.path, self.tree)
            sys.meta_path.insert(0, _Finder(loader))
            status = _FAILED
            failures = _run_tests(self.tests)
            if not failures:
                status = _PASSED
            if report is not None:
                said = failures or [*sys.modules]
                os.write(report, '\n'.join(said).encode())
        finally:
            # Whatever is raised, with a mutant or without.
            os._exit(status)

    def prepare(self) -> None:
        """Run the tests on what is not changed.

        What they import of others is imported here, so that it is once.

        :raises RuntimeError: they fail, and so would say nothing of a change
        """
        with tempfile.TemporaryFile() as report:
            pid = self._start(None, report.fileno())
            _pid, status, usage = os.wait4(pid, 0)
            report.seek(0)
            said = report.read().decode()
        if status:
            raise RuntimeError(f'{self.name} fails as it is:\n{said}')
        self.seconds = usage.ru_utime + usage.ru_stime
        for name in said.splitlines():
            if name.partition('.')[0] not in _OURS:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)

    def survivors(self, jobs: int, progress: Callable[[], Any]) -> list[str]:
        """Name the mutants that no test notices.

        :param progress: is called after each mutant
        """
        pending = collections.deque(self.mutants)
        running: dict[int, str] = {}
        survived = set()
        while pending or running:
            while pending and len(running) < jobs:
                mutant = pending.popleft()
                running[self._start(mutant)] = mutant.name
            pid, status = os.wait()
            name = running.pop(pid)
            if os.waitstatus_to_exitcode(status) == _BROKEN:
                raise RuntimeError(f'{self.name} cannot be run: {name}')
            if not status:
                survived.add(name)
            progress()
        return [each.name for each in self.mutants if each.name in survived]
