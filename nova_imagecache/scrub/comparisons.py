# SPDX-License-Identifier: Apache-2.0

"""Comparing what the blocks of a file hold with what they should hold.

Pure functions, and an object that is told what was read.
"""

import enum

from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import hashing

# Blocks that cannot be read before a file is left alone for now. Each can hold
# up guests for minutes while the disk retries.
_MOST_UNREADABLE = 3


class Aim(enum.Enum):
    """What a reading of a file is for (decision 0011).

    LEARN: its digests are not all known.

    CHECK: its digests say what it should hold.

    PROVE: its digests say nothing, and only its SHA-1 can tell.
    """

    LEARN = enum.auto()
    CHECK = enum.auto()
    PROVE = enum.auto()


class TooManyErrors(Exception):
    """Blocks of the file cannot be read, and more are not to be tried."""

    def __init__(self, error: OSError) -> None:
        """Keep the last error."""
        super().__init__(error.strerror or str(error))


class Comparison:
    """One reading of one file, as far as it has got.

    :ivar blocks: what the blocks should hold; what is learnt is added
    :ivar fresh: what they hold, where that may replace the other
    :ivar whole: the SHA-1 of the file, where it is wanted
    :ivar bad: damage by block, from this and earlier readings
    :ivar mismatches: blocks that did not match, and are to be read again, with
        the digest that they had
    :ivar algorithms: of the digests that each reading of a block is to have
    :ivar next: the block that is to be read next
    :ivar learnt: whether there was a block whose digest was not known
    :ivar unsettled: blocks that are not known to be what they were when they
        were read before. In the first reading of a file all are, and only
        those are in it that have changed already.
    :ivar changed: whether a block that is not settled was other than before
    :ivar doubtful: whether a block was learnt that could not be read before
    """

    def __init__(
        self,
        aim: Aim,
        ledger: ledgers.Ledger,
        blocks: blockmap.Blocks,
        fresh: blockmap.Blocks | None = None,
        whole: hashing.WholeFile | None = None,
        first: int = 0,
    ) -> None:
        """Begin.

        :param first: the block with which the reading begins
        """
        self.aim = aim
        self.blocks = blocks
        self.fresh = fresh
        self.whole = whole
        self.bad = ledgers.spread(ledger.bad)
        self.mismatches: dict[int, bytes] = {}
        self.next = first
        self.learnt = False
        self.unsettled = ledgers.blocks_in(ledger.unsettled)
        self.changed = False
        self.doubtful = False
        self._first_reading = ledger.read is None
        self._unreadable = 0
        self.algorithms = self._algorithms(ledger.corrupt)

    def _algorithms(self, corrupt: frozenset[int]) -> list[str]:
        """Say which digests are needed: the old one first."""
        kept = self.blocks if self.fresh is None else self.fresh
        found = [self.blocks.algorithm, kept.algorithm]
        # What is known only by a weak digest gets a strong one once; what is
        # corrupt has to wait until it is good (decision 0091).
        if not kept.is_cryptographic and (kept.unknown or kept.weak - corrupt):
            found.append(digests.STRONG)
        return list(dict.fromkeys(found))

    @property
    def position(self) -> int:
        """The block with which to go on if the reading ended here."""
        if self.aim is Aim.PROVE:
            return 0
        # All that comes after the end counts as one block.
        return min([self.next, self.blocks.count + 1, *self.mismatches])

    @property
    def sha1(self) -> str | None:
        """The SHA-1 of the file, if all of it was added."""
        return self.whole.hexdigest() if self.whole else None

    def take(self, reading: hashing.BlockReading) -> None:
        """Compare the next block.

        :raises TooManyErrors: the file is to be left alone for now
        """
        index = reading.index
        self.next = index + 1
        if reading.error is not None:
            self._fail(index, reading.error)
            return
        if self.fresh is not None:
            self._put(self.fresh, reading)
        if self.aim is Aim.PROVE:
            if self.bad.get(index) is ledgers.Damage.UNREADABLE:
                del self.bad[index]
            return
        if index > self.blocks.count:
            # The first one after the end stands for all that come there.
            return
        length = self.blocks.length(index)
        if self._expected(index) is None and reading.length == length:
            self._learn(reading)
        elif self._matches(reading):
            self._find_good(reading)
        else:
            self.mismatches[index] = reading.digests[0]

    def _put(
        self, blocks: blockmap.Blocks, reading: hashing.BlockReading
    ) -> None:
        """Note the digests of a block."""
        strong = None
        if digests.STRONG in self.algorithms:
            strong = reading.digests[self.algorithms.index(digests.STRONG)]
        digest = reading.digests[self.algorithms.index(blocks.algorithm)]
        blocks.put(reading.index, digest, strong)

    def _learn(self, reading: hashing.BlockReading) -> None:
        index = reading.index
        self.learnt = True
        damage = self.bad.get(index)
        if damage is ledgers.Damage.CORRUPT:
            # Its digest is lost, and what it holds now is not the one.
            return
        self._put(self.blocks, reading)
        if damage is ledgers.Damage.UNREADABLE:
            # What was lost may have been replaced by anything, as by zeros.
            self.doubtful = True
            self.bad[index] = ledgers.Damage.DOUBTFUL

    def _find_good(self, reading: hashing.BlockReading) -> None:
        index = reading.index
        if digests.STRONG in self.algorithms:
            self._put(self.blocks, reading)
        self.unsettled.discard(index)
        if self.is_bad(index):
            del self.bad[index]

    def is_bad(self, index: int) -> bool:
        """Whether a block is known to be bad, and not just doubtful."""
        return self.bad.get(index) not in (None, ledgers.Damage.DOUBTFUL)

    def take_again(self, reading: hashing.BlockReading | None) -> bool:
        """Compare a suspect that was read again.

        :param reading: None where the file has become shorter
        :returns: whether it gave something else each time
        """
        index = reading.index if reading else min(self.mismatches)
        first = self.mismatches.pop(index)
        if reading is None:
            self.bad[index] = ledgers.Damage.CORRUPT
            return False
        if reading.error is not None:
            self._fail(index, reading.error)
            return False
        second = reading.digests[0]
        if self.fresh is not None:
            self._put(self.fresh, reading)
        if self.whole is not None and second != first:
            # What was read first is in it.
            self.whole.spoil()
        if self._matches(reading):
            self._find_good(reading)
        elif self._is_unsettled(index):
            self._put(self.blocks, reading)
            self.unsettled.add(index)
            self.changed = True
            self.bad[index] = ledgers.Damage.DOUBTFUL
        else:
            self.bad[index] = ledgers.Damage.CORRUPT
        return second != first

    def end(self, size: int) -> None:
        """Note that the file ends here, where it may go on in the ledger.

        :param size: of the file in bytes; it may have been cut short after
            its end was read
        """
        if self.aim is Aim.PROVE:
            return
        if size < self.blocks.size:
            first = size // self.blocks.block_size
            for index in range(first, self.blocks.count):
                if self.blocks.get(index) is not None:
                    self.bad[index] = ledgers.Damage.CORRUPT
        # What once came after the end, and has gone, is bad no longer.
        end = max(self.next, self.blocks.count)
        self.bad = {
            index: damage for index, damage in self.bad.items() if index < end
        }

    def _is_unsettled(self, index: int) -> bool:
        return index < self.blocks.count and (
            self._first_reading or index in self.unsettled
        )

    def _expected(self, index: int) -> bytes | None:
        return self.blocks.get(index) if index < self.blocks.count else None

    def _matches(self, reading: hashing.BlockReading) -> bool:
        return reading.length == self.blocks.length(
            reading.index
        ) and reading.digests[0] == self._expected(reading.index)

    def _fail(self, index: int, error: OSError) -> None:
        self.learnt |= self._expected(index) is None
        if not self.is_bad(index):
            self.bad[index] = ledgers.Damage.UNREADABLE
        self.fresh = None
        self._unreadable += 1
        if self._unreadable >= _MOST_UNREADABLE:
            raise TooManyErrors(error)
