# SPDX-License-Identifier: Apache-2.0

"""Comparing a base file with evidence that a person has.

What was lost, or was never sure, cannot be found out from the file itself.
"""

import dataclasses
import os

from nova_imagecache.cache import base_file
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import damages
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import turns


def confirm(
    settings: Settings,
    file: base_file.BaseFile,
    sha1: str,
    progress_bar: courses.ProgressBar = courses.no_progress_bar,
    clock: clocks.Clock = clocks.now,
) -> knowledge.Finding:
    """Read a base file, and compare all of it with a SHA-1 that is right.

    If it has that, all of its doubts are over, and it is its new baseline. If
    not, nothing changes, unless that was known of it, or of an earlier file of
    its name: then it is read once more, and is corrupt if it comes out the
    same.

    :param sha1: 40 hex digits
    :returns: what follows
    :raises nova_imagecache.errors.Error: it cannot be done, or not now
    :raises OSError: it cannot be read, or the outcome not be kept
    """
    now = clock()
    with turns.urgent(settings, 'confirm', file.name, clock):
        before = knowledge.recall(file)
        kept = keeper.Keeper(file, before)
        if kept.known.blind:
            raise errors.Blind('; '.join(kept.known.problems))
        blocks, found = read(settings, file, progress_bar)
        ledger = kept.known.ledger
        if found == sha1:
            accept(kept, file, blocks, found, now)
        elif ledger and ledger.settled and ledger.sha1 == sha1:
            # What was known of it is right, so it is what is wrong; or one of
            # its bytes was, on the way here.
            if read(settings, file, progress_bar)[1] != found:
                raise errors.NotNow(
                    'it came out differently when it was read again'
                )
            # What was compared before this was may be what is wrong.
            condemned = dataclasses.replace(
                ledger.from_the_start(),
                question=False,
                differs=False,
                found=found,
            )
            kept.publish(condemned, kept.recall_blocks())
        else:
            return knowledge.Finding(
                kept.known.finding.verdict,
                f'it is not what the evidence says: its SHA-1 is {found} and '
                f'not {sha1}; nothing was changed',
                problem=True,
            )
        return conclude(kept, file, before, now)


def conclude(
    kept: keeper.Keeper,
    file: base_file.BaseFile,
    before: knowledge.Knowledge,
    now: clocks.Instant,
) -> knowledge.Finding:
    """Have the state remember what is known now, and give that.

    :param before: what was known before it was compared
    :raises nova_imagecache.errors.Error: it does not
    """
    history = kept.known.history
    if history is not None:
        state = states.State()
        failure = queues.note_histories(
            file.layout, {file: history}, state, now
        )
        if failure is not None:
            raise errors.Error(failure)
    damages.note(file, before, kept.known.finding, now)
    return kept.known.finding


def read(
    settings: Settings,
    file: base_file.BaseFile,
    progress_bar: courses.ProgressBar,
    also: digests.Hash | None = None,
) -> tuple[blockmap.Blocks, str]:
    """Read all of a file; give its digests, and its SHA-1.

    :param also: another digest, which gets all of it as well
    :raises nova_imagecache.errors.Written: it was written to meanwhile
    :raises OSError: it cannot be read
    """
    size = file.stat.size
    block_size = blockmap.block_size_for(size)
    algorithm = settings.checksum_algorithm
    blocks = blockmap.Blocks(algorithm, size, block_size)
    algorithms = [algorithm]
    if not blocks.is_cryptographic:
        algorithms.append(digests.STRONG)
    whole = hashing.WholeFile(also)
    with (
        file.opened() as fd,
        progress_bar(size) as progress,
    ):
        os.fsync(fd)
        means = readers.Means(
            limiters.Limiter(settings.scrub_bandwidth),
            # A person can interrupt what reads in another thread.
            ahead=True,
            passed=progress,
        )
        pieces = readers.Reader(fd, means).read(0, size, block_size)
        for reading in hashing.read_blocks(
            pieces, block_size, algorithms, whole, means
        ):
            if reading.error is not None:
                raise reading.error
            blocks.put(reading.index, *reading.digests)
        if os.fstat(fd).st_size != size:
            raise errors.Written('it was written to while it was read')
    digest = whole.hexdigest()
    assert digest is not None  # noqa: S101 for mypy: no piece had an error
    return blocks, digest


def accept(
    kept: keeper.Keeper,
    file: base_file.BaseFile,
    blocks: blockmap.Blocks,
    sha1: str,
    now: clocks.Instant,
    origin: clocks.Instant | None = None,
    image: str | None = None,
) -> None:
    """Make what a file holds its baseline, without any doubt.

    :param origin: when that was found to be what its image is, if it was
    :param image: the image that it was made from, if that is the evidence
    """
    old = kept.known.ledger
    ledger = ledgers.Ledger.begin(
        file.incarnation.key,
        blocks.size,
        blocks.algorithm,
        image or (old.image if old else None),
    )
    kept.publish(
        dataclasses.replace(
            ledger,
            read=now,
            verified=now,
            sha1=sha1,
            proven=True,
            stored=sha1,
            origin=origin,
        ),
        blocks,
        supersedes=True,
    )
