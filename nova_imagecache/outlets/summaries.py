# SPDX-License-Identifier: Apache-2.0

"""The figures of the last pass of a host, and what it has removed in all.

A pass leaves them in a small record, whatever the size of the cache, so that
who shows them reads nothing else, and no disk.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import enum
import logging
import os
from typing import Any
import urllib.parse

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.content import incidents
from nova_imagecache import errors

LOG = logging.getLogger(__name__)

#: Of a file that is good, under guests that have disks over an earlier one.
MADE_ANEW = 'made_anew'

# Files that are named one by one, and guests of each.
MOST_NAMED = 20
MOST_GUESTS = 10

# Nobody holds the lock for longer than it takes to write a record.
_PATIENCE_SECONDS = 5


class Cause(enum.StrEnum):
    """Why a base file was removed: a fixed list."""

    UNUSED = 'unused'
    SPACE = 'space'
    LEFTOVER = 'leftover'
    DAMAGED = 'damaged'


class Use(enum.StrEnum):
    """What becomes of the files that a pass has seen."""

    USED = 'used'
    UNUSED = 'unused'
    TRASHED = 'trash'


@dataclasses.dataclass(frozen=True)
class Amount:
    """Some files, and the bytes of them that are meant."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: 'Amount') -> 'Amount':
        """Put both together."""
        return Amount(self.files + other.files, self.bytes + other.bytes)


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A file that guests may be hit by.

    :ivar verdict: what is wrong with its content, or :data:`MADE_ANEW`
    :ivar bytes: of it that are bad
    :ivar readers: guests of which a disk or a domain shows that they read it
    :ivar guests: some of these, each with its name behind it if it is known
    :ivar image_name: what people call the image, where it is known
    """

    name: str
    image: str | None
    verdict: str
    reason: str
    bytes: int
    readers: int
    guests: tuple[str, ...]
    image_name: str | None = None


@dataclasses.dataclass(frozen=True)
class Named:
    """A base file of an image."""

    name: str
    image: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a pass has seen and done, in figures.

    Times are in seconds since the epoch.

    :ivar ended: when the pass was through
    :ivar seconds: that it took
    :ivar usage: by kind and use, as ``original/used``
    :ivar vetoed: things that keep all unused files, by reason
    :ivar withheld: things that keep some of them, by reason
    :ivar vetoed_since: since when there was one in each pass
    :ivar last_removal: when a file was last removed or deleted by anybody
    :ivar removed: in all, by cause
    :ivar shortfall: bytes that should go to make room, and cannot
    :ivar checksums: whether base files are to be verified
    :ivar verified: bytes that are, of ``size``
    :ivar oldest: when the oldest verification was
    :ivar overdue: what should have been verified long since
    :ivar needed: bytes per second that it takes to verify all in time
    :ivar limit: bytes per second that are allowed, 0 for no limit
    :ivar damage: files that guests may be hit by, and their bad bytes, by
        verdict
    :ivar exposed: guests, by what becomes of the bad bytes in them
    :ivar damaged: the first of these files, those first that guests read
    :ivar unnamed: how many more there are
    :ivar hosts: that share the cache
    :ivar vetoes: why unused files are kept, some sentences, each behind its
        code in brackets
    :ivar problems: what could not be done, likewise
    :ivar images: the base files of images, where that was asked for
    """

    host: str
    ended: float
    seconds: float
    usage: dict[str, Amount]
    vetoed: dict[str, int]
    withheld: dict[str, int]
    vetoed_since: float | None
    last_removal: float | None
    removed: dict[str, Amount]
    shortfall: int
    checksums: bool
    size: int
    verified: int
    oldest: float | None
    overdue: Amount
    needed: float
    limit: float
    damage: dict[str, Amount]
    exposed: dict[str, int]
    damaged: tuple[Damaged, ...]
    unnamed: int
    hosts: int
    vetoes: tuple[str, ...]
    problems: tuple[str, ...]
    images: tuple[Named, ...]


def _from_1(body: records.Values) -> records.Values:
    """Tell what images are called, which nobody has noted so far."""
    damaged = [{**each, 'image_name': None} for each in body['damaged']]
    return {**body, 'damaged': damaged}


# With the names of 10,000 base files it has 2 MiB.
_FORMAT = records.Format(
    'summary', 2, Summary, {1: _from_1}, lasting=False, limit=16 * 2**20
)


def path_of(layout: layouts.Layout, host: str) -> str:
    """Give the path of the summary of a host."""
    name = urllib.parse.quote(host, safe='', errors='surrogateescape')
    return os.path.join(layout.summaries, f'_{name}')


def load(layout: layouts.Layout, host: str) -> Summary | None:
    """Read what the last pass of a host has left; None before the first one.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    return _FORMAT.load(path_of(layout, host))


class Reader:
    """Reads records again and again, and decodes those that are others.

    With the names of 10,000 base files that takes longest.
    """

    def __init__(self) -> None:
        """Read nothing yet."""
        self._read: dict[str, tuple[identity.Stat, Any]] = {}

    def load(self, layout: layouts.Layout, host: str) -> Summary | None:
        """Read a summary as :func:`load` does."""
        path = path_of(layout, host)
        found: Summary | None = self._load(path, lambda: load(layout, host))
        return found

    def load_incidents(self, layout: layouts.Layout) -> incidents.Incidents:
        """Read the incidents as :func:`incidents.load` does."""
        found: incidents.Incidents | None = self._load(
            layout.incidents, lambda: incidents.load(layout)
        )
        return found or incidents.Incidents()

    def _load(self, path: str, load: Callable[[], Any]) -> Any:
        try:
            # Before it is read: what is published meanwhile is another one.
            version = identity.stat_of(path, fresh=True)
        except FileNotFoundError:
            return None
        known = self._read.pop(path, None)
        if known is None or known[0] != version:
            known = version, load()
        self._read[path] = known
        return known[1]


def put(layout: layouts.Layout, host: str, summary: Summary) -> None:
    """Write a summary, whatever is there.

    :raises OSError: it was not saved
    """
    _FORMAT.save(layout, path_of(layout, host), summary)


def load_or_begin(layout: layouts.Layout, host: str) -> Summary | None:
    """Read a summary; one that is of no use is as good as none.

    :raises OSError: it cannot be read
    """
    try:
        return load(layout, host)
    except errors.Damaged as error:
        records.set_aside(path_of(layout, host), error)
    except errors.Newer as error:
        LOG.warning('[P13] %s: %s', path_of(layout, host), error)
    return None


def locked(
    layout: layouts.Layout,
) -> contextlib.AbstractContextManager[None]:
    """Have nobody else change a summary meanwhile.

    :raises nova_imagecache.errors.NotNow: the lock cannot be had
    """
    return locks.manager_lock(layout, 'summaries', _PATIENCE_SECONDS)


def forget(layout: layouts.Layout, host: str) -> None:
    """Forget the figures of a host.

    :raises OSError: the record cannot be removed
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path_of(layout, host))


def note_damaged(layout: layouts.Layout, host: str, size: int) -> None:
    """Count a bad file that was set aside between two passes.

    Best effort: what goes wrong here keeps no guest from being built.

    :param size: bytes that it takes
    """
    try:
        with locked(layout):
            summary = load(layout, host)
            if summary is None:
                return
            before = summary.removed.get(Cause.DAMAGED, Amount())
            removed = {
                **summary.removed,
                str(Cause.DAMAGED): before + Amount(1, size),
            }
            put(layout, host, dataclasses.replace(summary, removed=removed))
    except (errors.Error, OSError) as error:
        LOG.debug('That a bad file went is not counted: %s', error)
