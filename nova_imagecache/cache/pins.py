# SPDX-License-Identifier: Apache-2.0

"""Pins: base files that an operator wants to keep, used or not.

The name of a record is the pin. What is in it is for people, so a pin whose
record is damaged holds all the same.
"""

import dataclasses
import errno
import os

from nova_imagecache.cache import directory
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import records
from nova_imagecache import clock as clocks
from nova_imagecache import errors
from nova_imagecache import names

_KIND = 'pin'
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Pin:
    """One base file that is to stay.

    :ivar image: the image that was named, if one was
    :ivar since: in seconds since the epoch, where it is known
    """

    name: str
    image: str | None = None
    since: float | None = None


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
        body = records.load(os.path.join(layout.pins, name), _KIND, _VERSION)
        if body is None:
            return Pin(name)
        image = body['image']
        return Pin(
            name, None if image is None else str(image), float(body['since'])
        )
    except (errors.Damaged, OSError, KeyError, TypeError, ValueError):
        return Pin(name)


def _check(layout: layouts.Layout) -> None:
    intruder = directory.intruder(layout)
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
    body = {'image': new.image, 'since': now.wall}
    records.save(layout, path, _KIND, _VERSION, body)
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
