# SPDX-License-Identifier: Apache-2.0

"""What says in a first reading that a file cannot be trusted.

It is not forgotten by the time that the file is good.
"""

import errno
import os
import threading

import ddt

from nova_imagecache.cache import states
from nova_imagecache import hook
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import recalling
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import scrubber
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing

BLOCK = scrubbing.BLOCK
COUNT = scrubbing.COUNT
CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
DOUBTFUL = scrubbing.DOUBTFUL
Verdict = scrubbing.Verdict
WEEK = 7 * base.DAY


class FirstTestCase(scrubbing.OneFileTestCase):
    def assert_suspect_for_ever(self) -> None:
        for _scrub in range(4):
            finding = self.scrub(self.name)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)
        self.assertTrue(self.ledger(self.name).suspect)


@ddt.ddt
class SyncTest(FirstTestCase):
    """What was written is not on the disk, and the kernel says so once."""

    def fail_sync(self, code: int) -> None:
        real = os.fsync
        left = [None]

        # Mocked: a disk that fails to order needs root and a block device.
        def fsync(fd: int) -> None:
            if left and os.readlink(f'/proc/self/fd/{fd}') == self.path:
                left.pop()
                raise OSError(code, os.strerror(code))
            real(fd)

        self.patch(os, 'fsync', fsync)

    def test_a_file_that_is_not_on_the_disk_is_not_read(self) -> None:
        self.fail_sync(errno.EIO)
        reads = self.note_reads()
        finding = self.scrub(self.name)
        self.assertIs(Verdict.UNREADABLE, finding.verdict)
        self.assertIn('Input/output error', finding.note)
        self.assertEqual([], reads)
        self.assertFalse(os.path.exists(self.sidecar))

    def test_it_is_suspect_for_ever(self) -> None:
        self.fail_sync(errno.EIO)
        self.scrub_file()
        # What was lost.
        self.overwrite(self.name, 3 * BLOCK, bytes(BLOCK))
        self.assert_suspect_for_ever()

    def test_a_checksum_tells_what_was_lost(self) -> None:
        self.write_sidecar(self.sha1())
        self.fail_sync(errno.EIO)
        self.scrub_file()
        self.overwrite(self.name, 3 * BLOCK, bytes(BLOCK))
        self.assertIs(Verdict.CORRUPT, self.scrub_file())

    @ddt.data(errno.EROFS, errno.ENOSPC, errno.EDQUOT)
    def test_what_is_no_fault_of_the_medium_makes_no_suspect(
        self, code: int
    ) -> None:
        self.fail_sync(code)
        finding = self.scrub(self.name)
        self.assertEqual(
            (Verdict.UNKNOWN, True), (finding.verdict, finding.skipped)
        )
        self.scrub_file()
        self.assertEqual('', self.scrub(self.name).note)

    def test_a_file_that_is_known_is_not_synced_again(self) -> None:
        self.scrub_file()
        self.fail_sync(errno.EIO)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertFalse(self.ledger(self.name).suspect)


class ReplacedByZerosTest(FirstTestCase):
    """A block that cannot be read at first, and reads as zeros later."""

    def lose(self, block: int) -> None:
        with self.failing_reads(block):
            self.scrub_file()
        self.overwrite(self.name, block * BLOCK, bytes(BLOCK))

    def test_it_is_suspect_for_ever_and_the_bytes_are_named(self) -> None:
        self.lose(2)
        self.assert_suspect_for_ever()
        self.assertEqual({2: DOUBTFUL}, self.bad_blocks())
        self.assertIn(
            f'bytes {2 * BLOCK}-{3 * BLOCK - 1} are doubtful',
            self.scrub(self.name).note,
        )

    def test_a_checksum_says_that_it_is_corrupt(self) -> None:
        self.write_sidecar(self.sha1())
        self.lose(2)
        for _scrub in range(3):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_so_does_its_digest_once_it_was_known(self) -> None:
        self.scrub_file()
        self.lose(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_what_decays_in_it_later_is_corrupt(self) -> None:
        self.lose(2)
        self.scrub_file()
        self.scrub_file()
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())


@ddt.ddt
class ResizedTest(FirstTestCase):
    """A file that changes its size before it is settled."""

    def resize(self, size: int) -> None:
        before = os.stat(self.path)
        os.truncate(self.path, size)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @ddt.data(3 * BLOCK, 12 * BLOCK)
    def test_it_is_suspect_for_ever(self, size: int) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.resize(size)
        self.scrub_file()
        self.assert_suspect_for_ever()

    @ddt.data(3 * BLOCK, 12 * BLOCK)
    def test_so_it_is_if_that_was_while_it_was_stopped(
        self, size: int
    ) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.resize(size)
        self.assert_suspect_for_ever()

    @ddt.data(3 * BLOCK, 12 * BLOCK)
    def test_one_that_is_settled_is_corrupt(self, size: int) -> None:
        self.scrub_file()
        self.resize(size)
        for _scrub in range(2):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertFalse(self.ledger(self.name).suspect)


