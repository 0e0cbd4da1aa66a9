# SPDX-License-Identifier: Apache-2.0

"""What a repair means for each guest on the file: pure functions."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum

from nova_imagecache.heal import outcomes
from nova_imagecache import names
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import qcow2_map

Effect = qcow2_map.Effect


class Fate(enum.StrEnum):
    """What became of a guest.

    READS_GOOD: it reads the good bytes from now on, without a restart

    STILL_DAMAGED: its own disk has a copy of what the file held before

    READS_STALE: wrong bytes stay in the page cache, over a medium that is good

    RESTART: the file is qcow2, and a running QEMU keeps its tables in memory

    UNKNOWN: its disk cannot be looked at, or it has none over this file
    """

    READS_GOOD = 'reads-good'
    STILL_DAMAGED = 'still-damaged'
    READS_STALE = 'reads-stale'
    RESTART = 'restart'
    UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True, slots=True)
class Guest:
    """One guest, with one of its disks.

    :ivar disk: name of the disk; empty where none is known
    :ivar extents: the bytes of the disk to be looked at, first and after the
        last
    """

    guest: str
    disk: str
    fate: Fate
    extents: tuple[tuple[int, int], ...] = ()


def fates(
    users: Iterable[str],
    exposures: Sequence[exposure.Exposure],
    is_qcow2: bool,
    blocks: Sequence[outcomes.Block],
) -> Iterator[Guest]:
    """Say for each guest what became of it.

    :param users: all guests of the file
    :param exposures: how they fared with the bad blocks before, where that
        can be told
    :param is_qcow2: whether the base file is qcow2
    :param blocks: that were repaired
    :returns: two of a disk that both reads stale bytes and has copied some
    """
    good = [block for block in blocks if block.result.is_good]
    ranges = [(block.start, block.end) for block in good]
    stuck = [(block.start, block.end) for block in good if block.stuck]
    if not ranges:
        return
    seen = set()
    for each in exposures:
        seen.add(each.guest)
        copied = _within(each, ranges, Effect.COPIED)
        unknown = _within(each, ranges, Effect.UNKNOWN)
        stale = _within(each, stuck, Effect.READS_THROUGH)
        if stale:
            yield Guest(each.guest, each.disk, Fate.READS_STALE, stale)
            if not copied:
                continue
        fate = Fate.READS_GOOD
        if copied:
            fate = Fate.STILL_DAMAGED
        elif unknown:
            fate = Fate.UNKNOWN
        yield Guest(each.guest, each.disk, fate, copied or unknown)
    for guest in users:
        if guest not in seen:
            yield Guest(guest, '', Fate.RESTART if is_qcow2 else Fate.UNKNOWN)


def _within(
    each: exposure.Exposure,
    ranges: Sequence[tuple[int, int]],
    effect: Effect,
) -> tuple[tuple[int, int], ...]:
    """Give what of a guest's disk is in these ranges, and fares so."""
    return tuple(
        (max(start, extent.start), min(end, extent.end))
        for extent in each.extents
        if extent.effect is effect
        for start, end in ranges
        if extent.start < end and start < extent.end
    )


def sentence(guest: Guest) -> str:
    """Say what there is to do about a guest; nothing where it is well."""
    if guest.fate is Fate.READS_GOOD:
        return ''
    who = names.printable(f'{guest.guest} {guest.disk}'.strip())
    where = ', '.join(f'{start}-{end - 1}' for start, end in guest.extents)
    if guest.fate is Fate.STILL_DAMAGED:
        return (
            f'Guest {who} has copied bytes {where} to its own disk, maybe '
            'while they were bad; the repair does not reach that'
        )
    if guest.fate is Fate.READS_STALE:
        return (
            f'Guest {who} may read wrong bytes {where} from the page cache of '
            'this host, if it reads through that: its cache mode is neither '
            'none nor directsync. Run nova-imagecache repair again; if they '
            'stay, see with fuser -v who has the base file mapped'
        )
    if guest.fate is Fate.RESTART:
        return (
            f'Guest {who} may keep tables of the base file in memory; stop '
            'and start it, so that it reads the good ones'
        )
    at = f' at bytes {where}' if where else ''
    return f'Of guest {who} it cannot be told what it has read{at}'
