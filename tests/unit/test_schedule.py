# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any

import ddt

from nova_imagecache import clocks
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import schedule
from tests.support import base

WEEK = 7 * base.DAY
GIB = 1024 * base.MIB
NOW = clocks.Instant(2e9, 1e8, 'this boot')


def ago(seconds: float, boot: str = 'this boot') -> clocks.Instant:
    return clocks.Instant(NOW.wall - seconds, NOW.boottime - seconds, boot)


def entry(
    name: str = 'f',
    size: int = GIB,
    seen: clocks.Instant | None = None,
    **fields: Any,
) -> schedule.Entry:
    """Make an entry; without fields of a ledger, it has none."""
    ledger = None
    if fields:
        ledger = dataclasses.replace(
            ledgers.Ledger.begin((1, 2, None), size, 'xxh3_128'),
            **fields,
        )
    known = knowledge.Knowledge(ledger=ledger)
    return schedule.Entry(name, size, known, seen)


def item(
    name: str = 'f',
    size: int = GIB,
    due: float = 0,
    deadline: float = base.DAY,
    age: float | None = None,
) -> schedule.Item:
    return schedule.Item(name, size, due, deadline, age)


@ddt.ddt
class DueTest(base.TestCase):
    def due(self, host: str | None = None, **fields: Any) -> float:
        return schedule.due_in(entry(**fields), WEEK, NOW, host).due

    def test_a_file_is_due_once_in_an_interval(self) -> None:
        self.assertEqual(1, self.due(read=ago(WEEK - 1)))
        self.assertEqual(0, self.due(read=ago(WEEK)))

    def test_no_host_reads_a_file_again_within_the_interval(self) -> None:
        for number in range(100):
            due = self.due(host=f'host{number}', read=ago(WEEK - 1))
            self.assertGreaterEqual(due, 1)
            self.assertLessEqual(due, 1 + WEEK / 10)

    def test_a_fleet_does_not_read_in_step(self) -> None:
        for fields in ({'read': ago(0)}, {'seen': ago(0)}):
            dues = sorted(
                self.due(host=f'host{number}', **fields)
                for number in range(100)
            )
            width = (
                min(WEEK / 10, base.HOUR) if 'seen' in fields else WEEK / 10
            )
            self.assertGreater(dues[-1] - dues[0], 0.9 * width)
            # No tenth of the hosts within a fiftieth of the time.
            for first, last in zip(dues, dues[10:], strict=False):
                self.assertGreater(last - first, width / 50)

    def test_the_lot_is_the_same_each_time(self) -> None:
        self.assertEqual(
            self.due(host='h', read=ago(5)), self.due(host='h', read=ago(5))
        )

    def test_a_first_reading_is_put_off_for_an_hour_at_most(self) -> None:
        for number in range(100):
            host = f'host{number}'
            self.assertLessEqual(self.due(host, seen=ago(base.HOUR)), 0)
        self.assertEqual(0, self.due(seen=ago(0)))

    def test_with_an_interval_of_zero_all_is_due(self) -> None:
        for fields in ({'seen': None}, {'read': ago(0), 'verified': ago(0)}):
            due = schedule.due_in(entry(**fields), 0, NOW, 'h').due
            self.assertLessEqual(due, 0)

    @ddt.data(
        {'read': ago(5), 'started': ago(1), 'position': 7},
        {'started': ago(1), 'position': 7},
        {'read': ago(5), 'unsettled': (ledgers.Run(0, 1),)},
    )
    def test_what_is_unfinished_is_due_at_once(
        self, fields: dict[str, Any]
    ) -> None:
        self.assertEqual(0, self.due('h', seen=ago(6), **fields))

    def test_a_checksum_never_compared_is_compared_within_a_day(self) -> None:
        known = entry(read=ago(5), sha1='a' * 40, stored='a' * 40)
        other = dataclasses.replace(known.known, stored='b' * 40)
        changed = known._replace(known=other)
        self.assertEqual(base.DAY - 5, schedule.due_in(changed, WEEK, NOW).due)

    def test_a_file_that_failed_is_tried_again_in_a_day(self) -> None:
        fields: dict[str, Any] = {'read': ago(WEEK), 'unreadable': 'EIO'}
        self.assertEqual(1, self.due(attempted=ago(base.DAY - 1), **fields))
        self.assertEqual(0, self.due(attempted=ago(base.DAY), **fields))

    def test_a_file_with_an_unreadable_block_is_tried_again_in_a_day(
        self,
    ) -> None:
        bad = (ledgers.BadBlocks(3, 1, ledgers.Damage.UNREADABLE),)
        self.assertEqual(1, self.due(read=ago(base.DAY - 1), bad=bad))
        bad = (ledgers.BadBlocks(3, 1, ledgers.Damage.CORRUPT),)
        self.assertLess(base.DAY, self.due(read=ago(base.DAY), bad=bad))

    def test_one_that_does_not_settle_is_tried_again_in_a_day(self) -> None:
        fields: dict[str, Any] = {
            'read': ago(5),
            'unsettled': (ledgers.Run(0, 1),),
        }
        self.assertEqual(0, self.due(**fields))
        # Somebody writes to it, or the disk does not give it.
        bad = (ledgers.BadBlocks(0, 1, ledgers.Damage.UNREADABLE),)
        for why in ({'suspect': True}, {'bad': bad}):
            self.assertEqual(base.DAY - 5, self.due(**fields, **why))

    def test_what_is_known_of_another_file_puts_nothing_off(self) -> None:
        fields: dict[str, Any] = {'read': ago(5), 'verified': ago(5)}
        asked = entry(question=True, **fields)
        found = schedule.due_in(asked, WEEK, NOW)
        self.assertEqual((0, None), (found.due, found.age))
        found = schedule.due_in(entry(**fields), WEEK, NOW)
        self.assertEqual((WEEK - 5, 5), (found.due, found.age))

    def test_what_failed_in_the_end_waits_though_it_is_unfinished(
        self,
    ) -> None:
        fields: dict[str, Any] = {'read': ago(9), 'started': ago(6)}
        unreadable = ledgers.BadBlocks(3, 1, ledgers.Damage.UNREADABLE)
        self.assertEqual(0, self.due(bad=(unreadable,), **fields))
        self.assertEqual(
            base.DAY - 5,
            self.due(unreadable='EIO', attempted=ago(5), **fields),
        )

    def test_a_file_that_failed_just_now_is_not_tried_again_at_once(
        self,
    ) -> None:
        fields: dict[str, Any] = {'read': ago(WEEK), 'unreadable': 'EIO'}
        self.assertEqual(base.DAY, self.due(attempted=ago(0), **fields))
        later = ago(-9, 'other boot')
        self.assertEqual(0, self.due(attempted=later, **fields))

    def test_a_second_try_has_a_tenth_of_the_interval(self) -> None:
        failed = entry(
            read=ago(WEEK), unreadable='EIO', attempted=ago(base.DAY - 1)
        )
        found = schedule.due_in(failed, WEEK, NOW)
        self.assertEqual(1 + WEEK / 10, found.deadline)

    def test_the_age_is_that_of_the_last_verification(self) -> None:
        for verified, age in ((ago(5), 5), (ago(0), 0), (ago(-5), 0)):
            found = schedule.due_in(
                entry(read=ago(7), verified=verified), WEEK, NOW
            )
            self.assertEqual(age, found.age)

    def test_what_is_seen_for_the_first_time_is_due_where_none_spreads_it(
        self,
    ) -> None:
        self.assertEqual(0, self.due())
        self.assertEqual(0, self.due(seen=ago(-5, 'other boot')))
        self.assertEqual(0, self.due('h', seen=ago(-5, 'other boot')))

    def test_a_ledger_without_a_reading_hurries_nothing(self) -> None:
        seen = ago(0)
        due = self.due('h', seen=seen)
        self.assertGreater(due, 0)
        self.assertEqual(due, self.due('h', seen=seen, position=0))

    @ddt.data((WEEK, WEEK), (0, 1))
    def test_what_a_newer_release_knows_of_is_not_due(
        self, case: tuple[float, float]
    ) -> None:
        interval, due = case
        newer = entry()._replace(known=knowledge.Knowledge(newer=True))
        found = schedule.due_in(newer, interval, NOW)
        self.assertEqual(
            (due, interval, None), (found.due, found.deadline, found.age)
        )


