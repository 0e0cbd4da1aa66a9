# SPDX-License-Identifier: Apache-2.0

"""The same for many files, under their locks and after one last look.

One look serves for all files of a batch (decision 0045), and each lock is
given up as soon as its files are done (decision 0086).
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import threading
import time
from typing import TypeVar

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import paces
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import pools

T = TypeVar('T')
R = TypeVar('R')

#: Asked, with the locks of these files held, for reasons to keep some of them.
Objections = Callable[[Collection[base_file.BaseFile]], Mapping[str, str]]

#: Does it to one file, in any thread.
Act = Callable[[base_file.BaseFile], None]

#: What became of a file: None if it is gone.
Outcome = errors.NotNow | OSError | None

_Group = Sequence[base_file.BaseFile]


class _Given(Exception):
    """It is not begun any more."""


class _Flight:
    """Counts what is begun, so that nothing it needs goes before its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._begun = 0
        self._ended = False

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Have something begun, for so long.

        :raises _Given: that is over
        """
        with self._changed:
            if self._ended:
                raise _Given
            self._begun += 1
        try:
            yield
        finally:
            with self._changed:
                self._begun -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Have nothing begun any more, and wait for what is.

        However often this is interrupted: a file is not to be moved once its
        lock is given up, nor by a handle that means another directory then.
        """
        self._ended = True
        interrupted = None
        while self._begun:
            try:
                with self._changed:
                    self._changed.wait_for(lambda: not self._begun)
            except BaseException as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted


def _each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Do something with each, in threads where that is slow.

    Nothing of it goes on when this ends, however it does.
    """
    flight = _Flight()

    def one(item: T) -> R:
        with flight.one():
            return work(item)

    try:
        return list(pools.each(one, items))
    finally:
        flight.end()


class _Locks:
    """Nova's locks of the files of a batch."""

    def __init__(
        self, layout: layouts.Layout, monotonic: Callable[[], float]
    ) -> None:
        self._layout = layout
        self._monotonic = monotonic
        #: When each was taken.
        self.since: dict[str, float] = {}
        self._held: dict[str, contextlib.AbstractContextManager[None]] = {}

    def take(self, name: str) -> errors.NotNow | None:
        """Take one, unless somebody has it; say why not."""
        lock = locks.nova_lock(self._layout, name, blocking=False)
        try:
            lock.__enter__()
        except errors.NotNow as error:
            return error
        self.since[name] = self._monotonic()
        self._held[name] = lock
        return None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._held)

    @property
    def held(self) -> list[str]:
        """Give the names of those that are held."""
        return [*self._held]

    @contextlib.contextmanager
    def giving_up(self, name: str) -> Iterator[None]:
        """Give one up after this."""
        try:
            yield
        finally:
            self._held.pop(name).__exit__(None, None, None)

    @contextlib.contextmanager
    def giving_up_all(self) -> Iterator[None]:
        """Give up what is held after this."""
        with contextlib.ExitStack() as stack:
            try:
                yield
            finally:
                for lock in self._held.values():
                    stack.push(lock)


class _Batch:
    """Some files, by the locks that they have."""

    def __init__(
        self,
        layout: layouts.Layout,
        groups: Mapping[str, _Group],
        pace: paces.Pace,
    ) -> None:
        self._layout = layout
        self._groups = groups
        self._pace = pace
        self._locks = _Locks(layout, pace.monotonic)
        #: What became of each, by lock; without those that are left.
        self.done: dict[str, dict[str, Outcome]] = {}

    def work(
        self,
        objections: Objections,
        prepared: Callable[[], contextlib.AbstractContextManager[Act]],
        looked: Callable[[], object],
    ) -> None:
        """Do it, as far as there is time; to one of them in any case.

        :param looked: called after the look, if none is left for another one
            and all of this takes its time
        """
        with (
            locks.remover_lock(self._layout, self._groups) as refused,
            self._locks.giving_up_all(),
            contextlib.ExitStack() as stack,
        ):
            began = self._pace.monotonic()
            self._lock(refused)
            seconds = self._pace.monotonic() - began
            # In the order in which they are to go, whoever was locked first.
            held = {*self._locks.held}
            todo = [name for name in self._groups if name in held]
            if not todo:
                return
            left = len(self._groups) - len(todo) - len(self.done)
            with self._pace.looking():
                reasons = objections(
                    [file for name in todo for file in self._groups[name]]
                )
                try:
                    act = stack.enter_context(prepared())
                except (errors.NotNow, OSError) as error:
                    self._fail(todo, error)
                    return
            if not left and pools.are_slow(seconds, len(todo)):
                looked()
            self._act(todo, reasons, act, self._pace.acting())

    def _fail(
        self, todo: Collection[str], error: errors.NotNow | OSError
    ) -> None:
        for name in todo:
            files = self._groups[name]
            self.done.setdefault(
                name, dict.fromkeys((file.name for file in files), error)
            )

    def _lock(self, refused: Mapping[str, errors.NotNow]) -> None:
        for name, error in refused.items():
            self._fail([name], error)
        deadline = self._pace.locking()

        def lock(name: str) -> None:
            if self._locks and deadline.is_over:
                return
            error = self._locks.take(name)
            if error is not None:
                self._fail([name], error)

        _each(lock, [name for name in self._groups if name not in refused])

    def _act(
        self,
        todo: Sequence[str],
        reasons: Mapping[str, str],
        act: Act,
        deadline: paces.Deadline,
    ) -> None:
        def finish(name: str) -> None:
            with self._locks.giving_up(name):
                since = self._locks.since[name]
                if name != todo[0] and deadline.is_over_for(since):
                    return
                self.done[name] = {
                    file.name: _outcome(file, reasons, act)
                    for file in self._groups[name]
                }

        _each(finish, todo)


def _outcome(
    file: base_file.BaseFile, reasons: Mapping[str, str], act: Act
) -> Outcome:
    try:
        if file.name in reasons:
            raise errors.NotNow(reasons[file.name])
        act(file)
    except (errors.NotNow, OSError) as error:
        return error
    return None


def _begin(
    work: Callable[[], object] | None, stack: contextlib.ExitStack
) -> None:
    """Have something done by another thread, until the stack ends."""
    if work is not None:
        stack.enter_context(pools.beside(work))


def work(
    layout: layouts.Layout,
    files: Sequence[base_file.BaseFile],
    objections: Objections,
    prepared: Callable[[], contextlib.AbstractContextManager[Act]],
    monotonic: Callable[[], float] = time.monotonic,
    meanwhile: Callable[[], object] | None = None,
) -> dict[str, Outcome]:
    """Do something to each file, unless something speaks against it now.

    :param prepared: gives what does it, for one batch
    :param meanwhile: done by another thread after a look that is likely to be
        the last one, where moving takes its time; perhaps several times, or
        never
    :param monotonic: seconds since any moment
    :returns: what became of each
    """
    groups: dict[str, list[base_file.BaseFile]] = {}
    for file in files:
        groups.setdefault(names.lock_name(file.original), []).append(file)
    pace = paces.Pace(monotonic)
    outcomes: dict[str, Outcome] = {}
    while groups:
        chosen = [*groups][: pace.size]
        batch = _Batch(layout, {name: groups[name] for name in chosen}, pace)
        last = len(chosen) == len(groups)
        # Waited for when no lock is held any more.
        with contextlib.ExitStack() as stack:
            looked = functools.partial(
                _begin, meanwhile if last else None, stack
            )
            batch.work(objections, prepared, looked)
        pace.learn(len(chosen), len(batch.done))
        for name, became in batch.done.items():
            outcomes |= became
            del groups[name]
    return outcomes
