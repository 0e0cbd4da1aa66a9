# SPDX-License-Identifier: Apache-2.0

"""The witness that reads the headers of all disks below instances_path."""

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import json
import os
import stat
import time

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import status as statuses
from nova_imagecache import names
from nova_imagecache.witnesses import disk_header
from nova_imagecache.witnesses import testimony as testimonies

# How often what changed during the scan is scanned again before giving up.
_ROUNDS = 10

# A disk without a backing file that was written so lately may get one yet.
_FRESH_SECONDS = 60
_HEADER_SIZE = 4096

_DISK_INFO = 'disk.info'
_DISK_INFO_LIMIT = 1024 * 1024

# Nova renames the directory of a guest that is resized or deleted.
_SUFFIXES = ('_del', '_resize')

#: A directory as it was listed: when it differs, entries may have come.
_Stamp = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class _Disk:
    """A file that needs others.

    :ivar needs: their names, without any path
    """

    directory: str
    name: str
    guest: str
    needs: frozenset[str]

    @property
    def path(self) -> str:
        """Where it is."""
        return os.path.join(self.directory, self.name)


@dataclasses.dataclass(frozen=True)
class Chain:
    """One disk of a guest over a base file.

    :ivar paths: of the disk and of those between it and the base file, the
        top one first
    """

    guest: str
    paths: tuple[str, ...]


def _is_no_disk(name: str) -> bool:
    # Logs and vTPM state are not even readable for the compute service.
    return name.startswith('console.log') or name in (_DISK_INFO, 'swtpm')


