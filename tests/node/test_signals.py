# SPDX-License-Identifier: Apache-2.0

"""Whoever ends a command, or reads no more of it, has it end at once."""

import os
import pty
import random
import signal
import subprocess
import sys
import termios

import ddt
import fixtures

from tests.support import base
from tests.support import processes
from tests.support import shell

# Of one that nothing but a signal ends.
_LONG = '600'

_INTERRUPTED_AT_START = """
import sys

class Interrupting:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'cliff':
            raise KeyboardInterrupt

from nova_imagecache import __main__
sys.meta_path.insert(0, Interrupting)
sys.exit(__main__.main())
"""


@ddt.ddt
class SignalsTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('x')
        # Few have it, and without it less is noticed at once.
        self.useFixture(fixtures.EnvironmentVariable('PYTHONUNBUFFERED'))

    def command(self, *argv: str) -> list[str]:
        return [
            sys.executable, '-m', 'nova_imagecache',
            '--config-file', self.nova_conf, *argv,
        ]  # fmt: skip

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.command(*argv), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Wait for one that is about to end; give its code and errors."""
        _stdout, stderr = process.communicate(
            timeout=processes.PATIENCE_SECONDS
        )
        return process.returncode, stderr.decode()

    def close(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Read a line and no more, as head does; likewise."""
        assert process.stdout is not None and process.stderr is not None
        self.assertNotEqual(b'', process.stdout.readline())
        process.stdout.close()
        code = process.wait(timeout=processes.PATIENCE_SECONDS)
        return code, process.stderr.read().decode()

    def add_large(self) -> None:
        """Have there be so much to read that it takes a minute."""
        data = random.Random(1).randbytes(64 * base.MIB)
        self.node.add_image('large', data=data)

    @ddt.data(
        (signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)
    )  # fmt: skip
    @ddt.unpack
    def test_a_screen_that_is_watched(self, number: int, code: int) -> None:
        process = self.start('status', '--watch', _LONG)
        assert process.stdout is not None
        self.assertIn(b'HEALTH: ', process.stdout.readline())
        self.assertTrue(processes.wait_for(lambda: self.waits(process.pid)))
        process.send_signal(number)
        self.assertEqual((code, ''), self.end(process))

    def waits(self, pid: int) -> bool:
        """Whether a process that has printed all of a screen waits."""
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] == 'S'

    def test_a_screen_of_which_nobody_reads_more(self) -> None:
        process = self.start('status', '--watch', _LONG)
        self.assertEqual((141, ''), self.close(process))

    def test_a_terminal_stays_as_it_was(self) -> None:
        pid, fd = pty.fork()
        if not pid:
            argv = self.command('status', '--watch', _LONG)
            os.execv(argv[0], argv)
        before = termios.tcgetattr(fd)
        shown = b''
        while b'Removal' not in shown:
            shown += os.read(fd, 4096)
        self.assertTrue(processes.wait_for(lambda: self.waits(pid)))
        os.write(fd, b'\x03')
        try:
            while more := os.read(fd, 4096):
                shown += more
        except OSError:
            # There is nobody at the other end any more.
            pass
        _pid, status = os.waitpid(pid, 0)
        self.assertEqual(0, os.waitstatus_to_exitcode(status))
        self.assertTrue(shown.endswith(b'^C\r\n'), shown[-99:])
        self.assertEqual(before, termios.tcgetattr(fd))
        os.close(fd)

    @ddt.data('verify', 'pass')
    def test_who_interrupts_it_is_told_what_is_kept(
        self, command: str
    ) -> None:
        self.write_conf(
            checksum_base_images='true', scrub_bandwidth_mib_per_second=1
        )
        self.add_large()
        process = self.start(command, '-f', 'json')
        self.assertTrue(processes.wait_for(lambda: self.is_reading(process)))
        process.send_signal(signal.SIGINT)
        code, stderr = self.end(process)
        self.assertEqual(130, code)
        self.assertIn('Interrupted. What was found in files', stderr)
        self.assertEqual(1, len(stderr.splitlines()))

    def is_reading(self, process: subprocess.Popen[bytes]) -> bool:
        directory = f'/proc/{process.pid}/fd'
        links = []
        for each in os.listdir(directory):
            try:
                links.append(os.readlink(f'{directory}/{each}'))
            except FileNotFoundError:
                continue
        return any(
            os.path.dirname(each) == self.node.layout.base for each in links
        )

    @ddt.data('verify', 'scrub')
    def test_progress_of_which_nobody_reads_more(self, command: str) -> None:
        self.add_large()
        process = self.start(
            command, '--bandwidth', '1', '--progress', 'json'
        )  # fmt: skip
        self.assertEqual((141, ''), self.close(process))

    @ddt.data(
        ('list',), ('list', '-f', 'json'), ('status',), ('--version',),
        ('verify', '--progress', 'json'),
    )  # fmt: skip
    def test_what_nobody_ever_reads(self, argv: tuple[str, ...]) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        self.assertEqual((141, ''), self.run_to(writing, *argv))

    def test_what_cannot_be_written(self) -> None:
        with open('/dev/full', 'wb') as full:
            code, stderr = self.run_to(full.fileno(), 'list')
        self.assertEqual(1, code)
        self.assertEqual(
            'What was printed cannot be written: No space left on device',
            stderr.splitlines()[-1],
        )

    def run_to(self, stdout: int, *argv: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(*argv), stdout=stdout, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        return done.returncode, done.stderr

    def test_it_is_interrupted_before_it_has_begun(self) -> None:
        done = subprocess.run(
            [sys.executable, '-c', _INTERRUPTED_AT_START, 'status'],
            capture_output=True, text=True,
        )  # fmt: skip
        self.assertEqual((130, ''), (done.returncode, done.stderr))

    @ddt.data(signal.SIGTERM, signal.SIGINT)
    def test_an_exporter(self, number: int) -> None:
        process = self.start('exporter', '--port', '0')
        assert process.stdout is not None
        self.assertIn(b'Serving ', process.stdout.readline())
        process.send_signal(number)
        self.assertEqual((0, ''), self.end(process))
