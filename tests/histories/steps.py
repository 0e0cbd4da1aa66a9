# SPDX-License-Identifier: Apache-2.0

"""What may happen in a history.

Each step is a word and a number, from which it takes what it has to choose.
"""

from collections.abc import Callable
from collections.abc import Sequence
import os
from typing import TypeVar

from nova_imagecache.cache import pins
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from tests.histories import inhabitants
from tests.histories import passes
from tests.histories import worlds
from tests.support import base

Guest = inhabitants.Guest
_T = TypeVar('_T')

_RARELY = (False, False, False, False, False, True)

#: What may happen, the more often the likelier; first what does least.
STEPS = (
    'stop', *['run_pass'] * 9, *['time'] * 9, *['spawn'] * 4, *['delete'] * 4,
    *['meanwhile'] * 5, *['blind'] * 2, *['crash'] * 4, *['vanish'] * 2,
    *['appear'] * 2, 'hide',
    'cache', 'touch', 'begin', 'finish', 'resize', 'settle', 'rescue',
    'shelve', 'unshelve', 'migrate', 'unlist', 'undefine', 'start',
    *['jump'] * 2, 'reboot', 'pin', 'unpin', 'undelete', 'pressure',
)  # fmt: skip

# What may happen during a pass: before it takes the locks of what is to go,
# when it has them and asks again, and when it has asked.
_MOMENTS = {
    'before': ('spawn', 'mount', 'qemu', 'touch', 'note', 'pin', 'replace'),
    'asking': ('mount', 'qemu', 'touch', 'replace'),
    'asked': ('qemu', 'touch', 'replace'),
}


