# SPDX-License-Identifier: Apache-2.0

import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from typing import Any

import ddt
import fixtures
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scans
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache.cache import uses
from nova_imagecache import clocks
from nova_imagecache import errors
from tests import base

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'

_HOLD_LOCK = """
import sys
from oslo_concurrency import lockutils
with lockutils.lock(
    sys.argv[2], lock_file_prefix='nova-', external=True, lock_path=sys.argv[1]
):
    print('held', flush=True)
    sys.stdin.read()
"""


class NovaProcess(fixtures.Fixture):
    """Another process, which holds a lock as Nova does."""

    def __init__(self, lock_path: str, name: str) -> None:
        super().__init__()
        self._arguments = [lock_path, name]

    def _setUp(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, '-c', _HOLD_LOCK, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == 'held\n'

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class StatusTest(base.NodeTestCase):
    def test_it_agrees_with_stat(self) -> None:
        path = self.node.add_base(SHA, size=base.MIB)
        status = identity.stat_of(path)
        real = os.stat(path)
        self.assertEqual(real.st_size, status.size)
        self.assertEqual(real.st_blocks * 512, status.allocated)
        self.assertEqual(real.st_mtime_ns, status.modified)
        self.assertEqual(real.st_ctime_ns, status.changed)
        self.assertEqual(real.st_mode, status.mode)
        self.assertEqual(real.st_ino, status.incarnation.inode)
        self.assertEqual(real.st_dev, status.incarnation.device)

    def test_an_open_file_and_its_path_are_one_incarnation(self) -> None:
        path = self.node.add_base(SHA)
        fd = identity.open_regular(path)
        self.addCleanup(os.close, fd)
        self.assertEqual(identity.stat_of(path), identity.stat_of_fd(fd))

    def test_a_file_under_the_same_name_is_another_incarnation(self) -> None:
        seen = set()
        for _attempt in range(20):
            path = self.node.add_base(SHA)
            seen.add(identity.stat_of(path).incarnation)
            os.unlink(path)
        # ext4 hands out one inode number again and again.
        self.assertEqual(20, len(seen))

    def test_writing_and_renaming_keep_the_incarnation(self) -> None:
        path = self.node.add_base(SHA)
        before = identity.stat_of(path)
        base.flip_bit(path)
        os.rename(path, path + 'x')
        after = identity.stat_of(path + 'x')
        self.assertEqual(before.incarnation, after.incarnation)
        self.assertFalse(before.same_content_as(after))

    def test_without_birth_times_the_generation_tells(self) -> None:
        # Mocked: the file systems without birth times are on the network.
        self.patch(identity, '_STATX_BTIME', 0)
        path = self.node.add_base(SHA)
        first = identity.stat_of(path).incarnation
        self.assertIsNone(first.born)
        if first.generation is None:
            self.skipTest('no inode generations on this file system')
        os.unlink(path)
        second = identity.stat_of(self.node.add_base(SHA)).incarnation
        self.assertNotEqual(first.key, second.key)

    def test_only_regular_files_are_opened(self) -> None:
        fifo = os.path.join(self.temporary, 'fifo')
        os.mkfifo(fifo)
        link = os.path.join(self.temporary, 'link')
        os.symlink('/etc/passwd', link)
        for path in (fifo, link, self.temporary, '/dev/null'):
            error = self.assertRaises(OSError, identity.open_regular, path)
            self.assertEqual(errno.EINVAL, error.errno)

    def test_a_missing_file_is_an_error(self) -> None:
        self.assertRaises(FileNotFoundError, identity.stat_of, '/no/such')


class LockTest(base.NodeTestCase):
    def seen(self) -> base_file.BaseFile:
        return base_file.BaseFile.named(self.node.layout, SHA)

    def test_a_lock_that_nova_holds_is_not_waited_for(self) -> None:
        self.useFixture(NovaProcess(self.node.layout.locks, SHA))
        with self.assertRaisesRegex(errors.Locked, 'in use'):
            with locks.nova_lock(self.node.layout, SHA, blocking=False):
                self.fail('two hold the lock')

    def test_leftovers_share_the_lock_of_their_base(self) -> None:
        self.useFixture(NovaProcess(self.node.layout.locks, SHA))
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
        holder = self.useFixture(NovaProcess(self.node.layout.locks, SHA))
        holder.end()
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            pass

    def test_the_lock_file_is_novas_and_stays(self) -> None:
        with locks.nova_lock(self.node.layout, SHA, blocking=False):
            pass
        self.assertEqual([f'nova-{SHA}'], os.listdir(self.node.layout.locks))

    def test_a_lock_that_cannot_be_opened_says_so(self) -> None:
        os.makedirs(self.node.layout.locks)
        os.chmod(self.node.layout.locks, 0o555)
        with base.unprivileged():
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
        other = base.Node(os.path.join(self.temporary, 'other'))
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
            code = (
                'import fcntl, sys\n'
                'file = open(sys.argv[1], "a")\n'
                'fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n'
            )
            path = os.path.join(self.node.layout.own_locks, 'verify')
            self.assertEqual(
                1,
                subprocess.call(
                    [sys.executable, '-c', code, path],
                    stderr=subprocess.DEVNULL,
                ),
            )

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


@dataclasses.dataclass
class Things:
    """The body of a record."""

    things: Any


FORMAT = records.Format('test', 3, Things)


@ddt.ddt
class RecordTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.node.layout.own, 'record')

    def save(self, body: dict[str, Any]) -> None:
        FORMAT.save(self.node.layout, self.path, Things(body))

    def load(self) -> Any:
        found = FORMAT.load(self.path)
        return None if found is None else found.things

    def test_what_is_saved_is_loaded(self) -> None:
        body = {'b': [1, None, 2.5], 'a': {'caf\udce9': 'x'}}
        self.save(body)
        self.assertEqual(body, self.load())

    def test_no_record_is_none(self) -> None:
        self.assertIsNone(self.load())

    def test_every_truncation_is_noticed(self) -> None:
        self.save({'a': 1})
        with open(self.path, 'rb') as file:
            data = file.read()
        for length in range(len(data)):
            os.truncate(self.path, length)
            self.assertRaises(errors.Damaged, self.load)
            with open(self.path, 'wb') as file:
                file.write(data)

    def test_every_flipped_bit_is_noticed_or_harmless(self) -> None:
        body = {'when': 1234, 'what': 'text'}
        self.save(body)
        for offset in range(os.path.getsize(self.path)):
            for bit in range(8):
                base.flip_bit(self.path, offset, bit)
                try:
                    self.assertEqual(body, self.load())
                except errors.Damaged:
                    pass
                base.flip_bit(self.path, offset, bit)

    @ddt.data(b'', b'null', b'[]', b'{}', b'\xff', b'[' * 100000)
    def test_garbage_is_damaged(self, data: bytes) -> None:
        self.save({})
        with open(self.path, 'wb') as file:
            file.write(data)
        self.assertRaises(errors.Damaged, self.load)

    def test_a_record_of_the_future_or_of_another_kind_is_not_ours(
        self,
    ) -> None:
        self.save({})
        for kind, version in (('test', 4), ('other', 3)):
            form = records.Format(kind, version, Things)
            self.assertRaises(errors.Damaged, form.load, self.path)

    def test_a_damaged_record_is_set_aside_and_logged(self) -> None:
        self.save({})
        records.set_aside(self.path, errors.Damaged('because'))
        self.assertFalse(os.path.exists(self.path))
        self.assertTrue(os.path.exists(self.path + '.damaged'))
        self.assertIn('because', self.log.output)

    def test_publishing_never_leaves_half_a_file(self) -> None:
        self.save({'old': 1})

        # Mocked: a write that fails half way needs a disk that does.
        def fsync(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, 'fsync', fsync)
        self.assertRaises(OSError, self.save, {'new': 2})
        self.assertEqual({'old': 1}, self.load())
        self.assertEqual([], os.listdir(self.node.layout.temporary))

    @hypothesis.given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda children: (
                st.lists(children) | st.dictionaries(st.text(), children)
            ),
        )
    )
    def test_no_json_does_worse_than_damaged(self, value: Any) -> None:
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.path, 'w') as file:
            json.dump({'kind': 'test', 'version': 3, 'body': value}, file)
        self.assertRaises(errors.Damaged, self.load)


