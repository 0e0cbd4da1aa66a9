# SPDX-License-Identifier: Apache-2.0

"""Checksums of whole base files, in the format of 2012.

``<base file>.sha1`` holds 40 hex digits: what ``sha1sum`` prints in its first
column, and nothing else. Nova's first image cache manager wrote it so.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import errno
import os
import re

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache.integrity import hashing
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache.integrity import limiter
from nova_imagecache.integrity import reader
from nova_imagecache import names

_DIGEST = re.compile(r'[0-9a-f]{40}')
# A digest and some white space; whatever is longer is no checksum.
_SIDECAR_LIMIT = 64

Progress = reader.Progress

#: Given the number of bytes to read in all, shows how far it has got.
ProgressBar = Callable[[int], contextlib.AbstractContextManager[Progress]]


@contextlib.contextmanager
def no_progress_bar(total: int) -> Iterator[Progress]:
    """Show nothing."""
    yield lambda length: None


def digest_of_fd(fd: int, progress: Progress | None = None) -> str:
    """Read an open file from its start, and give its SHA-1 in hex.

    :param progress: called with the size of holes too
    :raises OSError: it cannot be read
    """
    whole = hashing.WholeFile()
    pieces = reader.Reader(fd, reader.Means()).read(
        0, os.fstat(fd).st_size, limiter.LARGE_PIECE
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
    before = statuses.status_of_fd(fd)
    digest = digest_of_fd(fd, progress)
    after = statuses.status_of_fd(fd)
    if after.size == before.size and (
        digest in expected
        or after.same_content_as(before)
        or digest_of_fd(fd) == digest
    ):
        return digest
    raise errors.Written('it was written to while it was read')


def _born_after(sidecar: statuses.Status, base: statuses.Status) -> bool:
    born = sidecar.incarnation.born
    base_born = base.incarnation.born
    if born is None or base_born is None:
        # Nothing to compare; mtimes do not tell, as each pass renews them.
        return True
    return born >= base_born


def _stored(base_file: str, base: statuses.Status) -> str | None:
    try:
        fd = statuses.open_regular(names.sidecar_name(base_file))
    except OSError as error:
        # Nothing there, or something that is no file.
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise
    with os.fdopen(fd, 'rb') as file:
        sidecar = statuses.status_of_fd(fd)
        data = file.read(_SIDECAR_LIMIT + 1)
    text = data.decode('ascii', 'replace').strip().lower()
    sound = len(data) <= _SIDECAR_LIMIT and _DIGEST.fullmatch(text)
    return text if sound and _born_after(sidecar, base) else None


def _check_unreplaced(base_file: str, opened: statuses.Status) -> None:
    try:
        now = statuses.status_of(base_file).incarnation
    except FileNotFoundError:
        now = None
    if now != opened.incarnation:
        raise errors.Changed(f'{base_file} was replaced while it was read')


def read_stored_checksum(base_file: str) -> str | None:
    """Read the stored checksum of a base file.

    :param base_file: path of the base file
    :returns: 40 hex digits, or None where there is no checksum: no file, one
        that holds anything else, or one that is older than the base file and
        so was another's
    :raises OSError: it, or the base file, cannot be read
    """
    try:
        base = statuses.status_of(base_file)
    except FileNotFoundError:
        return None
    return _stored(base_file, base)


def sidecar_key(base_file: str) -> statuses.Key | None:
    """Say which file holds the stored checksum, if there is one."""
    try:
        return statuses.status_of(
            names.sidecar_name(base_file)
        ).incarnation.key
    except OSError:
        return None


def store_checksum(base_file: str, digest: str) -> None:
    """Write a known digest as the stored checksum of a base file.

    :raises OSError: it could not be written
    """
    layout = layouts.Layout.around(base_file)
    publish.publish(
        names.sidecar_name(base_file), digest.encode(), layout.temporary
    )


def _known(base_file: str, base: statuses.Status) -> str | None:
    """Give the digest that the ledger of this very file has."""
    layout = layouts.Layout.around(base_file)
    try:
        ledger = ledgers.load(
            layout, os.path.basename(base_file), base.incarnation
        )
    except errors.Damaged:
        return None
    if ledger and ledger.sha1 is None and ledger.bad:
        raise errors.KnownDamage(f'{base_file} has damage that is known')
    return ledger.sha1 if ledger else None


def write_stored_checksum(
    base_file: str, progress: Progress | None = None
) -> str:
    """Create the stored checksum of a base file if it has none.

    Something that is not a checksum is replaced, a checksum never is, be it
    right or wrong. One that was lost comes back as it was, if the manager
    remembers it; otherwise the whole file is read.

    :param base_file: path of the base file
    :returns: the stored checksum, 40 hex digits
    :raises nova_imagecache.errors.Changed: the file was replaced while it was
        read; nothing was stored
    :raises nova_imagecache.errors.Written: it was written to while it was
        read; nothing was stored
    :raises nova_imagecache.errors.KnownDamage: a scrub has found damage in
        it; nothing was stored
    :raises OSError: the file cannot be read, or the checksum not written
    """
    fd = statuses.open_regular(base_file)
    try:
        opened = statuses.status_of_fd(fd)
        stored = _stored(base_file, opened)
        if stored is not None:
            return stored
        digest = _known(base_file, opened) or settled_digest(
            fd, progress=progress
        )
        _check_unreplaced(base_file, opened)
        store_checksum(base_file, digest)
        try:
            _check_unreplaced(base_file, opened)
        except errors.Changed:
            # It would stand beside a file that it is not of.
            os.unlink(names.sidecar_name(base_file))
            raise
    finally:
        os.close(fd)
    return digest


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
        fd = statuses.open_regular(base_file)
    except FileNotFoundError:
        return None
    try:
        opened = statuses.status_of_fd(fd)
        stored = _stored(base_file, opened)
        if stored is None:
            return None
        digest = settled_digest(fd, [stored], progress)
        _check_unreplaced(base_file, opened)
    finally:
        os.close(fd)
    return digest == stored
