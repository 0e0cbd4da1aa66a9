# SPDX-License-Identifier: Apache-2.0

"""The digests of blocks."""

from collections.abc import Callable
import functools
import hashlib
from typing import Protocol

import xxhash

_ZEROS = memoryview(bytes(1024 * 1024))


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


def new(algorithm: str) -> Hash:
    """Begin a digest.

    :raises KeyError: there is no such algorithm
    """
    return _FACTORIES[algorithm]()


def add_zeros(digest: Hash, length: int) -> None:
    """Add so many zero bytes, as a hole reads."""
    while length > 0:
        part = min(length, len(_ZEROS))
        digest.update(_ZEROS[:part])
        length -= part


@functools.lru_cache(maxsize=64)
def of_zeros(algorithm: str, length: int) -> bytes:
    """Give the digest of so many zero bytes."""
    digest = new(algorithm)
    add_zeros(digest, length)
    return digest.digest()
