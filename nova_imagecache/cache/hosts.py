# SPDX-License-Identifier: Apache-2.0

"""The hosts that share a cache, and what the guests of each need of it.

Where the disks of guests are local to each host, nobody else can see what
those of a host need, and it may be away for any time. So what it has noted
holds until it says otherwise itself (decision 0080).
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import logging
import os
import urllib.parse

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import publish
from nova_imagecache.cache import records
from nova_imagecache import errors

LOG = logging.getLogger(__name__)

#: Seconds after which a host that made no pass counts as away, as for
#: nova/virt/storage_users.py.
AWAY_SECONDS = 24 * 3600

# A use that was noted so lately may be of a disk that is still being made, and
# a note of it is not written again for a part of that.
_GRACE_SECONDS = 3600
_AGAIN_SECONDS = 600

# Nobody holds the lock of a record for longer than it takes to write it.
_PATIENCE_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Host:
    """What a host has noted of itself.

    Times are in seconds since the epoch, by its clock.

    :ivar passed: when it made its last pass
    :ivar complete: when it made the last one in which it could see everything
    :ivar blind: whether there was something in the last one that may need
        anything
    :ivar root: inode of its ``instances_path``, where the cache is on the
        file system of that
    :ivar below: base files that disks of its guests need which whoever shares
        ``instances_path`` can see, and when that was seen
    :ivar beyond: those that its guests need otherwise
    """

    name: str
    passed: float | None = None
    complete: float | None = None
    blind: bool = False
    root: int | None = None
    below: Mapping[str, float] = dataclasses.field(default_factory=dict)
    beyond: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def needs(self, in_sight: bool = False) -> frozenset[str]:
        """Give the base files that it needs, as far as nobody else can tell.

        :param in_sight: whether who asks has the same ``instances_path``
        """
        if in_sight:
            return frozenset(self.beyond)
        return frozenset({*self.below, *self.beyond})

    @property
    def heard(self) -> float | None:
        """When it was heard of last."""
        times = [*self.below.values(), *self.beyond.values()]
        if self.passed is not None:
            times.append(self.passed)
        return max(times, default=None)

    def is_away(self, now: float) -> bool:
        """Whether it was not heard of for a day."""
        return self.heard is not None and now - self.heard > AWAY_SECONDS


@dataclasses.dataclass(frozen=True)
class _Record:
    """A host on the disk; see :class:`Host`."""

    name: str
    passed: float | None
    complete: float | None
    blind: bool
    root: int | None
    below: dict[str, float]
    beyond: dict[str, float]


_FORMAT = records.Format('host', 1, _Record, limit=64 * 2**20)


def record_path(directory: str, name: str) -> str:
    """Give the path of the record of a host, in a directory of such."""
    quoted = urllib.parse.quote(name, safe='', errors='surrogateescape')
    # No host has the name of a record that was set aside.
    suffix = records.DAMAGED_SUFFIX
    quoted = quoted.replace(suffix, suffix.replace('.', '%2E'))
    return os.path.join(directory, f'_{quoted}')


def _path(layout: layouts.Layout, name: str) -> str:
    return record_path(layout.hosts, name)


def _load(path: str) -> Host | None:
    record = _FORMAT.load(path)
    return None if record is None else Host(**vars(record))


def _save(layout: layouts.Layout, host: Host) -> None:
    record = _Record(
        **{
            **vars(host),
            'below': dict(host.below),
            'beyond': dict(host.beyond),
        }
    )
    _FORMAT.save(layout, _path(layout, host.name), record)


def root_of(layout: layouts.Layout) -> int | None:
    """Give the inode of ``instances_path``; None of another file system.

    Whoever shares a cache that is in the same file system as the disks sees
    the same disks.
    """
    try:
        instances = os.stat(layout.instances)
        if os.stat(layout.base).st_dev != instances.st_dev:
            return None
    except OSError:
        return None
    return instances.st_ino


def names_of(layout: layouts.Layout) -> list[str]:
    """Name the hosts that have noted anything, sorted.

    :raises OSError: they cannot be listed
    """
    try:
        found = os.listdir(layout.hosts)
    except FileNotFoundError:
        return []
    decoded = {
        file: urllib.parse.unquote(file[1:], errors='surrogateescape')
        for file in found
    }
    # What is not the name that a host would have is no record of one.
    return sorted(
        name
        for file, name in decoded.items()
        if _path(layout, name) == os.path.join(layout.hosts, file)
    )


def in_other_caches(layout: layouts.Layout) -> frozenset[str]:
    """Name those that have noted anything in other caches beside this one.

    Each directory in ``instances_path`` is looked into.

    :raises OSError: they cannot be listed
    """
    found: set[str] = set()
    with os.scandir(layout.instances) as entries:
        for entry in entries:
            if entry.path != layout.base:
                with contextlib.suppress(OSError):
                    found.update(
                        names_of(layouts.Layout(layout.instances, entry.path))
                    )
    return frozenset(found)


def load(layout: layouts.Layout, name: str) -> Host:
    """Recall what a host has noted, which may be nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    return _load(_path(layout, name)) or Host(name)


