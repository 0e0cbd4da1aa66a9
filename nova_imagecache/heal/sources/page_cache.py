# SPDX-License-Identifier: Apache-2.0

"""The page cache as a source: good bytes over a medium that went bad."""

from collections.abc import Iterator
from collections.abc import Sequence
import os

from nova_imagecache.cache import identity
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources


class PageCache:
    """What the page cache has of the file itself, a source.

    A block is put together of what is cached of it, and of what the medium
    has of the rest. No disk is read for what is cached.
    """

    name = 'page-cache'
    cryptographic = False
    fetched = 0

    def read(
        self, base: sources.Base, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        """Give blocks of which some page is cached."""
        try:
            fd = identity.open_regular(base.path)
        except OSError as error:
            raise sources.Unavailable(
                sources.State.FAILED, f'{base.path}: {error.strerror}'
            ) from error
        try:
            with pages.Medium(fd) as medium:
                for each in wanted:
                    found = _joined(fd, medium, each)
                    if found is not None:
                        data, missing = pages.fill(found, each.length)
                        yield sources.Piece(
                            each, data, self.name, frozenset(missing)
                        )
        finally:
            os.close(fd)


def _joined(
    fd: int, medium: pages.Medium, wanted: sources.Wanted
) -> list[bytes | None] | None:
    cached = pages.cached(fd, wanted.start, wanted.length)
    if not cached:
        return None
    found = medium.read(wanted.start, wanted.length, skip=cached)
    for number, page in cached.items():
        found[number] = page
    return found
