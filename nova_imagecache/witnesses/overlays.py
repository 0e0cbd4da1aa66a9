# SPDX-License-Identifier: Apache-2.0

"""The witness that reads the headers of all disks of this host's guests."""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import functools
import os
import time

from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import mounts
from nova_imagecache import codes
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache import pools
from nova_imagecache.witnesses import absences
from nova_imagecache.witnesses import chain_ends
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import disk_header
from nova_imagecache.witnesses import headers
from nova_imagecache.witnesses import ignored
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import narrowing
from nova_imagecache.witnesses import owners
from nova_imagecache.witnesses import references
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing
from nova_imagecache.witnesses import walks

Reason = vetoing.Reason

# A disk without a backing file that was written so lately may get one yet.
_FRESH_SECONDS = 60
_HEADER_SIZE = 4096

# For which directories are believed by their times, between two looks at
# everything (decision 0085).
_BELIEVED_SECONDS = 24 * 3600

_NEEDS_NOTHING = disk_header.DiskHeader()

_SHOWN = 3


# What reading a header has given; True where it is known already, and None
# where it is yet to be read.
_Read = tuple[os.stat_result, disk_header.DiskHeader] | Exception | bool | None


def _some(paths: Collection[str]) -> str:
    """Give a few of some paths, and how many there are beside them."""
    shown = [names.printable(path) for path in sorted(paths)[:_SHOWN]]
    more = len(paths) - len(shown)
    return ', '.join([*shown, *([f'and {more} more'] if more else [])])


