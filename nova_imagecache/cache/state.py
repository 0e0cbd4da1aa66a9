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

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache import clock
from nova_imagecache import errors

_KIND = 'state'
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Sighting:
    """What is remembered of one incarnation of a file.

    :ivar first_seen: when a pass saw it first, seconds since the epoch
    :ivar last_used: when a pass last saw a user of it, or a touch whose time
        was in the future; None if never
    :ivar modified: its mtime in nanoseconds, as the last pass saw it
    """

    key: tuple[int, int | None, int | None]
    first_seen: float
    last_used: float | None
    modified: int


@dataclasses.dataclass(frozen=True)
class State:
    """All that is remembered.

    :ivar clocks: when each host that shares the cache made its last pass
    :ivar files: by name
    """

    clocks: Mapping[str, clock.Instant] = dataclasses.field(
        default_factory=dict
    )
    files: Mapping[str, Sighting] = dataclasses.field(default_factory=dict)

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


def _decode(body: Mapping[str, Any]) -> State:
    try:
        return State(
            clocks={
                host: clock.Instant(*instant)
                for host, instant in body['clocks'].items()
            },
            files={
                name: Sighting(tuple(key), first_seen, last_used, modified)
                for name, (key, first_seen, last_used, modified) in body[
                    'files'
                ].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise errors.Damaged('its fields are not those of a state') from None


def load(layout: layouts.Layout) -> State:
    """Read what earlier passes remembered; a first pass finds nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    body = records.load(layout.state, _KIND, _VERSION)
    return State() if body is None else _decode(body)


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
        first_seen=old.first_seen if old else now,
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
    :raises nova_imagecache.errors.Locked: another manager is writing; it
        sees the same users
    :raises OSError: it was not saved
    """
    with locks.manager_lock(layout, 'state'):
        try:
            state = load(layout)
        except errors.Damaged as error:
            records.set_aside(layout.state, error)
            state = State()
            # Any of them may have been used a moment ago.
            used = {file.name for file in files}
        sightings = {
            file.name: _updated(
                file, state.sighting(file), file.name in used, now.wall
            )
            for file in files
        }
        body = {
            'clocks': {
                name: dataclasses.astuple(instant)
                for name, instant in {**state.clocks, host: now}.items()
            },
            'files': {
                name: dataclasses.astuple(sighting)
                for name, sighting in sightings.items()
            },
        }
        records.save(layout, layout.state, _KIND, _VERSION, body)
