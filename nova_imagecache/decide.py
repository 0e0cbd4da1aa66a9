# SPDX-License-Identifier: Apache-2.0

"""What to do with each file in the cache: a pure function.

No clock, no I/O, no CONF in here: it is what ``--dry-run`` prints.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum

from nova_imagecache.cache import scan
from nova_imagecache.cache import state as states
from nova_imagecache import clock as clocks
from nova_imagecache import conf
from nova_imagecache.integrity import schedule
from nova_imagecache import names
from nova_imagecache.witnesses import testimony as testimonies

#: Seconds for which every unused file is kept, whatever the options say.
#: Nova touches a base file and makes the overlay a moment later, and it holds
#: no lock in between (``Qcow2.create_image`` in
#: nova/virt/libvirt/imagebackend.py).
FLOOR_SECONDS = 600


class Action(enum.StrEnum):
    """What happens to a file."""

    KEEP = 'keep'
    REMOVE = 'remove'
    LEAVE = 'leave'


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do with one file, and why.

    :ivar users: who uses it, sorted
    :ivar used: whether anybody does, be it somebody who cannot be named
    :ivar image: the image it was made from, where it is known
    :ivar age: seconds since it was last used
    :ivar verify: whether it may be read and compared with what is known of
        it. Where a process of its own does that, it comes to it in its time.
    """

    file: scan.CachedFile
    action: Action
    reason: str
    users: tuple[str, ...] = ()
    used: bool = False
    image: str | None = None
    age: float = 0.0
    verify: bool = False


def minimum_age(kind: names.Kind, settings: conf.Settings) -> int:
    """Say for how many seconds an unused file of a kind is kept."""
    configured = settings.original_minimum_age
    if kind in (names.Kind.RESIZED, names.Kind.LEGACY):
        configured = settings.resized_minimum_age
    return max(configured, FLOOR_SECONDS)


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 's')


def _fate(
    file: scan.CachedFile,
    users: Sequence[str],
    held: bool,
    settings: conf.Settings,
    age: float,
    vetoes: Sequence[str],
) -> tuple[Action, str]:
    if not file.status.regular:
        return Action.LEAVE, 'not a regular file'
    if file.kind is names.Kind.OTHER:
        return Action.LEAVE, 'not a name that the image cache uses'
    if users:
        return Action.KEEP, f'used by {_plural(len(users), "guest")}'
    if held:
        return Action.KEEP, 'a running QEMU has it open'
    unused = 'left behind' if file.kind is names.Kind.LEFTOVER else 'unused'
    least = minimum_age(file.kind, settings)
    if not settings.remove_unused:
        return Action.KEEP, f'{unused}; removal is off'
    if age < least:
        return Action.KEEP, f'{unused} for {int(age)} s of {least} s'
    if vetoes:
        more = f' (and {len(vetoes) - 1} more)' if len(vetoes) > 1 else ''
        return Action.KEEP, (
            f'{unused}, but nothing is removed now: {vetoes[0]}{more}'
        )
    return Action.REMOVE, f'{unused} for {int(age)} s, more than {least} s'


def settled(file: scan.CachedFile, sighting: states.Sighting | None) -> bool:
    """Whether a file that is not locked is complete.

    Nova copies resized files without a lock, so one that no pass has seen
    before may still be growing.
    """
    unlocked = file.kind in (names.Kind.RESIZED, names.Kind.LEGACY)
    return sighting is not None or not unlocked


def decide(
    files: Sequence[scan.CachedFile],
    testimony: testimonies.Testimony,
    state: states.State,
    entries: Mapping[str, schedule.Entry],
    settings: conf.Settings,
    now: clocks.Instant,
    vetoes: Sequence[str] = (),
) -> list[Decision]:
    """Decide on each file.

    :param testimony: what all witnesses say together
    :param state: what earlier passes remember
    :param entries: what is known of the content of files, by name; a file
        that is not in it is not verified
    :param vetoes: reasons to remove nothing, beside witnesses that failed
    """
    vetoes = [*vetoes, *testimony.failures]
    decisions = []
    for file in files:
        users = sorted(testimony.users.get(file.name, ()))
        sighting = state.sighting(file)
        age = now.wall - states.last_use(file, sighting, now.wall)
        held = file.name in testimony.held
        action, reason = _fate(file, users, held, settings, age, vetoes)
        decisions.append(
            Decision(
                file=file,
                action=action,
                reason=reason,
                users=tuple(users),
                used=bool(users) or held,
                image=testimony.images.get(file.name),
                age=age,
                verify=action is not Action.REMOVE
                and file.name in entries
                and schedule.due_in(
                    entries[file.name], settings.checksum_interval, now
                ).due
                <= 0,
            )
        )
    return decisions
