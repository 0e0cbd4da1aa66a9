# SPDX-License-Identifier: Apache-2.0

"""A repair that is killed, or fails, at each call; and many at random.

Each byte is then what it was, or good; no block is called good that is not;
and the next repair goes on to the end.
"""

import errno
import json
import os
import random
import signal
import time
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import pages
from nova_imagecache.heal import repair
from nova_imagecache.heal import sources
from nova_imagecache.heal import writer
from tests.node import test_crash_points
from tests.support import base
from tests.support import healing
from tests.support import nodes

BLOCK = healing.BLOCK

_ERRORS = ('ENOSPC', 'EIO', 'EACCES', 'EROFS', 'ESTALE', 'EMFILE', 'EPERM')


class _Checking(healing.HealTestCase):
    """Damages two blocks, one of them with a bad last page."""

    def damage_it(self) -> None:
        self.flip(1, at=5000)
        self.flip(5, at=9)
        self.damage(5, at=BLOCK - 100)
        self.assertEqual({1, 5}, {*self.bad(self.name)})
        self.damaged = self.content()
        self.before = self.identity()

    def heal_it(self) -> list[str]:
        try:
            outcome = self.heal(healing.Given(self.data))
        except (errors.Error, OSError) as error:
            return [str(error)]
        return [outcome.stopped, *(block.note for block in outcome.blocks)]

    def check_half_way(self, where: object) -> None:
        content = self.content()
        self.assertEqual(len(self.data), len(content), f'{where}')
        for start in range(0, len(content), pages.PAGE):
            page = content[start : start + pages.PAGE]
            self.assertIn(
                page,
                (
                    self.data[start : start + pages.PAGE],
                    self.damaged[start : start + pages.PAGE],
                ),
                f'{where}: page at {start} is neither old nor good',
            )
        bad = self.bad(self.name)
        for index in (1, 5):
            part = slice(index * BLOCK, (index + 1) * BLOCK)
            if content[part] != self.data[part]:
                self.assertIn(index, bad, f'{where}: it is called good')
        # All but mtime, which may have been renewed.
        now = self.identity()
        self.assertEqual(
            (*self.before[:5], self.before[6]),
            (*now[:5], now[6]),
            f'{where}',
        )
        self.assertGreaterEqual(now[5], self.before[5], f'{where}')

    def check_in_the_end(self, where: object) -> None:
        self.check_half_way(where)
        said = self.heal_it()
        self.assertEqual([], [text for text in said if text], f'{where}')
        self.assert_healed()


class KilledTest(test_crash_points.CrashPointsTestCase, _Checking):
    node: Any

    def setUp(self) -> None:
        super().setUp()
        clock = base.FakeClock.of_this_machine()
        self.node = nodes.Node(os.path.join(self.temporary, 'instances'))
        self.node.clock = clock
        self.begin()

    def points_of(self) -> list[test_crash_points.Point]:
        self.assertEqual(0, self.strace(self.heal_it))
        found = test_crash_points.parse(
            self.read(self.path), self.node.layout.instances
        )
        points = [point for point in found if self.said not in point.line]
        calls = [point.call for point in points]
        # Two blocks: two writes past the cache, and one of the last page.
        self.assertEqual(3, calls.count('pwrite64'), f'{calls}')
        self.assertLessEqual({'fdatasync', 'utimensat', 'fsync'}, {*calls})
        return points

    def test_killed_at_any_call_the_next_one_goes_on(self) -> None:
        self.damage_it()
        points = self.points_of()
        self.assert_healed()
        for point in points:
            if ' = -1 ' in point.line:
                continue
            self.damage_it()
            kill = point.inject('signal=KILL')
            status = self.strace(self.heal_it, '-e', kill)
            self.assertTrue(os.WIFSIGNALED(status), f'{point}: not killed')
            self.check_in_the_end(point)

    def test_a_call_that_fails_is_told_and_the_next_one_goes_on(self) -> None:
        self.damage_it()
        points = self.points_of()
        for index, point in enumerate(points):
            if ' = -1 ' in point.line:
                continue
            error = _ERRORS[index % len(_ERRORS)]
            if point.call in ('pwrite64', 'fdatasync'):
                # What a medium says, and what a full disk does.
                error = ('EIO', 'ENOSPC')[index % 2]
            self.damage_it()
            status = self.strace(
                self.heal_it, '-e', point.inject(f'error={error}')
            )
            said = json.loads(self.read(self.said))
            self.assertEqual(0, status, f'{point} {error}: {said}')
            self.assertNotIn('Traceback', ' '.join(said))
            if point.call in ('pwrite64', 'fdatasync'):
                self.assertTrue(any(said), f'{point}: nothing was said')
            self.check_in_the_end(f'{point} {error}')


