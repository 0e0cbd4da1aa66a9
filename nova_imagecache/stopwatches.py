# SPDX-License-Identifier: Apache-2.0

"""How long storage takes for something, whatever the processors do."""

from collections.abc import Callable
import os
import time
import weakref

# Nanoseconds that a thread has had a processor, and then those for which it
# has waited for one (Documentation/scheduler/sched-stats.rst).
_SCHEDSTAT = '/proc/thread-self/schedstat'
_LINE_LIMIT = 100


def waited() -> float:
    """Say for how many seconds this thread has waited for a processor.

    Since it began; 0 where the kernel does not say.
    """
    try:
        with open(_SCHEDSTAT, 'rb', buffering=0) as file:
            return _parse(file.read(_LINE_LIMIT))
    except OSError:
        return 0.0


def _parse(line: bytes) -> float:
    try:
        return int(line.split()[1]) / 1e9
    except (ValueError, IndexError):
        return 0.0


class Stopwatch:
    """Measures what the thread that makes it does.

    What that thread waits for a processor is not counted: where they are busy,
    everything would look like what a busy disk does (decision 0082).
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare to measure."""
        self._monotonic = monotonic
        self._fd: int | None = None
        try:
            self._fd = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A kernel without it: the wait is then part of the read.
            pass
        else:
            weakref.finalize(self, os.close, self._fd)
        self._began = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = self._now()

    def seconds(self) -> float:
        """Give what it has taken."""
        return max(0.0, self._now() - self._began)

    def _now(self) -> float:
        return self._monotonic() - self._waited()

    def _waited(self) -> float:
        if self._fd is None:
            return 0.0
        try:
            return _parse(os.pread(self._fd, _LINE_LIMIT, 0))
        except OSError:
            return 0.0
