# SPDX-License-Identifier: Apache-2.0

"""Base files on a disk that damages them, beside what a scrub can see.

Real files and records. What is made up is the time, what is seen of the
identity of files, and errors.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import os
import random
import shutil
import tempfile
import time
from typing import Any

import fixtures

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import blockmap
from nova_imagecache import names
from tests.histories import papers
from tests.histories import worlds
from tests.support import base

BLOCK = papers.BLOCK
HOSTS = ('first', 'second')

_ONE = names.get_cache_fname('one')
#: Names of the base files, and what their blocks are: data or zeros.
FILES = {_ONE: '##0##', f'{_ONE}_99': '#0#', 'swap_1': '####'}
TAIL = 777

_real_rename = os.rename
_real_utime = os.utime


def make_content(seed: object, kinds: str, tail: int = TAIL) -> bytes:
    """Make up what a base file holds; its tail is odd."""
    drawn = random.Random(f'{seed}')
    blocks = [
        drawn.randbytes(BLOCK) if kind == '#' else bytes(BLOCK)
        for kind in kinds
    ]
    return b''.join([*blocks, drawn.randbytes(tail)])


@dataclasses.dataclass
class Image:
    """One base file, and the truth about it.

    :ivar truth: what it has to hold
    :ivar eio: blocks that cannot be read, and after how many bytes
    :ivar seen: blocks that were read in this step, as they are now
    :ivar past: what has ever happened to it that may leave a mark
    """

    name: str
    path: str
    truth: bytes = dataclasses.field(repr=False)
    eio: dict[int, int] = dataclasses.field(default_factory=dict)
    seen: set[int] = dataclasses.field(default_factory=set)
    past: set[str] = dataclasses.field(default_factory=set)

    @property
    def original(self) -> bool:
        return self.name == _ONE

    @property
    def count(self) -> int:
        return -(-len(self.truth) // BLOCK)

    @property
    def damaged(self) -> set[int]:
        """Give the blocks that are not what they have to be."""
        found, size = worlds.read(self.path), len(self.truth)
        return {
            index
            for index in range(-(-max(len(found), size) // BLOCK))
            if block_of(found, index) != block_of(self.truth, index)
        }

    @property
    def sound(self) -> bool:
        return not self.eio and not self.damaged


def block_of(data: bytes, index: int) -> bytes:
    return data[index * BLOCK : (index + 1) * BLOCK]


class Laboratory(fixtures.Fixture):
    """What all histories share: where things go wrong to order."""

    def _setUp(self) -> None:
        memory = '/dev/shm'
        self.root = self.useFixture(
            fixtures.TempDir(
                memory if os.access(memory, os.W_OK | os.X_OK) else None
            )
        ).path
        self.world: World | None = None
        self._real_stat = identity._stat
        self._real_preadv = os.preadv
        self._patch(blockmap, 'BLOCK_SIZE', BLOCK)
        self._real_open = identity.open_regular
        self._patch(identity, '_stat', self._stat)
        self._patch(identity, 'open_regular', self._open)
        self._patch(os, 'preadv', self._preadv)
        self._patch(os, 'fsync', self._fsync)
        self._patch(os, 'rename', self._rename)
        self._patch(tempfile, 'mkstemp', self._mkstemp(tempfile.mkstemp))
        self._patch(clocks, 'now', lambda: self._now())
        self._patch(publish, 'current_time', lambda path: time.time())

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        self.useFixture(
            fixtures.MonkeyPatch(f'{owner.__name__}.{name}', value)
        )

    def _now(self) -> clocks.Instant:
        assert self.world is not None
        return self.world.now()

    def _stat(self, buffer: bytes, generation: int | None) -> identity.Stat:
        stat = self._real_stat(buffer, generation)
        return stat if self.world is None else self.world.view(stat)

    def _open(self, path: str, *args: Any, **kwargs: Any) -> int:
        if self.world is not None and path == self.world.hidden:
            raise self.world.hidden_by
        return self._real_open(path, *args, **kwargs)

    def _preadv(self, fd: int, buffers: Any, offset: int, *flags: int) -> int:
        assert self.world is not None
        got = self.world.read(
            fd,
            offset,
            lambda length: self._real_preadv(
                fd, [memoryview(buffers[0])[:length]], offset
            ),
            len(buffers[0]),
        )
        if got and self.world.spoils():
            # Neither the same twice, nor what was flipped on the disk.
            buffers[0][self.world.tick() // 1000 % got] ^= 16
        return got

    def _fsync(self, fd: int) -> None:
        # What was not synced is lost only when the machine goes down.
        if self.world is not None and self.world.sync_fails:
            if self.world.image_of(fd) is not None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _rename(self, *args: Any, **kwargs: Any) -> None:
        if self.world is not None:
            self.world.burn()
        _real_rename(*args, **kwargs)

    def _mkstemp(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def mkstemp(*args: Any, **kwargs: Any) -> Any:
            if self.world is not None:
                self.world.burn()
            fd, path = real(*args, **kwargs)
            if self.world is not None:
                self.world.bear(os.fstat(fd).st_ino)
            return fd, path

        return mkstemp

    @contextlib.contextmanager
    def make(self) -> Iterator['World']:
        """Make a world for one history."""
        path = tempfile.mkdtemp(dir=self.root)
        self.world = World(path)
        try:
            self.world.begin()
            yield self.world
        finally:
            self.world = None
            shutil.rmtree(path)


@dataclasses.dataclass
class Fault:
    """What goes wrong in one step.

    :ivar left: reads, or changes of the disk, before it does
    :ivar lasts: whether all that follow fail as well
    """

    left: int
    error: BaseException
    lasts: bool = False

    def burn(self) -> None:
        """Come closer to it."""
        self.left -= 1
        if self.left == -1 or (self.lasts and self.left < 0):
            raise self.error


class World:
    """One cache.

    :ivar births: when files were made, by inode
    :ivar sees: whether birth times are seen, generations, or neither
    :ivar shift: what the last mount has added to the numbers of inodes
    :ivar writing: what goes wrong with records
    :ivar reading: what goes wrong with base files, in general
    :ivar spoiling: how many reads there are before one that is misread
    :ivar hidden: a record that cannot be read, and why
    :ivar meanwhile: what happens before so many reads
    """

    def __init__(self, path: str) -> None:
        self.settings = Settings(
            instances_path=path,
            checksum=True,
            checksum_interval=base.DAY,
            scrub_bandwidth=0,
            remove_unused=False,
            witnesses=('instances', 'overlays', 'locks'),
            host=HOSTS[0],
        )
        self.layout = layouts.Layout.of(self.settings)
        self.wall = 2e9
        self.uptimes = dict.fromkeys(HOSTS, 10.0 * base.DAY)
        self.boots = dict.fromkeys(HOSTS, 0)
        self.births: dict[int, int] = {}
        self.sees = dict(zip(HOSTS, ['births', 'nothing'], strict=True))
        self.shift = 0
        self.writing: Fault | None = None
        self.reading: Fault | None = None
        self.sync_fails = False
        self.spoiling: int | None = None
        self.hidden: str | None = None
        self.hidden_by = OSError()
        self.meanwhile: tuple[int, Callable[[], None]] | None = None
        self.images: dict[str, Image] = {}
        self._ticks = 0
        self._inodes: dict[int, Image] = {}

    def begin(self) -> None:
        """Make the base files."""
        for path in (
            self.layout.base,
            self.layout.locks,
            *self.layout.directories,
        ):
            os.makedirs(path)
        for name, kinds in FILES.items():
            path = self.layout.file(name)
            truth = make_content(name, kinds)
            image = self.images[name] = Image(name, path, truth)
            self.put(image, truth)

    # Time.

    def configure(self, **changes: Any) -> None:
        self.settings = dataclasses.replace(self.settings, **changes)

    def now(self) -> clocks.Instant:
        host = self.settings.host
        return clocks.Instant(
            self.wall, self.uptimes[host], f'{host}-{self.boots[host]}'
        )

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        for host in HOSTS:
            self.uptimes[host] += seconds

    def tick(self) -> int:
        """Give a time in nanoseconds that no file has."""
        self._ticks += 1000
        return int(self.wall) * 10**9 + self._ticks

    # Files.

    def bear(self, inode: int) -> None:
        self.births[inode] = self.tick()

    def put(self, image: Image, data: bytes) -> None:
        """Put a new file in the place of a base file."""
        scratch = image.path + '.part'
        with open(scratch, 'wb') as file:
            for index in range(-(-len(data) // BLOCK)):
                if any(block_of(data, index)):
                    file.seek(index * BLOCK)
                    file.write(block_of(data, index))
            file.truncate(len(data))
            inode = os.fstat(file.fileno()).st_ino
        self.bear(inode)
        self.touch(scratch)
        _real_rename(scratch, image.path)
        self._inodes[inode] = image
        image.seen.clear()

    def copy(self, path: str) -> None:
        """Put a copy of a record in its place."""
        if os.path.exists(path):
            shutil.copyfile(path, path + '.part')
            self.bear(os.stat(path + '.part').st_ino)
            _real_rename(path + '.part', path)

    def touch(self, path: str) -> None:
        moment = self.tick()
        _real_utime(path, ns=(moment, moment))

    def write(self, image: Image, offset: int, data: bytes) -> None:
        """Change bytes; the times stay, as they do when a disk does so."""
        before = os.stat(image.path)
        with open(image.path, 'r+b') as file:
            file.seek(offset)
            file.write(data)
        _real_utime(image.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        image.seen.discard(offset // BLOCK)

    def image_of(self, fd: int) -> Image | None:
        stat = os.fstat(fd)
        image = self._inodes.get(stat.st_ino)
        if image is None or not os.path.exists(image.path):
            return None
        return image if os.path.samestat(stat, os.stat(image.path)) else None

    # What is seen, and what goes wrong.

    def view(self, stat: identity.Stat) -> identity.Stat:
        if not stat.regular:
            return stat
        inode = stat.incarnation.inode
        born = self.births.get(inode, inode)
        sees = self.sees[self.settings.host]
        incarnation = stat.incarnation._replace(
            inode=inode + self.shift,
            born=born if sees == 'births' else None,
            generation=born if sees == 'generations' else None,
        )
        return stat._replace(incarnation=incarnation, changed=stat.modified)

    def read(
        self, fd: int, offset: int, real: Callable[[int], int], room: int
    ) -> int:
        if self.meanwhile is not None:
            left, act = self.meanwhile
            self.meanwhile = (left - 1, act) if left else None
            if not left:
                act()
        if self.reading is not None:
            self.reading.burn()
        image = self.image_of(fd)
        if image is None:
            return real(room)
        index = offset // BLOCK
        if index in image.eio:
            good = image.eio[index] - offset % BLOCK
            if good <= 0:
                image.past.add('eio')
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(min(room, good))
        image.seen.add(index)
        return real(room)

    def spoils(self) -> bool:
        """Whether what was just read comes out wrong."""
        if self.spoiling is None:
            return False
        self.spoiling -= 1
        return self.spoiling == -1

    def burn(self) -> None:
        """Come closer to what goes wrong with records."""
        if self.writing is not None:
            self.writing.burn()
