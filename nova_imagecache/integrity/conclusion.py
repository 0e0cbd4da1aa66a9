# SPDX-License-Identifier: Apache-2.0

"""What a reading from start to end means for the ledger: pure functions."""

import dataclasses

from nova_imagecache import clock as clocks
from nova_imagecache import errors
from nova_imagecache.integrity import comparison as comparisons
from nova_imagecache.integrity import ledger as ledgers


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


def conclude(ledger: ledgers.Ledger, reading: Reading) -> ledgers.Ledger:
    """Give the ledger after a reading.

    :raises nova_imagecache.errors.Written: the reading says nothing, as the
        file was written to
    """
    aim = reading.comparison.aim
    if aim is comparisons.Aim.PROVE:
        ledger = _proved(ledger, reading)
    elif ledger.settled:
        ledger = _checked(ledger, reading)
    else:
        ledger = _learnt(ledger, reading)
    return dataclasses.replace(
        ledger,
        started=None,
        position=0,
        times=None,
        read=reading.started,
        unreadable=None,
        attempted=None,
    )


def _damage(reading: Reading) -> tuple[ledgers.BadBlocks, ...]:
    return ledgers.gather(reading.comparison.bad)


def _compared(
    ledger: ledgers.Ledger, reading: Reading, sha1: str
) -> ledgers.Ledger:
    """Compare the SHA-1 of the file with all that it should be."""
    stored = reading.stored
    known = {digest for digest in (ledger.sha1, stored) if digest is not None}
    first = ledger.sha1 or stored or sha1
    return dataclasses.replace(
        ledger,
        sha1=first,
        stored=stored or first,
        found=None if known <= {sha1} else sha1,
        verified=reading.started if known else ledger.verified,
    )


def _learnt(ledger: ledgers.Ledger, reading: Reading) -> ledgers.Ledger:
    """Conclude from a first reading, or from one that makes it sure.

    Each start of a guest touches its base file, so times that moved are no
    proof of a write. Reading again gives one: the same twice is sure.
    """
    compared = reading.comparison
    if ledger.size != reading.size:
        raise errors.Written('it was written to while it was read')
    sha1 = compared.sha1
    again = ledger.read is not None
    settled = (
        not reading.moved
        or (again and not (compared.rewritten or compared.learnt))
        or (sha1 is not None and sha1 == reading.stored)
    )
    vouched = settled and sha1 is not None and sha1 == reading.stored
    ledger = dataclasses.replace(
        ledger,
        settled=settled,
        bad=_damage(reading),
        suspect=ledger.suspect or (reading.outlived and not vouched),
    )
    if not settled:
        return ledger
    if again and not (compared.rewritten or compared.learnt):
        ledger = dataclasses.replace(ledger, verified=reading.started)
    return ledger if sha1 is None else _compared(ledger, reading, sha1)


def _checked(ledger: ledgers.Ledger, reading: Reading) -> ledgers.Ledger:
    """Conclude from a comparison of blocks that can be relied upon."""
    compared = reading.comparison
    ledger = dataclasses.replace(ledger, bad=_damage(reading))
    if not compared.learnt:
        ledger = dataclasses.replace(ledger, verified=reading.started)
    if ledger.bad:
        return ledger
    # Every block is what it was, so the whole is.
    sha1 = ledger.sha1 or compared.sha1
    if ledger.sha1 is None and sha1 is not None and sha1 == reading.stored:
        # The first reading was interrupted, so this vouches only now.
        ledger = dataclasses.replace(ledger, suspect=False)
    if sha1 is not None:
        ledger = _compared(ledger, reading, sha1)
    fresh = compared.fresh
    if fresh is not None:
        ledger = dataclasses.replace(ledger, algorithm=fresh.algorithm)
    return ledger


def _proved(ledger: ledgers.Ledger, reading: Reading) -> ledgers.Ledger:
    """Conclude from the SHA-1 of the whole file alone."""
    compared = reading.comparison
    sha1 = compared.sha1
    if sha1 is None or compared.fresh is None:
        return dataclasses.replace(
            ledger, bad=_damage(reading), verified=reading.started
        )
    after = _compared(ledger, reading, sha1)
    if after.found not in (None, after.sha1):
        if reading.moved and ledger.found is None:
            raise errors.Written('it was written to while it was read')
        return after
    return dataclasses.replace(
        after,
        size=reading.size,
        algorithm=compared.fresh.algorithm,
        block_size=compared.fresh.block_size,
        bad=(),
    )


def replaces_digests(
    before: ledgers.Ledger, after: ledgers.Ledger, reading: Reading
) -> bool:
    """Whether the digests that were read take the place of the old ones."""
    compared = reading.comparison
    if compared.fresh is None:
        return False
    if compared.aim is comparisons.Aim.PROVE:
        return after.found in (None, after.sha1)
    return after.algorithm != before.algorithm