class ClockTest(base.TestCase):
    """The clock is set; nothing stalls, and nothing stampedes."""

    def items(self, now: clocks.Instant) -> list[schedule.Item]:
        """A hundred files, read evenly over the last interval."""
        entries = [
            entry(f'f{number}', read=ago(number * WEEK / 100),
                  verified=ago(number * WEEK / 100))
            for number in range(100)
        ]  # fmt: skip
        return [schedule.due_in(each, WEEK, now, 'h') for each in entries]

    def test_setting_the_clock_within_a_boot_changes_nothing(self) -> None:
        before = self.items(NOW)
        for year in (-365 * base.DAY, 365 * base.DAY):
            after = dataclasses.replace(NOW, wall=NOW.wall + year)
            self.assertEqual(before, self.items(after))

    def test_a_clock_that_is_back_a_year_after_a_reboot_does_not_stall(
        self,
    ) -> None:
        now = clocks.Instant(NOW.wall - 365 * base.DAY, 60, 'next boot')
        queue = schedule.queue(self.items(now))
        self.assertEqual(100, len(queue))
        # As much as in any week: all of it within the interval.
        rate = schedule.rate(queue, 100 * base.MIB)
        self.assertAlmostEqual(max(100 * GIB / WEEK, base.MIB), rate)

    def test_a_clock_that_is_on_a_year_after_a_reboot_keeps_the_limit(
        self,
    ) -> None:
        now = clocks.Instant(NOW.wall + 365 * base.DAY, 60, 'next boot')
        queue = schedule.queue(self.items(now))
        self.assertEqual(100, len(queue))
        self.assertEqual(8 * base.MIB, schedule.rate(queue, 8 * base.MIB))


