# SPDX-License-Identifier: Apache-2.0

"""How often something has happened on a host: the size of a file is the count.

On the way to a disk a count may take no lock and no time, survives a kill at
any moment, and is worth no guest that is not built. So an event is one byte
appended to a file (decision 0092).
"""

import contextlib
import enum
import logging
import os
import stat
import urllib.parse

from nova_imagecache.cache import layouts

LOG = logging.getLogger(__name__)

# Neither a link nor a FIFO without a reader is written to.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = _FLAGS | os.O_CREAT | os.O_CLOEXEC
_MODE = 0o644


class Event(enum.StrEnum):
    """What is counted.

    HIT: an image was asked for, and its base file was in the cache.

    RESTORED: it came back from the trash.

    MISS: it was fetched.

    REFUSED: no disk was made, as the base file is known to be bad.
    """

    HIT = 'hit'
    RESTORED = 'restored'
    MISS = 'miss'
    REFUSED = 'refused'


def path_of(layout: layouts.Layout, host: str, event: Event) -> str:
    """Give the path of the file that counts an event on a host."""
    name = urllib.parse.quote(host, safe='', errors='surrogateescape')
    return os.path.join(layout.tallies, f'{event}_{name}')


def count(layout: layouts.Layout, host: str, event: Event) -> None:
    """Count an event.

    Best effort: nothing that goes wrong comes out of here. Nothing is counted
    before the first pass over a cache.
    """
    try:
        fd = os.open(path_of(layout, host, event), _CREATE, _MODE)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.write(fd, b'.')
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        LOG.debug('That there was a %s is not counted: %s', event, error)


def load(layout: layouts.Layout, host: str) -> dict[Event, int]:
    """Say how often each event has happened.

    :raises OSError: it cannot be told
    """
    counts = dict.fromkeys(Event, 0)
    for event in Event:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path_of(layout, host, event))
            if stat.S_ISREG(status.st_mode):
                counts[event] = status.st_size
    return counts


def forget(layout: layouts.Layout, host: str) -> None:
    """Forget what was counted on a host.

    :raises OSError: a file cannot be removed
    """
    for event in Event:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path_of(layout, host, event))
