# SPDX-License-Identifier: Apache-2.0

"""Waiting for the image service, and no longer than it is worth.

What a client does cannot be stopped: a name that is looked up, a server that
says nothing, a byte a minute. So a thread does it, and is left to itself by
who no longer waits (decision 0094).
"""

from collections.abc import Callable
import contextlib
import os
import queue
import socket
import threading
import time
from typing import Any
from typing import TypeVar

from nova_imagecache.heal import sources

T = TypeVar('T')

# How often to look whether it is still wanted.
_POLL_SECONDS = 0.2


class Exchange:
    """Calls of one client, one after the other, in a thread of their own."""

    def __init__(self, watch: sources.Watch) -> None:
        """Start the thread.

        :param watch: who waits
        """
        self._watch = watch
        self._todo: queue.SimpleQueue[Callable[[], Any] | None]
        self._todo = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, BaseException | None]]
        self._done = queue.SimpleQueue()
        self._busy = False
        # What there is to be closed in the end.
        self._answer: Any = None
        threading.Thread(
            target=self._work, name='image-service', daemon=True
        ).start()

    def _work(self) -> None:
        while (call := self._todo.get()) is not None:
            try:
                self._done.put((call(), None))
            # A broad net: it is raised by who waits.
            except BaseException as error:
                self._done.put((None, error))
        if self._answer is not None:
            with contextlib.suppress(Exception):
                self._answer.close()

    def call(self, work: Callable[[], T], until: float) -> T:
        """Have something done, and give what it gives.

        :param until: by the monotonic clock
        :raises TimeoutError: it takes longer
        :raises sources.Unavailable: it was told to stop
        :raises Exception: what the work raises
        """
        self._watch.look()
        self._busy = True
        self._todo.put(work)
        while True:
            try:
                result, error = self._done.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._watch.look()
                if time.monotonic() > until:
                    raise TimeoutError from None
                continue
            self._busy = False
            if error is not None:
                raise error
            return result  # type: ignore[no-any-return]

    def open(self, ask: Callable[[], Any], until: float) -> Any:
        """Do as :meth:`call`, and have what it gives be closed in the end."""

        def work() -> Any:
            self._answer = ask()
            return self._answer

        return self.call(work, until)

    def close(self) -> None:
        """End the thread, and hang up on whom it still waits for."""
        if self._busy and self._answer is not None:
            # Who waits in recv(2) does not see that a file is closed.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                fd = os.dup(self._answer.raw.fileno())
                with socket.socket(fileno=fd) as end:
                    end.shutdown(socket.SHUT_RDWR)
        self._todo.put(None)


def wait_for(work: Callable[[], T], seconds: float, watch: sources.Watch) -> T:
    """Do one thing, as :meth:`Exchange.call`."""
    exchange = Exchange(watch)
    try:
        return exchange.call(work, time.monotonic() + seconds)
    finally:
        exchange.close()
