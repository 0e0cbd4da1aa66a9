# SPDX-License-Identifier: Apache-2.0

"""What is remembered of one incarnation of a file: pure functions."""

from collections.abc import Collection
import dataclasses

import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache import clocks


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """What was found to be wrong with a file.

    :ivar verdict: in a word
    :ivar read: when that was found, in seconds since the epoch
    :ivar beside: when the reading was that the ledger tells of, where the
        ledger could not be written: it counts for as long as that one is there
    """

    verdict: str
    read: float
    beside: float | None = None


# Decision 0100.
class Sighting(msgspec.Struct, frozen=True):
    """What is remembered of one incarnation of a file.

    :ivar last_used: when a pass last saw a user of it, or a touch whose time
        was in the future, in seconds since the epoch; None if never
    :ivar modified: its mtime in nanoseconds, as the last pass saw it
    :ivar seen: when it was first seen
    :ivar image: the image it was made from, where a host has said so
    :ivar digested: whether it had a ledger once: if it has none now, that
        was lost
    :ivar suspect: whether its ledger said that it may have been damaged
        without a trace
    :ivar rebaselined: when all that was known of its content had been lost,
        in seconds since the epoch
    :ivar damage: what was wrong with it when it was read last, if anything;
        it counts where its ledger is lost, or could not be written
    :ivar trashed: when it was first seen in the trash, if it is there
    :ivar ahead: whether its mtime was in the future then
    """

    key: identity.Key
    last_used: float | None
    modified: int
    # Not in a ledger, which comes later (decision 0009).
    seen: clocks.Instant
    image: str | None
    digested: bool
    suspect: bool
    rebaselined: float | None
    damage: Damage | None
    trashed: clocks.Instant | None
    ahead: bool


@dataclasses.dataclass(frozen=True)
class History:
    """What a ledger says that is not to be forgotten when it is lost.

    As in :class:`Sighting`, which says what each means.

    :ivar digested: whether there is such a ledger; without, this is what could
        not be written
    """

    suspect: bool = False
    rebaselined: float | None = None
    damage: Damage | None = None
    digested: bool = True


def remembers(sighting: Sighting | None, history: History) -> bool:
    """Whether a sighting has all that is not to be forgotten."""
    return sighting is not None and history == History(
        sighting.suspect,
        sighting.rebaselined,
        sighting.damage,
        sighting.digested and history.digested,
    )


def is_of(sighting: Sighting, key: identity.Key) -> bool:
    """Whether a sighting is of the file with a key, as far as can be told.

    Not where its inode is another one: what is fetched anew while the old one
    is in the trash has nothing to do with that.
    """
    return sighting.key == key or (
        sighting.key[0] == key[0]
        and identity.compare(sighting.key, key)
        is not identity.Likeness.ANOTHER
    )


def _known_ahead(file: base_file.BaseFile, sighting: Sighting | None) -> bool:
    """Whether a pass has counted an mtime in the future as a use already."""
    return bool(
        sighting and sighting.ahead and sighting.modified == file.stat.modified
    )


def uses(
    file: base_file.BaseFile, sighting: Sighting | None, now: float
) -> tuple[float, float]:
    """Say when a file was last used, by its mtime and by memory.

    :returns: in seconds since the epoch; 0 for what says nothing
    """
    modified = file.stat.modified / 10**9
    remembered = sighting.last_used if sighting else None
    if modified > now:
        # Decision 0056.
        modified = 0.0 if _known_ahead(file, sighting) else now
    if remembered is None or remembered > now:
        # The clock has been set back since; start counting again.
        remembered = 0.0 if remembered is None else now
    return modified, remembered


def last_use(
    file: base_file.BaseFile, sighting: Sighting | None, now: float
) -> float:
    """Say when a file was last used, as far as it is known.

    The later one of mtime and memory.
    """
    return max(uses(file, sighting, now))


def birth(file: base_file.BaseFile, now: float) -> float:
    """Say when a file was made.

    One in the future is of a clock that was wrong, and says nothing: what is
    made is seen later, and that counts too.

    :returns: in seconds since the epoch; 0 where that is not known
    """
    born = file.incarnation.born
    return 0.0 if born is None or born / 10**9 > now else born / 10**9


def outlived(
    file: base_file.BaseFile,
    sighting: Sighting | None,
    other_boots: Collection[str],
    now: clocks.Instant,
) -> bool:
    """Whether a file has been through a reboot of the host that made it.

    What was not on the disk by then is lost, and nothing tells. The sighting
    knows the boot, where the birth time of the file may be of a clock that
    was wrong, or unknown. On shared storage any host may have made it.

    :param other_boots: those in which the other hosts were seen last
    """
    seen = sighting.seen if sighting else now
    born = file.incarnation.born
    if born is not None and born / 10**9 < seen.wall - seen.boottime:
        return True
    return seen.boot_id not in {*other_boots, now.boot_id}


def updated(
    file: base_file.BaseFile,
    old: Sighting | None,
    instant: clocks.Instant,
    used: bool = False,
    image: str | None = None,
    history: History | None = None,
) -> Sighting:
    """Give what is to be remembered of a file now.

    :param old: what was remembered
    :param used: whether it is in use at this moment
    """
    now = instant.wall
    in_future = file.stat.modified / 10**9 > now
    if used or (in_future and not _known_ahead(file, old)):
        last_used: float | None = now
    elif old and old.last_used is not None:
        last_used = min(old.last_used, now)
    else:
        last_used = None
    said = history or old or History()
    return Sighting(
        key=(
            identity.merged(old.key, file.incarnation.key)
            if old
            else file.incarnation.key
        ),
        last_used=last_used,
        modified=file.stat.modified,
        seen=_seen_since(old, instant),
        image=image or (old.image if old else None),
        digested=bool(
            (history and history.digested) or (old and old.digested)
        ),
        suspect=said.suspect,
        rebaselined=said.rebaselined,
        damage=said.damage,
        trashed=_trashed_since(old, instant) if file.trashed else None,
        ahead=in_future,
    )


def with_times_of(old: Sighting | None, new: Sighting) -> Sighting:
    """Give a sighting by a clock that is wrong the times of an earlier one.

    Since when a file is in the trash is in its name, if nowhere else.
    """
    if old is None:
        return msgspec.structs.replace(new, trashed=None)
    return msgspec.structs.replace(
        new,
        seen=old.seen,
        trashed=new.trashed and old.trashed,
        last_used=max(
            filter(None, (old.last_used, new.last_used)), default=None
        ),
    )


def _seen_since(
    old: Sighting | None, instant: clocks.Instant
) -> clocks.Instant:
    if old is None:
        return instant
    if clocks.elapsed(old.seen, instant) >= 0:
        return old.seen
    # Of a clock that was wrong, it would keep the file until that time comes
    # again. Which boot it was still counts, see outlived.
    return dataclasses.replace(instant, boot_id=old.seen.boot_id)


def _trashed_since(
    old: Sighting | None, instant: clocks.Instant
) -> clocks.Instant:
    since = old.trashed if old else None
    # Over a reboot the clock may have been set back.
    if since is None or clocks.elapsed(since, instant) < 0:
        return instant
    return since
