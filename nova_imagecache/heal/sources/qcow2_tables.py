# SPDX-License-Identifier: Apache-2.0

"""Which bytes of a qcow2 image a range of its content is made from.

Of an image that anybody may have uploaded: what is read is bounded by the
range that is asked for, whatever the tables say. The format is that of
docs/interop/qcow2.rst in QEMU.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import struct

from nova_imagecache.heal import sources

_MAGIC = b'QFI\xfb'
# Up to the offset of the snapshots, and the fields that version 3 has beside.
_HEADER = struct.Struct('>4sIQIIQIIQQIIQ')
_MORE = struct.Struct('>QQQII')
_COMPRESSION = struct.Struct('>B7x')
_ENTRY = struct.Struct('>Q')

_DIRTY, _CORRUPT, _COMPRESSION_TYPE = 1 << 0, 1 << 1, 1 << 3
_ZSTD = 1

_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ZERO = 1 << 0
_SECTOR = 512

# QEMU takes no L1 table that is larger (QCOW_MAX_L1_SIZE).
_MOST_L1_BYTES = 32 * 2**20
#: Bytes of tables to read at most for one range.
MOST_TABLES = 384 * 1024
# Bytes that nobody needs, and are cheaper to read than to leave out: in one
# place, and in all.
_GAP = 16 * 1024
_MOST_GAPS = 64 * 1024
#: Parts to read at most for one range: what is more scattered is not asked
#: for piece by piece.
MOST_PARTS = 256

Read = Callable[[int, int], bytes]


def hostile(problem: str) -> sources.Unavailable:
    """Give the error for an image that nobody should decode."""
    return sources.Unavailable(
        sources.State.HOSTILE,
        f'the image is not decoded, as no sound one is like that: {problem}',
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of the image, by offset."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What is needed of the header.

    :ivar version: 2 or 3
    :ivar bits: log2 of the bytes in a cluster
    :ivar size: bytes in its content
    :ivar l1: offset of the L1 table
    :ivar l1_size: entries in that
    :ivar zstd: whether clusters are compressed by zstd, and not by zlib
    """

    version: int
    bits: int
    size: int
    l1: int
    l1_size: int
    zstd: bool = False

    @property
    def cluster(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.bits

    @property
    def per_table(self) -> int:
        """Entries in an L2 table."""
        return self.cluster // _ENTRY.size

    @classmethod
    def parse(cls, head: bytes, length: int) -> 'Header':
        """Read the first bytes of an image.

        :param length: bytes in the image
        :raises sources.Unavailable: no sound image begins so, or it needs
            other files, or a key
        """
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise hostile('it has no header of qcow2')
        fields = _HEADER.unpack_from(head)
        _magic, version, backing, _length, bits, size, crypt = fields[:7]
        l1_size, l1 = fields[7:9]
        if version not in (2, 3) or not 9 <= bits <= 21:
            raise hostile('its version or cluster size is unknown')
        if backing or crypt:
            raise hostile('it has a backing file, or is encrypted')
        zstd = False
        if version == 3:
            zstd = _is_zstd(head)
        cluster = 1 << bits
        covered = cluster * (cluster // _ENTRY.size)
        if not 0 < size < 2**62 or l1_size < -(-size // covered):
            raise hostile('its L1 table is too small for its size')
        l1_bytes = l1_size * _ENTRY.size
        if (
            l1_bytes > _MOST_L1_BYTES
            or l1 % cluster
            or l1 < cluster
            or l1 + l1_bytes > length
        ):
            raise hostile('its L1 table is not in the file')
        return cls(version, bits, size, l1, l1_size, zstd)

    def encode(self, refcounts: int) -> bytes:
        """Give a header with just this in it, for QEMU.

        :param refcounts: offset of a cluster of zeros
        """
        header = _HEADER.pack(
            _MAGIC, self.version, 0, 0, self.bits, self.size, 0, self.l1_size,
            self.l1, refcounts, 1, 0, 0,
        )  # fmt: skip
        if self.version == 2:
            return header
        features = _COMPRESSION_TYPE if self.zstd else 0
        compression = _COMPRESSION.pack(_ZSTD if self.zstd else 0)
        length = _HEADER.size + _MORE.size + len(compression)
        # Refcounts of 16 bits.
        return header + _MORE.pack(features, 0, 0, 4, length) + compression


def _is_zstd(head: bytes) -> bool:
    """Read what version 3 has beside: see that nothing else is needed."""
    if len(head) < _HEADER.size + _MORE.size:
        raise hostile('its header is cut short')
    features, _compatible, _clear, _order, length = _MORE.unpack_from(
        head, _HEADER.size
    )
    if features & ~(_DIRTY | _CORRUPT | _COMPRESSION_TYPE):
        raise hostile('it has its data elsewhere, or in an unknown way')
    if not features & _COMPRESSION_TYPE:
        return False
    at = _HEADER.size + _MORE.size
    if length <= at or len(head) <= at or head[at] != _ZSTD:
        raise hostile('its way of compression is unknown')
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """One entry of an L2 table.

    :ivar at: offset of the entry in the image
    :ivar value: of the entry
    :ivar data: the bytes it points to; None if it reads as zeros
    """

    at: int
    value: int
    data: Part | None


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """All there is to read for a range.

    :ivar l1: entries of the L1 table that are needed, by offset
    :ivar clusters: all in the range, but those without an L2 table
    :ivar parts: of the image, with the data of the clusters; in order, and
        with gaps that are not worth a request
    """

    l1: tuple[tuple[int, int], ...]
    clusters: tuple[Cluster, ...]
    parts: tuple[Part, ...]


def plan(
    header: Header, length: int, start: int, end: int, read: Read
) -> Plan:
    """Find out what a range of the content is made from.

    :param length: bytes in the image
    :param start: offset in the content
    :param end: offset after the last byte, within the content
    :param read: gives bytes of the image: an offset, and how many
    :raises sources.Unavailable: no sound image has such tables
    """
    first = start // header.cluster
    count = -(-end // header.cluster) - first
    tables = _l2_tables(header, length, first, count, read)
    entries = _l2_entries(header, length, first, count, tables, read)
    clusters = tuple(
        Cluster(at, value, _data(header, length, value))
        for at, value in entries
    )
    parts = _rows(each.data for each in clusters if each.data is not None)
    if len(parts) > MOST_PARTS:
        raise sources.Unavailable(
            sources.State.NO_RANGES,
            f'the block is in {len(parts)} parts of the image, which are not '
            'asked for one by one',
        )
    l1 = tuple(
        (header.l1 + index * _ENTRY.size, table)
        for index, table in tables.items()
        if table
    )
    return Plan(l1, clusters, parts)


def _l2_tables(
    header: Header, length: int, first: int, count: int, read: Read
) -> dict[int, int]:
    """Give the offsets of the L2 tables by index, 0 where there is none."""
    begin = first // header.per_table
    end = (first + count - 1) // header.per_table + 1
    size = (end - begin) * _ENTRY.size
    if size > MOST_TABLES:
        raise hostile('its clusters are too small for such a block')
    found = {}
    row = read(header.l1 + begin * _ENTRY.size, size)
    for index, (value,) in enumerate(_ENTRY.iter_unpack(row), begin):
        table = value & _OFFSET
        if table % header.cluster or (
            table and table + header.cluster > length
        ):
            raise hostile('an L2 table is not in the file')
        found[index] = table
    return found


def _l2_entries(
    header: Header,
    length: int,
    first: int,
    count: int,
    tables: dict[int, int],
    read: Read,
) -> Iterator[tuple[int, int]]:
    """Give the entries for a row of clusters, with their offsets."""
    wanted = []
    for index, table in tables.items():
        begin = max(first, index * header.per_table)
        end = min(first + count, (index + 1) * header.per_table)
        if table:
            at = table + begin % header.per_table * _ENTRY.size
            wanted.append(Part(at, at + (end - begin) * _ENTRY.size))
    rows = _rows(wanted)
    if len(rows) > MOST_PARTS or _total(rows) > MOST_TABLES:
        raise sources.Unavailable(
            sources.State.NO_RANGES,
            'the tables of the image are too scattered to be asked for',
        )
    known = [(row, read(row.start, row.end - row.start)) for row in rows]
    for part in wanted:
        row, data = next(
            (row, data)
            for row, data in known
            if row.start <= part.start and part.end <= row.end
        )
        for at in range(part.start, part.end, _ENTRY.size):
            yield at, _ENTRY.unpack_from(data, at - row.start)[0]


def _data(header: Header, length: int, value: int) -> Part | None:
    """Say where the data of a cluster is."""
    if value & _COMPRESSED:
        shift = 62 - (header.bits - 8)
        start = value & ((1 << shift) - 1)
        sectors = (value >> shift & ((1 << (header.bits - 8)) - 1)) + 1
        end = start - start % _SECTOR + sectors * _SECTOR
        # What does not get smaller is not compressed.
        if (
            not header.cluster <= start < length
            or end - start > header.cluster + _SECTOR
        ):
            raise hostile('a compressed cluster is not in the file')
        # The last sector need not be whole.
        return Part(start, min(end, length))
    start = value & _OFFSET
    if value & _ZERO:
        if header.version == 2:
            raise hostile('an entry has a bit that its version has not')
        return None
    if not start:
        return None
    if start % header.cluster or not header.cluster <= start < length:
        raise hostile('a cluster is not in the file')
    # A file may end in its last cluster.
    return Part(start, min(start + header.cluster, length))


def _rows(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Say what is read for some parts: a row costs a request."""
    parts = list(parts)
    exact, rows = _together(parts, 0), _together(parts, _GAP)
    return rows if _total(rows) - _total(exact) <= _MOST_GAPS else exact


def _total(parts: Iterable[Part]) -> int:
    return sum(part.end - part.start for part in parts)


def _together(parts: Iterable[Part], gap: int) -> tuple[Part, ...]:
    """Join parts that overlap, or have but a small gap between them."""
    found: list[Part] = []
    for part in sorted(parts, key=lambda each: each.start):
        if found and part.start - found[-1].end <= gap:
            last = found[-1]
            found[-1] = Part(last.start, max(last.end, part.end))
        else:
            found.append(part)
    return tuple(found)
