# SPDX-License-Identifier: Apache-2.0

"""What the tests of identity share."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib


from nova_imagecache.cache import identity
from tests.support import base
from tests.support import mounts
from tests.support import scrubbing


class IdentityTestCase(mounts.MountingTestCase, scrubbing.OneFileTestCase):
    @contextlib.contextmanager
    def seen_as(
        self, change: Callable[[identity.Incarnation], identity.Incarnation]
    ) -> Iterator[None]:
        """Have files be seen in another way for a while."""
        real = identity._stat

        # Mocked: it takes a server that is not the same host, or a remount.
        def stat(buffer: bytes, generation: int | None) -> identity.Stat:
            seen = real(buffer, generation)
            changed = change(seen.incarnation)
            return seen._replace(incarnation=changed)

        with (
            base.patched(identity, '_stat', stat),
            base.patched(identity, '_generation', lambda fd: None),
        ):
            yield

    def without_birth_times(
        self, inode: int | None = None, shift: int = 0
    ) -> contextlib.AbstractContextManager[None]:
        """Have files be seen as a FUSE file system shows them.

        :param inode: the number of all files, as if each had that of the one
            before; None for those that they have
        :param shift: by how much the last mount has changed the numbers
        """
        return self.seen_as(
            lambda incarnation: incarnation._replace(
                inode=(incarnation.inode if inode is None else inode) + shift,
                born=None,
                generation=None,
            )
        )

    def record(self) -> bytes:
        with open(self.node.layout.ledger(self.name), 'rb') as file:
            return file.read()

    def digests(self) -> bytes:
        """Give the digests of blocks, as they are on the disk."""
        return self.record().partition(b'\n')[2]
