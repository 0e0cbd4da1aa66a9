# SPDX-License-Identifier: Apache-2.0

"""One incarnation of one base file: where it is, whether it is still there.

Whatever changes a file of the cache, or says something of it that lasts, does
so in the :meth:`~BaseFile.guard` of that file (decision 0060).
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import os
import time

import msgspec

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import pools

_POLL_SECONDS = 0.2

#: Waits for so many seconds; says whether to stop waiting altogether.
Wait = Callable[[float], bool]


def never_stopped(seconds: float) -> bool:
    """Wait, and go on waiting."""
    time.sleep(seconds)
    return False


# Decision 0100.
class BaseFile(msgspec.Struct, frozen=True):
    """One file in the cache, or in its trash, as it was when it was seen.

    What was to become a base file, or has a name that no image cache uses, is
    one too: its kind tells.

    :ivar name: that it has there
    :ivar stat: what was seen of it, with its incarnation
    :ivar trashed: whether it is in the trash; in the cache, a name of the
        same form is nobody's
    :ivar kind: what it is, see :func:`nova_imagecache.names.kind_of`; given
        by name and stat, whatever is said
    """

    layout: layouts.Layout
    name: str
    stat: identity.Stat
    trashed: bool = False
    kind: names.Kind = names.Kind.OTHER

    def __post_init__(self) -> None:
        """Judge the name, once."""
        kind = names.kind_of(self.original, self.stat.mode)
        if self.trashed and not kind.is_base:
            # Nothing else is moved there, whoever has changed its mode since.
            kind = names.Kind.LEFTOVER
        msgspec.structs.force_setattr(self, 'kind', kind)

    @classmethod
    def at(cls, path: str) -> 'BaseFile':
        """See which file is at a path, in whatever cache that is.

        :raises OSError: there is none, or it cannot be looked at
        """
        layout = layouts.Layout.around(path)
        return cls.named(layout, os.path.basename(path))

    @classmethod
    def named(
        cls, layout: layouts.Layout, name: str, trashed: bool = False
    ) -> 'BaseFile':
        """See which file has a name in a cache, or in its trash.

        :raises OSError: none has, or it cannot be looked at
        """
        path = layout.file(name, trashed)
        return cls(layout, name, identity.stat_of(path), trashed)

    @classmethod
    def all_named(
        cls, layout: layouts.Layout, wanted: Iterable[str], trashed: bool
    ) -> Iterator[tuple[str, 'BaseFile | OSError']]:
        """See which files have these names, likewise.

        :returns: with each name its file, or why there is none
        """

        def named(name: str) -> 'tuple[str, BaseFile | OSError]':
            try:
                return name, cls.named(layout, name, trashed)
            except OSError as error:
                return name, error

        return pools.each(named, wanted)

    @property
    def incarnation(self) -> identity.Incarnation:
        """Say which of all files that ever had this name it is."""
        return self.stat.incarnation

    @property
    def original(self) -> str:
        """Give its name in the cache, wherever it is."""
        return names.original(self.name) if self.trashed else self.name

    @property
    def is_base(self) -> bool:
        """Whether guests may read it."""
        return self.kind.is_base and self.stat.regular

    @property
    def path(self) -> str:
        """Give the path that it has while nobody moves it."""
        return self.layout.file(self.name, self.trashed)

    @property
    def sidecar(self) -> str:
        """Give the path of its stored checksum."""
        return names.sidecar_name(self.path)

    @property
    def ledger(self) -> str:
        """Give the path of its ledger."""
        return self.layout.ledger(self.name, self.trashed)

    @property
    def companions(self) -> tuple[str, ...]:
        """Give the paths of all that is known of its content.

        Nothing is of a leftover: what has such a name is somebody else's.
        """
        return (self.sidecar, self.ledger) if self.kind.is_base else ()

    def same(self, dir_fd: int | None = None) -> identity.Stat:
        """See the file anew, provided that it is still this one.

        A server is asked, and no cache of it believed.

        :param dir_fd: of the directory that it is in, where whoever asks goes
            by handles
        :raises nova_imagecache.errors.Changed: it went, or was replaced
        :raises OSError: it cannot be looked at
        """
        path = self.path if dir_fd is None else self.name
        try:
            stat = identity.stat_of(path, dir_fd, fresh=True)
        except FileNotFoundError:
            raise errors.Changed('it has gone meanwhile') from None
        if stat.incarnation != self.incarnation:
            raise errors.Changed('another file has taken its place meanwhile')
        return stat

    @contextlib.contextmanager
    def guard(
        self,
        patience: float = 0,
        wait: Wait = never_stopped,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Iterator[identity.Stat]:
        """Hold the file: this one and no other, under its lock.

        :param patience: for how many seconds to wait for the lock
        :param wait: how to wait
        :raises nova_imagecache.errors.NotNow: the lock is held, or the file
            at that name is another one now
        :raises OSError: it cannot be looked at
        """
        deadline = monotonic() + patience
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(
                        locks.nova_lock(self.layout, self.original, False)
                    )
                    break
                except errors.Locked:
                    if monotonic() >= deadline or wait(_POLL_SECONDS):
                        raise
            yield self.same()

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file for reading, once nobody holds its lock.

        :raises nova_imagecache.errors.NotNow: somebody does, or it is gone
        :raises OSError: it cannot be opened
        """
        try:
            with self.guard():
                # Nobody who takes the lock replaces the file in here.
                fd = identity.open_regular(self.path)
        except errors.ReadOnly:
            # Nor can anybody who sees the file system as we do.
            self.same()
            fd = identity.open_regular(self.path)
        # It is read without the lock (decision 0002).
        try:
            yield fd
        finally:
            os.close(fd)
