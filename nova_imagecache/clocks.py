# SPDX-License-Identifier: Apache-2.0

"""Time, and whether the wall clock can be believed."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
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


@functools.cache
def machine_id() -> str | None:
    """Tell this machine from others, where it can be told.

    Of machine-id(5), which is not to be shown to anybody, a digest.
    """
    try:
        with open('/etc/machine-id', 'rb') as file:
            found = file.read(64).strip()
    except OSError:
        return None
    if len(found) != 32:
        # Not set yet, as in an image.
        return None
    return hashlib.sha256(b'nova_imagecache ' + found).hexdigest()[:16]


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


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step of a wall clock.

    :ivar wall: what it showed when a pass noticed, after the step
    :ivar seconds: by how much it was set; negative, if back
    :ivar boot_id: of the boot in which it was noticed
    """

    wall: float
    seconds: float
    boot_id: str


# Far more than a clock has that is not broken.
_STEPS = 32


def jump(before: Instant, after: Instant) -> float:
    """Say by how many seconds the wall clock was set between two moments.

    Over a reboot only a step back can be told: the machine may have been off
    for any time.

    :returns: 0 where it was not, and negative where it was set back
    """
    elapsed = after.wall - before.wall
    same = elapsed - (after.boottime - before.boottime)
    # Another boot ID alone is no other boot (decision 0077).
    if before.boot_id == after.boot_id or abs(same) <= _TOLERANCE_SECONDS:
        real = after.boottime - before.boottime
        excess = same
    else:
        real = after.boottime
        excess = min(0.0, elapsed - real)
    if abs(excess) <= _TOLERANCE_SECONDS + _TOLERANCE_RATIO * real:
        return 0.0
    return excess


def with_step(steps: Sequence[Step], step: Step) -> tuple[Step, ...]:
    """Add a step to those that were noticed before.

    Where there are too many, the first two become one, which takes nothing
    for older than they do.
    """
    added = (*steps, step)
    if len(added) > _STEPS:
        one, other, *rest = added
        both = max(0.0, one.seconds) + max(0.0, other.seconds)
        added = (dataclasses.replace(other, seconds=both), *rest)
    return added


def certain_age(
    since: float,
    now: float,
    steps: Sequence[Step],
    boot_id: str | None = None,
) -> float:
    """Say how many seconds have passed for certain since a moment.

    A step forward makes all that was before it look older by so much, and no
    step back makes anything look older. At worst it counts from the last step
    that was noticed since then (decision 0077).

    :param since: the moment, by the wall clock
    :param now: by the same one
    :param steps: all of that clock, in order
    :param boot_id: of the boot in which a step has to have been noticed for
        time to be counted from it; None for any
    :returns: negative where the clock has not come there again
    """
    forward = 0.0
    ages = []
    for step in reversed(steps):
        if step.wall < since:
            continue
        if boot_id in (None, step.boot_id):
            ages.append(now - step.wall - forward)
        forward += max(0.0, step.seconds)
    return max([now - since - forward, *ages])


def skew(here: float, there: float) -> float:
    """Say by how many seconds two clocks differ that were read at once.

    :param here: the clock of this host, in seconds since the epoch
    :param there: that of the storage
    :returns: 0 where they agree, and positive where that of the host is ahead
    """
    apart = here - there
    return 0.0 if abs(apart) <= _TOLERANCE_SECONDS else apart


def tell_jump(seconds: float) -> str:
    """Say that the clock was set, and what that means."""
    direction = 'forward' if seconds > 0 else 'back'
    return (
        f'the clock was set {direction} by {abs(seconds):.0f} s since the '
        'last pass, so ages are uncertain by as much: unused files stay the '
        'longer for it, by one minimum age at most'
    )


def tell_skew(seconds: float) -> str:
    """Say how the clocks of host and storage differ, and what that means."""
    direction = 'ahead of' if seconds > 0 else 'behind'
    return (
        f'the clock of this host is {abs(seconds):.0f} s {direction} that of '
        'the storage, so ages are uncertain by as much, and unused files stay '
        'the longer for it; set both to the same time'
    )
