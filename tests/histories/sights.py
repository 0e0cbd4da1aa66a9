# SPDX-License-Identifier: Apache-2.0

"""What a host can see of who uses what, and what it may take for a use.

Told from how things are, and not from what the product says. Both ends are
open: what is seen for sure has to stay, and what may not even be taken for a
use has to go.
"""

from collections.abc import Collection
from collections.abc import Iterator
import dataclasses
import os

from tests.histories import inhabitants
from tests.histories import worlds

Guest = inhabitants.Guest
Host = inhabitants.Host

_RESCUE = 'disk.rescue'

#: Seconds for which a note of a use counts, see cache/hosts.py.
GRACE = 3600


@dataclasses.dataclass
class Sight:
    """What a host sees.

    :ivar names: base files that somebody is seen to use
    :ivar kept: base files that somebody may need, who is known
    :ivar inodes: of those that a running QEMU holds, wherever they are
    :ivar blind: whether there is something that may need anything
    :ivar perhaps_blind: whether there may be
    :ivar perhaps: base files that somebody may be taken to use
    :ivar noted: likewise, as other hosts may have noted
    """

    names: set[str] = dataclasses.field(default_factory=set)
    kept: set[str] = dataclasses.field(default_factory=set)
    inodes: set[int] = dataclasses.field(default_factory=set)
    blind: bool = False
    perhaps_blind: bool = False
    perhaps: set[str] = dataclasses.field(default_factory=set)
    noted: set[str] = dataclasses.field(default_factory=set)

    def go_blind(self, perhaps: bool = False) -> None:
        """Have seen something that may need anything.

        :param perhaps: whether what it needs may be known
        """
        self.blind |= not perhaps
        self.perhaps_blind = True


@dataclasses.dataclass
class Notes:
    """What a host has noted in its passes, for sure and perhaps.

    :ivar disks: base files that disks need, by path and inode
    :ivar once: disks that it ever found, perhaps
    :ivar mounted: whether its file system was mounted in its last pass
    :ivar below: base files that disks below its instances_path need
    :ivar beyond: base files that its guests need by other evidence
    :ivar perhaps: when base files may have been noted last, by the true time
    """

    disks: dict[tuple[str, int], set[str]] = dataclasses.field(
        default_factory=dict
    )
    once: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    mounted: bool = False
    below: set[str] = dataclasses.field(default_factory=set)
    beyond: set[str] = dataclasses.field(default_factory=set)
    perhaps: dict[str, float] = dataclasses.field(default_factory=dict)


