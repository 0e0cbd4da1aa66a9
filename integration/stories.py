# SPDX-License-Identifier: Apache-2.0

"""What the stories of integration have in common.

In a story each test goes on where the one before it has ended, so the first
failure ends it.
"""

import atexit
from collections.abc import Collection
from collections.abc import Iterator
import configparser
import functools
import itertools
import json
import os
import pathlib
import re
import shlex
import sys
import time
from typing import Any
import unittest

from integration import cloud as clouds
from integration import node as nodes
from integration import stack as stacks
from integration import system
from nova_imagecache import names

_UNITS = pathlib.Path(__file__).parent.parent / 'etc' / 'systemd'

MIB = 2**20

#: Where a base file is damaged.
BAD = 5 * MIB

#: What is told of that.
RANGES = [{'start': 4 * MIB, 'end': 8 * MIB, 'damage': 'corrupt'}]

_PASS_SECONDS = 3

# What the log may warn of on a machine that is busy, as the intervals are of
# seconds here, and nova-compute is stopped again and again.
_BUSY = (
    'verification is overdue: ',
    'the pass was ended with this service',
    *(f'still at work, as it has been for {each} s, ' for each in range(60)),
)

# Of a line in the log.
_PREFIX = re.compile(r'^\d{4}-\d\d-\d\d \S+ \d+ [A-Z]+ \S+ (?:\[[^]]*\] )*')


@functools.cache
def _started() -> stacks.Stack:
    """Give the one stack, which ends with the process."""
    stack = stacks.Stack(os.environ['STACK_DIRECTORY'])
    atexit.register(stack.kill)
    stack.start()
    for what, seconds in stack.times.items():
        print(f'{what}: {seconds:.1f} s', file=sys.stderr)
    return stack


def flip_bit(path: pathlib.Path) -> None:
    """Damage a base file as a disk does that decays: it leaves no time."""
    before = path.stat()
    with open(path, 'r+b') as file:
        file.seek(BAD)
        (byte,) = file.read(1)
        file.seek(BAD)
        file.write(bytes([byte ^ 1]))
        file.flush()
        os.fsync(file.fileno())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _tracebacks(text: str) -> Iterator[tuple[str, str]]:
    """Give the frames and the exception of each traceback in a log."""
    lines = [_PREFIX.sub('', line) for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if 'Traceback (most recent call last)' in line:
            frames = list(
                itertools.takewhile(
                    lambda each: each.startswith('  '), lines[number:]
                )
            )
            yield '\n'.join(frames), lines[number + len(frames)]


class StoryTestCase(unittest.TestCase):
    """A story, told by tests that are numbered."""

    stack: stacks.Stack
    cloud: clouds.Cloud
    #: Where the log begins that is of this story.
    since: int

    image: str
    content: bytes
    flavor: str
    guest: str
    base: pathlib.Path

    #: What the log may warn of, as there is damage.
    expected: Collection[str] = ()

    @classmethod
    def setUpClass(cls) -> None:
        cls.stack = _started()
        cls.cloud = cls.stack.cloud
        cls.since = len(cls.stack.log('nova-compute'))

    def setUp(self) -> None:
        self.begin = time.monotonic()

    def tearDown(self) -> None:
        seconds = time.monotonic() - self.begin
        print(f'({seconds:.1f} s)', end=' ', file=sys.stderr)

    # Asking.

    def upload(self, content: bytes) -> None:
        """Make the image of this story."""
        cls = type(self)
        cls.content = content
        cls.image = self.cloud.upload(content)
        cls.base = nodes.BASE / names.get_cache_fname(cls.image)

    def boot(self, name: str, flavor: str | None = None) -> str:
        return self.cloud.boot(name, self.image, flavor or self.flavor)

    def wait_for_status(self, uuid: str, status: str) -> Any:
        try:
            return self.cloud.wait_for_status(uuid, status)
        except system.Failed as error:
            self.fail(f'{error}\n{self.errors()}')

    def log(self) -> str:
        return self.stack.log('nova-compute')

    def errors(self) -> str:
        return '\n'.join(re.findall(r'.* ERROR .*', self.log())[-40:])

    def wait_for_log(self, text: str, since: int = 0) -> None:
        system.wait_for(
            lambda: text in self.log()[since:], 120, f'the log says: {text}'
        )

    def wait_for_pass(self) -> None:
        """Wait for a pass that begins from now on."""
        since = len(self.log())
        line = f'Image cache {nodes.BASE}: .* in the trash'
        # A pass says it in the end, so the first one may have begun already.
        system.wait_for(
            lambda: len(re.findall(line, self.log()[since:])) > 1,
            120,
            'a pass is made',
        )

    def ours(self, *arguments: str, user: str = nodes.USER) -> tuple[int, Any]:
        """Run our program as the operator does; give code and JSON."""
        done = self.stack.run(
            user, 'nova-imagecache', *arguments, '-f', 'json'
        )
        self.assertNotIn('Traceback', done.stderr)
        return done.returncode, json.loads(done.stdout or 'null')

    def run_unit(self, name: str, user: str) -> None:
        """Run what a unit of systemd runs."""
        unit = configparser.ConfigParser(interpolation=None)
        unit.read(_UNITS / f'{name}.service')
        program, *arguments = shlex.split(unit['Service']['ExecStart'])
        done = self.stack.run(user, os.path.basename(program), *arguments)
        self.assertEqual(0, done.returncode, done.stderr)

    def restart(self, **options: object) -> None:
        self.stop_compute()
        self.stack.start_compute(
            **{'manager_interval': _PASS_SECONDS, 'bandwidth': 0, **options}
        )

    def stop_compute(self) -> None:
        if self.stack.has_compute():
            self.assertEqual(0, self.stack.stop_compute())

    def users(self) -> dict[str, set[str]]:
        """Give the users of each file in the cache."""
        return {
            file['name']: set(file['users']) for file in self.ours('list')[1]
        }

    @property
    def own(self) -> pathlib.Path:
        return nodes.BASE / '.imagecache'

    @property
    def sidecar(self) -> pathlib.Path:
        return self.base.with_name(f'{self.base.name}.sha1')

    # The end of each story.

    def test_99_nothing_of_ours_went_wrong(self) -> None:
        text = self.log()[self.since :]
        for frames, exception in _tracebacks(text):
            if 'nova_imagecache' in frames:
                self.assertIn('DamagedBaseFile', exception, frames)
        unexpected = [
            line
            for line in text.splitlines()
            if re.search(r' (WARNING|ERROR|CRITICAL) nova_imagecache', line)
            and not any(each in line for each in (*self.expected, *_BUSY))
        ]
        self.assertEqual([], unexpected)
