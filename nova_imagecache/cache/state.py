# SPDX-License-Identifier: Apache-2.0

"""What one pass remembers for the next: sightings of files, and the clock.

The time of last use is kept in the file's mtime, where Nova looks for it, and
here as well: touching a file that belongs to QEMU's user, or one on NFS with
root squashed, is refused.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import clock
from nova_imagecache import errors
from nova_imagecache import names

_KIND = 'state'
_VERSION = 3

# Nobody holds the state's lock for longer than it takes to write a file.
_PATIENCE_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Sighting:
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
    :ivar trashed: when it was first seen in the trash, if it is there
    :ivar ahead: whether its mtime was in the future then
    """

    key: statuses.Key
    last_used: float | None
    modified: int
    seen: clock.Instant
    image: str | None = None
    digested: bool = False
    suspect: bool = False
    rebaselined: float | None = None
    trashed: clock.Instant | None = None
    ahead: bool = False


@dataclasses.dataclass(frozen=True)
class History:
    """What is not to be forgotten when a ledger is lost.

    :ivar suspect: as in :class:`Sighting`
    :ivar rebaselined: likewise
    """

    suspect: bool
    rebaselined: float | None


@dataclasses.dataclass(frozen=True)
class State:
    """All that is remembered.

    :ivar clocks: when each host that shares the cache made its last pass
    :ivar relieved: when files were last deleted early, to make room
    :ivar files: by name; those in the trash by the name that they have there
    :ivar version: of the file that this was read from
    """

    clocks: Mapping[str, clock.Instant] = dataclasses.field(
        default_factory=dict
    )
    files: Mapping[str, Sighting] = dataclasses.field(default_factory=dict)
    relieved: clock.Instant | None = None
    version: statuses.Status | None = None

    def sighting(self, file: scan.CachedFile) -> Sighting | None:
        """Recall this very file, and not another of the same name.

        Also if it was moved to the trash, or back, since it was seen.
        """
        key = file.status.incarnation.key
        sighting = self.files.get(file.name)
        if sighting and sighting.key == key:
            return sighting
        base = names.trashed_name(file.name)
        others = [base] if base else self._trashed.get(file.name, [])
        for other in others:
            sighting = self.files.get(other)
            if sighting and sighting.key == key:
                return sighting
        return None

    @functools.cached_property
    def _trashed(self) -> dict[str, list[str]]:
        """Find the names in the trash of each base file."""
        found: dict[str, list[str]] = {}
        for name in self.files:
            base = names.trashed_name(name)
            if base:
                found.setdefault(base, []).append(name)
        return found


def _known_ahead(file: scan.CachedFile, sighting: Sighting | None) -> bool:
    """Whether a pass has counted an mtime in the future as a use already.

    One that was not in the future then is a use: the clock has gone back.
    """
    return bool(
        sighting
        and sighting.ahead
        and sighting.modified == file.status.modified
    )


def last_use(
    file: scan.CachedFile, sighting: Sighting | None, now: float
) -> float:
    """Say when a file was last used, as far as it is known.

    The later one of mtime and memory. An mtime in the future says only that
    somebody touched the file since it was last seen.
    """
    modified = file.status.modified / 10**9
    remembered = sighting.last_used if sighting else None
    if modified > now:
        modified = 0.0 if _known_ahead(file, sighting) else now
    if remembered is None or remembered > now:
        # The clock has been set back since; start counting again.
        remembered = 0.0 if remembered is None else now
    return max(modified, remembered)


def outlived(
    file: scan.CachedFile,
    sighting: Sighting | None,
    state: State,
    now: clock.Instant,
    host: str,
) -> bool:
    """Whether a file has been through a reboot of the host that made it.

    What was not on the disk by then is lost, and nothing tells. The sighting
    knows the boot, where the birth time of the file may be of a clock that
    was wrong, or unknown. On shared storage any host may have made it.
    """
    seen = sighting.seen if sighting else now
    born = file.status.incarnation.born
    if born is not None and born / 10**9 < seen.wall - seen.boottime:
        return True
    boots = {
        instant.boot_id
        for name, instant in state.clocks.items()
        if name != host
    }
    return seen.boot_id not in boots | {now.boot_id}


def _decode_sighting(value: Any) -> Sighting:
    last_used, image = value['last_used'], value['image']
    rebaselined, trashed = value['rebaselined'], value['trashed']
    return Sighting(
        statuses.decode_key(value['key']),
        None if last_used is None else float(last_used),
        int(value['modified']),
        clock.decode_instant(value['seen']),
        None if image is None else str(image),
        bool(value['digested']),
        bool(value['suspect']),
        None if rebaselined is None else float(rebaselined),
        None if trashed is None else clock.decode_instant(trashed),
        bool(value['ahead']),
    )


