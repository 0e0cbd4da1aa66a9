# SPDX-License-Identifier: Apache-2.0

"""What the header of a disk image says of the files it needs.

Only the formats in which QEMU knows a backing file are looked into; anything
else, raw disks first of all, is taken for a disk that needs no other file. The
names found are whatever the header says: a guest can write a header to a raw
disk, so they are for comparing, never for opening.
"""

from collections.abc import Callable
import functools
import os
import re
import struct
from typing import Any
from typing import NamedTuple

from nova_imagecache.witnesses import references

# docs/interop/qcow2.txt in QEMU: 1,023 bytes at most; version 1, in
# block/qcow.c, begins with the same fields.
_QCOW_MAGIC = b'QFI\xfb'
_QCOW_BACKING = struct.Struct('>4sIQI')
_QCOW_NAME_LIMIT = 1023
_QCOW_HEADER_LENGTHS = {1: 48, 2: 72, 3: 104}
_QCOW2_V3_LENGTH_FIELD = struct.Struct('>100xI')
_QCOW2_EXTENSION = struct.Struct('>II')
_QCOW2_EXTENSION_SIZE = _QCOW2_EXTENSION.size
_QCOW2_BACKING_FORMAT = 0xE2792ACA
_QCOW2_DATA_FILE = 0x44415441
_QCOW2_NAMES = (_QCOW2_BACKING_FORMAT, _QCOW2_DATA_FILE)

# What forges them can make extensions that never end: they are followed for
# as long as the first cluster is, if nobody asks qemu-img for a larger one.
_QCOW2_EXTENSIONS_END = 64 * 1024

# This much in one read, with a name that begins at the end of it: of each
# extension by itself there could be thousands.
_HEAD = _QCOW2_EXTENSIONS_END + 1024

# What QEMU and qemu-img write is in here, and a raw disk needs no more.
_FIRST = 4096

# docs/interop/qed_spec.txt
_QED_MAGIC = b'QED\0'
_QED_HEADER = struct.Struct('<4sIIIQ32xII')
_QED_HAS_BACKING = 0x01

# block/vmdk.c: VMDK4Header, and the descriptor inside or alone.
_VMDK_MAGIC = b'KDMV'
_VMDK_DESCRIPTOR = struct.Struct('<4s24xQQ35x')
_VMDK_DESCRIPTOR_MAGIC = b'# Disk DescriptorFile'
_VMDK_PARENT = re.compile(rb'^parentFileNameHint="([^"]*)"', re.MULTILINE)
_VMDK_DESCRIPTOR_LIMIT = 20 * 512
_SECTOR = 512


#: Gives so many bytes of a disk, the first number, from an offset, the second;
#: fewer at the end.
Pread = Callable[[int, int], bytes]


class MalformedHeader(Exception):
    """The header of a known format contradicts itself."""


class TruncatedHeader(MalformedHeader):
    """A file ends within the header, as that of a copy that was broken off."""


class DiskHeader(NamedTuple):
    """The files that a disk image needs, as its header names them.

    :ivar format: QEMU's name of the format, or 'raw' for all that cannot
        have a backing file
    :ivar backing_file: name of the backing file
    :ivar backing_format: its format, where the header says
    :ivar data_file: name of an external data file
    """

    format: str = 'raw'
    backing_file: str | None = None
    backing_format: str | None = None
    data_file: str | None = None


#: What the header of any raw disk says, and of whatever is no disk.
NEEDS_NOTHING = DiskHeader()


