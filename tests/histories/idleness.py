# SPDX-License-Identifier: Apache-2.0

"""The judge of what stays, although nobody needs it."""

from collections.abc import Collection
from collections.abc import Mapping

from tests.histories import worlds

# In so many it goes, after its time.
_PASSES = 2

# Steps of clocks that are too small to be noticed.
_SLACK = 200


class Idleness:
    """Since when base files are of no use to anybody.

    The time does not count in which a pass may have taken a file for used.
    Clocks that are set back, or are not that of the storage, have files stay
    for twice their time at most (decision 0077); those that are set forward
    cost what is used before that is noticed.
    """

    def __init__(self, world: worlds.World) -> None:
        self._world = world
        self._inodes: dict[str, int] = {}
        self._sighted: set[int] = set()
        self._since: dict[str, float] = {}
        self._passes: dict[str, int] = {}
        self._set_back = -1.0
        # What clocks that were ahead of the storage's showed when that was
        # noticed: when its own comes there, it may matter once more.
        self._echoes: list[float] = []

    def note(self, present: Mapping[str, int], used: Collection[str]) -> None:
        """Note which base files are of use now.

        :param present: inodes of those in the cache
        """
        for name in [*self._since]:
            if name not in present:
                del self._since[name]
        for name, inode in present.items():
            if name in used or self._inodes.get(name) != inode:
                self._restart(name)
            elif name not in self._since:
                self._restart(name)
        self._inodes = {**present}
        if any(wall <= self._world.wall for wall in self._echoes):
            self._echoes = [
                wall for wall in self._echoes if wall > self._world.wall
            ]
            self.set_back()

    def set_back(self, echo: float | None = None) -> None:
        """Begin anew, as a clock was set, or that was noticed.

        :param echo: what it shows
        """
        self._set_back = self._world.true
        for name in self._since:
            self._restart(name)
        if echo is not None and echo > self._world.wall:
            self._echoes.append(echo)

    def set_forward(self, when: float) -> None:
        """Begin anew with what was used before that was noticed.

        :param when: the clock was set
        """
        for name in self._since:
            if self._last(name) >= when:
                self._restart(name)

    def _restart(self, name: str) -> None:
        self._since[name] = self._world.true
        self._passes[name] = 0

    def _last(self, name: str) -> float:
        return max(self._since[name], self._world.used.get(name, 0.0))

    def judge(self, least: Mapping[str, float]) -> None:
        """Judge what is still there after a pass that could see everything.

        :param least: the minimum ages of what is there
        """
        for name, age in least.items():
            idle = self._world.true - self._last(name)
            twice = self._set_back >= self._world.used.get(name, 0.0)
            if self._inodes[name] not in self._sighted:
                # Whoever sees it for the first time knows of no age.
                self._sighted.add(self._inodes[name])
                self._restart(name)
            elif idle > (2 * age if twice else age) + _SLACK:
                self._passes[name] += 1
                if self._passes[name] >= _PASSES:
                    raise worlds.Violation(
                        f'{name} stays, and nobody has needed it for '
                        f'{idle:.0f} s'
                    )
