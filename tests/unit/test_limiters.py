# SPDX-License-Identifier: Apache-2.0

import hypothesis
from hypothesis import strategies as st

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


class LimiterTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = Time()

    def limiter(self, rate: float = RATE) -> limiters.Limiter:
        return limiters.Limiter(rate, self.time.wait, self.time)

    def test_without_a_limit_nobody_waits(self) -> None:
        limiter = self.limiter(0)
        for _read in range(100):
            limiter.before(limiter.piece)
            limiter.after(PIECE, 60)
        self.assertEqual([], self.time.waited)

    def test_pieces_are_small_when_limited_and_large_when_not(self) -> None:
        self.assertEqual(256 * base.KIB, self.limiter().piece)
        self.assertEqual(4 * base.MIB, self.limiter(0).piece)

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

    def test_a_slow_disk_that_is_idle_is_read_at_the_rate(self) -> None:
        limiter = self.limiter(base.MIB)
        start = self.time.now
        for _read in range(33):
            limiter.before(PIECE)
            self.time.now += 0.012
            limiter.after(PIECE, 0.012)
        self.assertAlmostEqual(8.0, self.time.now - start, delta=0.2)

    def test_a_disk_that_is_busy_all_the_time_is_left_alone_too(self) -> None:
        limiter = self.limiter()
        for _read in range(3):
            limiter.before(PIECE)
            self.time.now += 0.5
            limiter.after(PIECE, 0.5)
        self.assertAlmostEqual(4.7, self.time.waited[-1])

    def test_the_tail_of_a_file_makes_no_disk_look_busy(self) -> None:
        limiter = self.limiter()
        limiter.after(4096, 0.0001)
        limiter.before(PIECE)
        self.time.now += 0.012
        limiter.after(PIECE, 0.012)
        limiter.before(PIECE)
        self.assertLess(self.time.waited[-1], PIECE / RATE)

    def test_a_busy_disk_is_left_alone_ten_times_as_long(self) -> None:
        limiter = self.limiter()
        limiter.before(PIECE)
        limiter.after(PIECE, 0.01)
        self.time.now += 0.5
        limiter.after(PIECE, 0.5)
        limiter.before(PIECE)
        self.assertAlmostEqual(
            10 * (0.5 - 2 * 0.01), self.time.waited[-1], delta=0.01
        )

    def test_a_read_that_hung_does_not_stop_the_scrub_for_hours(self) -> None:
        limiter = self.limiter()
        limiter.after(PIECE, 0.001)
        limiter.after(PIECE, 3600)
        limiter.before(PIECE)
        self.assertAlmostEqual(10.0, self.time.waited[-1])

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
