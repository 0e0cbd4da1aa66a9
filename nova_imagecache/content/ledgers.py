# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of one base file.

The line of the record is a :class:`Ledger`, and its payload the digests of the
blocks (:class:`~nova_imagecache.content.blockmap.Blocks`). A pass reads the
line alone (decision 0014).
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import dataclasses
import enum
import itertools

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache import errors

_LEAST_BLOCK_SIZE = 4096
# Any file that is not larger than 4 TiB has smaller ones.
_LARGE_BLOCK_SIZE = 64 * 1024 * 1024

# The year 10000, in seconds since the epoch.
_END_OF_TIME = 253402300800


class Damage(enum.StrEnum):
    """What is wrong with a block.

    DOUBTFUL: nothing that is known. But it was not the same when it was read
    twice at first, or it could not be read before anything was known of it,
    so what is known of it may be damage.
    """

    CORRUPT = 'corrupt'
    UNREADABLE = 'unreadable'
    DOUBTFUL = 'doubtful'


class Form(enum.StrEnum):
    """What a base file is in, as far as that changes all of its bytes."""

    QCOW2 = 'qcow2'
    OTHER = 'other'

    @classmethod
    def of(cls, head: bytes) -> 'Form':
        """Tell it by the first four bytes (docs/interop/qcow2.rst)."""
        return cls.QCOW2 if head == b'QFI\xfb' else cls.OTHER


class Trust(enum.StrEnum):
    """How far it is known that a file is what its image is.

    FIRST_SEEN: it is what it was when it was read first, and nothing speaks
    against that.
    """

    ORIGIN_VERIFIED = 'origin-verified'
    FIRST_SEEN = 'first-seen'
    SUSPECT = 'suspect'


_CORRUPT = Damage.CORRUPT
_UNREADABLE = Damage.UNREADABLE


