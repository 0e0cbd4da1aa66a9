# SPDX-License-Identifier: Apache-2.0

"""The digest of each block of one file."""

from nova_imagecache.content import digests

#: Bytes in a block. Small enough to say which part of a file is bad and to
#: repair it alone, large enough that reading it is sequential for any disk.
BLOCK_SIZE = 4 * 1024 * 1024

#: So that what is kept in memory stays below a few MiB, whatever the file.
MOST_BLOCKS = 65536

_UNKNOWN = ord('?')
_ZEROS = ord('0')
_DATA = ord('#')


def block_size_for(size: int) -> int:
    """Give the block size for a file: 4 MiB, and more above 256 GiB.

    :param size: bytes in the file
    """
    block_size = BLOCK_SIZE
    while block_size * MOST_BLOCKS < size:
        block_size *= 2
    return block_size


class Blocks:
    """The digest of each block of one file, as far as it is known.

    Encoded, it is a byte per block (``?`` unknown, ``0`` nothing but zeros,
    ``#`` anything else), and then the digests of the last kind in order. Only
    content decides what is zeros: a file copied without its holes is the same
    file.

    :ivar algorithm: one of :data:`digests.ALGORITHMS`
    :ivar size: bytes in the file
    :ivar count: number of blocks; the last one may be short
    """

    def __init__(self, algorithm: str, size: int, block_size: int) -> None:
        """Know nothing yet."""
        self.algorithm = algorithm
        self.size = size
        self.block_size = block_size
        self.count = -(-size // block_size)
        self._width = digests.new(algorithm).digest_size
        self._kinds = bytearray([_UNKNOWN]) * self.count
        self._digests = bytearray(self.count * self._width)

    @classmethod
    def decode(
        cls, algorithm: str, size: int, block_size: int, data: bytes
    ) -> 'Blocks':
        """Read what :meth:`encode` gave; nothing stands for nothing known.

        :raises ValueError: it is not of such a file
        """
        self = cls(algorithm, size, block_size)
        if not data:
            return self
        kinds = data[: self.count]
        hashed = [index for index, kind in enumerate(kinds) if kind == _DATA]
        if len(data) != self.count + len(hashed) * self._width or set(
            kinds
        ) - {_UNKNOWN, _ZEROS, _DATA}:
            raise ValueError('these are not the digests of its blocks')
        self._kinds[:] = kinds
        start = self.count
        for index in hashed:
            self._slot(index)[:] = data[start : start + self._width]
            start += self._width
        return self

    def encode(self) -> bytes:
        """Give all digests, for the ledger."""
        hashed = (
            self._slot(index)
            for index, kind in enumerate(self._kinds)
            if kind == _DATA
        )
        return b''.join([self._kinds, *hashed])

    @property
    def unknown(self) -> int:
        """The number of blocks whose digest is not known."""
        return self._kinds.count(_UNKNOWN)

    def holds_data(self, index: int) -> bool:
        """Whether a block is known, and is not nothing but zeros."""
        return self._kinds[index] == _DATA

    def length(self, index: int) -> int:
        """Give the number of bytes in a block: 0 past the end of the file."""
        start = index * self.block_size
        return max(0, min(self.block_size, self.size - start))

    def get(self, index: int) -> bytes | None:
        """Give the digest of a block, or None where it is not known."""
        kind = self._kinds[index]
        if kind == _UNKNOWN:
            return None
        if kind == _ZEROS:
            return digests.of_zeros(self.algorithm)
        return bytes(self._slot(index))

    def put(self, index: int, digest: bytes) -> None:
        """Note the digest of a block.

        :param digest: of zeros, see :func:`digests.of_zeros`
        """
        zeros = digests.of_zeros(self.algorithm)
        self._kinds[index] = _ZEROS if digest == zeros else _DATA
        self._slot(index)[:] = digest

    def _slot(self, index: int) -> memoryview:
        start = index * self._width
        return memoryview(self._digests)[start : start + self._width]
