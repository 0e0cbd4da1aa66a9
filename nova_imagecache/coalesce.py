# SPDX-License-Identifier: Apache-2.0

"""One answer for all who ask at the same time."""

from collections.abc import Callable
from concurrent import futures
import threading
import time
from typing import Generic
from typing import TypeVar

Result = TypeVar('Result')


class Coalesced(Generic[Result]):
    """A function that runs in one thread at a time, and no more than needed.

    Those who come while it runs wait for one more run, and share what that
    gives: it began after they asked (decision 0038).
    """

    def __init__(self, call: Callable[[], Result]) -> None:
        """Call nothing yet.

        :param call: what it raises is shared likewise
        """
        self._call = call
        self._turn = threading.Lock()
        self._began = float('-inf')
        self._outcome: futures.Future[Result] = futures.Future()

    def __call__(self, patience: float = -1) -> Result:
        """Call, or share the result of a call that began after this one.

        :param patience: for how many seconds to wait for others; -1 is for
            ever
        :raises TimeoutError: they are still at it
        """
        asked = time.monotonic()
        if not self._turn.acquire(timeout=patience):
            raise TimeoutError
        try:
            if self._began < asked:
                began = time.monotonic()
                outcome: futures.Future[Result] = futures.Future()
                try:
                    outcome.set_result(self._call())
                except Exception as error:
                    outcome.set_exception(error)
                self._began, self._outcome = began, outcome
            return self._outcome.result(0)
        finally:
            self._turn.release()
