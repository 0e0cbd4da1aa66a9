# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of one base file.

The line of the record is a :class:`Ledger`, and its payload the digests of the
blocks (:class:`~nova_imagecache.integrity.blocks.Blocks`). A pass reads the
line alone, so what it keeps in memory does not grow with the size of images.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import enum
import itertools
from typing import Any

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import records
from nova_imagecache.cache import status
from nova_imagecache import clock as clocks
from nova_imagecache import errors
from nova_imagecache.integrity import blocks as block_maps
from nova_imagecache.integrity import digests

_KIND = 'ledger'
_VERSION = 2

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
    :ivar sha1: SHA-1 that the whole file has to have: what its stored
        checksum said when it was first looked at, or else that of the first
        uninterrupted reading. It never changes; None if there was neither yet.
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

    key: status.Key
    size: int
    algorithm: str
    block_size: int
    image: str | None = None
    settled: bool = False
    suspect: bool = False
    sha1: str | None = None
    proven: bool = False
    stored: str | None = None
    sidecar: status.Key | None = None
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


def begin(
    key: status.Key, size: int, algorithm: str, image: str | None = None
) -> Ledger:
    """Give the ledger of a file of which nothing is known."""
    return Ledger(key, size, algorithm, block_maps.block_size_for(size), image)


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


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _instant(value: Any) -> clocks.Instant | None:
    return None if value is None else clocks.decode_instant(value)


def _count(value: Any, least: int = 0) -> int:
    number = int(value)
    if number < least:
        raise ValueError(value)
    return number


def _times(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    modified, changed = value
    return int(modified), int(changed)


def _bad(value: Any) -> tuple[BadBlocks, ...]:
    return tuple(
        BadBlocks(
            _count(each['first']),
            _count(each['count'], 1),
            Damage(each['damage']),
        )
        for each in value
    )


def _decode(body: records.Body) -> Ledger:
    try:
        ledger = Ledger(
            key=status.decode_key(body['key']),
            size=_count(body['size']),
            algorithm=str(body['algorithm']),
            block_size=_count(body['block_size'], _LEAST_BLOCK_SIZE),
            image=_text(body['image']),
            settled=bool(body['settled']),
            suspect=bool(body['suspect']),
            sha1=_text(body['sha1']),
            proven=bool(body['proven']),
            stored=_text(body['stored']),
            sidecar=None
            if body['sidecar'] is None
            else status.decode_key(body['sidecar']),
            found=_text(body['found']),
            started=_instant(body['started']),
            position=_count(body['position']),
            times=_times(body['times']),
            changed=bool(body['changed']),
            read=_instant(body['read']),
            verified=_instant(body['verified']),
            bad=_bad(body['bad']),
            unreadable=_text(body['unreadable']),
            attempted=_instant(body['attempted']),
            rebaselined=None
            if body['rebaselined'] is None
            else float(body['rebaselined']),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise errors.Damaged('its fields are not those of a ledger') from None
    if ledger.algorithm not in digests.ALGORITHMS:
        raise errors.Damaged(f'the algorithm {ledger.algorithm} is unknown')
    most = block_maps.MOST_BLOCKS * ledger.block_size
    if ledger.block_size % _LEAST_BLOCK_SIZE or ledger.size > most:
        raise errors.Damaged('its block size cannot be')
    return ledger


def load_any(layout: layouts.Layout, name: str) -> Ledger | None:
    """Read the ledger of a file of that name, this one or an earlier one.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    body = records.load(layout.ledger(name), _KIND, _VERSION)
    return None if body is None else _decode(body)


def load(
    layout: layouts.Layout, name: str, incarnation: status.Incarnation
) -> Ledger | None:
    """Read the ledger of this very file.

    :returns: None when there is none, or only that of an earlier file of the
        same name
    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    ledger = load_any(layout, name)
    return ledger if ledger and ledger.key == incarnation.key else None


def load_blocks(
    layout: layouts.Layout, name: str, ledger: Ledger
) -> block_maps.Blocks:
    """Read the digests that belong to a ledger.

    :raises nova_imagecache.errors.Damaged: they are not what was written
    :raises nova_imagecache.errors.NotNow: there is another ledger now
    :raises OSError: they cannot be read
    """
    body, payload = records.load_whole(layout.ledger(name), _KIND, _VERSION)
    if _decode(body) != ledger:
        raise errors.NotNow('its records have changed meanwhile')
    try:
        return block_maps.Blocks.decode(
            ledger.algorithm, ledger.size, ledger.block_size, payload
        )
    except ValueError as error:
        raise errors.Damaged(str(error)) from None


def save(
    layout: layouts.Layout,
    name: str,
    ledger: Ledger,
    blocks: block_maps.Blocks | None = None,
) -> None:
    """Publish a ledger. The caller holds the file's guard.

    :param blocks: the digests; without them, none is known
    :raises OSError: it was not saved
    """
    records.save(
        layout,
        layout.ledger(name),
        _KIND,
        _VERSION,
        dataclasses.asdict(ledger),
        b'' if blocks is None else blocks.encode(),
    )
