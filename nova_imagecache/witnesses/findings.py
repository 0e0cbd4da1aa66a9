# SPDX-License-Identifier: Apache-2.0

"""What there is below ``instances_path``, by the headers of all disks."""

from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import os
import stat
import time

from nova_imagecache.cache import identity
from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache import codes
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache import pools
from nova_imagecache.witnesses import chain_ends
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import disk_header
from nova_imagecache.witnesses import headers
from nova_imagecache.witnesses import owners
from nova_imagecache.witnesses import references
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing
from nova_imagecache.witnesses import walks

Reason = vetoing.Reason

# A disk without a backing file that was written so lately may get one yet.
_FRESH_SECONDS = 60
_HEADER_SIZE = 4096

# What reading a header gives.
_Header = tuple[os.stat_result, disk_header.DiskHeader]

# What it has given, now or when it was read last; True where it is known
# already, and None where it is yet to be read.
_Read = _Header | inventories.Seen | Exception | bool | None


def _named(header: disk_header.DiskHeader) -> tuple[str, ...]:
    """Give the references in a header."""
    if header.format == 'raw':
        return ()
    data_file = header.data_file
    if data_file is not None and not data_file.startswith(os.sep):
        # Nobody but QEMU knows from which directory.
        data_file = f'file:{data_file}'
    return tuple(filter(None, (header.backing_file, data_file)))


