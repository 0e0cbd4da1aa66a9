# SPDX-License-Identifier: Apache-2.0

"""What the tests of scrubbing share."""

from collections.abc import Callable
import dataclasses
import os
from typing import Any

from nova_imagecache.cache import scan
from nova_imagecache.integrity import blocks as block_maps
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache.integrity import reader as readers
from nova_imagecache.integrity import scrub
from tests import base

#: Small, so that a small file has many.
BLOCK = 64 * base.KIB

Verdict = knowledges.Verdict
CORRUPT = ledgers.Damage.CORRUPT
UNREADABLE = ledgers.Damage.UNREADABLE


class ScrubTestCase(base.NodeTestCase):
    """A test that scrubs files of a node, block by block."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(block_maps, 'BLOCK_SIZE', BLOCK)
        self.means = readers.Means()

    def file(self, name: str) -> scan.CachedFile:
        (found,) = [
            file
            for file in scan.scan(self.node.layout).files
            if file.name == name
        ]
        return found

    def known(self, name: str) -> knowledges.Knowledge:
        return knowledges.recall(self.node.layout, self.file(name))

    def ledger(self, name: str) -> ledgers.Ledger:
        ledger = self.known(name).ledger
        assert ledger is not None, 'it has no ledger'
        return ledger

    def scrub(
        self, name: str, outlived: bool = False, **method: Any
    ) -> knowledges.Finding:
        """Scrub one file, due or not."""
        values: dict[str, Any] = {
            'algorithm': 'xxh3_128',
            'means': self.means,
            'clock': self.node.clock,
        }
        job = scrub.Job(self.file(name), self.known(name), outlived=outlived)
        return scrub.scrub(
            self.node.layout, job, scrub.Method(**(values | method))
        )

    def bad(self, name: str) -> dict[int, ledgers.Damage]:
        """Give the damage by block."""
        return ledgers.spread(self.ledger(name).bad)

    def stop_after(self, blocks: int) -> dict[str, Any]:
        """Have a scrub told to stop when it has read so many blocks."""
        left = [blocks]

        def pulse() -> None:
            left[0] -= 1
            if not left[0]:
                self.means.stop.set()

        self.means = dataclasses.replace(
            readers.Means(), progress=self.means.progress
        )
        return {'pulse': pulse}

    def go_on(self) -> None:
        """Let the next scrub run to its end."""
        self.means = readers.Means()

    def before_read(self, number: int, act: Callable[[], object]) -> None:
        """Do something just before the read with that number, from 0."""
        real = readers.Reader._read_into
        count = [0]

        def read_into(reader: Any, *args: Any) -> int:
            if count[0] == number:
                act()
            count[0] += 1
            return real(reader, *args)

        self.patch(readers.Reader, '_read_into', read_into)

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Change bytes as a disk would: times stay as they are."""
        path = self.node.base_path(name)
        before = os.stat(path)
        with open(path, 'r+b') as file:
            file.seek(offset)
            file.write(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
