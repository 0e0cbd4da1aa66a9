# SPDX-License-Identifier: Apache-2.0

"""What a host has found below its ``instances_path``, for its next pass.

A disk that cannot be read keeps what it needed when it was read last, and a
mount that was there is missed when it is not. Each host has a record of its
own: its paths are its own.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import os
import urllib.parse

import msgspec

from nova_imagecache.cache import layouts
from nova_imagecache.cache import records


class Seen(msgspec.Struct, frozen=True):
    """A disk as it was read last.

    One is made of each disk in each pass (decision 0100).

    :ivar size: in bytes
    :ivar modified: its mtime in nanoseconds
    :ivar needs: names of the files that it needs, sorted
    :ivar astray: whether it stands on something that was not to be seen
    :ivar changed: its ctime in nanoseconds; 0 where an earlier release has
        noted it
    :ivar as_raw: whether it has QEMU read what it needs as raw disks
    """

    inode: int
    size: int
    modified: int
    needs: tuple[str, ...]
    astray: bool = False
    changed: int = 0
    as_raw: bool = False

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Whether a file is what it was; who owns it matters to nobody."""
        return (self.inode, self.size, self.modified) == (
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
        )


#: A directory as it was listed: inode, mtime and ctime, in nanoseconds.
Version = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What a host has found.

    :ivar root: inode of its ``instances_path``
    :ivar mount: the mount point that this is below
    :ivar mounts: others that there was a disk on
    :ivar disks: by path
    :ivar directories: those that were listed, by path, as they were; None for
        those with more in them than disks that name a base file, or nothing
    :ivar bases: base files that need no other file, by name: inode and size
    :ivar looked: when all of that was begun to be read, and nothing believed;
        seconds since the epoch
    :ivar ignored: the patterns of what was not looked into
    """

    root: int | None = None
    mount: str | None = None
    mounts: tuple[str, ...] = ()
    disks: Mapping[str, Seen] = dataclasses.field(default_factory=dict)
    directories: Mapping[str, Version | None] = dataclasses.field(
        default_factory=dict
    )
    bases: Mapping[str, tuple[int, int]] = dataclasses.field(
        default_factory=dict
    )
    looked: float | None = None
    ignored: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Record:
    """An inventory on the disk; see :class:`Inventory`."""

    root: int | None
    mount: str | None
    mounts: tuple[str, ...]
    disks: dict[str, Seen]
    directories: dict[str, Version | None]
    bases: dict[str, tuple[int, int]]
    looked: float | None
    ignored: tuple[str, ...]


def _from_1(body: records.Values) -> records.Values:
    """Believe nothing, as nothing was noted that could be."""
    return {
        **body,
        'directories': {},
        'bases': {},
        'looked': None,
        'ignored': [],
    }


def _condense(body: _Record) -> None:
    """Have each name of a base file be there once."""
    names = {name: name for name in body.bases}
    for seen in body.disks.values():
        if seen.needs:
            needs = tuple([names.get(name, name) for name in seen.needs])
            # Nobody else has it yet.
            msgspec.structs.force_setattr(seen, 'needs', needs)


# 100,000 disks make 30 MiB.
_FORMAT = records.Format(
    'inventory',
    2,
    _Record,
    {1: _from_1},
    condense=_condense,
    limit=64 * 2**20,
)


def path_of(layout: layouts.Layout, host: str) -> str:
    """Give the path of the inventory of a host."""
    name = urllib.parse.quote(host, safe='')
    return os.path.join(layout.inventories, f'_{name}')


def load(layout: layouts.Layout, host: str) -> Inventory:
    """Recall what a host has found; a first pass has found nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    record = _FORMAT.load(path_of(layout, host))
    if record is None:
        return Inventory()
    return Inventory(**vars(record))


def save(
    layout: layouts.Layout, host: str, new: Inventory, old: Inventory
) -> None:
    """Remember what a host has found, if that is news.

    :raises OSError: it was not saved
    """
    if new != old:
        record = _Record(**vars(new))
        _FORMAT.save(layout, path_of(layout, host), record)


def forget(layout: layouts.Layout, host: str) -> None:
    """Forget what a host has found.

    :raises OSError: the record cannot be removed
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path_of(layout, host))
