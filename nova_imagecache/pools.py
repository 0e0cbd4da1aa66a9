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
import functools
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

# So many are judged one by one, and those after quick ones in groups: to look
# at the clock and to judge takes as long as a quick one does.
_FIRST = 8
_GROUP = 32

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

    @property
    def step(self) -> int:
        """How many more are to be judged together."""
        return _GROUP if len(self._last) == _FIRST else 1

    def is_slow_after(self, seconds: float, number: int) -> bool:
        """Note what so many more took; say whether threads are worth it."""
        if number > 1:
            if are_slow(seconds, number):
                self._last.clear()
            return False
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

    def __init__(
        self, items: Sequence[T], take: Callable[[T, R], object]
    ) -> None:
        """Begin with none.

        :param take: is given each result by that thread
        """
        self.items = items
        self._take = take
        #: How many of them were taken, or are being taken.
        self.taken = 0
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._given_up = False
        self._working = False
        self._lock = threading.Lock()

    @property
    def at(self) -> int | None:
        """Which item is being worked at; None while none is."""
        return self.taken if self._working else None

    def work_off(self, work: Callable[[T], R], judged: bool = False) -> None:
        """Do it to each item.

        :param judged: whether to stop when more threads are worth it. Where
            there are as many as there may be nobody asks, since to tell takes
            as many system calls as the items do, and each is a change of
            threads.
        """
        pace = _Pace() if judged else None
        try:
            while self.taken < len(self.items):
                step = len(self.items) if pace is None else pace.step
                some = self.items[self.taken : self.taken + step]
                spent = self._work_off(work, some)
                if spent is None:
                    return
                if pace is not None and pace.is_slow_after(spent, len(some)):
                    break
        except BaseException as error:
            with self._lock:
                if self._given_up:
                    return
                self.error = error
        self.done.set()

    def _work_off(
        self, work: Callable[[T], R], some: Sequence[T]
    ) -> float | None:
        """Do it to some; give what that took, None if they were given up."""
        began = ended = time.monotonic()
        for item in some:
            self._working = True
            result = work(item)
            ended = time.monotonic()
            with self._lock:
                if self._given_up:
                    return None
                self._working = False
                self.taken += 1
            self._take(item, result)
        return ended - began

    def give_up(self, at: int | None) -> bool:
        """Wait no longer, if it is still at an item that it was at."""
        with self._lock:
            if at is None or at != self.at:
                return False
            self._given_up = True
            return True

    def leave(self) -> None:
        """Have no other result be taken."""
        with self._lock:
            self._given_up = True


class _Watch(Generic[T, R]):
    """Tells whether a chunk has been at the same item for too long.

    It looks from time to time: to note when each item is begun takes its time.

    :ivar interval: seconds between two looks
    """

    def __init__(self, chunk: _Chunk[T, R], patience: float) -> None:
        self._chunk = chunk
        self._patience = patience
        self.interval = patience / 4
        self._at: int | None = None
        self._since = time.monotonic()

    def is_late(self, at: int | None) -> bool:
        """Whether it was there when this was asked so long ago."""
        now = time.monotonic()
        late = at == self._at and now - self._since >= self._patience
        if late or at != self._at:
            self._at, self._since = at, now
        return late

    def gives_up(self) -> bool:
        """Give the chunk up if it is late; say whether."""
        at = self._chunk.at
        return self.is_late(at) and self._chunk.give_up(at)


