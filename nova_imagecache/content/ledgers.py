# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of one base file.

The line of the record is a :class:`Ledger`, and its payload the digests of the
blocks (:class:`~nova_imagecache.content.blockmap.Blocks`). A pass reads the
line alone (decision 0014).
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import enum
import itertools

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache import errors

_LEAST_BLOCK_SIZE = 4096


class Damage(enum.StrEnum):
    """What is wrong with a block."""

    CORRUPT = 'corrupt'
    UNREADABLE = 'unreadable'


@dataclasses.dataclass(frozen=True)
class BadBlocks:
    """Blocks in a row that are bad in the same way."""

    first: int
    count: int
    damage: Damage


@dataclasses.dataclass(frozen=True)
class BadRange:
    """Bytes that are bad.

    :ivar start: offset of the first
    :ivar end: offset after the last
    """

    start: int
    end: int
    damage: Damage


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The ledger of one incarnation of a base file.

    :ivar size: bytes in the file when its blocks were digested
    :ivar algorithm: of the digests of the blocks
    :ivar block_size: in bytes
    :ivar image: the image it was made from, where that is known
    :ivar settled: whether it is sure that nobody wrote to the file while it
        was first read. Until it is, a difference is no corruption.
    :ivar suspect: whether it was there in an earlier boot and was never
        digested in it: it may have lost in a crash what was not on the disk
        yet. It stays so.
    :ivar sha1: SHA-1 that the whole file has to have (decision 0012); None if
        there was none yet
    :ivar proven: whether the digests of the blocks are those of a file with
        this SHA-1
    :ivar stored: the stored checksum that it was last compared with
    :ivar sidecar: key of the file with the stored checksum, when this was
        published
    :ivar found: the SHA-1 that the last comparison of the whole file gave;
        None when it agreed with both others
    :ivar started: when an unfinished reading began; None when there is none
    :ivar position: the block with which an unfinished reading goes on
    :ivar times: mtime and ctime of the file, in nanoseconds, when an
        unfinished first reading began
    :ivar changed: whether an unfinished reading has found a file that is not
        settled other than it was
    :ivar read: when the last reading from start to end began; None if never
    :ivar verified: likewise, for the last one that had something to compare
        with
    :ivar bad: blocks that were bad when they were read last, in order
    :ivar unreadable: why the last reading was given up; None if it was not
    :ivar attempted: when it was given up
    :ivar rebaselined: when this ledger was begun because all that was known
        of the file before had been lost, in seconds since the epoch
    """

    key: identity.Key
    size: int
    algorithm: str
    block_size: int
    # And no origin of a resized file (decision 0027).
    image: str | None = None
    settled: bool = False
    suspect: bool = False
    sha1: str | None = None
    proven: bool = False
    stored: str | None = None
    sidecar: identity.Key | None = None
    found: str | None = None
    started: clocks.Instant | None = None
    position: int = 0
    times: tuple[int, int] | None = None
    changed: bool = False
    read: clocks.Instant | None = None
    verified: clocks.Instant | None = None
    bad: tuple[BadBlocks, ...] = ()
    unreadable: str | None = None
    attempted: clocks.Instant | None = None
    rebaselined: float | None = None

    @classmethod
    def begin(
        cls,
        key: identity.Key,
        size: int,
        algorithm: str,
        image: str | None = None,
    ) -> 'Ledger':
        """Give the ledger of a file of which nothing is known."""
        return cls(key, size, algorithm, blockmap.block_size_for(size), image)

    @classmethod
    def load(cls, file: base_file.BaseFile) -> 'Ledger | None':
        """Read the ledger under the name of a file.

        It may be that of an earlier file of the same name: see :meth:`is_of`.

        :raises nova_imagecache.errors.Damaged: there is something else there
        :raises nova_imagecache.errors.Newer: a newer release has written it
        :raises OSError: it cannot be read
        """
        found = _FORMAT.load(file.ledger)
        return None if found is None else found._checked()

    def _checked(self) -> 'Ledger':
        """Refuse what no ledger of ours says."""
        if self.algorithm not in digests.ALGORITHMS:
            raise errors.Damaged(f'the algorithm {self.algorithm} is unknown')
        most = blockmap.MOST_BLOCKS * self.block_size
        if (
            self.block_size < _LEAST_BLOCK_SIZE
            or self.block_size % _LEAST_BLOCK_SIZE
            or not 0 <= self.size <= most
        ):
            raise errors.Damaged('its block size cannot be')
        if self.position < 0 or any(
            run.first < 0 or run.count < 1 for run in self.bad
        ):
            raise errors.Damaged('it has no such blocks')
        return self

    def is_of(self, file: base_file.BaseFile) -> bool:
        """Whether it is the ledger of this very file."""
        return self.key == file.incarnation.key

    def load_blocks(self, file: base_file.BaseFile) -> blockmap.Blocks:
        """Read the digests that belong to the ledger.

        :raises nova_imagecache.errors.Damaged: they are not what was written
        :raises nova_imagecache.errors.NotNow: there is another ledger now
        :raises OSError: they cannot be read
        """
        found, payload = _FORMAT.load_whole(file.ledger)
        if found != self:
            raise errors.NotNow('its records have changed meanwhile')
        try:
            return blockmap.Blocks.decode(
                self.algorithm, self.size, self.block_size, payload
            )
        except ValueError as error:
            raise errors.Damaged(str(error)) from None

    def save(
        self,
        file: base_file.BaseFile,
        blocks: blockmap.Blocks | None = None,
    ) -> None:
        """Publish the ledger. The caller holds the file's guard.

        :param blocks: the digests; without them, none is known
        :raises OSError: it was not saved
        """
        payload = b'' if blocks is None else blocks.encode()
        _FORMAT.save(file.layout, file.ledger, self, payload)

    @property
    def bad_ranges(self) -> tuple[BadRange, ...]:
        """The bytes that are bad, in order.

        Where the file goes on past its end, to the end of the block.
        """
        ranges = []
        last = -(-self.size // self.block_size)
        for run in self.bad:
            start = run.first * self.block_size
            end = start + run.count * self.block_size
            if run.first + run.count == last:
                end = self.size
            ranges.append(BadRange(start, end, run.damage))
        return tuple(ranges)


def spread(bad: Iterable[BadBlocks]) -> dict[int, Damage]:
    """Give the damage by block."""
    return {
        index: run.damage
        for run in bad
        for index in range(run.first, run.first + run.count)
    }


def gather(bad: Mapping[int, Damage]) -> tuple[BadBlocks, ...]:
    """Put blocks in a row together; the opposite of :func:`spread`."""
    runs = []
    numbered = enumerate(sorted(bad))
    for (_offset, damage), row in itertools.groupby(
        numbered, lambda item: (item[1] - item[0], bad[item[1]])
    ):
        indices = [index for _number, index in row]
        runs.append(BadBlocks(indices[0], len(indices), damage))
    return tuple(runs)


def is_newer(path: str) -> bool:
    """Whether a newer release has written the ledger at a path."""
    try:
        _FORMAT.check_replaceable(path)
    except errors.Newer:
        return True
    return False


_FORMAT = records.Format('ledger', 2, Ledger)
