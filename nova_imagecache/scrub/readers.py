# SPDX-License-Identifier: Apache-2.0

"""Reading a base file without disturbing anybody.

Holes are not read. What is read comes from the disk itself, past the page
cache, where the file system can do that; elsewhere through the page cache, but
without leaving anything in it where the kernel can do that; and else plainly.
What guests have in the page cache is never thrown out of it (decision 0025).
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import ctypes
import dataclasses
import enum
import errno
import fcntl
import mmap
import os
import queue
import threading
import weakref

from nova_imagecache import errors
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import limiters
from nova_imagecache import stopwatches

# Enough for every disk that there is (statx(2), stx_dio_offset_align).
_ALIGNMENT = 4096

_HUGE_PAGE = 2 * 1024 * 1024

# A hole is reported in parts, so that we can be told to stop in between.
_HOLE_PIECE = 256 * 1024 * 1024

# include/uapi/linux/fs.h; Linux 6.14. Pages that this read alone has brought
# into the page cache leave it again.
_RWF_DONTCACHE = 0x80

#: What says that the medium is bad. Any other error says something of the
#: process, the host or the way to the storage, and nothing of the file.
MEDIUM_ERRORS = frozenset(
    {errno.EIO, errno.EILSEQ, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA,
     errno.EREMOTEIO}
)  # fmt: skip

# How often whoever waits for what is read ahead looks around, and how long a
# read may hang before we stop without it: enough for a large piece of a disk
# that gives 2 MiB/s.
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0

# Buffers of whoever reads ahead: one is used, and one is filled. With more of
# them no disk was read faster.
_PIECES_AHEAD = 2

# For which a read may hang when nobody tells us to stop. SCSI gives up after
# six times its 30 s (drivers/scsi/sd.h); a scrub that notes no progress for
# ten minutes is called stalled (scrub/activities.py).
_HUNG_SECONDS = 300

#: Reads into buffers, as ``os.preadv``: descriptor, buffers, offset, and flags
#: where there are any.
Pread = Callable[..., int]


class _Mode(enum.Enum):
    """Ways to read, the best first."""

    DIRECT = enum.auto()
    UNCACHED = enum.auto()
    PLAIN = enum.auto()


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a file.

    :ivar data: valid until the next piece is asked for; None for a hole, and
        for what cannot be read
    :ivar error: why it cannot be read
    """

    start: int
    length: int
    data: memoryview | None = None
    error: OSError | None = None


@dataclasses.dataclass(frozen=True)
class Means:
    """How files are read.

    :ivar stop: when set, no further read is started
    :ivar hung: set when a read that hangs is no longer waited for
    :ivar ahead: whether the next piece is read, by a thread, while one is
        being used
    :ivar progress: called for what is read, and not for holes, by whoever
        takes the pieces, in that thread; and with 0 all the time while a piece
        that is read ahead is waited for, or the zeros of a hole are hashed
    :ivar passed: called for what is behind us, holes included
    :ivar pread: reads; tests have it fail, or return something else
    """

    limiter: limiters.Limiter = dataclasses.field(
        default_factory=limiters.Limiter
    )
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    hung: threading.Event = dataclasses.field(default_factory=threading.Event)
    ahead: bool = False
    progress: courses.Progress = lambda length: None
    passed: courses.Progress = lambda length: None
    pread: Pread = lambda *args: os.preadv(*args)

    def tell(self, length: int) -> None:
        """Tell how many bytes were read, or that we are still at it.

        :raises nova_imagecache.errors.Error: nobody listens
        """
        courses.show(self.progress, length)

    def pass_by(self, length: int) -> None:
        """Tell how many bytes are behind us, likewise."""
        courses.show(self.passed, length)

    def check_stop(self) -> None:
        """See that nobody has told us to stop.

        :raises nova_imagecache.errors.Stopped: somebody has
        """
        if self.stop.is_set():
            raise errors.Stopped('it was stopped')


