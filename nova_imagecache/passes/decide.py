# SPDX-License-Identifier: Apache-2.0

"""What to do with each file in the cache: a pure function.

No clock, no I/O, no CONF in here: it is what ``--dry-run`` prints.

A file goes only if no reason keeps it, and the first one that applies is told
(decision 0066).
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import enum
import functools
from typing import NamedTuple

import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import sightings
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache import names
from nova_imagecache.passes import observed
from nova_imagecache.passes import pressure
from nova_imagecache.scrub import schedule

#: Seconds for which every unused file is kept, whatever the options say
#: (decision 0003): for ``Qcow2.create_image`` in
#: nova/virt/libvirt/imagebackend.py, and its like.
FLOOR_SECONDS = 600

# For how long bad files stay in the trash at least (decision 0090).
_INSPECTED_SECONDS = 7 * 24 * 3600


def is_adrift(skew: float) -> bool:
    """Whether a clock would have others take what is new for old."""
    return abs(skew) > FLOOR_SECONDS


class Action(enum.StrEnum):
    """What happens to a file."""

    KEEP = 'keep'
    REMOVE = 'remove'
    LEAVE = 'leave'
    PUT_BACK = 'put back'
    DELETE = 'delete'


# Decision 0100.
class Decision(msgspec.Struct, frozen=True):
    """What to do with one file, and why.

    :ivar users: who uses it, sorted
    :ivar used: whether anybody does, be it somebody who cannot be named
    :ivar image: the image it was made from, where it is known
    :ivar age: seconds for which it is without a user for certain; of a file
        in the trash, for which it is there
    :ivar spare: whether it may go early, where space is needed
    :ivar last_copy: whether its image is gone from the image service, as far
        as that is known
    :ivar verify: whether it may be read and compared with what is known of
        it. Where a process of its own does that, it comes to it in its time.
    """

    file: base_file.BaseFile
    action: Action
    reason: str
    users: tuple[str, ...] = ()
    used: bool = False
    image: str | None = None
    age: float = 0.0
    spare: bool = False
    last_copy: bool = False
    verify: bool = False


class Decisions(NamedTuple):
    """What to do with everything.

    :ivar files: a decision for each file in the cache
    :ivar trash: and for each in the trash
    :ivar problems: what cannot be done, a sentence each
    :ivar shortfall: bytes that should go to make room, and cannot
    """

    files: tuple[Decision, ...]
    trash: tuple[Decision, ...]
    problems: tuple[codes.Problem, ...] = ()
    shortfall: int = 0

    @property
    def take_away(self) -> bool:
        """Whether any file goes."""
        return any(
            each.action in (Action.REMOVE, Action.DELETE)
            for each in (*self.files, *self.trash)
        )

    @property
    def notes(self) -> tuple[codes.Problem, ...]:
        """Say which files in the trash somebody still has open."""
        return tuple(
            codes.Problem(
                codes.Code.HELD,
                f'{each.file.name} stays in the trash: {each.reason}',
                each.file.name,
            )
            for each in self.trash
            if each.used and each.action is Action.KEEP
        )


def minimum_age(kind: names.Kind, settings: Settings) -> int:
    """Say for how many seconds an unused file of a kind is kept."""
    configured = settings.original_minimum_age
    if kind in (names.Kind.RESIZED, names.Kind.LEGACY):
        configured = settings.resized_minimum_age
    return max(configured, FLOOR_SECONDS)


class _Case(msgspec.Struct, frozen=True):
    """One file, and what the reasons to keep it go by.

    :ivar in_use: who needs it, in words, if anybody does
    :ivar replaced: of a file in the trash, whether another one has its name
        in the cache by now
    :ivar idle: in which way it is without a user
    :ivar age: as in :class:`Decision`
    :ivar least: seconds for which it is kept
    """

    file: base_file.BaseFile
    users: tuple[str, ...]
    in_use: str | None
    replaced: bool
    pinned: bool
    idle: str
    age: float
    least: int

    @property
    def youth(self) -> str:
        return f'{self.idle} for {int(self.age)} s of {self.least} s'


# One sentence for very many files.
@functools.cache
def _used_by(count: int) -> str:
    return f'used by {count} guest' + ('' if count == 1 else 's')


def _in_use(
    file: base_file.BaseFile,
    facts: observed.Facts,
    users: tuple[str, ...],
    replaced: bool,
) -> str | None:
    if users:
        return _used_by(len(users))
    if file.name in facts.testimony.held:
        return 'a running QEMU has it open'
    hosts = sorted(facts.testimony.hosts.get(file.original, ()))
    if hosts and not replaced:
        shown = ', '.join(map(names.printable, hosts))
        return f'needed by guests of {shown}'
    if not file.trashed and file.name in facts.superseded:
        return 'a running QEMU has an earlier file of this name open'
    return None


def _elapsed(
    since: clocks.Instant,
    facts: observed.Facts,
    certain: Callable[[float], float],
) -> float:
    """Give the seconds since a moment, as far as they are certain."""
    if since.boot_id == facts.now.boot_id:
        return clocks.elapsed(since, facts.now)
    return certain(since.wall)


def _age(
    file: base_file.BaseFile,
    sighting: sightings.Sighting | None,
    facts: observed.Facts,
    settings: Settings,
) -> float:
    """Say for how long a file is without a user (decision 0076).

    What is bad is better fetched anew: of that, only uses count.
    """

    def certain(since: float) -> float:
        return facts.state.certain_age(settings.host, since, facts.now)

    if file.trashed:
        if sighting and sighting.trashed:
            return _elapsed(sighting.trashed, facts, certain)
        # No pass could note it yet, as on a full disk.
        return max(0.0, certain(names.trashed_at(file.name)))
    now = facts.now.wall
    touched, remembered = sightings.uses(file, sighting, now)
    # It is the storage that dates files.
    apart = abs(facts.skew)
    ages = [certain(touched) - apart, certain(remembered)]
    if facts.least is None:
        ages.append(certain(sightings.birth(file, now)) - apart)
        ages.append(
            0.0
            if sighting is None
            else _elapsed(sighting.seen, facts, certain)
        )
    return max(0.0, min(ages))


def _case(
    file: base_file.BaseFile,
    sighting: sightings.Sighting | None,
    facts: observed.Facts,
    settings: Settings,
) -> _Case:
    """Put together what is known of a file.

    What is said of the name of a file in the trash is of the file that has it
    in the cache by now, if one has.
    """
    replaced = file.trashed and file.original in facts.present
    users: tuple[str, ...] = ()
    if not replaced:
        found = facts.testimony.users.get(file.original, ())
        users = tuple(sorted(found))
    if file.trashed:
        idle, least = 'in the trash', max(settings.retention, FLOOR_SECONDS)
        acts = settings.corruption_action != 'report'
        if acts and file.name in facts.inspected:
            idle = 'in the trash, bad, and kept to be looked at'
            least = max(least, _INSPECTED_SECONDS)
    else:
        leftover = file.kind is names.Kind.LEFTOVER
        idle = 'left behind' if leftover else 'unused'
        least = minimum_age(file.kind, settings)
        if facts.least is not None:
            least = facts.least
    return _Case(
        file,
        users,
        _in_use(file, facts, users, replaced),
        replaced,
        file.original in facts.pins and not replaced,
        idle,
        _age(file, sighting, facts, settings),
        least,
    )


def _reasons_to_keep(
    case: _Case, facts: observed.Facts, settings: Settings
) -> Iterator[tuple[str, Action]]:
    """Give all reasons to keep a file, those first that count most.

    A file in the trash comes back on one witness's word (decision 0042), but
    for a leftover, which nobody can need in the cache.
    """
    trashed = case.file.trashed
    comes_back = trashed and case.file.kind.is_base
    back = Action.PUT_BACK if comes_back else Action.KEEP
    if not case.file.stat.regular:
        yield 'not a regular file', Action.LEAVE
    if case.file.kind is names.Kind.OTHER:
        yield 'not a name that the image cache uses', Action.LEAVE
    if case.replaced and case.in_use is not None:
        yield (
            f'{case.in_use}, and another file has its name in the cache by '
            'now',
            Action.KEEP,
        )
    if case.in_use is not None:
        but = f'{case.idle}, but ' if trashed else ''
        pinned = ', and pinned' if case.pinned and not trashed else ''
        yield but + case.in_use + pinned, back
    if case.pinned:
        yield f'{case.idle}, but pinned', back
    if case.file.name in facts.newer:
        yield (
            f'{case.idle}, but what is known of it is made by a newer release',
            Action.KEEP,
        )
    if not settings.remove_unused:
        yield f'{case.idle}; removal is off', Action.KEEP
    if case.age < case.least:
        yield case.youth, Action.KEEP
    obstacles = facts.obstacles_to(case.file.original)
    if obstacles:
        first, *others = obstacles
        more = f' (and {len(others)} more)' if others else ''
        but = 'may be needed' if first.is_narrow else 'nothing is removed now'
        yield f'{case.idle}, but {but}: {first}{more}', Action.KEEP


def _decide(
    file: base_file.BaseFile, facts: observed.Facts, settings: Settings
) -> Decision:
    sighting = facts.state.sighting(file)
    case = _case(file, sighting, facts, settings)
    reasons = _reasons_to_keep(case, facts, settings)
    reason, action = next(reasons, None) or (
        f'{case.idle} for {int(case.age)} s, more than {case.least} s',
        Action.DELETE if file.trashed else Action.REMOVE,
    )
    # A second reason tells that youth is not the only one.
    only_young = (
        case.age >= FLOOR_SECONDS
        and reason == case.youth
        and next(reasons, None) is None
    )
    last_copy = facts.is_last_copy(file)
    if last_copy:
        reason = f'{reason}; its image is gone from the image service'
    entry = None if file.trashed else facts.entries.get(file.name)
    return Decision(
        file=file,
        action=action,
        reason=reason,
        users=case.users,
        used=case.in_use is not None,
        image=facts.testimony.images.get(file.original)
        or (sighting.image if sighting else None),
        age=case.age,
        # Nothing but its youth keeps it. What cannot be fetched anew does not
        # go before its time.
        spare=only_young and not last_copy,
        last_copy=last_copy,
        verify=action is not Action.REMOVE
        and entry is not None
        and schedule.due_in(entry, settings.checksum_interval, facts.now).due
        <= 0,
    )


def _plan(
    decisions: Decisions, facts: observed.Facts, settings: Settings
) -> pressure.Plan:
    """Choose what goes before its time, where space is needed."""
    everything = (*decisions.files, *decisions.trash)
    size = sum(each.file.stat.allocated for each in everything)
    need, reason = pressure.excess(settings, facts.space, size)
    # Wherever one is counted, it is counted once.
    going = in_use = kept = 0
    spare: dict[bool, list[pressure.Candidate]] = {True: [], False: []}
    for each in everything:
        file = each.file
        allocated = file.stat.allocated
        if each.spare:
            spare[file.trashed].append(
                pressure.Candidate(file.name, allocated, each.age)
            )
        elif each.used:
            in_use += allocated
        elif each.action is Action.PUT_BACK or not settings.remove_unused:
            kept += allocated
        elif file.trashed or each.action is Action.REMOVE:
            going += allocated
        else:
            kept += allocated
    return pressure.plan(
        need,
        reason,
        going,
        spare[True],
        spare[False],
        {'in use': in_use, 'that is pinned, young or not to be removed': kept},
    )


def _hasten(
    decisions: Sequence[Decision], chosen: frozenset[str], action: Action
) -> tuple[Decision, ...]:
    return tuple(
        msgspec.structs.replace(
            each,
            action=action,
            reason=f'{each.reason}, and goes early to make room',
            verify=False,
        )
        if each.spare and each.file.name in chosen
        else each
        for each in decisions
    )


def decide(facts: observed.Facts, settings: Settings) -> Decisions:
    """Decide on each file in the cache and in the trash."""
    decisions = Decisions(
        tuple(_decide(each, facts, settings) for each in facts.files),
        tuple(_decide(each, facts, settings) for each in facts.trash),
    )
    plan = _plan(decisions, facts, settings)
    relieved = facts.state.relieved
    if relieved:
        ago = clocks.elapsed(relieved, facts.now)
        if 0 <= ago < FLOOR_SECONDS:
            # The disk may be less full than it looks (decision 0048). What is
            # in the trash goes in any case.
            plan = plan._replace(names=plan.names - facts.present)
    return Decisions(
        _hasten(decisions.files, plan.names, Action.REMOVE),
        _hasten(decisions.trash, plan.names, Action.DELETE),
        ()
        if plan.problem is None
        else (codes.Problem(codes.Code.SPACE, plan.problem),),
        plan.shortfall,
    )
