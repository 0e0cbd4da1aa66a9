# SPDX-License-Identifier: Apache-2.0

"""What is to be read, when, in which order, and how fast: pure functions.

::

    read        due          deadline
     |-interval--|-spread-|----|
                 <------------> time to read it in

A file is due once in an interval, plus a spread that differs from file to
file and from host to host, so that a fleet does not read in step. It is to be
read within a tenth of the interval from then on.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import datetime
import hashlib
from typing import NamedTuple

from oslo_utils import units

from nova_imagecache.cache import base_file
from nova_imagecache.cache import sightings
from nova_imagecache import clocks
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import names

# Parts of the interval over which files become due, and in which they are
# then read.
_SPREAD = 0.1
_GRACE = 0.1

# A first reading is not put off for long: until then nothing is known.
_FIRST_SPREAD_SECONDS = 3600
_FIRST_GRACE_SECONDS = 3600

# After which a file that could not be read, or not all of it, is tried again
# at the latest.
_RETRY_SECONDS = 24 * 3600

_UNREADABLE = ledgers.Damage.UNREADABLE

# In which what is overdue is made up for, however busy the disk is.
_MAKE_UP_SECONDS = 3600

#: Bytes per second below which reading a large file takes so long that a
#: restart interrupts it each time.
LEAST_RATE = 1024 * 1024


class Entry(NamedTuple):
    """What the schedule needs to know of one file.

    :ivar size: bytes that it takes on the disk, as holes are not read
    :ivar seen: when it was first seen; None if it is seen for the first time
    """

    name: str
    size: int
    known: knowledge.Knowledge
    seen: clocks.Instant | None


class Item(NamedTuple):
    """One file in the queue.

    :ivar due: seconds until it is to be read, negative if it is due already
    :ivar deadline: seconds until it is to have been read
    :ivar age: seconds since it was last verified, or None if never
    :ivar waits: seconds since it was last read to its end, or first seen
    :ivar sparse: whether its holes dwarf its data
    """

    name: str
    size: int
    due: float
    deadline: float
    age: float | None
    waits: float = 0
    sparse: bool = False


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How much of a cache is verified.

    :ivar files: base files
    :ivar size: bytes that they take on the disk
    :ivar digested: bytes of files whose blocks have digests
    :ivar verified: bytes of files that were verified within the interval,
        or whose next verification is not overdue yet; with an interval of 0,
        of those that were ever verified
    :ivar oldest: seconds since the oldest verification; None if there is none
    :ivar overdue: files that should have been read long since, whatever has
        kept them from it; none where there is no interval
    :ivar overdue_size: bytes of these
    :ivar overdue_since: seconds for which the first of them waits
    :ivar overdue_name: and its name
    :ivar queue: files that are due
    :ivar queue_size: bytes of these
    :ivar next_name: the file that is due next, if none is now
    :ivar next_due: and in how many seconds
    :ivar needed: bytes per second that it takes to read everything once in
        an interval
    :ivar limit: bytes per second that are allowed, 0 for no limit
    """

    files: int = 0
    size: int = 0
    digested: int = 0
    verified: int = 0
    oldest: float | None = None
    overdue: int = 0
    overdue_size: int = 0
    overdue_since: float = 0
    overdue_name: str = ''
    queue: int = 0
    queue_size: int = 0
    next_name: str = ''
    next_due: float = 0
    needed: float = 0
    limit: float = 0

    @property
    def sufficient(self) -> bool:
        """Whether the limit lets everything be read once in an interval."""
        return not self.limit or self.needed <= self.limit


def _lot(*parts: object) -> float:
    """Draw a number from 0 to 1, the same each time for the same parts."""
    drawn = hashlib.sha256('\0'.join(map(str, parts)).encode()).digest()
    return int.from_bytes(drawn[:8]) / 2**64


def _unfinished(known: knowledge.Knowledge) -> bool:
    """Whether a reading is to be gone on with, or made good, at once."""
    ledger = known.ledger
    if ledger is None or ledger.read is None:
        return False
    # One that keeps changing is not read without a pause.
    return ledger.started is not None or not (
        ledger.settled or ledger.suspect or _has_unread(ledger)
    )


def _has_unread(ledger: ledgers.Ledger) -> bool:
    return any(run.damage is _UNREADABLE for run in ledger.bad)


def _retry(
    known: knowledge.Knowledge, interval: float, now: clocks.Instant
) -> float | None:
    """Say in how many seconds a file is read again that was not all read.

    Or that has a checksum with which it could not be compared.
    """
    ledger = known.ledger
    if ledger is None:
        return None
    last = ledger.read
    if ledger.unreadable is not None:
        last = ledger.attempted
    elif (
        known.stored in (None, ledger.stored)
        and ledger.settled
        and not _has_unread(ledger)
    ):
        return None
    if last is None:
        return None
    since = clocks.elapsed(last, now)
    return min(interval, _RETRY_SECONDS) - since if since >= 0 else 0.0


