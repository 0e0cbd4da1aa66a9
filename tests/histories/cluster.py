# SPDX-License-Identifier: Apache-2.0

"""Steps: what may happen to hosts, and to their clocks."""

import os

from nova_imagecache.cache import hosts
from nova_imagecache.cache import inventories
from tests.histories import choices
from tests.histories import inhabitants
from tests.support import base

STEPS = (
    'leave',
    'leave',
    'come_back',
    'forget_host',
    'jump',
    'jump',
    'set_clock',
)

_STEPS_OF_CLOCKS = (30, 2 * base.HOUR, 30 * base.DAY, 900 * base.DAY)


class Hosts(choices.Choices):
    """What may happen to hosts."""

    def _leave(self) -> None:
        """Let a host be away, with its guests, but not all hosts."""
        host = self._host()
        if any(not other.away for other in self._world.hosts if other != host):
            host.away = True
            host.boots += 1
            host.boottime = 60.0
            for guest in self._world.guests:
                if guest.home == host.name:
                    guest.stop()
            self._world.advance(self._pick([1, 100_000]))

    def _come_back(self) -> None:
        for host in self._world.hosts:
            host.away = False

    def _forget_host(self) -> None:
        """Let a host that is away be gone for good; another one is new."""
        gone = [host for host in self._world.hosts if host.away]
        for host in gone:
            hosts.forget(self._layout, host.name)
            inventories.forget(self._layout, host.name)
            self.sights.forget(host)
            for guest in [*self._world.guests]:
                if guest.home != host.name:
                    continue
                if self._world.local:
                    self._world.lose_disks(guest)
                    self._world.guests.remove(guest)
                else:
                    # They are evacuated.
                    guest.host = None
            for path in [*self.sights.foreign]:
                if self._world.local and path.startswith(
                    host.instances + os.sep
                ):
                    os.unlink(path)
                    del self.sights.foreign[path]
            host.away = False

    def _jump(self) -> None:
        """Set all clocks, also that of the storage.

        Or that of one host, where such are wrong: not both in one history.
        """
        if self._world.astray:
            self._set_clock()
            return
        if self._pick([True, False]):
            # What looks old by a step is known for long, and used of late.
            self._world.touch(self._name())
        seconds = self._step()
        if seconds > 0:
            self._world.ahead += seconds
        else:
            self._world.back -= seconds
        for host in self._world.hosts:
            host.step(self._world.true, seconds)
        if seconds < 0:
            # What was touched before is ahead until then.
            self.idleness.set_back(self._world.wall - seconds)

    def _set_clock(self) -> None:
        """Set the clock of one host; or right, if it is wrong."""
        if not self._world.astray:
            self._jump()
            return
        host = self._host()
        if host.offset:
            self._set_right(host)
        else:
            self._set(host, self._step())

    def _set_right(self, host: inhabitants.Host) -> None:
        self._set(host, -host.offset)

    def _set(self, host: inhabitants.Host, seconds: float) -> None:
        host.offset += seconds
        host.step(self._world.true, seconds)
        self.idleness.set_back(self._world.now(host).wall)

    def _step(self) -> float:
        seconds = self._pick(_STEPS_OF_CLOCKS)
        return self._pick([1, -1]) * float(seconds)
