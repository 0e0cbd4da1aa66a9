# SPDX-License-Identifier: Apache-2.0

"""What the scrub of a base file begins with: pure functions."""

import dataclasses
from typing import TypeGuard

from nova_imagecache.cache import base_file
from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import comparisons

Aim = comparisons.Aim


@dataclasses.dataclass(frozen=True)
class Job:
    """A base file to be scrubbed.

    :ivar known: what is known of its content so far
    :ivar image: the image it was made from, where that is known
    :ivar outlived: whether it was there in an earlier boot, see
        :func:`nova_imagecache.cache.sightings.outlived`
    :ivar suspect: whether it was found to be so before its ledger was lost
    :ivar rebaselined: when all that was known of it had been lost, if that
        is remembered
    :ivar afresh: whether to read it from its start, although an earlier
        reading was interrupted
    """

    file: base_file.BaseFile
    known: knowledge.Knowledge
    image: str | None = None
    outlived: bool = False
    suspect: bool = False
    rebaselined: float | None = None
    afresh: bool = False


def aim_of(ledger: ledgers.Ledger, blocks: blockmap.Blocks) -> comparisons.Aim:
    """Say what a reading is for."""
    if ledger.read is None:
        return Aim.LEARN
    corrupt = ledger.found is not None and not ledger.proven
    lost = ledger.sha1 is not None and blocks.unknown == blocks.count > 0
    return Aim.PROVE if corrupt or lost else Aim.CHECK


def goes_on(
    old: ledgers.Ledger | None, blocks: blockmap.Blocks | None, size: int
) -> TypeGuard[ledgers.Ledger]:
    """Whether there is a ledger to go on with.

    :param blocks: its digests; None where they are lost
    :param size: of the file, in bytes
    """
    if old is None or _has_resized(old, size):
        return False
    lost = blocks is None or (
        old.read is not None and blocks.unknown == blocks.count > 0
    )
    return not lost or (old.sha1 is not None and old.settled)


def _has_resized(old: ledgers.Ledger, size: int) -> bool:
    """Whether a file has changed its size before it was settled."""
    return not old.settled and old.size != size


def new_ledger(
    job: Job,
    old: ledgers.Ledger | None,
    size: int,
    algorithm: str,
    now: clocks.Instant,
) -> ledgers.Ledger:
    """Begin a ledger, with what is left of the old one."""
    key = job.file.incarnation.key
    known = job.known
    ledger = ledgers.Ledger.begin(key, size, algorithm, job.image)
    rebaselined = old.rebaselined if old else job.rebaselined
    if known.lost and not known.digests:
        rebaselined = rebaselined or now.wall
    # What its blocks held is lost, and not that they are bad.
    bad = _bad_of(old, ledger.count) if old else ()
    damage = None if old else known.damage
    if damage is not None:
        # Nor is it known any more which ones are.
        bad = _all_of(
            ledger,
            ledgers.Damage.UNREADABLE
            if damage == knowledge.Verdict.UNREADABLE
            else ledgers.Damage.CORRUPT,
        )
    differed = damage == knowledge.Verdict.DIFFERS
    return dataclasses.replace(
        ledger,
        question=old.question if old else known.older and not differed,
        differs=old.differs if old else differed,
        sha1=(old.sha1 if old else None) or known.stored,
        rebaselined=rebaselined,
        anew=bool(old and old.anew),
        suspect=job.suspect
        or bool(old and (old.suspect or _has_resized(old, size))),
        bad=bad,
    )


def _bad_of(old: ledgers.Ledger, count: int) -> tuple[ledgers.BadBlocks, ...]:
    """Give what is known to be bad, settled or not."""
    return ledgers.gather(
        {
            index: damage
            for index, damage in ledgers.spread(old.bad).items()
            if index <= count
        }
    )


def _all_of(
    ledger: ledgers.Ledger, damage: ledgers.Damage
) -> tuple[ledgers.BadBlocks, ...]:
    if not ledger.count:
        return ()
    return (ledgers.BadBlocks(0, ledger.count, damage),)
