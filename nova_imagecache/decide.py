# SPDX-License-Identifier: Apache-2.0

"""What to do with each file in the cache: a pure function.

No clock, no I/O, no CONF in here: it is what ``--dry-run`` prints.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
import functools
from typing import Any

from nova_imagecache.cache import scan
from nova_imagecache.cache import state as states
from nova_imagecache import clock as clocks
from nova_imagecache import conf
from nova_imagecache.integrity import schedule
from nova_imagecache import names
from nova_imagecache import pressure
from nova_imagecache.witnesses import testimony as testimonies

#: Seconds for which every unused file is kept, whatever the options say.
#: Nova touches a base file and makes the overlay a moment later, and it holds
#: no lock in between (``Qcow2.create_image`` in
#: nova/virt/libvirt/imagebackend.py).
FLOOR_SECONDS = 600


_HELD = 'a running QEMU has it open'


class Action(enum.StrEnum):
    """What happens to a file."""

    KEEP = 'keep'
    REMOVE = 'remove'
    LEAVE = 'leave'
    PUT_BACK = 'put back'
    DELETE = 'delete'


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is to be decided on, and what is known.

    :ivar files: in the cache
    :ivar trash: files in the trash
    :ivar testimony: what all witnesses say together
    :ivar state: what earlier passes remember
    :ivar entries: what is known of the content of files, by name; a file that
        is not in it is not verified
    :ivar pins: names of files that are to stay
    :ivar space: how full the disk is, where that matters
    :ivar vetoes: reasons to remove nothing, beside witnesses that failed
    """

    now: clocks.Instant
    files: Sequence[scan.CachedFile] = ()
    trash: Sequence[scan.CachedFile] = ()
    testimony: testimonies.Testimony = dataclasses.field(
        default_factory=testimonies.Testimony
    )
    state: states.State = dataclasses.field(default_factory=states.State)
    entries: Mapping[str, schedule.Entry] = dataclasses.field(
        default_factory=dict
    )
    pins: frozenset[str] = frozenset()
    space: pressure.Space | None = None
    vetoes: Sequence[str] = ()

    @functools.cached_property
    def present(self) -> frozenset[str]:
        """Give the names of what is in the cache."""
        return frozenset(file.name for file in self.files)

    @functools.cached_property
    def superseded(self) -> frozenset[str]:
        """Give the names of files in the trash that a QEMU has open.

        Its guest will look for a file of that name when it is started anew.
        """
        return frozenset(
            names.trashed_name(file.name) or file.name
            for file in self.trash
            if file.name in self.testimony.held
        )

    @functools.cached_property
    def obstacles(self) -> tuple[str, ...]:
        """Give all reasons to remove nothing."""
        return (*self.vetoes, *self.testimony.failures)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do with one file, and why.

    :ivar users: who uses it, sorted
    :ivar used: whether anybody does, be it somebody who cannot be named
    :ivar image: the image it was made from, where it is known
    :ivar age: seconds since it was last used; of a file in the trash, since
        it is there
    :ivar spare: whether it may go early, where space is needed
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
    spare: bool = False
    verify: bool = False


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What to do with everything.

    :ivar files: a decision for each file in the cache
    :ivar trash: and for each in the trash
    :ivar problems: what cannot be done, a sentence each
    """

    files: tuple[Decision, ...]
    trash: tuple[Decision, ...]
    problems: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which files in the trash somebody still has open."""
        return tuple(
            f'{each.file.name} stays in the trash: {each.reason}'
            for each in self.trash
            if each.used and each.action is Action.KEEP
        )


def minimum_age(kind: names.Kind, settings: conf.Settings) -> int:
    """Say for how many seconds an unused file of a kind is kept."""
    configured = settings.original_minimum_age
    if kind in (names.Kind.RESIZED, names.Kind.LEGACY):
        configured = settings.resized_minimum_age
    return max(configured, FLOOR_SECONDS)


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 's')


def _but(obstacles: Sequence[str]) -> str:
    more = f' (and {len(obstacles) - 1} more)' if len(obstacles) > 1 else ''
    return f', but nothing is removed now: {obstacles[0]}{more}'


def _in_use(users: Sequence[str], held: bool) -> str | None:
    if users:
        return f'used by {_plural(len(users), "guest")}'
    return _HELD if held else None


def _decide_file(
    file: scan.CachedFile, facts: Facts, settings: conf.Settings
) -> Decision:
    users = tuple(sorted(facts.testimony.users.get(file.name, ())))
    held = file.name in facts.testimony.held
    superseded = file.name in facts.superseded
    sighting = facts.state.sighting(file)
    now = facts.now.wall
    age = now - states.last_use(file, sighting, now)
    decision = Decision(
        file=file,
        action=Action.KEEP,
        reason='',
        users=users,
        used=bool(users) or held or superseded,
        image=facts.testimony.images.get(file.name)
        or (sighting.image if sighting else None),
        age=age,
        verify=file.name in facts.entries
        and schedule.due_in(
            facts.entries[file.name], settings.checksum_interval, facts.now
        ).due
        <= 0,
    )

    def fate(reason: str, **changes: Any) -> Decision:
        return dataclasses.replace(decision, reason=reason, **changes)

    if not file.status.regular:
        return fate('not a regular file', action=Action.LEAVE)
    if file.kind is names.Kind.OTHER:
        return fate(
            'not a name that the image cache uses', action=Action.LEAVE
        )
    in_use = _in_use(users, held)
    if in_use is None and superseded:
        in_use = 'a running QEMU has an earlier file of this name open'
    pinned = file.name in facts.pins
    if in_use is not None:
        return fate(in_use + (', and pinned' if pinned else ''))
    unused = 'left behind' if file.kind is names.Kind.LEFTOVER else 'unused'
    least = minimum_age(file.kind, settings)
    if pinned:
        return fate(f'{unused}, but pinned')
    if not settings.remove_unused:
        return fate(f'{unused}; removal is off')
    if age < least:
        spare = age >= FLOOR_SECONDS and not facts.obstacles
        return fate(f'{unused} for {int(age)} s of {least} s', spare=spare)
    if facts.obstacles:
        return fate(unused + _but(facts.obstacles))
    return fate(
        f'{unused} for {int(age)} s, more than {least} s',
        action=Action.REMOVE,
        verify=False,
    )


