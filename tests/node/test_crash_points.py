# SPDX-License-Identifier: Apache-2.0

"""A pass that is killed, or fails, at each system call that changes the disk.

The pass runs in a process of its own, forked from this one, and strace(1)
stops it: by SIGKILL instead of the call, so that everything before it is done
and nothing after; or by having the call fail.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import ctypes
import dataclasses
import errno
import functools
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import traceback

import ddt
import fixtures

from nova_imagecache.cli import app
from nova_imagecache.outlets import log
from nova_imagecache.passes import pipeline
from nova_imagecache import pools
from nova_imagecache.witnesses import walks
from tests.support import base
from tests.support import crash_node
from tests.support import nodes

# What changes a disk, under the names of all architectures.
_OPENS = ('creat', 'open', 'openat', 'openat2')
_CALLS = (
    *_OPENS,
    'write', 'writev', 'pwrite64', 'pwritev', 'pwritev2', 'sendfile',
    'copy_file_range', 'splice', 'fallocate', 'truncate', 'ftruncate',
    'rename', 'renameat', 'renameat2', 'link', 'linkat', 'symlink',
    'symlinkat', 'unlink', 'unlinkat', 'mkdir', 'mkdirat', 'rmdir', 'mknod',
    'mknodat', 'fsync', 'fdatasync', 'sync_file_range', 'syncfs',
    'utime', 'utimes', 'futimesat', 'utimensat', 'chmod', 'fchmod',
    'fchmodat', 'fchmodat2', 'chown', 'fchown', 'lchown', 'fchownat',
    'setxattr', 'lsetxattr', 'fsetxattr', 'removexattr',
)  # fmt: skip
# What these change is lost with the power, and with no process.
_SYNCS = ('fsync', 'fdatasync', 'sync_file_range', 'syncfs')
_TRACE = 'trace=' + ','.join(f'?{name}' for name in _CALLS)

_LINE = re.compile(r'(?P<call>\w+)\((?P<rest>.*)')

_RAM_DISK = '/dev/shm'

# include/uapi/linux/prctl.h
_PR_SET_PTRACER = 0x59616D61

# Of these, somebody is told.
_TOLD = ('renameat2', 'unlinkat', 'write', 'fchmod')

# So that several processes can go through them.
_PARTS = 4

_ERRORS = ('ENOSPC', 'EIO', 'EACCES', 'EROFS', 'ESTALE', 'EMFILE')


@dataclasses.dataclass(frozen=True)
class Point:
    """One call, as strace counts: the n-th of its name, from 1."""

    call: str
    number: int
    line: str

    @property
    def matters(self) -> bool:
        """Whether somebody has to be told if it fails.

        Else there is another way, or it only costs time or space.
        """
        clears_away = self.call == 'unlinkat' and '/tmp>, ' in self.line
        return self.call in _TOLD and not clears_away

    def inject(self, what: str) -> str:
        return f'inject={self.call}:{what}:when={self.number}'


def parse(log: str, below: str) -> Iterator[Point]:
    """Pick from a log the calls that change something in a directory."""
    counts: dict[str, int] = {}
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        call = match['call']
        counts[call] = counts.get(call, 0) + 1
        makes = call not in _OPENS or re.search('O_CREAT|O_TRUNC', line)
        if makes and below in line:
            yield Point(call, counts[call], line)


#: Runs below strace; gives what it has to say, a line each.
Run = Callable[[], list[str]]


class CrashPointsTestCase(nodes.FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        if shutil.which('strace') is None:
            self.skipTest('strace is not installed')
        if os.access(_RAM_DISK, os.W_OK):
            # It is about the calls, and not about waiting for a medium.
            directory = fixtures.TempDir(rootdir=_RAM_DISK)
            self.temporary = self.useFixture(directory).path
        # So that the calls are the same in each run, however slow it is.
        self.patch(walks, '_TICK_NANOSECONDS', 10**18)
        self.patch(pools, '_SLOW_SECONDS', 10**9)
        self.node = crash_node.CrashNode(
            os.path.join(self.temporary, 'instances')
        )
        self.path = os.path.join(self.temporary, 'log')
        self.said = os.path.join(self.temporary, 'said')

    def strace(self, run: Run, *options: str) -> int:
        """Run something below strace; give its wait status."""
        gate, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            self.be_traced(run, gate)
        os.close(gate)
        try:
            with subprocess.Popen(
                ['strace', '-y', '-s', '4096', '-o', self.path, '-e', _TRACE,
                 *options, '-p', str(child)],
                stderr=subprocess.PIPE,
                text=True,
            ) as process:  # fmt: skip
                assert process.stderr is not None
                told = process.stderr.readline()
                attached = 'attached' in told
                if attached:
                    os.write(go, b'x')
                else:
                    os.kill(child, signal.SIGKILL)
                told += process.stderr.read()
        finally:
            os.close(go)
            _pid, status = os.waitpid(child, 0)
        if not attached:
            self.skipTest(f'strace may not trace here: {told.strip()}')
        return status

    def be_traced(self, run: Run, gate: int) -> None:
        """Be the process that is traced."""
        code = 1
        lines: list[str] = []
        try:
            # Where only a parent may trace a process, strace may as well.
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))
            os.read(gate, 1)
            lines = run()
            code = 0
        except BaseException:
            lines = [traceback.format_exc()]
        finally:
            with open(self.said, 'w') as file:
                json.dump(lines, file)
            os._exit(code)

    def make_pass(self) -> list[str]:
        report = self.node.run()
        log.tell(report)
        return [*report.vetoes, *report.problems]

    def read(self, path: str) -> str:
        with open(path, errors='surrogateescape') as file:
            return file.read()

    def points(self, run: Run, *options: str) -> list[Point]:
        """Find out at which calls it can be stopped."""
        self.assertEqual(0, self.strace(run, *options))
        found = parse(self.read(self.path), self.node.layout.instances)
        # Not where it tells what it had to say.
        points = [point for point in found if self.said not in point.line]
        # What any pass that removes something cannot do without.
        calls = {point.call for point in points}
        self.assertLessEqual({'renameat2', 'fsync', 'write'}, calls)
        return points

    def check(self, found: list[str], where: object) -> None:
        found += self.node.damage()
        found += self.node.converge()
        self.assertEqual([], found, f'{where}')


@ddt.ddt
class KilledTest(CrashPointsTestCase):
    def kill_at(self, point: Point, *options: str) -> None:
        """Kill a pass before a call, and see that the next ones go on."""
        kill = point.inject('signal=KILL')
        found = []
        status = self.strace(self.make_pass, '-e', kill, *options)
        if not os.WIFSIGNALED(status):
            found.append('it was not killed')
        last = self.read(self.path).splitlines()[-2]
        if not last.startswith(f'{point.call}(') or '= ?' not in last:
            found.append(f'it was killed at {last}')
        self.check(found, point)

    @ddt.data(
        *itertools.product(('renew', 'renew_without_traces'), range(_PARTS))
    )
    @ddt.unpack
    def test_a_pass_killed_at_any_call_loses_nothing(
        self, renew: str, part: int
    ) -> None:
        set_up = getattr(self.node, renew)
        set_up()
        *points, last = self.points(self.make_pass)
        for point in points[part::_PARTS]:
            # Where nothing changes, killed at the next one is the same.
            if ' = -1 ' not in point.line and point.call not in _SYNCS:
                set_up()
                self.kill_at(point)
        set_up()
        self.kill_at(last)

    def test_nor_does_one_on_nfs_where_no_rename_refuses_to_replace(
        self,
    ) -> None:
        as_nfs = ('-e', 'inject=renameat2:error=EINVAL')
        self.node.renew()
        points = self.points(self.make_pass, *as_nfs)
        calls = [point.call for point in points]
        # It is tried once to put files back, and once to remove them.
        self.assertEqual(2, calls.count('renameat2'))
        back = [
            index
            for index in range(len(calls))
            if calls[index : index + 2] == ['linkat', 'unlinkat']
        ]
        removed = [
            index for index, call in enumerate(calls) if call == 'renameat'
        ]
        self.assertEqual((1, 5), (len(back), len(removed)))
        for index in (*back, *removed):
            for point in points[index : index + 3]:
                self.node.renew()
                self.kill_at(point, *as_nfs)


@ddt.ddt
class FailingTest(CrashPointsTestCase):
    """One call fails, with one of the errors or with each of them."""

    def fail_at(self, run: Run, point: Point, error: str) -> list[str]:
        """Have a call fail; give what was said of it."""
        fail = point.inject(f'error={error}')
        status = self.strace(run, '-e', fail)
        said: list[str] = json.loads(self.read(self.said))
        self.assertEqual(0, status, f'{point} {error}: {said}')
        self.assertIn('(INJECTED)', self.read(self.path), f'{point}')
        self.assertEqual([], [text for text in said if '\n' in text])
        reason = os.strerror(getattr(errno, error))
        return [text for text in said if reason in text]

    @ddt.data(
        *itertools.product(('renew', 'renew_without_traces'), range(_PARTS))
    )
    @ddt.unpack
    def test_a_pass_in_which_any_call_fails_says_so_and_loses_nothing(
        self, renew: str, part: int
    ) -> None:
        set_up = getattr(self.node, renew)
        set_up()
        points = [*enumerate(self.points(self.make_pass))]
        for index, point in points[part::_PARTS]:
            for error in self.errors(index, point):
                set_up()
                said = self.fail_at(self.make_pass, point, error)
                found = []
                if point.matters and not said:
                    found.append('it did not say so')
                self.check(found, f'{point}, {error}')

    def errors(self, index: int, point: Point) -> tuple[str, ...]:
        """Give the errors for a call: all of them take ten minutes."""
        if os.environ.get('ALL_ERRORS'):
            return _ERRORS
        if ' = -1 EEXIST' in point.line:
            # A directory that is there is not made, again and again.
            return ()
        return (_ERRORS[index % len(_ERRORS)],)

    def run_command(self) -> list[str]:
        """Make the pass as an operator does; give what he sees."""
        conf = os.path.join(self.temporary, 'nova.conf')
        stderr = io.StringIO()
        one_pass = functools.partial(pipeline.Pass, clock=self.node.clock)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(stderr),
            base.patched(pipeline, 'Pass', one_pass),
        ):
            code = app.main(['--config-file', conf, 'pass'])
        return [f'code {code}', *stderr.getvalue().splitlines()]

    def test_the_command_says_it_in_a_line_and_ends(self) -> None:
        with open(os.path.join(self.temporary, 'nova.conf'), 'w') as file:
            file.write(
                f'[DEFAULT]\ninstances_path = {self.node.layout.instances}\n'
                '[image_cache]\nchecksum_base_images = true\n'
                'witnesses = instances,overlays,locks\n'
            )
        # Once here, so that nothing is left to be imported.
        self.node.renew()
        self.run_command()
        self.node.renew()
        points = self.points(self.run_command)
        # One of each kind.
        for index, point in enumerate({p.call: p for p in points}.values()):
            self.node.renew()
            error = _ERRORS[index % len(_ERRORS)]
            said = self.fail_at(self.run_command, point, error)
            lines = json.loads(self.read(self.said))
            # One of the files is corrupt, and that counts most.
            self.assertEqual('code 3', lines[0])
            self.assertNotIn('Traceback', ' '.join(lines))
            if point.matters:
                # The log may have told it before, where it happened.
                said = [line for line in said if 'Image cache: ' in line]
                self.assertEqual(1, len(said), f'{point}: {lines}')
            self.check([], f'{point}, {error}')
