# SPDX-License-Identifier: Apache-2.0

"""Comparing a base file with the image that it was made from.

The image service never changes the bytes of an image, so what it gives is
evidence (:mod:`nova_imagecache.scrub.confirmation`).
"""

from collections.abc import Sequence
import contextlib
import dataclasses

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import notes
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_service
from nova_imagecache.heal.sources import images
from nova_imagecache import names
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import turns


def verify(
    settings: Settings,
    file: base_file.BaseFile,
    source: image_service.ImageService,
    image: str | None = None,
    progress_bar: courses.ProgressBar = courses.no_progress_bar,
    clock: clocks.Clock = clocks.now,
) -> knowledge.Finding:
    """Read a base file, and compare all of it with its image.

    If it is the same, all of its doubts are over, and it is its new baseline.
    If not, and what was known of it is what the image has, it is corrupt
    there. Else nothing changes.

    :param image: UUID of the image, where nobody has noted that
    :returns: what follows
    :raises sources.Unavailable: the image service does not tell
    :raises nova_imagecache.errors.Error: it cannot be done, or not now
    :raises OSError: it cannot be read, or the outcome not be kept
    """
    now = clock()
    if not file.stat.regular:
        raise errors.Error(
            f'{names.printable(file.name)} is no regular file, which a base '
            'file is'
        )
    if file.kind is not names.Kind.ORIGINAL:
        raise errors.Error(
            f'{names.printable(file.name)} is {file.kind}: only an original '
            'is all of its image'
        )
    with turns.urgent(settings, 'verify --origin', file.name, clock):
        before = knowledge.recall(file)
        kept = keeper.Keeper(file, before)
        if kept.known.blind:
            raise errors.Blind('; '.join(kept.known.problems))
        ledger = kept.known.ledger
        known = image or (ledger.image if ledger else None)
        base = sources.Base(file.name, file.path, file.stat.size, known)
        # Before hours of reading.
        found = _image(settings, source, base, now)
        whole = None
        if images.is_as_it_is(found, base):
            whole = images.hasher(found)
        blocks, sha1 = confirmation.read(settings, file, progress_bar, whole)
        other: list[int] | None
        if whole is None:
            other = _other_blocks(source, base, blocks)
        elif whole.hexdigest() == found.digest:
            other = []
        else:
            # Which ones takes the image; those that are known to be bad, if
            # there are any, settle whose fault it is.
            other = _bad_blocks(source, base, blocks, ledger)
        if other == []:
            confirmation.accept(kept, file, blocks, sha1, now, now, found.id)
            return confirmation.conclude(kept, file, before, now)
        old = kept.recall_blocks()
        if other and ledger and old and _was_right(source, base, old, other):
            bad = ledgers.spread(ledger.bad)
            bad |= dict.fromkeys(other, ledgers.Damage.CORRUPT)
            kept.publish(
                dataclasses.replace(
                    ledger,
                    question=False,
                    differs=False,
                    bad=ledgers.gather(bad),
                    read=ledger.read or now,
                ),
                old,
            )
            return confirmation.conclude(kept, file, before, now)
        where = (
            f' in {len(other)} of its {blocks.count} blocks' if other else ''
        )
        return knowledge.Finding(
            kept.known.finding.verdict,
            f'it is not what image {found.id} is in the image service{where}, '
            'and what is known of it does not tell why; nothing was changed',
            problem=True,
        )


def _image(
    settings: Settings,
    source: image_service.ImageService,
    base: sources.Base,
    now: clocks.Instant,
) -> images.Image:
    """Give the image of a base file, and note whether there is one."""
    layout, host = layouts.Layout.of(settings), settings.host

    def note(is_gone: bool) -> None:
        # What is found out depends on nothing that is noted here.
        with contextlib.suppress(OSError):
            if base.image is not None:
                notes.note_image(layout, host, base.image, is_gone, now)

    try:
        found = source.image(base)
    except sources.Unavailable as error:
        if error.state is sources.State.GONE:
            note(True)
        raise
    note(False)
    return found


def _wanted(
    blocks: blockmap.Blocks, indices: Sequence[int]
) -> list[sources.Wanted]:
    return [
        sources.Wanted(index * blocks.block_size, blocks.length(index))
        for index in indices
    ]


def _other_blocks(
    source: image_service.ImageService,
    base: sources.Base,
    blocks: blockmap.Blocks,
) -> list[int]:
    """Compare block by block; give those that are other in the image."""
    other = []
    for piece in source.read(base, _wanted(blocks, range(blocks.count))):
        index = piece.wanted.start // blocks.block_size
        if not blocks.matches(index, piece.data, cryptographic=True):
            other.append(index)
    return other


def _bad_blocks(
    source: image_service.ImageService,
    base: sources.Base,
    blocks: blockmap.Blocks,
    ledger: ledgers.Ledger | None,
) -> list[int] | None:
    """Give those of the blocks known to be bad that are other in the image.

    :returns: None where none of them is: others are
    """
    bad = ledger.corrupt if ledger else frozenset[int]()
    indices = sorted(index for index in bad if index < blocks.count)
    other = [
        piece.wanted.start // blocks.block_size
        for piece in source.read(base, _wanted(blocks, indices))
        if not blocks.matches(
            piece.wanted.start // blocks.block_size, piece.data, True
        )
    ]
    return other or None


def _was_right(
    source: image_service.ImageService,
    base: sources.Base,
    known: blockmap.Blocks,
    other: Sequence[int],
) -> bool:
    """Whether what was known of some blocks is what the image has there."""
    if known.size != base.size or max(other) >= known.count:
        return False
    right = [
        known.matches(
            piece.wanted.start // known.block_size,
            piece.data,
            cryptographic=False,
        )
        for piece in source.read(base, _wanted(known, other))
    ]
    return all(right)
