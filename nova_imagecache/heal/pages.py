# SPDX-License-Identifier: Apache-2.0

"""Reading a file page by page: what its medium has, and what is cached.

One sector that cannot be read makes a read of a whole block fail; here it
costs the page that it is in.
"""

from collections.abc import Collection
from collections.abc import Sequence
import ctypes
import errno
import fcntl
import mmap
import os

from nova_imagecache import errors
from nova_imagecache.scrub import readers

#: What is read, compared and written at least: enough for any disk.
PAGE = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
    ctypes.c_int, ctypes.c_int64,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)

_MAP_FAILED = ctypes.c_void_p(-1).value

# What is dropped at least, until it is enough; 0 for the whole file. The
# kernel drops what lies in the range as a whole, and caches more at once.
_DROPPED = (PAGE, 64 * 1024, 2 * 1024 * 1024, 0)

# Pages of one read that are found to be unreadable, until the others count as
# such: a disk takes up to half a minute for each, and guests wait meanwhile.
_MOST_UNREADABLE = 16

# What RWF_NOWAIT is answered with where nothing is cached, or nobody knows.
_NOT_CACHED = frozenset(
    {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}
)


def count_of(length: int) -> int:
    """Give the number of pages that so many bytes take."""
    return -(-length // PAGE)


def split(data: bytes) -> list[bytes | None]:
    """Cut data into pages, of which the last one may be short."""
    return [data[start : start + PAGE] for start in range(0, len(data), PAGE)]


def join(pages: Sequence[bytes | None]) -> bytes | None:
    """Put pages together; None where one of them is missing."""
    known = [page for page in pages if page is not None]
    return b''.join(known) if len(known) == len(pages) else None


def fill(pages: Sequence[bytes | None], length: int) -> tuple[bytes, set[int]]:
    """Put pages together, with zeros for those that are missing.

    :param length: bytes in all of them, and more for zeros after them
    :returns: the data, and the numbers of the pages that are missing
    """
    missing = {number for number, page in enumerate(pages) if page is None}
    data = b''.join(bytes(PAGE) if page is None else page for page in pages)
    return data[:length].ljust(length, b'\0'), missing


class Medium:
    """Reads one open file past the page cache, where that can be done.

    :ivar direct: whether it can
    """

    def __init__(self, fd: int) -> None:
        """Open the file once more; see :meth:`close`.

        :param fd: open for reading
        :raises OSError: it cannot be opened again
        """
        self._fd = os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_CLOEXEC)
        self.direct = set_direct(self._fd, True)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def __enter__(self) -> 'Medium':
        """Give the medium, for as long as it is needed."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()

    def read(
        self, start: int, length: int, skip: Collection[int] = ()
    ) -> list[bytes | None]:
        """Read a range: as a whole, and page by page if that fails.

        :param start: a multiple of the page size
        :param skip: pages that are known to be unreadable, counted from the
            start, and not to be tried
        :returns: its pages, and None for one that cannot be read, or was not
            tried any more
        :raises nova_imagecache.errors.Written: the file ends before
        :raises OSError: it cannot be read, which is no fault of the medium
        """
        if not skip:
            data = self._read_unless_damaged(start, length)
            if data is not None:
                return split(data)
        found: list[bytes | None] = []
        failed = 0
        for number in range(count_of(length)):
            position = number * PAGE
            page = None
            if number not in skip and failed < _MOST_UNREADABLE:
                page = self._read_unless_damaged(
                    start + position, min(PAGE, length - position)
                )
                failed += page is None
            found.append(page)
        return found

    def _read_unless_damaged(self, start: int, length: int) -> bytes | None:
        try:
            return self._read(start, length)
        except OSError as error:
            if error.errno not in readers.MEDIUM_ERRORS:
                raise
        return None

    def _read(self, start: int, length: int) -> bytes:
        with mmap.mmap(-1, count_of(length) * PAGE) as buffer:
            view = memoryview(buffer)
            done = 0
            try:
                while done < length:
                    if done % PAGE:
                        # After a short read the rest is not aligned.
                        self.direct = set_direct(self._fd, False)
                    with view[done:] as rest:
                        got = self._read_into(rest, start + done)
                    if not got:
                        raise errors.Written('it has become shorter')
                    done += got
                return bytes(view[:length])
            finally:
                view.release()

    def _read_into(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self.direct:
                raise
        self.direct = set_direct(self._fd, False)
        return os.preadv(self._fd, [buffer], offset)


def set_direct(fd: int, direct: bool) -> bool:
    """Have an open file be read and written past the page cache, or not.

    :returns: whether it is now
    """
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return direct


def _resident(fd: int, start: int, length: int) -> Sequence[int]:
    """Tell which pages of a range are in the page cache.

    The kernel tells who may write the file; to others all seem to be.
    """
    count = count_of(length)
    address = _libc.mmap(
        None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, start
    )
    if address == _MAP_FAILED:
        return [1] * count
    try:
        answer = ctypes.create_string_buffer(count)
        if _libc.mincore(address, length, answer):
            return [1] * count
        return [each & 1 for each in answer.raw]
    finally:
        _libc.munmap(address, length)


def cached(fd: int, start: int, length: int) -> dict[int, bytes]:
    """Give what the page cache has of a range; no disk is read for it.

    :param fd: open for reading, and not with O_DIRECT
    :param start: a multiple of the page size
    :returns: pages, by their number from the start
    """
    found: dict[int, bytes] = {}
    resident = _resident(fd, start, length)
    number = 0
    while number < len(resident):
        if not resident[number]:
            number += 1
            continue
        count = 1
        while number + count < len(resident) and resident[number + count]:
            count += 1
        position = number * PAGE
        size = min(count * PAGE, length - position)
        data = _read_cached(fd, start + position, size)
        for page in split(data):
            whole = min(PAGE, length - number * PAGE)
            if page is not None and len(page) == whole:
                found[number] = page
                number += 1
        if len(data) < size:
            # One that is being read, or has left, is not waited for.
            number += 1
    return found


def _read_cached(fd: int, offset: int, length: int) -> bytes:
    """Read up to the first page that is not cached."""
    buffer = bytearray(length)
    try:
        got = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in _NOT_CACHED:
            raise
        return b''
    return bytes(memoryview(buffer)[:got])


def drop_stale(
    fd: int, start: int, pages: Sequence[bytes | None]
) -> tuple[int, int]:
    """Have the page cache forget what is not as it should be.

    A guest whose disk is read through the page cache reads wrong bytes over a
    good medium.

    :param fd: as for :func:`cached`
    :param pages: what should be there
    :returns: how many pages were wrong, and how many still are
    """
    length = sum(len(page or b'') for page in pages)

    def wrong() -> list[int]:
        return [
            number
            for number, page in cached(fd, start, length).items()
            if page != pages[number]
        ]

    stale = left = wrong()
    for size in _DROPPED:
        for number in left:
            first = start + number * PAGE
            first = first - first % size if size else 0
            os.posix_fadvise(fd, first, size, os.POSIX_FADV_DONTNEED)
        if left:
            left = wrong()
    return len(stale), len(left)
