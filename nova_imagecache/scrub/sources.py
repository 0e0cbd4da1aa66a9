# SPDX-License-Identifier: Apache-2.0

"""What a base file is read from: our own open file, or what the host lends."""

from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import dataclasses
import os
from typing import Protocol

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache import errors
from nova_imagecache.host import ReadAsRoot
from nova_imagecache.scrub import readers
from nova_imagecache import stopwatches


# Enough to tell in which form it is.
_HEAD = 4

# Bytes to have the host read at once: it may make one message of them, and
# does nothing else meanwhile.
_LENT_PIECE = 2 * 1024 * 1024


class Source(Protocol):
    """A base file that can be read."""

    def stat(self) -> identity.Stat:
        """See the file that is read.

        :raises OSError: it cannot be looked at
        """
        ...

    def sync(self) -> None:
        """Have on the disk what is in memory only.

        :raises OSError: some of it is lost
        """
        ...

    def head(self) -> bytes:
        """Read the first four bytes, or fewer.

        :raises Exception: it cannot be read
        """
        ...

    def read(
        self, means: readers.Means, start: int, end: int, block_size: int
    ) -> Generator[readers.Piece, None, None]:
        """Read a range, as :meth:`readers.Reader.read`."""
        ...


@dataclasses.dataclass(frozen=True)
class OpenFile:
    """A file that this process has open, a :class:`Source`."""

    fd: int

    def stat(self) -> identity.Stat:
        """See the file that is read."""
        return identity.stat_of_fd(self.fd)

    def sync(self) -> None:
        """Have on the disk what is in memory only."""
        os.fsync(self.fd)

    def head(self) -> bytes:
        """Read the first four bytes."""
        return os.pread(self.fd, _HEAD, 0)

    def read(
        self, means: readers.Means, start: int, end: int, block_size: int
    ) -> Generator[readers.Piece, None, None]:
        """Read a range."""
        return readers.Reader(self.fd, means).read(start, end, block_size)


@dataclasses.dataclass(frozen=True)
class LentFile:
    """A file that the host reads for us, a :class:`Source`.

    As of another user, with a umask of 077. It comes through the page cache,
    and holes are read. Whether it is still the same file is found out when
    something is published of it.
    """

    path: str
    read_as_root: ReadAsRoot

    def stat(self) -> identity.Stat:
        """See the file that is read."""
        return identity.stat_of(self.path, fresh=True)

    def sync(self) -> None:
        """Do nothing: the host lends no such thing."""

    def head(self) -> bytes:
        """Read the first four bytes."""
        return self.read_as_root(self.path, 0, _HEAD)

    def read(
        self, means: readers.Means, start: int, end: int, block_size: int
    ) -> Generator[readers.Piece, None, None]:
        """Read a range."""
        size = min(means.limiter.piece, _LENT_PIECE, block_size)
        position = start
        while position < end:
            means.check_stop()
            wanted = min(size - position % size, end - position)
            piece = self._piece(means, position, wanted)
            if not piece.length:
                return
            if piece.error is not None:
                # One error is enough to call the block bad.
                length = min(
                    block_size - position % block_size, end - position
                )
                piece = dataclasses.replace(piece, length=length)
            else:
                means.progress(piece.length)
            yield piece
            position += piece.length

    def _piece(
        self, means: readers.Means, start: int, wanted: int
    ) -> readers.Piece:
        means.limiter.before(wanted)
        stopwatch = stopwatches.Stopwatch()
        stopwatch.start()
        try:
            data = self.read_as_root(self.path, start, wanted)
        except OSError as error:
            if error.errno not in readers.MEDIUM_ERRORS:
                raise
            return readers.Piece(start, wanted, error=error)
        # A broad net, as the function and what it raises are the host's.
        except Exception as error:
            raise errors.NotNow(
                f'the host does not read it for us: {error!r}'
            ) from error
        finally:
            means.limiter.after(wanted, stopwatch.seconds())
        return readers.Piece(start, len(data), memoryview(data))


@contextlib.contextmanager
def opened(
    file: base_file.BaseFile, read_as_root: ReadAsRoot | None
) -> Iterator[Source]:
    """Open a base file for reading, once nobody holds its lock.

    :param read_as_root: what the host lends for what we may not read
    :raises nova_imagecache.errors.NotNow: somebody does, or it is gone
    :raises OSError: it cannot be opened
    """
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(file.opened())
        except PermissionError:
            if read_as_root is None:
                raise
            yield LentFile(file.path, read_as_root)
            return
        yield OpenFile(fd)