class OverlayWitness:
    """Who uses what, according to the disks below ``instances_path``.

    Every regular file in every directory counts, also in those of guests
    nobody knows, and so do the disks that libvirt names, wherever they are.
    What a header names is compared with what there is and never opened
    (decision 0079). Disks that were once seen stay seen: this witness is made
    anew for each pass, and forgetting can only make it miss a user.
    """

    def __init__(
        self,
        layout: layouts.Layout,
        lent: host.Host | None = None,
        memory: memories.Memory | None = None,
        glance: bool = False,
        clock: walks.StorageClock | None = None,
        settled: bool = False,
    ) -> None:
        """Look at nothing yet.

        :param lent: reads and lists what this process may not; without it,
            each of that is a veto
        :param glance: whether to believe directories by their times, and to
            look at nothing twice; what it has seen removes nothing
        :param clock: that of the storage, where it could be read
        :param settled: whether what is remembered was noted long enough ago
            for the times of directories to tell what was changed since
        """
        self._layout = layout
        self._lent = host.Host() if lent is None else lent
        self._memory = memories.Memory() if memory is None else memory
        before = self._memory.inventory
        believes = glance and self._is_believable(before)
        self._glances = glance
        self._plain = {**before.bases} if believes else {}
        self._walk = walks.Walk(
            layout.instances,
            ignored.Ignored(layout, self._memory.patterns),
            self._examine,
            self._visit,
            self._lent.list_as_root,
            late=self._did_not_answer,
            known=before.directories if believes else None,
            recall=self._recall_directory,
            once=glance,
            clock=clock,
            seen=before.directories if settled else None,
        )
        self._remembered: dict[str, list[str]] = {}
        for path in before.disks if believes else ():
            directory = os.path.dirname(path)
            self._remembered.setdefault(directory, []).append(path)
        self._cache: tuple[int, int] | None = None
        # Base files that were there when this was asked first.
        self._there: frozenset[str] = frozenset()
        self._disks = chains.Disks()
        self._scanned = chain_ends.Scanned()
        self._ends = chain_ends.Ends(layout, self._scanned)
        self._seen: dict[str, inventories.Seen] = {}
        self._bases: dict[str, set[str]] = {}
        self._claims: dict[str, set[str]] = {}
        self._cached: dict[str, tuple[int, int, int]] = {}
        self._raw: dict[str, tuple[int, int]] = {}
        self._fresh: dict[str, str] = {}
        self._named: dict[str, vetoing.Veto] = {}
        # Directories with more in them than plain disks.
        self._odd: set[str] = set()
        self._notes: dict[str, codes.Problem] = {}
        self._others = testimonies.Testimony()
        self._absent: tuple[absences.Absence, ...] = ()
        self._astray: frozenset[str] = frozenset()

    def _is_believable(self, inventory: inventories.Inventory) -> bool:
        """Whether all was read lately, and would be looked for alike."""
        if inventory.looked is None:
            return False
        age = time.time() - inventory.looked
        return 0 <= age < _BELIEVED_SECONDS and (
            inventory.ignored == tuple(self._memory.patterns)
        )

    @property
    def has_glanced(self) -> bool:
        """Whether what it has seen is not to remove anything by."""
        return self._glances

    def look(
        self,
        base_files: Collection[str],
        others: testimonies.Testimony | None = None,
    ) -> testimonies.Testimony:
        """Scan everything, and say who needs these files."""
        if others is not None:
            self._others = others
        try:
            self._cache = walks.stamp(self._layout.base)[:2]
        except OSError:
            self._cache = None
        self._there = frozenset(base_files)
        self._walk.go([self._layout.instances])
        for disk in self._others.disks:
            self._look_at(disk)
        return self._testify(base_files)

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Scan the directories that have changed since.

        And the disks that may just have been in the making (decision 0031):
        qemu-img writes the name of the backing file in place.
        """
        fresh, self._fresh = self._fresh, {}
        recent, self._walk.recent = self._walk.recent, set()
        self._plain.clear()
        self._glances = False
        suspects = {*recent, *map(os.path.dirname, fresh)}
        # First what is likely to have changed, as the cache from which files
        # have gone: all others are then asked once.
        self._walk.go(
            [
                *self._walk.doubt(),
                *(suspects & self._walk.directories.keys()),
                *self._walk.changed([self._layout.base]),
            ]
        )
        for path, guest in fresh.items():
            # What else is where libvirt has a disk is no concern of ours.
            if os.path.dirname(path) not in self._walk.directories:
                found = self._look_into(path, guest, again=True)
                if found is not None:
                    reason, problem = found
                    self._named[path] = vetoing.Veto(reason, path, problem)
        return self._testify(base_files)

    def chains(self, base_file: str) -> list[chains.Chain]:
        """Give the disks that lead to a base file, as they were found."""
        return self._disks.chains(base_file)

    def inventory(self) -> inventories.Inventory:
        """Give what there is to remember for the next pass.

        Of what could not be looked at, that is what was known before.
        """
        before = self._memory.inventory
        disks = {
            path: seen
            for path, seen in before.disks.items()
            if self._is_unseen(path)
        }
        for path, seen in self._seen.items():
            # Also by a layer that only libvirt has told of this time.
            bases = self._bases.get(path, set())
            astray = path in self._astray
            if astray != seen.astray or not bases.issubset(seen.needs):
                needs = tuple(sorted({*seen.needs, *bases}))
                seen = dataclasses.replace(seen, needs=needs, astray=astray)
            disks[path] = seen
        missing = Reason.MISSING_MOUNT
        if any(each.veto.reason is missing for each in self._absent):
            return dataclasses.replace(before, disks=disks, directories={})
        return dataclasses.replace(
            absences.inventory_of(
                self._layout.instances, disks, self._walk.links
            ),
            directories=dict(self._directories()),
            bases=self._raw,
            looked=before.looked
            if self._walk.believed or self._plain
            else time.time(),
            ignored=tuple(self._memory.patterns),
        )

    def _directories(
        self,
    ) -> Iterator[tuple[str, inventories.Version | None]]:
        """Give the directories that need not be listed while they are so."""
        failed = {*self._walk.failures, *self._named}
        odd = self._odd | failed | {*map(os.path.dirname, failed)}
        for directory, listed_as in self._walk.directories.items():
            if directory in (self._layout.instances, self._layout.base):
                continue
            settled = (
                directory not in odd
                and self._walk.is_settled(directory)
                # Others go by what is noted of what they cannot see.
                and self._is_shared(directory)
            )
            yield directory, listed_as[1:] if settled else None

    def _is_unseen(self, path: str) -> bool:
        """Whether a path, or a directory above, could not be looked at."""
        if any(each.has(path) for each in self._absent):
            return True
        if not self._walk.failures and not self._named:
            return False
        failed = path
        while failed != os.path.dirname(failed):
            if failed in self._walk.failures or failed in self._named:
                return True
            failed = os.path.dirname(failed)
        return False

    # What is found in directories.

    def _examine(self, listed_as: walks.Stamp, entry: walks.Entry) -> _Read:
        """Read the header of an entry, as far as that is simple.

        Any thread may do so, so nothing is noted here.

        :returns: None where that is left to who visits the entry
        """
        try:
            if entry.is_symlink() or not entry.is_file():
                return None
            if listed_as[:2] == self._cache:
                if self._is_known_in_cache(entry):
                    return True
            elif self._is_of_sibling(entry):
                return None
            return headers.read(entry.path, None, entry.listed)
        except PermissionError:
            return None
        except (OSError, disk_header.MalformedHeader) as error:
            return error

    @staticmethod
    def _did_not_answer(_listed_as: walks.Stamp, _entry: walks.Entry) -> _Read:
        return OSError(
            errno.ETIMEDOUT,
            f'it has not answered within {pools.PATIENCE_SECONDS} s',
        )

    def _visit(
        self, listed_as: walks.Stamp, entry: walks.Entry, read: _Read
    ) -> None:
        if not isinstance(read, tuple):
            self._odd.add(os.path.dirname(entry.path))
        if listed_as[:2] == self._cache:
            self._read_cached(entry, read)
        elif not self._is_of_sibling(entry):
            self._read_disk(entry, read)

    def _is_of_sibling(self, entry: walks.Entry) -> bool:
        """Whether this is a base file of another host's cache."""
        is_base = names.kind_of(entry.name).is_base
        if not is_base and not names.leftover_of(entry.name):
            return False
        directory = os.path.dirname(entry.path)
        return chain_ends.is_sibling(self._layout, directory)

    def _read_disk(self, entry: walks.Entry, read: _Read) -> None:
        path = entry.path
        try:
            if entry.is_file() or entry.is_symlink():
                self._note_disk(entry, read)
        except FileNotFoundError:
            # Gone, so the directory is read again; but a link that points to
            # nothing may be to what is not mounted (decision 0005).
            if os.path.islink(path):
                target = names.printable(os.readlink(path))
                self._walk.fail(
                    path,
                    Reason.MISSING_DISK,
                    f'it is a link to {target}, which points to nothing',
                )
            else:
                self._walk.vanished.add(path)
        except OSError as error:
            self._walk.fail(path, Reason.UNREADABLE, error.strerror)
        except disk_header.MalformedHeader as error:
            # Decision 0004.
            directory = os.path.dirname(path)
            if not headers.declared_raw(directory, entry.name):
                self._walk.fail(
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
        plain, cached = self._plain.get(entry.name), self._cached
        if plain is None and entry.name not in cached:
            return False
        status = os.lstat(entry.path)
        if plain == (status.st_ino, status.st_size):
            return True
        return cached.get(entry.name) == self._version_of(status)

    def _read_cached(self, entry: walks.Entry, read: _Read) -> None:
        """Read a file in the cache, which may be part of a chain itself.

        A base file that cannot be read is noted only (decision 0005).
        """
        kind = names.kind_of(entry.name)
        if kind is names.Kind.OTHER and not names.leftover_of(entry.name):
            self._read_disk(entry, read)
            return
        try:
            if read is True:
                if entry.name in self._plain:
                    self._raw[entry.name] = self._plain[entry.name]
                return
            seen = read[0] if isinstance(read, tuple) else os.lstat(entry.path)
            self._note_disk(entry, read)
            self._cached[entry.name] = self._version_of(seen)
            if isinstance(read, tuple) and read[1] == _NEEDS_NOTHING:
                self._raw[entry.name] = seen.st_ino, seen.st_size
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(entry.path, f'cannot be read: {error.strerror}')
        except disk_header.MalformedHeader as error:
            self._note(entry.path, f'has a damaged header: {error}')

    def _note_disk(self, entry: walks.Entry, read: _Read) -> None:
        """Note what a disk needs: what its header names, or it links to."""
        path = entry.path
        directory = os.path.dirname(path)
        in_cache = directory == self._layout.base
        root = directory if in_cache else self._layout.instances
        guest = owners.guest_of(root, directory, entry.name)
        linked: set[str] = set()
        if entry.is_symlink():
            for target in (os.readlink(path), os.path.realpath(path)):
                linked |= references.read(target).names
            self._disks.add(
                chains.Disk(directory, entry.name, guest, frozenset(linked))
            )
            # What a link leads to may be a device: not even opened. Where it
            # is nothing, that may be in the trash.
            os.stat(path)
        if entry.is_file():
            self._read_header(path, guest, entry, frozenset(linked), read)

    def _read_header(
        self,
        path: str,
        guest: str,
        entry: walks.Entry | None = None,
        linked: frozenset[str] = frozenset(),
        read: _Read = None,
    ) -> None:
        directory, name = os.path.split(path)
        if not isinstance(read, tuple):
            # Before it is read: it is there, whatever that gives.
            self._scanned.add(path, None)
            if isinstance(read, Exception):
                raise read
            read = headers.read(
                path,
                self._lent.read_as_root,
                # Where its directory may not be looked into.
                None if entry is None else entry.listed,
                devices=entry is None,
            )
        status, header = read
        self._scanned.add(path, (status.st_dev, status.st_ino))
        data_file = header.data_file
        if data_file is not None and not data_file.startswith(os.sep):
            # Nobody but QEMU knows from which directory.
            data_file = f'file:{data_file}'
        named = tuple(
            reference
            for reference in (header.backing_file, data_file)
            if reference is not None
        )
        parsed = [references.read(each) for each in named]
        wanted = linked.union(*(each.names for each in parsed))
        usual = all(self._ends.is_usual(path, each) for each in parsed)
        if data_file is not None or not usual:
            self._odd.add(directory)
        if usual:
            pass
        elif headers.declared_raw(directory, name):
            # A guest has written that: names are all that it is taken for.
            named = ()
        else:
            wanted = linked.union(
                *(self._resolved(path, guest, each) for each in parsed)
            )
        if wanted or named:
            self._disks.add(
                chains.Disk(directory, name, guest, wanted, named, usual)
            )
        if directory != self._layout.base:
            self._seen[path] = inventories.Seen(
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                tuple(sorted(wanted)),
            )
        # A guest's raw disk has a header no more than it had a moment ago.
        unfinished = header.format != 'raw' or status.st_size < _HEADER_SIZE
        age = time.time() - status.st_mtime
        if not named and unfinished and age < _FRESH_SECONDS:
            self._fresh[path] = guest

    def _claim(self, path: str, guest: str) -> None:
        """Note that a file is a disk of a guest, or below one."""
        self._claims.setdefault(os.path.normpath(path), set()).add(guest)
        with contextlib.suppress(OSError, ValueError):
            self._claims.setdefault(os.path.realpath(path), set()).add(guest)

    def _resolved(
        self, path: str, guest: str, read: references.Reference
    ) -> frozenset[str]:
        """Name the files that a reference leads to, but no sibling's."""
        wanted = read.names
        for target in read.targets:
            if target.local:
                below = os.path.join(os.path.dirname(path), target.path)
                self._claim(below, guest)
            end = self._ends.find(path, target)
            if end.base_file is None:
                continue
            if end.sibling is None:
                wanted |= {end.base_file}
            elif len(read.targets) == 1:
                wanted -= {end.base_file}
        return wanted

    def _look_at(self, disk: testimonies.NamedDisk) -> None:
        """See to a disk that was named, and that the scan may have missed.

        Its path is libvirt's, and so are those of what is below it where they
        are known: they may be opened.
        """
        for layer in disk.layers or ():
            self._claim(layer, disk.guest)
            self._look_into(layer, disk.guest)
        path = disk.path
        if path is None:
            subject = f'{disk.source} of guest {disk.guest}'
            refused = Reason.OUT_OF_SIGHT, 'it is no file of this host'
        else:
            subject = path
            self._claim(path, disk.guest)
            found = self._look_into(path, disk.guest)
            if found is None:
                return
            reason, problem = found
            refused = reason, f'it is a disk of guest {disk.guest}: {problem}'
        if disk.layers is None:
            reason, problem = refused
            self._named[subject] = vetoing.Veto(reason, subject, problem)
        else:
            self._take_layers(disk, subject)

    def _look_into(
        self, path: str, guest: str, again: bool = False
    ) -> tuple[Reason, str] | None:
        """Read the header of a disk, if the scan has not.

        :param again: whether to read it in any case
        :returns: why that cannot be done
        """
        if not again and self._scanned.has(path):
            return None
        try:
            self._read_header(path, guest)
        except FileNotFoundError:
            # Nova may have renamed its directory, and was seen there.
            directory, name = os.path.split(path)
            if any(
                self._scanned.has(os.path.join(directory + suffix, name))
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
        self._disks.add(chains.Disk(directory, name, disk.guest, wanted))

    # What that comes to.

    def _testify(self, base_files: Collection[str]) -> testimonies.Testimony:
        followed = chain_ends.follow(
            self._disks, self._ends, self._layout, self._there
        )
        self._astray = frozenset(followed.astray)
        narrowed = narrowing.narrow(
            [
                *self._walk.failures.values(),
                *self._named.values(),
                *(
                    vetoing.Veto(
                        Reason.OUT_OF_SIGHT, path, f'it stands on {what}'
                    )
                    for path, what in followed.astray.items()
                ),
            ],
            self._layout.instances,
            self._memory,
            self._others,
            self._claims,
        )
        self._absent = absences.find(
            self._layout.instances,
            self._memory.inventory,
            self._others,
            self._walk.directories.keys(),
            self._seen,
        )
        recalled = {
            path: seen
            for path, seen in self._memory.inventory.disks.items()
            if any(each.has(path) for each in self._absent)
        }
        self._recall(recalled | narrowed.recalled)
        below, beyond = self._users(base_files)
        users = {
            name: below.get(name, frozenset()) | beyond.get(name, frozenset())
            for name in {*below, *beyond}
        }
        return testimonies.Testimony(
            users=users,
            readers=users,
            below=below,
            beyond=beyond,
            missing={
                name: frozenset(guests)
                for name, guests in followed.missing.items()
            },
            vetoes=(
                *narrowed.vetoes,
                *(each.veto for each in self._absent),
            ),
            notes=(*self._notes.values(), *_notes(followed, narrowed)),
        )

    def _users(
        self, base_files: Collection[str]
    ) -> tuple[dict[str, testimonies.Guests], dict[str, testimonies.Guests]]:
        """Give the guests by the base files that their disks need.

        :returns: by those disks that others can see, and by the others
        """
        below: dict[str, testimonies.Guests] = {}
        beyond: dict[str, testimonies.Guests] = {}
        for name in base_files:
            for disk in self._disks.above(name, self._layout.file(name)):
                self._bases.setdefault(disk.path, set()).add(name)
                found = below if self._is_shared(disk.directory) else beyond
                found[name] = found.get(name, frozenset()) | {disk.guest}
        return below, beyond

    def _is_shared(self, directory: str) -> bool:
        """Whether whoever shares ``instances_path`` can see what is in here.

        What is mounted below it may be of this host alone, also where it is
        of the same file system.
        """
        directories = self._walk.directories
        root = directories.get(self._layout.instances)
        stamp = directories.get(directory)
        if root is None or stamp is None or stamp[0] != root[0]:
            return False
        return not any(
            f'{directory}{os.sep}'.startswith(f'{point}{os.sep}')
            for point in self._mounted
        )

    @functools.cached_property
    def _mounted(self) -> frozenset[str]:
        """Give the mount points below ``instances_path``, as found there."""
        top = self._layout.instances
        real = os.path.realpath(top)
        return frozenset(
            top + point.removeprefix(real) for point in mounts.below(top)
        )

    def _recall_directory(self, directory: str) -> None:
        """Take the disks in a directory for what they were.

        They name base files alone, or nothing, or it would have been listed.
        """
        device = self._walk.directories[directory][0]
        for path in self._remembered.get(directory, ()):
            seen = self._memory.inventory.disks[path]
            self._scanned.add(path, (device, seen.inode))
            self._seen[path] = seen
            if seen.needs:
                self._add_recalled(
                    path, seen, tuple(map(self._layout.file, seen.needs))
                )

    def _add_recalled(
        self,
        path: str,
        seen: inventories.Seen,
        named: tuple[str, ...] = (),
    ) -> None:
        directory, name = os.path.split(path)
        guest = owners.guest_of(self._layout.instances, directory, name)
        needs = frozenset(seen.needs)
        self._disks.add(
            chains.Disk(directory, name, guest, needs, named, bool(named))
        )

    def _recall(self, disks: Mapping[str, inventories.Seen]) -> None:
        """Take disks for what they were when they were read last."""
        for path, seen in disks.items():
            if seen.needs and path not in self._seen:
                self._add_recalled(path, seen)

    def _note(self, path: str, problem: str) -> None:
        self._notes[path] = codes.Problem(
            codes.Code.DISK_NOTE, f'{names.printable(path)} {problem}', path
        )


def _notes(
    followed: chain_ends.Followed, narrowed: narrowing.Narrowed
) -> Iterator[codes.Problem]:
    for sibling, paths in followed.siblings.items():
        yield codes.Problem(
            codes.Code.SIBLING,
            f'disks that use {names.printable(sibling)}, the cache of another '
            f'host: {len(paths)}, such as {_some(paths)}',
            sibling,
        )
    if narrowed.ignored:
        yield codes.Problem(
            codes.Code.IGNORED,
            f'ignored on somebody\'s word: {_some(narrowed.ignored)}; '
            '"nova-imagecache unignore PATH" takes that back',
        )
    if narrowed.unchanged:
        yield codes.Problem(
            codes.Code.UNCHANGED,
            'files that cannot be read, and have not changed since they were, '
            f'keep what they needed: {len(narrowed.unchanged)}, such as '
            f'{_some(narrowed.unchanged)}',
        )
