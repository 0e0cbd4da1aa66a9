# SPDX-License-Identifier: Apache-2.0

"""What one pass remembers for the next: sightings of files, and the clock.

The time of last use is kept in the file's mtime, where Nova looks for it, and
here as well: touching a file that belongs to QEMU's user, or one on NFS with
root squashed, is refused.

In two records: a large one of the files, which is written when there is news
of them, and a small one of the hosts, which every pass writes.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import functools
import logging
import math

import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import machines
from nova_imagecache.cache import sightings
from nova_imagecache.cache import state_records
from nova_imagecache.cache import uses
from nova_imagecache import clocks
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import pools

LOG = logging.getLogger(__name__)

# Nobody holds the state's lock for longer than it takes to write a file.
_PATIENCE_SECONDS = 5

# So many reasons say enough of why nothing goes.
_REASONS = 5

Vetoed = state_records.Vetoed
version_of = state_records.version_of


@dataclasses.dataclass(frozen=True)
class State:
    """All that is remembered.

    :ivar boots: the last boots of each host that shares the cache, in the
        order in which they passed
    :ivar steps: of the clock of each host, in order
    :ivar files: by name; those in the trash by the name that they have there
    :ivar relieved: when files were last deleted early, to make room
    :ivar vetoed: the hosts that may remove nothing
    :ivar last_removal: when anybody last removed or deleted a file
    :ivar used: by host the files that had a user in its last pass; less where
        nobody has written that yet
    :ivar written: the sightings as they were read, without the uses that
        follow from ``used``; None where this release has written none
    :ivar version: of the files that this was read from
    """

    boots: Mapping[str, tuple[machines.Boot, ...]] = dataclasses.field(
        default_factory=dict
    )
    steps: Mapping[str, tuple[clocks.Step, ...]] = dataclasses.field(
        default_factory=dict
    )
    files: Mapping[str, sightings.Sighting] = dataclasses.field(
        default_factory=dict
    )
    relieved: clocks.Instant | None = None
    vetoed: Mapping[str, Vetoed] = dataclasses.field(default_factory=dict)
    last_removal: clocks.Instant | None = None
    used: uses.Used = dataclasses.field(default_factory=dict)
    written: Mapping[str, sightings.Sighting] | None = None
    version: state_records.Version | None = None

    @property
    def last_passes(self) -> dict[str, clocks.Instant]:
        """Say when each host made its last pass."""
        return {host: last[-1].passed for host, last in self.boots.items()}

    def sighting(self, file: base_file.BaseFile) -> sightings.Sighting | None:
        """Recall this very file, and not another of the same name.

        Also if it was moved to the trash, or back, since it was seen, however
        often.
        """
        key = file.incarnation.key
        sighting = self.files.get(file.name)
        if sighting and sightings.is_of(sighting, key):
            return sighting
        original = file.original
        for other in (original, *self._trashed.get(original, ())):
            sighting = self.files.get(other)
            if sighting and sightings.is_of(sighting, key):
                return sighting
        return None

    def other_boots(self, host: str) -> frozenset[str]:
        """Say in which boots the hosts beside one made their last passes."""
        found = {
            instant.boot_id
            for name, instant in self.last_passes.items()
            if name != host
        }
        twins = (boot for boot in self.boots.get(host, ()) if boot.twin)
        return frozenset((*found, *(boot.passed.boot_id for boot in twins)))

    def entered(
        self, host: str, now: clocks.Instant, machine: str | None
    ) -> tuple['State', float]:
        """Give what is remembered once a pass of a host has begun.

        :param machine: which machine it is, where that can be told
        :returns: and by how many seconds its clock was set since its last one
        """
        last, jump = machines.entered(self.boots.get(host, ()), now, machine)
        steps = dict(self.steps)
        if jump:
            step = clocks.Step(now.wall, jump, now.boot_id)
            steps[host] = clocks.with_step(steps.get(host, ()), step)
        state = dataclasses.replace(
            self, boots={**self.boots, host: last}, steps=steps
        )
        return state, jump

    def twins(self, host: str, now: clocks.Instant) -> str | None:
        """Say that two machines have the name of a host, if they have.

        For a day after that was last seen.
        """
        return machines.tell_twins(host, self.boots.get(host, ()), now)

    def certain_age(
        self, host: str, since: float, now: clocks.Instant
    ) -> float:
        """Say how many seconds have passed for certain since a moment.

        Whoever noted it may have had a clock that was wrong, so the steps of
        all hosts count; those to a time that is yet to come do not, as that
        clock is no other to us.

        :param host: whose clock says how late it is
        :param since: by anybody's wall clock
        """
        if not self.steps:
            return now.wall - since
        # What the clock of another machine showed is not to be counted from.
        boot = None if self.twins(host, now) is None else now.boot_id
        ages = [now.wall - since]
        for name, steps in self.steps.items():
            if name == host:
                age = clocks.certain_age(since, now.wall, steps, boot)
            else:
                past = [step for step in steps if step.wall <= now.wall]
                age = clocks.certain_age(since, now.wall, past)
            ages.append(age)
        return min(ages)

    @functools.cached_property
    def _trashed(self) -> dict[str, list[str]]:
        """Find the names in the trash of each base file."""
        found: dict[str, list[str]] = {}
        for name in self.files:
            base = names.trashed_name(name)
            if base:
                found.setdefault(base, []).append(name)
        return found


def _save(layout: layouts.Layout, state: State, before: State) -> None:
    """Write what is not yet on the disk.

    Whatever is read meanwhile, or after a crash, has no file be used earlier
    than it was: the small record comes last where a time in it goes back.

    :param before: what is there
    """
    passes = state_records.Passes(
        relieved=state.relieved,
        boots=dict(state.boots),
        steps=dict(state.steps),
        vetoed=dict(state.vetoed),
        last_removal=state.last_removal,
    )
    passed = _passed(state)
    if (
        before.written is not None
        and state.used == before.used
        and uses.agree(state.files, before.written, before.used, passed)
    ):
        state_records.save_passes(layout, passes)
        return
    used = uses.settled(state.files, state.used, passed)
    order = sorted(used, key=lambda host: passed[host], reverse=True)
    record = state_records.Record(
        files=dict(state.files),
        used=uses.grouped(used, order, len(state.files)),
        hosts=None,
    )
    back = any(
        when > passed.get(host, -math.inf)
        for host, when in _passed(before).items()
    )
    if back:
        state_records.save(layout, record)
        state_records.save_passes(layout, passes)
    else:
        state_records.save_passes(layout, passes)
        state_records.save(layout, record)


def _passed(state: State) -> dict[str, float]:
    return {host: when.wall for host, when in state.last_passes.items()}


def load(layout: layouts.Layout) -> State:
    """Read what earlier passes remembered; a first pass finds nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    read = state_records.load(layout)
    if read is None:
        return State()
    state = State(
        boots=read.passes.boots,
        steps=read.passes.steps,
        relieved=read.passes.relieved,
        vetoed=read.passes.vetoed,
        last_removal=read.passes.last_removal,
        used=uses.spread(read.record.used),
        written=None if read.record.hosts else read.record.files,
        version=read.version,
    )
    passed = _passed(state)
    return dataclasses.replace(
        state, files=uses.completed(read.record.files, state.used, passed)
    )


