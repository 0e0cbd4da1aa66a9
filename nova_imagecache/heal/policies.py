# SPDX-License-Identifier: Apache-2.0

"""What is repaired without a person, and how much: pure functions."""

from collections.abc import Collection
import math

from oslo_utils import units

from nova_imagecache import clocks
from nova_imagecache.content import ledgers

# One bad sector is one block, and one bad track, or a write that was lost, is
# some in a row. Bad blocks in more places than these are a disk that dies.
_MOST_PLACES = 3

# Where most of a file is not what it was, it is the baseline that is wrong.
_MAJORITY = 0.5
_LEAST_OF_MAJORITY = 3

# As check_decay_read_errors in drivers/md/raid1-10.c has it for a disk.
_MOST_BLOCKS = 20
_HALVED_AFTER_SECONDS = 3600
_MOST_SPENT = 2.0**20

_FIRST_WAIT_SECONDS = 600
_LONGEST_WAIT_SECONDS = 24 * 3600

# A file that cannot be healed costs its host and the image service no more
# than this, whole images included.
_MOST_WASTED_PER_SECOND = 256 * units.Ki


# Whether there still is an image is asked with each verification, which is
# once a week by default, and not much more often where those are.
_ASKED_AFTER_SECONDS = 5 * 24 * 3600


def is_to_ask(elapsed: float, chance: float) -> bool:
    """Whether to ask again whether there still is an image.

    :param elapsed: seconds since the image service has told of it
    :param chance: from 0 to 1, so that a fleet does not ask in step
    """
    return elapsed >= _ASKED_AFTER_SECONDS * (0.75 + chance / 2)


def refusal(bad: Collection[int], count: int) -> str | None:
    """Say why the bad blocks of a file are left to a person, if they are.

    :param bad: blocks, by their number
    :param count: blocks of the file that hold data
    """
    way_out = 'look at the disk and the file, and use nova-imagecache repair'
    if len(bad) >= _LEAST_OF_MAJORITY and len(bad) > _MAJORITY * count:
        return (
            f'{len(bad)} of its {count} blocks with data are bad, so what is '
            f'known of it may be what is wrong; {way_out}'
        )
    places = len(ledgers.runs_of(bad))
    if places > _MOST_PLACES:
        return (
            f'its bad blocks lie in {places} places, as on a disk that is '
            f'dying; {way_out}'
        )
    return None


def since(before: clocks.Instant, now: clocks.Instant) -> float:
    """Give the seconds since a moment, or fewer.

    Where the clock was set back over a reboot, those since the boot: nobody
    is to wait for it to come there again.
    """
    elapsed = clocks.elapsed(before, now)
    if elapsed >= 0 or before.boot_id == now.boot_id:
        return max(0.0, elapsed)
    return now.boottime


def spent(
    before: float, noted: clocks.Instant | None, now: clocks.Instant
) -> float:
    """Say how much of the budget of a host is spent.

    It is halved in each hour, so that one that is spent refills slowly.

    :param before: blocks, as it was noted
    :param noted: when that was
    """
    # Whatever a record says, there is an end to it within a day.
    before = min(max(0.0, before), _MOST_SPENT)
    if noted is None:
        return before
    hours = since(noted, now) / _HALVED_AFTER_SECONDS
    return before * math.exp2(-hours)


def left(spent_by_now: float) -> int:
    """Give the number of blocks that may be repaired now."""
    return max(0, math.floor(_MOST_BLOCKS - spent_by_now))


def refills_in(spent_by_now: float) -> float:
    """Say in how many seconds one block may be repaired."""
    if left(spent_by_now):
        return 0.0
    halvings = math.log2(spent_by_now / (_MOST_BLOCKS - 1))
    return halvings * _HALVED_AFTER_SECONDS


def is_over(before: clocks.Instant, wait: float, now: clocks.Instant) -> bool:
    """Whether a wait that was begun before is over.

    :param wait: as it was noted; none is longer than those that we note
    """
    return since(before, now) >= min(1.5 * _LONGEST_WAIT_SECONDS, wait)


def wait(tries: int, chance: float, fetched: int = 0) -> float:
    """Say how many seconds to wait after so many tries that came to nothing.

    :param tries: 1 or more
    :param chance: from 0 to 1, so that a fleet does not ask in step
    :param fetched: bytes that came over a network for nothing in the last one
    """
    # No more of them than can matter, however many tries there were.
    most = _LONGEST_WAIT_SECONDS.bit_length()
    doublings = min(max(tries, 1) - 1, most)
    doubled = max(
        _FIRST_WAIT_SECONDS << doublings, fetched / _MOST_WASTED_PER_SECOND
    )
    return min(doubled, _LONGEST_WAIT_SECONDS) * (0.5 + chance)
