# SPDX-License-Identifier: Apache-2.0

"""Stored checksums, in the format of 2012.

``<base file>.sha1`` holds 40 hex digits: what ``sha1sum`` prints in its first
column, and nothing else. Nova's first image cache manager wrote it so.
"""

import errno
import os
import re

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import publish
from nova_imagecache import names

_DIGEST = re.compile(r'[0-9a-f]{40}')
# A digest and some white space; whatever is longer is no checksum.
_SIDECAR_LIMIT = 64


def _born_after(sidecar: identity.Stat, base: identity.Stat) -> bool:
    born = sidecar.incarnation.born
    base_born = base.incarnation.born
    if born is None or base_born is None:
        # Nothing to compare; mtimes do not tell, as each pass renews them.
        return True
    return born >= base_born


def load(path: str, base: identity.Stat) -> str | None:
    """Read the stored checksum of a base file.

    :param path: of the sidecar
    :param base: the base file, which is no younger than its checksum
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
        stat = identity.stat_of_fd(fd)
        data = file.read(_SIDECAR_LIMIT + 1)
    text = data.decode('ascii', 'replace').strip().lower()
    sound = len(data) <= _SIDECAR_LIMIT and _DIGEST.fullmatch(text)
    return text if sound and _born_after(stat, base) else None


def save(file: base_file.BaseFile, digest: str) -> None:
    """Write a known digest. The caller holds the file's guard.

    :raises OSError: it could not be written
    """
    publish.publish(file.sidecar, digest.encode(), file.layout.temporary)


def key_of(file: base_file.BaseFile) -> identity.Key | None:
    """Say which file holds the stored checksum, if there is one."""
    try:
        return identity.stat_of(file.sidecar).incarnation.key
    except OSError:
        return None


def read_stored_checksum(base_file: str) -> str | None:
    """Read the stored checksum of a base file.

    :param base_file: path of the base file
    :returns: 40 hex digits, or None where there is no checksum: no file, one
        that holds anything else, or one that is older than the base file and
        so was another's
    :raises OSError: it, or the base file, cannot be read
    """
    try:
        base = identity.stat_of(base_file)
    except FileNotFoundError:
        return None
    return load(names.sidecar_name(base_file), base)