@dataclasses.dataclass(frozen=True)
class Run:
    """Blocks in a row."""

    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class BadBlocks(Run):
    """Blocks in a row that are bad in the same way."""

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

    What it says was verified and found bad is of that incarnation; its
    digests are of the image, and may be asked of another (decision 0069).

    :ivar size: bytes in the file when its blocks were digested
    :ivar algorithm: of the digests of the blocks
    :ivar block_size: in bytes
    :ivar image: the image it was made from, where that is known
    :ivar form: what the file is in, where it was looked at
    :ivar question: whether it was of an earlier file of this name, and the
        file has not been compared with it yet
    :ivar differs: whether the file is not what an earlier one was: one of
        the two is bad, and evidence has to tell which
    :ivar unsettled: blocks of which it is not sure yet that nobody wrote to
        them while they were first read: a difference is no corruption there
    :ivar suspect: whether it may have been damaged before there was anything
        to compare with. Only evidence ends that.
    :ivar sha1: SHA-1 that the whole file has to have (decision 0012); None if
        there was none yet
    :ivar proven: whether the digests of the blocks are those of a file with
        this SHA-1
    :ivar stored: the stored checksum that it was last compared with
    :ivar found: the SHA-1 that the last comparison of the whole file gave;
        None when it agreed with both others
    :ivar started: when an unfinished reading began; None when there is none
    :ivar position: the block with which an unfinished reading goes on
    :ivar times: mtime and ctime of the file, in nanoseconds, when an
        unfinished first reading began
    :ivar read: when the last reading from start to end began; None if never
    :ivar verified: likewise, for the last one that had something to compare
        with
    :ivar bad: blocks that were bad when they were read last, in order
    :ivar unreadable: why the last reading was given up; None if it was not
    :ivar attempted: when it was given up
    :ivar rebaselined: when this ledger was begun although something had been
        known before, in seconds since the epoch
    :ivar anew: whether that was as the file was made anew with other bytes,
        and not as all that was known had been lost
    :ivar origin: when the file was compared with its image in the image
        service, and all of it was the same
    """

    key: identity.Key
    size: int
    algorithm: str
    block_size: int
    # And no origin of a resized file (decision 0027).
    image: str | None = None
    form: Form | None = None
    question: bool = False
    differs: bool = False
    unsettled: tuple[Run, ...] = ()
    suspect: bool = False
    sha1: str | None = None
    proven: bool = False
    stored: str | None = None
    found: str | None = None
    started: clocks.Instant | None = None
    position: int = 0
    times: tuple[int, int] | None = None
    read: clocks.Instant | None = None
    verified: clocks.Instant | None = None
    bad: tuple[BadBlocks, ...] = ()
    unreadable: str | None = None
    attempted: clocks.Instant | None = None
    rebaselined: float | None = None
    anew: bool = False
    origin: clocks.Instant | None = None

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

        :returns: what it says of this file, see :meth:`asked_of`
        :raises nova_imagecache.errors.Damaged: there is something else there
        :raises nova_imagecache.errors.Newer: a newer release has written it
        :raises OSError: it cannot be read
        """
        found = _FORMAT.load(file.ledger)
        if found is None:
            return None
        return found._checked().asked_of(file.incarnation.key)

    def _checked(self) -> 'Ledger':
        """Refuse what no ledger of ours says."""
        if self.algorithm not in digests.ALGORITHMS:
            raise errors.Damaged(f'the algorithm {self.algorithm} is unknown')
        most = blockmap.MOST_BLOCKS * self.block_size
        if (
            self.block_size < _LEAST_BLOCK_SIZE
            or self.block_size % _LEAST_BLOCK_SIZE
            or not 0 <= self.size <= most
            or self.block_size > max(_LARGE_BLOCK_SIZE, 2 * self._least_block)
        ):
            raise errors.Damaged('its block size cannot be')
        if self.rebaselined is not None and not (
            0 <= self.rebaselined < _END_OF_TIME
        ):
            raise errors.Damaged('it was rebaselined at no such time')
        # One after the end stands for all that comes there.
        end = self.count + 1
        runs: tuple[Run, ...] = (*self.bad, *self.unsettled)
        if not 0 <= self.position <= end or any(
            run.first < 0 or run.count < 1 or run.first + run.count > end
            for run in runs
        ):
            raise errors.Damaged('it has no such blocks')
        if any(
            run.first + run.count > following.first
            for row in (self.bad, self.unsettled)
            for run, following in itertools.pairwise(row)
        ):
            raise errors.Damaged('its blocks are in no order')
        return self

    @property
    def _least_block(self) -> int:
        return -(-self.size // blockmap.MOST_BLOCKS)

    def asked_of(self, key: identity.Key) -> 'Ledger':
        """Give what it says of the file with a key.

        Of another file than it is of nothing is verified and nothing bad, but
        what is known of the image is a question. Where it cannot be told
        whether it is another one, what was found stays.
        """
        if identity.compare(self.key, key) is not identity.Likeness.ANOTHER:
            return self
        return dataclasses.replace(self._asked(), key=key)

    def _asked(self) -> 'Ledger':
        bad = tuple(run for run in self.bad if run.damage is not _UNREADABLE)
        if self.differs:
            # Nor is it known of these blocks that they are bad.
            bad = tuple(run for run in bad if run.damage is not _CORRUPT)
        unsettled = self.unsettled
        if unsettled:
            # What one block was does not tell that it is the same file.
            unsettled = runs_of({*range(self.count)} - self.corrupt)
        return dataclasses.replace(
            self,
            # Also of a stored checksum, where no digest was sure yet.
            question=True,
            differs=False,
            unsettled=unsettled,
            started=None,
            position=0,
            times=None,
            unreadable=None,
            attempted=None,
            bad=bad,
        )

    @property
    def count(self) -> int:
        """The number of its blocks."""
        return -(-self.size // self.block_size)

    @property
    def damaged(self) -> bool:
        """Whether some of it is known to be bad, and not just doubtful."""
        return any(run.damage is not Damage.DOUBTFUL for run in self.bad)

    @property
    def corrupt(self) -> frozenset[int]:
        """The blocks that are known to be corrupt."""
        return frozenset(
            blocks_in(run for run in self.bad if run.damage is _CORRUPT)
        )

    @property
    def settled(self) -> bool:
        """Whether it is sure that nobody wrote to it while it was learnt."""
        return self.read is not None and not self.unsettled

    @property
    def trust(self) -> Trust | None:
        """How far it is trusted; None where it is yet to be compared."""
        if self.read is None or self.question:
            return None
        if self.suspect or self.differs:
            return Trust.SUSPECT
        return Trust.ORIGIN_VERIFIED if self.origin else Trust.FIRST_SEEN

    def from_the_start(self) -> 'Ledger':
        """Have its next reading begin at the start of the file.

        What one that was interrupted has compared does not count any more.
        """
        return dataclasses.replace(self, started=None, position=0, times=None)

    def load_blocks(self, file: base_file.BaseFile) -> blockmap.Blocks:
        """Read the digests that belong to the ledger.

        :raises nova_imagecache.errors.Damaged: they are not what was written
        :raises nova_imagecache.errors.NotNow: there is another ledger now
        :raises OSError: they cannot be read
        """
        found, payload = _FORMAT.load_whole(file.ledger)
        if found.asked_of(file.incarnation.key) != self:
            raise errors.NotNow('its records have changed meanwhile')
        try:
            return blockmap.Blocks.decode(
                self.algorithm, self.size, self.block_size, payload
            )
        except ValueError as error:
            raise errors.Damaged(str(error)) from None

    def prepared(
        self,
        file: base_file.BaseFile,
        blocks: blockmap.Blocks | None = None,
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Write the ledger, which is yet to be published.

        :param blocks: the digests; without them, none is known
        :returns: publishes it. Whoever calls that holds the file's guard.
        :raises OSError: it was not written, or not published
        """
        payload = b'' if blocks is None else blocks.encode()
        return _FORMAT.prepared(file.layout, file.ledger, self, payload)

    @property
    def bad_ranges(self) -> tuple[BadRange, ...]:
        """The bytes that are bad, in order.

        Where the file goes on past its end, to the end of the block.
        """
        ranges = []
        for run in self.bad:
            start = run.first * self.block_size
            end = start + run.count * self.block_size
            if run.first + run.count == self.count:
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
    return tuple(
        sorted(
            (
                BadBlocks(run.first, run.count, damage)
                for damage in Damage
                for run in runs_of(
                    index for index, each in bad.items() if each is damage
                )
            ),
            key=lambda run: run.first,
        )
    )


def runs_of(blocks: Iterable[int]) -> tuple[Run, ...]:
    """Put blocks in a row together."""
    runs = []
    for _offset, row in itertools.groupby(
        enumerate(sorted(blocks)), lambda item: item[1] - item[0]
    ):
        indices = [index for _number, index in row]
        runs.append(Run(indices[0], len(indices)))
    return tuple(runs)


def blocks_in(runs: Iterable[Run]) -> set[int]:
    """Give each block; the opposite of :func:`runs_of`."""
    return {
        index
        for run in runs
        for index in range(run.first, run.first + run.count)
    }


def outlive(layout: layouts.Layout, name: str) -> None:
    """Note that the file which has a ledger has gone.

    Where there are no birth times, nothing else tells the one that comes next
    from it. The caller holds its lock. Best effort, as what can be seen of a
    file mostly tells.

    :param name: of the base file
    """
    path = layout.ledger(name)
    with contextlib.suppress(errors.Error, OSError):
        ledger, payload = _FORMAT.load_whole(path)
        if not ledger.question:
            _FORMAT.save(layout, path, ledger._asked(), payload)


def is_newer(path: str) -> bool:
    """Whether a newer release has written the ledger at a path.

    As far as that can be read.
    """
    with contextlib.suppress(OSError):
        return not may_go(path)
    return False


def may_go(path: str) -> bool:
    """Whether the ledger at a path is ours to remove.

    :raises OSError: it cannot be read
    """
    try:
        _FORMAT.check_replaceable(path)
    except errors.Newer:
        return False
    return True


def _from_2(body: records.Values) -> records.Values:
    """Know of each block whether it is settled, and what question is open."""
    body = {**body}
    settled, changed = body.pop('settled'), body.pop('changed')
    count = -(-body['size'] // body['block_size'])
    once = not settled and body['read'] is not None and count
    return {
        **body,
        'question': False,
        'differs': False,
        'anew': False,
        'form': None,
        'unsettled': [{'first': 0, 'count': count}] if once else [],
        'suspect': body['suspect'] or changed,
    }


def _from_3(body: records.Values) -> records.Values:
    """Know of no image service; nor have blocks had strong digests."""
    return {**body, 'origin': None}


# Four MiB of digests, and the runs of blocks that are bad.
_FORMAT = records.Format(
    'ledger', 4, Ledger, {2: _from_2, 3: _from_3}, limit=16 * 2**20
)
