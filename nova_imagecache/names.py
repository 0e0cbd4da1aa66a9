# SPDX-License-Identifier: Apache-2.0

"""What the file names in an image cache mean.

The patterns are those of Nova: ``_scan_base_images`` and
``_find_base_file`` in nova/virt/libvirt/imagecache.py, the ``swap_`` and
``ephemeral_`` names in nova/virt/libvirt/driver.py, ``.part`` and
``.converted`` in nova/virt/images.py. Those of rsync are of ``get_tmpname`` in
its receiver.c.
"""

import enum
import functools
import hashlib
import os
import re
import secrets
import stat

#: What :func:`sidecar_name` appends.
SIDECAR_SUFFIX = '.sha1'

#: The directory in the cache that holds everything of ours but sidecars. A
#: name like ``<40 hex>_...`` would be a resized image to stock Nova, which
#: would delete it.
OWN_DIRECTORY = '.imagecache'


class Kind(enum.StrEnum):
    """What a file in the cache is, see :func:`kind_of`."""

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
        return self not in _NO_BASES

    @property
    def is_image(self) -> bool:
        """Whether such a file was made from an image of the image service."""
        return self in (Kind.ORIGINAL, Kind.RESIZED, Kind.LEGACY)


_NO_BASES = (Kind.LEFTOVER, Kind.OTHER)

_FINGERPRINT_LENGTH = hashlib.sha1(usedforsecurity=False).digest_size * 2

_BASE_PATTERNS = (
    (Kind.ORIGINAL, re.compile(r'[0-9a-f]{40}')),
    (Kind.RESIZED, re.compile(r'[0-9a-f]{40}_[0-9]+')),
    (Kind.LEGACY, re.compile(r'[0-9a-f]{40}_sm')),
    (Kind.SWAP, re.compile(r'swap_[0-9]+')),
    (Kind.EPHEMERAL, re.compile(r'ephemeral_[0-9]+_[0-9a-f]{7}')),
)

# What a driver that was fetching to a path may have added to it.
_ADDED = r'(\.part|\.converted)'

# Names that nobody else gives to a file (decision 0074).
_LEFTOVER_PATTERNS = (
    re.compile(rf'(?P<base>.+){_ADDED}'),
    # What we had it write to, and what rsync makes of that name.
    re.compile(
        r'\.{1,2}(?P<base>[^.]+)\.imagecache-[0-9a-f]{6}'
        rf'{_ADDED}*(\.[A-Za-z0-9]{{6}})?'
    ),
    # What earlier releases had it write to.
    re.compile(rf'\.(?P<base>.+)\.[0-9a-f]{{6}}{_ADDED}+'),
)

# Of rsync's temporary file, which a killed copy from a peer leaves; and of
# what people call a copy of theirs. So its permissions count as well.
_RSYNC_PATTERN = re.compile(r'\.(?P<base>.+)\.(?P<random>[A-Za-z0-9]{6})')
_RSYNC_LEAVES_OUT = stat.S_IRWXG | stat.S_IRWXO

# When it was moved there, in seconds since the epoch (decision 0043).
_DIGITS = re.compile(r'([0-9a-f]{40})((?:[_.].*)?)')

# As much as of a commit.
_LEAST_DIGITS = 4

_TRASH_SUFFIX = re.compile(r'[0-9a-f]{8}')


# Asked several times in a pass of each file in the cache and of what each disk
# of a guest names; and of these disks, which have the same few names.
_remembering = functools.lru_cache(maxsize=32768)


# Asked with what a longer name begins with, too.
@functools.lru_cache(maxsize=1024)
def _base_kind(name: str) -> Kind | None:
    for kind, pattern in _BASE_PATTERNS:
        if pattern.fullmatch(name):
            return kind
    return None


