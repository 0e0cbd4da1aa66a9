# SPDX-License-Identifier: Apache-2.0

"""Listing directories until none has changed since it was listed."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import errno
import os
import stat
import time
from typing import Any

from nova_imagecache.cache import identity
from nova_imagecache.cache import inventories
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache import pools
from nova_imagecache.witnesses import ignored
from nova_imagecache.witnesses import vetoing

Reason = vetoing.Reason

# How often what changed during the scan is scanned again before giving up.
_ROUNDS = 10

# As long as a directory may change without its times moving (decision 0032): a
# second or two, by a clock that may be a minute behind ours.
_TICK_NANOSECONDS = 62 * 10**9

#: The same where that clock is known, or nothing is removed by what is seen.
GRAIN_SECONDS = 2
_GRAIN_NANOSECONDS = GRAIN_SECONDS * 10**9

_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY


@dataclasses.dataclass(frozen=True, slots=True)
class StorageClock:
    """The clock that dates the files of one file system, as it was read.

    :ivar device: which file system
    :ivar time: what it showed, in nanoseconds since the epoch
    :ivar read: when the answer was there, by our monotonic clock, which
        nobody sets
    """

    device: int
    time: int
    read: int

    def now(self) -> int:
        """Say how late it is there by now, at least."""
        return self.time + time.monotonic_ns() - self.read


#: A directory as it was listed: when it differs, entries may have come.
Stamp = tuple[int, int, int, int]


class Entry:
    """As ``os.DirEntry``, of a directory that is open no more.

    :ivar above: the directory as it was listed
    :ivar type: as in the mode of a file; 0 for what is neither a file nor a
        directory nor a link
    :ivar listed: what is known of it in a directory that this process may not
        look into
    """

    __slots__ = ('above', 'directory', 'listed', 'name', 'path', 'type')

    def __init__(
        self,
        directory: str,
        above: Stamp,
        name: str,
        type_: int,
        listed: os.stat_result | None = None,
    ) -> None:
        """Take what listing the directory has shown."""
        self.directory = directory
        self.above = above
        self.name = name
        self.path = f'{directory}{os.sep}{name}'
        self.type = type_
        self.listed = listed

    def leads_to(self) -> int:
        """Give the type of what it is, or links to; 0 also for nothing."""
        if self.type != stat.S_IFLNK:
            return self.type
        try:
            return stat.S_IFMT(os.stat(self.path).st_mode)
        except FileNotFoundError:
            return 0

    def is_dir(self) -> bool:
        """Whether it is, or links to, a directory."""
        return self.leads_to() == stat.S_IFDIR


def _type_of(entry: 'os.DirEntry[str]') -> int:
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFLNK if entry.is_symlink() else 0


def _listed_as_root(directory: str, above: Stamp, each: host.Listed) -> Entry:
    mtime, ctime = each.mtime_ns // 10**9, each.ctime_ns // 10**9
    status = os.stat_result(
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
    type_ = stat.S_IFMT(each.mode)
    return Entry(directory, above, each.name, type_, status)


def stamp(directory: str, fd: int | None = None) -> Stamp:
    """Say which directory this is, and how it was changed last.

    :param fd: of it, where it was opened just now: NFS has asked its server
        then, and answers from its cache else
    :raises OSError: as statx(2)
    """
    if fd is None:
        return identity.times_of(directory)
    status = os.fstat(fd)
    return (
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


# Without entries where it is believed to have those that it had.
_Listed = tuple[Stamp, list[Entry] | None] | OSError

#: What looking at an entry gives, for whoever visits it.
Look = Callable[[Entry], Any]


class Walk:
    """A walk through a directory and all below it.

    What was once found stays found: it is made anew for each pass, and
    forgetting can only make it miss something.

    :ivar directories: those that were listed, and as what
    :ivar failures: what could not be looked at, by path
    :ivar vanished: what was listed, and then could not be found
    :ivar recent: what changed once too often
    :ivar links: directories that are links to others
    :ivar believed: directories that are as they were, and were not listed
    """

    def __init__(
        self,
        root: str,
        is_ignored: ignored.Ignored,
        look: Look,
        visit: Callable[[Entry, Any], None],
        late: Look,
        list_as_root: host.ListAsRoot | None = None,
        known: Mapping[str, inventories.Version | None] | None = None,
        recall: Callable[[str], None] | None = None,
        last: str | None = None,
        clock: StorageClock | None = None,
        seen: Mapping[str, inventories.Version | None] | None = None,
    ) -> None:
        """Go nowhere yet.

        :param look: asked of each entry that is no directory, by any thread:
            it changes nothing
        :param visit: told of it, by one thread at a time, and what looking
            has given
        :param late: gives what to take for that of an entry that does not
            answer
        :param list_as_root: lists what this process may not list
        :param last: the directory in which entries are looked at when all
            others have been that are listed with it
        :param clock: that of the storage, where it could be read
        :param seen: directories as they were seen when their times had been
            theirs for long enough to tell by now
        """
        self._clock = clock
        self._seen = dict(seen or {})
        self._root = root
        self._is_ignored = is_ignored
        self._look = look
        self._visit = visit
        self._late = late
        self._list_as_root = list_as_root
        self._as_root: set[str] = set()
        self.directories: dict[str, Stamp] = {}
        self.failures: dict[str, vetoing.Veto] = {}
        self.vanished: set[str] = set()
        self.recent: set[str] = set()
        self.links: set[str] = set()
        self.believed: set[str] = set()
        self._in_flux: set[str] = set()
        self._known = dict(known or {})
        self._recall = recall
        self._last = last
        self._below: dict[str, list[str]] = {}
        for path in self._known:
            above, _slash, _name = path.rpartition(os.sep)
            self._below.setdefault(above, []).append(path)

    def doubt(self) -> list[str]:
        """Give what was believed, and believe nothing any more."""
        believed, self.believed = self.believed, set()
        self._known.clear()
        return [*believed]

    def distrust(self, directory: str) -> None:
        """Have a directory be listed, whatever its times say."""
        self._known.pop(directory, None)

    def is_settled(self, directory: str) -> bool:
        """Whether its times tell whether it is as it was listed."""
        return not (directory in self._in_flux or directory in self._as_root)

    def go(self, pending: list[str], until_stable: bool = False) -> None:
        """List directories until the top one has not changed since.

        Nova renames the directories in that.

        :param until_stable: whether to go on until none at all has changed
            since it was listed
        """
        missing: set[str] = set()
        # Decision 0006.
        for _round in range(_ROUNDS):
            while pending:
                pending = self._go_down(pending)
            missing, self.vanished = self.vanished, set()
            changed = self.changed(None if until_stable else [self._root])
            pending = list({*changed, *map(os.path.dirname, missing)})
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

    def changed(self, among: Iterable[str] | None = None) -> list[str]:
        """Give the directories that have changed since they were listed.

        :param among: what of them is asked, by default all
        """
        asked = self.directories if among is None else among
        listed = [
            directory
            for directory in asked
            if directory in self.directories and directory not in self.believed
        ]
        now = pools.each(self._now, listed)
        return [
            directory
            for directory, is_now in zip(listed, now, strict=True)
            if is_now != self.directories[directory]
        ]

    def _now(self, directory: str) -> Stamp | None:
        try:
            return self._stamp(directory)
        except OSError:
            return None

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
        above = itself.device, itself.inode, itself.mtime_ns, itself.ctime_ns
        return above, [
            _listed_as_root(directory, above, each) for each in listed
        ]

    def _as_it_was(self, directory: str) -> Stamp | None:
        """Give the stamp of a directory if it need not be listed."""
        known = self._known.get(directory)
        if known is None:
            return None
        # Nobody removes anything on the strength of this (decision 0085).
        status = os.stat(directory)
        now = status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        return (status.st_dev, *now) if now == known else None

    def _list(self, directory: str) -> _Listed:
        try:
            listed_as = self._as_it_was(directory)
            if listed_as is not None:
                return listed_as, None
            fd = os.open(directory, _OPEN_FLAGS)
            try:
                listed_as = stamp(directory, fd)
                with os.scandir(fd) as entries:
                    return listed_as, [
                        Entry(
                            directory, listed_as, entry.name, _type_of(entry)
                        )
                        for entry in entries
                    ]
            finally:
                os.close(fd)
        except OSError as error:
            return error

    def _go_down(self, pending: list[str]) -> list[str]:
        """Visit what is in some directories; give the directories in them."""
        found: list[str] = []
        others: list[Entry] = []
        last: list[Entry] = []
        # Once each: a round may have a directory and what has named it.
        wanted = [*dict.fromkeys(pending)]
        for directory, listed in zip(
            wanted, pools.each(self._list, wanted), strict=True
        ):
            found += self._read(
                directory, listed, last if directory == self._last else others
            )
        for entries in (others, last):
            pools.hand_over(self._look, entries, self._visit, self._late)
        return found

    def _read(
        self,
        directory: str,
        listed: _Listed,
        others: list[Entry],
    ) -> list[str]:
        """Note what a directory has; give the directories in it.

        :param others: what it has beside directories is added to these
        """
        if isinstance(listed, PermissionError):
            try:
                listed = self._list_root(directory)
            except PermissionError as error:
                listed = error
        if isinstance(listed, OSError):
            self._miss(directory, listed)
            return []
        listed_as, entries = listed
        self.directories[directory] = listed_as
        if entries is None:
            return self._believe(directory)
        self._date(directory, listed_as)
        self.failures.pop(directory, None)
        return self._sort(entries, others)

    def _sort(self, entries: list[Entry], others: list[Entry]) -> list[str]:
        """Give the directories that are to be listed.

        :param others: what is to be looked at is added to these
        """
        found = []
        for entry in entries:
            self.failures.pop(entry.path, None)
            try:
                if self._is_ignored(entry.path, entry.name, entry.is_dir):
                    continue
                is_directory = entry.is_dir()
            except OSError as error:
                # Nobody can open what only leads to itself.
                if error.errno != errno.ELOOP:
                    self.fail(entry.path, Reason.UNREADABLE, error.strerror)
                continue
            if not is_directory:
                others.append(entry)
            elif self._may_enter(entry):
                found.append(entry.path)
        return found

    def _may_enter(self, entry: Entry) -> bool:
        """Whether a directory is to be listed, and was not before."""
        if entry.type == stat.S_IFLNK:
            if not self._may_follow(entry.path):
                return False
            self.links.add(entry.path)
        return entry.path not in self.directories

    def _believe(self, directory: str) -> list[str]:
        """Take a directory to have what it had; give those in it."""
        self.believed.add(directory)
        if self._recall is not None:
            self._recall(directory)
        below = self._below.get(directory, [])
        return [path for path in below if path not in self.directories]

    def _date(self, directory: str, listed_as: Stamp) -> None:
        """Note how far the times of a directory are to be believed."""
        device, _inode, modified, changed = listed_as
        now, tick = time.time_ns(), _TICK_NANOSECONDS
        if self._clock is not None and self._clock.device == device:
            now, tick = self._clock.now(), _GRAIN_NANOSECONDS
        age = now - max(modified, changed)
        if age < tick and not self._was_seen(directory, listed_as):
            self.recent.add(directory)
        self._in_flux.discard(directory)
        if age < _GRAIN_NANOSECONDS:
            self._in_flux.add(directory)

    def _was_seen(self, directory: str, listed_as: Stamp) -> bool:
        """Whether it had the same times long before it was listed.

        Then whoever changes it now gives it others. Not where these are whole
        seconds: another clock may show the same one later.
        """
        return self._seen.get(directory) == listed_as[1:] and all(
            when % 10**9 for when in listed_as[2:]
        )

    def _miss(self, directory: str, error: OSError) -> None:
        """Note that a directory cannot be listed."""
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