class QueueTest(base.TestCase):
    def test_what_is_too_sparse_comes_after_all_others(self) -> None:
        sparse = item('a')._replace(sparse=True)
        items = [sparse, item('b', age=5), item('c')]
        self.assertEqual(
            ['c', 'b', 'a'], [each.name for each in schedule.queue(items)]
        )

    def test_whether_a_file_is_too_sparse_is_known_of_it(self) -> None:
        for sparse in (False, True):
            known = knowledge.Knowledge(sparse=sparse)
            found = schedule.Entry('f', GIB, known, None)
            self.assertIs(sparse, schedule.due_in(found, WEEK, NOW).sparse)

    def test_never_verified_comes_first_then_the_oldest(self) -> None:
        queue = schedule.queue(
            [
                item('a-young', age=5), item('b-old', age=9),
                item('c-never'), item('later', due=1, age=99),
            ]
        )  # fmt: skip
        self.assertEqual(
            ['c-never', 'b-old', 'a-young'], [each.name for each in queue]
        )

    def test_one_at_which_a_scrub_hung_comes_last(self) -> None:
        items = [item('a-young', age=5), item('b-old', age=9), item('c-never')]
        queue = schedule.queue(items, last='c-never')
        self.assertEqual(
            ['b-old', 'a-young', 'c-never'], [each.name for each in queue]
        )


