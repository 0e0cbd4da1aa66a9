# SPDX-License-Identifier: Apache-2.0

"""How fast base files are read."""

from collections.abc import Callable
import threading
import time

#: Bytes read at once when the rate is limited. A guest's request never waits
#: behind more than this.
SMALL_PIECE = 256 * 1024

#: Bytes read at once when it is not.
LARGE_PIECE = 4 * 1024 * 1024

# What was not used for so long is lost: after a pause there is no burst.
_CREDIT_SECONDS = 0.1

# A read that is slower than these says that a disk is busy (decision 0023).
# As the scanner of MinIO, wait in proportion (cmd/data-scanner.go,
# dynamicSleeper).
_YIELD_FACTOR = 10
_YIELD_LIMIT_SECONDS = 10.0
_QUIET_FACTOR = 2
_QUIET_LIMIT_SECONDS = 0.03
_FORGET_FACTOR = 1.01

#: Waits for so many seconds, or until we are told to stop.
Wait = Callable[[float], object]


class Limiter:
    """Keeps reading to a rate, and yields to whoever else uses the disk.

    The rate holds over any second, but for the credit of a tenth of one.
    Without a limit there is no waiting at all. Several threads may read: what
    did not match is read again while another thread reads ahead.
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
        self._ready = monotonic()
        self._quickest = float('inf')
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
        if start > now:
            self._wait(start - now)

    def after(self, length: int, seconds: float) -> None:
        """Note how long a read took.

        :param length: bytes that were asked for
        """
        if not self.rate:
            return
        with self._lock:
            if length == self.piece:
                # Shorter ones are quicker, which says nothing of the others.
                self._quickest = min(self._quickest * _FORGET_FACTOR, seconds)
            quiet = min(_QUIET_FACTOR * self._quickest, _QUIET_LIMIT_SECONDS)
            pause = min(
                max(0.0, seconds - quiet) * _YIELD_FACTOR, _YIELD_LIMIT_SECONDS
            )
            self._ready = max(self._ready, self._monotonic() + pause)