def due_in(
    entry: Entry, interval: float, now: clocks.Instant, host: str | None = None
) -> Item:
    """Say when a file is to be read.

    :param interval: seconds between two verifications
    :param host: spreads files; None to have each due as soon as it may be
    """
    ledger = entry.known.ledger
    lot = 0.0
    # Also where that was the first reading (decision 0007).
    last = ledger.read if ledger else None
    verified = ledger.verified if ledger else None
    if entry.known.question:
        # That was of another file.
        last = verified = None
    if host is not None:
        last_wall = last.wall if last else None
        lot = _lot(host, entry.name, last_wall)
    age = None
    if verified:
        age = max(0.0, clocks.elapsed(verified, now))
    retry = _retry(entry.known, interval, now)
    if _unfinished(entry.known) and ledger and ledger.unreadable is None:
        retry = None
    if entry.known.newer:
        # That release reads it; what we read could not be kept.
        return Item(entry.name, entry.size, interval or 1.0, interval, None)
    if retry is not None:
        due, grace = retry, _GRACE * interval
    elif last is None:
        since = clocks.elapsed(entry.seen, now) if entry.seen else 0.0
        spread = lot * min(_SPREAD * interval, _FIRST_SPREAD_SECONDS)
        # A reading that was begun goes on, whatever the clock says.
        begun = ledger is not None and ledger.started is not None
        due = 0.0 if begun or since < 0 else spread - since
        grace = float(_FIRST_GRACE_SECONDS)
    else:
        since = clocks.elapsed(last, now)
        grace = _GRACE * interval
        if _unfinished(entry.known):
            due = 0.0
        elif since < 0:
            # Noted before a clock was set back: no reason to wait for years,
            # and none to hurry, as that goes for the whole cache.
            due, grace = 0.0, interval
        else:
            # Never before the interval has passed (decision 0008).
            due = interval * (1 + lot * _SPREAD) - since
    began = last or entry.seen
    waits = clocks.elapsed(began, now) if began else 0.0
    sparse = entry.known.sparse
    return Item(entry.name, entry.size, due, due + grace, age, waits, sparse)


def complete(
    file: base_file.BaseFile, sighting: sightings.Sighting | None
) -> bool:
    """Whether a file that is not locked is complete.

    Nova copies resized files without a lock, so one that no pass has seen
    before may still be growing.
    """
    unlocked = file.kind in (names.Kind.RESIZED, names.Kind.LEGACY)
    return sighting is not None or not unlocked


def queue(items: Iterable[Item], last: str | None = None) -> list[Item]:
    """Give what is due: never verified first, then oldest verified first.

    What is too sparse comes after all others, as its holes take time that its
    size does not tell.

    :param last: the name of a file that keeps no other one waiting
    """
    return sorted(
        (item for item in items if item.due <= 0),
        key=lambda item: (
            item.name == last,
            item.sparse,
            item.age is not None,
            -(item.age or 0.0),
            item.due,
            item.name,
        ),
    )


def rate(due: Sequence[Item], limit: float, elapsed: float = 0) -> float:
    """Say how fast to read what is due, in bytes per second.

    What is due divided by the time left, for whatever deadline comes out
    worst; at least :data:`LEAST_RATE`, at most the limit.

    :param limit: bytes per second; 0 for no limit, and then there is none
    :param elapsed: seconds since the deadlines were reckoned
    """
    if not limit:
        return 0
    needed = float(LEAST_RATE)
    size = 0
    for item in sorted(due, key=lambda item: item.deadline):
        size += item.size
        left = item.deadline - elapsed
        if left <= 0:
            return limit
        needed = max(needed, size / left)
    return min(needed, limit)


def needed(due: Sequence[Item], limit: float, elapsed: float = 0) -> float:
    """Say how fast what is due is read, whoever else uses the disk.

    As :func:`rate`, but what is overdue takes an hour more: to be late is no
    reason to take all of a disk at once.

    :returns: bytes per second, 0 where there is no limit
    """
    found = 0.0
    size = 0
    for item in sorted(due, key=lambda item: item.deadline):
        size += item.size
        left = max(item.deadline - elapsed, _MAKE_UP_SECONDS)
        found = max(found, size / left)
    return min(found, limit)


def _is_late(item: Item, interval: float) -> bool:
    """Whether a file is overdue by what really happened.

    Not by any rate or deadline: a scrub may hang, or there may be none.
    """
    return bool(interval) and item.waits > (1 + _SPREAD + _GRACE) * interval


def overdue(coverage: Coverage, now: clocks.Instant) -> str | None:
    """Say that verification is overdue, if it is."""
    if not coverage.overdue:
        return None
    since = datetime.datetime.fromtimestamp(
        max(0.0, now.wall - coverage.overdue_since), datetime.UTC
    ).isoformat(' ', 'minutes')
    count = coverage.overdue
    files = 'file' if count == 1 else 'files'
    return (
        f'verification is overdue: {count} {files}, '
        f'{coverage.overdue_size / units.Mi:.1f} MiB, of which '
        f'{names.printable(coverage.overdue_name)} has waited since {since}; '
        'see what the scrub does in nova-imagecache status'
    )


def coverage(
    entries: Sequence[Entry],
    interval: float,
    limit: float,
    now: clocks.Instant,
    host: str | None = None,
) -> Coverage:
    """Say how much of a cache is verified, and what is to be read."""
    items = [due_in(entry, interval, now, host) for entry in entries]
    ages = [item.age for item in items if item.age is not None]
    due = queue(items)
    late = [item for item in items if _is_late(item, interval)]
    size = sum(item.size for item in items)
    first = max(late, key=lambda item: item.waits, default=None)
    following = min(items, key=lambda item: item.due, default=None)
    return Coverage(
        files=len(items),
        size=size,
        digested=sum(
            entry.size
            for entry in entries
            if entry.known.ledger and entry.known.ledger.read
        ),
        verified=sum(
            item.size
            for item in items
            if item.age is not None
            # Until it is overdue (decision 0008).
            and (not interval or item.age <= interval or item.deadline > 0)
        ),
        oldest=max(ages, default=None),
        overdue=len(late),
        overdue_size=sum(item.size for item in late),
        overdue_since=first.waits if first else 0,
        overdue_name=first.name if first else '',
        queue=len(due),
        queue_size=sum(item.size for item in due),
        next_name=following.name if following and not due else '',
        next_due=following.due if following and not due else 0,
        needed=size / interval if interval else 0.0,
        limit=limit,
    )
