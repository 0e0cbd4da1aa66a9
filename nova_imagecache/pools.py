# SPDX-License-Identifier: Apache-2.0

"""The same for each of many, at the same time where that is slow.

A request to a network takes its time, whoever waits for it, and sixteen at
once take no longer than one.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import queue
import threading
import time
from typing import TypeVar

T = TypeVar('T')
R = TypeVar('R')

#: So many requests are on their way at once.
THREADS = 16

# What takes less is done sooner than a thread is asked to do it.
_SLOW_SECONDS = 0.0002

_PROBED = 8
_MOST = 64


def each(
    work: Callable[[T], R], items: Iterable[T], threads: int = THREADS
) -> Iterator[R]:
    """Do something with each item, and give the results in their order.

    In threads as soon as it shows to be slow. Those are not waited for when
    the process ends: some file systems never answer.

    :raises Exception: what the work raises; what is not begun is left then
    """
    todo = list(items)
    done = 0
    while done < len(todo):
        chunk = todo[done : done + _PROBED]
        started = time.monotonic()
        results = [work(item) for item in chunk]
        spent = time.monotonic() - started
        done += len(chunk)
        yield from results
        if spent > _SLOW_SECONDS * len(chunk) and len(todo) - done > 1:
            yield from _in_threads(work, todo[done:], threads)
            return


def _in_threads(
    work: Callable[[T], R], todo: Sequence[T], threads: int
) -> Iterator[R]:
    size = max(1, min(_MOST, len(todo) // (4 * threads)))
    starts = range(0, len(todo), size)
    begun = iter(starts)
    turn = threading.Lock()
    ended = threading.Event()
    done: queue.SimpleQueue[tuple[int, list[R], BaseException | None]] = (
        queue.SimpleQueue()
    )

    def run() -> None:
        while not ended.is_set():
            with turn:
                start = next(begun, None)
            if start is None:
                return
            results: list[R] = []
            try:
                for item in todo[start : start + size]:
                    results.append(work(item))  # noqa: PERF401 (what failed)
            except BaseException as error:
                done.put((start, results, error))
                return
            done.put((start, results, None))

    for _number in range(min(threads, len(starts))):
        threading.Thread(target=run, name='imagecache', daemon=True).start()
    waiting: dict[int, tuple[list[R], BaseException | None]] = {}
    try:
        for start in starts:
            while start not in waiting:
                finished, results, error = done.get()
                waiting[finished] = results, error
            results, error = waiting.pop(start)
            yield from results
            if error is not None:
                raise error
    finally:
        ended.set()
