# SPDX-License-Identifier: Apache-2.0

"""Files of which somebody says that no guest needs them.

Each is one incarnation: another file at the same path is not meant. A record
per host, as its paths are its own.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import os
import urllib.parse

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records

_PATIENCE_SECONDS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """The word of somebody on one file.

    :ivar key: which file it is of
    :ivar since: in seconds since the epoch
    """

    key: identity.Key
    since: float


Marks = Mapping[str, Mark]


@dataclasses.dataclass(frozen=True)
class _Record:
    """Marks on the disk, by the path of the file."""

    files: dict[str, Mark]


_FORMAT = records.Format('ignored', 1, _Record)


def path_of(layout: layouts.Layout, host: str) -> str:
    """Give the path of the marks of a host."""
    return os.path.join(
        layout.ignored, f'_{urllib.parse.quote(host, safe="")}'
    )


def load(layout: layouts.Layout, host: str) -> Marks:
    """Give the marks of a host, by the path of the file.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    record = _FORMAT.load(path_of(layout, host))
    return {} if record is None else record.files


def holds(marks: Marks, path: str) -> bool:
    """Whether the file at a path is the one that somebody has marked."""
    mark = marks.get(path)
    if mark is None:
        return False
    try:
        key = identity.stat_of(path).incarnation.key
    except OSError:
        return False
    return key == mark.key


def amend(
    layout: layouts.Layout, host: str, change: Callable[[Marks], Marks]
) -> None:
    """Change the marks of a host, with nobody else doing so meanwhile.

    :raises nova_imagecache.errors.Error: as :func:`load`, or the lock cannot
        be had
    :raises OSError: they cannot be read or saved
    """
    with locks.manager_lock(layout, 'ignored', _PATIENCE_SECONDS):
        record = _Record(dict(change(load(layout, host))))
        _FORMAT.save(layout, path_of(layout, host), record)
