# SPDX-License-Identifier: Apache-2.0

"""From pieces of a file to the digests of its blocks."""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import hashlib
import time

from nova_imagecache.content import digests
from nova_imagecache.scrub import readers


@dataclasses.dataclass(frozen=True)
class BlockReading:
    """What one block held when it was read.

    :ivar length: bytes that there were, fewer than a block at the end of the
        file
    :ivar digests: one for each algorithm asked for; none if there was an
        error
    """

    index: int
    length: int
    digests: tuple[bytes, ...] = ()
    error: OSError | None = None


# Hashed at once: some milliseconds, so that there is a look around at times.
_ZEROS_PART = 8 * 1024 * 1024


# Likewise of a hole, for whom progress is shown: a part of a second.
_HOLE_PART = 256 * 1024 * 1024


class Zeros:
    """Adds the zeros of holes to digests.

    At a bounded share of a processor, and so that somebody may look around,
    and stop it, all the time: a hole has no end that one can wait for.
    """

    def __init__(
        self,
        means: readers.Means,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        """Hash nothing yet.

        :param means: whose limiter bounds it
        :param processor: seconds that this thread has had of one
        """
        self._means = means
        self._processor = processor

    def add(self, digest: digests.Hash, length: int) -> None:
        """Add so many zero bytes.

        :raises nova_imagecache.errors.Stopped: we were told to stop
        """
        while length > 0:
            self._means.check_stop()
            part = min(length, _ZEROS_PART)
            began = self._processor()
            digests.add_zeros(digest, part)
            self._means.limiter.hashed(self._processor() - began)
            self._means.tell(0)
            length -= part


class WholeFile:
    """The SHA-1 of a whole file, as sha1sum gives it, holes and all.

    It takes one reading from start to end (decision 0011).
    """

    def __init__(self, also: digests.Hash | None = None) -> None:
        """Begin at the start of the file.

        :param also: another digest, which gets all of it as well
        """
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._all = [self._digest, *([] if also is None else [also])]
        self._broken = False

    def add(self, piece: readers.Piece, zeros: Zeros | None = None) -> None:
        """Add the next piece.

        :param zeros: adds those of a hole; by default, without a limit
        """
        if self._broken:
            return
        if piece.error is not None:
            self._broken = True
        elif piece.data is None:
            zeros = zeros or Zeros(readers.Means())
            for each in self._all:
                zeros.add(each, piece.length)
        else:
            for each in self._all:
                each.update(piece.data)

    def spoil(self) -> None:
        """Give up: what was added was not what the file holds."""
        self._broken = True

    def hexdigest(self) -> str | None:
        """Give the digest, or None where a part could not be read."""
        return None if self._broken else self._digest.hexdigest()


class _Block:
    """One block in the making."""

    def __init__(
        self, index: int, algorithms: Sequence[str], zeros: Zeros
    ) -> None:
        self.length = 0
        self._index = index
        self._algorithms = algorithms
        self._zeros = zeros
        # None as long as there was nothing but zeros.
        self._hashes: list[digests.Hash] | None = None
        self._error: OSError | None = None

    def add(self, length: int, piece: readers.Piece) -> None:
        if piece.error is not None:
            self._error = piece.error
        elif piece.data is not None and not (
            self._hashes is None and digests.are_zeros(piece.data)
        ):
            if self._hashes is None:
                self._hashes = [digests.new(name) for name in self._algorithms]
                self._add_zeros(self.length)
            for each in self._hashes:
                each.update(piece.data)
        else:
            self._add_zeros(length)
        self.length += length

    def _add_zeros(self, length: int) -> None:
        for each in self._hashes or ():
            self._zeros.add(each, length)

    def finish(self) -> BlockReading:
        if self._error is not None:
            return BlockReading(self._index, self.length, (), self._error)
        if self._hashes is None:
            found = [digests.of_zeros(name) for name in self._algorithms]
        else:
            found = [each.digest() for each in self._hashes]
        return BlockReading(self._index, self.length, tuple(found))


def _parts(pieces: Iterable[readers.Piece]) -> Iterator[readers.Piece]:
    """Cut holes into parts, so that progress is seen in them."""
    for piece in pieces:
        if piece.data is not None or piece.error is not None:
            yield piece
            continue
        end = piece.start + piece.length
        for start in range(piece.start, end, _HOLE_PART):
            yield readers.Piece(start, min(_HOLE_PART, end - start))


def read_blocks(
    pieces: Iterable[readers.Piece],
    block_size: int,
    algorithms: Sequence[str],
    whole: WholeFile | None = None,
    means: readers.Means | None = None,
) -> Generator[BlockReading]:
    """Put pieces together to blocks.

    :param pieces: those of a range that begins with a block; a hole may be
        longer than a block
    :param whole: gets all pieces as well
    :param means: whose limiter, progress and stop go for holes as well
    :raises nova_imagecache.errors.Stopped: we were told to stop
    """
    means = means or readers.Means()
    zeros = Zeros(means)
    block: _Block | None = None
    for piece in _parts(pieces):
        if whole is not None:
            whole.add(piece, zeros)
        position, end = piece.start, piece.start + piece.length
        while position < end:
            index = position // block_size
            if block is None:
                block = _Block(index, algorithms, zeros)
            length = min(end, (index + 1) * block_size) - position
            block.add(length, piece)
            position += length
            if block.length == block_size:
                yield block.finish()
                block = None
        means.pass_by(piece.length)
    if block is not None:
        yield block.finish()
