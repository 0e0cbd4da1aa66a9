# SPDX-License-Identifier: Apache-2.0

"""The functions that Nova's first image cache manager had, of 2012.

They read a whole base file here and now, and know nothing of blocks.
"""

from collections.abc import Collection
import os

from nova_imagecache.cache.base_file import BaseFile
from nova_imagecache.cache import identity
from nova_imagecache.cache import publish
from nova_imagecache.content import knowledge
from nova_imagecache.content import sidecars
from nova_imagecache import errors
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import readers

# To publish what a long reading gave is worth some waiting for a lock.
_PATIENCE_SECONDS = 5

Progress = courses.Progress


def digest_of_fd(fd: int, progress: Progress | None = None) -> str:
    """Read an open file from its start, and give its SHA-1 in hex.

    :param progress: called with the size of holes too
    :raises OSError: it cannot be read
    """
    whole = hashing.WholeFile()
    pieces = readers.Reader(fd, readers.Means()).read(
        0, os.fstat(fd).st_size, limiters.LARGE_PIECE
    )
    for piece in pieces:
        if piece.error is not None:
            raise piece.error
        whole.add(piece)
        if progress is not None:
            progress(piece.length)
    digest = whole.hexdigest()
    assert digest is not None  # noqa: S101 for mypy: no piece had an error
    return digest


def settled_digest(
    fd: int,
    expected: Collection[str] = (),
    progress: Progress | None = None,
) -> str:
    """Give the SHA-1 of an open file, sure that it is not being written.

    A digest that is expected is sure. Another one is if size and times held
    still meanwhile, or if reading again gives the same: each start of a guest
    touches its base file, and one that is started all the time must not
    escape.

    :raises nova_imagecache.errors.Written: it is being written
    :raises OSError: it cannot be read
    """
    before = identity.stat_of_fd(fd)
    digest = digest_of_fd(fd, progress)
    after = identity.stat_of_fd(fd)
    if after.size == before.size and (
        digest in expected
        or after.same_content_as(before)
        or digest_of_fd(fd) == digest
    ):
        return digest
    raise errors.Written('it was written to while it was read')


def write_stored_checksum(
    base_file: str, progress: Progress | None = None
) -> str:
    """Create the stored checksum of a base file if it has none.

    Something that is not a checksum is replaced, a checksum never is, be it
    right or wrong. One that was lost comes back as it was, if the manager
    remembers it; otherwise the whole file is read. It is published under the
    lock that Nova takes to fetch the file, which is in ``locks`` beside the
    cache.

    :param base_file: path of the base file
    :returns: the stored checksum, 40 hex digits
    :raises nova_imagecache.errors.Locked: somebody else has the lock, as when
        the image is being fetched; nothing was stored
    :raises nova_imagecache.errors.LockBroken: the lock cannot be had at all
    :raises nova_imagecache.errors.Changed: the file was replaced while it was
        read; nothing was stored
    :raises nova_imagecache.errors.Written: it was written to while it was
        read; nothing was stored
    :raises nova_imagecache.errors.Blind: what is known of it cannot be made
        out; nothing was stored
    :raises nova_imagecache.errors.KnownDamage: a scrub has found damage in
        it; nothing was stored
    :raises OSError: the file cannot be read, or the checksum not written
    """
    file = BaseFile.at(base_file)
    known = _known(file)
    if known.stored is not None and not known.question:
        return known.stored
    with file.opened() as fd:
        digest = _remembered(known) or settled_digest(fd, progress=progress)
    # Written before, it is older than whatever takes the place of the file,
    # and so is not taken for the checksum of that.
    with publish.prepared(digest.encode(), file.layout.temporary) as put:
        with file.guard(_PATIENCE_SECONDS):
            # A scrub may have come to know more during a long reading.
            known = _known(file)
            if known.stored is not None and not known.question:
                return known.stored
            if known.question and known.digests - {digest}:
                raise errors.KnownDamage(
                    f'{file.path} is not what an earlier file of its name was'
                )
            if _remembered(known) not in {None, digest}:
                raise errors.Changed('a scrub has read something else')
            if known.stored is None:
                put(file.sidecar)
    return digest


def _known(file: BaseFile) -> knowledge.Knowledge:
    """Recall what is known of a file that may get a checksum."""
    known = knowledge.recall(file)
    if known.stored is not None and not known.question:
        return known
    if known.blind or known.lost:
        # What cannot be made out may say that the file is bad.
        raise errors.Blind('; '.join(known.problems))
    ledger = known.ledger
    if ledger and ledger.sha1 is None and ledger.damaged:
        raise errors.KnownDamage(f'{file.path} has damage that is known')
    return known


def _remembered(known: knowledge.Knowledge) -> str | None:
    """Give the digest of this very file, if it was lost with a checksum."""
    if known.ledger is None or known.question:
        return None
    return known.ledger.sha1


def verify_checksum(
    base_file: str, progress: Progress | None = None
) -> bool | None:
    """Compare a base file with its stored checksum.

    :param base_file: path of the base file
    :returns: whether they agree, or None where there is nothing to compare
        with: no checksum, or no base file. Nothing is read then.
    :raises nova_imagecache.errors.Changed: the file was replaced while it was
        read, so this says nothing
    :raises nova_imagecache.errors.Written: it was written to while it was
        read, so this says nothing
    :raises OSError: the file cannot be read
    """
    try:
        file = BaseFile.at(base_file)
        fd = identity.open_regular(base_file)
    except FileNotFoundError:
        return None
    try:
        stored = sidecars.read_stored_checksum(file.path)
        if stored is None:
            return None
        digest = settled_digest(fd, [stored], progress)
        file.same()
    finally:
        os.close(fd)
    return digest == stored
