# SPDX-License-Identifier: Apache-2.0

"""A whole cache is scrubbed, in this process."""

import errno
import itertools
import os
import threading
from typing import Any

from nova_imagecache.cache import coordination
from nova_imagecache.cache import publish as publishing
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import scrubber
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing

Verdict = scrubbing.Verdict

WEEK = 7 * base.DAY


class ScrubberTest(scrubbing.ScrubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, checksum_interval=WEEK)
        self.stop = threading.Event()

    def scrubber(self, **kwargs: Any) -> scrubber.Scrubber:
        means = self.make_means(
            limiter=limiters.Limiter(wait=self.stop.wait),
            stop=self.stop,
            ahead=True,
        )
        return scrubber.Scrubber(
            self.node.settings, means, self.node.clock, **kwargs
        )

    def names(self) -> list[str]:
        """Scrub what is due; give the names, in order."""
        return [result.name for result in self.scrubber().run()]

    def test_what_is_seen_for_the_first_time_is_read_an_hour_later(
        self,
    ) -> None:
        name = self.node.add_image('x')
        one = self.scrubber()
        self.assertEqual([], list(one.run()))
        assert one.next is not None
        self.assertEqual(name, one.next.name)
        self.node.clock.advance(base.HOUR)
        self.assertEqual([name], self.names())
        self.assertTrue(os.path.exists(self.node.base_path(name) + '.sha1'))

    def test_each_file_is_read_once_per_interval(self) -> None:
        name = self.node.add_image('x')
        self.names()
        self.node.clock.advance(base.HOUR)
        self.assertEqual([name], self.names())
        for _day in range(7):
            self.assertEqual([], self.names())
            self.node.clock.advance(base.DAY - 1)
        self.node.clock.advance(base.DAY)
        self.assertEqual([name], self.names())
        self.assertIs(Verdict.GOOD, self.known(name).finding.verdict)

    def test_never_verified_comes_first_then_the_oldest(self) -> None:
        self.node.configure(checksum_interval=0)
        old, young = 'swap_1', 'swap_2'
        for name in (young, old):
            self.node.add_base(name)
            self.names()
        self.node.clock.advance(5)
        for name in (old, young):
            self.scrub(name)
            self.node.clock.advance(5)
        new = self.node.add_image('new')
        self.assertEqual([new, old, young], self.names())

    def test_a_resized_file_is_not_read_when_it_is_first_seen(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x') + '_20'
        self.node.add_base(name)
        self.assertNotIn(name, self.names())
        self.assertIn(name, self.names())

    def test_a_file_that_fails_does_not_keep_the_others(self) -> None:
        self.node.configure(checksum_interval=0)
        names = sorted(self.node.add_image(str(i)) for i in range(3))
        os.unlink(self.node.base_path(names[1]))
        os.mkdir(self.node.base_path(names[1]))
        self.node.add_base('f' * 40 + '.part')
        self.assertEqual([names[0], names[2]], self.names())

    def test_a_damaged_state_is_no_reason_to_stop(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.node.layout.state, 'w') as file:
            file.write('garbage')
        self.assertEqual([name], self.names())

    def test_only_one_is_at_work_in_a_cache(self) -> None:
        with coordination.coordinator(self.node.layout).turn():
            self.assertRaises(errors.Locked, self.names)

    def test_told_to_stop_it_ends_and_says_so(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')
        self.stop.set()
        one = self.scrubber()
        self.assertEqual([], list(one.run()))
        self.assertEqual('it was told to stop', one.activity.reason)

    def test_what_it_does_is_noted(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')
        list(self.scrubber().run())
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertEqual(
            (1, 64 * base.KIB, None, 'nothing more is due'),
            (last.files, last.read, last.current, last.reason),
        )
        self.assertIsNotNone(last.ended)

    def test_a_note_that_is_garbage_is_none(self) -> None:
        self.assertIsNone(activities.load(self.node.layout))
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.node.layout.scrub, 'w') as file:
            file.write('garbage')
        self.assertIsNone(activities.load(self.node.layout))

    def test_it_reads_no_faster_than_it_must_to_be_in_time(self) -> None:
        self.node.configure(scrub_bandwidth=8 * base.MIB, checksum_interval=0)
        self.patch(schedule, 'LEAST_RATE', 1)
        self.patch(schedule, '_FIRST_GRACE_SECONDS', 1000)
        self.node.add_image('x', data=b'x' * 640 * base.KIB)
        # A wait ends the test.
        self.patch(self.stop, 'wait', lambda timeout=None: self.stop.set())
        one = self.scrubber()
        list(one.run())
        self.assertAlmostEqual(655.36, one.activity.rate, places=1)
        # Be it that others use the disk.
        self.assertAlmostEqual(
            640 * base.KIB / base.HOUR, one._means.limiter.needed, places=1
        )

    def test_a_reboot_before_the_first_reading_makes_a_file_suspect(
        self,
    ) -> None:
        name = self.node.add_image('x')
        clock = self.node.clock
        # Made in the boot that is now.
        clock.boottime = 1e9
        self.node.run(inline=False)
        self.names()
        clock.advance(base.HOUR)
        clock.boot_id = 'next boot'
        # The host has been seen in its new boot.
        self.node.run(inline=False)
        self.assertEqual([name], self.names())
        self.assertTrue(self.ledger(name).suspect)

    def test_a_file_read_in_the_boot_it_was_made_in_is_not(self) -> None:
        name = self.node.add_image('x')
        self.node.configure(remove_unused=False)
        self.node.clock.boottime = 1e9
        self.node.run(inline=False)
        self.node.clock.advance(base.HOUR)
        self.names()
        self.node.clock.boot_id = 'next boot'
        self.node.clock.advance(2 * WEEK)
        self.node.run(inline=False)
        self.names()
        self.assertFalse(self.ledger(name).suspect)

    def test_a_file_older_than_the_boot_that_first_saw_it_is_suspect(
        self,
    ) -> None:
        name = self.node.add_image('x')
        self.node.clock.boottime = -base.HOUR
        self.node.run(inline=False)
        self.node.clock.advance(base.HOUR)
        self.names()
        self.assertTrue(self.ledger(name).suspect)

    def test_a_ledger_and_a_checksum_that_are_gone_were_lost(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        self.names()
        self.node.run(inline=False)
        os.unlink(self.node.base_path(name) + '.sha1')
        os.unlink(self.node.layout.ledger(name))
        nodes.flip_bit(self.node.base_path(name))
        (result,) = self.scrubber().run()
        self.assertIn('rebaselined on', result.finding.note)
        self.assertFalse(
            os.path.exists(self.node.layout.ledger(name) + '.damaged')
        )

    def test_what_cannot_be_read_for_want_of_a_lock_is_noted(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        self.node.add_file('locks')
        list(self.scrubber().run())
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertEqual(0, last.files)
        self.assertIn(name, last.problems[0])
        self.assertIn('lock', last.problems[0])

    def test_a_sound_file_is_no_problem(self) -> None:
        """Neither when it is read first, nor when it is compared."""
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')
        for verdict in (Verdict.UNKNOWN, Verdict.GOOD):
            (result,) = self.scrubber().run()
            self.assertIs(verdict, result.finding.verdict)
            last = activities.load(self.node.layout)
            assert last is not None
            self.assertEqual((1, ()), (last.files, last.problems))

    def test_what_has_come_meanwhile_has_its_turn(self) -> None:
        self.node.configure(checksum_interval=0)
        self.patch(queues, '_REQUEUE_SECONDS', -1)
        self.patch(queues, 'BOOKS_FACTOR', 0)
        first = [self.node.add_image(str(number)) for number in range(3)]
        found = []
        for result in self.scrubber().run():
            found.append(result.name)
            if len(found) == 1:
                new = self.node.add_image('new')
        self.assertEqual(sorted([*first, new]), sorted(found))

    def test_what_could_not_be_kept_is_not_read(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')

        # Mocked: tests/node/test_medium.py has a file system that is full.
        def publish(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(publishing, 'prepared', publish)
        self.before_read(0, lambda: self.fail('it was read'))
        self.assertRaises(OSError, self.names)

    def test_a_file_older_than_the_boot_is_suspect_at_first_sight(
        self,
    ) -> None:
        name = self.node.add_image('x')
        self.node.clock.boottime = -base.HOUR
        self.node.make_pass().verify_now([name])
        self.assertTrue(self.ledger(name).suspect)

    def test_a_sighting_is_not_lost_when_a_scrub_adds_others(self) -> None:
        first = self.node.add_image('x')
        self.names()
        before = states.load(self.node.layout).files[first]
        self.node.clock.advance(5)
        self.node.add_image('y')
        self.names()
        after = states.load(self.node.layout).files
        self.assertEqual(before, after[first])
        self.assertEqual(2, len(after))

    def test_files_that_are_due_alike_are_read_by_name(self) -> None:
        names = sorted(self.node.add_image(str(number)) for number in range(9))
        # A clock that goes on while the files are looked at.
        real = self.node.clock

        def clock() -> clocks.Instant:
            real.advance(0.001)
            return real()

        self.node.configure(checksum_interval=0)
        one = scrubber.Scrubber(self.node.settings, self.make_means(), clock)
        self.assertEqual(names, [result.name for result in one.run()])

    def test_verify_begins_at_the_start_of_a_file(self) -> None:
        data = os.urandom(9 * scrubbing.BLOCK)
        name = self.node.add_image('x', data=data)
        self.scrub(name, **self.stop_after(4))
        self.go_on()
        self.node.make_pass().verify_now([name])
        # Which takes a reading from start to end.
        self.assertTrue(os.path.exists(self.node.base_path(name) + '.sha1'))

    def test_what_cannot_be_kept_is_noted(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        list(self.scrubber().run())

        # Mocked: a disk that is full for ledgers alone.
        def save(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(ledgers.Ledger, 'prepared', save)
        list(self.scrubber().run())
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertIn(name, last.problems[0])
        self.assertIn('cannot be kept', last.problems[0])

    def test_what_must_not_be_lost_is_noted_where_only_scrubs_run(
        self,
    ) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        self.names()
        for path in (
            self.node.layout.ledger(name),
            f'{self.node.base_path(name)}.sha1',
        ):
            os.unlink(path)
        self.names()
        self.assertIsNotNone(self.ledger(name).rebaselined)
        # And once more, as the ledger that says so may be lost as well.
        sighting = states.load(self.node.layout).files[name]
        self.assertEqual(self.ledger(name).rebaselined, sighting.rebaselined)

    def hang(self, name: str, then_stop: bool = False) -> None:
        """Let reading a file hang until the test ends."""
        self.patch(readers, '_POLL_SECONDS', 0.01)
        self.patch(readers, '_PATIENCE_SECONDS', 0.01)
        over = threading.Event()
        self.addCleanup(over.set)
        hangs = os.stat(self.node.base_path(name)).st_ino
        real = self.pread

        # Mocked: a disk that hangs.
        def pread(fd: int, buffers: Any, offset: int) -> int:
            if os.fstat(fd).st_ino == hangs:
                if then_stop:
                    self.stop.set()
                over.wait()
            return real(fd, buffers, offset)

        self.pread = pread

    def test_the_rate_is_reckoned_once_a_second_however_many_files(
        self,
    ) -> None:
        self.node.configure(checksum_interval=0)
        names = [self.node.add_image(str(number)) for number in range(9)]
        reckoned: list[int] = []
        real = schedule.rate

        def rate(due: Any, *args: Any) -> float:
            reckoned.append(len(due))
            return real(due, *args)

        self.patch(schedule, 'rate', rate)
        seconds = [0.0]
        one = self.scrubber(monotonic=lambda: seconds[0])
        for number, _result in enumerate(one.run()):
            # The fourth file begins a second after the first one.
            seconds[0] += 1.0 if number == 2 else 0.0
        self.assertEqual([len(names), len(names) - 3], reckoned)

    def test_books_take_a_twentieth_of_the_time_however_many_files(
        self,
    ) -> None:
        """A queue that takes long to make, or to go through, waits for it."""
        self.node.configure(checksum_interval=0)
        for number in range(150):
            self.node.add_image(str(number), data=b'x')
        seconds = [0.0]
        made: list[float] = []
        reckoned: list[float] = []

        def slow(owner: Any, name: str, noted: list[float]) -> None:
            real = getattr(owner, name)

            def take_a_while(*args: Any) -> Any:
                noted.append(seconds[0])
                seconds[0] += 10.0
                return real(*args)

            self.patch(owner, name, take_a_while)

        slow(queues.Queue, '_sight', made)
        slow(schedule, 'rate', reckoned)
        one = self.scrubber(monotonic=lambda: seconds[0])
        for _result in one.run():
            # That each file takes.
            seconds[0] += 5.0
        pauses = [later - one for one, later in itertools.pairwise(made)]
        self.assertGreaterEqual(min(pauses), 200)
        self.assertGreater(len(made), 2)
        # Each new queue has its rate.
        self.assertLessEqual(len(reckoned), len(made) + seconds[0] / 200)

    def test_it_gives_way_to_a_verification_within_a_block(self) -> None:
        self.node.configure(checksum_interval=0)
        self.patch(limiters, 'LARGE_PIECE', 4096)
        name = self.node.add_image('x', data=b'x' * scrubbing.BLOCK)
        self.patch(scrubber, '_PULSE_SECONDS', 0)
        self.patch(coordination.LockFiles, 'wanted', lambda self: True)
        one = self.scrubber()
        self.assertEqual([name], [result.name for result in one.run()])
        self.assertIn('gave way', str(one.activity.reason))
        self.assertLess(one.activity.read, scrubbing.BLOCK)

    def test_a_read_that_hangs_does_not_keep_the_others(self) -> None:
        self.node.configure(checksum_interval=0)
        names = sorted(self.node.add_image(str(i)) for i in range(3))
        self.names()
        self.hang(names[0])
        self.patch(readers, '_HUNG_SECONDS', 0.05)
        hung, *others = self.scrubber().run()
        self.assertEqual(names[0], hung.name)
        self.assertEqual(
            [Verdict.GOOD] * 2, [each.finding.verdict for each in others]
        )
        last = activities.load(self.node.layout)
        assert last is not None
        (problem,) = last.problems
        self.assertIn(f'{names[0]}: ', problem)
        self.assertIn('a read has hung', problem)
        self.assertEqual([*names[1:], names[0]], self.names())

    def test_one_that_hung_when_it_was_told_to_stop_comes_last(self) -> None:
        self.node.configure(checksum_interval=0)
        names = sorted(self.node.add_image(str(i)) for i in range(3))
        self.hang(names[0], then_stop=True)
        self.assertEqual([names[0]], self.names())
        self.stop.clear()
        self.assertEqual([*names[1:], names[0]], self.names())

    def test_one_at_which_it_was_killed_comes_last_once(self) -> None:
        self.node.configure(checksum_interval=0)
        names = sorted(self.node.add_image(str(i)) for i in range(3))
        now = self.node.clock()
        activities.save(
            self.node.layout,
            activities.Activity('h', now, now, current=names[0]),
        )
        self.assertEqual([*names[1:], names[0]], self.names())
        self.assertEqual(names, self.names())

    def test_what_is_noted_is_not_noted_again(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')
        self.names()
        before = states.version_of(self.node.layout)
        self.names()
        self.assertEqual(before, states.version_of(self.node.layout))
