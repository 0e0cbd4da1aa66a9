# SPDX-License-Identifier: Apache-2.0

"""Where a chain of disks leads.

It ends in a base file, in a scanned file, which says itself where it leads, or
out of sight. What a header names is never opened; where it is a path of this
host, which file that is may be asked of the file system (decision 0079).
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import os

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache import names
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import references

# The default of subdirectory_name, and what is often put behind it.
_LIKE_A_CACHE = '_base'

#: Device and inode.
FileId = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """Where a reference leads.

    :ivar base_file: name of the base file that it leads to
    :ivar sibling: the other cache that this one is in
    :ivar ours: whether it is of this cache, be it there or not
    :ivar problem: why it cannot be told, a clause
    """

    base_file: str | None = None
    sibling: str | None = None
    ours: bool = False
    problem: str | None = None


def _file_id(path: str) -> FileId | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_ours(layout: layouts.Layout, directory: str) -> bool:
    """Whether this is our cache, by a link or mounted there as well."""
    ours = _file_id(layout.base)
    return ours is not None and _file_id(directory) == ours


def is_sibling(layout: layouts.Layout, directory: str) -> bool:
    """Whether this is the cache of another host, beside ours.

    As ``subdirectory_name`` makes one, with the address of a host in it.
    """
    if os.path.dirname(directory) != layout.instances:
        return False
    if _is_ours(layout, directory):
        return False
    if os.path.basename(directory).startswith(_LIKE_A_CACHE):
        return os.path.isdir(directory)
    return os.path.isdir(os.path.join(directory, names.OWN_DIRECTORY))


def _tail(path: str) -> str:
    above, _slash, name = path.rpartition(os.sep)
    return above[above.rfind(os.sep) + 1 :] + os.sep + name


class Scanned:
    """The files that were scanned, by all that they may be known by."""

    def __init__(self) -> None:
        """Begin with none."""
        self._paths: set[str] = set()
        self._ids: set[FileId] = set()
        self._by_tail: dict[str, list[str]] = {}
        # Paths that are not in there yet: hardly anybody asks for any.
        self._others: list[str] = []

    def add(self, path: str, file_id: FileId | None) -> None:
        """Take a file in, at the path where it was found."""
        if path not in self._paths:
            self._paths.add(path)
            self._others.append(path)
        if file_id is not None:
            self._ids.add(file_id)

    def has(self, path: str, asking: str | None = None) -> bool:
        """Whether a file was scanned, be it under another path.

        Where this host has no such path, it may be that of a container or of
        another host: then the directory and the name tell.

        :param asking: path of the file that names it, and so is another one
        """
        if path in self._paths:
            return True
        file_id = _file_id(path)
        if file_id is not None:
            return file_id in self._ids
        return any(each != asking for each in self._called_alike(path))

    def _called_alike(self, path: str) -> Collection[str]:
        """Give those of that name in a directory of that name."""
        others, self._others = self._others, []
        for each in others:
            self._by_tail.setdefault(_tail(each), []).append(each)
        return self._by_tail.get(_tail(path), ())


class Ends:
    """Tells where references lead."""

    def __init__(self, layout: layouts.Layout, scanned: Scanned) -> None:
        """Take what there is.

        :param scanned: read when it is asked, so it may be added to
        """
        self._layout = layout
        self._scanned = scanned
        self._base_name = os.path.basename(layout.base)
        self._base_ids: Mapping[FileId, str] | None = None

    def of(self, disk: chains.Disk) -> Iterator[End]:
        """Say where all references of a disk lead."""
        for reference in disk.references:
            read = references.read(reference)
            if read.unknown is not None or not read.targets:
                why = f' ({read.unknown})' if read.unknown else ''
                yield End(problem=f'{names.printable(reference)}{why}')
            for target in read.targets:
                yield self.find(disk.path, target)

    def is_usual(self, disk: str, reference: references.Reference) -> bool:
        """Whether a reference leads to a base file as Nova makes it.

        Nothing is asked of the file system.
        """
        if reference.unknown is not None:
            return False
        for target in reference.targets:
            if not target.local or not self._is_usual(disk, target):
                return False
        return True

    def _is_usual(self, disk: str, target: references.Target) -> bool:
        above, _slash, name = target.path.rpartition(os.sep)
        if above == self._layout.base:
            return names.kind_of(name).is_base
        path = os.path.join(os.path.dirname(disk), target.path)
        # Where that leads depends on links.
        if os.pardir in path.split(os.sep):
            return False
        directory, name = os.path.split(os.path.normpath(path))
        return directory == self._layout.base and names.kind_of(name).is_base

    def find(self, disk: str, target: references.Target) -> End:
        """Say where one target of a reference leads.

        :param disk: path of the disk that has the reference
        """
        name = target.path.rstrip('/').rpartition('/')[2]
        is_base = names.kind_of(name).is_base
        if not target.local:
            end = self._by_name(name, target.path) if is_base else None
            return end or End(
                problem=f'{names.printable(target.path)}, which is no file '
                'of this host'
            )
        if self._is_usual(disk, target):
            return End(name, ours=True)
        path = os.path.join(os.path.dirname(disk), target.path)
        file_id = _file_id(path)
        if file_id is not None:
            if file_id in self._base_files:
                return End(self._base_files[file_id], ours=True)
            end = self._in_sibling(name, path, file_id) if is_base else None
        elif is_base and self._is_in_cache(path):
            end = End(name, ours=True)
        else:
            end = self._by_name(name, path) if is_base else None
        if end is not None:
            return end
        if self._scanned.has(path, disk):
            return End()
        return End(problem=names.printable(os.path.normpath(path)))

    def _in_sibling(self, name: str, path: str, file_id: FileId) -> End | None:
        """Tell the base file of another cache from a layer called so."""
        parent = os.path.basename(os.path.dirname(path))
        beside = os.path.join(self._layout.instances, parent)
        if (
            parent
            and _file_id(os.path.join(beside, name)) == file_id
            and is_sibling(self._layout, beside)
        ):
            return End(name, sibling=parent)
        return None

    def _by_name(self, name: str, path: str) -> End | None:
        """Judge what is called as a base file, and not on this host.

        It is gone, or it is the path of a container or of another host: then
        the directory has to be called as a cache.
        """
        above = os.path.dirname(os.path.normpath(path))
        parent = os.path.basename(above)
        if parent == self._base_name:
            return End(name, ours=True)
        beside = os.path.join(self._layout.instances, parent)
        if parent and is_sibling(self._layout, beside):
            return End(name, sibling=parent)
        if not parent.startswith(_LIKE_A_CACHE):
            return None
        if self._is_cached(name):
            return End(name, ours=True)
        # Another host's cache that is gone is that host's affair.
        if os.path.dirname(above) == self._layout.instances:
            return End(name, sibling=parent)
        return None

    def _is_in_cache(self, path: str) -> bool:
        directory = os.path.dirname(os.path.realpath(path))
        return _is_ours(self._layout, directory)

    def _is_cached(self, name: str) -> bool:
        return os.path.lexists(self._layout.file(name))

    @property
    def _base_files(self) -> Mapping[FileId, str]:
        """Give the names of all base files by what they are, once."""
        if self._base_ids is None:
            found = {}
            try:
                listed = os.listdir(self._layout.base)
            except OSError:
                listed = []
            for name in listed:
                file_id = _file_id(self._layout.file(name))
                if file_id is not None and names.kind_of(name).is_base:
                    found[file_id] = name
            self._base_ids = found
        return self._base_ids


@dataclasses.dataclass
class Followed:
    """Where all disks lead.

    :ivar astray: disks that stand on what is not to be seen, and on what
    :ivar missing: guests by the base file that is nowhere
    :ivar siblings: disks by the other cache that they use
    """

    astray: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    siblings: dict[str, set[str]] = dataclasses.field(default_factory=dict)


def follow(
    disks: Iterable[chains.Disk],
    ends: Ends,
    layout: layouts.Layout,
    base_files: Collection[str],
) -> Followed:
    """Follow each disk to what it stands on.

    :param base_files: names of those that are in the cache or in the trash
    """
    followed = Followed()
    there = frozenset(base_files)
    for disk in disks:
        if disk.directory == layout.base and names.kind_of(disk.name).is_base:
            continue
        if disk.usual and disk.needs <= there:
            continue
        for end in ends.of(disk):
            if end.problem is not None:
                followed.astray[disk.path] = end.problem
            elif end.sibling is not None:
                followed.siblings.setdefault(end.sibling, set()).add(disk.path)
            elif end.base_file is not None and end.base_file not in there:
                if os.path.lexists(layout.file(end.base_file)):
                    continue
                # Both may have gone since the disk was seen, in this order.
                if not identity.gone(disk.path):
                    guests = followed.missing.setdefault(end.base_file, set())
                    guests.add(disk.guest)
    return followed