class RateTest(base.TestCase):
    def test_it_is_what_is_due_divided_by_the_time_left(self) -> None:
        due = [item(size=20 * GIB, deadline=4096)]
        self.assertEqual(5 * base.MIB, schedule.rate(due, 8 * base.MIB))

    def test_the_worst_deadline_counts(self) -> None:
        due = [
            item(size=20 * GIB, deadline=8192),
            item(size=20 * GIB, deadline=4096),
            item(size=1, deadline=1e9),
        ]
        self.assertEqual(5 * base.MIB, schedule.rate(due, 8 * base.MIB))

    def test_it_is_never_more_than_the_limit(self) -> None:
        for deadline in (-5, 0, 1e-9, 10):
            due = [item(deadline=deadline)]
            self.assertEqual(8 * base.MIB, schedule.rate(due, 8 * base.MIB))

    def test_it_is_never_so_slow_that_a_reading_does_not_end(self) -> None:
        due = [item(size=1)]
        self.assertEqual(base.MIB, schedule.rate(due, 8 * base.MIB))
        self.assertEqual(1000, schedule.rate(due, 1000))

    def test_time_that_passes_makes_it_faster(self) -> None:
        due = [item(size=20 * GIB, deadline=8192)]
        self.assertEqual(
            5 * base.MIB, schedule.rate(due, 8 * base.MIB, elapsed=4096)
        )
        self.assertEqual(
            8 * base.MIB, schedule.rate(due, 8 * base.MIB, elapsed=8192)
        )

    def test_a_queue_is_through_when_its_deadline_comes(self) -> None:
        left = [item(str(number), deadline=1e4) for number in range(20)]
        now = 0.0
        while left:
            now += GIB / schedule.rate(left, 1e12, now)
            left.pop()
        self.assertAlmostEqual(1e4, now, delta=1)

    def test_no_limit_is_none(self) -> None:
        self.assertEqual(0, schedule.rate([item()], 0))
        self.assertEqual(0, schedule.needed([item()], 0))

    def test_what_is_needed_has_no_least(self) -> None:
        due = [item(size=base.MIB, deadline=base.DAY)]
        self.assertEqual(
            base.MIB / base.DAY, schedule.needed(due, 8 * base.MIB)
        )

    def test_what_is_needed_is_what_the_worst_deadline_needs(self) -> None:
        due = [
            item(size=20 * GIB, deadline=16384),
            item(size=20 * GIB, deadline=8192),
        ]
        self.assertEqual(
            5 * base.MIB, schedule.needed(due, 8 * base.MIB, 4096)
        )
        self.assertEqual(base.MIB, schedule.needed(due, base.MIB))

    def test_what_is_overdue_is_made_up_for_in_an_hour(self) -> None:
        for deadline in (-base.DAY, 0, 5):
            due = [item(size=GIB, deadline=deadline)]
            self.assertEqual(
                GIB / base.HOUR, schedule.needed(due, 8 * base.MIB)
            )


class CoverageTest(base.TestCase):
    def coverage(
        self, *entries: schedule.Entry, limit: float = 8 * base.MIB
    ) -> schedule.Coverage:
        return schedule.coverage(entries, WEEK, limit, NOW, 'h')

    def test_it_counts_bytes(self) -> None:
        coverage = self.coverage(
            entry('good', read=ago(5), verified=ago(5)),
            entry('first', read=ago(3)),
            entry('overdue', read=ago(2 * WEEK), verified=ago(2 * WEEK)),
            entry('new', seen=ago(2 * base.HOUR)),
        )
        self.assertEqual(4, coverage.files)
        self.assertEqual(4 * GIB, coverage.size)
        self.assertEqual(3 * GIB, coverage.digested)
        self.assertEqual(GIB, coverage.verified)
        self.assertEqual(2 * WEEK, coverage.oldest)
        self.assertEqual((2, 2 * GIB), (coverage.queue, coverage.queue_size))

    def test_a_file_that_is_due_but_not_overdue_is_still_covered(self) -> None:
        then = ago(WEEK * 1.05)
        coverage = self.coverage(entry(read=then, verified=then))
        self.assertEqual(GIB, coverage.verified)

    def test_nothing_is_covered_at_first(self) -> None:
        self.assertEqual(0, self.coverage(entry()).verified)
        self.assertIsNone(self.coverage(entry()).oldest)
        self.assertEqual(0, self.coverage().size)

    def test_a_limit_that_is_too_low_is_not_sufficient(self) -> None:
        cache = entry(size=int(WEEK * base.MIB))
        self.assertTrue(self.coverage(cache, limit=base.MIB).sufficient)
        self.assertFalse(self.coverage(cache, limit=base.MIB - 1).sufficient)
        self.assertTrue(self.coverage(cache, limit=0).sufficient)

    def test_a_file_that_was_only_begun_has_no_digests(self) -> None:
        begun = entry(started=ago(5), position=7)
        self.assertEqual(0, self.coverage(begun).digested)

    def test_a_file_that_is_to_be_read_again_is_still_covered(self) -> None:
        then = ago(3 * base.DAY)
        failed = entry(
            read=then, verified=then, unreadable='EIO', attempted=then
        )
        self.assertLess(schedule.due_in(failed, WEEK, NOW).deadline, 0)
        self.assertEqual(GIB, self.coverage(failed).verified)

    def test_with_an_interval_of_zero_any_verification_counts(self) -> None:
        then = ago(WEEK)
        coverage = schedule.coverage(
            [entry(read=then, verified=then)], 0, base.MIB, NOW
        )
        self.assertEqual(GIB, coverage.verified)
        self.assertEqual(0, coverage.needed)