def _begin_anew(
    layout: layouts.Layout, error: errors.Damaged, now: clocks.Instant
) -> State:
    """Give what is left of what was remembered, where some is damaged.

    Any file may have been used a moment ago (decision 0057).
    """
    return State(
        files={
            name: msgspec.structs.replace(sighting, last_used=now.wall)
            for name, sighting in state_records.rescue(layout, error).items()
        }
    )


def remember(
    layout: layouts.Layout,
    host: str,
    now: clocks.Instant,
    files: Collection[base_file.BaseFile],
    used: Collection[str],
    images: Mapping[str, str],
    histories: Mapping[str, sightings.History],
    before: State,
    relieved: bool = False,
    vetoes: Collection[str] = (),
    removed: Collection[str] = (),
    adrift: bool = False,
) -> None:
    """Add this pass to what is remembered.

    :param files: what the pass found and left in place, and what is in the
        trash now
    :param used: names of those that have a user
    :param images: what they were made from, where that is known
    :param histories: what their ledgers say, of those that have one
    :param before: what the pass began with, which need not be read again
        where nobody has written since
    :param relieved: whether files were deleted early
    :param vetoes: why nothing may be removed, a sentence each
    :param removed: names of those that were removed or deleted just now
    :param adrift: whether the clock of this host is known to be wrong: then
        what others have noted of times is not changed
    :raises nova_imagecache.errors.NotNow: the lock of the state cannot be had
    :raises OSError: it was not saved
    """
    with locks.manager_lock(layout, 'state', _PATIENCE_SECONDS):
        try:
            unchanged = before.version and before.version == version_of(layout)
            old_state = before if unchanged else load(layout)
        except errors.Damaged as error:
            old_state = _begin_anew(layout, error, now)
            used = {file.name for file in files}
        state, _jump = old_state.entered(host, now, clocks.machine_id())
        sighted = _present(
            layout,
            state.files,
            {file.name for file in files},
            _gone(state, before, files, removed),
        )
        for file in files:
            old = state.sighting(file)
            new = sightings.updated(
                file,
                old,
                now,
                file.name in used,
                images.get(file.name),
                histories.get(file.name),
            )
            if adrift:
                new = sightings.with_times_of(old, new)
            sighted[file.name] = new
        state = dataclasses.replace(
            state,
            files=sighted,
            relieved=now if relieved else state.relieved,
            vetoed=_vetoed(state.vetoed, host, now, vetoes),
            last_removal=now if removed else state.last_removal,
            used={
                **state.used,
                host: frozenset(
                    file.name for file in files if file.name in used
                ),
            },
        )
        _save(layout, state, old_state)


