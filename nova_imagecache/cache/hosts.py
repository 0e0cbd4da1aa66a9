# SPDX-License-Identifier: Apache-2.0

"""The hosts that share a cache, and what the guests of each need of it.

Where the disks of guests are local to each host, nobody else can see what
those of a host need, and it may be away for any time. So what it has noted
holds until it says otherwise itself (decision 0080).

A pass to which nothing is news writes down only when that was, in a small
record beside (decision 0099).
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

# After so many what is needed is written again in any case: who knows nothing
# of the small record does not take the host for away.
_RENEWED_SECONDS = AWAY_SECONDS / 2

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


@dataclasses.dataclass(frozen=True)
class _Heard:
    """The last pass of a host to which nothing was news.

    :ivar written: when the pass was made that wrote what is needed; where that
        is another one by now, this here is out of date
    :ivar passed: as in :class:`Host`
    :ivar complete: likewise
    """

    written: float
    passed: float
    complete: float | None


_FORMAT = records.Format('host', 1, _Record, limit=64 * 2**20)
# What it says protects nothing that the other one would not.
_HEARD_FORMAT = records.Format('heard', 1, _Heard, lasting=False)


def record_path(directory: str, name: str) -> str:
    """Give the path of the record of a host, in a directory of such."""
    quoted = urllib.parse.quote(name, safe='', errors='surrogateescape')
    # No host has the name of a record that was set aside.
    suffix = records.DAMAGED_SUFFIX
    quoted = quoted.replace(suffix, suffix.replace('.', '%2E'))
    return os.path.join(directory, f'_{quoted}')


def _path(layout: layouts.Layout, name: str) -> str:
    return record_path(layout.hosts, name)


def _heard_path(layout: layouts.Layout, name: str) -> str:
    return record_path(layout.heard, name)


def _recalled(record: _Record, heard: _Heard | None) -> Host:
    """Give what a host has noted, in both records."""
    if heard is None or heard.written != record.passed:
        return Host(**vars(record))
    written, passed = heard.written, heard.passed

    def seen(needed: dict[str, float]) -> dict[str, float]:
        # What the pass saw that wrote them, the last one has seen as well.
        return {
            each: passed if written <= when < passed else when
            for each, when in needed.items()
        }

    return Host(
        record.name,
        passed,
        heard.complete,
        record.blind,
        record.root,
        seen(record.below),
        seen(record.beyond),
    )


def _written(layout: layouts.Layout, name: str) -> Host:
    """Give what a host has noted of what it needs, as it was written."""
    record = _FORMAT.load(_path(layout, name))
    return Host(name) if record is None else _recalled(record, None)


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
    record = _FORMAT.load(_path(layout, name))
    if record is None:
        return Host(name)
    # Without this one it needs the same, and was heard of earlier.
    heard, _is_known = _last_heard(layout, name)
    return _recalled(record, heard)


def _last_heard(
    layout: layouts.Layout, name: str
) -> tuple[_Heard | None, bool]:
    """Recall the last pass to which nothing was news, if there was one.

    :returns: and whether that can be told
    """
    try:
        return _HEARD_FORMAT.load(_heard_path(layout, name)), True
    except (errors.Error, OSError) as error:
        LOG.debug('When %s passed last is not known: %s', name, error)
        return None, False


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
        record: _Record | None = None
        try:
            record = _FORMAT.load(_path(layout, name))
        except errors.Damaged as error:
            if not complete:
                raise
            records.set_aside(_path(layout, name), error)
        last, is_known = _last_heard(layout, name)
        old = Host(name)
        if record is not None:
            if not is_known:
                # What was seen may have been seen just now.
                last = _Heard(record.passed or now, now, record.complete)
            old = _recalled(record, last)
        new = Host(
            name,
            now,
            now if complete else old.complete,
            blind,
            root_of(layout),
            renewed(old.below, below),
            renewed(old.beyond, beyond),
        )
        heard = None if record is None else _no_news(record, new, now)
        if heard is None:
            _save(layout, new)
            if not is_known:
                heard = _Heard(now, now, new.complete)
        if heard is not None:
            _HEARD_FORMAT.save(layout, _heard_path(layout, name), heard)


def _no_news(record: _Record, new: Host, now: float) -> _Heard | None:
    """Give what says with a record what a pass has seen; None for news."""
    written = record.passed
    if written is None or not 0 <= now - written < _RENEWED_SECONDS:
        return None
    heard = _Heard(written, now, new.complete)
    return heard if _recalled(record, heard) == new else None


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
        # What is written there holds without the small record.
        noted = _written(layout, name).below.get(base_file)
        if noted is not None and 0 <= now - noted < _AGAIN_SECONDS:
            return
        with locks.manager_lock(layout, 'hosts', _PATIENCE_SECONDS):
            old = _written(layout, name)
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
        # In this order, as the second one says nothing without the first.
        was_there = _unlinked(_path(layout, name))
        _unlinked(_heard_path(layout, name))
    return was_there


def _unlinked(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    publish.sync_directory(os.path.dirname(path))
    return True
