# SPDX-License-Identifier: Apache-2.0

"""Processes that are started, and what becomes of them."""

import logging
import os
import signal
import subprocess
import time
from typing import Any

import ddt
import fixtures
from oslo_concurrency import processutils

from nova_imagecache.apart import parent
from nova_imagecache import children
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import files
from nova_imagecache.heal.sources import qemu
from nova_imagecache.heal.sources import ssh
from tests.support import base
from tests.support import nodes


def is_there(pid: int) -> bool:
    """Whether a process runs, and is not just left to be reaped."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


class ChildTestCase(nodes.FileTestCase):
    """Commands that note who they are, and hang."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.temporary, 'pids')
        self.script = f'sleep 100 & echo $! $$ > {self.path}; wait'

    def pids(self) -> list[int]:
        with open(self.path) as file:
            return [int(line) for line in file.read().split()]

    def assert_gone(self) -> None:
        pids = self.pids()
        self.assertEqual(2, len(pids))
        deadline = time.monotonic() + 10
        while any(map(is_there, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual([], [pid for pid in pids if is_there(pid)])


class ChildrenTest(ChildTestCase):
    def hang(self, timeout: float, **values: Any) -> None:
        """Run what starts another one, and waits for it for ever."""
        children.run('sh', '-c', self.script, timeout=timeout, **values)

    def test_it_gives_what_a_command_says(self) -> None:
        script = 'pwd; echo no >&2; exit 3'
        done = children.run('sh', '-c', script, timeout=60)
        self.assertEqual(
            (3, b'/\n', b'no\n'), (done.returncode, done.stdout, done.stderr)
        )

    def test_at_its_deadline_it_goes_with_all_that_it_has_started(
        self,
    ) -> None:
        self.assertRaises(children.TimedOut, self.hang, 0.5)
        self.assert_gone()

    def test_so_it_does_where_who_looks_no_longer_wants_it(self) -> None:
        class Enough(Exception):
            pass

        def look() -> None:
            if os.path.exists(self.path) and len(self.pids()) == 2:
                raise Enough

        self.assertRaises(Enough, self.hang, 60, look=look)
        self.assert_gone()

    def test_who_has_left_its_output_to_another_is_waited_for_no_longer(
        self,
    ) -> None:
        """It is gone, and what it has started still has the pipe."""
        script = f'sleep 100 & echo $! $$ > {self.path}'
        self.assertRaises(
            children.TimedOut, children.run, 'sh', '-c', script, timeout=0.5
        )
        self.assert_gone()

    def test_one_that_cannot_be_ended_is_not_waited_for(self) -> None:
        """As one that hangs in the kernel."""
        self.patch(children, '_GONE_SECONDS', 0.2)
        with base.patched(os, 'killpg', lambda pid, number: None):
            self.assertRaises(children.TimedOut, self.hang, 0.5)
        os.killpg(self.pids()[1], signal.SIGKILL)
        self.assert_gone()

    def test_while_one_cannot_be_ended_no_other_is_started(self) -> None:
        """As many as there are tries would hang otherwise."""
        self.patch(children, '_GONE_SECONDS', 0.2)
        logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
        with base.patched(os, 'killpg', lambda pid, number: None):
            self.assertRaises(children.TimedOut, self.hang, 0.5)
        error = self.assertRaises(OSError, self.hang, 60)
        self.assertIn('hangs', str(error.strerror))
        self.assertEqual(1, logged.output.count('[P21]'))
        # One of another kind is.
        children.run('true', timeout=60)
        os.killpg(self.pids()[1], signal.SIGKILL)
        while is_there(self.pids()[1]):
            time.sleep(0.01)
        children.run('sh', '-c', 'true', timeout=60)

    def test_one_that_says_too_much_is_ended_and_that_is_not_kept(
        self,
    ) -> None:
        script = f'sleep 100 & echo $! $$ > {self.path}; cat /dev/zero'
        error = self.assertRaises(
            children.TooMuch, children.run, 'sh', '-c', script,
            timeout=60,
            most=99999,
        )  # fmt: skip
        self.assertIn('99999', str(error.strerror))
        self.assert_gone()

    def test_of_what_goes_wrong_the_end_is_kept(self) -> None:
        script = 'head -c 999999 /dev/zero >&2; echo end >&2; echo said'
        done = children.run('sh', '-c', script, timeout=60)
        self.assertEqual(b'said\n', done.stdout)
        self.assertEqual(65536, len(done.stderr))
        self.assertEqual(b'end\n', done.stderr[-4:])

    def test_a_pass_that_does_not_end_is_ended(self) -> None:
        self.patch(parent, '_END_SECONDS', 0.1)
        child = subprocess.Popen(
            ['sh', '-c', self.script], start_new_session=True
        )
        while not os.path.exists(self.path) or len(self.pids()) < 2:
            time.sleep(0.01)
        self.assertIsNone(parent._Pass._reap(child))
        self.assert_gone()

    def test_it_may_use_no_more_than_is_said(self) -> None:
        limits = processutils.ProcessLimits(file_size=4096)
        done = children.run(
            'sh', '-c', f'head -c 9999 /dev/zero > {self.path}',
            timeout=60,
            limits=limits.prlimit_args(),
        )  # fmt: skip
        self.assertNotEqual(0, done.returncode)
        self.assertEqual(4096, os.path.getsize(self.path))

    def test_one_that_cannot_be_started_is_an_error(self) -> None:
        self.assertRaises(
            FileNotFoundError, children.run, '/no/such', timeout=1
        )


@ddt.ddt
class SourcesTest(ChildTestCase):
    """Each source that starts something, where that hangs."""

    def setUp(self) -> None:
        super().setUp()
        self.image = os.path.join(self.temporary, 'image')
        nodes.qemu_img('create', '-q', '-f', 'qcow2', self.image, '1M')
        self.watch = sources.Watch()
        directory = self.useFixture(fixtures.TempDir()).path
        for name in ('ssh', 'qemu-img'):
            with open(os.path.join(directory, name), 'w') as file:
                file.write(f'#!/bin/sh\n{self.script}\n')
            os.chmod(file.name, 0o755)
        path = directory + os.pathsep + os.environ['PATH']
        self.useFixture(fixtures.EnvironmentVariable('PATH', path))

    def ask(self, name: str) -> None:
        wanted = sources.Wanted(0, 4096)
        base_file = sources.Base('x', self.temporary, 4096, None)
        if name == 'ssh':
            [*ssh.Ssh('ssh://host', self.watch).read(base_file, [wanted])]
        elif name == 'file':
            file = files.File(self.image, self.temporary, self.watch)
            [*file.read(base_file, [wanted])]
        else:
            with open(self.image, 'rb') as image:
                qemu.decode(
                    image, 'qcow2', 0, 4096, self.temporary, self.watch
                )

    def assert_refused(self, state: sources.State, name: str) -> None:
        error = self.assertRaises(sources.Unavailable, self.ask, name)
        self.assertEqual(state, error.state)
        self.assert_gone()
        self.assertLessEqual({*os.listdir(self.temporary)}, {'image', 'pids'})

    @ddt.data('ssh', 'file', 'image')
    def test_nothing_of_it_outlives_its_deadline(self, name: str) -> None:
        self.patch(ssh, '_SECONDS', 0.5)
        # The limits take a Python to be set.
        self.patch(qemu, '_TIMEOUT_SECONDS', 2)
        self.patch(files, '_SECONDS', 2)
        self.assert_refused(sources.State.TIMEOUT, name)

    def test_a_host_that_gives_without_an_end_is_not_read_to_it(self) -> None:
        directory, _sep, _rest = os.environ['PATH'].partition(os.pathsep)
        script = self.script.replace('wait', 'cat /dev/zero')
        with open(os.path.join(directory, 'ssh'), 'w') as file:
            file.write(f'#!/bin/sh\n{script}\n')
        self.assert_refused(sources.State.TOO_LARGE, 'ssh')

    @ddt.data('ssh', 'file', 'image')
    def test_nor_who_no_longer_waits_for_it(self, name: str) -> None:
        def pulse() -> None:
            if os.path.exists(self.path) and len(self.pids()) == 2:
                self.watch.stop.set()

        self.watch = sources.Watch(pulse=pulse)
        self.assert_refused(sources.State.STOPPED, name)