NOW = {'wall': 1.0, 'boottime': 1.0, 'boot_id': 'boot'}
SIGHTING: dict[str, Any] = {
    'key': [1, 2, None],
    'last_used': None,
    'modified': 5,
    'seen': NOW,
    'image': None,
    'digested': False,
    'suspect': False,
    'rebaselined': None,
    'trashed': None,
    'ahead': False,
}


@ddt.ddt
class StateTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.add_base(SHA, age=base.DAY)

    def file(self) -> base_file.BaseFile:
        (file,) = scans.scan(self.node.layout).files
        return file

    def remember(self, used: bool = False, host: str = 'here') -> None:
        states.remember(
            self.node.layout,
            host,
            self.node.clock(),
            [self.file()],
            {SHA} if used else set(),
            {},
            {},
            states.State(),
        )

    def remember_nothing(self, now: clocks.Instant) -> None:
        states.remember(
            self.node.layout, 'here', now, [], set(), {}, {}, states.State()
        )

    def last_use_ago(self) -> float:
        state = states.load(self.node.layout)
        now = self.node.clock.wall
        file = self.file()
        return now - sightings.last_use(file, state.sighting(file), now)

    def test_a_first_pass_remembers_nothing(self) -> None:
        self.assertEqual(states.State(), states.load(self.node.layout))

    def test_a_use_is_remembered_where_mtime_cannot_move(self) -> None:
        self.remember(used=True)
        self.node.clock.advance(base.HOUR)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(2 * base.HOUR, self.last_use_ago(), places=3)

    def test_each_host_has_its_own_clock(self) -> None:
        self.remember(host='here')
        there = self.node.clock()
        self.node.clock.advance(base.HOUR)
        self.remember(host='there')
        state = states.load(self.node.layout)
        self.assertEqual({'here', 'there'}, state.last_passes.keys())
        self.assertEqual(there, state.last_passes['here'])

    def test_a_use_before_the_clock_was_set_back_ages_from_now_on(
        self,
    ) -> None:
        self.node.clock.jump(365 * base.DAY)
        self.remember(used=True)
        self.node.clock.jump(-365 * base.DAY)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(base.HOUR, self.last_use_ago(), places=3)

    def test_a_touch_in_the_future_ages_from_when_it_was_seen(self) -> None:
        self.node.set_age(SHA, -365 * base.DAY)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(2 * base.HOUR, self.last_use_ago(), places=3)

    def test_another_touch_in_the_future_is_another_use(self) -> None:
        self.node.set_age(SHA, -365 * base.DAY)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.node.set_age(SHA, -365 * base.DAY)
        self.assertEqual(0, self.last_use_ago())

    def test_what_one_pass_cannot_look_at_is_not_forgotten(self) -> None:
        self.remember(used=True)
        now = self.node.clock()
        self.remember_nothing(now)
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(base.HOUR, self.last_use_ago(), places=3)
        os.unlink(self.node.base_path(SHA))
        now = self.node.clock()
        self.remember_nothing(now)
        self.assertEqual({}, states.load(self.node.layout).files)

    def test_a_use_noted_since_is_seen(self) -> None:
        self.remember()
        state = states.load(self.node.layout)

        def used_since() -> frozenset[str]:
            return uses.used_since(self.node.layout, [self.file()], state)

        self.assertEqual(set(), used_since())
        self.node.clock.advance(1)
        uses.note_use(self.node.layout, SHA, self.node.clock())
        self.assertEqual({SHA}, used_since())

    @ddt.data(
        {},
        {'clocks': {}, 'files': 3},
        {'clocks': 1, 'files': {}},
        {'clocks': {'h': NOW | {'wall': 'a'}}, 'files': {}},
        {'clocks': {'h': {'wall': 1}}, 'files': {}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'key': [1, 2, 'x']}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'last_used': 'x'}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'modified': None}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'seen': 5}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'trashed': 5}}},
        {'clocks': {}, 'files': {}, 'relieved': 5},
    )
    def test_other_fields_are_damage(self, body: dict[str, Any]) -> None:
        self.save(body)
        self.assertRaises(errors.Damaged, states.load, self.node.layout)

    def test_these_fields_are_none(self) -> None:
        self.save({'clocks': {'h': NOW}, 'files': {'f': SIGHTING}})
        self.assertEqual({'f'}, states.load(self.node.layout).files.keys())

    def save(self, body: dict[str, Any]) -> None:
        if body:
            body = {'relieved': None} | body
        records.Format('state', 3, dict).save(
            self.node.layout, self.node.layout.state, body
        )