class _Head:
    """The beginning of a disk, of which no more is read than is asked for."""

    def __init__(self, pread: Pread, size: int, block: bytes) -> None:
        self._pread = pread
        self._read = block
        self.size = size
        self.block = block

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly so much; offsets come from the header, maybe wild."""
        end = offset + length
        data = b''
        if end <= self.size:
            if _FIRST == len(self._read) < end <= _HEAD:
                self._read = self._pread(_HEAD, 0)
            if end <= len(self._read):
                return self._read[offset:end]
            data = self._pread(length, offset)
        if len(data) < length:
            raise MalformedHeader(
                f'it points to {length} bytes at {offset}, past its end'
            )
        return data


def _name(data: bytes) -> str | None:
    """Decode a name as QEMU does, to which a NUL is its end."""
    return os.fsdecode(data.partition(b'\0')[0]) or None


def _unpack(layout: struct.Struct, block: bytes) -> tuple[Any, ...]:
    if len(block) < layout.size:
        raise TruncatedHeader('it is cut short')
    return layout.unpack_from(block)


def _qcow2_names(head: _Head, version: int) -> dict[int, str | None]:
    """Give the names in the extensions of a header, by what they are of."""
    offset = _QCOW_HEADER_LENGTHS[2]
    if version >= 3:
        (offset,) = _unpack(_QCOW2_V3_LENGTH_FIELD, head.block)
    named: dict[int, str | None] = {}
    while offset + _QCOW2_EXTENSION_SIZE <= _QCOW2_EXTENSIONS_END:
        try:
            fields = head.read(offset, _QCOW2_EXTENSION_SIZE)
        except MalformedHeader:
            break
        kind, length = _QCOW2_EXTENSION.unpack(fields)
        if kind == 0:
            break
        offset += _QCOW2_EXTENSION_SIZE
        if kind in _QCOW2_NAMES:
            if length > _QCOW_NAME_LIMIT:
                raise MalformedHeader('a name in it is too long')
            named[kind] = _name(head.read(offset, length))
        offset += (length + 7) // 8 * 8
    return named


def _read_qcow(head: _Head) -> DiskHeader:
    _magic, version, offset, length = _unpack(_QCOW_BACKING, head.block)
    if version not in _QCOW_HEADER_LENGTHS:
        raise MalformedHeader(f'qcow version {version} is unknown')
    if len(head.block) < _QCOW_HEADER_LENGTHS[version]:
        raise TruncatedHeader('it is cut short')
    backing = None
    if offset:
        if length > _QCOW_NAME_LIMIT:
            raise MalformedHeader('the name of its backing file is too long')
        backing = _name(head.read(offset, length))
    if version == 1:
        return DiskHeader('qcow', backing)
    named = _qcow2_names(head, version)
    return DiskHeader(
        'qcow2',
        backing,
        named.get(_QCOW2_BACKING_FORMAT) if backing else None,
        named.get(_QCOW2_DATA_FILE),
    )


def _read_qed(head: _Head) -> DiskHeader:
    *_others, features, offset, length = _unpack(_QED_HEADER, head.block)
    if not features & _QED_HAS_BACKING:
        return DiskHeader('qed')
    if length > _QCOW_NAME_LIMIT:
        raise MalformedHeader('the name of its backing file is too long')
    return DiskHeader('qed', _name(head.read(offset, length)))


def _read_vmdk(head: _Head) -> DiskHeader:
    descriptor = head.read(0, min(head.size, _VMDK_DESCRIPTOR_LIMIT))
    if head.block.startswith(_VMDK_MAGIC):
        _magic, offset, length = _unpack(_VMDK_DESCRIPTOR, head.block)
        if not offset:
            return DiskHeader('vmdk')
        length = min(length * _SECTOR, _VMDK_DESCRIPTOR_LIMIT)
        descriptor = head.read(offset * _SECTOR, length)
    match = _VMDK_PARENT.search(descriptor)
    return DiskHeader('vmdk', _name(match[1]) if match else None)


def read_header_from(
    pread: Pread, size: int, costly: bool = False
) -> DiskHeader:
    """Read the header of a disk image, wherever it comes from.

    It takes one read. Where that is not costly, it is a short one, and may
    take a second, longer one; and in any case one more for a name, or the
    descriptor of VMDK, that is not at the beginning.

    :param costly: whether each read is, whatever its length, as one for which
        root has to be asked
    :raises TruncatedHeader: it has the magic of a format, and ends too soon
    :raises MalformedHeader: it has the magic of a format, and cannot be one
    :raises Exception: whatever reading raises
    """
    block = pread(_HEAD if costly else _FIRST, 0)
    if block.startswith(_QCOW_MAGIC):
        return _read_qcow(_Head(pread, size, block))
    if block.startswith(_QED_MAGIC):
        return _read_qed(_Head(pread, size, block))
    if block.startswith((_VMDK_MAGIC, _VMDK_DESCRIPTOR_MAGIC)):
        return _read_vmdk(_Head(pread, size, block))
    return NEEDS_NOTHING


def read_header(fd: int) -> DiskHeader:
    """Read the header of a disk image.

    :param fd: an open regular file; its offset is neither used nor moved
    :raises TruncatedHeader: it has the magic of a format, and ends too soon
    :raises MalformedHeader: it has the magic of a format, and cannot be one
    :raises OSError: it cannot be read
    """
    return read_header_from(
        functools.partial(os.pread, fd), os.fstat(fd).st_size
    )


def file_names(reference: str) -> frozenset[str]:
    """Give the file names that a reference to a backing file may mean.

    The last path component only: containers and other hosts see other paths.
    See :func:`nova_imagecache.witnesses.references.read`.
    """
    return references.read(reference).names