def _decide_trashed(
    file: scan.CachedFile, facts: Facts, settings: conf.Settings
) -> Decision:
    """Decide on a file in the trash.

    One witness's word brings it back, also where others are blind. It goes
    for good when it is there for long enough.
    """
    name = names.trashed_name(file.name) or file.name
    replaced = name in facts.present
    held = file.name in facts.testimony.held
    users = tuple(sorted(facts.testimony.users.get(name, ())))
    sighting = facts.state.sighting(file)
    since = sighting.trashed if sighting else None
    if since is not None:
        age = clocks.elapsed(since, facts.now)
    else:
        # No pass could note it yet, as on a full disk.
        age = max(0.0, facts.now.wall - names.trashed_at(file.name))
    decision = Decision(
        file=file,
        action=Action.KEEP,
        reason='',
        users=() if replaced else users,
        used=held or (bool(users) and not replaced),
        image=facts.testimony.images.get(name)
        or (sighting.image if sighting else None),
        age=age,
    )

    def fate(reason: str, **changes: Any) -> Decision:
        return dataclasses.replace(decision, reason=reason, **changes)

    if replaced and held:
        return fate(
            f'{_HELD}, and another file has its name in the cache by now'
        )
    in_use = _in_use(decision.users, held)
    if in_use is not None:
        return fate(f'in the trash, but {in_use}', action=Action.PUT_BACK)
    if name in facts.pins and not replaced:
        return fate('in the trash, but pinned', action=Action.PUT_BACK)
    if not settings.remove_unused:
        return fate('in the trash; removal is off')
    least = max(settings.retention, FLOOR_SECONDS)
    if age < least:
        spare = age >= FLOOR_SECONDS and not facts.obstacles
        return fate(f'in the trash for {int(age)} s of {least} s', spare=spare)
    if facts.obstacles:
        return fate('in the trash' + _but(facts.obstacles))
    return fate(
        f'in the trash for {int(age)} s, more than {least} s',
        action=Action.DELETE,
    )


def settled(file: scan.CachedFile, sighting: states.Sighting | None) -> bool:
    """Whether a file that is not locked is complete.

    Nova copies resized files without a lock, so one that no pass has seen
    before may still be growing.
    """
    unlocked = file.kind in (names.Kind.RESIZED, names.Kind.LEGACY)
    return sighting is not None or not unlocked


def _plan(
    decisions: Decisions, facts: Facts, settings: conf.Settings
) -> pressure.Plan:
    """Choose what goes before its time, where space is needed."""
    everything = (*decisions.files, *decisions.trash)
    size = sum(each.file.status.allocated for each in everything)
    need, reason = pressure.excess(settings, facts.space, size)
    # Wherever one is counted, it is counted once.
    going = in_use = kept = 0
    spare: dict[bool, list[pressure.Candidate]] = {True: [], False: []}
    for trashed, group in ((False, decisions.files), (True, decisions.trash)):
        for each in group:
            allocated = each.file.status.allocated
            if each.spare:
                spare[trashed].append(
                    pressure.Candidate(each.file.name, allocated, each.age)
                )
            elif each.used:
                in_use += allocated
            elif each.action is Action.PUT_BACK or not settings.remove_unused:
                kept += allocated
            elif trashed or each.action is Action.REMOVE:
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
        dataclasses.replace(
            each,
            action=action,
            reason=f'{each.reason}, and goes early to make room',
            verify=False,
        )
        if each.file.name in chosen
        else each
        for each in decisions
    )


def decide(facts: Facts, settings: conf.Settings) -> Decisions:
    """Decide on each file in the cache and in the trash."""
    decisions = Decisions(
        tuple(_decide_file(each, facts, settings) for each in facts.files),
        tuple(_decide_trashed(each, facts, settings) for each in facts.trash),
    )
    plan = _plan(decisions, facts, settings)
    relieved = facts.state.relieved
    if relieved:
        ago = clocks.elapsed(relieved, facts.now)
        if 0 <= ago < FLOOR_SECONDS:
            # Some file systems free late, so the disk may be less full than
            # it looks. What is in the trash goes in any case.
            plan = dataclasses.replace(plan, names=plan.names - facts.present)
    return Decisions(
        _hasten(decisions.files, plan.names, Action.REMOVE),
        _hasten(decisions.trash, plan.names, Action.DELETE),
        () if plan.problem is None else (plan.problem,),
    )