def _gone(
    state: State,
    before: State,
    files: Collection[base_file.BaseFile],
    removed: Collection[str],
) -> frozenset[str]:
    """Give the names that need not be looked for: none has them any more.

    What was removed may be back, by another hand; not what is seen in the
    trash. And a name may be noted already of what has been fetched anew.

    :param files: those that were seen just now
    """
    moved = {
        file.original
        for file in files
        if file.trashed
        and state.sighting(file) is state.files.get(file.original)
    }
    return frozenset(
        name
        for name in removed
        if (name in moved or names.trashed_name(name))
        and state.files.get(name) == before.files.get(name)
    )


def _present(
    layout: layouts.Layout,
    noted: Mapping[str, sightings.Sighting],
    seen: Collection[str],
    gone: Collection[str],
) -> dict[str, sightings.Sighting]:
    """Leave out what has gone; what cannot be looked at has not.

    See decision 0054.

    :param seen: names of those that were seen just now
    :param gone: names of those that are known to have gone
    """
    left = {*gone} - {*seen}
    unseen = [name for name in noted if name not in seen and name not in left]
    answers = pools.each(
        lambda name: identity.gone(
            layout.file(name, bool(names.trashed_name(name)))
        ),
        unseen,
    )
    left.update(
        name for name, is_gone in zip(unseen, answers, strict=True) if is_gone
    )
    return {
        name: sighting for name, sighting in noted.items() if name not in left
    }


def _vetoed(
    before: Mapping[str, Vetoed],
    host: str,
    now: clocks.Instant,
    vetoes: Collection[str],
) -> dict[str, Vetoed]:
    """Say since when each host may remove nothing."""
    after = {name: each for name, each in before.items() if name != host}
    if vetoes:
        since = before[host].since if host in before else now
        after[host] = Vetoed(since, tuple(vetoes)[:_REASONS])
    return after


def amend(layout: layouts.Layout, change: Callable[[State], State]) -> None:
    """Change what is remembered, with nobody else doing so meanwhile.

    :raises nova_imagecache.errors.Error: it is damaged, or its lock cannot be
        had
    :raises OSError: it cannot be read or saved
    """
    with locks.manager_lock(layout, 'state', _PATIENCE_SECONDS):
        before = load(layout)
        _save(layout, change(before), before)


def sight(
    layout: layouts.Layout,
    now: clocks.Instant,
    files: Collection[base_file.BaseFile],
) -> State:
    """Remember files that were never seen before, and nothing else.

    For a scrub where no pass has been.

    :returns: the state as it was before: a file seen for the first time is
        not in it
    :raises nova_imagecache.errors.Error: it cannot be read, or not now
    :raises OSError: it was not saved
    """
    state = load(layout)
    new = [file for file in files if state.sighting(file) is None]

    def add(current: State) -> State:
        sighted = {
            file.name: sightings.updated(file, None, now)
            for file in new
            if current.sighting(file) is None
        }
        return dataclasses.replace(current, files={**current.files, **sighted})

    if new:
        amend(layout, add)
    return state


def _last_used(state: State, file: base_file.BaseFile) -> float | None:
    sighting = state.sighting(file)
    return sighting.last_used if sighting else None


def used_since(
    layout: layouts.Layout,
    files: Collection[base_file.BaseFile],
    state: State,
) -> frozenset[str]:
    """Tell which files had a use noted after a state was read.

    Cheap, as it is asked before each removal: usually nothing was written.
    Times are not compared, as they may be those of another host.

    :returns: their names; all of them where this cannot be told
    :raises OSError: the state cannot be read
    """
    if version_of(layout) == state.version:
        return frozenset()
    try:
        current = load(layout)
    except (errors.Damaged, errors.Newer):
        return frozenset(file.name for file in files)
    return frozenset(
        file.name
        for file in files
        if _last_used(current, file) not in (None, _last_used(state, file))
    )


def note_use(layout: layouts.Layout, name: str, now: clocks.Instant) -> None:
    """Remember that a file is used now, where touching it is refused.

    Best effort, as touching is: what cannot be written is not remembered.
    """
    try:
        file = base_file.BaseFile.named(layout, name)

        def add(state: State) -> State:
            old = state.sighting(file)
            sighting = sightings.updated(file, old, now, used=True)
            return dataclasses.replace(
                state, files={**state.files, name: sighting}
            )

        amend(layout, add)
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[N16] The use of base file %(name)s can be noted neither in '
            'its timestamp nor in %(state)s: %(error)s',
            {'name': name, 'state': layout.state, 'error': error},
        )
