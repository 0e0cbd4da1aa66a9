# SPDX-License-Identifier: Apache-2.0

"""What the image service says of an image, and what that is good for."""

import dataclasses
import hashlib
import json
import re
from typing import Any

from nova_imagecache.heal import sources

State = sources.State

# What the image service may use (os_hash_algo). MD5 is no evidence.
_ALGORITHMS = ('sha512', 'sha256', 'sha384', 'sha3_256', 'sha3_512',
               'blake2b', 'blake2s')  # fmt: skip

# Whose bytes are those of the base file.
_AS_THEY_ARE = ('raw', 'iso', 'ami', 'aki', 'ari')


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """What the image service says of an image.

    :ivar size: bytes in its data
    :ivar algorithm: of its digest, as hashlib calls that; None if it has none
    :ivar digest: of all of its data, in hex digits
    :ivar stores: those that have it, where there are several
    :ivar name: what people call it, as they have it
    """

    id: str
    status: str
    disk_format: str
    size: int
    algorithm: str | None = None
    digest: str | None = None
    stores: tuple[str, ...] = ()
    name: str = ''


def parse(uuid: str, body: bytes) -> Image:
    """Read the record of an image, as far as that is of use here."""
    try:
        record = json.loads(body)
        size = record.get('size')
        stores = str(record.get('stores') or '').split(',')
        algorithm, digest = (
            record.get(key) for key in ('os_hash_algo', 'os_hash_value')
        )
        if not (isinstance(size, int) and 0 <= size < 2**62):
            # As while it is uploaded.
            size = 0
        return Image(
            uuid,
            str(record['status']),
            str(record.get('disk_format')),
            size,
            str(algorithm) if algorithm and digest else None,
            str(digest).lower() if algorithm and digest else None,
            tuple(
                store
                for store in stores
                if re.fullmatch('[A-Za-z0-9._-]+', store)
            ),
            str(record.get('name') or ''),
        )
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise sources.Unavailable(
            State.FAILED,
            'what answers is no image service: see [glance] of nova.conf',
        ) from None


def hasher(image: Image) -> Any:
    """Begin the digest that all of an image should have.

    :returns: None where it has none that tells anything
    """
    if image.algorithm not in _ALGORITHMS:
        return None
    return hashlib.new(image.algorithm, usedforsecurity=False)


def is_as_it_is(image: Image, base: sources.Base) -> bool:
    """Whether the bytes of a base file are those of its image.

    They are if it was not converted: to raw, which is mostly of another size.
    """
    return image.disk_format in _AS_THEY_ARE or image.size == base.size