@ddt.ddt
class OverdueTest(base.TestCase):
    """What is late is late, whatever has kept it from being read."""

    #: Seconds after which it is.
    LATE = 1.2 * WEEK

    def coverage(
        self, *entries: schedule.Entry, interval: float = WEEK
    ) -> schedule.Coverage:
        return schedule.coverage(entries, interval, 0, NOW)

    @ddt.data((0, 0), (1, 1))
    @ddt.unpack
    def test_a_file_is_when_it_was_not_read_for_so_long(
        self, later: float, count: int
    ) -> None:
        cases: tuple[dict[str, Any], ...] = (
            {'read': ago(self.LATE + later)},
            {'seen': ago(self.LATE + later)},
            # A reading that was begun, and never ends.
            {'read': ago(self.LATE + later), 'started': ago(5)},
            {'seen': ago(self.LATE + later), 'started': ago(5)},
        )
        for fields in cases:
            self.assertEqual(count, self.coverage(entry(**fields)).overdue)

    def test_what_was_read_of_an_earlier_file_does_not_count(self) -> None:
        late = entry(seen=ago(self.LATE + 1), read=ago(5), question=True)
        self.assertEqual(1, self.coverage(late).overdue)

    def test_with_no_interval_nothing_is(self) -> None:
        late = entry(read=ago(99 * WEEK))
        self.assertEqual(0, self.coverage(late, interval=0).overdue)

    def test_nor_is_what_a_newer_release_looks_after(self) -> None:
        known = knowledge.Knowledge(newer=True, blind=True)
        late = schedule.Entry('f', GIB, known, ago(99 * WEEK))
        self.assertEqual(0, self.coverage(late).overdue)

    def test_how_much_and_since_when_is_said(self) -> None:
        coverage = self.coverage(
            entry('a', 3 * GIB, read=ago(2 * WEEK)),
            entry('b', 2 * GIB, seen=ago(3 * WEEK)),
            entry('c', GIB, read=ago(WEEK)),
        )
        self.assertEqual(
            'verification is overdue: 2 files, 5120.0 MiB, of which b has '
            'waited since 2033-04-27 03:33+00:00; see what the scrub does in '
            'nova-imagecache status',
            schedule.overdue(coverage, NOW),
        )
        one = self.coverage(entry('a', GIB, read=ago(2 * WEEK)))
        self.assertIn('1 file, 1024.0 MiB', str(schedule.overdue(one, NOW)))
        self.assertIsNone(schedule.overdue(self.coverage(entry()), NOW))

    def test_of_nothing_all_figures_are_zero(self) -> None:
        self.assertEqual(
            schedule.Coverage(
                0, 0, 0, 0, None, 0, 0, 0, '', 0, 0, '', 0, 0, 0
            ),
            schedule.Coverage(),
        )
        self.assertEqual(schedule.Coverage(), self.coverage())
        self.assertEqual(0, item().waits)
        never = schedule.due_in(entry(), WEEK, NOW)
        self.assertEqual(0, never.waits)
