# SPDX-License-Identifier: Apache-2.0

"""Listing directories until none has changed since it was listed."""

from collections.abc import Callable
from collections.abc import Sequence
import errno
import os
import stat
import time
from typing import Any
from typing import Protocol

from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache.witnesses import ignored
from nova_imagecache.witnesses import vetoing

Reason = vetoing.Reason

# How often what changed during the scan is scanned again before giving up.
_ROUNDS = 10

# As long as a directory may change without its times moving (decision 0032): a
# second or two, by a clock that may be a minute behind ours.
_TICK_NANOSECONDS = 62 * 10**9

#: A directory as it was listed: when it differs, entries may have come.
Stamp = tuple[int, int, int, int]


class Entry(Protocol):
    """As ``os.DirEntry``."""

    @property
    def name(self) -> str:
        """Its name in the directory."""
        ...

    @property
    def path(self) -> str:
        """Where it is."""
        ...

    def is_dir(self) -> bool:
        """Whether it is, or links to, a directory."""
        ...

    def is_file(self) -> bool:
        """Whether it is, or links to, a regular file."""
        ...

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        ...

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Give what is known of it."""
        ...


class _ListedAsRoot:
    """An entry of a directory that this process may not list."""

    def __init__(self, directory: str, listed: host.Listed) -> None:
        self.name = listed.name
        self.path = os.path.join(directory, listed.name)
        self._listed = listed

    def _mode(self) -> int:
        try:
            mode: int = self.stat().st_mode
        except FileNotFoundError:
            return 0
        return mode

    def is_dir(self) -> bool:
        return stat.S_ISDIR(self._mode())

    def is_file(self) -> bool:
        return stat.S_ISREG(self._mode())

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._listed.mode)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        each = self._listed
        if follow_symlinks and self.is_symlink():
            return os.stat(self.path)
        mtime, ctime = each.mtime_ns // 10**9, each.ctime_ns // 10**9
        return os.stat_result(
            (
                each.mode, each.inode, each.device, 1, 0, 0, each.size,
                mtime, mtime, ctime,
            ),
            {
                'st_mtime_ns': each.mtime_ns,
                'st_ctime_ns': each.ctime_ns,
                'st_mtime': each.mtime_ns / 10**9,
                'st_ctime': each.ctime_ns / 10**9,
            },
        )  # fmt: skip


def stamp(directory: str) -> Stamp:
    """Say which directory this is, and how it was changed last.

    :raises OSError: as open(2)
    """
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


class Walk:
    """A walk through a directory and all below it.

    What was once found stays found: it is made anew for each pass, and
    forgetting can only make it miss something.

    :ivar directories: those that were listed, and as what
    :ivar failures: what could not be looked at, by path
    :ivar vanished: what was listed, and then could not be found
    :ivar recent: what changed once too often
    """

    def __init__(
        self,
        root: str,
        is_ignored: ignored.Ignored,
        visit: Callable[[Stamp, Entry], None],
        list_as_root: host.ListAsRoot | None = None,
    ) -> None:
        """Go nowhere yet.

        :param visit: told each entry that is no directory, with the stamp of
            the directory that it is in
        :param list_as_root: lists what this process may not list
        """
        self._root = root
        self._is_ignored = is_ignored
        self._visit = visit
        self._list_as_root = list_as_root
        self._as_root: set[str] = set()
        self.directories: dict[str, Stamp] = {}
        self.failures: dict[str, vetoing.Veto] = {}
        self.vanished: set[str] = set()
        self.recent: set[str] = set()

    def go(self, pending: list[str]) -> None:
        """List directories until none has changed since it was listed."""
        missing: set[str] = set()
        # Decision 0006.
        for _round in range(_ROUNDS):
            while pending:
                pending += self._read(pending.pop())
            missing, self.vanished = self.vanished, set()
            pending = list({*self.changed(), *map(os.path.dirname, missing)})
            if not pending:
                return
        for path in missing:
            self.fail(
                path, Reason.UNSTABLE, 'it is listed, and cannot be found'
            )
        if self._root in pending:
            self.fail(
                self._root,
                Reason.UNSTABLE,
                'it changes faster than it is read',
            )
        # What guests do in their own directories never ends on a large node.
        self.recent.update(pending)

    def changed(self) -> list[str]:
        """Give the directories that have changed since they were listed."""
        changed = []
        for directory, before in self.directories.items():
            try:
                if self._stamp(directory) != before:
                    changed.append(directory)
            except OSError:
                changed.append(directory)
        return changed

    def _stamp(self, directory: str) -> Stamp:
        try:
            return stamp(directory)
        except PermissionError:
            if directory not in self._as_root:
                raise
            return self._list_root(directory)[0]

    def fail(self, path: str, reason: Reason, problem: str | None) -> None:
        """Note what could not be looked at."""
        self.failures[path] = vetoing.Veto(
            reason, path, problem or 'it cannot be looked at'
        )

    def _list_root(self, directory: str) -> tuple[Stamp, list[Entry]]:
        """List a directory with the rights of root."""
        if self._list_as_root is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # A broad net, as the function and what it raises are the host's.
        try:
            itself, *listed = self._list_as_root(directory)
        except Exception as error:
            raise PermissionError(
                errno.EACCES,
                f'{os.strerror(errno.EACCES)}, and listing it as root failed: '
                f'{names.printable(str(error) or repr(error))}',
            ) from error
        self._as_root.add(directory)
        return (
            itself.device,
            itself.inode,
            itself.mtime_ns,
            itself.ctime_ns,
        ), [_ListedAsRoot(directory, each) for each in listed]

    def _list(self, directory: str) -> tuple[Stamp, Sequence[Entry]]:
        try:
            listed_as = stamp(directory)
            with os.scandir(directory) as entries:
                return listed_as, list(entries)
        except PermissionError:
            return self._list_root(directory)

    def _read(self, directory: str) -> list[str]:
        """Visit what is in a directory; give the directories in it."""
        try:
            listed_as, listed = self._list(directory)
        except OSError as error:
            self.directories.pop(directory, None)
            gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
            if gone and directory == self._root:
                self.fail(directory, Reason.MISSING_MOUNT, error.strerror)
            elif gone:
                # Its parent is read again, as what it was may be there under
                # another name.
                self.vanished.add(directory)
            else:
                self.fail(directory, Reason.UNREADABLE, error.strerror)
            return []
        self.directories[directory] = listed_as
        if time.time_ns() - max(listed_as[2:]) < _TICK_NANOSECONDS:
            self.recent.add(directory)
        self.failures.pop(directory, None)
        found = []
        for entry in listed:
            is_directory = self._is_directory(entry)
            if is_directory is None:
                continue
            if not is_directory:
                self._visit(listed_as, entry)
            elif entry.path not in self.directories and (
                not entry.is_symlink() or self._may_follow(entry.path)
            ):
                found.append(entry.path)
        return found

    def _is_directory(self, entry: Entry) -> bool | None:
        """Tell what an entry is; None where it is not to be looked at."""
        self.failures.pop(entry.path, None)
        try:
            if self._is_ignored(entry.path, entry.name, entry.is_dir):
                return None
            return entry.is_dir()
        except OSError as error:
            # Nobody can open what only leads to itself.
            if error.errno != errno.ELOOP:
                self.fail(entry.path, Reason.UNREADABLE, error.strerror)
            return None

    def _may_follow(self, link: str) -> bool:
        """Judge a link to a directory (decision 0053).

        A link to somewhere in here leads to nothing new.
        """
        root = os.path.realpath(self._root)
        target = os.path.realpath(link)
        if os.path.commonpath([root, target]) == root:
            return False
        below_root = os.path.dirname(link) == self._root
        if not below_root or os.path.commonpath([root, target]) == target:
            self.fail(
                link,
                Reason.OUT_OF_SIGHT,
                f'it links to {names.printable(target)}, which is not looked '
                'into',
            )
            return False
        return True
