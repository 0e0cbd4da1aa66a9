# SPDX-License-Identifier: Apache-2.0

import math

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.content import blockmap
from nova_imagecache.scrub import limiters
from tests.support import base

RATE = 8 * base.MIB
PIECE = limiters.SMALL_PIECE


class Time:
    """A monotonic clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds


class LimiterTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = Time()

    def limiter(self, rate: float = RATE) -> limiters.Limiter:
        return limiters.Limiter(rate, self.time.wait, self.time)

    def read(
        self, limiter: limiters.Limiter, *takes: float, length: int = PIECE
    ) -> float:
        """Read pieces that take so long; give how long that took in all."""
        start = self.time.now
        for seconds in takes:
            limiter.before(length)
            self.time.now += seconds
            limiter.after(length, seconds)
        return self.time.now - start


class LimiterTest(LimiterTestCase):
    def test_without_a_limit_nobody_waits(self) -> None:
        limiter = self.limiter(0)
        for _read in range(100):
            limiter.before(limiter.piece)
            limiter.after(PIECE, 60)
        self.assertEqual([], self.time.waited)

    def test_pieces_are_small_when_limited_and_large_when_not(self) -> None:
        self.assertEqual(256 * base.KIB, self.limiter().piece)
        self.assertEqual(blockmap.BLOCK_SIZE, self.limiter(0).piece)

    def test_the_rate_is_kept(self) -> None:
        limiter = self.limiter()
        start = self.time.now
        for _read in range(321):
            limiter.before(PIECE)
        # The first piece is free, the others are paid for.
        self.assertAlmostEqual(320 * PIECE / RATE, self.time.now - start)

    def test_two_who_read_at_once_read_one_after_the_other(self) -> None:
        waited: list[float] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 1:
                # Another thread, which comes while the first one waits.
                limiter.before(PIECE)

        limiter = limiters.Limiter(RATE, wait, self.time)
        for _read in range(2):
            limiter.before(PIECE)
        self.assertEqual([PIECE / RATE, 2 * PIECE / RATE], waited)

    def test_after_a_pause_there_is_no_burst(self) -> None:
        limiter = self.limiter()
        limiter.before(PIECE)
        self.time.now += 3600
        start = self.time.now
        pieces = 0
        while self.time.now - start < 1:
            limiter.before(PIECE)
            pieces += 1
        self.assertLessEqual(pieces * PIECE, 1.1 * RATE + 2 * PIECE)

    def test_a_fast_disk_costs_nothing_beyond_the_rate(self) -> None:
        limiter = self.limiter()
        start = self.time.now
        for _read in range(33):
            limiter.before(PIECE)
            self.time.now += 0.0001
            limiter.after(PIECE, 0.0001)
        self.assertAlmostEqual(
            32 * PIECE / RATE, self.time.now - start, places=2
        )

    def test_to_hash_zeros_takes_an_eighth_of_a_processor(self) -> None:
        limiter = self.limiter()
        for _part in range(100):
            limiter.hashed(0.01)
        self.assertAlmostEqual(7.0, sum(self.time.waited))

    def test_a_few_zeros_are_not_waited_for_one_by_one(self) -> None:
        limiter = self.limiter()
        for _part in range(10):
            limiter.hashed(0.001)
        self.assertEqual(3, len(self.time.waited))

    def test_without_a_limit_zeros_are_not_waited_for(self) -> None:
        self.limiter(0).hashed(60)
        self.assertEqual([], self.time.waited)

    @hypothesis.given(
        st.lists(st.floats(0, 3), min_size=1, max_size=50),
        st.floats(1e3, 1e9),
    )
    def test_no_second_ever_sees_more_than_rate_credit_and_a_piece(
        self, pauses: list[float], rate: float
    ) -> None:
        time = Time()
        limiter = limiters.Limiter(rate, time.wait, time)
        began = []
        for pause in pauses:
            time.now += pause
            limiter.before(PIECE)
            began.append(time.now)
        for start in began:
            within = [each for each in began if start <= each < start + 1]
            self.assertLessEqual(
                (len(within) - 1) * PIECE, 1.1 * rate + PIECE + 1
            )


class ThrottledDisk:
    """One of which the kernel gives so many bytes per second.

    What fits into a tenth of a second comes at once, and the rest waits for
    the next one, as in tg_within_bps_limit() of block/blk-throttle.c.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.start = self.end = -1.0
        self.given = 0

    def read(self, now: float) -> float:
        """Give for how long a piece takes that is asked for now."""
        if now > self.end:
            self.start, self.given = now, 0
        elapsed = now - self.start
        rounded = max(0.1, math.ceil(elapsed / 0.1) * 0.1)
        lacking = self.given + PIECE - rounded * self.rate
        wait = 0.0
        if lacking > 0:
            wait = lacking / self.rate + rounded - elapsed
        self.given += PIECE
        self.end = now + wait + 0.1
        return wait + 0.0005