def _is_read_as_raw(header: disk_header.DiskHeader) -> bool:
    """Whether a header has QEMU read the backing file as a raw disk."""
    return (
        header.backing_format == 'raw'
        and header.data_file is None
        # No options, which may say something else.
        and (header.backing_file or '').startswith(os.sep)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Unchanged:
    """Disks of which their own times tell (decision 0102).

    :ivar before: the inventory that has them
    :ivar device: the file system whose files are dated by one clock
    :ivar limit: in nanoseconds since the epoch, by that clock: what was
        changed no later, and has the times that were noted, was not changed
        since
    """

    before: inventories.Inventory
    device: int
    limit: int

    def get(self, entry: walks.Entry) -> inventories.Seen | None:
        """Give a disk as it was read last, if it is what it was.

        Not in a directory with anything but plain disks.

        :raises OSError: it cannot be asked
        """
        seen = self.before.disks.get(entry.path)
        if seen is None or not seen.changed or entry.listed is not None:
            return None
        if self.before.directories.get(entry.directory) is None:
            return None
        device, inode, modified, changed = identity.times_of(entry.path)
        alike = (inode, modified, changed) == (
            seen.inode,
            seen.modified,
            seen.changed,
        )
        dated = device == self.device and changed <= self.limit
        return seen if alike and dated and modified <= self.limit else None


class Findings:
    """What the disks that were read need, and what could not be read.

    What was once found stays found.

    :ivar walk: through the directories that the disks are in
    :ivar cache: device and inode of the cache directory
    :ivar disks: those that need others
    :ivar scanned: all files that were found
    :ivar ends: tells where references lead
    :ivar seen: disks as they were read, by path
    :ivar claims: the guests that have a file as their disk, or a part of it,
        whoever has the directory that it is in; by its path
    :ivar plain: base files that are known to need no other, by name
    :ivar raw: the same, as they were found
    :ivar fresh: the guests of disks that may just be in the making, by path
    :ivar named: what libvirt has named and could not be read, by what it is
    :ivar odd: directories with more in them than plain disks, or files
    :ivar notes: what somebody may want to look into, by path
    """

    walk: walks.Walk

    def __init__(
        self,
        layout: layouts.Layout,
        lent: host.Host,
        before: Mapping[str, inventories.Seen],
        plain: Mapping[str, tuple[int, int]],
        known: Mapping[str, tuple[int, int]],
        unchanged: Unchanged | None = None,
    ) -> None:
        """Find nothing yet.

        :param lent: reads what this process may not
        :param before: disks that are believed where their directory is
        :param plain: base files that are believed to need no other, by name:
            inode and size
        :param known: those that were found to need none, likewise
        :param unchanged: disks that need not be read where they are as they
            were
        """
        self._layout = layout
        self._lent = lent
        self._before = before
        self._remembered: dict[str, list[str]] = {}
        for path in before:
            directory, _slash, _name = path.rpartition(os.sep)
            self._remembered.setdefault(directory, []).append(path)
        self.cache: tuple[int, int] | None = None
        self.disks = chains.Disks()
        self.scanned = chain_ends.Scanned()
        self.ends = chain_ends.Ends(layout, self.scanned)
        self.seen: dict[str, inventories.Seen] = {}
        self.claims: dict[str, set[str]] = {}
        self.plain = {**plain}
        #: What was just seen of the files in the cache, likewise.
        self.shown: dict[str, tuple[int, int]] = {}
        self.raw: dict[str, tuple[int, int]] = {}
        self.fresh: dict[str, str] = {}
        self.named: dict[str, vetoing.Veto] = {}
        self.odd: set[str] = set()
        self.notes: dict[str, codes.Problem] = {}
        self._cached: dict[str, tuple[int, int, int]] = {}
        self._unchanged = unchanged
        self._has_recalled = False
        self._known = known
        # What disks take base files for, by name (decision 0101).
        self._as_raw: set[str] = set()
        self._as_other: set[str] = set()
        self._unread: dict[str, walks.Entry] = {}

    def examine(self, entry: walks.Entry) -> _Read:
        """Read the header of an entry, as far as that is simple.

        Any thread may do so, so nothing is noted here.

        :returns: None where that is left to who visits the entry
        """
        try:
            if entry.type != stat.S_IFREG:
                return None
            if self._is_in_cache(entry):
                if self._is_known_in_cache(entry):
                    return True
            elif self._is_of_sibling(entry):
                return None
            elif self._unchanged is not None:
                seen = self._unchanged.get(entry)
                if seen is not None:
                    return seen
            return headers.read(entry.path, None, entry.listed)
        except PermissionError:
            return None
        except (OSError, disk_header.MalformedHeader) as error:
            return error

    @staticmethod
    def did_not_answer(_entry: walks.Entry) -> _Read:
        """Give what is to be taken for the header of what never answers."""
        return OSError(
            errno.ETIMEDOUT,
            f'it has not answered within {pools.PATIENCE_SECONDS} s',
        )

    def visit(self, entry: walks.Entry, read: _Read) -> None:
        """Note what an entry of a directory needs."""
        if self._is_in_cache(entry):
            self._read_cached(entry, read)
            plain = read is True or entry.name in self.raw
        else:
            plain = isinstance(read, (tuple, inventories.Seen))
            if not self._is_of_sibling(entry):
                self._read_disk(entry, read)
        if not plain:
            self.odd.add(entry.directory)

    def catch_up(self) -> None:
        """Read the base files that turn out to be read as no raw ones."""
        while due := self._unread.keys() & self._as_other:
            pools.hand_over(
                self.examine,
                [self._unread.pop(name) for name in sorted(due)],
                self.visit,
                self.did_not_answer,
            )

    @property
    def has_believed(self) -> bool:
        """Whether not all files were read."""
        return bool(self.plain or self._unread or self._has_recalled)

    def is_plain_still(self) -> bool:
        """Whether all base files that needed nothing are what they were."""
        return all(pools.each(self._is_plain_still, self.plain))

    def _is_plain_still(self, name: str) -> bool:
        seen = self.shown.get(name)
        if seen is None:
            try:
                status = os.lstat(self._layout.file(name))
            except OSError:
                return False
            seen = status.st_ino, status.st_size
        return self.plain[name] == seen

    def _is_in_cache(self, entry: walks.Entry) -> bool:
        """Whether this is in the cache, by whatever path."""
        return entry.above[:2] == self.cache

    def _is_of_sibling(self, entry: walks.Entry) -> bool:
        """Whether this is a base file of another host's cache."""
        return names.is_of_a_cache(entry.name) and chain_ends.is_sibling(
            self._layout, entry.directory
        )

    def _read_disk(self, entry: walks.Entry, read: _Read) -> None:
        path = entry.path
        if isinstance(read, inventories.Seen):
            self._has_recalled = True
            self._recall(path, entry.above[0], read)
            return
        try:
            is_file = entry.leads_to() == stat.S_IFREG
            if is_file or entry.type == stat.S_IFLNK:
                self._note_disk(entry, read)
        except FileNotFoundError:
            # Gone, so the directory is read again; but a link that points to
            # nothing may be to what is not mounted (decision 0005).
            if os.path.islink(path):
                target = names.printable(os.readlink(path))
                self.walk.fail(
                    path,
                    Reason.MISSING_DISK,
                    f'it is a link to {target}, which points to nothing',
                )
            else:
                self.walk.vanished.add(path)
        except OSError as error:
            self.walk.fail(path, Reason.UNREADABLE, error.strerror)
        except disk_header.MalformedHeader as error:
            # Decision 0004.
            if not headers.declared_raw(entry.directory, entry.name):
                self.walk.fail(
                    path, Reason.DAMAGED, f'its header is damaged: {error}'
                )

    @staticmethod
    def _version_of(status: os.stat_result) -> tuple[int, int, int]:
        return status.st_ino, status.st_ctime_ns, status.st_mtime_ns

    def _is_known_in_cache(self, entry: walks.Entry) -> bool:
        """Whether a file in the cache need not be read.

        What a base file holds never changes, so its times do not count.

        What is a leftover, or not, by its mode is read too, and half a file
        of rsync's is noted only. Each removal changes the directory, and not
        what is still in it.
        """
        if names.kind_of(entry.name) is names.Kind.LEFTOVER:
            return True
        plain, cached = self._believed(entry.name), self._cached
        if plain is None and entry.name not in cached:
            return False
        status = os.lstat(entry.path)
        if plain == (status.st_ino, status.st_size):
            return True
        return cached.get(entry.name) == self._version_of(status)

    def _believed(self, name: str) -> tuple[int, int] | None:
        """Say as what a base file is believed to need no other, if so.

        What all disks read as a raw one is that, whatever it holds.
        """
        if name in self._as_raw and name not in self._as_other:
            return self._known.get(name)
        return self.plain.get(name)

    def _read_cached(self, entry: walks.Entry, read: _Read) -> None:
        """Read a file in the cache, which may be part of a chain itself.

        A base file that cannot be read is noted only (decision 0005).
        """
        self.raw.pop(entry.name, None)
        kind = names.kind_of(entry.name)
        if kind is names.Kind.OTHER and not names.leftover_of(entry.name):
            self._read_disk(entry, read)
            return
        try:
            if read is True:
                self._believe(entry)
                return
            seen = read[0] if isinstance(read, tuple) else os.lstat(entry.path)
            self._note_disk(entry, read)
            self._cached[entry.name] = self._version_of(seen)
            if isinstance(read, tuple) and read[1].format == 'raw':
                self.raw[entry.name] = seen.st_ino, seen.st_size
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(entry.path, f'cannot be read: {error.strerror}')
        except disk_header.MalformedHeader as error:
            self._note(entry.path, f'has a damaged header: {error}')

    def _believe(self, entry: walks.Entry) -> None:
        """Take a base file for what it was, or was just read as."""
        name = entry.name
        plain = self.plain.get(name)
        if plain is None and name not in self._cached:
            plain = self._known.get(name)
            # Till somebody reads it as another one.
            self._unread[name] = entry
        if plain is not None:
            self.raw[name] = plain
            self.scanned.add(entry.path, (entry.above[0], plain[0]))

    def _note_disk(self, entry: walks.Entry, read: _Read) -> None:
        """Note what a disk needs: what its header names, or it links to."""
        path, directory = entry.path, entry.directory
        in_cache = directory == self._layout.base
        root = directory if in_cache else self._layout.instances
        guest = owners.guest_of(root, directory, entry.name)
        linked: frozenset[str] = frozenset()
        if entry.type == stat.S_IFLNK:
            for target in (os.readlink(path), os.path.realpath(path)):
                linked |= references.read(target).names
            self.disks.add(chains.Disk(directory, entry.name, guest, linked))
            # What a link leads to may be a device: not even opened. Where it
            # is nothing, that may be in the trash.
            os.stat(path)
        if entry.leads_to() == stat.S_IFREG:
            found = self._read_header(path, read, entry.listed)
            place = directory, entry.name
            self._note_header(path, place, guest, found, linked)

    def _read_header(
        self,
        path: str,
        read: _Read = None,
        listed: os.stat_result | None = None,
        devices: bool = False,
    ) -> _Header:
        """Give what reading a header has given, or read it now.

        :param listed: what is known of it, where its directory may not be
            looked into
        """
        if not isinstance(read, tuple):
            # Before it is read: it is there, whatever that gives.
            self.scanned.add(path, None)
            if isinstance(read, Exception):
                raise read
            read = headers.read(path, self._lent.read_as_root, listed, devices)
        status, _header = read
        self.scanned.add(path, (status.st_dev, status.st_ino))
        return read

    def _note_header(
        self,
        path: str,
        place: tuple[str, str],
        guest: str,
        read: _Header,
        linked: frozenset[str] = frozenset(),
    ) -> None:
        """Note what a disk needs.

        :param place: the directory that it is in, and its name
        :param linked: what it needs as it is a link
        """
        directory, name = place
        status, header = read
        named, wanted, usual = _named(header), linked, True
        if named:
            parsed = [*map(references.read, named)]
            for each in parsed:
                # Not a copy: many disks have the same few.
                wanted = wanted | each.names if wanted else each.names
                usual = usual and self.ends.is_usual(path, each)
            if header.data_file is not None or not usual:
                self.odd.add(directory)
        if usual:
            pass
        elif headers.declared_raw(directory, name):
            # A guest has written that: names are all that it is taken for.
            named = ()
        else:
            wanted = linked.union(
                *(self._resolved(path, guest, each) for each in parsed)
            )
        as_raw = usual and not linked and _is_read_as_raw(header)
        (self._as_raw if as_raw else self._as_other).update(wanted)
        if wanted or named:
            self.disks.add(
                chains.Disk(directory, name, guest, wanted, named, usual)
            )
        if directory != self._layout.base:
            self.seen[path] = inventories.Seen(
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                tuple(sorted(wanted)),
                changed=status.st_ctime_ns,
                as_raw=as_raw,
            )
        # A guest's raw disk has a header no more than it had a moment ago.
        unfinished = header.format != 'raw' or status.st_size < _HEADER_SIZE
        if not named and unfinished:
            if time.time() - status.st_mtime < _FRESH_SECONDS:
                self.fresh[path] = guest

    def _claim(self, path: str, guest: str) -> None:
        """Note that a file is a disk of a guest, or below one."""
        self.claims.setdefault(os.path.normpath(path), set()).add(guest)
        with contextlib.suppress(OSError, ValueError):
            self.claims.setdefault(os.path.realpath(path), set()).add(guest)

    def _resolved(
        self, path: str, guest: str, read: references.Reference
    ) -> frozenset[str]:
        """Name the files that a reference leads to, but no sibling's."""
        wanted = read.names
        for target in read.targets:
            if target.local:
                below = os.path.join(os.path.dirname(path), target.path)
                self._claim(below, guest)
            end = self.ends.find(path, target)
            if end.base_file is None:
                continue
            if end.sibling is None:
                wanted |= {end.base_file}
            elif len(read.targets) == 1:
                wanted -= {end.base_file}
        return wanted

    def look_at(self, disk: testimonies.NamedDisk) -> None:
        """See to a disk that was named, and that the scan may have missed.

        Its path is libvirt's, and so are those of what is below it where they
        are known: they may be opened.
        """
        for layer in disk.layers or ():
            self._claim(layer, disk.guest)
            self.look_into(layer, disk.guest)
        path = disk.path
        if path is None:
            subject = f'{disk.source} of guest {disk.guest}'
            refused = Reason.OUT_OF_SIGHT, 'it is no file of this host'
        else:
            subject = path
            self._claim(path, disk.guest)
            if disk.layers is None:
                # It may be a base file, of whatever format.
                self._as_other.add(os.path.basename(path))
            found = self.look_into(path, disk.guest)
            if found is None:
                return
            reason, problem = found
            refused = reason, f'it is a disk of guest {disk.guest}: {problem}'
        if disk.layers is None:
            reason, problem = refused
            self.named[subject] = vetoing.Veto(reason, subject, problem)
        else:
            self._take_layers(disk, subject)

    def look_into(
        self, path: str, guest: str, again: bool = False
    ) -> tuple[Reason, str] | None:
        """Read the header of a disk, if the scan has not.

        :param again: whether to read it in any case
        :returns: why that cannot be done
        """
        if not again and self.scanned.has(path):
            return None
        try:
            read = self._read_header(path, devices=True)
            self._note_header(path, os.path.split(path), guest, read)
        except FileNotFoundError:
            # Nova may have renamed its directory, and was seen there.
            directory, name = os.path.split(path)
            if any(
                self.scanned.has(os.path.join(directory + suffix, name))
                for suffix in owners.SUFFIXES
            ):
                return None
            return Reason.MISSING_DISK, 'it is not there'
        except OSError as error:
            return Reason.UNREADABLE, error.strerror or repr(error)
        except disk_header.MalformedHeader as error:
            return Reason.DAMAGED, f'its header is damaged: {error}'
        return None

    def _take_layers(self, disk: testimonies.NamedDisk, path: str) -> None:
        """Believe libvirt, which has them all open, of what cannot be read."""
        directory, name = os.path.split(path)
        wanted: frozenset[str] = frozenset()
        for layer in disk.layers or ():
            wanted |= self._resolved(path, disk.guest, references.read(layer))
        self.disks.add(chains.Disk(directory, name, disk.guest, wanted))

    def recall_directory(self, directory: str) -> None:
        """Take the disks in a directory for what they were.

        They name base files alone, or nothing, or it would have been listed.
        In the cache there are no others than those that name nothing.
        """
        if directory == self._layout.base:
            self.raw.update(self.plain)
        device = self.walk.directories[directory][0]
        for path in self._remembered.get(directory, ()):
            self._recall(path, device, self._before[path])

    def _recall(self, path: str, device: int, seen: inventories.Seen) -> None:
        """Take a disk for what it was, in a directory of plain disks."""
        self.scanned.add(path, (device, seen.inode))
        self.seen[path] = seen
        if seen.needs:
            (self._as_raw if seen.as_raw else self._as_other).update(
                seen.needs
            )
            self._add_recalled(
                path, seen, tuple(map(self._layout.file, seen.needs))
            )

    def _add_recalled(
        self,
        path: str,
        seen: inventories.Seen,
        named: tuple[str, ...] = (),
    ) -> None:
        directory, _slash, name = path.rpartition(os.sep)
        guest = owners.guest_of(self._layout.instances, directory, name)
        needs = frozenset(seen.needs)
        self.disks.add(
            chains.Disk(directory, name, guest, needs, named, bool(named))
        )

    def recall(self, disks: Mapping[str, inventories.Seen]) -> None:
        """Take disks for what they were when they were read last."""
        for path, seen in disks.items():
            if seen.needs and path not in self.seen:
                self._add_recalled(path, seen)

    def _note(self, path: str, problem: str) -> None:
        self.notes[path] = codes.Problem(
            codes.Code.DISK_NOTE, f'{names.printable(path)} {problem}', path
        )