class History(passes.Passes):
    """One history."""

    def take(self, step: str, number: int) -> None:
        """Have something happen, and look whether all is well."""
        self._number = number
        getattr(self, f'_{step}')()
        self.check()

    def _pick(self, choices: Sequence[_T]) -> _T:
        self._number, index = divmod(self._number, len(choices))
        return choices[index]

    def _name(self) -> str:
        return self._pick(list(inhabitants.BASE_FILES))

    def _guest(self, fits: Callable[[Guest], object]) -> Guest | None:
        found = [guest for guest in self._world.guests if fits(guest)]
        return self._pick(found) if found else None

    # The life of guests.

    def _spawn(self) -> None:
        name, place = self._name(), self._pick(['here', 'elsewhere'])
        listed, defined = self._pick([True, False]), self._pick([True, False])
        running = self._pick([True, False])
        self._world.cache(name)
        self._found(name, place, listed, defined, running)

    def _found(
        self, name: str, place: str, listed: bool, defined: bool, runs: bool
    ) -> None:
        """Make a guest that somebody can see."""
        guest = self._world.add_guest()
        self._world.add_disk(guest, name)
        if place == 'elsewhere':
            self._move_away(guest)
            runs = runs or not (listed or defined)
        if listed:
            guest.image = inhabitants.BASE_FILES[name]
            guest.swap = guest.image is None
        if defined:
            guest.host = inhabitants.HOSTS[0]
        if runs:
            self._start_qemu(guest)

    def _move_away(self, guest: Guest) -> None:
        self._world.move(
            guest, os.path.join(self._world.elsewhere, guest.uuid)
        )

    def _start_qemu(self, guest: Guest) -> None:
        if not guest.opened:
            self._await(guest)
        guest.run()

    def _start(self) -> None:
        guest = self._guest(lambda guest: guest.disks)
        if guest is not None:
            self._start_qemu(guest)

    def _stop(self) -> None:
        guest = self._guest(lambda guest: guest.opened)
        if guest is not None:
            guest.stop()

    def _begin(self) -> None:
        """As Nova, touch a base file, and make the overlay later."""
        name = self._name()
        self._world.touch(name)
        self._begun.append((name, self._world.reckoned))

    def _finish(self) -> None:
        while self._begun:
            name, since = self._begun.pop()
            if self._world.reckoned - since < passes.FLOOR:
                self._world.add_disk(self._world.add_guest(), name)

    def _resize(self) -> None:
        guest = self._guest(lambda guest: guest.directory)
        if guest is not None and guest.directory is not None:
            if not guest.directory.endswith('_resize'):
                guest.stop()
                guest.host = None
                self._world.move(guest, f'{guest.directory}_resize')

    def _settle(self) -> None:
        """Confirm a resize, or revert it."""
        guest = self._guest(
            lambda guest: (guest.directory or '').endswith('_resize')
        )
        if guest is None or guest.directory is None:
            return
        if self._pick([True, False]):
            self._world.lose_disks(guest)
        else:
            self._world.move(guest, guest.directory.removesuffix('_resize'))

    def _rescue(self) -> None:
        guest = self._guest(lambda guest: guest.directory)
        if guest is None or guest.directory is None:
            return
        if 'disk.rescue' in guest.disks:
            guest.stop()
            del guest.disks['disk.rescue']
            os.unlink(os.path.join(guest.directory, 'disk.rescue'))
        else:
            name = self._name()
            self._world.cache(name)
            self._world.add_disk(guest, name, 'disk.rescue')

    def _shelve(self) -> None:
        guest = self._guest(lambda guest: guest.directory and guest.image)
        if guest is not None:
            self._world.lose_disks(guest)

    def _unshelve(self) -> None:
        """Let a guest be over another base than the image that it names."""
        guest = self._guest(lambda guest: guest.image and not guest.disks)
        if guest is not None:
            name = self._name()
            self._world.cache(name)
            self._world.add_disk(guest, name)

    def _migrate(self) -> None:
        """Let a QEMU have files open for some time before it locks them."""
        guest = self._guest(lambda guest: guest.disks)
        if guest is None:
            return
        if set(guest.opened) - guest.locked:
            guest.run()
        else:
            guest.host = None
            self._await(guest)

    def _await(self, guest: Guest) -> None:
        """Let a QEMU have files open without locking them."""
        guest.stop()
        for name in guest.needs:
            path = self._layout.file(name)
            if os.path.exists(path):
                guest.start(name, path)

    def _delete(self) -> None:
        guest = self._guest(lambda guest: True)
        if guest is None:
            return
        soft = guest.directory and self._pick([False, False, True])
        if soft and not str(guest.directory).endswith('_del'):
            guest.stop()
            self._world.move(guest, f'{guest.directory}_del')
        else:
            self._world.lose_disks(guest)
            self._world.guests.remove(guest)

    def _hide(self) -> None:
        """Unmount the disk with a guest's directory, or mount it again."""
        guest = self._guest(lambda guest: guest.directory)
        if guest is None or guest.directory is None:
            return
        if self._is_elsewhere(guest):
            self._show(guest)
        else:
            self._move_away(guest)

    def _show(self, guest: Guest) -> None:
        self._world.move(
            guest, os.path.join(self._layout.instances, guest.uuid)
        )

    def _unlist(self) -> None:
        guest = self._guest(lambda guest: guest.image or guest.swap)
        if guest is not None:
            guest.image, guest.swap = None, False

    def _undefine(self) -> None:
        guest = self._guest(lambda guest: guest.disks)
        if guest is not None:
            there = [*inhabitants.HOSTS, None]
            guest.host = self._pick([x for x in there if x != guest.host])

    def _vanish(self) -> None:
        """Let no witness see a guest for long."""
        guest = self._guest(lambda guest: guest.disks)
        if guest is not None:
            self._move_away(guest)
            guest.host, guest.image, guest.swap = None, None, False
            # It may be one whose migration does not come to its end.
            self._await(guest)
            if self._pick([True, False]):
                guest.stop()
            self._world.advance(worlds.ORIGINAL_AGE + 100)

    def _appear(self) -> None:
        """Let a witness see a guest again."""
        guest = self._guest(self._is_elsewhere)
        if guest is None:
            return
        witness = self._pick(sorted(passes.WITNESSES))
        if witness == 'overlays':
            self._show(guest)
        elif witness == 'domains':
            guest.host = self._pick(inhabitants.HOSTS)
        elif witness == 'instances':
            name = self._pick(sorted(guest.needs)) if guest.needs else None
            guest.image = inhabitants.BASE_FILES[name] if name else None
            guest.swap = bool(name and not guest.image)
        else:
            self._start_qemu(guest)

    def _is_elsewhere(self, guest: Guest) -> bool:
        return (guest.directory or '').startswith(self._world.elsewhere)

    # What else happens.

    def _cache(self) -> None:
        self._world.cache(self._name())

    def _touch(self) -> None:
        self._world.touch(self._name())

    def _time(self) -> None:
        seconds = (2100, 1100, 1600, 601, 599, 1, 59, 4000, 100_000)
        self._world.advance(self._pick(seconds))

    def _jump(self) -> None:
        if self._pick([True, False]):
            # What looks old by a step is known for long, and used of late.
            self._world.touch(self._name())
        seconds = self._pick([30, 2 * base.HOUR, 30 * base.DAY])
        if self._pick([True, False]):
            self._world.ahead += seconds
        else:
            self._world.back += seconds

    def _reboot(self) -> None:
        host = self._pick(self._world.hosts)
        self._world.advance(100)
        host.boots += 1
        host.boottime = 60.0
        for guest in self._world.guests:
            if guest.host in (host.name, None):
                guest.stop()

    def _pin(self) -> None:
        self._pin_file(self._name())

    def _pin_file(self, name: str) -> None:
        now = self._world.now(self._world.hosts[0])
        pins.pin(self._layout, pins.Pin(name), now)
        self._world.pins.add(name)

    def _unpin(self) -> None:
        name = self._name()
        pins.unpin(self._layout, name)
        self._world.pins.discard(name)

    def _undelete(self) -> None:
        found = trash.scan(self._layout).files
        if not found:
            return
        file = self._pick(found)
        name = file.original
        if not os.path.exists(self._layout.file(name)):
            removal.put_back(file)
            os.utime(self._layout.file(name))
            self._world.used[name] = self._world.moment()

    def _pressure(self) -> None:
        self._world.pressure = not self._world.pressure

    # Passes.

    def _run_pass(self) -> None:
        host = self._pick(self._world.hosts)
        self.run_pass(host, checksum=self._pick(_RARELY))

    def _crash(self) -> None:
        host = self._pick(self._world.hosts)
        checksum = self._pick(_RARELY)
        self.run_pass(host, checksum, fuse=self._pick(range(20)))

    def _blind(self) -> None:
        blind = self._pick(['instances', 'domains', 'overlays'])
        self.run_pass(self._pick(self._world.hosts), blind=blind)

    def _meanwhile(self) -> None:
        moment = self._pick(list(_MOMENTS))
        event = self._pick(_MOMENTS[moment])
        # So that it is likely that something is about to go.
        self._world.advance(worlds.ORIGINAL_AGE + 100)
        self.run_pass(
            self._pick(self._world.hosts),
            meanwhile=passes.Meanwhile(
                moment, lambda name: self._happen(event, name)
            ),
        )

    def _happen(self, event: str, name: str) -> None:
        """Have something happen to a base file that is about to go."""
        self.counts[f'{event} meanwhile'] += 1
        if event == 'spawn':
            self._world.cache(name)
            self._found(name, 'here', False, False, False)
        elif event == 'mount':
            guest = self._world.add_guest()
            self._world.add_disk(guest, name)
        elif event == 'qemu':
            self._found(name, 'elsewhere', False, False, True)
        elif event == 'note':
            # As where it may not be touched.
            now = self._world.now(self._world.hosts[0])
            states.note_use(self._layout, name, now)
            self._world.used[name] = self._world.moment()
        elif event == 'pin':
            self._pin_file(name)
        else:
            path = self._layout.file(name)
            if event == 'replace':
                os.unlink(path)
            self._world.touch(name)
            self._before.base[name] = os.stat(path).st_ino
