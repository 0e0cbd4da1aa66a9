# SPDX-License-Identifier: Apache-2.0

"""Nova's own unit tests, with our driver in the place of Nova's.

    python -P tests/nova_unit.py [--jobs 2] [REGEX]

Each is run with our driver, and what fails is run with Nova's as well. What
fails with ours alone is in EXPLAINED, with the reason, or it is a failure; so
is an entry that does not fail any more.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

UNIT = 'nova.tests.unit.'

#: Modules of Nova's tests, and which of the tests in them.
TESTS = {
    'virt.libvirt.test_driver': '',
    'virt.libvirt.test_imagecache': '',
    'virt.test_imagecache': '',
    'virt.test_virt_drivers': 'Libvirt',
    'compute.test_compute_mgr': 'cache_image|LibvirtDriver',
    'compute.test_rpcapi': 'cache_image',
    'conductor.test_conductor': 'cache_image',
    'test_thread_pool_factory': 'CacheImages',
}

_DRIVER_TEST = UNIT + 'virt.libvirt.test_driver.LibvirtDriverTestCase.'
_MANAGER_TEST = UNIT + 'virt.libvirt.test_driver.TestUpdateProviderTree.'

#: What is in the failure, and the reason for it.
EXPLAINED = {
    _DRIVER_TEST + 'test_cache_image_existing': (
        "Expected 'utime' to be called once. Called 0 times",
        'wants the privileged touch at once; ours touches so only what it may '
        'not touch itself',
    ),
    _DRIVER_TEST + 'test_cache_image_uncached': (
        "Expected 'exists' to be called once. Called",
        'counts calls of os.path.exists; ours takes the lock, which has some',
    ),
    _DRIVER_TEST + 'test_cache_image_uncached_first_time': (
        '/nova/instances',
        'wants the directory made by ensure_tree, if os.path.isdir says so; '
        'ours has os.makedirs see to it',
    ),
    _MANAGER_TEST + 'test_image_cache_disk_reservation': (
        'MismatchError: 2 != 1',
        "replaces get_disk_usage in Nova's class; ours has its own",
    ),
}

# What some of Nova's tests make when they are run as root.
_LITTER = '/nova'

# Runs that take longer hang.
_DEADLINE_SECONDS = 3600


def replace_driver() -> None:
    """Have Nova's tests find our driver wherever they look for Nova's."""
    from nova import test
    from nova.virt import libvirt
    from nova.virt.libvirt import driver

    from nova_imagecache.nova import driver as ours

    # It asks for the very class, and our disks are of subclasses.
    test.MatchType.__eq__ = lambda matcher, other: isinstance(
        other, matcher.wanttype
    )

    # What is patched on a class that only inherits it is not put back as it
    # was: a static method comes back as an ordinary one. So ours has it all.
    for name, value in vars(driver.LibvirtDriver).items():
        if name not in vars(ours.LibvirtDriver) and not name.startswith('__'):
            setattr(ours.LibvirtDriver, name, value)
    driver.LibvirtDriver = ours.LibvirtDriver
    libvirt.LibvirtDriver = ours.LibvirtDriver


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Give the tests of a suite one by one."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def load() -> list[unittest.TestCase]:
    """Load the tests that are of interest, in the same order each time."""
    tests = []
    loader = unittest.defaultTestLoader
    for module, pattern in TESTS.items():
        suite = loader.loadTestsFromName(UNIT + module)
        tests += [
            test for test in flatten(suite) if re.search(pattern, test.id())
        ]
    if loader.errors:
        sys.exit('\n'.join(map(str, loader.errors)))
    return tests


class Result(unittest.TestResult):
    """What became of each test: nothing, or what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str | None] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        said = [text for _test, text in (*self.errors, *self.failures)]
        self.outcomes[test.id()] = '\n'.join(said) or None
        self.errors.clear()
        self.failures.clear()


def work(output: str, ours: bool, chosen: Sequence[str]) -> None:
    """Run tests in this process; write down what became of them.

    :param output: path of a file to write
    :param chosen: identifiers, or none to write down what there are
    """
    # It sees to eventlet, or to its absence, before anything else.
    import nova.tests.unit  # noqa: F401

    if ours:
        replace_driver()
    wanted = set(chosen)
    result = Result()
    for test in load():
        if not wanted:
            result.outcomes[test.id()] = None
        elif test.id() in wanted:
            test.run(result)
    with open(output, 'w') as file:
        json.dump(result.outcomes, file)


def start(ours: bool, chosen: Sequence[str]) -> dict[str, str | None]:
    """Run tests in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        names = os.path.join(directory, 'names')
        output = os.path.join(directory, 'output')
        log = os.path.join(directory, 'log')
        with open(names, 'w') as file:
            json.dump(chosen, file)
        with open(log, 'w') as file:
            done = subprocess.run(
                [sys.executable, '-P', __file__, '--worker', output,
                 '--names', names, *(['--ours'] if ours else [])],
                cwd=directory,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=_DEADLINE_SECONDS,
            )  # fmt: skip
        if done.returncode:
            with open(log) as file:
                raise SystemExit(file.read()[-4000:])
        with open(output) as file:
            outcomes: dict[str, str | None] = json.load(file)
        return outcomes


def run(jobs: int, ours: bool, tests: Sequence[str]) -> dict[str, str | None]:
    """Run tests in several processes; give what failed."""
    parts = [tests[index::jobs] for index in range(min(jobs, len(tests)))]
    outcomes: dict[str, str | None] = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for part in pool.map(lambda part: start(ours, part), parts):
            outcomes |= part
    return outcomes


def failed(outcomes: dict[str, str | None]) -> set[str]:
    return {name for name, said in outcomes.items() if said}


def main() -> int:
    """Run both, compare, and say what is to be said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    parser.add_argument('--names', help=argparse.SUPPRESS)
    parser.add_argument('--ours', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('regex', nargs='?', default='')
    options = parser.parse_args()
    if options.worker:
        with open(options.names) as file:
            work(options.worker, options.ours, json.load(file))
        return 0
    tests = [
        name for name in start(False, []) if re.search(options.regex, name)
    ]
    clean_up = not os.path.exists(_LITTER)
    began = time.monotonic()
    suspects = sorted(failed(run(options.jobs, True, tests)))
    print(
        f'{len(tests)} tests with our driver: {len(suspects)} fail, '
        f'{time.monotonic() - began:.0f} s',
        flush=True,
    )
    # A test that fails now and then is no difference.
    again = run(1, True, suspects) if suspects else {}
    stock = run(1, False, suspects) if suspects else {}
    if clean_up:
        shutil.rmtree(_LITTER, ignore_errors=True)
    differing = failed(again) - failed(stock)
    explained = {
        name
        for name in differing & set(EXPLAINED)
        if EXPLAINED[name][0] in str(again[name])
    }
    for name in sorted(differing - explained):
        print(f'FAILS WITH OURS ALONE: {name}\n{again[name]}')
    stale = {
        name
        for name in EXPLAINED
        if re.search(options.regex, name) and name not in differing
    }
    for name in sorted(stale):
        print(f'IS EXPLAINED, BUT DOES NOT FAIL: {name}')
    for name in sorted(explained):
        print(f'explained: {name}\n    {EXPLAINED[name][1]}')
    return 1 if stale or differing - explained else 0


if __name__ == '__main__':
    sys.exit(main())