def _stamp(directory: str) -> _Stamp:
    # Opened, because NFS answers a bare stat from its cache.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return (
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _declared_raw(directory: str, name: str) -> bool:
    """Whether Nova has noted that it opens this disk as a raw one.

    See ``write_to_disk_info_file`` in nova/virt/libvirt/imagebackend.py. The
    guest owns every byte of such a disk, so a header in it is no promise.
    """
    try:
        fd = statuses.open_regular(os.path.join(directory, _DISK_INFO))
        with os.fdopen(fd, 'rb') as file:
            formats = json.loads(file.read(_DISK_INFO_LIMIT))
        return any(
            os.path.basename(path) == name and form == 'raw'
            for path, form in formats.items()
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _guest(root: str, directory: str, name: str) -> str:
    """Name the guest that a file belongs to."""
    if directory == root:
        return name
    guest = os.path.relpath(directory, root).split(os.sep)[0]
    for suffix in _SUFFIXES:
        guest = guest.removesuffix(suffix)
    return guest


class OverlayWitness:
    """Who uses what, according to the disks below ``instances_path``.

    Every regular file in every directory counts, also in those of guests
    nobody knows. What a header names is compared with names of files and
    never opened. Disks that were once seen stay seen: this witness is made
    anew for each pass, and forgetting can only make it miss a user.
    """

    def __init__(self, layout: layouts.Layout) -> None:
        """Look at nothing yet."""
        self._layout = layout
        # Locks, our own files, and what fsck found, which is root's alone.
        self._not_guests = {
            layout.locks,
            layout.own,
            os.path.join(layout.instances, 'lost+found'),
            os.path.join(layout.base, 'lost+found'),
        }
        self._cache: tuple[int, int] | None = None
        self._directories: dict[str, _Stamp] = {}
        self._disks: dict[str, _Disk] = {}
        self._by_need: dict[str, set[str]] = {}
        self._cached: dict[str, tuple[int, int, int]] = {}
        self._fresh: set[str] = set()
        self._failures: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def look(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Scan everything, and say who needs these files."""
        with contextlib.suppress(OSError):
            self._cache = _stamp(self._layout.base)[:2]
        self._scan([self._layout.instances])
        for need in self._by_need.keys() - set(base_files):
            if names.kind_of(need).is_base:
                self._note_missing(need)
        return self._testify(base_files)

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Scan the directories that have changed since.

        And the disks that may just have been in the making: qemu-img writes
        the name of the backing file last, and in place.
        """
        fresh, self._fresh = self._fresh, set()
        pending = {*self._changed(), *map(os.path.dirname, fresh)}
        if pending:
            self._scan(list(pending))
        return self._testify(base_files)

    def _testify(self, base_files: Collection[str]) -> testimonies.Testimony:
        users = {name: self._users(name) for name in base_files}
        return testimonies.Testimony(
            users={name: guests for name, guests in users.items() if guests},
            failures=tuple(self._failures.values()),
            notes=tuple(self._notes.values()),
        )

    def _note_missing(self, need: str) -> None:
        for path in self._by_need[need]:
            self._note(path, f'needs {need}, which is not in the cache')

    def _users(self, base_file: str) -> testimonies.Guests:
        """Collect the guests of all disks from which a chain leads here."""
        guests = set()
        seen: set[str] = set()
        pending = list(self._by_need.get(base_file, ()))
        while pending:
            path = pending.pop()
            if path in seen:
                continue
            seen.add(path)
            disk = self._disks[path]
            if path != self._layout.file(base_file):
                guests.add(disk.guest)
            pending += self._above(disk)
        return frozenset(guests)

    def chains(self, base_file: str) -> list[Chain]:
        """Give the disks from which a chain leads to a base file.

        As :meth:`look` has found them: a disk that is the backing file of
        another one is part of that one's chain.
        """
        found = []
        pending: list[tuple[str, ...]] = [
            (path,) for path in sorted(self._by_need.get(base_file, ()))
        ]
        # Each disk once: forged headers could name each other in any number
        # of ways.
        seen = {path for (path,) in pending}
        while pending:
            paths = pending.pop()
            disk = self._disks[paths[0]]
            above = sorted(set(self._above(disk)) - seen)
            seen.update(above)
            pending += [(path, *paths) for path in above]
            if not above:
                found.append(Chain(disk.guest, paths))
        return sorted(found, key=lambda chain: chain.paths)

    def _above(self, disk: _Disk) -> Iterator[str]:
        """Find the disks that may have this one as their backing file.

        Every instance has a file called 'disk': one in the referrer's own
        directory is meant before any other.
        """
        for path in self._by_need.get(disk.name, ()):
            directory = self._disks[path].directory
            nearer = os.path.join(directory, disk.name)
            if directory == disk.directory or nearer not in self._disks:
                yield path

    def _scan(self, pending: list[str]) -> None:
        """Read directories until none has changed since it was read.

        A directory that is renamed, as Nova does for a resize, between the
        listing of its parent and its own is in neither.
        """
        for _round in range(_ROUNDS):
            while pending:
                pending += self._read_directory(pending.pop())
            pending = self._changed()
            if not pending:
                return
        self._fail(self._layout.instances, 'it changes faster than it is read')

    def _changed(self) -> list[str]:
        changed = []
        for directory, stamp in self._directories.items():
            try:
                if _stamp(directory) != stamp:
                    changed.append(directory)
            except OSError:
                changed.append(directory)
        return changed

    def _read_directory(self, directory: str) -> list[str]:
        """Read the disks in a directory; give the directories in it."""
        try:
            stamp = _stamp(directory)
            with os.scandir(directory) as entries:
                listed = list(entries)
        except OSError as error:
            self._directories.pop(directory, None)
            # Gone: its parent has changed, and will be read again.
            if (
                error.errno not in (errno.ENOENT, errno.ENOTDIR)
                or directory == self._layout.instances
            ):
                self._fail(directory, error.strerror)
            return []
        self._directories[directory] = stamp
        self._failures.pop(directory, None)
        found = []
        for entry in listed:
            self._failures.pop(entry.path, None)
            if entry.path in self._not_guests or _is_no_disk(entry.name):
                continue
            try:
                is_directory = entry.is_dir()
            except OSError as error:
                self._fail(entry.path, error.strerror)
                continue
            if is_directory:
                if entry.path not in self._directories and (
                    not entry.is_symlink() or self._may_follow(entry.path)
                ):
                    found.append(entry.path)
            elif stamp[:2] == self._cache:
                self._read_cached(directory, entry)
            else:
                self._read_disk(directory, entry)
        return found

    def _may_follow(self, link: str) -> bool:
        """Judge a link to a directory.

        A guest's directory may be on another disk. A link to somewhere in
        here leads to nothing new; any other may lead to all the files there
        are.
        """
        root = os.path.realpath(self._layout.instances)
        target = os.path.realpath(link)
        if os.path.commonpath([root, target]) == root:
            return False
        below_root = os.path.dirname(link) == self._layout.instances
        if not below_root or os.path.commonpath([root, target]) == target:
            self._fail(link, f'it links to {target}, which is not looked into')
            return False
        return True

    def _read_disk(self, directory: str, entry: os.DirEntry[str]) -> None:
        try:
            if entry.is_file() or entry.is_symlink():
                self._note_disk(directory, entry)
        except FileNotFoundError:
            # Gone, so the directory has changed; but what a dangling link
            # points to may be on a disk that is not mounted.
            if os.path.islink(entry.path):
                self._fail(entry.path, 'it points to nothing')
        except OSError as error:
            self._fail(entry.path, error.strerror)
        except disk_header.MalformedHeader as error:
            if not _declared_raw(directory, entry.name):
                self._fail(entry.path, f'its header is damaged: {error}')

    def _read_cached(self, directory: str, entry: os.DirEntry[str]) -> None:
        """Read a file in the cache, which may be part of a chain itself.

        Nova refuses images with a backing file, so none is expected of a
        base file, and one that cannot be read is no reason to distrust the
        guests' disks.
        """
        kind = names.kind_of(entry.name)
        if kind is names.Kind.OTHER:
            self._read_disk(directory, entry)
        if not kind.is_base:
            return
        try:
            # Each removal changes the directory, and not what is still in it.
            status = entry.stat(follow_symlinks=False)
            version = (status.st_ino, status.st_ctime_ns, status.st_mtime_ns)
            if self._cached.get(entry.name) == version:
                return
            self._note_disk(directory, entry)
            self._cached[entry.name] = version
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(entry.path, f'cannot be read: {error.strerror}')
        except disk_header.MalformedHeader as error:
            self._note(entry.path, f'has a damaged header: {error}')

    def _note_disk(self, directory: str, entry: os.DirEntry[str]) -> None:
        """Note what a disk needs: what its header names, or it links to."""
        needs: frozenset[str] = frozenset()
        if entry.is_file():
            needs = self._needs(entry.path)
        if entry.is_symlink():
            # What a link leads to may be a device: not even opened.
            os.stat(entry.path)
            for target in (
                os.readlink(entry.path),
                os.path.realpath(entry.path),
            ):
                needs |= disk_header.file_names(target)
        if not needs:
            return
        in_cache = directory == self._layout.base
        root = directory if in_cache else self._layout.instances
        guest = _guest(root, directory, entry.name)
        disk = _Disk(directory, entry.name, guest, needs)
        self._disks[disk.path] = disk
        for need in needs:
            self._by_need.setdefault(need, set()).add(disk.path)

    def _needs(self, path: str) -> frozenset[str]:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return frozenset()
            header = disk_header.read_header(fd)
        finally:
            os.close(fd)
        needs: frozenset[str] = frozenset()
        for reference in (header.backing_file, header.data_file):
            if reference is not None:
                needs |= disk_header.file_names(reference)
        # A guest's raw disk has a header no more than it had a moment ago.
        unfinished = header.format != 'raw' or status.st_size < _HEADER_SIZE
        age = time.time() - status.st_mtime
        if not needs and unfinished and age < _FRESH_SECONDS:
            self._fresh.add(path)
        return needs

    def _fail(self, path: str, problem: object) -> None:
        self._failures[path] = f'{names.printable(path)}: {problem}'

    def _note(self, path: str, problem: str) -> None:
        self._notes[path] = f'{names.printable(path)} {problem}'
