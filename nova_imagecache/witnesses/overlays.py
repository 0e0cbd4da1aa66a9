# SPDX-License-Identifier: Apache-2.0

"""The witness that reads the headers of all disks below instances_path."""

from collections.abc import Collection
import contextlib
import errno
import json
import os
import stat
import time

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import disk_header
from nova_imagecache.witnesses import testimonies

# How often what changed during the scan is scanned again before giving up.
_ROUNDS = 10

# A disk without a backing file that was written so lately may get one yet.
_FRESH_SECONDS = 60
_HEADER_SIZE = 4096

# As long as a directory may change without its times moving (decision 0032): a
# second or two, by a clock that may be a minute behind ours.
_TICK_NANOSECONDS = 62 * 10**9

_DISK_INFO = 'disk.info'
_DISK_INFO_LIMIT = 1024 * 1024

# Nova renames the directory of a guest that is resized or deleted.
_SUFFIXES = ('_del', '_resize')

#: A directory as it was listed: when it differs, entries may have come.
_Stamp = tuple[int, int, int, int]


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

    See ``write_to_disk_info_file`` in nova/virt/libvirt/imagebackend.py.
    """
    try:
        fd = identity.open_regular(os.path.join(directory, _DISK_INFO))
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
    guest = directory.removeprefix(root + os.sep).partition(os.sep)[0]
    for suffix in _SUFFIXES:
        guest = guest.removesuffix(suffix)
    return guest


def _read_as_root(
    path: str, read: host.ReadAsRoot
) -> tuple[os.stat_result, disk_header.DiskHeader]:
    """Read the header of a disk that this process may not open."""
    status = os.stat(path)

    def pread(length: int, offset: int) -> bytes:
        data = read(path, offset, length)
        # What is cut short would pass for a raw disk (decision 0052).
        if len(data) < min(length, status.st_size - offset):
            raise ValueError('it got less than is there')
        return data

    try:
        header = disk_header.read_header_from(
            disk_header.Source(pread, status.st_size)
        )
    except disk_header.MalformedHeader:
        raise
    # A broad net, as the function and what it raises are the host's.
    except Exception as error:
        # Gone is what is gone for us: root may be in another container.
        os.stat(path)
        raise PermissionError(
            errno.EACCES,
            f'{os.strerror(errno.EACCES)}, and reading it as root failed: '
            f'{names.printable(str(error) or repr(error))}',
        ) from error
    return status, header


class OverlayWitness:
    """Who uses what, according to the disks below ``instances_path``.

    Every regular file in every directory counts, also in those of guests
    nobody knows. What a header names is compared with names of files and
    never opened. Disks that were once seen stay seen: this witness is made
    anew for each pass, and forgetting can only make it miss a user.
    """

    def __init__(
        self,
        layout: layouts.Layout,
        read_as_root: host.ReadAsRoot | None = None,
    ) -> None:
        """Look at nothing yet.

        :param read_as_root: reads the headers of disks that this process may
            not open; without it, each of them is a failure
        """
        self._layout = layout
        self._read_as_root = read_as_root
        # Locks, our own files, and what fsck found, which is root's alone.
        self._not_guests = {
            layout.locks,
            layout.own,
            os.path.join(layout.instances, 'lost+found'),
            os.path.join(layout.base, 'lost+found'),
        }
        self._cache: tuple[int, int] | None = None
        self._directories: dict[str, _Stamp] = {}
        self._disks = chains.Disks()
        self._cached: dict[str, tuple[int, int, int]] = {}
        self._fresh: set[str] = set()
        self._recent: set[str] = set()
        self._vanished: set[str] = set()
        self._failures: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def look(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Scan everything, and say who needs these files."""
        with contextlib.suppress(OSError):
            self._cache = _stamp(self._layout.base)[:2]
        self._scan([self._layout.instances])
        for need in set(self._disks.needed) - set(base_files):
            if names.kind_of(need).is_base:
                self._note_missing(need)
        return self._testify(base_files)

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Scan the directories that have changed since.

        And the disks that may just have been in the making (decision 0031):
        qemu-img writes the name of the backing file in place.
        """
        fresh, self._fresh = self._fresh, set()
        recent, self._recent = self._recent, set()
        pending = {
            *self._changed(),
            *map(os.path.dirname, fresh),
            *(recent & self._directories.keys()),
        }
        if pending:
            self._scan(list(pending))
        return self._testify(base_files)

    def _testify(self, base_files: Collection[str]) -> testimonies.Testimony:
        users = {
            name: self._disks.users(name, self._layout.file(name))
            for name in base_files
        }
        return testimonies.Testimony(
            users={name: guests for name, guests in users.items() if guests},
            failures=tuple(self._failures.values()),
            notes=tuple(self._notes.values()),
        )

    def _note_missing(self, need: str) -> None:
        for path in self._disks.needing(need):
            self._note(path, f'needs {need}, which is not in the cache')

    def chains(self, base_file: str) -> list[chains.Chain]:
        """Give the disks that lead to a base file, as they were found."""
        return self._disks.chains(base_file)

    def _scan(self, pending: list[str]) -> None:
        """Read directories until none has changed since it was read."""
        missing: set[str] = set()
        # Decision 0006.
        for _round in range(_ROUNDS):
            while pending:
                pending += self._read_directory(pending.pop())
            missing, self._vanished = self._vanished, set()
            pending = list({*self._changed(), *map(os.path.dirname, missing)})
            if not pending:
                return
        for path in missing:
            self._fail(path, 'it is listed, and cannot be found')
        if self._layout.instances in pending:
            self._fail(
                self._layout.instances, 'it changes faster than it is read'
            )
        # What guests do in their own directories never ends on a large node.
        self._recent.update(pending)

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
            # Gone: its parent is read again, as what it was may be there
            # under another name.
            if (
                error.errno not in (errno.ENOENT, errno.ENOTDIR)
                or directory == self._layout.instances
            ):
                self._fail(directory, error.strerror)
            else:
                self._vanished.add(directory)
            return []
        self._directories[directory] = stamp
        if time.time_ns() - max(stamp[2:]) < _TICK_NANOSECONDS:
            self._recent.add(directory)
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
        """Judge a link to a directory (decision 0053).

        A link to somewhere in here leads to nothing new.
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
            # Gone, so the directory is read again; but a link that points to
            # nothing is a failure (decision 0005).
            if os.path.islink(entry.path):
                self._fail(entry.path, 'it points to nothing')
            else:
                self._vanished.add(entry.path)
        except OSError as error:
            self._fail(entry.path, error.strerror)
        except disk_header.MalformedHeader as error:
            # Decision 0004.
            if not _declared_raw(directory, entry.name):
                self._fail(entry.path, f'its header is damaged: {error}')

    def _read_cached(self, directory: str, entry: os.DirEntry[str]) -> None:
        """Read a file in the cache, which may be part of a chain itself.

        A base file that cannot be read is noted only (decision 0005).
        """
        kind = names.kind_of(entry.name)
        if kind is names.Kind.OTHER and not names.leftover_of(entry.name):
            self._read_disk(directory, entry)
            return
        # What is a leftover, or not, by its mode is read too, and half a file
        # of rsync's is noted only.
        if kind is names.Kind.LEFTOVER:
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
        self._disks.add(chains.Disk(directory, entry.name, guest, needs))

    def _needs(self, path: str) -> frozenset[str]:
        status, header = self._read_header(path)
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

    def _read_header(
        self, path: str
    ) -> tuple[os.stat_result, disk_header.DiskHeader]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            if self._read_as_root is None:
                raise
            return _read_as_root(path, self._read_as_root)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return status, disk_header.DiskHeader()
            return status, disk_header.read_header(fd)
        finally:
            os.close(fd)

    def _fail(self, path: str, problem: object) -> None:
        self._failures[path] = f'{names.printable(path)}: {problem}'

    def _note(self, path: str, problem: str) -> None:
        self._notes[path] = f'{names.printable(path)} {problem}'
