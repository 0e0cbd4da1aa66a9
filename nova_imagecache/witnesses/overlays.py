# SPDX-License-Identifier: Apache-2.0

"""The witness that reads the headers of all disks of this host's guests."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import functools
import os
import time

import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import mounts
from nova_imagecache import codes
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache.witnesses import absences
from nova_imagecache.witnesses import chain_ends
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import findings
from nova_imagecache.witnesses import ignored
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import narrowing
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing
from nova_imagecache.witnesses import walks

Reason = vetoing.Reason

# For which directories are believed by their times, between two looks at
# everything (decision 0085).
_BELIEVED_SECONDS = 24 * 3600

_SHOWN = 3


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
        jumped: bool = False,
    ) -> None:
        """Look at nothing yet.

        :param lent: reads and lists what this process may not; without it,
            each of that is a veto
        :param glance: whether to believe directories by their times, and to
            look at nothing twice; what it has seen removes nothing
        :param clock: that of the storage, where it could be read
        :param settled: whether what is remembered was noted long enough ago
            for the times of directories to tell what was changed since
        :param jumped: whether the clock of this host was set since
        """
        self._layout = layout
        self._lent = host.Host() if lent is None else lent
        self._memory = memories.Memory() if memory is None else memory
        before = self._memory.inventory
        believable = self._is_believable(before)
        known = before.bases if believable else {}
        believes = glance and believable
        self._glances = glance
        self._found = findings.Findings(
            layout,
            self._lent,
            before.disks if believes else {},
            known if glance else {},
            known,
            None if glance or jumped else self._unchanged(clock),
        )
        self._walk = walks.Walk(
            layout.instances,
            ignored.Ignored(layout, self._memory.patterns),
            self._found.examine,
            self._found.visit,
            self._found.did_not_answer,
            self._lent.list_as_root,
            known=before.directories if believes else None,
            recall=self._found.recall_directory,
            last=layout.base,
            clock=clock,
            seen=before.directories if settled else None,
        )
        self._found.walk = self._walk
        # Base files that were there when this was asked first.
        self._there: frozenset[str] = frozenset()
        self._bases: dict[str, tuple[str, ...]] = {}
        self._others = testimonies.Testimony()
        self._began = 0.0
        self._has_ended = False
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

    def _unchanged(
        self, clock: walks.StorageClock | None
    ) -> findings.Unchanged | None:
        """Give the disks of which their times tell, if there are any."""
        before = self._memory.inventory
        if clock is None or not self._is_believable(before):
            return None
        # What was read then had not been changed for so long.
        age = time.time() - (before.looked or 0)
        limit = clock.now() - int((age + walks.GRAIN_SECONDS) * 10**9)
        return findings.Unchanged(before, clock.device, limit)

    @property
    def has_glanced(self) -> bool:
        """Whether what it has seen is not to remove anything by."""
        return self._glances

    def show(self, files: Iterable[base_file.BaseFile]) -> None:
        """Take what was just seen of the cache, for a glance to go by."""
        self._found.shown = {
            file.name: (file.incarnation.inode, file.stat.size)
            for file in files
        }

    def look(
        self,
        base_files: Collection[str],
        others: testimonies.Testimony | None = None,
    ) -> testimonies.Testimony:
        """Scan everything, and say who needs these files."""
        self._has_ended = False
        self._began = time.time()
        if others is not None:
            self._others = others
        try:
            self._found.cache = walks.stamp(self._layout.base)[:2]
        except OSError:
            self._found.cache = None
        self._there = frozenset(base_files)
        if not self._found.is_plain_still():
            # Written in place, which the times of the cache do not tell.
            self._walk.distrust(self._layout.base)
        self._walk.go([self._layout.instances])
        for disk in self._others.disks:
            self._found.look_at(disk)
        self._found.catch_up()
        return self._testify(base_files)

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Scan the directories that have changed since.

        And the disks that may just have been in the making (decision 0031):
        qemu-img writes the name of the backing file in place.
        """
        self._has_ended = False
        fresh, self._found.fresh = self._found.fresh, {}
        recent, self._walk.recent = self._walk.recent, set()
        self._found.plain.clear()
        self._glances = False
        suspects = {*recent, *map(os.path.dirname, fresh)}
        # First what is likely to have changed, as the cache from which files
        # have gone: all others are then asked once.
        self._walk.go(
            [
                *self._walk.doubt(),
                *(suspects & self._walk.directories.keys()),
                *self._walk.changed([self._layout.base]),
            ],
            until_stable=True,
        )
        for path, guest in fresh.items():
            # What else is where libvirt has a disk is no concern of ours.
            if os.path.dirname(path) not in self._walk.directories:
                found = self._found.look_into(path, guest, again=True)
                if found is not None:
                    reason, problem = found
                    self._found.named[path] = vetoing.Veto(
                        reason, path, problem
                    )
        self._found.catch_up()
        return self._testify(base_files)

    def chains(self, base_file: str) -> list[chains.Chain]:
        """Give the disks that lead to a base file, as they were found."""
        return self._found.disks.chains(base_file)

    def inventory(self) -> inventories.Inventory:
        """Give what there is to remember for the next pass.

        Of what could not be looked at, that is what was known before.
        """
        before = self._memory.inventory
        if not self._has_ended:
            # A directory that was listed has disks that nobody has read.
            return before
        failed = self._absent or self._walk.failures or self._found.named
        disks = {
            path: seen
            for path, seen in before.disks.items()
            if failed and self._is_unseen(path)
        }
        for path, seen in self._found.seen.items():
            # Also by a layer that only libvirt has told of this time.
            bases = self._bases.get(path, ())
            astray = path in self._astray
            told = bases == seen.needs or all(
                each in seen.needs for each in bases
            )
            if astray != seen.astray or not told:
                needs = tuple(sorted({*seen.needs, *bases}))
                seen = msgspec.structs.replace(
                    seen, needs=needs, astray=astray
                )
            disks[path] = seen
        missing = Reason.MISSING_MOUNT
        if any(each.veto.reason is missing for each in self._absent):
            return dataclasses.replace(before, disks=disks, directories={})
        return dataclasses.replace(
            absences.inventory_of(
                self._layout.instances, disks, self._walk.links
            ),
            directories=dict(self._directories()),
            bases=self._found.raw,
            looked=before.looked
            if self._walk.believed or self._found.has_believed
            else self._began,
            ignored=tuple(self._memory.patterns),
        )

    def _directories(
        self,
    ) -> Iterator[tuple[str, inventories.Version | None]]:
        """Give the directories that need not be listed while they are so."""
        failed = {*self._walk.failures, *self._found.named}
        odd = self._found.odd | failed | {*map(os.path.dirname, failed)}
        is_shared = self._sharing()
        for directory, listed_as in self._walk.directories.items():
            if directory == self._layout.instances:
                continue
            settled = (
                directory not in odd
                and self._walk.is_settled(directory)
                # Others go by what is noted of what they cannot see.
                and is_shared(directory)
            )
            yield directory, listed_as[1:] if settled else None

    def _is_unseen(self, path: str) -> bool:
        """Whether a path, or a directory above, could not be looked at."""
        if any(each.has(path) for each in self._absent):
            return True
        failed = path
        while failed != os.path.dirname(failed):
            if failed in self._walk.failures or failed in self._found.named:
                return True
            failed = os.path.dirname(failed)
        return False

    def _testify(self, base_files: Collection[str]) -> testimonies.Testimony:
        followed = chain_ends.follow(
            self._found.disks, self._found.ends, self._layout, self._there
        )
        self._astray = frozenset(followed.astray)
        narrowed = narrowing.narrow(
            [
                *self._walk.failures.values(),
                *self._found.named.values(),
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
            self._found.claims,
        )
        self._absent = absences.find(
            self._layout.instances,
            self._memory.inventory,
            self._others,
            self._walk.directories.keys(),
            self._found.seen,
        )
        recalled = {
            path: seen
            for path, seen in self._memory.inventory.disks.items()
            if self._absent and any(each.has(path) for each in self._absent)
        }
        self._found.recall(recalled | narrowed.recalled)
        below, beyond = self._users(base_files)
        self._has_ended = True
        users = {**below, **beyond}
        for name in below.keys() & beyond.keys():
            users[name] = below[name] | beyond[name]
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
            notes=(*self._found.notes.values(), *_notes(followed, narrowed)),
        )

    def _users(
        self, base_files: Collection[str]
    ) -> tuple[dict[str, testimonies.Guests], dict[str, testimonies.Guests]]:
        """Give the guests by the base files that their disks need.

        :returns: by those disks that others can see, and by the others
        """
        below: dict[str, testimonies.Guests] = {}
        beyond: dict[str, testimonies.Guests] = {}
        is_shared = self._sharing()
        for name in base_files:
            here: list[str] = []
            elsewhere: list[str] = []
            above = self._found.disks.above(name, self._layout.file(name))
            for path, disk in above.items():
                known = self._bases.get(path, ())
                if name not in known:
                    self._bases[path] = (*known, name)
                shared = is_shared(disk.directory)
                (here if shared else elsewhere).append(disk.guest)
            if here:
                below[name] = frozenset(here)
            if elsewhere:
                beyond[name] = frozenset(elsewhere)
        return below, beyond

    def _sharing(self) -> Callable[[str], bool]:
        """Give what tells what others can see.

        :returns: whether whoever shares ``instances_path`` can see what is in
            a directory. What is mounted below may be of this host alone, also
            where it is of the same file system.
        """
        directories = self._walk.directories
        root = directories.get(self._layout.instances)
        mounted = self._mounted

        def is_shared(directory: str) -> bool:
            stamp = directories.get(directory)
            if root is None or stamp is None or stamp[0] != root[0]:
                return False
            return not mounted or not any(
                f'{directory}{os.sep}'.startswith(f'{point}{os.sep}')
                for point in mounted
            )

        return is_shared

    @functools.cached_property
    def _mounted(self) -> frozenset[str]:
        """Give the mount points below ``instances_path``, as found there."""
        top = self._layout.instances
        real = os.path.realpath(top)
        return frozenset(
            top + point.removeprefix(real) for point in mounts.below(top)
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
