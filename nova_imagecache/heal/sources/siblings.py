# SPDX-License-Identifier: Apache-2.0

"""Other files on this host as a source: what was made from the same image.

A resized file is its original and zeros after that. In the trash may be an
earlier file of the same image.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cache import trash
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources
from nova_imagecache import names


class Siblings:
    """Files in the cache and in its trash, a source."""

    name = 'siblings'
    cryptographic = False
    fetched = 0

    def __init__(self, layout: layouts.Layout) -> None:
        """Look at nothing yet."""
        self._layout = layout

    def read(
        self, base: sources.Base, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        """Give each block as each of the files has it."""
        found = self._find(base)
        if not found:
            raise sources.Unavailable(
                sources.State.ABSENT,
                'no other file on this host was made from the same image',
            )
        for file in found:
            with contextlib.suppress(OSError):
                fd = identity.open_regular(file.path)
                try:
                    yield from _read(fd, file.path, wanted)
                finally:
                    os.close(fd)

    def _find(self, base: sources.Base) -> list[base_file.BaseFile]:
        kind = names.kind_of(base.name)
        found = [
            file
            for file in (
                *scans.scan(self._layout).files,
                *trash.scan(self._layout).files,
            )
            if file.is_base and file.path != base.path
        ]
        if not kind.is_image:
            return [file for file in found if file.original == base.name]
        image = names.fingerprint(base.name)
        return [
            file
            for file in found
            if file.kind.is_image and names.fingerprint(file.original) == image
        ]


def _read(
    fd: int, path: str, wanted: Sequence[sources.Wanted]
) -> Iterator[sources.Piece]:
    size = os.fstat(fd).st_size
    with pages.Medium(fd) as medium:
        for each in wanted:
            length = min(each.end, size) - each.start
            if length <= 0:
                continue
            # Where the original ends, a resized file has zeros.
            data, missing = pages.fill(
                medium.read(each.start, length), each.length
            )
            yield sources.Piece(each, data, path, frozenset(missing))
