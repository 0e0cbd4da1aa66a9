# SPDX-License-Identifier: Apache-2.0

"""What a reading from start to end means for the ledger: pure functions."""

from collections.abc import Mapping
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
    :ivar original: whether the image service never changes what is in it
    :ivar unsure: whether it cannot be told that this is the file that the
        ledger is of
    :ivar corrupt: blocks that were known to be corrupt before
    :ivar form: of what is in it, if that could be told: see
        :class:`ledgers.Form`
    :ivar without: whether it has no SHA-1, and gets none
    """

    comparison: comparisons.Comparison
    started: clocks.Instant
    moved: bool
    size: int
    stored: str | None
    outlived: bool = False
    original: bool = True
    unsure: bool = False
    corrupt: frozenset[int] = frozenset()
    form: ledgers.Form | None = None
    without: bool = False

    @property
    def vouched(self) -> bool:
        """Whether the file is what its stored checksum says."""
        sha1 = self.comparison.sha1
        return sha1 is not None and sha1 == self.stored


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """The ledger after a reading, and the digests that belong to it.

    :ivar supersedes: whether a stored checksum is of a file that was made
        anew since, and goes
    """

    ledger: ledgers.Ledger
    blocks: blockmap.Blocks
    supersedes: bool = False


def conclude(ledger: ledgers.Ledger, reading: Reading) -> Conclusion:
    """Give the ledger after a reading.

    :raises nova_imagecache.errors.Written: the reading says nothing, as the
        file was written to
    """
    compared = reading.comparison
    ledger = _settle(ledger, reading)
    bad = {
        index: damage
        for index, damage in compared.bad.items()
        if ledger.suspect or damage is not ledgers.Damage.DOUBTFUL
    }
    ledger = dataclasses.replace(
        ledger,
        bad=ledgers.gather(bad),
        started=None,
        position=0,
        times=None,
        read=reading.started,
        unreadable=None,
        attempted=None,
    )
    if not ledger.settled:
        return Conclusion(ledger, compared.blocks)
    doubt = ledger.question or ledger.differs or reading.unsure
    if ledger.form is None and not doubt:
        ledger = dataclasses.replace(ledger, form=reading.form)
    if ledger.question or (reading.unsure and _is_other(ledger, reading)):
        answered = _answer(ledger, reading)
        if answered.supersedes or answered.ledger.question:
            return answered
        ledger = answered.ledger
    elif ledger.differs and not _different(ledger, reading):
        unread = ledgers.Damage.UNREADABLE in compared.bad.values()
        ledger = dataclasses.replace(ledger, differs=unread)
    expected = ledger.sha1 or reading.stored
    conclusion = _judge_whole(ledger, reading)
    if _was_compared(expected, conclusion.ledger, reading):
        verified = dataclasses.replace(
            conclusion.ledger, verified=reading.started
        )
        return dataclasses.replace(conclusion, ledger=verified)
    return conclusion


def _settle(ledger: ledgers.Ledger, reading: Reading) -> ledgers.Ledger:
    """Find out which blocks nobody writes to, block by block.

    Times that moved are no proof of a write (decision 0013,
    decision 0070).
    """
    compared = reading.comparison
    doubtful = compared.doubtful or compared.changed
    unsettled = ledger.unsettled
    if not ledger.settled:
        if ledger.size != reading.size:
            raise errors.Written('it was written to while it was read')
        unsettled = ledgers.runs_of(compared.unsettled)
        if ledger.read is None:
            # Where there is a checksum, that tells.
            alone = ledger.sha1 is None and reading.stored is None
            doubtful |= reading.outlived and alone
            if reading.moved:
                unsettled = _all_blocks(ledger)
        if reading.vouched:
            unsettled = ()
    suspect = ledger.suspect or (doubtful and not reading.vouched)
    return dataclasses.replace(ledger, unsettled=unsettled, suspect=suspect)


def _all_blocks(ledger: ledgers.Ledger) -> tuple[ledgers.Run, ...]:
    return (ledgers.Run(0, ledger.count),) if ledger.count else ()


def new_damage(
    bad: Mapping[int, ledgers.Damage], corrupt: frozenset[int]
) -> bool:
    """Whether a block is corrupt that was not known to be."""
    return any(
        damage is ledgers.Damage.CORRUPT and index not in corrupt
        for index, damage in bad.items()
    )


def _different(ledger: ledgers.Ledger, reading: Reading) -> bool:
    """Whether a file is other than what is known."""
    compared = reading.comparison
    if None not in (compared.sha1, ledger.sha1):
        return compared.sha1 != ledger.sha1
    return ledgers.Damage.CORRUPT in compared.bad.values()


def has_kin(compared: comparisons.Comparison) -> bool:
    """Whether some data of a file is what it was, as far as it was read."""
    return any(
        compared.blocks.holds_data(index) and not compared.is_bad(index)
        for index in range(min(compared.blocks.count, compared.next))
    )


def _is_other(ledger: ledgers.Ledger, reading: Reading) -> bool:
    """Whether a file that may be another one is, by what it holds.

    One that decays has something in common with what it was.
    """
    compared = reading.comparison
    return (
        new_damage(compared.bad, reading.corrupt)
        and not ledger.differs
        and compared.blocks.unknown < compared.blocks.count
        and not has_kin(compared)
    )


def _answer(ledger: ledgers.Ledger, reading: Reading) -> Conclusion:
    """Say what follows from comparing a file with an earlier one.

    Decision 0069.
    """
    compared = reading.comparison
    sha1 = compared.sha1
    # Of an unfinished comparison, what it found before and is still so.
    damaged = ledgers.Damage.CORRUPT in compared.bad.values()
    other = (ledger.differs and damaged) or new_damage(
        compared.bad, reading.corrupt
    )
    kin = has_kin(compared)
    if kin and any(
        compared.bad.get(index) is ledgers.Damage.CORRUPT
        for index in reading.corrupt
    ):
        # It is what it was, with what was wrong with it, and maybe more.
        other = False
    expected = ledger.sha1 or reading.stored
    if expected is not None and not ledger.proven:
        # Its digests are of this file itself, if there are any.
        if sha1 is None:
            return Conclusion(
                dataclasses.replace(ledger, question=True), compared.blocks
            )
        other = expected != sha1
    if not other:
        ledger = dataclasses.replace(ledger, question=False, differs=False)
        return Conclusion(ledger, compared.blocks)
    # There is no form in which an image takes nothing.
    same_size = reading.size in (ledger.size, 0)
    same_form = kin or same_size
    forms = {ledger.form, reading.form}
    if not kin and None not in forms and len(forms) > 1:
        same_form = False
    # Nobody has seen it go, and what decays keeps its size.
    unseen = not ledger.question and same_size
    if unseen or (reading.original and same_form):
        ledger = dataclasses.replace(ledger, question=False, differs=True)
        return Conclusion(ledger, compared.blocks)
    return _begin_anew(ledger, reading)


def weigh(
    concluded: Conclusion, reading: Reading, image: str, holds: bool
) -> Conclusion:
    """Add the evidence on all of a file to what its reading means.

    Where the file is its image, all doubts are over, and it is the baseline.
    Where it is not, it may have been damaged before anything was known of it.

    :param image: UUID of the image
    :param holds: whether the file is what that is
    """
    ledger, compared = concluded.ledger, reading.comparison
    if not holds:
        if reading.moved:
            # It may have been written to while it was read; the next reading
            # asks again.
            return concluded
        return dataclasses.replace(
            concluded, ledger=dataclasses.replace(ledger, suspect=True)
        )
    sha1, fresh = compared.sha1, compared.fresh
    if sha1 is None or fresh is None:
        return concluded
    begun = dataclasses.replace(
        _begun(ledger, reading, fresh, image),
        verified=reading.started,
        sha1=sha1,
        proven=True,
        stored=sha1,
        origin=reading.started,
    )
    # A checksum of other bytes is of an earlier file, or wrong.
    supersedes = reading.stored not in (None, sha1)
    return Conclusion(begun, fresh, supersedes)


def _begun(
    ledger: ledgers.Ledger,
    reading: Reading,
    fresh: blockmap.Blocks,
    image: str | None,
) -> ledgers.Ledger:
    """Begin a ledger of what was read, whatever was known before."""
    return dataclasses.replace(
        ledgers.Ledger.begin(ledger.key, reading.size, fresh.algorithm, image),
        block_size=fresh.block_size,
        form=reading.form,
        read=reading.started,
    )


def _begin_anew(ledger: ledgers.Ledger, reading: Reading) -> Conclusion:
    """Begin the ledger of a file that was made anew with other bytes."""
    sha1, fresh = reading.comparison.sha1, reading.comparison.fresh
    if fresh is None or (sha1 is None and not reading.without):
        # It takes a reading that is not interrupted.
        known = dict.fromkeys(reading.corrupt, ledgers.Damage.CORRUPT)
        again = dataclasses.replace(
            ledger, question=True, differs=False, bad=ledgers.gather(known)
        )
        return Conclusion(again, reading.comparison.blocks)
    sure = not reading.moved
    begun = dataclasses.replace(
        _begun(ledger, reading, fresh, ledger.image),
        suspect=reading.outlived,
        sha1=sha1 if sure else None,
        proven=sure and sha1 is not None,
        stored=sha1 if sure else None,
        rebaselined=reading.started.wall,
        anew=True,
    )
    if not sure:
        begun = dataclasses.replace(begun, unsettled=_all_blocks(begun))
    return Conclusion(begun, fresh, supersedes=True)


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
    if not (ledger.proven or reading.without):
        return Conclusion(ledger, compared.blocks)
    # Every block that is good is what it was, so the whole is, if all are.
    wrong = reading.stored not in (None, ledger.sha1) and not ledger.damaged
    ledger = dataclasses.replace(
        ledger,
        stored=reading.stored or ledger.sha1,
        found=ledger.sha1 if wrong else None,
    )
    fresh = compared.fresh
    if fresh is None or ledger.damaged or fresh.unknown:
        return Conclusion(ledger, compared.blocks)
    return Conclusion(
        dataclasses.replace(ledger, algorithm=fresh.algorithm), fresh
    )


def _prove(ledger: ledgers.Ledger, reading: Reading, sha1: str) -> Conclusion:
    """Conclude from a SHA-1 that is right: so is each block that was read."""
    fresh = reading.comparison.fresh
    assert fresh is not None  # noqa: S101 for mypy
    wrong = reading.stored not in (None, sha1)
    return Conclusion(
        dataclasses.replace(
            ledger,
            size=reading.size,
            algorithm=fresh.algorithm,
            block_size=fresh.block_size,
            sha1=sha1,
            proven=True,
            stored=reading.stored or sha1,
            found=sha1 if wrong else None,
            bad=tuple(
                run
                for run in ledger.bad
                if run.damage is ledgers.Damage.DOUBTFUL
            ),
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
