# SPDX-License-Identifier: Apache-2.0

"""Passes in histories, and the judge of what they did."""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
from typing import Any

from nova_imagecache.cache import removal
from nova_imagecache import names
from nova_imagecache.passes import pipeline
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import testimonies
from tests.histories import disks
from tests.histories import idleness
from tests.histories import inhabitants
from tests.histories import sights
from tests.histories import worlds
from tests.support import base

Guest = inhabitants.Guest
Violation = worlds.Violation

FLOOR = 600
WITNESSES = frozenset({'instances', 'overlays', 'domains', 'locks'})

SWAP = {
    'source_type': 'blank',
    'destination_type': 'local',
    'guest_format': 'swap',
    'volume_size': 64,
}


@dataclasses.dataclass
class Places:
    """Where the base files are, by inode.

    :ivar trash: the names that they had
    """

    base: dict[str, int]
    trash: dict[int, str]


class Meanwhile:
    """Has something happen during a pass, once.

    A witness, as it is asked last of all.
    """

    def __init__(self, moment: str, act: Callable[[str], None]) -> None:
        """Prepare.

        :param moment: before the pass takes the locks of what is to go, when
            it has them and asks again, or when it has asked
        :param act: called with the name of a base file that is to go
        """
        self._moment = moment
        self._act: Callable[[str], None] | None = act
        self._chosen: str | None = None
        self._real_remove = removal.remove
        self._real_check = removal._check

    def _reach(self, moment: str, name: str | None) -> None:
        if moment == self._moment and name and self._act:
            act, self._act = self._act, None
            act(name)

    def remove(self, layout: Any, files: Sequence[Any], *args: Any) -> Any:
        """Stand in for removal.remove."""
        chosen = [file.name for file in files if file.kind.is_base]
        self._chosen = chosen[0] if chosen else None
        self._reach('before', self._chosen)
        outcomes = self._real_remove(layout, files, *args)
        self._chosen = None
        return outcomes

    def check(self, base_fd: int, file: Any) -> None:
        """Stand in for the last look at a file."""
        self._reach('asked', file.kind.is_base and file.name)
        self._real_check(base_fd, file)

    def look(
        self, base_files: Collection[str], others: Any = None
    ) -> testimonies.Testimony:
        return testimonies.Testimony()

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        self._reach('asking', self._chosen)
        return testimonies.Testimony()


