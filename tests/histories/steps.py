# SPDX-License-Identifier: Apache-2.0

"""What may happen in a history.

Each step is a word and a number, from which it takes what it has to choose.
"""

import os

from nova_imagecache.cache import pins
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from tests.histories import cluster
from tests.histories import elsewhere
from tests.histories import inhabitants
from tests.histories import passes
from tests.histories import strangers
from tests.histories import worlds

Guest = inhabitants.Guest

_RARELY = (False, False, False, False, False, True)

#: What may happen, the more often the likelier; first what does least.
STEPS = (
    'stop', *['run_pass'] * 9, *['time'] * 9, *['spawn'] * 4, *['delete'] * 4,
    *['meanwhile'] * 5, *['blind'] * 2, *['crash'] * 4, *['vanish'] * 2,
    *['appear'] * 2, 'hide',
    'cache', 'touch', 'begin', 'finish', 'resize', 'settle', 'rescue',
    'shelve', 'unshelve', 'migrate', 'unlist', 'undefine', 'start',
    'jump', 'reboot', 'pin', 'unpin', 'undelete', 'pressure',
    'age', *elsewhere.STEPS, *strangers.STEPS, *cluster.STEPS,
)  # fmt: skip

# What may happen during a pass: before it takes the locks of what is to go,
# when it has them and asks again, and when it has asked.
_MOMENTS = {
    'before': ('spawn', 'mount', 'qemu', 'touch', 'note', 'pin', 'replace'),
    'asking': ('mount', 'qemu', 'touch', 'replace'),
    'asked': ('qemu', 'touch', 'replace'),
}


class History(elsewhere.Disks, strangers.Files, cluster.Hosts):
    """One history."""

    def take(self, step: str, number: int) -> None:
        """Have something happen, and look whether all is well."""
        self._number = number
        if not self._began:
            self._begin_world()
        getattr(self, f'_{step}')()
        self.check()

    def _begin_world(self) -> None:
        """Choose what kind of cloud it is."""
        self._began = True
        if self._pick([False, True]):
            self._world.part()
        self._world.tells = self._pick([False, True])
        self._world.astray = self._pick([False, True])
        if not self._world.astray:
            # Else what is noted of a use is as wrong as the clock.
            self._world.squashed = self._pick([False, True])

    def finish(self) -> None:
        """See to what is in the way, and look what stays."""
        self._put_right()
        enough = worlds.ORIGINAL_AGE + 300
        for seconds in (100, enough, enough, 100):
            self._world.advance(seconds)
            for host in self._world.hosts:
                self.run_pass(host)
                self.check()

    def _put_right(self) -> None:
        for path, told in sorted(self.sights.foreign.items()):
            if not told:
                self._see_to(path, 'remove')
        for guest in self._world.guests:
            for disk, layer in [*guest.layers.items()]:
                if os.path.isabs(layer) or self._is_outside(guest):
                    self._world.flatten(guest, disk)
            known = guest.listed or (guest.host and guest.tag)
            if not known or 'disk.rescue' in guest.disks:
                self._open_up()
        self._mount()
        self._come_back()
        for host in self._world.hosts:
            if host.offset:
                self._set_right(host)

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
        guest = self._world.add_guest(self._host())
        self._world.add_disk(guest, name)
        if listed:
            self._list(guest, name)
        if defined:
            guest.host = guest.home
            guest.tag = self._pick([inhabitants.BASE_FILES[name], None])
        if place == 'elsewhere':
            self._move_away(guest)
            runs = runs or not (listed or defined)
        if runs:
            self._start_qemu(guest)

    def _list(self, guest: Guest, name: str) -> None:
        guest.image = inhabitants.BASE_FILES[name]
        guest.swap = guest.image is None

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
        self._begun.append((name, self._world.true))

    def _finish(self) -> None:
        while self._begun:
            name, since = self._begun.pop()
            if self._world.true - since < passes.FLOOR:
                guest = self._world.add_guest(self._host())
                self._world.add_disk(guest, name)

    def _resize(self) -> None:
        guest = self._guest(self._is_at_home)
        if guest is not None and guest.directory is not None:
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
            self._world.move(
                guest, guest.directory.removesuffix('_resize'), told=True
            )

    def _rescue(self) -> None:
        guest = self._guest(lambda guest: guest.directory)
        if guest is None or guest.directory is None:
            return
        if 'disk.rescue' in guest.disks:
            guest.stop()
            self._world.lose_disk(guest, 'disk.rescue')
        else:
            name = self._name()
            self._world.cache(name)
            self._world.add_disk(guest, name, 'disk.rescue')

    def _shelve(self) -> None:
        guest = self._guest(lambda guest: guest.directory and guest.image)
        if guest is not None:
            self._world.lose_disks(guest)
            guest.built = False

    def _unshelve(self) -> None:
        """Let a guest be over another base than the image that it names."""
        guest = self._guest(lambda guest: guest.image and not guest.disks)
        if guest is not None:
            name = self._name()
            self._world.cache(name)
            self._world.add_disk(guest, name)
            guest.built = True

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
            guest.host = None
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
        self._world.move(guest, self._world.place_of(guest), told=True)

    def _unlist(self) -> None:
        guest = self._guest(lambda guest: guest.image or guest.swap)
        if guest is not None:
            guest.image, guest.swap = None, False

    def _undefine(self) -> None:
        guest = self._guest(lambda guest: guest.disks)
        if guest is not None:
            there = [*self._homes(guest), None]
            guest.host = self._pick([x for x in there if x != guest.host])
            guest.home = guest.host or guest.home

    def _homes(self, guest: Guest) -> list[str]:
        """Name the hosts on which a guest may be."""
        if self._world.local:
            return [guest.home]
        return [*inhabitants.HOSTS]

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
            guest.host = guest.home = self._pick(self._homes(guest))
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

    def _age(self) -> None:
        """Let all be old that nobody uses."""
        self._world.advance(worlds.ORIGINAL_AGE + 100)

    def _time(self) -> None:
        seconds = (7600, 4600, 1600, 601, 599, 1, 59, 20_000, 100_000)
        self._world.advance(self._pick(seconds))

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
            self._world.used[name] = self._world.true

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
            guest = self._world.add_guest(self._host())
            self._world.add_disk(guest, name)
        elif event == 'qemu':
            self._found(name, 'elsewhere', False, False, True)
        elif event == 'note':
            # As where it may not be touched.
            now = self._world.now(self._world.hosts[0])
            states.note_use(self._layout, name, now)
            self._world.used[name] = self._world.true
        elif event == 'pin':
            self._pin_file(name)
        else:
            path = self._layout.file(name)
            if event == 'replace':
                os.unlink(path)
            self._world.touch(name)
            self._before.base[name] = os.stat(path).st_ino
