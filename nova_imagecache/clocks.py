# SPDX-License-Identifier: Apache-2.0

"""Time, and whether the wall clock can be believed."""

from collections.abc import Callable
import dataclasses
import functools
import time

# A clock that is only being slewed stays far below both (adjtimex(2) allows
# 500 parts per million).
_TOLERANCE_SECONDS = 60
_TOLERANCE_RATIO = 0.001


@dataclasses.dataclass(frozen=True, slots=True)
class Instant:
    """One moment, on two clocks.

    :ivar wall: seconds since the epoch, as anybody may set it
    :ivar boottime: seconds since boot, which nobody can set
    :ivar boot_id: which boot (random(4))
    """

    wall: float
    boottime: float
    boot_id: str


#: Gives the present moment; tests put another in its place.
Clock = Callable[[], Instant]


@functools.cache
def _boot_id() -> str:
    with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
        return file.read().strip()


def now() -> Instant:
    """Read the clocks of this machine."""
    return Instant(
        wall=time.time(),
        boottime=time.clock_gettime(time.CLOCK_BOOTTIME),
        boot_id=_boot_id(),
    )


def elapsed(before: Instant, after: Instant) -> float:
    """Give the seconds between two moments.

    Over a reboot what comes out may be wrong, and negative (decision 0010).
    """
    if before.boot_id == after.boot_id:
        return after.boottime - before.boottime
    return after.wall - before.wall


def jump(before: Instant, after: Instant) -> str | None:
    """Say how the wall clock was set between two moments, if it was.

    Over a reboot only a step back can be told: the machine may have been off
    for any time.
    """
    elapsed = after.wall - before.wall
    same = elapsed - (after.boottime - before.boottime)
    # Another boot ID alone is no other boot (decision 0034).
    if before.boot_id == after.boot_id or abs(same) <= _TOLERANCE_SECONDS:
        real = after.boottime - before.boottime
        excess = same
    else:
        real = after.boottime
        excess = min(0.0, elapsed - real)
    if abs(excess) <= _TOLERANCE_SECONDS + _TOLERANCE_RATIO * real:
        return None
    direction = 'forward' if excess > 0 else 'back'
    return (
        f'the clock was set {direction} by {abs(excess):.0f} s since the '
        'last pass, so ages cannot be believed'
    )


def skew(here: float, there: float) -> str | None:
    """Say how two clocks differ that were read at the same moment, if so.

    :param here: the clock of this host, in seconds since the epoch
    :param there: that of the storage
    """
    apart = here - there
    if abs(apart) <= _TOLERANCE_SECONDS:
        return None
    direction = 'ahead of' if apart > 0 else 'behind'
    return (
        f'the clock of this host is {abs(apart):.0f} s {direction} that of '
        'the storage, so ages cannot be believed'
    )
