# SPDX-License-Identifier: Apache-2.0

"""A pass that is killed, or fails, at each system call that changes the disk.

The pass runs in a process of its own, forked from this one, and strace(1)
stops it: by SIGKILL instead of the call, so that everything before it is done
and nothing after; or by having the call fail.
"""

from collections.abc import Callable
from collections.abc import Iterator
import ctypes
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import traceback
from typing import Any

from nova_imagecache import report as reports
from tests import base
from tests import crash_node

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
_TRACE = 'trace=' + ','.join(f'?{name}' for name in _CALLS)

_LINE = re.compile(r'(?P<call>\w+)\((?P<rest>.*)')

# include/uapi/linux/prctl.h
_PR_SET_PTRACER = 0x59616D61

_ERRORS = ('ENOSPC', 'EIO', 'EACCES', 'EROFS', 'ESTALE', 'EMFILE')


@dataclasses.dataclass(frozen=True)
class Point:
    """One call, as strace counts: the n-th of its name, from 1."""

    call: str
    number: int
    line: str

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


class CrashPointsTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if shutil.which('strace') is None:
            self.skipTest('strace is not installed')
        self.node = crash_node.CrashNode(
            os.path.join(self.temporary, 'instances')
        )
        self.path = os.path.join(self.temporary, 'log')
        self.outcome = os.path.join(self.temporary, 'outcome')

    def strace(self, *options: str) -> int:
        """Make a pass below strace; give its wait status."""
        gate, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            self.make_pass(gate)
        os.close(gate)
        try:
            with subprocess.Popen(
                ['strace', '-y', '-s', '4096', '-o', self.path, '-e', _TRACE,
                 *options, '-p', str(child)],
                stderr=subprocess.PIPE,
                text=True,
            ) as process:  # fmt: skip
                assert process.stderr is not None
                said = process.stderr.readline()
                attached = 'attached' in said
                if attached:
                    os.write(go, b'x')
                else:
                    os.kill(child, signal.SIGKILL)
                said += process.stderr.read()
        finally:
            os.close(go)
            _pid, status = os.waitpid(child, 0)
        if not attached:
            self.skipTest(f'strace may not trace here: {said.strip()}')
        return status

    def make_pass(self, gate: int) -> None:
        """Be the process that is traced."""
        code = 1
        try:
            # Where only a parent may trace a process, strace may as well.
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))
            os.read(gate, 1)
            report = self.node.run()
            reports.log_report(report)
            result: Any = [*report.vetoes, *report.problems]
            code = 0
        except BaseException:
            result = traceback.format_exc()
        finally:
            with open(self.outcome, 'w') as file:
                json.dump(result, file)
            os._exit(code)

    def read(self, path: str) -> str:
        with open(path, errors='surrogateescape') as file:
            return file.read()

    def points(self) -> list[Point]:
        """Find out where a pass can be killed."""
        self.node.renew()
        self.assertEqual(0, self.strace())
        return list(parse(self.read(self.path), self.node.layout.instances))
