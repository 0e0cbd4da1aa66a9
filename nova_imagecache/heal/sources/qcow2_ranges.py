# SPDX-License-Identifier: Apache-2.0

"""Blocks of an image that Nova has converted, through its qcow2 tables.

Header, tables and clusters of a block are put into a sparse file, at the
offsets that they have in the image, and ``qemu-img`` decodes the block. What
it gets is made here of what was checked, and of nothing else.
"""

import io
import os
import struct
import tempfile

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import images
from nova_imagecache.heal.sources import qcow2_tables
from nova_imagecache.heal.sources import qemu

# As much as the inspector needs to tell all formats.
_HEAD = 64 * 1024
_ENTRY = struct.Struct('>Q')
# So that it is valid, and decoded; no refcount is looked at.
_COPIED = 1 << 63


class Qcow2Image:
    """Gives ranges of the content of one qcow2 image."""

    def __init__(
        self,
        api: image_api.ImageApi,
        image: images.Image,
        directory: str,
        watch: sources.Watch,
        store: str | None = None,
    ) -> None:
        """Read the header.

        :param directory: for files as large as what is decoded at once
        :param watch: who waits for it
        :param store: which of its stores to prefer
        :raises sources.Unavailable: it cannot be had, or is not to be decoded
        """
        self._api = api
        self._image = image
        self._directory = directory
        self._store = store
        self._watch = watch
        head = self._read(0, min(_HEAD, image.size)) if image.size else b''
        qemu.inspect(io.BytesIO(head), 'qcow2')
        self._header = qcow2_tables.Header.parse(head, image.size)

    @property
    def size(self) -> int:
        """Bytes in its content."""
        return self._header.size

    def _read(self, start: int, length: int) -> bytes:
        return self._api.part(self._image, start, length, self._store)

    def read(self, start: int, length: int) -> bytes:
        """Give bytes of the content; all of them have to be in there.

        :raises sources.Unavailable: they are not to be had
        """
        # qemu-img reads whole sectors.
        end = min(-(-(start + length) // 512) * 512, self.size)
        plan = qcow2_tables.plan(
            self._header, self._image.size, start, end, self._read
        )
        if not any(each.data for each in plan.clusters):
            return bytes(length)
        try:
            with tempfile.NamedTemporaryFile(dir=self._directory) as file:
                self._fill(file.fileno(), plan)
                return qemu.decode(
                    file,
                    'qcow2',
                    start,
                    length,
                    self._directory,
                    self._watch,
                )
        except OSError as error:
            raise sources.Unavailable(
                sources.State.NO_SPACE,
                f'{self._directory}: {error.strerror}',
            ) from error

    def _fill(self, fd: int, plan: qcow2_tables.Plan) -> None:
        """Write what a plan has, and nothing else."""
        cluster = self._header.cluster
        end = -(-self._image.size // cluster) * cluster
        # Its refcounts are behind it, and all zero: nobody looks at them.
        os.truncate(fd, end + cluster)
        for part in plan.parts:
            data = self._read(part.start, part.end - part.start)
            _write(fd, part.start, data)
        # Last, so that a cluster over the tables changes none of them.
        for at, table in plan.l1:
            _write(fd, at, _ENTRY.pack(table | _COPIED))
        for each in plan.clusters:
            _write(fd, each.at, _ENTRY.pack(each.value))
        _write(fd, 0, self._header.encode(end))


def _write(fd: int, start: int, data: bytes) -> None:
    while data:
        written = os.pwrite(fd, data, start)
        data, start = data[written:], start + written
