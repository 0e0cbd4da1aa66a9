# SPDX-License-Identifier: Apache-2.0

"""What to do with each file in the cache: a pure function.

No clock, no I/O, no CONF in here: it is what ``--dry-run`` prints.

A file goes only if no reason keeps it. The reasons are a list,
:data:`REASONS_TO_KEEP`, and the first one that applies is told.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
import functools

from nova_imagecache.cache import base_file
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache import names
from nova_imagecache.passes import pressure
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import testimonies

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
    PUT_BACK = 'put back'
    DELETE = 'delete'


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a pass has seen, before it decides.

    :ivar files: in the cache
    :ivar trash: files in the trash
    :ivar testimony: what all witnesses say together
    :ivar state: what earlier passes remember
    :ivar entries: what is known of the content of files, by name; a file that
        is not in it is not verified
    :ivar pins: names of files that are to stay
    :ivar space: how full the disk is, where that matters
    :ivar vetoes: reasons to remove nothing, beside witnesses that failed
    :ivar young: whether somebody may be about to use what was used lately,
        see :data:`FLOOR_SECONDS`
    :ivar problems: what could not be looked at, a sentence each
    :ivar usable: whether there is room for what a pass writes
    """

    now: clocks.Instant
    files: Sequence[base_file.BaseFile] = ()
    trash: Sequence[base_file.BaseFile] = ()
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
    young: bool = True
    problems: Sequence[str] = ()
    usable: bool = True

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
            file.original
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

    file: base_file.BaseFile
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


def minimum_age(kind: names.Kind, settings: Settings) -> int:
    """Say for how many seconds an unused file of a kind is kept."""
    configured = settings.original_minimum_age
    if kind in (names.Kind.RESIZED, names.Kind.LEGACY):
        configured = settings.resized_minimum_age
    return max(configured, FLOOR_SECONDS)


@dataclasses.dataclass(frozen=True)
class _Case:
    """One file, and what the reasons to keep it go by.

    :ivar users: who uses it, sorted
    :ivar held: whether a QEMU has it open
    :ivar superseded: whether one has an earlier file of its name open
    :ivar replaced: of a file in the trash, whether another one has its name
        in the cache by now
    :ivar pinned: whether it is to stay
    :ivar idle: how it is said to be without a user
    :ivar least: for how many seconds it is kept
    """

    file: base_file.BaseFile
    users: tuple[str, ...]
    held: bool
    superseded: bool
    replaced: bool
    pinned: bool
    idle: str
    age: float
    least: int
    removal_is_on: bool
    obstacles: tuple[str, ...]

    @property
    def in_use(self) -> str | None:
        """Say who needs it, if anybody does."""
        if self.users:
            count = len(self.users)
            return f'used by {count} guest' + ('' if count == 1 else 's')
        if self.held:
            return 'a running QEMU has it open'
        if self.superseded:
            return 'a running QEMU has an earlier file of this name open'
        return None


@dataclasses.dataclass(frozen=True)
class _Reason:
    """One reason to keep a file.

    :ivar action: what it has done to the file
    """

    text: str
    action: Action = Action.KEEP


def _not_ours(case: _Case) -> _Reason | None:
    if not case.file.stat.regular:
        return _Reason('not a regular file', Action.LEAVE)
    if case.file.kind is names.Kind.OTHER:
        return _Reason('not a name that the image cache uses', Action.LEAVE)
    return None


def _held_and_replaced(case: _Case) -> _Reason | None:
    if not (case.replaced and case.held):
        return None
    return _Reason(
        f'{case.in_use}, and another file has its name in the cache by now'
    )


def _in_use(case: _Case) -> _Reason | None:
    if case.in_use is None:
        return None
    if case.file.trashed:
        return _Reason(f'{case.idle}, but {case.in_use}', Action.PUT_BACK)
    return _Reason(case.in_use + (', and pinned' if case.pinned else ''))


def _pinned(case: _Case) -> _Reason | None:
    if not case.pinned:
        return None
    back = Action.PUT_BACK if case.file.trashed else Action.KEEP
    return _Reason(f'{case.idle}, but pinned', back)


def _removal_is_off(case: _Case) -> _Reason | None:
    return (
        None if case.removal_is_on else _Reason(f'{case.idle}; removal is off')
    )


