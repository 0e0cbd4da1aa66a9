# SPDX-License-Identifier: Apache-2.0

"""How fast base files are read."""

import collections
from collections.abc import Callable
import threading
import time

#: Bytes read at once when the rate is limited. A guest's request never waits
#: behind more than this.
SMALL_PIECE = 256 * 1024

#: Bytes read at once when it is not: a whole block, as the disk waits whenever
#: a piece is handed over. Of a virtual disk at 2.4 GiB/s two buffers of these
#: read 0.96 of what a bare loop does, two of half as much 0.88 to 0.95 (by
#: turns, 34 rounds), and three of these no more than two.
LARGE_PIECE = 4 * 1024 * 1024

# What was not used for so long is lost: after a pause there is no burst.
_CREDIT_SECONDS = 0.1

# Reads that are slower than these say that a disk is busy (decision 0023,
# decision 0082). As the scanner of MinIO, wait in proportion
# (cmd/data-scanner.go, dynamicSleeper).
_YIELD_FACTOR = 10
_YIELD_LIMIT_SECONDS = 10.0
_QUIET_FACTOR = 2

# Reads that are judged together. A disk that is throttled gives some at once,
# and then none for a tenth of a second (block/blk-throttle.c, throtl_slice).
_GROUP = 8
# What a group may take of the time that the rate leaves for it: to be a bit
# behind it is not to be held up.
_KEPT_FACTOR = 1.25
# Groups that are remembered, and of how many of them one has to be as quick as
# what counts as undisturbed.
_GROUPS = 256
_QUIET_PART = 4

# What reading is behind the rate that it needs is made up for, but no more.
_BEHIND_SECONDS = 10.0

# The part of one processor that hashing the zeros of holes may take. No disk
# paces that, and a file of some KiB may have PiB of them.
_PROCESSOR_SHARE = 1 / 8
_LEAST_WAIT_SECONDS = 0.02

#: Waits for so many seconds, or until we are told to stop.
Wait = Callable[[float], object]


class _Pace:
    """What reads of one length take on this disk."""

    def __init__(self) -> None:
        self._groups: collections.deque[float] = collections.deque(
            maxlen=_GROUPS
        )
        self._quiet = float('inf')
        self._sum = 0.0
        self._count = 0

    def excess(self, seconds: float, allowed: float) -> float:
        """Add a read; give for how long its group was held up by others.

        :param allowed: seconds that the rate leaves for a read
        """
        self._sum += seconds
        self._count += 1
        # One that is throttled to about the rate is quick most of the time.
        quiet = max(self._quiet, allowed * _GROUP * _KEPT_FACTOR)
        busy = self._sum > quiet
        if not busy and self._count < _GROUP:
            return 0.0
        part = self._count / _GROUP
        excess = self._sum - quiet * part if busy else 0.0
        self._groups.append(self._sum / part)
        self._sum, self._count = 0.0, 0
        rank = (len(self._groups) - 1) // _QUIET_PART
        self._quiet = _QUIET_FACTOR * sorted(self._groups)[rank]
        return excess


class Limiter:
    """Keeps reading to a rate, and yields to whoever else uses the disk.

    The rate holds over any second, but for the credit of a tenth of one.
    Without a limit there is no waiting at all. Several threads may read: what
    did not match is read again while another thread reads ahead.

    :ivar rate: bytes per second at most, 0 for no limit
    :ivar needed: bytes per second below which it does not yield
    """

    def __init__(
        self,
        rate: float = 0,
        wait: Wait = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without credit.

        :param rate: bytes per second, 0 for no limit
        """
        self.rate = rate
        self._wait = wait
        self._monotonic = monotonic
        self.needed = 0.0
        self._ready = self._latest = monotonic()
        self._paces: dict[int, _Pace] = collections.defaultdict(_Pace)
        self._owed = 0.0
        self._lock = threading.Lock()

    @property
    def piece(self) -> int:
        """Bytes to read at once."""
        return SMALL_PIECE if self.rate else LARGE_PIECE

    def before(self, length: int) -> None:
        """Wait until so many bytes may be read."""
        rate = self.rate
        if not rate:
            return
        with self._lock:
            now = self._monotonic()
            start = max(self._ready, now - _CREDIT_SECONDS)
            self._ready = start + length / rate
            if self.needed:
                behind = max(self._latest, now - _BEHIND_SECONDS)
                self._latest = behind + length / self.needed
            else:
                self._latest = now
        if start > now:
            self._wait(start - now)

    def hashed(self, seconds: float) -> None:
        """Wait after zeros were hashed, so that guests have the processor.

        :param seconds: of the processor that this took
        """
        if not self.rate:
            return
        self._owed += seconds * (1 / _PROCESSOR_SHARE - 1)
        if self._owed >= _LEAST_WAIT_SECONDS:
            self._wait(self._owed)
            self._owed = 0.0

    def after(self, length: int, seconds: float) -> None:
        """Note how long a read took.

        :param length: bytes that were asked for
        """
        rate = self.rate
        if not rate:
            return
        with self._lock:
            # Shorter ones are quicker, which says nothing of the others.
            pace = self._paces[length.bit_length()]
            excess = pace.excess(seconds, length / rate)
            pause = min(excess * _YIELD_FACTOR, _YIELD_LIMIT_SECONDS)
            until = self._monotonic() + pause
            if self.needed:
                until = min(until, self._latest)
            self._ready = max(self._ready, until)
