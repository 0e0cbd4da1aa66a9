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
_STRONG = ord('@')
_HASHED = (_DATA, _STRONG)

_STRONG_WIDTH = digests.new(digests.STRONG).digest_size


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
    ``#`` anything else, ``@`` the same with a strong digest beside), then the
    digests of the last two kinds in order, and then the strong digests in
    order. Only content decides what is zeros: a file copied without its holes
    is the same file.

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
        self._strong: dict[int, bytes] = {}

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
        hashed = [index for index, kind in enumerate(kinds) if kind in _HASHED]
        strong = [index for index in hashed if kinds[index] == _STRONG]
        if set(kinds) - {_UNKNOWN, _ZEROS, *_HASHED} or len(data) != (
            self.count
            + len(hashed) * self._width
            + len(strong) * _STRONG_WIDTH
        ):
            raise ValueError('these are not the digests of its blocks')
        self._kinds[:] = kinds
        start = self.count
        for index in hashed:
            self._slot(index)[:] = data[start : start + self._width]
            start += self._width
        for index in strong:
            self._strong[index] = bytes(data[start : start + _STRONG_WIDTH])
            start += _STRONG_WIDTH
        return self

    def encode(self) -> bytes:
        """Give all digests, for the ledger."""
        hashed = (
            self._slot(index)
            for index, kind in enumerate(self._kinds)
            if kind in _HASHED
        )
        strong = (digest for _index, digest in sorted(self._strong.items()))
        return b''.join([self._kinds, *hashed, *strong])

    @property
    def unknown(self) -> int:
        """The number of blocks whose digest is not known."""
        return self._kinds.count(_UNKNOWN)

    def holds_data(self, index: int) -> bool:
        """Whether a block is known, and is not nothing but zeros."""
        return self._kinds[index] in _HASHED

    @property
    def is_cryptographic(self) -> bool:
        """Whether its digests need no strong ones beside them."""
        return self.algorithm in digests.CRYPTOGRAPHIC

    @property
    def weak(self) -> frozenset[int]:
        """The blocks that are known, but not by a cryptographic digest."""
        if self.is_cryptographic:
            return frozenset()
        return frozenset(
            index for index, kind in enumerate(self._kinds) if kind == _DATA
        )

    def matches(
        self, index: int, data: bytes | memoryview, cryptographic: bool
    ) -> bool:
        """Whether some data is what a block should hold.

        :param data: all of the block
        :param cryptographic: whether only a cryptographic digest counts, as
            for what comes over a network: where there is none, nothing
            matches
        """
        expected = self.get(index)
        if expected is None or len(data) != self.length(index):
            return False
        if cryptographic and index in self.weak:
            return False
        strong = self._strong.get(index)
        return digests.of(self.algorithm, data) == expected and (
            strong is None or digests.of(digests.STRONG, data) == strong
        )

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

    def put(
        self, index: int, digest: bytes, strong: bytes | None = None
    ) -> None:
        """Note the digest of a block.

        :param digest: of zeros, see :func:`digests.of_zeros`
        :param strong: the strong one, where that was computed as well
        """
        self._slot(index)[:] = digest
        self._strong.pop(index, None)
        if digest == digests.of_zeros(self.algorithm):
            self._kinds[index] = _ZEROS
        elif strong is None or self.is_cryptographic:
            self._kinds[index] = _DATA
        else:
            self._kinds[index] = _STRONG
            self._strong[index] = strong

    def _slot(self, index: int) -> memoryview:
        start = index * self._width
        return memoryview(self._digests)[start : start + self._width]
