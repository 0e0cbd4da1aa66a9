# SPDX-License-Identifier: Apache-2.0

"""What the tests of scrubbing share."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
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
DOUBTFUL = ledgers.Damage.DOUBTFUL


class ScrubTestCase(nodes.NodeTestCase):
    """A test that scrubs files of a node, block by block."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        #: What reads; tests wrap it.
        self.pread: readers.Pread = lambda *args: os.preadv(*args)
        self.means = self.make_means()

    def make_means(self, **means: Any) -> readers.Means:
        """Have files be read by what is :attr:`pread` at that time."""
        return readers.Means(pread=self._pread, **means)

    def _pread(self, fd: int, buffers: Any, offset: int, *flags: int) -> int:
        # Without flags it is asked once for each piece, on any file system.
        return self.pread(fd, buffers, offset)

    def note_files_read(self) -> list[str]:
        """Note the name of each base file that is read from now on."""
        real = readers.Reader.__init__
        names: list[str] = []

        def init(reader: Any, fd: int, *args: Any, **kwargs: Any) -> None:
            path = os.readlink(f'/proc/self/fd/{fd}')
            names.append(os.path.basename(path))
            real(reader, fd, *args, **kwargs)

        self.patch(readers.Reader, '__init__', init)
        return names

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

        self.means = self.make_means(progress=self.means.progress)
        return {'pulse': pulse}

    def go_on(self) -> None:
        """Let the next scrub run to its end."""
        self.means = self.make_means()

    def before_read(self, number: int, act: Callable[[], object]) -> None:
        """Do something just before the read with that number, from 0."""
        real = self.pread
        count = [0]

        def pread(*args: Any) -> int:
            if count[0] == number:
                act()
            count[0] += 1
            return real(*args)

        self.pread = pread

    def fail_reads(self, *blocks: int) -> None:
        """Let reading these blocks fail from now on."""
        real = self.pread

        # Mocked here; tests/node/test_medium.py has a disk that fails.
        def pread(fd: int, buffers: Any, offset: int) -> int:
            if offset // BLOCK in blocks:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset)

        self.pread = pread

    @contextlib.contextmanager
    def failing_reads(self, *blocks: int) -> Iterator[None]:
        """Let reading these blocks fail for a while."""
        real = self.pread
        self.fail_reads(*blocks)
        try:
            yield
        finally:
            self.pread = real

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

    def misread_once(self, block: int, touch: bool = False) -> list[int]:
        """Let a block be misread once; give the offsets that were."""
        real = self.pread
        spoilt: list[int] = []

        # Mocked: a cable or a memory that flips a bit on the way.
        def pread(fd: int, buffers: Any, offset: int) -> int:
            if touch:
                os.utime(self.path)
            got = real(fd, buffers, offset)
            if offset // BLOCK == block and not spoilt:
                spoilt.append(offset)
                buffers[0][9] ^= 1
            return got

        self.pread = pread
        return spoilt

    def touch_at_each_read(self) -> None:
        """Let guests start all the time."""
        real = self.pread

        def pread(*args: Any) -> int:
            os.utime(self.path)
            return real(*args)

        self.pread = pread

    def note_reads(self) -> list[int]:
        """Note the blocks that are read from now on."""
        real = self.pread
        blocks: list[int] = []

        def pread(fd: int, buffers: Any, offset: int) -> int:
            blocks.append(offset // BLOCK)
            return real(fd, buffers, offset)

        self.pread = pread
        return blocks