@ddt.ddt
class ReadTest(_Checking):
    @ddt.data(errno.EIO, errno.ENOMEM, errno.ESTALE)
    def test_a_read_that_fails_harms_nothing(self, code: int) -> None:
        """Also the one that reads back what was written."""
        calls = self.reads(code, at=None)
        self.assertGreater(calls, 6)
        for number in range(1, calls + 1):
            self.reads(code, at=number)

    def reads(self, code: int, at: int | None) -> int:
        """Repair, with one read that fails; give the number of reads."""
        self.damage_it()
        real = os.preadv
        count = [0]

        def preadv(*args: Any) -> int:
            count[0] += 1
            if count[0] == at:
                raise OSError(code, os.strerror(code))
            return real(*args)

        with base.patched(os, 'preadv', preadv):
            self.heal_it()
        self.check_in_the_end(f'read {at}')
        return count[0]

    def test_a_block_that_cannot_be_read_at_all_is_not_tried_to_its_end(
        self,
    ) -> None:
        """Each page costs the disk up to half a minute."""
        self.patch(pages, '_MOST_UNREADABLE', 3)
        self.damage_it()
        real = os.preadv
        tried: list[int] = []
        written = False

        def preadv(fd: int, buffers: Any, offset: int, *flags: int) -> int:
            if offset // BLOCK == 1 and not written:
                tried.append(offset)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset, *flags)

        def rewrite(*args: Any) -> None:
            nonlocal written
            written = True
            writer.rewrite(*args)

        with base.patched(os, 'preadv', preadv):
            outcome = self.heal(healing.Given(self.data), rewrite=rewrite)
        # All of it once, and three pages.
        self.assertEqual(4, len(tried))
        self.assertEqual(BLOCK, outcome.blocks[0].written)
        self.assert_healed()

    def test_a_medium_that_gives_back_something_else_is_told(self) -> None:
        self.damage_it()
        real = pages.Medium.read
        count = [0]

        def read(medium: Any, start: int, length: int, *args: Any) -> Any:
            found = real(medium, start, length, *args)
            count[0] += length == pages.PAGE
            if length == pages.PAGE and count[0] == 1:
                found[0] = bytes(pages.PAGE)
            return found

        self.patch(pages.Medium, 'read', read)
        said = self.heal_it()
        self.patch(pages.Medium, 'read', real)
        self.assertIn('gives back something else', ' '.join(said))
        self.assertIn(1, self.bad(self.name))
        self.check_in_the_end('other bytes')


