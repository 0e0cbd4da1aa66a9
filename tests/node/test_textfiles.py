# SPDX-License-Identifier: Apache-2.0

"""Who writes the file for node_exporter, one after the other."""

import fcntl
import os
import signal
import subprocess
import sys
import threading

import fixtures

from nova_imagecache.cache import directories
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import textfiles
from tests.support import base

_HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
print('held', flush=True)
time.sleep(600)
"""


class WritersTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.path = os.path.join(self.directory, 'x.prom')
        self.waits: list[float] = []
        self.patch(textfiles, '_pause', self.waits.append)

    def versions(self) -> list[str]:
        with open(self.path) as file:
            return [line for line in file if 'build_info{' in line]

    def write(self, version: str) -> None:
        textfiles.write(self.path, lambda: metrics.Facts(version))
        self.assertIn(f'"{version}"', self.versions()[0])

    def hold(self) -> subprocess.Popen[str]:
        """Have another process hold the lock."""
        holder = subprocess.Popen(
            [sys.executable, '-c', _HOLDER, self.directory],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        self.addCleanup(holder.stdout.close)
        self.assertEqual('held\n', holder.stdout.readline())
        return holder

    def test_what_was_read_later_is_what_stays(self) -> None:
        """A pass has read, and a scrub reads and writes before it does."""
        tried = threading.Event()
        self.patch(textfiles, '_pause', lambda _seconds: tried.set())

        def write_later() -> None:
            textfiles.write(self.path, lambda: metrics.Facts('later'))
            tried.set()

        other = threading.Thread(target=write_later)

        def gather() -> metrics.Facts:
            facts = metrics.Facts('earlier')
            other.start()
            tried.wait()
            return facts

        textfiles.write(self.path, gather)
        other.join()
        self.assertIn('"later"', self.versions()[0])

    def test_another_process_that_writes_is_waited_for(self) -> None:
        holder = self.hold()

        def pause(_seconds: float) -> None:
            # Nobody reads before it is through.
            self.assertFalse(os.path.exists(self.path))
            holder.kill()
            holder.wait()

        self.patch(textfiles, '_pause', pause)
        self.write('x')
        self.assertIsNotNone(holder.poll())

    def test_one_that_was_killed_keeps_nobody_waiting(self) -> None:
        holder = self.hold()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        self.write('x')
        self.assertEqual([], self.waits)

    def test_one_that_is_stopped_is_not_waited_for_for_ever(self) -> None:
        self.patch(textfiles, '_PATIENCE_SECONDS', 0)
        self.hold().send_signal(signal.SIGSTOP)
        self.write('x')

    def test_where_there_are_no_such_locks_it_is_written_too(self) -> None:
        # Mocked, as each file system of a test has them.
        self.patch(fcntl, 'flock', self._no_locks)
        self.write('x')

    @staticmethod
    def _no_locks(*_args: int) -> None:
        raise OSError(9, 'Bad file descriptor')

    def test_what_one_that_was_killed_has_left_goes(self) -> None:
        others = ['x.prom-other', '.y.prom-left', 'tmp12345678']
        for name in ('.x.prom-left', *others):
            with open(os.path.join(self.directory, name), 'w'):
                pass
        self.write('x')
        self.assertEqual({'x.prom', *others}, {*os.listdir(self.directory)})

    def test_what_another_is_about_to_write_stays(self) -> None:
        self.patch(textfiles, '_PATIENCE_SECONDS', 0)
        self.hold()
        path = os.path.join(self.directory, '.x.prom-other')
        with open(path, 'w'):
            pass
        self.write('x')
        self.assertTrue(os.path.exists(path))

    def test_until_it_is_complete_nobody_reads_it(self) -> None:
        """node_exporter reads what ends in .prom."""
        seen: list[str] = []
        real = os.rename

        def rename(source: str, target: str) -> None:
            seen.append(os.path.basename(source))
            real(source, target)

        self.patch(os, 'rename', rename)
        self.write('x')
        (name,) = seen
        self.assertTrue(name.startswith('.x.prom-'))
        self.assertFalse(name.endswith('.prom'))

    def test_nothing_is_left_beside_it(self) -> None:
        self.write('x')
        self.assertEqual(['x.prom'], os.listdir(self.directory))
        with directories.opened(self.directory) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
