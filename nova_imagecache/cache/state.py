# SPDX-License-Identifier: Apache-2.0

"""What one pass remembers for the next: sightings of files, and the clock.

The time of last use is kept in the file's mtime, where Nova looks for it, and
here as well: touching a file that belongs to QEMU's user, or one on NFS with
root squashed, is refused.
"""

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
from typing import Any

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import clock
from nova_imagecache import errors

LOG = logging.getLogger(__name__)

_KIND = 'state'
_VERSION = 1

# Nobody holds the state's lock for longer than it takes to write a file.
_PATIENCE_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Sighting:
    """What is remembered of one incarnation of a file.

    :ivar last_used: when a pass last saw a user of it, or a touch whose time
        was in the future, in seconds since the epoch; None if never
    :ivar modified: its mtime in nanoseconds, as the last pass saw it
    """

    key: statuses.Key
    last_used: float | None
    modified: int


@dataclasses.dataclass(frozen=True)
class State:
    """All that is remembered.

    :ivar clocks: when each host that shares the cache made its last pass
    :ivar files: by name
    :ivar version: of the file that this was read from
    """

    clocks: Mapping[str, clock.Instant] = dataclasses.field(
        default_factory=dict
    )
    files: Mapping[str, Sighting] = dataclasses.field(default_factory=dict)
    version: statuses.Status | None = None

    def sighting(self, file: scan.CachedFile) -> Sighting | None:
        """Recall this very file, and not another of the same name."""
        sighting = self.files.get(file.name)
        if sighting and sighting.key == file.status.incarnation.key:
            return sighting
        return None


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
        seen_before = sighting and sighting.modified == file.status.modified
        modified = 0.0 if seen_before else now
    if remembered is None or remembered > now:
        # The clock has been set back since; start counting again.
        remembered = 0.0 if remembered is None else now
    return max(modified, remembered)


def _decode_sighting(key: Any, last_used: Any, modified: Any) -> Sighting:
    return Sighting(
        statuses.decode_key(key),
        None if last_used is None else float(last_used),
        int(modified),
    )


def _decode(body: Mapping[str, Any]) -> State:
    try:
        return State(
            clocks={
                host: clock.Instant(float(wall), float(boottime), str(boot))
                for host, (wall, boottime, boot) in body['clocks'].items()
            },
            files={
                name: _decode_sighting(*fields)
                for name, fields in body['files'].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise errors.Damaged('its fields are not those of a state') from None


def _encode(state: State) -> records.Body:
    return {
        'clocks': {
            host: dataclasses.astuple(instant)
            for host, instant in state.clocks.items()
        },
        'files': {
            name: dataclasses.astuple(sighting)
            for name, sighting in state.files.items()
        },
    }


def load(layout: layouts.Layout) -> State:
    """Read what earlier passes remembered; a first pass finds nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    # Before reading: what is published meanwhile then counts as newer.
    version = _version(layout)
    body = records.load(layout.state, _KIND, _VERSION)
    if body is None:
        return State()
    return dataclasses.replace(_decode(body), version=version)


def _updated(
    file: scan.CachedFile, old: Sighting | None, used: bool, now: float
) -> Sighting:
    in_future = file.status.modified / 10**9 > now
    touched = old is None or old.modified != file.status.modified
    if used or (in_future and touched):
        last_used: float | None = now
    elif old and old.last_used is not None:
        last_used = min(old.last_used, now)
    else:
        last_used = None
    return Sighting(
        key=file.status.incarnation.key,
        last_used=last_used,
        modified=file.status.modified,
    )


def remember(
    layout: layouts.Layout,
    host: str,
    now: clock.Instant,
    files: Collection[scan.CachedFile],
    used: Collection[str],
) -> None:
    """Add this pass to what is remembered.

    :param files: what the pass found and left in place
    :param used: names of those that have a user
    :raises nova_imagecache.errors.NotNow: the lock of the state cannot be had
    :raises OSError: it was not saved
    """
    with locks.manager_lock(layout, 'state', _PATIENCE_SECONDS):
        try:
            state = load(layout)
        except errors.Damaged as error:
            records.set_aside(layout.state, error)
            state = State()
            # Any of them may have been used a moment ago.
            used = {file.name for file in files}
        # What could not be looked at in this pass may be there in the next.
        sightings = {
            name: sighting
            for name, sighting in state.files.items()
            if not statuses.gone(layout.file(name))
        }
        for file in files:
            sightings[file.name] = _updated(
                file, state.sighting(file), file.name in used, now.wall
            )
        state = State({**state.clocks, host: now}, sightings)
        records.save(layout, layout.state, _KIND, _VERSION, _encode(state))


def _version(layout: layouts.Layout) -> statuses.Status | None:
    try:
        return statuses.status_of(layout.state)
    except FileNotFoundError:
        return None


def used_since(
    layout: layouts.Layout, file: scan.CachedFile, state: State, now: float
) -> bool:
    """Whether a use was noted after a state was read.

    Cheap, as it is asked before each removal: usually nothing was written.

    :param now: when the state was read
    :raises OSError: this cannot be found out
    """
    if _version(layout) == state.version:
        return False
    try:
        sighting = load(layout).sighting(file)
    except errors.Damaged:
        return True
    last_used = sighting.last_used if sighting else None
    return last_used is not None and last_used >= now


def note_use(layout: layouts.Layout, name: str, now: float) -> None:
    """Remember that a file is used now, where touching it is refused.

    Best effort, as touching is: what cannot be written is not remembered.
    """
    try:
        status = statuses.status_of(layout.file(name))
        with locks.manager_lock(layout, 'state', _PATIENCE_SECONDS):
            state = load(layout)
            sighting = Sighting(status.incarnation.key, now, status.modified)
            state = State(state.clocks, {**state.files, name: sighting})
            records.save(layout, layout.state, _KIND, _VERSION, _encode(state))
    except (errors.Error, OSError) as error:
        LOG.warning(
            'The use of base file %(name)s can be noted neither in its '
            'timestamp nor in %(state)s: %(error)s',
            {'name': name, 'state': layout.state, 'error': error},
        )
