# SPDX-License-Identifier: Apache-2.0

"""One file, scrubbed again and again, and what may happen meanwhile."""

import os
import random
import subprocess
import threading
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import locks
from nova_imagecache.content import digests
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import one_file
from tests.support import base
from tests.support import processes
from tests.support import scrubbing

COUNT = scrubbing.COUNT
SIZE = scrubbing.SIZE
BLOCK = scrubbing.BLOCK
CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict


@ddt.ddt
class FirstReadingTest(scrubbing.OneFileTestCase):
    def test_it_gives_the_digests_and_what_sha1sum_says(self) -> None:
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        printed = subprocess.check_output(['sha1sum', self.path], text=True)
        self.assertEqual(printed.split()[0], self.read_sidecar())
        ledger = self.ledger(self.name)
        self.assertEqual(
            (SIZE, BLOCK, 'xxh3_128', True),
            (
                ledger.size,
                ledger.block_size,
                ledger.algorithm,
                ledger.settled,
            ),
        )
        blocks = ledger.load_blocks(self.file(self.name))
        self.assertNotIn(None, [blocks.get(i) for i in range(COUNT)])

    def test_a_sparse_file_has_the_sha1_that_sha1sum_gives(self) -> None:
        os.truncate(self.path, 100 * base.MIB + 1)
        self.scrub_file()
        printed = subprocess.check_output(['sha1sum', self.path], text=True)
        self.assertEqual(printed.split()[0], self.read_sidecar())

    def test_what_is_in_memory_only_is_written_to_the_disk_first(
        self,
    ) -> None:
        synced = self.note_syncs()
        self.scrub_file()
        self.assertEqual(self.path, synced[0])
        synced.clear()
        self.scrub_file()
        self.assertNotIn(self.path, synced)

    def test_the_second_reading_makes_it_good(self) -> None:
        self.scrub_file()
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual({}, self.bad_blocks())

    def test_a_stopped_one_goes_on_and_has_its_sha1_later(self) -> None:
        self.scrub_file(**self.stop_after(4))
        ledger = self.ledger(self.name)
        self.assertEqual((4, None), (ledger.position, ledger.read))
        self.assertFalse(os.path.exists(self.sidecar))
        self.go_on()
        reads = self.note_reads()
        self.scrub_file()
        self.assertEqual(list(range(4, COUNT)), reads)
        self.assertIsNotNone(self.ledger(self.name).read)
        self.assertFalse(os.path.exists(self.sidecar))
        # The next one is uninterrupted.
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_one_that_is_stopped_each_time_still_gets_its_ledger(
        self,
    ) -> None:
        for _restart in range(COUNT + 1):
            self.scrub_file(**self.stop_after(1))
        self.assertIsNotNone(self.ledger(self.name).read)
        self.go_on()
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({3: CORRUPT}, self.bad_blocks())

    def test_a_checksum_of_an_older_manager_is_what_it_has_to_match(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_one_that_differs_is_corruption_and_no_new_baseline(self) -> None:
        good = self.sha1()
        self.write_sidecar(good)
        self.flip(3)
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertIs(Verdict.CORRUPT, finding.verdict)
            self.assertIn(good, finding.note)
        self.assertEqual(good, self.read_sidecar())
        self.flip(3)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        # And now its blocks are known.
        self.flip(5)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({5: CORRUPT}, self.bad_blocks())

    def test_an_interrupted_one_is_compared_with_it_later(self) -> None:
        self.write_sidecar(self.sha1())
        self.flip(3)
        self.scrub_file(**self.stop_after(5))
        self.go_on()
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_a_file_made_in_an_earlier_boot_is_suspect_for_ever(self) -> None:
        self.assertIn('suspect', self.scrub(self.name, outlived=True).note)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_an_older_checksum_vouches_for_it(self) -> None:
        self.write_sidecar(self.sha1())
        self.assertEqual('', self.scrub(self.name, outlived=True).note)

    def test_an_older_checksum_vouches_for_an_interrupted_one_later(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.scrub(self.name, outlived=True, **self.stop_after(4))
        self.go_on()
        for _scrub in range(2):
            self.assertEqual('', self.scrub(self.name, outlived=True).note)
        self.assertIs(Verdict.GOOD, self.known(self.name).finding.verdict)

    def test_a_suspect_stays_one_when_its_ledger_is_lost(self) -> None:
        self.scrub(self.name, outlived=True)
        os.unlink(self.node.layout.ledger(self.name))
        job = one_file.Job(
            self.file(self.name), self.known(self.name), suspect=True
        )
        method = one_file.Method('xxh3_128', self.means, self.node.clock)
        finding = one_file.scrub(job, method)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_a_reading_asked_for_begins_at_the_start(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        job = one_file.Job(
            self.file(self.name), self.known(self.name), afresh=True
        )
        method = one_file.Method('xxh3_128', self.means, self.node.clock)
        one_file.scrub(job, method)
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_a_lost_ledger_and_checksum_are_told_for_ever(self) -> None:
        self.scrub_file()
        os.unlink(self.sidecar)
        os.truncate(self.node.layout.ledger(self.name), 50)
        for _scrub in range(3):
            self.assertIn('rebaselined on 20', self.scrub(self.name).note)

    def test_the_image_is_remembered(self) -> None:
        job = one_file.Job(
            self.file(self.name), self.known(self.name), image='an image'
        )
        method = one_file.Method('sha256', self.make_means(), self.node.clock)
        one_file.scrub(job, method)
        self.scrub_file()
        self.assertEqual('an image', self.ledger(self.name).image)

    @ddt.data(0, 1, 4095, BLOCK, BLOCK + 1, 3 * BLOCK)
    def test_files_of_any_size_are_good(self, size: int) -> None:
        os.truncate(self.path, size)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())


@ddt.ddt
class TouchedTest(scrubbing.OneFileTestCase):
    """A file is touched while it is first read, or written to."""

    def test_a_touched_one_gets_no_checksum_until_it_is_read_again(
        self,
    ) -> None:
        self.touch_while_reading()
        finding = self.scrub(self.name)
        self.assertIn('read again', finding.note)
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_one_that_is_touched_all_the_time_does_not_escape(self) -> None:
        self.touch_at_each_read()
        self.scrub_file()
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_one_that_is_written_to_is_not_called_corrupt(self) -> None:
        self.before_read(5, lambda: self.flip(1))
        self.scrub_file()
        finding = self.scrub(self.name)
        self.assertIs(Verdict.UNKNOWN, finding.verdict)
        # It is told which block it was, whatever comes of it.
        self.assertEqual({1: scrubbing.DOUBTFUL}, self.bad_blocks())
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_one_that_grows_has_a_mark_and_no_digests(self) -> None:
        def grow() -> None:
            os.truncate(self.path, SIZE + 10)

        self.before_read(5, grow)
        finding = self.scrub(self.name)
        self.assertIn('written to', finding.note)
        self.assertTrue(finding.problem)
        self.assertIsNone(self.ledger(self.name).read)
        self.scrub_file()
        finding = self.scrub(self.name)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_a_touch_while_it_was_stopped_counts_too(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        os.utime(self.path, (1, 1))
        self.assertIn('read again', self.scrub(self.name).note)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_settled_one_may_be_touched_at_will(self) -> None:
        self.scrub_file()
        self.touch_while_reading()
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_checksum_it_matches_makes_it_sure_at_once(self) -> None:
        self.write_sidecar(self.sha1())
        self.touch_while_reading()
        self.assertIs(Verdict.GOOD, self.scrub_file())


class AlgorithmTest(scrubbing.OneFileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.scrub_file()

    def algorithm(self) -> str:
        return self.ledger(self.name).algorithm

    def test_it_changes_with_the_reading_that_compares_the_old_digests(
        self,
    ) -> None:
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('sha256', self.algorithm())
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file(algorithm='sha256'))
        self.assertEqual({3: CORRUPT}, self.bad_blocks())

    def test_damage_keeps_the_old_digests_until_it_is_gone(self) -> None:
        self.flip(3)
        for _scrub in range(2):
            self.assertIs(Verdict.CORRUPT, self.scrub_file(algorithm='sha256'))
            self.assertEqual('xxh3_128', self.algorithm())
        self.flip(3)
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('sha256', self.algorithm())

    def test_a_stopped_change_waits_for_the_next_reading(self) -> None:
        self.scrub_file(algorithm='sha256', **self.stop_after(4))
        self.go_on()
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('xxh3_128', self.algorithm())
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('sha256', self.algorithm())

    def test_a_misread_gets_into_no_new_digest(self) -> None:
        self.misread_once(0)
        self.scrub_file(algorithm='sha256')
        self.assertEqual('sha256', self.algorithm())
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))

    def test_each_algorithm_finds_a_flipped_bit(self) -> None:
        for algorithm in digests.ALGORITHMS:
            self.assertIs(Verdict.GOOD, self.scrub_file(algorithm=algorithm))
            self.assertEqual(algorithm, self.algorithm())
            self.flip(7)
            self.assertIs(
                Verdict.CORRUPT, self.scrub_file(algorithm=algorithm)
            )
            self.flip(7)
            self.assertIs(Verdict.GOOD, self.scrub_file(algorithm=algorithm))


#: Calls of a scrub before which Nova may replace the file.
MOMENTS: list[tuple[Any, str]] = [
    (os, 'open'), (os, 'fsync'), (os, 'preadv'), (os, 'lseek'),
    (os, 'close'), (ledgers.Ledger, 'load'), (ledgers.Ledger, 'load_blocks'),
    (conclusions, 'conclude'), (base_file.BaseFile, 'guard'),
]  # fmt: skip

#: And those before which it may not.
GUARDED: list[tuple[Any, str]] = [
    (os, 'rename'), (base_file.BaseFile, 'same'),
]  # fmt: skip


@ddt.ddt
class IncarnationTest(scrubbing.OneFileTestCase):
    """Deleted and fetched anew, at every moment of a scrub."""

    def replace(self) -> None:
        """Do as stock Nova: the checksum stays, the bytes are others."""
        os.unlink(self.path)
        # ext4 and xfs give the inode to the next file.
        data = random.Random(99).randbytes(SIZE)
        self.node.add_base(self.name, data=data)

    def lock_is_free(self) -> bool:
        """Whether Nova could remove the file and fetch another now."""
        try:
            with locks.nova_lock(self.node.layout, self.name, blocking=False):
                return True
        except errors.Locked:
            return False

    def check(self, moment: tuple[Any, str], prepared: int) -> bool:
        """Replace the file at one moment; no verdict may cross over.

        :returns: whether there is such a moment
        """
        owner, function = moment
        for _scrub in range(prepared):
            self.scrub_file()
        real = getattr(owner, function)
        done: list[None] = []

        def hooked(*args: Any, **kwargs: Any) -> Any:
            if not done and self.lock_is_free():
                done.append(None)
                self.replace()
            return real(*args, **kwargs)

        with base.patched(owner, function, hooked):
            self.scrub_file()
        # Whatever was noted, it is not of the file that is there now.
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertIsNot(Verdict.CORRUPT, finding.verdict, str(moment))
            self.assertNotIn('rebaselined', finding.note)
        if prepared and done:
            # Of an image that does not change, one of the two is bad.
            self.assertIs(Verdict.DIFFERS, finding.verdict)
            self.assertNotEqual(self.sha1(), self.read_sidecar())
        else:
            self.assertIs(Verdict.GOOD, finding.verdict)
            self.assertEqual(self.sha1(), self.read_sidecar())
        return bool(done)

    def file_record(self) -> str:
        return self.node.layout.ledger(self.name)

    def renew(self) -> None:
        for trace in (self.path, self.sidecar, self.file_record()):
            if os.path.exists(trace):
                os.unlink(trace)
        self.node.add_base(self.name, data=self.data)

    @ddt.data(*MOMENTS)
    @ddt.unpack
    def test_no_verdict_ever_crosses_over(
        self, owner: Any, function: str
    ) -> None:
        replaced = []
        for prepared in (0, 1, 2):
            self.renew()
            replaced.append(self.check((owner, function), prepared))
        self.assertIn(True, replaced)

    @ddt.data(*GUARDED)
    @ddt.unpack
    def test_what_lasts_is_said_under_the_lock(
        self, owner: Any, function: str
    ) -> None:
        real = getattr(owner, function)
        free: list[bool] = []

        def hooked(*args: Any, **kwargs: Any) -> Any:
            free.append(self.lock_is_free())
            return real(*args, **kwargs)

        with base.patched(owner, function, hooked):
            for _scrub in range(3):
                self.scrub_file()
        self.assertEqual({False}, set(free))

    def test_known_damage_does_not_cross_over_either(self) -> None:
        self.scrub_file()
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.replace()
        self.assertIs(Verdict.UNKNOWN, self.known(self.name).finding.verdict)
        self.assertIs(Verdict.DIFFERS, self.scrub_file())


@ddt.ddt
class LockTest(scrubbing.OneFileTestCase):
    def test_a_file_that_is_being_fetched_is_not_read(self) -> None:
        self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        self.before_read(0, lambda: self.fail('it was read'))
        finding = self.scrub(self.name)
        self.assertTrue(finding.skipped)
        self.assertIn('lock', finding.note)

    def test_its_lock_is_free_while_it_is_read(self) -> None:
        def take() -> None:
            holder = processes.NovaProcess(self.node.layout.locks, self.name)
            holder.setUp()
            holder.cleanUp()

        self.before_read(3, take)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())

    def test_a_lock_held_at_the_end_costs_the_ledger_and_no_verdict(
        self,
    ) -> None:
        self.scrub_file()
        self.flip(3)

        def hold() -> None:
            self.useFixture(
                processes.NovaProcess(self.node.layout.locks, self.name)
            )

        self.before_read(3, hold)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertIn('cannot be kept', self.log.output)

    def test_a_lock_that_is_free_in_a_moment_is_waited_for(self) -> None:
        holder = processes.NovaProcess(self.node.layout.locks, self.name)

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                holder.cleanUp()
                return False

        self.before_read(3, holder.setUp)
        self.means = self.make_means(stop=Stop())
        self.scrub_file(patience=3600)
        self.assertTrue(os.path.exists(self.sidecar))
