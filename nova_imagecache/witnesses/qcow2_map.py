# SPDX-License-Identifier: Apache-2.0

"""Which parts of a qcow2 disk are its own, and which are its backing file's.

Read from the tables in the file, as docs/interop/qcow2.txt in QEMU has them,
and not by ``qemu-img map`` (decision 0026).
"""

from collections.abc import Iterator
import dataclasses
import enum
import os
import struct

_MAGIC = b'QFI\xfb'
_HEADER = struct.Struct('>4sI12xIQIIQ')
_FEATURES = struct.Struct('>72xQ')
_EXTENDED_L2 = 1 << 4

_ENTRY = struct.Struct('>Q')
_LONG_ENTRY = struct.Struct('>QQ')
_OFFSET = 0x00FFFFFFFFFFFE00
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
_ZERO = 1 << 0

_SUBCLUSTERS = 32


class Effect(enum.StrEnum):
    """What becomes of a part of a base file in a guest.

    READS_THROUGH: the guest reads it there.

    COPIED: the guest's disk has its own copy. A write elsewhere in the same
    cluster copies what the base file held at that moment, so it may carry the
    damage, also after a repair.

    ZEROED: the guest reads zeros instead.

    UNKNOWN: it cannot be told.
    """

    READS_THROUGH = 'reads through'
    COPIED = 'copied'
    ZEROED = 'zeroed'
    UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True)
class Extent:
    """Bytes of a disk that fare alike.

    :ivar start: offset of the first
    :ivar end: offset after the last
    """

    start: int
    end: int
    effect: Effect


class NoMap(Exception):
    """The file is no qcow2 disk whose tables can be read."""


def _read(fd: int, offset: int, length: int) -> bytes:
    try:
        data = os.pread(fd, length, offset)
    except OverflowError:
        data = b''
    if len(data) < length:
        raise NoMap('a table is cut short')
    return data


class Map:
    """The tables of one open qcow2 disk."""

    def __init__(self, fd: int) -> None:
        """Read the header.

        :raises NoMap: there is none
        :raises OSError: it cannot be read
        """
        block = os.pread(fd, 512, 0)
        if len(block) < _HEADER.size or not block.startswith(_MAGIC):
            raise NoMap('it is no qcow2 disk')
        _magic, version, bits, size, _crypt, l1_size, l1 = _HEADER.unpack_from(
            block
        )
        if version not in (2, 3) or not 9 <= bits <= 21:
            raise NoMap('its version or cluster size is unknown')
        features = 0
        if version == 3 and len(block) >= _FEATURES.size:
            (features,) = _FEATURES.unpack_from(block)
        self._fd = fd
        self._size = size
        self._cluster = 1 << bits
        self._l1, self._l1_size = l1, l1_size
        self._extended = bool(features & _EXTENDED_L2)
        self._width = 16 if self._extended else 8

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """Say what becomes of a range; what the guest cannot see is left out.

        :raises NoMap: the tables contradict themselves
        :raises OSError: they cannot be read
        """
        end = min(end, self._size)
        position = start - start % self._cluster
        while position < end:
            per_table = self._cluster // self._width
            index = position // self._cluster
            count = min(
                per_table - index % per_table,
                -(-(end - position) // self._cluster),
            )
            for extent in self._entries(index, count):
                first, last = max(extent.start, start), min(extent.end, end)
                if first < last:
                    yield Extent(first, last, extent.effect)
            position += count * self._cluster

    def _entries(self, index: int, count: int) -> Iterator[Extent]:
        """Read some entries of one table."""
        per_table = self._cluster // self._width
        table = self._l2_table(index // per_table)
        start = index * self._cluster
        if not table:
            end = start + count * self._cluster
            yield Extent(start, end, Effect.READS_THROUGH)
            return
        offset = table + index % per_table * self._width
        entries = _read(self._fd, offset, count * self._width)
        layout = _LONG_ENTRY if self._extended else _ENTRY
        for entry in layout.iter_unpack(entries):
            yield from self._cluster_extents(start, *entry)
            start += self._cluster

    def _cluster_extents(
        self, start: int, entry: int, bitmap: int | None = None
    ) -> Iterator[Extent]:
        if bitmap is None or entry & _COMPRESSED:
            yield Extent(start, start + self._cluster, _effect(entry))
            return
        size = self._cluster // _SUBCLUSTERS
        for bit in range(_SUBCLUSTERS):
            effect = Effect.READS_THROUGH
            if bitmap >> (_SUBCLUSTERS + bit) & 1:
                effect = Effect.ZEROED
            elif bitmap >> bit & 1:
                effect = Effect.COPIED
            yield Extent(start + bit * size, start + (bit + 1) * size, effect)

    def _l2_table(self, index: int) -> int:
        """Give the offset of a table, or 0 where there is none."""
        if index >= self._l1_size:
            return 0
        entry = _read(self._fd, self._l1 + index * _ENTRY.size, _ENTRY.size)
        (value,) = _ENTRY.unpack(entry)
        return int(value & _OFFSET)


def _effect(entry: int) -> Effect:
    if entry & _COMPRESSED:
        return Effect.COPIED
    if entry & _ZERO:
        return Effect.ZEROED
    # With an external data file, the first cluster may be at 0.
    if entry & (_OFFSET | _COPIED):
        return Effect.COPIED
    return Effect.READS_THROUGH