class ManyDamagesTest(healing.HealTestCase):
    """Random damages on several files, and random kills, in a loop.

    ``HEAL_ROUNDS`` of them, of 60 damages and three kills each.
    """

    ROUNDS = int(os.environ.get('HEAL_ROUNDS', '50'))
    EACH = 60
    KILLS = 3
    #: Where one of the files has a hole, in blocks; no medium loses that.
    HOLE = range(5, 9)

    def setUp(self) -> None:
        super().setUp()
        self.random = random.Random(15)
        self.contents = {self.name: self.data}
        for number in range(5):
            self.add(f'more {number}')
        self.sparse = self.add('sparse', hole=True)
        #: Nothing has its data, and it has a second name.
        self.lost, self.linked = self.add('lost'), self.add('linked')
        self.learn()
        os.link(
            self.node.base_path(self.linked),
            os.path.join(self.temporary, 'other name'),
        )
        #: With its damage, as it is before a repair.
        self.damaged = {
            name: bytearray(data) for name, data in self.contents.items()
        }
        self.damages = self.kills = 0

    def add(self, image: str, hole: bool = False) -> str:
        size = self.random.randrange(10 * BLOCK, 20 * BLOCK)
        data = bytearray(self.random.randbytes(size))
        start, end = self.HOLE.start * BLOCK, self.HOLE.stop * BLOCK
        if hole:
            data[start:end] = bytes(end - start)
        name = self.node.add_image(image, data=bytes(data))
        if hole:
            with open(self.node.base_path(name), 'r+b') as file:
                file.truncate(start)
                file.seek(end)
                file.write(data[end:])
        self.contents[name] = bytes(data)
        return name

    def damage_at_random(self) -> None:
        for name, data in self.contents.items():
            if name not in (self.lost, self.linked):
                self.damaged[name][:] = data
        for _time in range(self.EACH):
            name = self.random.choice(sorted(self.contents))
            data = self.contents[name]
            path = self.node.base_path(name)
            start = self.random.randrange(len(data))
            length = self.random.choice((1, 100, 4096, 20000))
            if name == self.sparse and start < self.HOLE.stop * BLOCK:
                start %= self.HOLE.start * BLOCK - length
            before = os.stat(path)
            with open(path, 'r+b') as file:
                file.seek(start)
                part = bytes(
                    byte ^ 0x5A for byte in data[start : start + length]
                )
                file.write(part)
            times = (before.st_atime_ns, before.st_mtime_ns)
            os.utime(path, ns=times)
            self.damaged[name][start : start + len(part)] = part
            self.damages += 1

    def heal_all(self) -> dict[str, outcomes.Outcome]:
        found = {}
        for name, data in self.contents.items():
            file = base_file.BaseFile.named(self.node.layout, name)
            given = bytes(len(data)) if name == self.lost else data
            found[name] = repair.repair(file, [healing.Given(given)])
        return found

    def killed(self, seconds: float) -> None:
        """Repair in a process, and kill that after a while."""
        child = os.fork()
        if child == 0:
            try:
                self.heal_all()
            finally:
                os._exit(0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _child, status = os.waitpid(child, 0)
        self.kills += os.WIFSIGNALED(status)

    def check_half_way(self) -> None:
        """No page is anything but what it was, or good."""
        for name, data in self.contents.items():
            content = self.content_of(name)
            self.assertEqual(len(data), len(content))
            for start in range(0, len(data), pages.PAGE):
                page = slice(start, start + pages.PAGE)
                self.assertIn(
                    content[page],
                    (data[page], self.damaged[name][page]),
                    f'{name}: page at {start} is neither old nor good',
                )

    def check_left(self, found: dict[str, outcomes.Outcome]) -> None:
        """What cannot be repaired is told with the reason."""
        for name, outcome in found.items():
            reasons = {block.result for block in outcome.left}
            expected = set()
            if name == self.lost:
                expected = {outcomes.Result.NO_DATA}
                self.assertIn('other-bytes', outcome.sources['given'])
            elif name == self.linked:
                expected = {outcomes.Result.LINKED}
                self.assertIn('hard links', outcome.stopped)
            self.assertEqual(expected, reasons, f'{name} {outcome}')

    def test_in_the_end_each_file_is_what_it_was(self) -> None:
        before = {name: self.all_of(name) for name in self.contents}
        times: dict[str, int] = {}
        for _round in range(self.ROUNDS):
            self.damage_at_random()
            self.node.run()
            for _kill in range(self.KILLS):
                self.killed(self.random.random() * 0.1)
                self.check_half_way()
            times = {name: self.mtime(name) for name in self.contents}
            self.check_left(self.heal_all())
            # But for one that was killed after its write (decision 0089).
            for name, mtime in times.items():
                self.assertEqual(mtime, self.mtime(name), name)
        for name, data in self.contents.items():
            ledger = ledgers.Ledger.load(
                base_file.BaseFile.named(self.node.layout, name)
            )
            assert ledger is not None
            stays = name in (self.lost, self.linked)
            self.assertEqual(stays, bool(ledger.bad), name)
            expected = bytes(self.damaged[name]) if stays else data
            self.assertTrue(expected == self.content_of(name), name)
            was, now = before[name], self.all_of(name)
            self.assertEqual(was, now, name)
        self.assertEqual(self.ROUNDS * self.EACH, self.damages)
        self.assertGreater(self.kills, self.ROUNDS)

    def content_of(self, name: str) -> bytes:
        with open(self.node.base_path(name), 'rb') as file:
            return file.read()

    def mtime(self, name: str) -> int:
        return os.stat(self.node.base_path(name)).st_mtime_ns

    def all_of(self, name: str) -> tuple[Any, ...]:
        path = self.node.base_path(name)
        status = os.stat(path)
        with open(path, 'rb') as file:
            hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        return (
            status.st_ino, status.st_uid, status.st_gid, status.st_mode,
            status.st_size, status.st_nlink, status.st_blocks, hole,
        )  # fmt: skip


class SourceTest(_Checking):
    def test_a_source_that_fails_half_way_leaves_what_it_gave(self) -> None:
        class Breaking(healing.Given):
            def read(self, base: Any, wanted: Any) -> Any:
                given = super().read(base, wanted)
                yield next(given)
                raise sources.Unavailable(sources.State.TRUNCATED, 'cut off')

        self.damage_it()
        outcome = self.heal(Breaking(self.data))
        self.assertEqual(
            [outcomes.Result.REPAIRED, outcomes.Result.NO_DATA],
            [block.result for block in outcome.blocks],
        )
        self.assertEqual({'given': ('truncated', 'cut off')}, outcome.sources)
        self.check_in_the_end('half way')