class Sights:
    """Tells what the hosts of a world see."""

    def __init__(self, world: worlds.World, asked: Collection[str]) -> None:
        """Take a world.

        :param asked: witnesses that are asked
        """
        self._world = world
        self._asked = asked
        self.notes = {host.name: Notes() for host in world.hosts}
        # Files that are no disks, and the hosts that were told so.
        self.foreign: dict[str, set[str]] = {}
        # Hosts that may not have seen everything in their last pass.
        self.hazy: set[str] = set()

    # Where disks are.

    def _is_below(self, guest: Guest, host: Host) -> bool:
        """Whether a guest's disks are among those that a host looks at."""
        place = guest.directory or ''
        return (
            place.startswith(host.instances + os.sep)
            and host.mounted
            and (guest.home == host.name or not self._world.local)
        )

    def _paths(self, guest: Guest) -> Iterator[tuple[str, str, int]]:
        """Give each disk of a guest: its name, its path, its inode."""
        for disk in guest.disks:
            path = os.path.join(str(guest.directory), disk)
            yield disk, path, self._inode(path)

    def _inode(self, path: str) -> int:
        try:
            return os.stat(path).st_ino
        except FileNotFoundError:
            return 0

    def is_listed(self, guest: Guest, host: Host) -> bool:
        """Whether the list that a host has names a guest.

        Whose instances_path is its own has a list of its own.
        """
        return guest.listed and (
            guest.home == host.name or not self._world.local
        )

    # What is seen.

    def of(self, host: Host, failing: str = '') -> Sight:
        """Say what a host sees now.

        :param failing: a witness that cannot answer
        """
        sight = Sight()
        for guest in self._world.guests:
            self._look_at(sight, guest, host, failing)
        if failing != 'instances':
            self._miss(sight, host)
        if failing:
            sight.go_blind()
        if not host.mounted:
            sight.go_blind(perhaps=not self.notes[host.name].mounted)
        elif any(
            path.startswith(host.instances + os.sep) and host.name not in told
            for path, told in self.foreign.items()
        ):
            sight.go_blind()
        for other in self._world.hosts:
            if other is not host:
                noted = self.notes[other.name]
                sight.names |= noted.beyond
                if self._world.local:
                    sight.names |= noted.below
                sight.noted |= noted.perhaps.keys()
        return sight

    def _look_at(
        self, sight: Sight, guest: Guest, host: Host, failing: str
    ) -> None:
        notes = self.notes[host.name]
        sight.perhaps |= guest.needs | guest.ever | guest.opened.keys()
        sight.perhaps |= guest.named | inhabitants.made_from(guest.tag)
        if guest.host:
            # Of devices libvirt says nothing.
            sight.perhaps.add(inhabitants.SWAP)
        for name in guest.locked:
            sight.inodes.add(os.fstat(guest.opened[name]).st_ino)
        listed = self.is_listed(guest, host) and failing != 'instances'
        defined = guest.host == host.name and failing != 'domains'
        if listed and 'instances' in self._asked:
            sight.names |= guest.named
        told = False
        if defined and 'domains' in self._asked:
            sight.names |= inhabitants.made_from(guest.tag)
            told = bool(guest.opened and guest.address)
        if told:
            # Of those that run, libvirt has the whole chain.
            sight.names |= guest.needs
        # Whether anything is known of it that it may need.
        known = listed or bool(defined and guest.tag)
        if self._is_below(guest, host):
            self._look_below(
                sight, guest, notes, known, told if defined else None
            )
        elif defined and guest.address and not told:
            self._look_beyond(sight, guest, host, notes, known)

    def _miss(self, sight: Sight, host: Host) -> None:
        """Take guests that are missed for what they were."""
        absent = [
            guest
            for guest in self._world.guests
            if self.is_listed(guest, host) and self._is_absent(guest, host)
        ]
        for guest in absent:
            sight.names |= self._remembered(guest, host, self.notes[host.name])
        if absent and not any(
            self._is_below(guest, host) and guest.disks
            for guest in self._world.guests
        ):
            sight.perhaps_blind = True

    def _is_absent(self, guest: Guest, host: Host) -> bool:
        """Whether a host misses the directory of a guest."""
        return (
            self._world.tells
            and guest.built
            and guest.home == host.name
            and not self._is_below(guest, host)
        )

    def _disks_at(
        self, guest: Guest, host: Host, notes: Notes
    ) -> dict[tuple[str, int], set[str]]:
        """Give the disks that were found where a guest should be."""
        place = os.path.join(host.instances, guest.uuid) + os.sep
        return {
            key: needed
            for key, needed in notes.disks.items()
            if key[0].startswith(place)
        }

    def _remembered(self, guest: Guest, host: Host, notes: Notes) -> set[str]:
        found = self._disks_at(guest, host, notes)
        return {name for needed in found.values() for name in needed}

    def _look_below(
        self,
        sight: Sight,
        guest: Guest,
        notes: Notes,
        known: bool,
        told: bool | None,
    ) -> None:
        for disk, path, inode in self._paths(guest):
            if inode in self._world.unreadable:
                before = notes.disks.get((path, inode))
                if before is not None:
                    sight.names |= before
                elif not known:
                    sight.go_blind((path, inode) in notes.once)
                elif disk == _RESCUE:
                    # It may be made from any image.
                    sight.perhaps_blind = True
                elif guest.host and guest.tag and told is not None:
                    # Its devices are not known.
                    sight.kept.add(inhabitants.SWAP)
            elif os.path.isabs(guest.layers.get(disk, '')) and not told:
                sight.go_blind()
            else:
                sight.names.add(guest.disks[disk])

    def _look_beyond(
        self,
        sight: Sight,
        guest: Guest,
        host: Host,
        notes: Notes,
        known: bool,
    ) -> None:
        """Look at the disks that libvirt names."""
        if 'domains' not in self._asked:
            return
        if guest.address == guest.directory:
            if str(guest.address).startswith(self._world.outside):
                self._look_outside(sight, guest, notes)
            return
        # They are not where they should be.
        inside = str(guest.address).startswith(host.instances + os.sep)
        if guest.disks and not (inside and known):
            sight.go_blind()
        elif _RESCUE in guest.disks:
            sight.perhaps_blind = True
        elif guest.disks and guest.tag:
            sight.kept.add(inhabitants.SWAP)

    def _look_outside(self, sight: Sight, guest: Guest, notes: Notes) -> None:
        for disk, path, inode in self._paths(guest):
            if inode in self._world.unreadable:
                before = notes.disks.get((path, inode))
                if before is not None:
                    sight.names |= before
                else:
                    sight.go_blind((path, inode) in notes.once)
            elif disk in guest.layers:
                sight.go_blind()
            else:
                sight.names.add(guest.disks[disk])

    # What is noted.

    def survey(
        self, host: Host, present: Collection[str], failing: str = ''
    ) -> Notes:
        """Say what a pass notes that begins now, for sure.

        :param present: base files in the cache and in the trash
        :param failing: a witness that cannot answer
        """
        before = self.notes[host.name]
        notes = Notes(mounted=host.mounted)
        for guest in self._world.guests:
            is_below = self._is_below(guest, host)
            is_named = (
                guest.host == host.name
                and guest.address is not None
                and failing != 'domains'
            )
            if is_named and 'domains' in self._asked:
                notes.beyond |= inhabitants.made_from(guest.tag)
                notes.beyond |= guest.needs if guest.opened else set()
            if self.is_listed(guest, host) and failing != 'instances':
                if guest.home == host.name or not self._world.tells:
                    notes.beyond |= guest.named
                if self._is_absent(guest, host):
                    notes.disks |= self._disks_at(guest, host, before)
            outside = (
                is_named
                and guest.address == guest.directory
                and str(guest.address).startswith(self._world.outside)
            )
            if is_below or outside:
                found = notes.below if is_below else notes.beyond
                self._survey_disks(guest, bool(outside), before, notes, found)
        notes.below &= {*present}
        notes.beyond &= {*present}
        return notes

    def _survey_disks(
        self,
        guest: Guest,
        outside: bool,
        before: Notes,
        notes: Notes,
        found: set[str],
    ) -> None:
        for disk, path, inode in self._paths(guest):
            layer = guest.layers.get(disk, '')
            key = (path, inode)
            if inode in self._world.unreadable:
                if key in before.disks:
                    notes.disks[key] = before.disks[key]
            elif not (os.path.isabs(layer) or (outside and layer)):
                found.add(guest.disks[disk])
                notes.disks[key] = set() if layer else {guest.disks[disk]}

    def note(
        self, host: Host, new: Notes, sight: Sight, complete: bool
    ) -> None:
        """Note what a pass has noted.

        :param new: what it was to note
        :param sight: what it has seen
        :param complete: whether it came to its end
        """
        old = self.notes[host.name]
        new.perhaps = old.perhaps
        new.once = old.once | new.disks.keys()
        if not complete:
            # It may have noted that, or nothing.
            new.mounted &= old.mounted
            new.below &= old.below
            new.beyond &= old.beyond
            new.disks = {
                key: needed
                for key, needed in new.disks.items()
                if old.disks.get(key) == needed
            }
        elif sight.blind:
            new.below |= old.below
            new.beyond |= old.beyond
            if old.mounted and not new.mounted:
                new.mounted, new.disks = True, old.disks
        self.notes[host.name] = new

    def note_perhaps(self, host: Host, sight: Sight, complete: bool) -> None:
        """Note what a pass may have noted.

        :param complete: whether it has forgotten what it does not see
        """
        notes = self.notes[host.name]
        now = self._world.true
        if complete:
            notes.perhaps = {
                name: when
                for name, when in notes.perhaps.items()
                if when > now - GRACE
            }
        notes.perhaps |= dict.fromkeys(sight.perhaps, now)

    def forget(self, host: Host) -> None:
        """Forget what a host has noted."""
        self.notes[host.name] = Notes()
        self.hazy.discard(host.name)
