# SPDX-License-Identifier: Apache-2.0

"""The base file that is repaired: reading its blocks, and writing to them.

Which data is good, and where that comes from, is the matter of who repairs.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import os
import threading
import time

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import sightings
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources
from nova_imagecache.heal import writer
from nova_imagecache.scrub import keeper

# To write a block that was fetched is worth some waiting for the lock, and so
# is to note that it is good.
_PATIENCE_SECONDS = 5
_TRIES = 3

# After which the lock is given up between two writes, and for how long, so
# that whoever polls for it has his turn (decision 0098).
_HELD_SECONDS = 0.85
_PAUSE_SECONDS = 0.2

# Of one write, in pages: a MiB, so that none takes long on a disk that works.
_MOST_PAGES = 256


class Patient:
    """One base file, and what is known of its blocks.

    :ivar ledger: as it was in the beginning
    """

    def __init__(self, file: base_file.BaseFile) -> None:
        """See what is known, and that it is known for sure.

        :raises nova_imagecache.errors.Error: it is not
        :raises OSError: the file cannot be looked at
        """
        self._file = file
        self._keeper = keeper.Keeper(file, knowledge.recall(file))
        # What the medium cannot read, so that it is tried once.
        self._unreadable: dict[int, frozenset[int]] = {}
        self.ledger, self._blocks = self._recall()

    @property
    def blocks(self) -> blockmap.Blocks:
        """The digests of its blocks."""
        return self._blocks

    @property
    def history(self) -> sightings.History | None:
        """What is not to be lost with its ledger, as that is now."""
        return self._keeper.known.history

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Have the file open.

        :raises nova_imagecache.errors.Changed: it is another one by now
        :raises OSError: it cannot be opened
        """
        fd = identity.open_regular(self._file.path)
        try:
            found = identity.stat_of_fd(fd).incarnation
            if found != self._file.incarnation:
                raise errors.Changed(
                    'another file has taken its place meanwhile'
                )
            with pages.Medium(fd) as medium:
                self._fd, self._medium = fd, medium
                yield
        finally:
            os.close(fd)

    def _recall(self) -> tuple[ledgers.Ledger, blockmap.Blocks]:
        """See what is known, and that it is known for sure.

        :raises nova_imagecache.errors.Error: it is not
        """
        known = self._keeper.known
        ledger = known.ledger
        if known.blind:
            raise errors.Blind('; '.join(known.problems))
        if ledger is None or ledger.read is None:
            raise errors.NotNow(
                'it has no block digests; what is known of it is of the file '
                'as a whole, so fetch it anew'
                if known.digests
                else 'it has not been read yet, so nothing is known of it'
            )
        if ledger.question or ledger.differs:
            raise errors.NotNow(
                'an earlier file of its image held other bytes, and it is not '
                'known which of the two is right; see nova-imagecache confirm'
            )
        if self._file.same().size != ledger.size:
            raise errors.NotNow(
                f'it was {ledger.size} bytes long when it was read, and is '
                'not now; fetch it anew'
            )
        blocks = self._keeper.recall_blocks()
        if blocks is None:
            raise errors.NotNow('its block digests are lost')
        return ledger, blocks

    def wanted(self, index: int) -> sources.Wanted:
        """Say where a block is."""
        start = index * self._blocks.block_size
        return sources.Wanted(start, self._blocks.length(index))

    def read(self, index: int) -> list[bytes | None]:
        """Read a block from the medium.

        :returns: its pages, and None for one that cannot be read
        :raises nova_imagecache.errors.Written: the file ends before
        :raises OSError: that is no fault of the medium
        """
        wanted = self.wanted(index)
        skip = self._unreadable.get(index, frozenset())
        found = self._medium.read(wanted.start, wanted.length, skip)
        missing = {i for i, page in enumerate(found) if page is None}
        self._unreadable[index] = frozenset(missing)
        return found

    def is_good(
        self, index: int, data: bytes, cryptographic: bool = False
    ) -> bool:
        """Whether data is what a block has to hold."""
        return self._blocks.matches(index, data, cryptographic)

    def unreadable(self, index: int) -> int:
        """Give the number of pages of a block that could not be read."""
        return len(self._unreadable.get(index, ()))

    def cached(self, index: int) -> dict[int, bytes]:
        """Give what the page cache has of a block: pages by their number."""
        wanted = self.wanted(index)
        return pages.cached(self._fd, wanted.start, wanted.length)

    def write(
        self,
        index: int,
        data: bytes,
        rewrite: writer.Rewrite,
        stop: threading.Event,
    ) -> int:
        """Write the pages of a block that differ.

        :param data: good, all of the block
        :param stop: when set, nobody's lock is waited for
        :returns: the number of bytes
        :raises nova_imagecache.heal.writer.Refused: some of them are not there
        :raises nova_imagecache.errors.NotNow: the file cannot be had
        """
        runs = [*_differing(self.read(index), pages.split(data))]
        start = self.wanted(index).start
        written = 0
        path, inode = self._file.path, self._file.incarnation.inode
        # Who writes with other rights is started by that, which takes seconds.
        writer.prepare(rewrite, path, inode)
        while runs:
            # Everything else is done by now: others may wait for this lock.
            with self._file.guard(_PATIENCE_SECONDS, stop.wait) as now:
                until = time.monotonic() + _HELD_SECONDS
                if now.size != self._blocks.size:
                    raise writer.Refused(
                        writer.Refusal.CHANGED, 'it has another size by now'
                    )
                while runs:
                    first, count = runs.pop(0)
                    position = first * pages.PAGE
                    part = data[position : position + count * pages.PAGE]
                    rewrite(path, inode, start + position, part)
                    written += len(part)
                    if time.monotonic() >= until:
                        break
            if runs:
                time.sleep(_PAUSE_SECONDS)
        return written

    def drop_stale(
        self, index: int, good: Sequence[bytes | None]
    ) -> tuple[int, int, str]:
        """Have the page cache forget what is wrong in it.

        :returns: how many pages were, how many still are, and what there is
            to say of them
        """
        start = self.wanted(index).start
        stale, left = pages.drop_stale(self._fd, start, good)
        note = ''
        if left:
            note = (
                f'{left} of its pages in the page cache are wrong, and stay '
                'there: who reads them through it reads wrong bytes until '
                'they are dropped'
            )
        elif stale:
            note = f'{stale} of its pages in the page cache were wrong'
        return stale, left, note

    def clear(self, index: int) -> None:
        """Note that a block is good; the rest of the ledger stays.

        :raises nova_imagecache.errors.NotNow: that cannot be noted
        :raises OSError: likewise
        """
        for attempt in itertools.count(1):
            ledger = self._keeper.known.ledger
            if ledger is None:
                raise errors.NotNow('its ledger has gone meanwhile')
            bad = ledgers.spread(ledger.bad)
            bad.pop(index, None)
            after = dataclasses.replace(ledger, bad=ledgers.gather(bad))
            try:
                guard = self._file.guard(_PATIENCE_SECONDS)
                self._keeper.publish(after, self._blocks, guard)
            except errors.Changed:
                raise
            except errors.NotNow:
                known = knowledge.recall(self._file)
                if attempt >= _TRIES or not _is_of(known.ledger, ledger):
                    raise
                self._keeper = keeper.Keeper(self._file, known)
                blocks = self._keeper.recall_blocks()
                if blocks is None or blocks.get(index) != self._blocks.get(
                    index
                ):
                    raise
                self._blocks = blocks
            else:
                return


def _is_of(now: ledgers.Ledger | None, before: ledgers.Ledger) -> bool:
    """Whether a ledger has digests of the same blocks as another."""
    return now is not None and (now.size, now.block_size, now.algorithm) == (
        before.size,
        before.block_size,
        before.algorithm,
    )


def _differing(
    found: Sequence[bytes | None], good: Sequence[bytes | None]
) -> Iterator[tuple[int, int]]:
    """Give the pages that are not as they should be: first, and count."""
    numbers = [
        number for number, page in enumerate(good) if found[number] != page
    ]
    for run in ledgers.runs_of(numbers):
        end = run.first + run.count
        for first in range(run.first, end, _MOST_PAGES):
            yield first, min(_MOST_PAGES, end - first)
