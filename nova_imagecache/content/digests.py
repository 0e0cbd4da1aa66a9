# SPDX-License-Identifier: Apache-2.0

"""The digests of blocks."""

from collections.abc import Callable
import functools
import hashlib
from typing import Protocol

import xxhash

_ZEROS = bytes(1024 * 1024)
# Enough to see of most data that it is not all zeros.
_HEAD = 64


class Hash(Protocol):
    """What the hashes of hashlib and of xxhash have in common."""

    @property
    def digest_size(self) -> int:
        """Bytes in the digest."""
        ...

    def update(self, data: memoryview, /) -> None:
        """Add some bytes."""
        ...

    def digest(self) -> bytes:
        """Give the digest of all bytes added."""
        ...


# Decision 0015.
_FACTORIES: dict[str, Callable[[], Hash]] = {
    'xxh3_128': xxhash.xxh3_128,
    'blake2b': functools.partial(hashlib.blake2b, digest_size=32),
    'sha256': functools.partial(hashlib.sha256, usedforsecurity=False),
}

#: Names of the algorithms, the default first.
ALGORITHMS = tuple(_FACTORIES)

#: Those that nobody can find other data for; the others find decay alone.
CRYPTOGRAPHIC = frozenset({'blake2b', 'sha256'})

#: What is computed beside one that is not cryptographic (decision 0091).
STRONG = 'blake2b'


def new(algorithm: str) -> Hash:
    """Begin a digest.

    :raises KeyError: there is no such algorithm
    """
    return _FACTORIES[algorithm]()


def of(algorithm: str, data: bytes | memoryview) -> bytes:
    """Give the digest of a block, as :mod:`nova_imagecache.scrub.hashing`."""
    view = memoryview(data)
    if are_zeros(view):
        return of_zeros(algorithm)
    digest = new(algorithm)
    digest.update(view)
    return digest.digest()


def add_zeros(digest: Hash, length: int) -> None:
    """Add so many zero bytes, as a hole reads."""
    zeros = memoryview(_ZEROS)
    while length > 0:
        part = min(length, len(zeros))
        digest.update(zeros[:part])
        length -= part


def of_zeros(algorithm: str) -> bytes:
    """Give what stands for the digest of a block of zeros.

    It is none of the algorithm: of a hole that is large enough, that would
    take hours.
    """
    return bytes(_width(algorithm))


@functools.cache
def _width(algorithm: str) -> int:
    return new(algorithm).digest_size


def are_zeros(data: memoryview) -> bool:
    """Whether some data is nothing but zeros."""
    if any(data[:_HEAD]):
        return False
    return all(
        bytes(part) == _ZEROS[: len(part)]
        for part in (
            data[start : start + len(_ZEROS)]
            for start in range(0, len(data), len(_ZEROS))
        )
    )