class Reader:
    """Reads one open file.

    :ivar resting: whether it waits until it may read
    """

    def __init__(self, fd: int, means: Means) -> None:
        """Prepare to read; nothing is read yet.

        :param fd: open for reading
        """
        # One of its own (decision 0020).
        self._fd = _reopen(fd)
        weakref.finalize(self, os.close, self._fd)
        self._means = means
        self.resting = False
        self._mode = _Mode.DIRECT
        self._set_direct(True)
        count = _PIECES_AHEAD if means.ahead else 1
        self._buffers = _buffers(count, means.limiter.piece)
        self._turn = 0

    def read(
        self, start: int, end: int, block_size: int
    ) -> Generator[Piece, None, None]:
        """Read a range, in pieces that are all within one block, but holes.

        What lies past the end of the file is not there: the pieces then end
        early.

        :param start: multiple of the block size
        :raises nova_imagecache.errors.Stopped: we were told to stop
        :raises nova_imagecache.errors.Hung: reading ahead, a read has hung
        :raises OSError: the file as a whole cannot be read
        """
        pieces = self._pieces(start, end, block_size)
        if self._means.ahead:
            pieces = _ReadAhead(self, self._means, pieces, start).pieces()
        return self._telling(pieces)

    def _telling(
        self, pieces: Generator[Piece, None, None]
    ) -> Generator[Piece, None, None]:
        """Tell of the progress that each piece is."""
        with contextlib.closing(pieces):
            for piece in pieces:
                if piece.data is not None:
                    self._means.tell(piece.length)
                yield piece

    def _pieces(
        self, start: int, end: int, block_size: int
    ) -> Generator[Piece, None, None]:
        # In the thread that reads.
        self._stopwatch = stopwatches.Stopwatch()
        end = min(end, os.fstat(self._fd).st_size)
        size = min(self._buffers[0].nbytes, block_size)
        position = start
        while position < end:
            data = min(self._seek_data(position), end)
            if data < position:
                # It has become shorter.
                return
            # Direct reads are aligned, and so are blocks.
            start = data if data == end else data - data % _ALIGNMENT
            while position < start:
                self._means.check_stop()
                length = min(start - position, max(_HOLE_PIECE, block_size))
                yield Piece(position, length)
                position += length
            if position == end:
                return
            hole = self._seek_hole(data, end)
            hole = min(hole + -hole % _ALIGNMENT, end)
            while position < hole:
                length = size - position % size
                # No further: what is read counts against the limit.
                length = min(length, hole - position)
                piece = self._read_piece(position, length)
                if not piece.length:
                    return
                if piece.error is not None:
                    # Each such read can hold up guests for minutes, and one
                    # is enough to call the block bad.
                    length = block_size - position % block_size
                    length = min(length, end - position)
                    piece = dataclasses.replace(piece, length=length)
                yield piece
                position += piece.length

    def _seek_data(self, position: int) -> int:
        try:
            return os.lseek(self._fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # Nothing but a hole to the end.
                return os.fstat(self._fd).st_size
            if error.errno == errno.EINVAL:
                return position
            raise

    def _seek_hole(self, position: int, end: int) -> int:
        try:
            return os.lseek(self._fd, position, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EINVAL):
                return end
            raise

    def _read_piece(self, start: int, wanted: int) -> Piece:
        """Read one piece; it is shorter only where the file ends."""
        room = -(-wanted // _ALIGNMENT) * _ALIGNMENT
        buffer = self._buffers[self._turn][:room]
        self._turn = (self._turn + 1) % len(self._buffers)
        self.resting = True
        self._means.limiter.before(wanted)
        self.resting = False
        self._means.check_stop()
        # Without a limit nobody asks, and the disk waits meanwhile.
        limited = bool(self._means.limiter.rate)
        if limited:
            self._stopwatch.start()
        length = 0
        try:
            while length < wanted:
                got = self._read_into(buffer[length:], start + length)
                if not got:
                    break
                length += got
        except OSError as error:
            if error.errno not in MEDIUM_ERRORS:
                raise
            return Piece(start, wanted, error=error)
        finally:
            if limited:
                seconds = self._stopwatch.seconds()
                self._means.limiter.after(wanted, seconds)
        length = min(length, wanted)
        return Piece(start, length, buffer[:length])

    def _read_into(self, buffer: memoryview, offset: int) -> int:
        """Read in the best way that this file allows."""
        if self._mode is _Mode.DIRECT:
            try:
                if offset % _ALIGNMENT == 0:
                    return self._pread(buffer, offset)
                # The rest of a short read, mostly at the end of the file.
                if offset >= os.fstat(self._fd).st_size:
                    return 0
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            self._set_direct(False)
        if self._mode is _Mode.UNCACHED:
            try:
                return self._pread(buffer, offset, _RWF_DONTCACHE)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            self._mode = _Mode.PLAIN
        return self._pread(buffer, offset)

    def _pread(self, buffer: memoryview, offset: int, *flags: int) -> int:
        return self._means.pread(self._fd, [buffer], offset, *flags)

    def _set_direct(self, direct: bool) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            if direct:
                fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT)
            else:
                self._mode = _Mode.UNCACHED
                fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._mode = _Mode.UNCACHED


def _reopen(fd: int) -> int:
    """Open a file once more, with flags of its own where that can be."""
    try:
        return os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(fd)


def _buffers(count: int, size: int) -> list[memoryview]:
    """Make buffers for direct reads, which have to begin at a page.

    Of huge pages, where there are any (decision 0024).
    """
    region = mmap.mmap(
        -1,
        count * size + _HUGE_PAGE,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    )
    with contextlib.suppress(OSError):
        region.madvise(mmap.MADV_HUGEPAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    first = -address % _HUGE_PAGE
    view = memoryview(region)
    return [
        view[start : start + size]
        for start in range(first, first + count * size, size)
    ]


class _ReadAhead:
    """A thread that takes pieces, one ahead of whoever uses them.

    A piece has a turn for as long as somebody has it, and for each turn there
    is a buffer. A read that hangs on a dying disk, or on a server that is
    gone, holds up the thread alone.
    """

    def __init__(
        self,
        reader: Reader,
        means: Means,
        pieces: Iterator[Piece],
        start: int,
    ) -> None:
        self._reader = reader
        self._means = means
        self._pieces = pieces
        self._position = start
        # In C, as a handover keeps the disk waiting.
        self._handed: queue.SimpleQueue[Piece | BaseException | None]
        self._handed = queue.SimpleQueue()
        # False for the end of all turns.
        self._turns: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._unwanted = False

    def pieces(self) -> Generator[Piece, None, None]:
        thread = threading.Thread(
            target=self._produce, daemon=True, name='read-ahead'
        )
        for _turn in range(_PIECES_AHEAD):
            self._turns.put(True)
        try:
            thread.start()
            while (item := self._take()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                self._position = item.start + item.length
                self._turns.put(True)
        finally:
            self._unwanted = True
            self._turns.put(False)
            if thread.ident is not None:
                thread.join(_PATIENCE_SECONDS)

    def _take(self) -> Piece | BaseException | None:
        patience, hung = _PATIENCE_SECONDS, 0.0
        while patience > 0 and hung < _HUNG_SECONDS:
            try:
                return self._handed.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._means.tell(0)
                if self._means.stop.is_set():
                    patience -= _POLL_SECONDS
                if not self._reader.resting:
                    hung += _POLL_SECONDS
        self._means.hung.set()
        if patience <= 0:
            return errors.Stopped('it was stopped while a read hung')
        return errors.Hung(
            f'a read has hung for {hung / 60:.0f} min at byte '
            f'{self._position}; look at the disk or the mount of the cache'
        )

    def _produce(self) -> None:
        try:
            while self._turns.get() and not self._unwanted:
                piece = next(self._pieces, None)
                self._handed.put(piece)
                if piece is None:
                    return
        except BaseException as error:
            self._handed.put(error)