def _young(case: _Case) -> _Reason | None:
    if case.age >= case.least:
        return None
    return _Reason(f'{case.idle} for {int(case.age)} s of {case.least} s')


def _vetoed(case: _Case) -> _Reason | None:
    if not case.obstacles:
        return None
    first, *others = case.obstacles
    more = f' (and {len(others)} more)' if others else ''
    return _Reason(f'{case.idle}, but nothing is removed now: {first}{more}')


#: In the order in which they count. A file that none of them keeps goes.
REASONS_TO_KEEP = (
    _not_ours,
    _held_and_replaced,
    _in_use,
    _pinned,
    _removal_is_off,
    _young,
    _vetoed,
)


def _decide(file: base_file.BaseFile, facts: Facts, case: _Case) -> Decision:
    sighting = facts.state.sighting(file)
    reasons = {
        reason_to_keep: reason
        for reason_to_keep in REASONS_TO_KEEP
        if (reason := reason_to_keep(case)) is not None
    }
    goes = _Reason(
        f'{case.idle} for {int(case.age)} s, more than {case.least} s',
        Action.DELETE if file.trashed else Action.REMOVE,
    )
    fate = next(iter(reasons.values()), goes)
    return Decision(
        file=file,
        action=fate.action,
        reason=fate.text,
        users=case.users,
        used=case.in_use is not None,
        image=facts.testimony.images.get(file.original)
        or (sighting.image if sighting else None),
        age=case.age,
        # Nothing but its youth keeps it.
        spare=reasons.keys() == {_young} and case.age >= FLOOR_SECONDS,
    )


def _decide_file(
    file: base_file.BaseFile, facts: Facts, settings: Settings
) -> Decision:
    now = facts.now.wall
    leftover = file.kind is names.Kind.LEFTOVER
    decision = _decide(
        file,
        facts,
        _Case(
            file=file,
            users=tuple(sorted(facts.testimony.users.get(file.name, ()))),
            held=file.name in facts.testimony.held,
            superseded=file.name in facts.superseded,
            replaced=False,
            pinned=file.name in facts.pins,
            idle='left behind' if leftover else 'unused',
            age=now
            - sightings.last_use(file, facts.state.sighting(file), now),
            least=minimum_age(file.kind, settings) if facts.young else 0,
            removal_is_on=settings.remove_unused,
            obstacles=facts.obstacles,
        ),
    )
    entry = facts.entries.get(file.name)
    if entry is None or decision.action is Action.REMOVE:
        return decision
    item = schedule.due_in(entry, settings.checksum_interval, facts.now)
    return dataclasses.replace(decision, verify=item.due <= 0)


def _decide_trashed(
    file: base_file.BaseFile, facts: Facts, settings: Settings
) -> Decision:
    """Decide on a file in the trash.

    One witness's word brings it back, also where others are blind. It goes
    for good when it is there for long enough. What is said of its name is of
    the file that has it in the cache by now, if one has.
    """
    replaced = file.original in facts.present
    users = () if replaced else facts.testimony.users.get(file.original, ())
    sighting = facts.state.sighting(file)
    since = sighting.trashed if sighting else None
    if since is not None:
        age = clocks.elapsed(since, facts.now)
    else:
        # No pass could note it yet, as on a full disk.
        age = max(0.0, facts.now.wall - names.trashed_at(file.name))
    return _decide(
        file,
        facts,
        _Case(
            file=file,
            users=tuple(sorted(users)),
            held=file.name in facts.testimony.held,
            superseded=False,
            replaced=replaced,
            pinned=file.original in facts.pins and not replaced,
            idle='in the trash',
            age=age,
            least=max(settings.retention, FLOOR_SECONDS),
            removal_is_on=settings.remove_unused,
            obstacles=facts.obstacles,
        ),
    )


def _plan(
    decisions: Decisions, facts: Facts, settings: Settings
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
        dataclasses.replace(
            each,
            action=action,
            reason=f'{each.reason}, and goes early to make room',
            verify=False,
        )
        if each.spare and each.file.name in chosen
        else each
        for each in decisions
    )


def decide(facts: Facts, settings: Settings) -> Decisions:
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
