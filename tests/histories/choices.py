# SPDX-License-Identifier: Apache-2.0

"""Choosing what a step is about, from its number."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import TypeVar

from tests.histories import inhabitants
from tests.histories import passes

Guest = inhabitants.Guest
_T = TypeVar('_T')


class Choices(passes.Passes):
    """A history that has steps."""

    _number = 0
    _began = False

    def _pick(self, choices: Sequence[_T]) -> _T:
        self._number, index = divmod(self._number, len(choices))
        return choices[index]

    def _name(self) -> str:
        return self._pick(list(inhabitants.BASE_FILES))

    def _host(self) -> inhabitants.Host:
        """Pick a host that is not away, if there is one."""
        there = [host for host in self._world.hosts if not host.away]
        return self._pick(there or self._world.hosts)

    def _guest(self, fits: Callable[[Guest], object]) -> Guest | None:
        found = [guest for guest in self._world.guests if fits(guest)]
        return self._pick(found) if found else None

    def _is_at_home(self, guest: Guest) -> bool:
        """Whether its directory is where Nova has made it."""
        return guest.directory == self._world.place_of(guest)
