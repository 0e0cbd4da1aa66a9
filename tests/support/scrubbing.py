# SPDX-License-Identifier: Apache-2.0

"""What the tests of scrubbing share."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import hashlib
import os
import random
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import scans
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import readers
from tests.support import base
from tests.support import nodes

#: Small, so that a small file has many.
BLOCK = 64 * base.KIB

Verdict = knowledge.Verdict
CORRUPT = ledgers.Damage.CORRUPT
UNREADABLE = ledgers.Damage.UNREADABLE


class ScrubTestCase(nodes.NodeTestCase):
    """A test that scrubs files of a node, block by block."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        self.means = readers.Means()

    def file(self, name: str) -> base_file.BaseFile:
        (found,) = [
            file
            for file in scans.scan(self.node.layout).files
            if file.name == name
        ]
        return found

    def known(self, name: str) -> knowledge.Knowledge:
        return knowledge.recall(self.file(name))

    def ledger(self, name: str) -> ledgers.Ledger:
        ledger = self.known(name).ledger
        assert ledger is not None, 'it has no ledger'
        return ledger

    def scrub(
        self, name: str, outlived: bool = False, **method: Any
    ) -> knowledge.Finding:
        """Scrub one file, due or not."""
        values: dict[str, Any] = {
            'algorithm': 'xxh3_128',
            'means': self.means,
            'clock': self.node.clock,
        }
        job = one_file.Job(
            self.file(name), self.known(name), outlived=outlived
        )
        return one_file.scrub(job, one_file.Method(**(values | method)))

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


COUNT = 10
SIZE = COUNT * BLOCK - 777


class OneFileTestCase(ScrubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = random.Random(7).randbytes(SIZE)
        self.name = self.node.add_image('image', data=self.data)
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'

    def flip(self, block: int) -> None:
        nodes.flip_bit(self.path, block * BLOCK + 100)

    def write_sidecar(self, text: str) -> None:
        with open(self.sidecar, 'w') as file:
            file.write(text)

    def read_sidecar(self) -> str:
        with open(self.sidecar) as file:
            return file.read()

    def sha1(self) -> str:
        with open(self.path, 'rb') as file:
            return hashlib.sha1(file.read()).hexdigest()

    def scrub_file(self, **method: Any) -> Verdict:
        return self.scrub(self.name, **method).verdict

    def bad_blocks(self) -> dict[int, ledgers.Damage]:
        return self.bad(self.name)

    def touch_while_reading(self, number: int = 1) -> None:
        """Let a guest start meanwhile, which touches its base file."""
        self.before_read(number, lambda: os.utime(self.path))

    def fail_reads(self, *blocks: int) -> None:
        """Let reading these blocks fail from now on."""
        real = readers.Reader._read_into

        # Mocked here; tests/node/test_medium.py has a disk that fails.
        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            if offset // BLOCK in blocks:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(reader, buffer, offset)

        self.patch(readers.Reader, '_read_into', read_into)

    def misread_once(self, block: int, touch: bool = False) -> list[int]:
        """Let a block be misread once; give the offsets that were."""
        real = readers.Reader._read_into
        spoilt: list[int] = []

        # Mocked: a cable or a memory that flips a bit on the way.
        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            if touch:
                os.utime(self.path)
            got = real(reader, buffer, offset)
            if offset // BLOCK == block and not spoilt:
                spoilt.append(offset)
                buffer[9] ^= 1
            return got

        self.patch(readers.Reader, '_read_into', read_into)
        return spoilt

    @contextlib.contextmanager
    def patched_reads(self, *blocks: int) -> Iterator[None]:
        real = readers.Reader._read_into
        with base.patched(readers.Reader, '_read_into', real):
            self.fail_reads(*blocks)
            yield
