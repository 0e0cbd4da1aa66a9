# SPDX-License-Identifier: Apache-2.0

"""What a reading from start to end means for the ledger: pure functions."""

import dataclasses

from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.scrub import comparisons

Aim = comparisons.Aim


@dataclasses.dataclass(frozen=True)
class Reading:
    """A file that was read from start to end.

    :ivar moved: whether its size or times have changed meanwhile: it was
        touched, or written to
    :ivar size: of the file, in bytes
    :ivar stored: its stored checksum, if it has a valid one
    :ivar outlived: whether it was there in an earlier boot and has not been
        digested in it
    """

    comparison: comparisons.Comparison
    started: clocks.Instant
    moved: bool
    size: int
    stored: str | None
    outlived: bool = False

    @property
    def vouched(self) -> bool:
        """Whether the file is what its stored checksum says."""
        sha1 = self.comparison.sha1
        return sha1 is not None and sha1 == self.stored


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """The ledger after a reading, and the digests that belong to it."""

    ledger: ledgers.Ledger
    blocks: blockmap.Blocks


def conclude(ledger: ledgers.Ledger, reading: Reading) -> Conclusion:
    """Give the ledger after a reading.

    :raises nova_imagecache.errors.Written: the reading says nothing, as the
        file was written to
    """
    compared = reading.comparison
    if not ledger.settled:
        ledger = _settle(ledger, reading)
    ledger = dataclasses.replace(
        ledger,
        bad=ledgers.gather(compared.bad),
        started=None,
        position=0,
        times=None,
        changed=False,
        read=reading.started,
        unreadable=None,
        attempted=None,
    )
    if not ledger.settled:
        return Conclusion(ledger, compared.blocks)
    expected = ledger.sha1 or reading.stored
    conclusion = _judge_whole(ledger, reading)
    if _was_compared(expected, conclusion.ledger, reading):
        verified = dataclasses.replace(
            conclusion.ledger, verified=reading.started
        )
        return dataclasses.replace(conclusion, ledger=verified)
    return conclusion


def _settle(ledger: ledgers.Ledger, reading: Reading) -> ledgers.Ledger:
    """Find out whether it is sure that nobody writes to the file.

    Times that moved are no proof of a write (decision 0013).
    """
    compared = reading.comparison
    if ledger.size != reading.size:
        raise errors.Written('it was written to while it was read')
    first = ledger.read is None
    if first:
        still = not (reading.moved or compared.changed)
        settled = still or reading.vouched
        # Where there is a checksum, that tells.
        alone = ledger.sha1 is None and reading.stored is None
        doubtful = (reading.outlived and alone) or compared.changed
    else:
        unread = ledgers.Damage.UNREADABLE in compared.bad.values()
        settled = not (compared.changed or unread) or reading.vouched
        doubtful = compared.changed
    suspect = ledger.suspect or (doubtful and not reading.vouched)
    return dataclasses.replace(ledger, settled=settled, suspect=suspect)


def _judge_whole(ledger: ledgers.Ledger, reading: Reading) -> Conclusion:
    """Compare the file as a whole with all that it should be."""
    compared = reading.comparison
    sha1 = compared.sha1
    damaged = ledgers.Damage.CORRUPT in compared.bad.values()
    if sha1 is not None and compared.fresh is not None:
        expected = ledger.sha1
        if expected is None and not damaged:
            # Of bytes that are known to be bad, anybody may have made one.
            # Where the digests are known already, they count for more.
            learnt = compared.aim is Aim.LEARN
            expected = (reading.stored if learnt else None) or sha1
        if sha1 == expected:
            return _prove(ledger, reading, sha1)
        return Conclusion(
            dataclasses.replace(
                ledger,
                sha1=expected,
                stored=reading.stored or expected,
                found=sha1 if expected is not None else None,
            ),
            compared.blocks,
        )
    if not ledger.proven:
        return Conclusion(ledger, compared.blocks)
    # Every block that is good is what it was, so the whole is, if all are.
    differs = reading.stored not in (None, ledger.sha1) and not ledger.bad
    ledger = dataclasses.replace(
        ledger,
        stored=reading.stored or ledger.sha1,
        found=ledger.sha1 if differs else None,
    )
    fresh = compared.fresh
    if fresh is None or ledger.bad or fresh.unknown:
        return Conclusion(ledger, compared.blocks)
    return Conclusion(
        dataclasses.replace(ledger, algorithm=fresh.algorithm), fresh
    )


def _prove(ledger: ledgers.Ledger, reading: Reading, sha1: str) -> Conclusion:
    """Conclude from a SHA-1 that is right: so is each block that was read."""
    fresh = reading.comparison.fresh
    assert fresh is not None  # noqa: S101 for mypy
    differs = reading.stored not in (None, sha1)
    return Conclusion(
        dataclasses.replace(
            ledger,
            size=reading.size,
            algorithm=fresh.algorithm,
            block_size=fresh.block_size,
            sha1=sha1,
            proven=True,
            stored=reading.stored or sha1,
            found=sha1 if differs else None,
            bad=(),
        ),
        fresh,
    )


def _was_compared(
    expected: str | None, ledger: ledgers.Ledger, reading: Reading
) -> bool:
    """Whether all of the file was compared with something.

    :param expected: the SHA-1 that was known before
    """
    compared = reading.comparison
    if compared.aim is Aim.PROVE:
        return compared.sha1 is not None
    if expected is not None:
        return ledger.proven or ledger.found is not None
    return compared.aim is Aim.CHECK and not compared.learnt
