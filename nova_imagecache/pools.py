# SPDX-License-Identifier: Apache-2.0

"""The same for each of many, at the same time where that is slow.

A request to a network takes its time, whoever waits for it, and sixteen at
once take hardly longer than one. A local disk answers sooner than a thread is
asked.
"""

import collections
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import threading
import time
from typing import Generic
from typing import TypeVar

from nova_imagecache import stopwatches

T = TypeVar('T')
R = TypeVar('R')

#: So many requests are on their way at once.
THREADS = 16

#: For which an answer is waited for by who has something to say without it.
PATIENCE_SECONDS = 10

# What takes longer than this is worth a thread of its own.
_SLOW_SECONDS = 0.0002

_FIRST = 8
_MOST = 64


def are_slow(seconds: float, number: int) -> bool:
    """Whether so many items took so long that threads are worth it."""
    return seconds > _SLOW_SECONDS * number


class _Pace:
    """How long the last few items took the thread that makes it.

    One of them alone tells nothing, nor does it tell anything of the storage
    how long the thread waited for a processor.
    """

    def __init__(self) -> None:
        self._waited = stopwatches.waited()
        self._last: collections.deque[float] = collections.deque(maxlen=_FIRST)

    def is_slow_after(self, seconds: float) -> bool:
        """Note what one more took; say whether threads are worth it."""
        self._last.append(seconds)
        if seconds <= _SLOW_SECONDS or not self._are_slow(0):
            return False
        before, self._waited = self._waited, stopwatches.waited()
        if self._are_slow(self._waited - before):
            return True
        self._last.clear()
        return False

    def _are_slow(self, waited: float) -> bool:
        others = sum(self._last) - max(self._last) - waited
        return are_slow(others, _FIRST - 1)


class _Chunk(Generic[T, R]):
    """Some of the items, for one thread."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.results: list[R] = []
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.is_slow = False
        self._given_up = False
        # When the item was begun that it is at.
        self._began: float | None = None
        self._lock = threading.Lock()

    def work_off(self, work: Callable[[T], R], pace: _Pace | None) -> None:
        """Do it to each item.

        :param pace: tells when more threads are worth it; None where there
            are as many as there may be, since to tell takes as many system
            calls as the items do, and each is a change of threads
        """
        try:
            for item in self.items:
                self._began = began = time.monotonic()
                result = work(item)
                with self._lock:
                    if self._given_up:
                        return
                    self.results.append(result)
                    self._began = None
                if pace is not None and not self.is_slow:
                    spent = time.monotonic() - began
                    self.is_slow = pace.is_slow_after(spent)
        except BaseException as error:
            self.error = error
        self.done.set()

    def give_up(self, patience: float) -> bool:
        """Wait no longer, if it has been at one item for so many seconds."""
        with self._lock:
            began = self._began
            if began is None or time.monotonic() - began < patience:
                return False
            self._given_up = True
            return True


def each(
    work: Callable[[T], R],
    items: Iterable[T],
    late: Callable[[T], R] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Generator[R]:
    """Do something with each item, and give the results in their order.

    In threads, as soon as that shows to be slow. None of them is waited for
    when the process ends, as some file systems never answer.

    :param work: any thread may call it
    :param late: gives what to take for the result of an item that is not
        done in time; without it, that is waited for
    :param patience: for how many seconds one item is waited for
    :raises Exception: what the work raises
    """
    todo: Sequence[T] = list(items)
    if late is None:
        todo = yield from _while_quick(work, todo)
    if todo:
        yield from _in_threads(work, todo, late, patience)


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do something meanwhile, in a thread of its own; wait for its end.

    Where there can be no other thread, it is not done.

    :raises Exception: what the work raises
    """
    chunk: _Chunk[None, object] = _Chunk([None])
    thread = threading.Thread(
        target=chunk.work_off,
        args=(lambda _: work(), None),
        name='imagecache',
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError:
        yield
        return
    try:
        yield
    finally:
        thread.join()
    if chunk.error is not None:
        raise chunk.error


def _while_quick(
    work: Callable[[T], R], todo: Sequence[T]
) -> Generator[R, None, Sequence[T]]:
    """Do it here for as long as no thread is worth it; give what is left."""
    pace = _Pace()
    for number, item in enumerate(todo, 1):
        began = time.monotonic()
        result = work(item)
        spent = time.monotonic() - began
        yield result
        if pace.is_slow_after(spent):
            return todo[number:]
    return ()


def _part(todo: Sequence[T], slow: bool) -> Generator[Sequence[T]]:
    size = max(1, min(_MOST, len(todo) // (4 * THREADS)))
    first = 0 if slow else _FIRST
    if first:
        yield todo[:first]
    for start in range(first, len(todo), size):
        yield todo[start : start + size]


class _Crew(Generic[T, R]):
    """Threads that work off the same chunks.

    One alone, and by turns with who takes the results, until that shows to be
    slow: two that compute are in the way of each other (decision 0097).
    """

    def __init__(
        self, work: Callable[[T], R], chunks: Sequence[_Chunk[T, R]]
    ) -> None:
        self._work = work
        self._waiting = [*reversed(chunks)]
        self._turns = threading.Semaphore(0)
        self._started = 0
        self._grown = False

    def start(self, number: int = 1) -> None:
        for _number in range(number):
            self._started += 1
            threading.Thread(
                target=self._run, name='imagecache', daemon=True
            ).start()

    def grow(self) -> None:
        """Have as many threads as there may be, and none wait for a turn."""
        if not self._grown:
            self._grown = True
            left = len(self._waiting)
            self._turns.release(max(1, left))
            self.start(min(THREADS, left) - 1)

    def go_on(self) -> None:
        """Have one more chunk be begun."""
        self._turns.release()

    def leave(self) -> None:
        """Begin no other chunk."""
        self._waiting.clear()
        self._turns.release(self._started + 1)

    def has_begun(self, chunk: _Chunk[T, R]) -> bool:
        return chunk not in self._waiting

    def _run(self) -> None:
        pace = _Pace()
        while True:
            self._turns.acquire()
            try:
                chunk = self._waiting.pop()
            except IndexError:
                return
            chunk.work_off(self._work, None if self._grown else pace)


def _in_threads(
    work: Callable[[T], R],
    todo: Sequence[T],
    late: Callable[[T], R] | None,
    patience: float,
) -> Generator[R]:
    # Without what to say of those that are late, it has shown to be slow.
    slow = late is None
    chunks: list[_Chunk[T, R]] = [_Chunk(part) for part in _part(todo, slow)]
    crew = _Crew(work, chunks)
    crew.start()
    if slow:
        crew.grow()
    try:
        for chunk in chunks:
            crew.go_on()
            if late is None:
                chunk.done.wait()
            elif not _is_in_time(crew, chunk, patience):
                done = len(chunk.results)
                yield from chunk.results
                yield late(chunk.items[done])
                rest = chunk.items[done + 1 :]
                yield from each(work, rest, late, patience)
                # In the place of the one that hangs.
                crew.start()
                continue
            yield from chunk.results
            # Of all chunks together they would be in the way of the garbage
            # collector.
            chunk.results.clear()
            if chunk.error is not None:
                raise chunk.error
            if chunk.is_slow:
                crew.grow()
    finally:
        crew.leave()


def _is_in_time(
    crew: _Crew[T, R], chunk: _Chunk[T, R], patience: float
) -> bool:
    """Wait for a chunk, for as long as each of its items may take."""
    while not chunk.done.wait(patience):
        if not crew.has_begun(chunk):
            # All threads are with what does not answer.
            crew.start()
        elif chunk.give_up(patience):
            return False
    return True
