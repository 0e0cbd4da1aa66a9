# SPDX-License-Identifier: Apache-2.0

"""Damage that was found, and what became of it: remembered for later.

Who had bad bytes in front of it stays listed after the file is good again, as
a guest that has copied them is not healed with it.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import enum
from typing import NamedTuple

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.content import knowledge
from nova_imagecache import errors

# Of those that are over, and of what is kept of one.
_MOST = 100
_KEPT_SECONDS = 400 * 86400
_MOST_RANGES = 64
_MOST_GUESTS = 256

_PATIENCE_SECONDS = 1

# The worst first.
_VERDICTS = (
    str(knowledge.Verdict.CORRUPT),
    str(knowledge.Verdict.UNREADABLE),
    str(knowledge.Verdict.DIFFERS),
)

#: Of a file: the first and the last byte but one.
Ranges = tuple[tuple[int, int], ...]


class Outcome(enum.StrEnum):
    """What became of a damaged file.

    HEALED: its bytes were put right.
    REPLACED: another file has its name.
    GONE: there is no file of its name any more.
    GOOD: a reading found it good, the same file, and nobody said why.
    GOOD_OR_REPLACED: a reading found it good, and it cannot be told whether
        it is the same file.
    """

    HEALED = 'healed'
    REPLACED = 'replaced'
    GONE = 'gone'
    GOOD = 'good'
    GOOD_OR_REPLACED = 'good-or-replaced'


@dataclasses.dataclass(frozen=True)
class Incident:
    """One base file, damaged for some time.

    :ivar number: what people call it; never used again
    :ivar name: of the base file
    :ivar verdict: the worst that it was
    :ivar image: ID of its image, where it is known
    :ivar found: seconds since the epoch
    :ivar last_good: likewise, when it was last compared and was good; None
        where that is not known
    :ivar ranges: bytes that were bad at any time, the first 64 ranges
    :ivar guests: UUIDs of those that read it meanwhile, the first 256
    :ivar copied_up: those of them that have copied bad bytes to their own
        disks; a repair does not reach these
    :ivar ended: seconds since the epoch; None while it lasts
    :ivar image_name: what people call the image, where it is known
    :ivar key: which incarnation of the file it is about, where that is known
    """

    number: int
    name: str
    verdict: str
    image: str | None
    found: float
    last_good: float | None = None
    ranges: Ranges = ()
    guests: tuple[str, ...] = ()
    copied_up: tuple[str, ...] = ()
    ended: float | None = None
    outcome: Outcome | None = None
    image_name: str | None = None
    key: identity.Key | None = None


@dataclasses.dataclass(frozen=True)
class Incidents:
    """All of them, the oldest first.

    :ivar last: the highest number that was given
    """

    last: int = 0
    incidents: tuple[Incident, ...] = ()

    def open(self, name: str) -> Incident | None:
        """Give the one that lasts, of a file."""
        for each in reversed(self.incidents):
            if each.name == name and each.ended is None:
                return each
        return None


class Sight(NamedTuple):
    """What is seen of a damaged file now; as :class:`Incident`."""

    verdict: str
    image: str | None = None
    last_good: float | None = None
    ranges: Ranges = ()
    guests: tuple[str, ...] = ()
    copied_up: tuple[str, ...] = ()
    image_name: str | None = None
    key: identity.Key | None = None


class Good(NamedTuple):
    """What is seen of a file that was read and is good.

    :ivar key: which incarnation it is, where that is known
    :ivar changed: when its inode was changed last, in seconds since the epoch
    """

    key: identity.Key | None = None
    changed: float | None = None

    @classmethod
    def of(cls, known: knowledge.Knowledge) -> 'Good':
        """Take it from what is known of a file.

        As it is seen here and now: what a ledger has of its identity may be
        of an earlier file, where nobody could tell it from this one.
        """
        if known.stat is None:
            return cls()
        return cls(known.stat.incarnation.key, known.stat.changed / 10**9)


def _from_1(body: records.Values) -> records.Values:
    """Remember what images are called, and which file it was."""
    more = {'image_name': None, 'key': None}
    return {
        **body,
        'incidents': [{**each, **more} for each in body['incidents']],
    }


def _from_2(body: records.Values) -> records.Values:
    """Know one outcome more."""
    return body


_FORMAT = records.Format(
    'incidents', 3, Incidents, {1: _from_1, 2: _from_2}, limit=2**22
)


def _joined(
    old: Iterable[str], new: Iterable[str], most: int = _MOST_GUESTS
) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*old, *new)))[:most]


def _worse(one: str, other: str) -> str:
    """Give the worse of two verdicts."""
    known = [each for each in _VERDICTS if each in (one, other)]
    return known[0] if known else one


def _grown(old: Incident, seen: Sight) -> Incident:
    ranges = {*old.ranges, *seen.ranges}
    last_good = seen.last_good if old.last_good is None else old.last_good
    return dataclasses.replace(
        old,
        verdict=_worse(old.verdict, seen.verdict),
        image=seen.image or old.image,
        image_name=seen.image_name or old.image_name,
        last_good=last_good,
        # The one that is bad now; what was before it may have gone.
        key=seen.key or old.key,
        ranges=tuple(sorted(ranges))[:_MOST_RANGES],
        guests=_joined(old.guests, seen.guests),
        copied_up=_joined(old.copied_up, seen.copied_up),
    )


def _bounded(
    incidents: Iterable[Incident], now: float
) -> tuple[Incident, ...]:
    """Forget what is over and old; what lasts is kept."""
    kept = [
        each
        for each in incidents
        if each.ended is None or now - each.ended < _KEPT_SECONDS
    ]
    over = [each for each in kept if each.ended is not None]
    dropped = {each.number for each in over[: max(0, len(over) - _MOST)]}
    return tuple(each for each in kept if each.number not in dropped)


def updated(
    known: Incidents,
    damaged: Mapping[str, Sight],
    good: Mapping[str, Good],
    present: Collection[str] | None,
    now: float,
) -> Incidents:
    """Open incidents and end them, by what is seen now: a pure function.

    :param damaged: the files that are damaged, by name
    :param good: those that were read and found good
    :param present: all that are in the cache; None where that was not looked
        at
    """
    found = []
    for each in known.incidents:
        if each.ended is not None:
            found.append(each)
        elif each.name in damaged:
            found.append(_grown(each, damaged[each.name]))
        elif each.name in good:
            found.append(_ended(each, _good(each, good[each.name]), now))
        elif present is not None and each.name not in present:
            found.append(_ended(each, Outcome.GONE, now))
        else:
            # It is there, and nobody has read it yet.
            found.append(each)
    last = known.last
    # Whoever sees them only now may have looked before they were healed.
    ended = {
        each.name
        for each in found
        if each.ended is not None and each.ended > now
    }
    for name, seen in damaged.items():
        if known.open(name) is None and name not in ended:
            last += 1
            new = Incident(
                last,
                name,
                seen.verdict,
                seen.image,
                now,
            )
            found.append(_grown(new, seen))
    return Incidents(last, _bounded(found, now))


def _good(incident: Incident, good: Good) -> Outcome:
    """Say whether a file that is good is the one that was bad."""
    old, new = incident.key, good.key
    likeness = identity.Likeness.UNSURE
    if old is not None and new is not None:
        likeness = identity.compare(old, new)
    if likeness is identity.Likeness.SAME:
        return Outcome.GOOD
    if likeness is identity.Likeness.ANOTHER:
        return Outcome.REPLACED
    if good.changed is None:
        return Outcome.GOOD_OR_REPLACED
    # A mount may give all files other numbers, but changes none of them; and
    # the next file may get the number of one that went.
    if good.changed <= incident.found:
        return Outcome.GOOD
    another = old is not None and new is not None and old[0] != new[0]
    return Outcome.REPLACED if another else Outcome.GOOD_OR_REPLACED


def _ended(incident: Incident, outcome: Outcome, now: float) -> Incident:
    return dataclasses.replace(incident, ended=now, outcome=outcome)


def load(layout: layouts.Layout) -> Incidents:
    """Read what is remembered.

    :raises nova_imagecache.errors.Error: it is damaged, or a newer release's
    :raises OSError: it cannot be read
    """
    return _FORMAT.load(layout.incidents) or Incidents()


def _known(layout: layouts.Layout) -> Incidents:
    """Read what is remembered; a damaged record is set aside."""
    try:
        return load(layout)
    except errors.Damaged as error:
        records.set_aside(layout.incidents, error)
        return Incidents()


def note(
    layout: layouts.Layout,
    damaged: Mapping[str, Sight],
    good: Mapping[str, Good],
    present: Collection[str] | None,
    now: float,
) -> None:
    """Remember what is seen now; nothing is written where it is no news.

    :raises nova_imagecache.errors.Error: it is a newer release's, or its lock
        cannot be had
    :raises OSError: it cannot be read or written
    """
    known = _known(layout)
    if updated(known, damaged, good, present, now) == known:
        return
    with locks.manager_lock(layout, 'incidents', _PATIENCE_SECONDS):
        known = _known(layout)
        _FORMAT.save(
            layout,
            layout.incidents,
            updated(known, damaged, good, present, now),
        )


def healed(
    layout: layouts.Layout,
    name: str,
    ranges: Ranges,
    copied_up: Collection[str],
    now: float,
    outcome: Outcome = Outcome.HEALED,
) -> None:
    """Note that a damaged file was put right, before anybody reads it again.

    Where no incident of it was noted yet, it is one that is over.

    :param ranges: bytes that were written
    :param copied_up: UUIDs of the guests that the repair does not reach
    :raises nova_imagecache.errors.Error: as :func:`note`
    :raises OSError: as :func:`note`
    """
    with locks.manager_lock(layout, 'incidents', _PATIENCE_SECONDS):
        known = _known(layout)
        seen = Sight('corrupt', ranges=ranges, copied_up=tuple(copied_up))
        if known.open(name) is None:
            known = updated(known, {name: seen}, {}, None, now)
        found = tuple(
            _ended(_grown(each, seen), outcome, now)
            if each.name == name and each.ended is None
            else each
            for each in known.incidents
        )
        _FORMAT.save(
            layout,
            layout.incidents,
            dataclasses.replace(known, incidents=found),
        )