def remember(
    layout: layouts.Layout,
    name: str,
    now: float,
    below: frozenset[str],
    beyond: frozenset[str],
    complete: bool,
    blind: bool = False,
) -> None:
    """Note what the guests of a host need, as a pass of it has seen.

    :param now: when the pass began to look
    :param complete: whether it could see everything: then what it did not see
        is needed no more, unless that was noted a moment ago
    :param blind: whether there was something that may need anything
    :raises nova_imagecache.errors.Error: the lock cannot be had, or a newer
        release has written the record; or it is damaged, and this pass could
        not see what was in it
    :raises OSError: it was not saved
    """

    def renewed(
        old: Mapping[str, float], seen: frozenset[str]
    ) -> dict[str, float]:
        # A clock that was ahead is no reason to keep anything for longer.
        kept = {
            each: min(when, now)
            for each, when in old.items()
            if not complete or when > now - _GRACE_SECONDS
        }
        return {**kept, **dict.fromkeys(seen, now)}

    with locks.manager_lock(layout, 'hosts', _PATIENCE_SECONDS):
        try:
            old = load(layout, name)
        except errors.Damaged as error:
            if not complete:
                raise
            records.set_aside(_path(layout, name), error)
            old = Host(name)
        _save(
            layout,
            Host(
                name,
                now,
                now if complete else old.complete,
                blind,
                root_of(layout),
                renewed(old.below, below),
                renewed(old.beyond, beyond),
            ),
        )


def note_use(
    layout: layouts.Layout, name: str, base_file: str, now: float
) -> None:
    """Note that a host makes a disk from a base file, before a pass sees it.

    Best effort: what goes wrong here keeps no guest from being built. Nothing
    is noted before the first pass over a cache, whoever makes that.

    :param now: in seconds since the epoch
    """
    try:
        if not os.path.isdir(layout.hosts):
            return
        noted = load(layout, name).below.get(base_file)
        if noted is not None and 0 <= now - noted < _AGAIN_SECONDS:
            return
        with locks.manager_lock(layout, 'hosts', _PATIENCE_SECONDS):
            old = load(layout, name)
            _save(
                layout,
                dataclasses.replace(
                    old,
                    below={**old.below, base_file: now},
                    root=root_of(layout) if old.passed is None else old.root,
                ),
            )
    except (errors.Error, OSError) as error:
        LOG.debug('That %s uses %s is not noted: %s', name, base_file, error)


def forget(layout: layouts.Layout, name: str) -> bool:
    """Forget what a host has noted, as it will not come back.

    :returns: whether it had noted anything
    :raises nova_imagecache.errors.Error: the lock cannot be had
    :raises OSError: the record cannot be removed
    """
    with locks.manager_lock(layout, 'hosts', _PATIENCE_SECONDS):
        path = _path(layout, name)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        publish.sync_directory(os.path.dirname(path))
    return True