class Passes:
    """A world in which passes are made, and judged.

    :ivar counts: what has happened, and how often
    """

    def __init__(
        self,
        world: worlds.World,
        counts: collections.Counter[str],
        asked: frozenset[str] = WITNESSES,
    ) -> None:
        """Begin.

        :param asked: witnesses that passes ask: all, but in tests of tests
        """
        self.counts = counts
        self._world = world
        self._layout = world.layout
        self._asked = asked
        self.sights = sights.Sights(world, asked)
        self.idleness = idleness.Idleness(world)
        # As it was before the present pass.
        self._before = Places({}, {})
        # Hosts that have made a pass, and whether by a clock that was wrong.
        self._have_passed: set[str] = set()
        self._misled = False
        # Base files that were rightly removed while somebody needed them, as
        # nobody could see that.
        self._excused: set[str] = set()
        # When Nova touched base files over which it has not yet made disks.
        self._begun: list[tuple[str, float]] = []

    def check(self) -> None:
        """Look whether every guest has what it needs, byte for byte."""
        present = set()
        for path, name in self._paths():
            content = inhabitants.CONTENT[name]
            if worlds.read(path) != content:
                raise Violation(f'{path} is not what it was')
            if os.path.exists(f'{path}.sha1'):
                digest = hashlib.sha1(content, usedforsecurity=False)
                if worlds.read(f'{path}.sha1') != digest.hexdigest().encode():
                    raise Violation(f'{path}.sha1 is wrong')
            if os.path.dirname(path) == self._layout.base:
                present.add(name)
        self._excused -= present
        for host, used in self._world.noted:
            self.sights.notes[host].perhaps |= dict.fromkeys(
                used, self._world.true
            )
        self._world.noted.clear()
        self.idleness.note(self._places().base, self._needed())
        for guest in self._world.guests:
            for name in guest.needs - present - self._excused:
                raise Violation(f'{name} is missing, of {guest}')

    def _needed(self) -> set[str]:
        """Name all base files that are of use to anybody, or may be."""
        needed = {*self._world.pins}
        for guest in self._world.guests:
            needed |= guest.needs | guest.named | guest.opened.keys()
        return needed

    def _paths(self) -> Iterator[tuple[str, str]]:
        """Find all base files; give their paths and names."""
        for name in os.listdir(self._layout.base):
            if name in inhabitants.BASE_FILES:
                yield self._layout.file(name), name
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._layout.trash):
                original = names.trashed_name(name)
                if original:
                    yield os.path.join(self._layout.trash, name), original

    def _places(self) -> Places:
        places = Places({}, {})
        for path, name in self._paths():
            inode = os.stat(path).st_ino
            if os.path.dirname(path) == self._layout.base:
                places.base[name] = inode
            else:
                places.trash[inode] = name
        return places

    def _notice(self, host: inhabitants.Host) -> None:
        """Have a host miss what it is not bound to notice of its clock."""
        now = self._world.now(host)
        noticed = []
        for before in host.passes:
            if before is None or before.boot_id != now.boot_id:
                noticed.append(0.0)
                continue
            real = now.boottime - before.boottime
            excess = now.wall - before.wall - real
            noticed.append(excess if excess > 61 + 0.001 * real else 0.0)
        forward = sum(seconds for _when, seconds in host.forward)
        missed = forward - min(noticed)
        if missed > 0:
            host.missed.append((host.forward[-1][0], missed))
        host.forward.clear()

    def _witnesses(
        self, host: inhabitants.Host, blind: str
    ) -> Iterator[testimonies.Witness]:
        guests = self._world.guests
        if 'instances' in self._asked:
            listed = [
                guest for guest in guests if self.sights.is_listed(guest, host)
            ]
            yield instances.InstanceWitness(
                None
                if blind == 'instances'
                else [self._instance(guest) for guest in listed],
                {guest.uuid: [SWAP] for guest in listed if guest.swap},
                host.name,
            )
        if 'domains' in self._asked:
            yield inhabitants.Domains(guests, host.name, blind == 'domains')

    def _instance(self, guest: Guest) -> dict[str, str | None]:
        told: dict[str, str | None] = {
            'uuid': guest.uuid,
            'image_ref': guest.image,
        }
        if self._world.tells:
            told['host'] = guest.home
            told['vm_state'] = 'active' if guest.built else 'shelved'
        return told

    def run_pass(
        self,
        host: inhabitants.Host,
        checksum: bool = False,
        fuse: int | None = None,
        blind: str = '',
        meanwhile: Meanwhile | None = None,
    ) -> None:
        """Make a pass, and judge it.

        :param fuse: after how many changes of the disk the process ends
        :param blind: a witness that fails
        """
        if host.away:
            return
        broken = os.path.join(host.instances, 'broken')
        if blind == 'overlays':
            os.mkdir(broken)
            with open(os.path.join(broken, 'disk'), 'wb') as file:
                file.write(disks.HALF)
        settings = dataclasses.replace(
            self._world.settings,
            instances_path=host.instances,
            host=host.name,
            checksum=checksum,
            witnesses=tuple(
                sorted(self._asked & {'instances', 'overlays', 'locks'})
            ),
            max_size=1 if self._world.pressure else 0,
        )
        witnesses = [*self._witnesses(host, blind)]
        before = self._before = self._places()
        present = {*before.base, *before.trash.values()}
        sight = self.sights.of(host, blind)
        survey = self.sights.survey(host, present, blind)
        self._notice(host)
        with self._world.seen_from(host):
            complete = self._attempt(
                pipeline.Pass(
                    settings,
                    [*witnesses, *([meanwhile] if meanwhile else [])],
                    lambda: self._world.now(host),
                    inline=True,
                ),
                fuse,
                meanwhile,
            )
        steps = [*host.steps]
        if complete:
            host.passes.clear()
            host.steps.clear()
        host.passes.append(self._world.now(host))
        have_passed = {*self._have_passed, host.name}
        after = self.sights.of(host, blind)
        self._judge(host, sight.blind, after)
        self._have_passed = have_passed
        if complete:
            self._judge_complete(sight)
        self._note(host, survey, sight, after, complete)
        is_set = self._judge_clock(host, steps)
        hazy = sight.perhaps_blind or after.perhaps_blind
        if hazy or blind or not complete:
            self.sights.hazy.add(host.name)
        else:
            self.sights.hazy.discard(host.name)
        # What another host could not see holds this one back.
        if complete and not (is_set or blind or meanwhile):
            if not (hazy or self.sights.hazy - {host.name}):
                self.counts['judged for what stays'] += 1
                self.idleness.judge(
                    {name: _minimum_age(name) for name in self._places().base}
                )
        self._excuse()
        if blind == 'overlays':
            shutil.rmtree(broken)
        self.counts['frozen'] += sight.blind

    def _judge_clock(
        self, host: inhabitants.Host, steps: Sequence[tuple[float, float]]
    ) -> bool:
        """Say whether a clock is such that files may stay for longer."""
        if host.offset or any(seconds <= 0 for _when, seconds in steps):
            self.idleness.set_back(self._world.now(host).wall)
            self._misled |= bool(host.offset)
            return True
        if self._misled:
            # It has found what was noted by a clock that is wrong.
            self.idleness.set_back()
            self._misled = False
            return True
        if steps:
            self.idleness.set_forward(min(when for when, _seconds in steps))
        return False

    def _note(
        self,
        host: inhabitants.Host,
        survey: sights.Notes,
        sight: sights.Sight,
        after: sights.Sight,
        complete: bool,
    ) -> None:
        """Note what a pass has noted, for sure and perhaps."""
        self.sights.note(host, survey, sight, complete)
        # What came meanwhile may have been found at the last moment.
        later = self.sights.survey(host, ())
        self.sights.notes[host.name].once |= later.disks.keys()
        sight.perhaps |= after.perhaps
        perhaps = sight.perhaps | sight.noted | after.noted
        self.sights.note_perhaps(
            host, sight, complete and not after.perhaps_blind
        )
        self.idleness.note(self._places().base, perhaps | self._needed())

    def _attempt(
        self, one: pipeline.Pass, fuse: int | None, meanwhile: Meanwhile | None
    ) -> bool:
        """Make a pass; say whether it came to its end."""
        self._world.fuse = fuse
        try:
            with contextlib.ExitStack() as stack:
                if meanwhile is not None:
                    for name, value in (
                        ('remove', meanwhile.remove),
                        ('_check', meanwhile.check),
                    ):
                        stack.enter_context(base.patched(removal, name, value))
                report = one.run()
        except worlds.Crash:
            self.counts['crashes'] += 1
            return False
        finally:
            self._world.fuse = None
        # Where the file system is not there, nothing is written.
        anything = self._before.base or self._before.trash
        return bool(report.files or report.trash or not anything)

    def _judge(
        self, host: inhabitants.Host, frozen: bool, seen: sights.Sight
    ) -> None:
        """Judge what is gone from where it was.

        :param frozen: whether nothing may have been removed
        :param seen: what could be seen at the last moment
        """
        before, after = self._before, self._places()
        now = self._world.true
        for name, inode in before.base.items():
            if after.base.get(name) == inode:
                continue
            if inode not in after.trash:
                raise Violation(f'{name} was not moved, but deleted')
            age = self._age_of(host, self._world.used[name])
            least = _minimum_age(name)
            pinned = name in self._world.pins
            self._judge_removal(name, inode, frozen, seen, pinned, age, least)
            self._world.trashed[inode] = now
            self.counts['removed'] += 1
        for inode, name in before.trash.items():
            if inode in after.trash:
                continue
            if inode in after.base.values():
                self.counts['put back'] += 1
                continue
            pinned = name in self._world.pins
            if name in before.base:
                # Users and pins of the name are those of the other file.
                seen = sights.Sight(
                    seen.names - {name}, seen.kept - {name}, seen.inodes
                )
                pinned = False
            age = self._age_of(host, self._world.trashed[inode])
            least = worlds.RETENTION
            self._judge_removal(name, inode, frozen, seen, pinned, age, least)
            self.counts['deleted'] += 1

    def _age_of(self, host: inhabitants.Host, since: float) -> float:
        """Say how old a host may rightly take something for, in seconds."""
        if self._world.astray and host.name not in self._have_passed:
            # It goes by what others have noted, by whatever clock.
            return math.inf
        missed = sum(seconds for when, seconds in host.missed if when >= since)
        return self._world.true - since + missed

    def _judge_removal(
        self,
        name: str,
        inode: int,
        frozen: bool,
        seen: sights.Sight,
        pinned: bool,
        age: float,
        least: int,
    ) -> None:
        if self._world.pressure:
            least = FLOOR
        for wrong, text in (
            (frozen, 'when nothing may be'),
            (name in seen.names, 'though somebody can be seen to use it'),
            (name in seen.kept, 'though somebody who is known may need it'),
            (inode in seen.inodes, 'though a QEMU has it open'),
            (pinned, 'though it is pinned'),
            (age < least, f'after {age} s, and not {least} s'),
        ):
            if wrong:
                raise Violation(f'{name} was removed {text}')

    def _judge_complete(self, seen: sights.Sight) -> None:
        """Judge what is not where it should be.

        :param seen: what could be seen at first
        """
        before, after = self._before, self._places()
        for inode, name in before.trash.items():
            wanted = (
                name in seen.names
                or name in self._world.pins
                or inode in seen.inodes
            )
            if wanted and name not in after.base:
                raise Violation(f'{name} was not put back')
        for name, inode in after.base.items():
            if name in seen.names or inode in seen.inodes:
                self._world.used[name] = self._world.true

    def _excuse(self) -> None:
        """Note which guests nobody could have known to need what is gone."""
        after = self._places()
        for guest in self._world.guests:
            for name in guest.needs - set(after.base):
                self._excused.add(name)
                self.counts['needed, and in the trash'] += 1
                if name not in after.trash.values():
                    # Its disk is of no use any more.
                    self.counts['lost without being seen'] += 1
                    self._world.forget(guest, name)


def _minimum_age(name: str) -> int:
    if names.kind_of(name) is names.Kind.RESIZED:
        return worlds.RESIZED_AGE
    return worlds.ORIGINAL_AGE
