# SPDX-License-Identifier: Apache-2.0

"""Stored checksums, in the format of 2012.

``<base file>.sha1`` holds 40 hex digits: what ``sha1sum`` prints in its first
column, and nothing else. Nova's first image cache manager wrote it so.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import functools
import os
import re

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import publish
from nova_imagecache import names

_DIGEST = re.compile(r'[0-9a-f]{40}')
# Of whose holes no SHA-1 is made: more than that, and so many times the data.
# Whoever may upload some KiB may have a base file of some PiB made of it.
_MOST_HOLES = 64 * 1024**3
_MOST_HOLES_FACTOR = 64
# A digest and some white space; whatever is longer is no checksum.
_SIDECAR_LIMIT = 64


def load(path: str) -> str | None:
    """Read a stored checksum, of whatever file.

    :param path: of the sidecar
    :returns: 40 hex digits, or None where there is no checksum
    :raises OSError: it cannot be read
    """
    try:
        fd = identity.open_regular(path)
    except OSError as error:
        # Nothing there, or something that is no file.
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise
    with os.fdopen(fd, 'rb') as file:
        data = file.read(_SIDECAR_LIMIT + 1)
    text = data.decode('ascii', 'replace').strip().lower()
    sound = len(data) <= _SIDECAR_LIMIT and _DIGEST.fullmatch(text)
    return text if sound else None


def is_too_sparse(base: identity.Stat) -> bool:
    """Whether the holes of a base file dwarf its data.

    A checksum that it has is compared all the same (decision 0081).
    """
    holes = base.size - base.allocated
    return holes > _MOST_HOLES + _MOST_HOLES_FACTOR * base.allocated


def is_older(sidecar: str, base: identity.Stat) -> bool:
    """Whether a stored checksum is older than the base file beside it.

    Then it was made of an earlier file of that name.

    :param sidecar: its path
    """
    try:
        born = identity.stat_of(sidecar).incarnation.born
    except OSError:
        return False
    base_born = base.incarnation.born
    # Mtimes do not tell, as each pass renews them.
    return born is not None and base_born is not None and born < base_born


def save(file: base_file.BaseFile, digest: str) -> None:
    """Write a known digest. The caller holds the file's guard.

    :raises OSError: it could not be written
    """
    with prepared(file, digest) as put:
        put()


@contextlib.contextmanager
def prepared(
    file: base_file.BaseFile, digest: str
) -> Iterator[Callable[[], None]]:
    """Write a known digest that is yet to be published.

    :returns: publishes it. Whoever calls that holds the file's guard.
    :raises OSError: it was not written, or not published
    """
    temporary = file.layout.temporary
    with publish.prepared(digest.encode(), temporary) as put:
        yield functools.partial(put, file.sidecar)


def remove(file: base_file.BaseFile) -> None:
    """Remove a stored checksum. The caller holds the file's guard.

    :raises OSError: it was not removed
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file.sidecar)


def read_stored_checksum(base_file: str) -> str | None:
    """Read the stored checksum of a base file.

    :param base_file: path of the base file
    :returns: 40 hex digits, or None where there is no checksum: no file, one
        that holds anything else, or one that is older than the base file and
        so was another's
    :raises OSError: it, or the base file, cannot be read
    """
    sidecar = names.sidecar_name(base_file)
    try:
        base = identity.stat_of(base_file)
    except FileNotFoundError:
        return None
    return None if is_older(sidecar, base) else load(sidecar)