@ddt.ddt
class SlowDiskTest(LimiterTestCase):
    """Nobody else uses the disk, however slow it is."""

    def assert_not_yielding(self, takes: list[float]) -> None:
        """See that of what disk and limit allow, nine tenths are read."""
        took = self.read(self.limiter(), *takes)
        able = max(sum(takes), len(takes) * PIECE / RATE)
        self.assertGreaterEqual(able / took, 0.9)

    @ddt.data(0.0001, 0.012, 0.031, 0.0625, 0.25, 1.0)
    def test_a_disk_that_always_takes_so_long_is_read_at_what_it_gives(
        self, seconds: float
    ) -> None:
        self.assert_not_yielding([seconds] * 2000)

    @ddt.data(16, 8, 4, 2, 1)
    def test_a_disk_that_is_throttled_is_read_at_what_it_gives(
        self, rate: float
    ) -> None:
        disk, limiter = ThrottledDisk(rate * base.MIB), self.limiter()
        start = self.time.now
        for _piece in range(2000):
            limiter.before(PIECE)
            seconds = disk.read(self.time.now)
            self.time.now += seconds
            limiter.after(PIECE, seconds)
        reached = 2000 * PIECE / (self.time.now - start)
        self.assertGreaterEqual(reached, 0.9 * min(disk.rate, RATE))

    def test_a_disk_that_is_throttled_to_the_limit_is_read_at_it(self) -> None:
        """It is quick, until what has been read is a bit more than that."""
        takes = [0.0002] * 150 + [0.0002, 0.0002, 0.0002, 0.032] * 300
        took = self.read(self.limiter(), *takes)
        self.assertGreaterEqual(len(takes) * PIECE / took, 0.9 * RATE)

    @ddt.data(
        # What the disk has in its memory, and what not.
        [0.0003, 0.0003, 0.0003, 0.012],
        # Half of the reads seek.
        [0.0003, 0.008],
    )
    def test_a_disk_that_takes_longer_at_times_is_not_busy(
        self, takes: list[float]
    ) -> None:
        self.assert_not_yielding(takes * 500)

    def test_the_tail_of_a_file_makes_no_disk_look_busy(self) -> None:
        limiter = self.limiter()
        for _file in range(50):
            self.read(limiter, 0.0001, length=4096)
            self.read(limiter, 0.012)
        self.assertLess(max(self.time.waited), 2 * PIECE / RATE)

    def test_a_disk_that_has_become_slower_for_good_is_slow(self) -> None:
        limiter = self.limiter(base.MIB)
        self.read(limiter, *[0.001] * 2000)
        self.read(limiter, *[0.1] * 3000)
        self.time.waited.clear()
        self.read(limiter, *[0.1] * 100)
        self.assertLess(max(self.time.waited), PIECE / base.MIB)


class BusyDiskTest(LimiterTestCase):
    """Somebody else uses the disk."""

    def quiet_limiter(self) -> limiters.Limiter:
        """Give one that has seen the disk when it was left alone."""
        limiter = self.limiter()
        self.read(limiter, *[0.01] * 800)
        self.time.waited.clear()
        return limiter

    def test_it_is_left_alone_ten_times_as_long(self) -> None:
        limiter = self.quiet_limiter()
        self.read(limiter, 0.5, 0)
        # An eighth of what eight may take, at this rate.
        kept = 1.25 * PIECE / RATE
        self.assertAlmostEqual(10 * (0.5 - kept), self.time.waited[-1])

    def test_below_what_the_rate_leaves_for_it_a_quick_disk_tells(
        self,
    ) -> None:
        limiter = self.limiter(100 * RATE)
        self.read(limiter, *[0.01] * 800)
        self.read(limiter, 0.5, 0)
        self.assertAlmostEqual(10 * (0.5 - 2 * 0.01), self.time.waited[-1])

    def test_small_delays_add_up(self) -> None:
        limiter = self.quiet_limiter()
        self.read(limiter, *[0.06] * 6, 0)
        held_up = 6 * (0.06 - 1.25 * PIECE / RATE)
        self.assertAlmostEqual(10 * held_up, self.time.waited[-1], delta=0.01)

    def test_a_disk_that_is_busy_for_minutes_is_left_to_others(self) -> None:
        limiter = self.quiet_limiter()
        takes = [0.1] * 400
        took = self.read(limiter, *takes)
        self.assertLess(sum(takes) / took, 0.15)

    def test_a_read_that_hung_does_not_stop_it_for_hours(self) -> None:
        limiter = self.quiet_limiter()
        self.read(limiter, 3600, 0)
        self.assertAlmostEqual(10.0, self.time.waited[-1])

    def test_what_is_read_in_small_pieces_yields_as_well(self) -> None:
        limiter = self.limiter()
        self.read(limiter, *[0.001] * 800, length=4096)
        self.time.waited.clear()
        self.read(limiter, 0.5, 0, length=4096)
        self.assertAlmostEqual(10 * (0.5 - 2 * 0.001), self.time.waited[-1])

    def test_it_never_yields_below_the_rate_that_it_needs(self) -> None:
        limiter = self.quiet_limiter()
        limiter.needed = 2 * base.MIB
        took = self.read(limiter, *[0.1] * 400)
        self.assertGreaterEqual(400 * PIECE / took, 0.95 * limiter.needed)
        self.assertLess(400 * PIECE / took, 1.2 * limiter.needed)

    def test_a_long_delay_is_not_made_up_for_at_the_expense_of_others(
        self,
    ) -> None:
        limiter = self.quiet_limiter()
        limiter.needed = base.MIB
        self.read(limiter, 3600)
        takes = [0.1] * 400
        self.assertLess(sum(takes) / self.read(limiter, *takes), 0.6)