class ChangedTest(FirstTestCase):
    """A block that is other in the second reading than in the first."""

    def setUp(self) -> None:
        super().setUp()
        self.touch_while_reading(9)
        self.scrub_file()
        self.flip(1)

    def test_it_is_not_forgotten_when_it_is_stopped_and_touched(
        self,
    ) -> None:
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(5))
        self.go_on()
        os.utime(self.path)
        self.touch_while_reading(3)
        self.scrub_file()
        self.assert_suspect_for_ever()

    def test_nor_when_all_that_was_learnt_is_lost_later(self) -> None:
        self.node.configure(checksum=True, remove_unused=False)
        self.scrub_file()
        self.node.run(inline=False)
        os.unlink(self.node.layout.ledger(self.name))
        for _pass in range(3):
            report = self.node.run()
        self.assertTrue(self.file_of(report, self.name).suspect)


class UnsettledTest(FirstTestCase):
    """A file that was touched at first, with a block that is unreadable."""

    def setUp(self) -> None:
        super().setUp()
        self.touch_while_reading(9)
        self.scrub_file()
        self.fail_reads(5)
        self.scrub_file()

    def due(self) -> float:
        state = states.load(self.node.layout)
        entry = recalling.entry_of(self.file(self.name), state)
        return schedule.due_in(entry, WEEK, self.node.clock(), 'host').due

    def test_whatever_else_decays_is_named(self) -> None:
        self.assertEqual({5: UNREADABLE}, self.bad_blocks())
        expected = {5: UNREADABLE}
        for block in range(4):
            self.flip(block)
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
            expected[block] = CORRUPT
            self.assertEqual(expected, self.bad_blocks())

    def test_it_is_tried_again_in_a_day_and_not_all_the_time(self) -> None:
        self.node.configure(checksum=True)
        self.node.run(inline=False)
        self.assertEqual(base.DAY, self.due())
        self.node.clock.advance(base.DAY - 1)
        self.assertEqual(1, self.due())
        self.node.clock.advance(1)
        self.scrub_file()
        self.assertEqual(base.DAY, self.due())


@ddt.ddt
class GateTest(scrubbing.OneFileTestCase):
    """Known corrupt, and then the ledger is damaged too."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, remove_unused=False)
        conf = base.make_conf(instances_path=self.node.layout.instances)
        self.manager = hook.ImageCacheManager(conf)
        self.record = self.node.layout.ledger(self.name)

    def with_passes(self) -> None:
        """Read what is due as a node does that has no process to read."""
        self.node.run()

    def with_scrubs(self) -> None:
        """Read what is due where no pass is made at all."""
        stop = threading.Event()
        means = readers.Means(stop=stop)
        list(
            scrubber.Scrubber(self.node.settings, means, self.node.clock).run()
        )

    def gone(self) -> None:
        os.unlink(self.record)

    def garbage(self) -> None:
        with open(self.record, 'wb') as file:
            file.write(b'garbage')

    def damaged(self) -> None:
        nodes.flip_bit(self.record, 200)

    def cut_short(self) -> None:
        os.truncate(self.record, os.path.getsize(self.record) - 1)

    @ddt.data(
        *(
            (reading, loss)
            for reading in ('with_passes', 'with_scrubs')
            for loss in ('gone', 'garbage', 'damaged', 'cut_short')
        )
    )
    @ddt.unpack
    def test_the_gate_says_corrupt(self, reading: str, loss: str) -> None:
        read = getattr(self, reading)
        for _reading in range(2):
            read()
        self.flip(3)
        read()
        self.assertEqual('corrupt', self.manager.damage_of(self.name))
        getattr(self, loss)()
        self.assertEqual('corrupt', self.manager.damage_of(self.name))
        report = self.node.make_pass().preview()
        self.assertEqual([self.name], [each.name for each in report.corrupt])

    @ddt.data('with_passes', 'with_scrubs')
    def test_it_is_corrupt_when_it_is_read_and_nothing_is_overwritten(
        self, reading: str
    ) -> None:
        read = getattr(self, reading)
        for _reading in range(2):
            read()
        sha1 = self.read_sidecar()
        self.flip(3)
        read()
        self.gone()
        for _reading in range(3):
            read()
            self.assertEqual('corrupt', self.manager.damage_of(self.name))
        self.assertEqual(sha1, self.read_sidecar())

    @ddt.data('with_passes', 'with_scrubs')
    def test_with_its_checksum_lost_too_nothing_launders_it(
        self, reading: str
    ) -> None:
        read = getattr(self, reading)
        for _reading in range(2):
            read()
        self.flip(3)
        read()
        self.gone()
        os.unlink(self.sidecar)
        for _reading in range(3):
            read()
            self.assertEqual('corrupt', self.manager.damage_of(self.name))
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertIn('rebaselined', self.known(self.name).finding.note)

    @ddt.data('with_passes', 'with_scrubs')
    def test_what_was_good_and_lost_all_is_rebaselined(
        self, reading: str
    ) -> None:
        read = getattr(self, reading)
        for _reading in range(2):
            read()
        self.gone()
        os.unlink(self.sidecar)
        for _reading in range(2):
            read()
        self.assertIsNone(self.manager.damage_of(self.name))
        self.assertIn('rebaselined', self.known(self.name).finding.note)

    def test_of_one_that_is_good_again_the_gate_is_open(self) -> None:
        for _pass in range(2):
            self.node.run()
        self.flip(3)
        self.node.run()
        self.flip(3)
        self.node.run()
        self.gone()
        self.assertIsNone(
            states.load(self.node.layout).files[self.name].damage
        )
        # It was digested once, so what is lost cannot be told.
        self.assertRaises(hook.Error, self.manager.damage_of, self.name)
