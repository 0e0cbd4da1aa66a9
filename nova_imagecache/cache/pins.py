# SPDX-License-Identifier: Apache-2.0

"""Pins: base files that an operator wants to keep, used or not.

The name of a record is the pin (decision 0049).
"""

import dataclasses
import errno
import os

from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache import errors
from nova_imagecache import names


@dataclasses.dataclass(frozen=True)
class Pin:
    """One base file that is to stay.

    :ivar image: the image that was named, if one was
    :ivar since: in seconds since the epoch, where it is known
    """

    name: str
    image: str | None = None
    since: float | None = None


@dataclasses.dataclass(frozen=True)
class _Record:
    """A pin on the disk; see :class:`Pin`."""

    image: str | None
    since: float


_FORMAT = records.Format('pin', 1, _Record)


def load(layout: layouts.Layout) -> frozenset[str]:
    """Give the names of all base files that are pinned.

    :raises OSError: they cannot be listed
    """
    try:
        found = os.listdir(layout.pins)
    except FileNotFoundError:
        return frozenset()
    return frozenset(name for name in found if names.kind_of(name).is_base)


def describe(layout: layouts.Layout) -> list[Pin]:
    """Give all pins, by name.

    :raises OSError: they cannot be listed
    """
    return [_read(layout, name) for name in sorted(load(layout))]


def _read(layout: layouts.Layout, name: str) -> Pin:
    try:
        record = _FORMAT.load(os.path.join(layout.pins, name))
    except (errors.Damaged, errors.Newer, OSError):
        record = None
    return Pin(name, record.image, record.since) if record else Pin(name)


def _check(layout: layouts.Layout) -> None:
    intruder = directories.intruder(layout)
    if intruder is not None:
        raise NotADirectoryError(errno.ENOTDIR, intruder)


def pin(layout: layouts.Layout, new: Pin, now: clocks.Instant) -> bool:
    """Keep a base file, which need not be there yet.

    :returns: whether it was not pinned before
    :raises OSError: this cannot be noted
    """
    _check(layout)
    if new.name in load(layout):
        return False
    path = os.path.join(layout.pins, new.name)
    _FORMAT.save(layout, path, _Record(new.image, now.wall))
    return True


def unpin(layout: layouts.Layout, name: str) -> bool:
    """Let a base file go when nobody uses it.

    :returns: whether it was pinned
    :raises OSError: this cannot be noted
    """
    _check(layout)
    try:
        os.unlink(os.path.join(layout.pins, name))
    except FileNotFoundError:
        return False
    publish.sync_directory(layout.pins)
    return True
