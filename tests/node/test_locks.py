# SPDX-License-Identifier: Apache-2.0

import contextlib
import errno
import fcntl
import gc
import os
import subprocess
import sys
from typing import Any

import fixtures
from oslo_concurrency import lockutils

from nova_imagecache.cache import base_file
from nova_imagecache.cache import coordination
from nova_imagecache.cache import identity
from nova_imagecache.cache import locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import scans
from nova_imagecache import errors
from tests.support import nodes
from tests.support import processes

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


class LockTest(nodes.NodeTestCase):
    def seen(self) -> base_file.BaseFile:
        return base_file.BaseFile.named(self.node.layout, SHA)

    def test_a_lock_that_nova_holds_is_not_waited_for(self) -> None:
        self.useFixture(processes.NovaProcess(self.node.layout.locks, SHA))
        with self.assertRaisesRegex(errors.Locked, 'in use'):
            with locks.nova_lock(self.node.layout, SHA, blocking=False):
                self.fail('two hold the lock')

    def test_leftovers_share_the_lock_of_their_base(self) -> None:
        self.useFixture(processes.NovaProcess(self.node.layout.locks, SHA))
        name = SHA + '.part'
        with self.assertRaisesRegex(errors.Locked, 'in use'):
            with locks.nova_lock(self.node.layout, name, blocking=False):
                self.fail('two hold the lock')

    def test_a_lock_held_in_this_process_is_held(self) -> None:
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            with self.assertRaisesRegex(errors.Locked, 'in use'):
                with locks.nova_lock(self.node.layout, SHA, blocking=False):
                    self.fail('two hold the lock')

    def test_a_killed_holder_frees_the_lock(self) -> None:
        holder = self.useFixture(
            processes.NovaProcess(self.node.layout.locks, SHA)
        )
        holder.end()
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            pass

    def test_a_directory_of_locks_is_made_where_it_is_missing_only(
        self,
    ) -> None:
        made: list[str] = []
        real = os.mkdir

        def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
            made.append(os.fsdecode(path))
            real(path, *args, **kwargs)

        self.patch(os, 'mkdir', mkdir)
        for _time in range(2):
            with locks.nova_lock(self.node.layout, SHA, blocking=False):
                pass
        self.assertEqual([self.node.layout.locks], made)

    def test_a_lock_that_cannot_be_had_is_no_file_that_cannot_be_written(
        self,
    ) -> None:
        # Mocked: a server whose lock daemon says so.
        def trylock(*_args: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        os.makedirs(self.node.layout.locks)
        self.patch(lockutils.InterProcessLock, 'trylock', trylock)
        before = os.listdir('/proc/self/fd')
        error = self.assertRaises(errors.LockBroken, self.take)
        self.assertNotIsInstance(error, errors.ReadOnly)
        self.assertEqual(before, os.listdir('/proc/self/fd'))

    def take(self) -> None:
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            self.fail('it was taken')

    def test_the_lock_file_is_novas_and_stays(self) -> None:
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            pass
        self.assertEqual([f'nova-{SHA}'], os.listdir(self.node.layout.locks))

    def test_a_lock_that_cannot_be_opened_says_so(self) -> None:
        os.makedirs(self.node.layout.locks)
        os.chmod(self.node.layout.locks, 0o555)
        with nodes.unprivileged():
            with self.assertRaisesRegex(
                errors.LockBroken, 'Permission denied'
            ):
                with locks.nova_lock(self.node.layout, SHA, blocking=False):
                    self.fail('locked nothing')

    def test_a_server_without_locks_says_so(self) -> None:
        # Mocked: NFS without a lock daemon takes a server.
        def lockf(*args: Any) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        with fixtures.MonkeyPatch('fcntl.lockf', lockf):
            with self.assertRaisesRegex(errors.LockBroken, 'No locks'):
                with locks.nova_lock(self.node.layout, SHA, blocking=False):
                    self.fail('locked nothing')

    def test_a_lock_that_cannot_be_released_is_logged(self) -> None:
        real = fcntl.lockf

        # Mocked: NFS that loses its lock daemon takes a server.
        def lockf(fd: Any, operation: int) -> None:
            if operation == fcntl.LOCK_UN:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
            real(fd, operation)

        with fixtures.MonkeyPatch('fcntl.lockf', lockf):
            with locks.nova_lock(self.node.layout, SHA, blocking=False):
                pass
        self.assertIn('cannot be released', self.log.output)
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            pass

    def test_a_fifo_for_a_lock_is_not_waited_for(self) -> None:
        os.makedirs(self.node.layout.locks)
        os.mkfifo(os.path.join(self.node.layout.locks, f'nova-{SHA}'))
        with self.assertRaisesRegex(errors.LockBroken, 'Not a regular file'):
            with locks.nova_lock(self.node.layout, SHA, blocking=False):
                self.fail('locked nothing')

    def test_two_caches_in_one_process_do_not_exclude_each_other(
        self,
    ) -> None:
        other = nodes.Node(os.path.join(self.temporary, 'other'))
        with locks.manager_lock(self.node.layout, 'state'):
            with locks.manager_lock(other.layout, 'state'):
                pass
            with self.assertRaisesRegex(errors.Locked, 'another manager'):
                with locks.manager_lock(self.node.layout, 'state'):
                    self.fail('two hold the lock')

    def test_asking_for_the_disk_usage_keeps_our_locks(self) -> None:
        # Opening and closing a lock file anywhere in the process drops it.
        self.patch(identity, '_STATX_BTIME', 0)
        with locks.manager_lock(self.node.layout, 'verify'):
            scans.disk_usage(self.node.layout)
            self.assertEqual('held', self.ask('verify'))
        self.assertEqual('free', self.ask('verify'))

    def ask(self, lock: str) -> str:
        """Have another process say whether one of our locks is held."""
        code = (
            'import fcntl, sys\n'
            'file = open(sys.argv[1], "r+")\n'
            'try:\n'
            '    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n'
            'except BlockingIOError:\n'
            '    print("held")\n'
            'else:\n'
            '    print("free")\n'
        )
        path = os.path.join(self.node.layout.own_locks, lock)
        return subprocess.check_output(
            [sys.executable, '-c', code, path], text=True
        ).strip()

    def test_the_guard_lets_this_very_file_in(self) -> None:
        self.node.add_base(SHA)
        with self.seen().guard() as stat:
            self.assertTrue(stat.regular)

    def test_the_guard_refuses_another_file_of_that_name(self) -> None:
        path = self.node.add_base(SHA)
        file = self.seen()
        os.rename(path, path + 'x')
        self.node.add_base(SHA)
        with self.assertRaisesRegex(errors.Changed, 'another file'):
            with file.guard():
                self.fail('let another file in')

    def test_the_guard_refuses_a_file_that_has_gone(self) -> None:
        path = self.node.add_base(SHA)
        file = self.seen()
        os.unlink(path)
        with self.assertRaisesRegex(errors.Changed, 'gone'):
            with file.guard():
                self.fail('let nothing in')


_TRY_LOCK = """
import sys
from oslo_concurrency import lockutils
with lockutils.lock(
    sys.argv[2], lock_file_prefix='nova-', external=True,
    lock_path=sys.argv[1], blocking=False,
):
    pass
"""


class TurnTest(nodes.NodeTestCase):
    """Turns in reading the base files of a cache."""

    def test_locks_between_managers_are_not_among_novas(self) -> None:
        os.makedirs(self.node.layout.locks)
        with coordination.coordinator(self.node.layout).turn():
            path = os.path.join(self.node.layout.base, '.imagecache', 'locks')
            self.assertEqual(['scrub'], os.listdir(path))
            self.assertEqual([], os.listdir(self.node.layout.locks))

    def test_an_urgent_turn_is_asked_for_until_it_is_had(self) -> None:
        coordinator = coordination.coordinator(self.node.layout)
        self.assertFalse(coordinator.wanted())
        self.assertFalse(coordinator.taken())
        with coordinator.urgent_turn(patience=0):
            self.assertFalse(coordinator.wanted())
            self.assertTrue(coordinator.taken())
        self.assertFalse(coordinator.taken())

    def test_what_it_cannot_do_is_written_on_it(self) -> None:
        coordinator = coordination.coordinator(self.node.layout)
        self.assertIn(coordination.Limit.HELD_IS_NOT_ALIVE, coordinator.limits)


class LockLifetimeTest(nodes.NodeTestCase):
    """A POSIX lock goes when its process closes the file, by any handle."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image')
        # What is garbage is collected when the test says so.
        gc.disable()
        self.addCleanup(gc.enable)

    def fail_to_lock(self) -> object:
        """Try in vain to lock a file; give what keeps the attempt alive."""
        nova = self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        (file,) = scans.scan(self.node.layout).files
        outcomes = removal.remove(self.node.layout, [file], lambda _: {}, 0)
        self.assertIsInstance(outcomes[self.name], errors.Locked)
        nova.end()
        return outcomes

    def others_can_lock(self) -> bool:
        done = subprocess.run(
            [sys.executable, '-c', _TRY_LOCK, self.node.layout.locks,
             self.name],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode == 0

    def test_a_lock_outlives_an_earlier_attempt_that_failed(self) -> None:
        attempt: object = self.fail_to_lock()
        with locks.nova_lock(self.node.layout, self.name, blocking=False):
            self.assertFalse(self.others_can_lock())
            del attempt
            gc.collect()
            self.assertFalse(self.others_can_lock())
        self.assertTrue(self.others_can_lock())

    def test_an_attempt_that_failed_leaves_no_file_open(self) -> None:
        attempt = self.fail_to_lock()
        opened = []
        for fd in os.listdir('/proc/self/fd'):
            with contextlib.suppress(FileNotFoundError):
                opened.append(os.readlink(f'/proc/self/fd/{fd}'))
        lock = os.path.join(self.node.layout.locks, f'nova-{self.name}')
        self.assertNotIn(lock, opened)
        self.assertIsNotNone(attempt)
