# SPDX-License-Identifier: Apache-2.0

import contextlib
import ctypes
import errno
import mmap
import os
import queue
import random
import threading
from typing import Any

import ddt
import fixtures
import hypothesis
from hypothesis import strategies as st

from nova_imagecache import errors
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import readers
from nova_imagecache import stopwatches
from tests.support import base
from tests.support import nodes

BLOCK = 64 * base.KIB
PAGE = mmap.PAGESIZE


def cached_pages(path: str) -> list[bool]:
    """Say which pages of a file are in the page cache (mincore(2))."""
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        # Written to by nobody; ctypes wants it writable.
        view = mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE)
    first = ctypes.c_char.from_buffer(view)
    vector = (ctypes.c_ubyte * (-(-size // PAGE)))()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), size, vector)
    return [bool(each & 1) for each in vector]


@ddt.ddt
class ReaderTest(nodes.FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.temporary, 'file')
        self.requests: list[tuple[int, int, int]] = []
        self.pread: readers.Pread = os.preadv

    def write(self, size: int, *data: tuple[int, bytes]) -> bytes:
        """Make a sparse file; give what it holds."""
        with open(self.path, 'wb') as file:
            file.truncate(size)
            for offset, part in data:
                file.seek(offset)
                file.write(part)
            os.fsync(file.fileno())
        with open(self.path, 'rb') as file:
            return file.read()

    def spy(self) -> None:
        """Note offset, length and flags of each read from now on."""
        real = self.pread

        def pread(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            got = real(fd, buffers, offset, *([flags] if flags else []))
            self.requests.append((offset, got, flags))
            return got

        self.pread = pread

    def read(self, start: int = 0, **means: Any) -> list[tuple[int, int, Any]]:
        """Read the file; give start, length and bytes of each piece."""
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        means = {'pread': self.pread} | means
        reader = readers.Reader(fd, readers.Means(**means))
        return [
            (piece.start, piece.length, piece.data and bytes(piece.data))
            for piece in reader.read(start, 2**62, BLOCK)
        ]

    def content(self, pieces: list[tuple[int, int, Any]]) -> bytes:
        return b''.join(
            bytes(length) if data is None else data
            for _start, length, data in pieces
        )

    @ddt.data(0, 1, 4095, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 777)
    def test_all_bytes_are_read_once_and_in_order(self, size: int) -> None:
        data = random.Random(size).randbytes(size)
        self.write(size, (0, data))
        for ahead in (False, True):
            pieces = self.read(ahead=ahead)
            self.assertEqual(data, self.content(pieces))
            position = 0
            for start, length, _data in pieces:
                self.assertEqual(position, start)
                self.assertEqual(start // BLOCK, (start + length - 1) // BLOCK)
                position += length

    def test_holes_are_not_read(self) -> None:
        part = random.Random(1).randbytes(BLOCK)
        content = self.write(
            base.MIB * 100 + 5, (base.MIB, part), (50 * base.MIB, part)
        )
        self.spy()
        pieces = self.read()
        self.assertEqual(content, self.content(pieces))
        self.assertEqual(
            [(base.MIB, BLOCK, 0), (50 * base.MIB, BLOCK, 0)], self.requests
        )

    def test_between_islands_of_data_nothing_is_read_or_paid_for(
        self,
    ) -> None:
        islands = [
            (number * 4 * PAGE, random.Random(number).randbytes(PAGE))
            for number in range(64)
        ]
        content = self.write(256 * PAGE, *islands)
        self.spy()
        paid: list[int] = []

        class PaidLimiter(limiters.Limiter):
            def before(self, length: int) -> None:
                paid.append(length)

        for ahead in (False, True):
            seen: list[int] = []
            self.requests.clear()
            paid.clear()
            pieces = self.read(
                ahead=ahead,
                limiter=PaidLimiter(base.MIB),
                progress=seen.append,
            )
            self.assertEqual(content, self.content(pieces))
            self.assertEqual(
                [(offset, PAGE, 0) for offset, _data in islands],
                self.requests,
            )
            self.assertEqual([PAGE] * 64, paid)
            self.assertEqual(64 * PAGE, sum(seen))

    @hypothesis.settings(max_examples=100)
    @hypothesis.given(
        st.integers(0, 300 * 1024),
        st.lists(
            st.tuples(st.integers(0, 300 * 1024), st.integers(1, 40000)),
            max_size=4,
        ),
        st.integers(0, 4),
    )
    def test_any_file_is_read_as_it_is(
        self, size: int, extents: list[tuple[int, int]], first: int
    ) -> None:
        content = self.write(
            size,
            *((offset, b'x' * length) for offset, length in extents),
        )
        start = first * BLOCK
        self.assertEqual(content[start:], self.content(self.read(start)))

    def test_reading_leaves_the_page_cache_as_it_was(self) -> None:
        self.write(base.MIB, (0, random.Random(1).randbytes(base.MIB)))
        self.drop_cache()
        if any(cached_pages(self.path)):
            self.skipTest('this file system is its own page cache')
        self.read()
        self.assertEqual(0, sum(cached_pages(self.path)))

    def drop_cache(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def test_what_guests_have_hot_stays_hot(self) -> None:
        self.write(base.MIB, (0, random.Random(1).randbytes(base.MIB)))
        for refuse in ([], ['direct'], ['direct', 'uncached']):
            self.drop_cache()
            with open(self.path, 'rb') as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                os.pread(file.fileno(), 128 * base.KIB, 256 * base.KIB)
            hot = cached_pages(self.path)
            if all(hot) or not any(hot):
                self.skipTest('this file system has no page cache of its own')
            with self.refusing(*refuse):
                self.read()
            after = cached_pages(self.path)
            lost = [
                page for page, was in enumerate(hot) if was and not after[page]
            ]
            self.assertEqual([], lost)

    @contextlib.contextmanager
    def refusing(self, *ways: str) -> Any:
        """Let the file system refuse ways of reading."""
        real = self.pread

        # Mocked: the file systems that refuse are not at hand.
        def pread(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            if flags:
                if 'uncached' in ways:
                    raise OSError(errno.EOPNOTSUPP, 'refused')
                return real(fd, buffers, offset, flags)
            if 'direct' in ways and fd not in plain:
                plain.add(fd)
                raise OSError(errno.EINVAL, 'refused')
            return real(fd, buffers, offset)

        plain: set[int] = set()
        self.pread = pread
        try:
            yield
        finally:
            self.pread = real

    @ddt.data(['direct'], ['direct', 'uncached'])
    def test_a_file_system_without_direct_reads_is_read_otherwise(
        self, ways: list[str]
    ) -> None:
        data = random.Random(1).randbytes(3 * BLOCK + 5)
        self.write(len(data), (0, data))
        with self.refusing(*ways):
            self.assertEqual(data, self.content(self.read()))

    def test_a_file_system_without_holes_is_read_whole(self) -> None:
        content = self.write(3 * BLOCK, (BLOCK, b'data'))

        # Mocked: the file systems that cannot say are not at hand.
        def lseek(fd: int, offset: int, whence: int) -> int:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        self.patch(os, 'lseek', lseek)
        pieces = self.read()
        self.assertEqual(content, self.content(pieces))
        self.assertNotIn(None, [data for _start, _length, data in pieces])

    @ddt.data('/dev/shm')
    def test_tmpfs_is_read_too(self, directory: str) -> None:
        if not os.access(directory, os.W_OK):
            self.skipTest('there is no tmpfs here')
        self.path = os.path.join(directory, f'imagecache-{os.getpid()}')
        self.addCleanup(os.unlink, self.path)
        content = self.write(BLOCK * 3 + 7, (BLOCK + 5, b'data'))
        self.assertEqual(content, self.content(self.read()))

    def test_limited_reading_goes_in_small_pieces(self) -> None:
        self.write(base.MIB, (0, b'x' * base.MIB))
        waited: list[float] = []
        limiter = limiters.Limiter(base.MIB, waited.append, lambda: 0.0)
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        reader = readers.Reader(fd, readers.Means(limiter))
        lengths = [each.length for each in reader.read(0, 2**62, 4 * base.MIB)]
        self.assertEqual([256 * base.KIB] * 4, lengths)
        self.assertEqual(3, len(waited))

    def test_the_limiter_is_told_what_the_disk_took(self) -> None:
        self.write(2 * BLOCK, (0, b'x' * 2 * BLOCK))
        # Mocked: how long a read has to wait for a processor.
        self.patch(stopwatches.Stopwatch, 'seconds', lambda self: 42.0)
        told: list[tuple[int, float]] = []

        class ToldLimiter(limiters.Limiter):
            def after(self, length: int, seconds: float) -> None:
                told.append((length, seconds))

        for ahead in (False, True):
            told.clear()
            self.read(limiter=ToldLimiter(1e15), ahead=ahead)
            self.assertEqual([(BLOCK, 42.0)] * 2, told)

    def test_what_cannot_be_read_is_one_block_and_read_no_more(self) -> None:
        self.write(4 * BLOCK, (0, random.Random(1).randbytes(4 * BLOCK)))
        tried: list[int] = []
        real = self.pread

        # Mocked here; tests/node/test_medium.py has a disk that fails.
        def pread(fd: int, buffers: Any, offset: int, *flags: int) -> int:
            tried.append(offset)
            if BLOCK <= offset < 2 * BLOCK:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset, *flags)

        self.pread = pread
        self.patch(limiters, 'LARGE_PIECE', 16 * base.KIB)
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        reader = readers.Reader(fd, readers.Means(pread=self.pread))
        pieces = list(reader.read(0, 2**62, BLOCK))
        failed = [piece for piece in pieces if piece.error is not None]
        self.assertEqual(
            [(BLOCK, BLOCK)], [(each.start, each.length) for each in failed]
        )
        self.assertEqual(
            1, len([each for each in tried if BLOCK <= each < 2 * BLOCK])
        )
        self.assertEqual(4 * BLOCK, sum(piece.length for piece in pieces))

    @ddt.data(1, 2, 3)
    def test_an_error_within_a_block_leaves_the_next_block_alone(
        self, number: int
    ) -> None:
        """Up to the end of its own block it is called bad, and no further."""
        part = BLOCK // 4
        broken = BLOCK + number * part
        content = self.write(
            4 * BLOCK, (0, random.Random(1).randbytes(4 * BLOCK))
        )
        real = self.pread

        # Mocked here; tests/node/test_medium.py has a disk that fails.
        def pread(fd: int, buffers: Any, offset: int, *flags: int) -> int:
            if offset == broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset, *flags)

        self.pread = pread
        self.patch(limiters, 'LARGE_PIECE', part)
        pieces = self.read()
        self.assertEqual(
            [(broken, 2 * BLOCK - broken)],
            [
                (start, length)
                for start, length, data in pieces
                if data is None
            ],
        )
        self.assertEqual(
            content[:broken]
            + bytes(2 * BLOCK - broken)
            + content[2 * BLOCK :],
            self.content(pieces),
        )

    def test_an_error_of_the_file_as_a_whole_is_raised(self) -> None:
        self.write(BLOCK, (0, b'x' * BLOCK))

        # Mocked: ESTALE takes an NFS server.
        def pread(*args: Any) -> int:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        self.pread = pread
        for ahead in (False, True):
            error = self.assertRaises(OSError, self.read, ahead=ahead)
            self.assertEqual(errno.ESTALE, error.errno)

    def test_told_to_stop_no_further_read_is_started(self) -> None:
        self.write(5 * BLOCK, (0, b'x' * 5 * BLOCK))
        self.spy()
        stop = threading.Event()
        real = self.pread

        def pread(*args: Any) -> int:
            got = real(*args)
            if len(self.requests) == 2:
                stop.set()
            return got

        self.pread = pread
        for ahead in (False, True):
            stop.clear()
            self.requests.clear()
            self.assertRaises(
                errors.Stopped,
                self.read,
                stop=stop,
                ahead=ahead,
            )
            self.assertEqual(2, len(self.requests))

    def test_told_to_stop_in_a_hole_it_stops(self) -> None:
        with open(self.path, 'wb') as file:
            file.truncate(2**40)
        stop = threading.Event()
        stop.set()
        self.assertRaises(errors.Stopped, self.read, stop=stop)

    def test_a_read_that_hangs_is_not_waited_for(self) -> None:
        stop, hung = threading.Event(), threading.Event()
        self.hang(stop)
        self.patch(readers, '_PATIENCE_SECONDS', 0.01)
        self.assertRaises(
            errors.Stopped, self.read, stop=stop, ahead=True, hung=hung
        )
        self.assertTrue(hung.is_set())

    def hang(self, stop: threading.Event | None = None) -> None:
        """Let what is behind the first block hang until the test ends."""
        self.write(3 * BLOCK, (0, b'x' * 3 * BLOCK))
        self.patch(readers, '_POLL_SECONDS', 0.01)
        over = threading.Event()
        self.addCleanup(over.set)
        real = self.pread

        # Mocked: a disk that hangs.
        def pread(fd: int, buffers: Any, offset: int, *flags: int) -> int:
            if offset:
                if stop is not None:
                    stop.set()
                over.wait()
            return real(fd, buffers, offset, *flags)

        self.pread = pread

    def test_a_read_that_hangs_for_long_is_an_error_that_says_where(
        self,
    ) -> None:
        self.hang()
        self.patch(readers, '_HUNG_SECONDS', 0.05)
        hung = threading.Event()
        error = self.assertRaises(
            errors.Hung, self.read, ahead=True, hung=hung
        )
        self.assertIn(f'at byte {BLOCK}', str(error))
        self.assertTrue(hung.is_set())

    def test_while_a_piece_is_waited_for_somebody_may_look_around(
        self,
    ) -> None:
        stop = threading.Event()
        self.hang()
        self.patch(readers, '_PATIENCE_SECONDS', 0.01)

        def progress(length: int) -> None:
            if not length:
                stop.set()

        self.assertRaises(
            errors.Stopped, self.read, stop=stop, ahead=True, progress=progress
        )

    def test_to_wait_for_the_limiter_is_not_to_hang(self) -> None:
        self.write(3 * BLOCK, (0, b'x' * 3 * BLOCK))
        self.patch(readers, '_POLL_SECONDS', 0.0001)
        self.patch(readers, '_HUNG_SECONDS', 0.2)
        polled = threading.Event()
        polls: list[float] = []

        class NotingQueue(queue.SimpleQueue[Any]):
            def get(
                self, block: bool = True, timeout: float | None = None
            ) -> Any:
                if timeout is not None:
                    polls.append(timeout)
                if len(polls) == 4000:
                    polled.set()
                return super().get(block, timeout)

        self.patch(queue, 'SimpleQueue', NotingQueue)
        limiter = limiters.Limiter(1, lambda _seconds: polled.wait())
        self.assertEqual(3, len(self.read(ahead=True, limiter=limiter)))

    def test_whoever_is_slow_gets_all_that_is_read_ahead_unchanged(
        self,
    ) -> None:
        """Each piece is looked at once what is read ahead has no room left."""
        self.useFixture(fixtures.Timeout(60, gentle=True))
        self.patch(readers, '_POLL_SECONDS', 0.001)
        count = 7
        content = self.write(
            count * BLOCK, (0, random.Random(1).randbytes(count * BLOCK))
        )
        full = threading.Event()

        class NotingQueue(queue.SimpleQueue[Any]):
            def get(
                self, block: bool = True, timeout: float | None = None
            ) -> Any:
                if timeout is None and self.empty():
                    full.set()
                return super().get(block, timeout)

        self.patch(queue, 'SimpleQueue', NotingQueue)
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        reader = readers.Reader(fd, readers.Means(ahead=True))
        found: list[tuple[int, int, bytes]] = []
        for piece in reader.read(0, 2**62, BLOCK):
            # Behind the last one nothing is left to wait for.
            if len(found) < count - 1:
                full.wait()
            found.append((piece.start, piece.length, bytes(piece.data or b'')))
            full.clear()
        self.assertTrue(content == self.content(found), 'they have changed')

    def test_a_file_that_becomes_shorter_ends_early(self) -> None:
        self.write(4 * BLOCK, (0, b'x' * 4 * BLOCK))
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        pieces = readers.Reader(fd, readers.Means(pread=self.pread)).read(
            0, 2**62, BLOCK
        )
        next(pieces)
        os.truncate(self.path, BLOCK + 100)
        lengths = [piece.length for piece in pieces]
        self.assertEqual([100], lengths)

    def test_progress_is_what_is_read_and_no_hole(self) -> None:
        self.write(10 * BLOCK, (BLOCK, b'x' * BLOCK))
        seen: list[int] = []
        self.read(progress=seen.append)
        self.assertEqual([BLOCK], seen)

    def test_progress_is_told_where_the_pieces_are_used(self) -> None:
        self.write(5 * BLOCK, (0, b'x' * 5 * BLOCK))
        seen: list[threading.Thread] = []
        for ahead in (False, True):
            self.read(
                ahead=ahead,
                progress=lambda _length: seen.append(
                    threading.current_thread()
                ),
            )
            self.assertEqual([threading.current_thread()] * 5, seen)
            seen.clear()

    def test_nobody_wants_the_rest(self) -> None:
        self.write(9 * BLOCK, (0, b'x' * 9 * BLOCK))
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        means = readers.Means(ahead=True)
        pieces = readers.Reader(fd, means).read(0, 2**62, BLOCK)
        next(pieces)
        self.assertIn(
            'read-ahead', [thread.name for thread in threading.enumerate()]
        )
        pieces.close()
        self.assertNotIn(
            'read-ahead', [thread.name for thread in threading.enumerate()]
        )