class ScanTest(base.NodeTestCase):
    def test_a_missing_cache_is_an_empty_one(self) -> None:
        os.rmdir(self.node.layout.base)
        self.assertEqual(scans.Scan(), scans.scan(self.node.layout))

    def test_an_unreadable_cache_is_a_problem(self) -> None:
        os.chmod(self.node.layout.base, 0)
        with base.unprivileged():
            (problem,) = scans.scan(self.node.layout).problems
        self.assertIn('Permission denied', problem)

    def test_a_file_that_vanishes_is_no_problem(self) -> None:
        self.node.add_base(SHA)
        real = os.listdir

        def listdir(path: Any) -> list[str]:
            found = real(path)
            os.unlink(self.node.base_path(SHA))
            return found

        self.patch(os, 'listdir', listdir)
        self.assertEqual(scans.Scan(), scans.scan(self.node.layout))

    def test_a_file_that_cannot_be_looked_at_is_a_problem(self) -> None:
        self.node.add_base(SHA)
        self.node.add_base('swap_5')
        # Mocked: ESTALE takes an NFS server.
        real = identity.stat_of

        def stat_of(path: str) -> identity.Stat:
            if path.endswith(SHA):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path)

        self.patch(identity, 'stat_of', stat_of)
        found = scans.scan(self.node.layout)
        self.assertEqual(['swap_5'], [file.name for file in found.files])
        self.assertIn('Stale', found.problems[0])

    def test_a_checksum_is_listed_only_without_its_base_file(self) -> None:
        self.node.add_base(SHA)
        self.node.add_base(SHA + '.sha1')
        self.node.add_base('f' * 40 + '.sha1')
        self.node.add_base('readme.sha1')
        listed = [file.name for file in scans.scan(self.node.layout).files]
        self.assertEqual([SHA, 'f' * 40 + '.sha1', 'readme.sha1'], listed)

    def test_disk_usage_is_what_is_allocated(self) -> None:
        path = self.node.add_base(SHA, size=base.MIB)
        os.symlink(path, self.node.base_path('link'))
        self.assertEqual(
            os.stat(path).st_blocks * 512, scans.disk_usage(self.node.layout)
        )

    def test_a_cache_on_another_disk_uses_none_of_this(self) -> None:
        os.rmdir(self.node.layout.base)
        os.symlink('/proc/self/fd', self.node.layout.base)
        self.assertEqual(0, scans.disk_usage(self.node.layout))

    def test_a_missing_cache_uses_nothing(self) -> None:
        os.rmdir(self.node.layout.base)
        self.assertEqual(0, scans.disk_usage(self.node.layout))
