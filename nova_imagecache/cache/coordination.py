# SPDX-License-Identifier: Apache-2.0

"""One reader per cache: who may read the base files, of all who want to."""

from collections.abc import Iterator
import contextlib
import enum
from typing import ClassVar
from typing import Protocol

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache import errors


class Limit(enum.Enum):
    """What an implementation cannot do.

    HELD_IS_NOT_ALIVE: a reader that hangs, or whose host is lost to the
    storage, keeps its turn.

    NO_QUEUE: who comes next is left to chance.

    NEEDS_SHARED_LOCKS: hosts do not see each other where the file system is
    mounted with locks of its own (``nolock``, ``local_lock``). Reports say
    so, see :mod:`nova_imagecache.cache.mounts`.
    """

    HELD_IS_NOT_ALIVE = enum.auto()
    NO_QUEUE = enum.auto()
    NEEDS_SHARED_LOCKS = enum.auto()


class Coordinator(Protocol):
    """Gives one reader at a time its turn in a cache (decision 0063).

    The turn ends with the process that has it, however that ends.
    """

    limits: ClassVar[frozenset[Limit]]

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who reads the base files.

        :raises nova_imagecache.errors.Locked: somebody else is
        :raises nova_imagecache.errors.LockBroken: nobody can be, as things
            are
        """
        ...

    def urgent_turn(
        self, patience: float
    ) -> contextlib.AbstractContextManager[None]:
        """Likewise, but have whoever is at it give way if they can.

        :param patience: for how many seconds to wait for that
        """
        ...

    def wanted(self) -> bool:
        """Whether somebody waits for an urgent turn."""
        ...

    def taken(self) -> bool:
        """Whether somebody reads base files."""
        ...


# Held by the reader.
_TURN = 'scrub'
# Held by whoever waits for the other (decision 0021).
_WANTED = 'scrub-wanted'


class LockFiles:
    """Turns by locks on files in the cache itself, a :class:`Coordinator`.

    POSIX locks, so they work wherever the base files are seen, and go with
    the process that holds them.
    """

    limits: ClassVar[frozenset[Limit]] = frozenset(Limit)

    def __init__(self, layout: layouts.Layout) -> None:
        """Take no turn yet."""
        self.layout = layout

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who reads the base files."""
        return locks.manager_lock(self.layout, _TURN)

    @contextlib.contextmanager
    def urgent_turn(self, patience: float) -> Iterator[None]:
        """Likewise, but have whoever is at it give way if they can.

        Where we cannot write we have no turn, and read all the same.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(errors.ReadOnly):
                with locks.manager_lock(self.layout, _WANTED, patience):
                    stack.enter_context(
                        locks.manager_lock(self.layout, _TURN, patience)
                    )
            yield

    def wanted(self) -> bool:
        """Whether somebody waits for an urgent turn."""
        return locks.manager_lock_held(self.layout, _WANTED)

    def taken(self) -> bool:
        """Whether somebody reads base files."""
        return locks.manager_lock_held(self.layout, _TURN)


def coordinator(layout: layouts.Layout) -> Coordinator:
    """Give the one that the readers of a cache agree on."""
    return LockFiles(layout)