def each(work: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """Do something with each item, and give the results in their order.

    In threads, as soon as that shows to be slow. None of them is waited for
    when the process ends, as some file systems never answer.

    :param work: any thread may call it
    :raises Exception: what the work raises
    """
    todo = yield from _while_quick(work, list(items))
    yield from _in_threads(work, todo)


def hand_over(
    work: Callable[[T], R],
    items: Iterable[T],
    take: Callable[[T, R], object],
    late: Callable[[T], R],
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Do something with each item, and hand the results over in their order.

    While that is quick, one thread does both: each change to another one
    takes longer than an item does (decision 0097).

    :param work: any thread may call it
    :param take: called by one thread at a time, while this waits; one call
        may still be under way where the wait was interrupted
    :param late: gives what to take for the result of an item that is not
        done in time
    :param patience: for how many seconds one item is waited for
    :raises Exception: what the work raises, and what taking does
    """
    todo: Sequence[T] = list(items)
    if not todo:
        return
    chunk = _Chunk(todo, take)
    given_up = False
    watch = _Watch(chunk, patience)
    _start(functools.partial(chunk.work_off, work, judged=True))
    try:
        while not (given_up or chunk.done.wait(watch.interval)):
            given_up = watch.gives_up()
    finally:
        chunk.leave()
    if chunk.error is not None:
        raise chunk.error
    todo = todo[chunk.taken :]
    if given_up:
        take(todo[0], late(todo[0]))
        todo = todo[1:]
    results = _in_threads(work, todo, late, patience)
    with contextlib.closing(results):
        for item, result in zip(todo, results, strict=True):
            take(item, result)


def _start(work: Callable[[], object]) -> threading.Thread:
    """Have a thread do something that is waited for by whoever wants to."""
    thread = threading.Thread(target=work, name='imagecache', daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do something meanwhile, in a thread of its own; wait for its end.

    Where there can be no other thread, it is not done.

    :raises Exception: what the work raises
    """
    chunk: _Chunk[None, object] = _Chunk([None], lambda _item, _result: None)
    try:
        thread = _start(lambda: chunk.work_off(lambda _item: work()))
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
    number = 0
    while number < len(todo):
        some = todo[number : number + pace.step]
        results: list[R] = []
        began = time.monotonic()
        try:
            for item in some:
                results.append(work(item))
        except BaseException:
            yield from results
            raise
        spent = time.monotonic() - began
        yield from results
        number += len(some)
        if pace.is_slow_after(spent, len(some)):
            break
    return todo[number:]


def _part(todo: Sequence[T]) -> Generator[Sequence[T]]:
    size = max(1, min(_MOST, len(todo) // (4 * THREADS)))
    for start in range(0, len(todo), size):
        yield todo[start : start + size]


def _added_to(results: list[R]) -> Callable[[T, R], None]:
    return lambda _item, result: results.append(result)


class _Crew(Generic[T, R]):
    """Threads that work off the same chunks."""

    def __init__(
        self, work: Callable[[T], R], chunks: Sequence[_Chunk[T, R]]
    ) -> None:
        self._work = work
        self._waiting = [*reversed(chunks)]

    def start(self, number: int = 1) -> None:
        for _number in range(min(number, len(self._waiting))):
            _start(self._run)

    def leave(self) -> None:
        """Begin no other chunk."""
        self._waiting.clear()

    def has_begun(self, chunk: _Chunk[T, R]) -> bool:
        return chunk not in self._waiting

    def _run(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.pop().work_off(self._work)


def _in_threads(
    work: Callable[[T], R],
    todo: Sequence[T],
    late: Callable[[T], R] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Generator[R]:
    """Have as many threads at work as there may be.

    :param late: without it, what is not done in time is waited for
    """
    parts = [*_part(todo)]
    results: list[list[R]] = [[] for _part in parts]
    chunks = [
        _Chunk(part, _added_to(some))
        for part, some in zip(parts, results, strict=True)
    ]
    crew = _Crew(work, chunks)
    crew.start(THREADS)
    try:
        for chunk, done in zip(chunks, results, strict=True):
            if late is None:
                chunk.done.wait()
            elif not _is_in_time(crew, chunk, patience):
                yield from done
                yield late(chunk.items[chunk.taken])
                rest = chunk.items[chunk.taken + 1 :]
                yield from _in_threads(work, rest, late, patience)
                # In the place of the one that hangs.
                crew.start()
                continue
            yield from done
            # Of all chunks together they would be in the way of the garbage
            # collector.
            done.clear()
            if chunk.error is not None:
                raise chunk.error
    finally:
        crew.leave()


def _is_in_time(
    crew: _Crew[T, R], chunk: _Chunk[T, R], patience: float
) -> bool:
    """Wait for a chunk, for as long as each of its items may take."""
    watch = _Watch(chunk, patience)
    while not chunk.done.wait(watch.interval):
        if crew.has_begun(chunk):
            if watch.gives_up():
                return False
        elif watch.is_late(None):
            # All threads are with what does not answer.
            crew.start()
    return True
