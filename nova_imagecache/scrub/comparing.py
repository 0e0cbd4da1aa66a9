# SPDX-License-Identifier: Apache-2.0

"""Reading a base file, and comparing it block by block."""

from collections.abc import Callable
import contextlib
import dataclasses
import logging
import time

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache import clocks
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.host import ReadAsRoot
from nova_imagecache import names
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import evidence
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import sources

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Method:
    """How base files are scrubbed.

    :ivar algorithm: for the digests of blocks
    :ivar patience: for how many seconds to wait for the lock of a file, to
        publish what a long reading gave
    :ivar pulse: called after each block; within one, however large, there is
        the progress of the means
    :ivar read_as_root: what the host lends for files that we may not read
    :ivar asker: who has evidence on a file that is not proven yet, and knows
        whether there is the image of one that is
    :ivar checkpoint_seconds: after which what is known so far is published,
        and blocks that did not match are read again
    """

    algorithm: str
    means: readers.Means
    clock: clocks.Clock = clocks.now
    patience: float = 0
    pulse: Callable[[], None] = lambda: None
    read_as_root: ReadAsRoot | None = None
    checkpoint_seconds: float = 30
    asker: evidence.Asker = evidence.Nobody()  # noqa: RUF009 it has nothing
    monotonic: Callable[[], float] = time.monotonic


@dataclasses.dataclass(frozen=True)
class Comparer:
    """Reads one file for one comparison.

    :ivar opened: the file, as it was when it was opened
    :ivar ledger: what is known of it
    :ivar comparison: is told what was read
    """

    file: base_file.BaseFile
    source: sources.Source
    opened: identity.Stat
    ledger: ledgers.Ledger
    comparison: comparisons.Comparison
    method: Method

    def compare(self, checkpoint: Callable[[], None]) -> None:
        """Read from where the comparison begins to the end of the file.

        :param checkpoint: called every now and then, when nothing is open
        :raises nova_imagecache.errors.NotNow: it was stopped, or written to
        :raises comparisons.TooManyErrors: it is to be left alone for now
        :raises OSError: it cannot be read just now
        """
        comparison, size = self.comparison, self.ledger.block_size
        end = self.opened.size
        anew = self.ledger.question and comparison.fresh is not None
        if comparison.whole is None and not anew:
            # One block after the end tells as much as a million.
            end = min(end, (self.ledger.count + 1) * size)
        readings = hashing.read_blocks(
            self.source.read(
                self.method.means, comparison.next * size, end, size
            ),
            size,
            comparison.algorithms,
            comparison.whole,
            self.method.means,
        )
        last = self.method.monotonic()
        with contextlib.closing(readings):
            for reading in readings:
                comparison.take(reading)
                self.method.pulse()
                now = self.method.monotonic()
                if now - last >= self.method.checkpoint_seconds:
                    self._compare_mismatches()
                    checkpoint()
                    last = self.method.monotonic()
        self._compare_mismatches()
        comparison.end(self.source.stat().size)

    def _compare_mismatches(self) -> None:
        """Read once more what did not match, later and to other memory."""
        comparison = self.comparison
        means = dataclasses.replace(
            self.method.means, ahead=False, passed=lambda length: None
        )
        size = comparison.blocks.block_size
        for index in sorted(comparison.mismatches):
            start = index * size
            pieces = self.source.read(means, start, start + size, size)
            found = list(
                hashing.read_blocks(
                    pieces, size, comparison.algorithms, means=means
                )
            )
            if comparison.take_again(found[0] if found else None):
                self._warn(index)

    def _warn(self, index: int) -> None:
        """Say that a block came out differently each time.

        :raises nova_imagecache.errors.Written: as somebody writes to it
        """
        now = self.source.stat()
        if not (self.ledger.settled or now.same_content_as(self.opened)):
            raise errors.Written('it was written to while it was read')
        size = self.comparison.blocks.block_size
        LOG.warning(
            '[N11] Block %(index)d of base file %(name)s, %(size)d bytes from '
            '%(start)d, was read twice and came out differently. That is not '
            'the fault of the file, but of memory, cable or disk.',
            {
                'index': index,
                'name': names.printable(self.file.name),
                'size': size,
                'start': index * size,
            },
        )

    def compare_again(self, expected: str | None) -> None:
        """Read all of a file once more whose SHA-1 alone says it is bad.

        Only the first time: which block was misread, if one was, is not known.

        :param expected: the SHA-1 that it should have, if one is known
        :raises nova_imagecache.errors.NotNow: it came out differently
        """
        comparison = self.comparison
        sha1, fresh = comparison.sha1, comparison.fresh
        if fresh is None or expected is None:
            return
        if ledgers.Damage.CORRUPT in comparison.bad.values():
            # Each of these blocks was read twice.
            return
        if sha1 is None or sha1 in (expected, self.ledger.found):
            return
        size = fresh.block_size
        readings = hashing.read_blocks(
            self.source.read(self.method.means, 0, self.opened.size, size),
            size,
            [fresh.algorithm],
            means=self.method.means,
        )
        with contextlib.closing(readings):
            for reading in readings:
                self.method.pulse()
                if reading.digests != (fresh.get(reading.index),):
                    raise errors.NotNow(
                        'it came out differently when it was read again'
                    )