def _base_in(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.fullmatch(name)
    return match['base'] if match and _base_kind(match['base']) else None


@_remembering
def leftover_of(name: str) -> str | None:
    """Give the base file whose fetch may have left this file behind.

    That it may have is not that it has, see :func:`kind_of`.
    """
    for pattern in (*_LEFTOVER_PATTERNS, _RSYNC_PATTERN):
        base = _base_in(pattern, name)
        if base is not None:
            return base
    return None


def _is_rsyncs(name: str, mode: int) -> bool:
    if not stat.S_ISREG(mode) or mode & _RSYNC_LEAVES_OUT:
        return False
    match = _RSYNC_PATTERN.fullmatch(name)
    return (
        match is not None
        and _base_kind(match['base']) is not None
        # Of 62 characters each: what has no capital is not likely its.
        and match['random'] != match['random'].lower()
    )


def staged_name(base_file: str) -> str:
    """Give a new name to write to what is to become a base file."""
    return f'.{base_file}.imagecache-{secrets.token_hex(3)}'


def sidecar_of(name: str) -> str | None:
    """Give the base file whose checksum this file holds, if it is one."""
    base = name.removesuffix(SIDECAR_SUFFIX)
    return base if base != name and _base_kind(base) else None


def sidecar_name(base_file: str) -> str:
    """Give the name, or path, of the file with a base file's checksum."""
    return base_file + SIDECAR_SUFFIX


@_remembering
def _kind_by_name(name: str) -> Kind:
    kind = _base_kind(name)
    if kind is not None:
        return kind
    certain = any(_base_in(each, name) for each in _LEFTOVER_PATTERNS)
    return Kind.LEFTOVER if certain or sidecar_of(name) else Kind.OTHER


def kind_of(name: str, mode: int = 0) -> Kind:
    """Say what a file in the cache is.

    A checksum is a leftover here: the scan asks only about one whose base
    file is gone.

    :param mode: its type and permissions, without which no file is rsync's
        (decision 0074)
    """
    kind = _kind_by_name(name)
    if kind is Kind.OTHER and _is_rsyncs(name, mode):
        return Kind.LEFTOVER
    return kind


@_remembering
def is_of_a_cache(name: str) -> bool:
    """Whether a base file may have this name, or what its fetch leaves."""
    return _kind_by_name(name).is_base or leftover_of(name) is not None


def trashed_name(name: str) -> str | None:
    """Give the name in the cache of what has this name in the trash.

    None if nothing has.
    """
    before, _dot, suffix = name.rpartition('.')
    if not _TRASH_SUFFIX.fullmatch(suffix):
        return None
    if _base_kind(before) or leftover_of(before) or sidecar_of(before):
        return before
    return None


def original(name: str) -> str:
    """Give the name in the cache that a file in the trash had.

    :raises ValueError: no file in the trash has such a name
    """
    base = trashed_name(name)
    if base is None:
        raise ValueError(name)
    return base


def trash_name(name: str, moved: float) -> str:
    """Give the name in the trash of a file in the cache.

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


def abbreviated(name: str, digits: int = 12) -> str:
    """Give the first digits of a name that has 40; the rest of it stays.

    Such as the size of a resized file, and what tells one in the trash.
    """
    found = _DIGITS.fullmatch(name)
    return f'{found[1][:digits]}{found[2]}' if found else name


def is_abbreviated(text: str, name: str) -> bool:
    """Whether a text is a name, but for some of the last of its 40 digits."""
    digits = len(text) - len(name) + _FINGERPRINT_LENGTH
    return digits >= _LEAST_DIGITS and abbreviated(name, digits) == text


def printable(text: str) -> str:
    r"""Give a name that is safe to print and to log.

    File names are bytes: those that are not UTF-8, and control characters,
    come out as escapes (``\xe9``, ``\n``).
    """
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        # What others say may be no text at all.
        data = text.encode('utf-8', 'backslashreplace')
    decoded = data.decode('utf-8', 'backslashreplace')
    return ''.join(
        char if char.isprintable() else char.encode('unicode_escape').decode()
        for char in decoded
    )
