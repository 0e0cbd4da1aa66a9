# SPDX-License-Identifier: Apache-2.0

"""How many files at a time, so that no lock is held for long.

Whoever wants a file waits for as long as all those take that are locked with
it (decision 0086).
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import resource
import time
from typing import NamedTuple

# For a lock that was taken so long ago nothing is begun: what is then at work
# still takes its time. All locks are taken in less than half of that: to move
# a file takes twice as long, where a request takes its time.
_HELD_SECONDS = 0.85
_LOCKING_SECONDS = 0.35
_WORKING_SECONDS = 0.2

_LEAST = 16
_MOST = 1024
_GROWTH = 8

# Each lock takes a descriptor, and the service needs others.
_SHARE = 4
_FEW = 128


class Deadline(NamedTuple):
    """When to begin nothing more.

    :ivar at: on the clock
    :ivar held: seconds for which a lock may be held, however late it is
    """

    at: float
    monotonic: Callable[[], float]
    held: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it is that late."""
        return self.monotonic() >= self.at

    def is_over_for(self, since: float) -> bool:
        """Whether it is for a lock that was taken at some time."""
        return self.is_over and self.monotonic() >= since + self.held


def _most() -> int:
    """Say how many locks may be held together."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(_FEW, min(_MOST, soft // _SHARE))


class Pace:
    """Learns from each batch how many files the next may have."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with as many as there may be, and see.

        :param monotonic: seconds since any moment
        """
        self.monotonic = monotonic
        self._most = _most()
        self._look_seconds = 0.0
        self.size = self._most

    def locking(self) -> Deadline:
        """Say until when to take locks."""
        left = (_HELD_SECONDS - self._look_seconds) / 2
        least = self._look_seconds / 4
        return self._within(max(least, min(left, _LOCKING_SECONDS)))

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Have a last look, and do what else is done once per batch."""
        began = self.monotonic()
        yield
        self._look_seconds = self.monotonic() - began

    def acting(self) -> Deadline:
        """Say until when to act on what was looked at just now.

        Where locks are held for too long in any case, for as long as the look
        has taken: else looking would be most of what is done.
        """
        if self._look_seconds >= _HELD_SECONDS:
            return self._within(self._look_seconds)
        return self._within(_WORKING_SECONDS, _HELD_SECONDS)

    def _within(self, seconds: float, held: float = 0.0) -> Deadline:
        return Deadline(self.monotonic() + seconds, self.monotonic, held)

    def learn(self, tried: int, done: int) -> None:
        """Size the next batch by how many of the last were done in time."""
        if done < tried:
            self.size = max(_LEAST, done)
        elif tried >= self.size:
            self.size = min(self._most, self.size * _GROWTH)
