# SPDX-License-Identifier: Apache-2.0

"""A lock that tells who waits for it."""

import threading

_WAIT_SECONDS = 60


class Turn:
    """A lock that tells when so many have come to wait for it."""

    def __init__(self, waiters: int) -> None:
        self._lock = threading.Lock()
        self._waiting = threading.Semaphore(0)
        self._waiters = waiters

    def acquire(self, timeout: float = -1) -> bool:
        self._waiting.release()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def wait_for_all(self) -> None:
        for _waiter in range(self._waiters):
            assert self._waiting.acquire(timeout=_WAIT_SECONDS)
