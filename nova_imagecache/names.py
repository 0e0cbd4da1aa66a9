# SPDX-License-Identifier: Apache-2.0

"""What the file names in an image cache mean.

The patterns are those of Nova: ``_scan_base_images`` and
``_find_base_file`` in nova/virt/libvirt/imagecache.py, the ``swap_`` and
``ephemeral_`` names in nova/virt/libvirt/driver.py, ``.part`` and
``.converted`` in nova/virt/images.py.
"""

import enum
import hashlib
import os
import re

#: What :func:`sidecar_name` appends.
SIDECAR_SUFFIX = '.sha1'

#: The directory in the cache that holds everything of ours but sidecars. A
#: name like ``<40 hex>_...`` would be a resized image to stock Nova, which
#: would delete it.
OWN_DIRECTORY = '.imagecache'


class Kind(enum.StrEnum):
    """What a file in the cache is, judged by its name alone."""

    ORIGINAL = 'original'
    RESIZED = 'resized'
    LEGACY = 'legacy'
    SWAP = 'swap'
    EPHEMERAL = 'ephemeral'
    LEFTOVER = 'leftover'
    OTHER = 'other'

    @property
    def is_base(self) -> bool:
        """Whether guests may read files of this kind."""
        return self not in (Kind.LEFTOVER, Kind.OTHER)

    @property
    def is_image(self) -> bool:
        """Whether such a file was made from an image of the image service."""
        return self in (Kind.ORIGINAL, Kind.RESIZED, Kind.LEGACY)


_FINGERPRINT_LENGTH = hashlib.sha1(usedforsecurity=False).digest_size * 2

_BASE_PATTERNS = (
    (Kind.ORIGINAL, re.compile(r'[0-9a-f]{40}')),
    (Kind.RESIZED, re.compile(r'[0-9a-f]{40}_[0-9]+')),
    (Kind.LEGACY, re.compile(r'[0-9a-f]{40}_sm')),
    (Kind.SWAP, re.compile(r'swap_[0-9]+')),
    (Kind.EPHEMERAL, re.compile(r'ephemeral_[0-9]+_[0-9a-f]{7}')),
)

_LEFTOVER_PATTERNS = (
    re.compile(r'(?P<base>.+)\.(part|converted)'),
    # rsync's temporary file, which a killed copy from a peer leaves; and ours,
    # with what a driver that was fetching to it may have added.
    re.compile(r'\.(?P<base>.+)\.[A-Za-z0-9]{6}(\.part|\.converted)*'),
)

# When it was moved there, in seconds since the epoch (decision 0043).
_TRASH_SUFFIX = re.compile(r'[0-9a-f]{8}')


def _base_kind(name: str) -> Kind | None:
    for kind, pattern in _BASE_PATTERNS:
        if pattern.fullmatch(name):
            return kind
    return None


def leftover_of(name: str) -> str | None:
    """Give the base file whose fetch left this file behind, if one did."""
    for pattern in _LEFTOVER_PATTERNS:
        match = pattern.fullmatch(name)
        if match and _base_kind(match['base']):
            return match['base']
    return None


def sidecar_of(name: str) -> str | None:
    """Give the base file whose checksum this file holds, if it is one."""
    base = name.removesuffix(SIDECAR_SUFFIX)
    return base if base != name and _base_kind(base) else None


def sidecar_name(base_file: str) -> str:
    """Give the name, or path, of the file with a base file's checksum."""
    return base_file + SIDECAR_SUFFIX


def kind_of(name: str) -> Kind:
    """Say what a file in the cache is.

    A checksum is a leftover here: the scan asks only about one whose base
    file is gone.
    """
    kind = _base_kind(name)
    if kind is not None:
        return kind
    if leftover_of(name) or sidecar_of(name):
        return Kind.LEFTOVER
    return Kind.OTHER


def trashed_name(name: str) -> str | None:
    """Give the base file that has this name in the trash, if one has."""
    base, dot, suffix = name.rpartition('.')
    if dot and _TRASH_SUFFIX.fullmatch(suffix) and _base_kind(base):
        return base
    return None


def original(name: str) -> str:
    """Give the name that a file in the trash had as a base file.

    :raises ValueError: no file in the trash has such a name
    """
    base = trashed_name(name)
    if base is None:
        raise ValueError(name)
    return base


def trash_name(name: str, moved: float) -> str:
    """Give the name in the trash of a base file.

    :param moved: when it was moved there, in seconds since the epoch
    """
    return f'{name}.{int(moved) & 0xFFFFFFFF:08x}'


def trashed_at(name: str) -> int:
    """Say when a file in the trash was moved there, by its name.

    :returns: seconds since the epoch, of a clock that may have been wrong
    """
    return int(name.rpartition('.')[2], 16)


def lock_name(name: str) -> str:
    """Give the base file under whose lock a file of the cache is changed."""
    return leftover_of(name) or sidecar_of(name) or name


def fingerprint(name: str) -> str:
    """Give the image's part of the name of a file made from an image."""
    return name[:_FINGERPRINT_LENGTH]


def get_cache_fname(image_id: str) -> str:
    """Give the name of the base file of an image.

    As nova/virt/libvirt/imagecache.py, ``get_cache_fname``.
    """
    return hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest()


def printable(text: str) -> str:
    r"""Give a name that is safe to print and to log.

    File names are bytes: those that are not UTF-8, and control characters,
    come out as escapes (``\xe9``, ``\n``).
    """
    decoded = os.fsencode(text).decode('utf-8', 'backslashreplace')
    return ''.join(
        char if char.isprintable() else char.encode('unicode_escape').decode()
        for char in decoded
    )