def _decode(body: Mapping[str, Any]) -> State:
    try:
        return State(
            clocks={
                host: clock.decode_instant(instant)
                for host, instant in body['clocks'].items()
            },
            files={
                name: _decode_sighting(sighting)
                for name, sighting in body['files'].items()
            },
            relieved=body['relieved']
            and clock.decode_instant(body['relieved']),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise errors.Damaged('its fields are not those of a state') from None


def _encode(state: State) -> records.Body:
    return {
        'relieved': state.relieved and vars(state.relieved),
        'clocks': {
            host: vars(instant) for host, instant in state.clocks.items()
        },
        'files': {
            name: vars(sighting)
            | {
                'seen': vars(sighting.seen),
                'trashed': sighting.trashed and vars(sighting.trashed),
            }
            for name, sighting in state.files.items()
        },
    }


def load(layout: layouts.Layout) -> State:
    """Read what earlier passes remembered; a first pass finds nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    # Before reading: what is published meanwhile then counts as newer.
    version = version_of(layout)
    body = records.load(layout.state, _KIND, _VERSION)
    if body is None:
        return State()
    return dataclasses.replace(_decode(body), version=version)


def updated(
    file: scan.CachedFile,
    old: Sighting | None,
    instant: clock.Instant,
    used: bool = False,
    image: str | None = None,
    history: History | None = None,
) -> Sighting:
    """Give what is to be remembered of a file now.

    :param old: what was remembered
    :param used: whether it is in use at this moment
    """
    now = instant.wall
    in_future = file.status.modified / 10**9 > now
    if used or (in_future and not _known_ahead(file, old)):
        last_used: float | None = now
    elif old and old.last_used is not None:
        last_used = min(old.last_used, now)
    else:
        last_used = None
    return Sighting(
        key=file.status.incarnation.key,
        last_used=last_used,
        modified=file.status.modified,
        seen=old.seen if old else instant,
        image=image or (old.image if old else None),
        digested=history is not None or bool(old and old.digested),
        suspect=bool((history and history.suspect) or (old and old.suspect)),
        rebaselined=(history.rebaselined if history else None)
        or (old.rebaselined if old else None),
        trashed=_trashed_since(old, instant)
        if names.trashed_name(file.name)
        else None,
        ahead=in_future,
    )


def _trashed_since(
    old: Sighting | None, instant: clock.Instant
) -> clock.Instant:
    since = old.trashed if old else None
    # Over a reboot the clock may have been set back.
    if since is None or clock.elapsed(since, instant) < 0:
        return instant
    return since


def remember(
    layout: layouts.Layout,
    host: str,
    now: clock.Instant,
    files: Collection[scan.CachedFile],
    used: Collection[str],
    images: Mapping[str, str],
    histories: Mapping[str, History],
    before: State,
    relieved: bool = False,
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
    :raises nova_imagecache.errors.NotNow: the lock of the state cannot be had
    :raises OSError: it was not saved
    """
    with locks.manager_lock(layout, 'state', _PATIENCE_SECONDS):
        try:
            unchanged = before.version and before.version == version_of(layout)
            state = before if unchanged else load(layout)
        except errors.Damaged as error:
            records.set_aside(layout.state, error)
            state = State()
            # Any of them may have been used a moment ago.
            used = {file.name for file in files}
        last_pass = state.clocks.get(host)
        jumped = last_pass is not None and clock.jump(last_pass, now)
        if jumped:
            # How old they are is not known any more, so they age from here.
            used = {file.name for file in files}
        # What could not be looked at in this pass may be there in the next.
        sightings = {
            name: sighting
            for name, sighting in state.files.items()
            if not statuses.gone(layout.file(name))
        }
        for file in files:
            sighting = updated(
                file,
                state.sighting(file),
                now,
                file.name in used,
                images.get(file.name),
                histories.get(file.name),
            )
            if jumped and sighting.trashed:
                sighting = dataclasses.replace(sighting, trashed=now)
            sightings[file.name] = sighting
        state = State(
            {**state.clocks, host: now},
            sightings,
            now if relieved else state.relieved,
        )
        records.save(layout, layout.state, _KIND, _VERSION, _encode(state))


def amend(layout: layouts.Layout, change: Callable[[State], State]) -> None:
    """Change what is remembered, with nobody else doing so meanwhile.

    :raises nova_imagecache.errors.Error: it is damaged, or its lock cannot be
        had
    :raises OSError: it cannot be read or saved
    """
    with locks.manager_lock(layout, 'state', _PATIENCE_SECONDS):
        after = change(load(layout))
        records.save(layout, layout.state, _KIND, _VERSION, _encode(after))


def sight(
    layout: layouts.Layout,
    now: clock.Instant,
    files: Collection[scan.CachedFile],
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
        sightings = {
            file.name: updated(file, None, now)
            for file in new
            if current.sighting(file) is None
        }
        return dataclasses.replace(
            current, files={**current.files, **sightings}
        )

    if new:
        amend(layout, add)
    return state


def version_of(layout: layouts.Layout) -> statuses.Status | None:
    try:
        return statuses.status_of(layout.state, fresh=True)
    except FileNotFoundError:
        return None
