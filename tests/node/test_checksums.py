# SPDX-License-Identifier: Apache-2.0

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import time
from typing import Any

import ddt

from nova_imagecache.cache import identity
from nova_imagecache.cache import locks
from nova_imagecache.cache import publish
from nova_imagecache import errors
from nova_imagecache import hook
from nova_imagecache.scrub import checksums
from tests.support import base
from tests.support import nodes
from tests.support import processes

DATA = b'a base file' * 1000
SHA1 = hashlib.sha1(DATA).hexdigest()
OTHER = 'f' * 40


@ddt.ddt
class ChecksumTest(nodes.NodeTestCase):
    """The public functions, with the names they had in 2012."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.node.add_base(OTHER, data=DATA)
        self.sidecar = self.path + '.sha1'

    def count_reads(self) -> list[int]:
        """Note the size of each read of a base file from now on."""
        reads: list[int] = []
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            length = real(fd, buffers, offset)
            reads.append(length)
            return length

        self.patch(os, 'preadv', preadv)
        return reads

    def test_a_missing_checksum_is_none_and_nothing_is_read(self) -> None:
        reads = self.count_reads()
        self.assertIsNone(hook.read_stored_checksum(self.path))
        self.assertIsNone(hook.verify_checksum(self.path))
        self.assertEqual([], reads)

    def test_writing_creates_what_sha1sum_prints(self) -> None:
        self.assertEqual(SHA1, hook.write_stored_checksum(self.path))
        with open(self.sidecar, 'rb') as file:
            self.assertEqual(SHA1.encode(), file.read())
        printed = subprocess.check_output(['sha1sum', self.path], text=True)
        self.assertEqual(SHA1, printed.split()[0])
        self.assertEqual(SHA1, hook.read_stored_checksum(self.path))
        self.assertEqual(0o644, os.stat(self.sidecar).st_mode & 0o777)

    def test_nothing_but_the_checksum_is_added_beside_the_base_file(
        self,
    ) -> None:
        hook.write_stored_checksum(self.path)
        self.assertEqual({OTHER, OTHER + '.sha1'}, self.node.files())

    def test_writing_leaves_a_checksum_alone_and_reads_nothing(self) -> None:
        self.write_sidecar(OTHER.encode())
        reads = self.count_reads()
        self.assertEqual(OTHER, hook.write_stored_checksum(self.path))
        self.assertEqual(OTHER, hook.read_stored_checksum(self.path))
        self.assertEqual([], reads)

    def test_a_file_that_agrees_is_good(self) -> None:
        hook.write_stored_checksum(self.path)
        self.assertIs(True, hook.verify_checksum(self.path))

    def test_one_flipped_bit_is_found(self) -> None:
        hook.write_stored_checksum(self.path)
        nodes.flip_bit(self.path)
        self.assertIs(False, hook.verify_checksum(self.path))

    def test_a_different_digest_is_false(self) -> None:
        self.write_sidecar(OTHER.encode())
        self.assertIs(False, hook.verify_checksum(self.path))

    def test_white_space_and_capitals_do_no_harm(self) -> None:
        self.write_sidecar(SHA1.upper().encode() + b'\n')
        self.assertIs(True, hook.verify_checksum(self.path))

    @ddt.data(
        b'',
        b'banana',
        b'\xff\xfe\0',
        SHA1[:-1].encode(),
        SHA1.encode() + b'0',
        SHA1.encode() + b'  name\n',
        b'{"sha1": "%s"}' % SHA1.encode(),
        SHA1.encode() + b' ' * 100,
        '\u0661'.encode() * 40,
    )
    def test_garbage_is_no_checksum_and_is_redone(self, data: bytes) -> None:
        self.write_sidecar(data)
        self.assertIsNone(hook.read_stored_checksum(self.path))
        self.assertIsNone(hook.verify_checksum(self.path))
        self.assertEqual(SHA1, hook.write_stored_checksum(self.path))
        self.assertIs(True, hook.verify_checksum(self.path))

    def test_a_checksum_older_than_its_file_was_anothers(self) -> None:
        self.write_sidecar(OTHER.encode())
        os.unlink(self.path)
        # As stock Nova leaves it: the file fetched anew, the old checksum.
        while not self.born(self.path) > self.born(self.sidecar):
            shutil.rmtree(self.path, ignore_errors=True)
            self.node.add_base(OTHER + '.part', data=DATA)
            os.replace(self.path + '.part', self.path)
        self.assertIsNone(hook.read_stored_checksum(self.path))
        # One of the two files is bad, and nothing tells which.
        self.assertRaises(
            errors.KnownDamage, hook.write_stored_checksum, self.path
        )
        self.assertEqual(OTHER, self.read_sidecar())

    def born(self, path: str) -> int:
        try:
            born = identity.stat_of(path).incarnation.born
        except FileNotFoundError:
            return 0
        assert born is not None
        return born

    def test_touching_the_file_does_not_age_its_checksum(self) -> None:
        hook.write_stored_checksum(self.path)
        os.utime(self.path, (2**32, 2**32))
        self.assertIs(True, hook.verify_checksum(self.path))

    @ddt.data('directory', 'fifo', 'symlink', 'dangling')
    def test_what_is_no_file_is_no_checksum(self, kind: str) -> None:
        if kind == 'directory':
            os.mkdir(self.sidecar)
        elif kind == 'fifo':
            os.mkfifo(self.sidecar)
        elif kind == 'symlink':
            self.write_sidecar(b'')
            os.rename(self.sidecar, self.sidecar + 'x')
            os.symlink(self.sidecar + 'x', self.sidecar)
        else:
            os.symlink('/no/such/file', self.sidecar)
        self.assertIsNone(hook.read_stored_checksum(self.path))
        self.assertIsNone(hook.verify_checksum(self.path))

    def test_a_missing_base_file_has_no_checksum(self) -> None:
        hook.write_stored_checksum(self.path)
        os.unlink(self.path)
        self.assertIsNone(hook.read_stored_checksum(self.path))
        self.assertIsNone(hook.verify_checksum(self.path))
        self.assertRaises(
            FileNotFoundError, hook.write_stored_checksum, self.path
        )

    def test_a_symbolic_link_is_no_base_file(self) -> None:
        link = self.node.base_path('a' * 40)
        os.symlink(self.path, link)
        error = self.assertRaises(OSError, hook.write_stored_checksum, link)
        self.assertEqual(errno.EINVAL, error.errno)

    def write_while_reading(self) -> None:
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            with open(self.path, 'ab') as file:
                file.write(b'more')
            return real(fd, buffers, offset) if offset == 0 else 0

        self.patch(os, 'preadv', preadv)

    def test_a_file_that_is_written_meanwhile_gets_no_checksum(self) -> None:
        self.write_while_reading()
        self.assertRaises(
            errors.Written, hook.write_stored_checksum, self.path
        )
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_file_that_is_written_meanwhile_is_not_called_bad(self) -> None:
        hook.write_stored_checksum(self.path)
        self.write_while_reading()
        self.assertRaises(errors.Written, hook.verify_checksum, self.path)

    def test_a_file_that_is_replaced_meanwhile_gets_no_checksum(self) -> None:
        real = checksums.digest_of_fd

        def digest_of_fd(*args: Any) -> str:
            digest = real(*args)
            self.node.add_base('b' * 40, data=b'other bytes')
            os.replace(self.node.base_path('b' * 40), self.path)
            return digest

        self.patch(checksums, 'digest_of_fd', digest_of_fd)
        self.assertRaises(
            errors.Changed, hook.write_stored_checksum, self.path
        )
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_file_that_is_replaced_while_storing_gets_no_checksum(
        self,
    ) -> None:
        real = publish.place

        def place(source: str, target: str) -> None:
            os.unlink(self.path)
            self.node.add_base(OTHER, data=b'other bytes')
            real(source, target)

        self.patch(publish, 'place', place)
        hook.write_stored_checksum(self.path)
        self.assertIsNone(hook.read_stored_checksum(self.path))

    def test_a_file_that_is_replaced_meanwhile_is_not_called_bad(
        self,
    ) -> None:
        hook.write_stored_checksum(self.path)
        real = checksums.digest_of_fd

        def digest_of_fd(*args: Any) -> str:
            os.unlink(self.path)
            self.node.add_base(OTHER, data=b'other bytes')
            return real(*args)[::-1]

        self.patch(checksums, 'digest_of_fd', digest_of_fd)
        self.assertRaises(errors.Changed, hook.verify_checksum, self.path)

    def test_while_somebody_has_the_lock_nothing_is_stored(self) -> None:
        layout = self.node.layout
        self.useFixture(processes.NovaProcess(layout.locks, OTHER))
        reads = self.count_reads()
        self.assertRaises(errors.Locked, hook.write_stored_checksum, self.path)
        self.assertEqual([], reads)
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_checksum_is_stored_under_the_lock(self) -> None:
        held = []
        real = publish.place

        def place(source: str, target: str) -> None:
            with locks.nova_lock(self.node.layout, 'f' * 39, blocking=False):
                held.append('of another file')
            try:
                with locks.nova_lock(self.node.layout, OTHER, blocking=False):
                    self.fail('it is not held')
            except errors.Locked:
                held.append('of this one')
            real(source, target)

        self.patch(publish, 'place', place)
        hook.write_stored_checksum(self.path)
        self.assertEqual(['of another file', 'of this one'], held)

    def test_somebody_who_has_the_lock_for_a_moment_is_waited_for(
        self,
    ) -> None:
        lock = contextlib.ExitStack()
        layout = self.node.layout

        def take(length: int) -> None:
            lock.enter_context(locks.nova_lock(layout, OTHER, blocking=False))

        # As long as it takes to start a guest.
        self.patch(time, 'sleep', lambda seconds: lock.close())
        digest = hook.write_stored_checksum(self.path, take)
        self.assertEqual(digest, hook.read_stored_checksum(self.path))

    def test_the_locks_of_somebody_else_further_up_are_not_taken(
        self,
    ) -> None:
        other = os.path.join(self.temporary, 'locks')
        os.makedirs(other)
        self.node.add_directory('guest')
        hook.write_stored_checksum(self.path)
        self.assertEqual([], os.listdir(other))

    def test_the_lock_is_where_nova_has_it_for_a_cache_further_down(
        self,
    ) -> None:
        os.makedirs(self.node.layout.locks)
        deep = os.path.join(self.node.layout.instances, 'a', 'b')
        os.makedirs(deep)
        path = shutil.copy(self.path, deep)
        hook.write_stored_checksum(path)
        self.assertEqual([f'nova-{OTHER}'], os.listdir(self.node.layout.locks))

    def test_what_cannot_be_made_out_is_no_reason_for_a_checksum(
        self,
    ) -> None:
        os.makedirs(self.node.layout.ledgers)
        with open(self.node.layout.ledger(OTHER), 'w') as file:
            file.write('garbage')
        self.assertRaises(errors.Blind, hook.write_stored_checksum, self.path)
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_checksum_made_during_the_reading_is_not_replaced(self) -> None:
        def publish_another(length: int) -> None:
            self.write_sidecar(b'0' * 40)

        self.assertEqual(
            '0' * 40,
            checksums.write_stored_checksum(self.path, publish_another),
        )
        self.assertEqual('0' * 40, self.read_sidecar())

    def test_what_is_garbled_during_the_reading_gets_no_checksum(self) -> None:
        ledger = self.node.layout.ledger(OTHER)
        os.makedirs(os.path.dirname(ledger), exist_ok=True)

        def garble(length: int) -> None:
            with open(ledger, 'w') as file:
                file.write('garbage')

        self.assertRaises(
            errors.Blind, checksums.write_stored_checksum, self.path, garble
        )
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_full_disk_leaves_nothing_that_looks_valid(self) -> None:
        # Mocked: a full file system would need root to mount.
        def fsync(fd: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, 'fsync', fsync)
        self.assertRaises(OSError, hook.write_stored_checksum, self.path)
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertEqual([], os.listdir(self.node.layout.temporary))

    def test_a_sparse_file_has_the_checksum_that_sha1sum_gives(self) -> None:
        path = self.node.add_base('c' * 40, data=DATA, size=5 * base.MIB + 1)
        printed = subprocess.check_output(['sha1sum', path], text=True)
        self.assertEqual(printed.split()[0], hook.write_stored_checksum(path))

    def test_progress_adds_up_to_the_size(self) -> None:
        path = self.node.add_base('c' * 40, data=b'', size=3 * base.MIB + 7)
        seen: list[int] = []
        checksums.write_stored_checksum(path, seen.append)
        self.assertEqual(os.path.getsize(path), sum(seen))
