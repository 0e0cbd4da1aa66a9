# SPDX-License-Identifier: Apache-2.0

"""Disks of guests: qcow2 files over whatever path."""

import os
import struct

from tests.histories import inhabitants
from tests.support import nodes

# Where the name of the backing file is, and how long it is.
_BACKING = struct.Struct('>8xQI')
_ROOM = 250

#: Of a disk that was not copied to its end: it needs nobody knows what.
HALF = b'QFI\xfb garbage'


class Templates:
    """Makes disks in no time from those that qemu-img has made."""

    def __init__(self, directory: str) -> None:
        """Have qemu-img make one over a base file, and one over a disk."""
        self._templates = {}
        for form in ('raw', 'qcow2'):
            path = os.path.join(directory, f'over-{form}')
            nodes.qemu_img(
                'create', '-u', '-f', 'qcow2', '-o', 'cluster_size=4096',
                '-b', 'x' * _ROOM, '-F', form, path,
                str(inhabitants.RESIZED_SIZE),
            )  # fmt: skip
            with open(path, 'rb') as file:
                self._templates[form] = file.read()

    def over(self, backing: str, form: str = 'raw') -> bytes:
        """Give a disk over a path, absolute or from where the disk is."""
        template = self._templates[form]
        offset, room = _BACKING.unpack_from(template)
        name = os.fsencode(backing)
        assert room == _ROOM >= len(name)
        disk = bytearray(template)
        disk[offset : offset + room] = name.ljust(room, b'\0')
        struct.pack_into('>I', disk, 16, len(name))
        return bytes(disk)
