# SPDX-License-Identifier: Apache-2.0

"""Two hosts with ``instances_path`` of their own and one ``_base``."""

import contextlib
import errno
import fcntl
import os
import time
from typing import Any

import ddt

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import trash
from nova_imagecache import errors
from nova_imagecache.fetch import caching
from tests.support import base
from tests.support import nodes
from tests.support import processes

FRESH = b'fresh' * 8192


@ddt.ddt
class TwoHostsTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.here = self.node.layout
        self.there = layouts.Layout(
            os.path.join(self.temporary, 'there'), self.here.base
        )
        os.makedirs(self.there.instances)
        self.name = self.node.add_image('image', age=365 * base.DAY)
        self.slept = 0

    def hold(self, kind: str) -> processes.OtherHost:
        """Have another host, in a process of its own, hold the file."""
        return self.useFixture(
            processes.OtherHost(self.there, kind, self.name)
        )

    def when_waiting(self, act: Any) -> None:
        """Do something as soon as somebody here waits for a lock."""

        def sleep(_seconds: float) -> None:
            self.slept += 1
            act()

        self.patch(time, 'sleep', sleep)

    def never_waiting(self) -> None:
        self.when_waiting(lambda: self.fail('it is waited for'))

    def open_files(self) -> list[str]:
        """Give the lock files of ours that this process has open."""
        found = []
        for fd in os.listdir('/proc/self/fd'):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f'/proc/self/fd/{fd}'))
        return [path for path in found if path.endswith('/base-files')]

    def cache(self, name: str) -> None:
        """Fetch a base file, as this host does."""
        caching.FetchPath(self.here, lambda _name: None, True).cache_image(
            self.fetch, name
        )

    def fetch(self, path: str) -> None:
        with open(path, 'wb') as file:
            file.write(FRESH)

    def read(self) -> bytes:
        with open(self.node.base_path(self.name), 'rb') as file:
            return file.read()

    def test_what_another_host_uses_is_not_removed(self) -> None:
        other = self.hold('user_lock')
        self.never_waiting()
        file = self.file_of(self.node.run(), self.name)
        self.assertIn('here or on another host', file.reason)
        self.assertIn(self.name, self.node.files())
        other.end()
        self.node.run()
        self.assertNotIn(self.name, self.node.files())

    def test_what_another_host_fetches_is_not_removed(self) -> None:
        path = self.node.base_path(self.name)
        os.rename(path, path + '.away')
        self.hold('user_lock')
        os.rename(path + '.away', path)
        self.never_waiting()
        self.node.run()
        self.assertIn(self.name, self.node.files())

    def test_a_leftover_of_a_fetch_on_another_host_is_not_removed(
        self,
    ) -> None:
        leftover = self.name + '.part'
        os.rename(
            self.node.base_path(self.name), self.node.base_path(leftover)
        )
        self.node.set_age(leftover, 2 * base.DAY)
        other = self.hold('user_lock')
        self.node.run()
        self.assertIn(leftover, self.node.files())
        other.end()
        self.node.run()
        self.assertNotIn(leftover, self.node.files())

    def test_what_another_host_fetches_is_not_put_back(self) -> None:
        self.node.run()
        (file,) = trash.scan(self.here).files
        other = self.hold('user_lock')
        self.never_waiting()
        self.assertRaises(errors.Locked, removal.put_back, file)
        self.assertEqual(set(), self.node.files())
        other.end()
        removal.put_back(file)
        self.assertEqual({self.name}, self.node.files())

    def test_what_another_host_uses_stays_in_the_trash(self) -> None:
        self.node.run()
        self.node.clock.advance(365 * base.DAY)
        other = self.hold('user_lock')
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        other.end()
        self.node.run()
        self.assertEqual(set(), self.node.trash())

    def test_a_fetch_waits_for_a_removal_on_another_host(self) -> None:
        other = self.hold('remover_lock')

        def finish() -> None:
            os.unlink(self.node.base_path(self.name))
            other.end()

        self.when_waiting(finish)
        self.cache(self.name)
        self.assertEqual(1, self.slept)
        self.assertEqual(FRESH, self.read())

    def test_two_hosts_do_not_fetch_at_once(self) -> None:
        data = self.read()
        path = self.node.base_path(self.name)
        os.rename(path, path + '.away')
        other = self.hold('user_lock')

        def finish() -> None:
            os.rename(path + '.away', path)
            other.end()

        self.when_waiting(finish)
        self.cache(self.name)
        self.assertEqual(1, self.slept)
        self.assertEqual(data, self.read())

    def test_two_hosts_use_a_file_at_once(self) -> None:
        self.hold('user_lock')
        self.never_waiting()
        self.cache(self.name)
        self.assertNotEqual(FRESH, self.read())

    def test_others_may_use_a_file_as_soon_as_it_is_fetched(self) -> None:
        path = self.node.base_path(self.name)
        os.unlink(path)
        with locks.user_lock(self.here, self.name) as share:
            self.fetch(path)
            share()
            self.hold('user_lock')
            with locks.remover_lock(self.there, [self.name]) as refused:
                self.assertEqual({self.name}, set(refused))

    def test_files_do_not_stand_in_each_others_way(self) -> None:
        self.hold('remover_lock')
        self.never_waiting()
        self.cache('f' * 40)

    def test_one_open_file_is_enough_for_many_locks(self) -> None:
        wanted = [f'{number:040x}' for number in range(128)]
        with locks.remover_lock(self.here, wanted) as refused:
            self.assertEqual({}, refused)
            self.assertEqual(1, len(self.open_files()))
        self.assertEqual([], self.open_files())

    def test_nothing_is_left_open_or_locked(self) -> None:
        for _attempt in range(2):
            with locks.user_lock(self.here, self.name):
                with locks.remover_lock(self.there, [self.name]) as refused:
                    self.assertEqual({self.name}, set(refused))
        self.assertEqual([], self.open_files())

    def test_a_child_that_has_the_file_open_keeps_no_lock(self) -> None:
        reader, writer = os.pipe()
        with locks.remover_lock(self.here, [self.name]):
            child = os.fork()
            if not child:
                # Not past exec(2), which would close it.
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.close, writer)
        os.close(reader)
        with locks.remover_lock(self.there, [self.name]) as refused:
            self.assertEqual({}, refused)

    def test_a_build_does_not_wait_for_ever(self) -> None:
        self.hold('remover_lock')
        self.never_waiting()
        self.patch(locks, '_HOST_PATIENCE_SECONDS', 0)
        self.cache(self.name)
        self.assertIn('find out which one hangs', self.log.output)

    def break_locks(self, code: int) -> None:
        real = fcntl.fcntl

        # Mocked: file systems without such locks are not at hand.
        def broken(fd: int, command: int, argument: Any = 0) -> Any:
            if command == fcntl.F_OFD_SETLK and self.open_files():
                raise OSError(code, os.strerror(code))
            return real(fd, command, argument)

        self.patch(fcntl, 'fcntl', broken)

    @ddt.data(errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
    def test_without_any_locks_all_goes_on_as_with_nova(
        self, code: int
    ) -> None:
        self.break_locks(code)
        self.cache('f' * 40)
        self.node.run()
        self.assertNotIn(self.name, self.node.files())

    def test_nothing_is_removed_where_a_lock_fails(self) -> None:
        self.break_locks(errno.EIO)
        self.cache('f' * 40)
        report = self.node.run()
        self.assertIn(
            'cannot be taken', self.file_of(report, self.name).reason
        )
        self.assertIn(self.name, self.node.files())

    def spoil(self, how: str) -> None:
        """Put something else in the place of the file of our locks."""
        os.makedirs(self.here.own_locks, exist_ok=True)
        path = os.path.join(self.here.own_locks, 'base-files')
        if how == 'fifo':
            os.mkfifo(path)
        elif how == 'link':
            os.symlink('/elsewhere', path)
        else:
            os.mkdir(path)

    @ddt.data('fifo', 'link', 'directory')
    def test_what_is_no_file_stops_removals_and_no_fetch(
        self, how: str
    ) -> None:
        self.spoil(how)
        self.cache('f' * 40)
        report = self.node.run()
        self.assertIn(
            'cannot be taken', self.file_of(report, self.name).reason
        )
        self.assertTrue(
            any('base-files' in problem for problem in report.problems)
        )
        self.assertIn(self.name, self.node.files())
        self.assertEqual([], self.open_files())

    def test_a_cache_that_is_not_there_gets_no_directory_of_ours(
        self,
    ) -> None:
        nowhere = layouts.Layout.at(self.there.instances, '_base')
        with locks.user_lock(nowhere, self.name):
            pass
        self.assertFalse(os.path.lexists(nowhere.base))

    def test_a_cache_of_somebody_else_is_used_and_nothing_goes(self) -> None:
        os.chmod(self.here.base, 0o755)
        with nodes.unprivileged():
            with locks.user_lock(self.here, self.name):
                pass
            with locks.remover_lock(self.here, [self.name]) as refused:
                self.assertIsInstance(refused[self.name], errors.ReadOnly)
