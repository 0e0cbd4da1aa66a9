# SPDX-License-Identifier: Apache-2.0

import dataclasses
from unittest import mock

import hypothesis
from hypothesis import strategies as st

from nova_imagecache import clocks
from tests.support import base

BEFORE = clocks.Instant(wall=1e9, boottime=base.DAY, boot_id='a')


class ElapsedTest(base.TestCase):
    def test_within_a_boot_only_the_time_since_boot_counts(self) -> None:
        after = clocks.Instant(BEFORE.wall + 9, BEFORE.boottime + 5, 'a')
        self.assertEqual(5, clocks.elapsed(BEFORE, after))

    def test_over_a_reboot_only_the_wall_clock_counts(self) -> None:
        after = clocks.Instant(BEFORE.wall + 9, 5, 'b')
        self.assertEqual(9, clocks.elapsed(BEFORE, after))
        self.assertEqual(-9, clocks.elapsed(after, BEFORE))


class JumpTest(base.TestCase):
    def after(self, wall: float, boottime: float, boot_id: str = 'a') -> float:
        return clocks.jump(
            BEFORE,
            clocks.Instant(
                BEFORE.wall + wall, BEFORE.boottime + boottime, boot_id
            ),
        )

    def test_time_that_passes_is_no_jump(self) -> None:
        self.assertEqual(0, self.after(2400, 2400))

    def test_a_slewed_clock_is_no_jump(self) -> None:
        self.assertEqual(0, self.after(2401.2, 2400))
        self.assertEqual(0, self.after(30 * base.DAY + 1296, 30 * base.DAY))

    def test_a_step_forward_is_told(self) -> None:
        self.assertEqual(86400, self.after(88800, 2400))

    def test_a_step_back_is_told(self) -> None:
        self.assertEqual(-86400, self.after(-84000, 2400))

    def test_a_long_time_off_is_no_jump(self) -> None:
        self.assertEqual(0, self.after(9 * base.DAY, 60 - base.DAY, 'b'))

    def test_a_step_back_over_a_reboot_is_told(self) -> None:
        self.assertEqual(-660, self.after(-600, 60 - base.DAY, 'b'))

    def test_another_boot_id_alone_is_no_reboot(self) -> None:
        self.assertEqual(0, self.after(2400, 2400, 'b'))

    def test_the_real_clock_does_not_jump(self) -> None:
        self.assertEqual(0, clocks.jump(clocks.now(), clocks.now()))

    def test_a_step_within_the_tolerance_is_none(self) -> None:
        self.assertEqual(0, self.after(60, 0))
        self.assertEqual(0, self.after(2400 + 60, 2400))
        self.assertEqual(63, self.after(2400 + 63, 2400))
        self.assertEqual(-63, self.after(2400 - 63, 2400))

    @hypothesis.given(
        st.floats(0, 1e8), st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 2e5)
    )
    def test_any_large_step_is_told(self, real: float, step: float) -> None:
        self.assertAlmostEqual(step, self.after(real + step, real), places=5)

    def test_which_way_it_went_and_what_follows_is_said(self) -> None:
        for seconds, words in ((61.4, 'forward by 61 s'), (-61, 'back by 61')):
            told = clocks.tell_jump(seconds)
            self.assertIn(words, told)
            self.assertIn('uncertain by as much', told)


class MachineTest(base.TestCase):
    def read(self, text: bytes | None) -> str | None:
        found = mock.mock_open(read_data=text)
        if text is None:
            found.side_effect = FileNotFoundError
        clocks.machine_id.cache_clear()
        self.addCleanup(clocks.machine_id.cache_clear)
        with mock.patch('builtins.open', found):
            return clocks.machine_id()

    def test_machines_are_told_apart_and_not_named(self) -> None:
        one, other = (self.read(each * 32 + b'\n') for each in (b'a', b'b'))
        self.assertNotEqual(one, other)
        self.assertNotIn('aaaa', str(one))
        self.assertEqual(one, self.read(b'a' * 32))

    def test_where_that_cannot_be_told_it_is_not(self) -> None:
        for text in (None, b'', b'uninitialized\n'):
            self.assertIsNone(self.read(text))


@dataclasses.dataclass
class Wall:
    """A wall clock that is set, and noticed by passes.

    :ivar true: seconds that have really passed
    """

    true: float = 0.0
    ahead: float = 0.0
    unnoticed: float = 0.0
    steps: tuple[clocks.Step, ...] = ()

    @property
    def now(self) -> float:
        return 1e9 + self.true + self.ahead

    def set(self, seconds: float) -> None:
        self.ahead += seconds
        self.unnoticed += seconds

    def notice(self) -> None:
        if self.unnoticed:
            step = clocks.Step(self.now, self.unnoticed, 'a')
            self.steps = clocks.with_step(self.steps, step)
        self.unnoticed = 0.0


#: To wait, to set the clock, to make a pass.
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 10 * base.DAY),
        st.none() | st.floats(-1e5, 1e5) | st.floats(-2e9, 2e9),
        st.floats(0, base.DAY),
    ),
    max_size=50,
)


class CertainAgeTest(base.TestCase):
    @hypothesis.given(EVENTS, st.integers(0, 49))
    def test_it_is_never_more_than_the_real_one(
        self, events: list[tuple[float, float | None, float]], use: int
    ) -> None:
        clock = Wall()
        used: tuple[float, float] | None = None
        for number, (before, step, after) in enumerate(events):
            clock.true += before
            if step is not None:
                clock.set(step)
            # A pass comes later, and the use may be in between.
            clock.true += after / 2
            if number == use:
                used = clock.true, clock.now
            clock.true += after / 2
            clock.notice()
            if used is not None:
                age = clocks.certain_age(used[1], clock.now, clock.steps)
                # Floats of this size have so many digits.
                self.assertLessEqual(age, clock.true - used[0] + 1e-3)

    @hypothesis.given(st.floats(0, 4e9), st.floats(0, 4e9))
    def test_without_steps_it_is_the_difference(
        self, since: float, now: float
    ) -> None:
        self.assertEqual(now - since, clocks.certain_age(since, now, ()))

    @hypothesis.given(
        st.floats(-base.DAY / 2 + 1, base.DAY / 2 - 1), st.integers(0, 40)
    )
    def test_it_grows_though_the_clock_is_set_once_a_day(
        self, step: float, before: int
    ) -> None:
        clock = Wall()
        used = clock.now
        for day in range(before + 3):
            if day == before:
                used = clock.now
            clock.true += base.DAY
            clock.set(step)
            clock.notice()
        age = clocks.certain_age(used, clock.now, clock.steps)
        self.assertGreater(age, base.DAY)

    def test_a_step_of_years_costs_no_more_than_to_begin_anew(self) -> None:
        clock = Wall()
        used = clock.now
        clock.set(50 * 365 * base.DAY)
        clock.notice()
        clock.true += 700
        age = clocks.certain_age(used, clock.now, clock.steps)
        self.assertEqual(700, age)
        # And it is set right again.
        clock.set(-50 * 365 * base.DAY)
        clock.notice()
        clock.true += 500
        age = clocks.certain_age(used, clock.now, clock.steps)
        self.assertEqual(500, age)

    def test_a_step_forward_costs_what_it_adds(self) -> None:
        clock = Wall()
        used = clock.now
        clock.true += base.DAY
        clock.set(base.HOUR)
        clock.notice()
        clock.true += base.HOUR
        age = clocks.certain_age(used, clock.now, clock.steps)
        self.assertEqual(25 * base.HOUR, age)

    def test_a_step_back_costs_what_it_takes(self) -> None:
        clock = Wall()
        used = clock.now
        clock.true += base.DAY
        clock.set(-base.HOUR)
        clock.notice()
        age = clocks.certain_age(used, clock.now, clock.steps)
        self.assertEqual(23 * base.HOUR, age)

    def test_nothing_is_counted_from_what_another_clock_showed(self) -> None:
        late = clocks.Step(1e9, 5.0, 'another machine')
        for boot, age in ((None, 1e9), ('a', 1e9 - 4)):
            self.assertEqual(
                age, clocks.certain_age(1e9 - 1, 2e9, (late,), boot)
            )

    def test_few_steps_are_kept_and_the_others_count_all_the_same(
        self,
    ) -> None:
        steps: tuple[clocks.Step, ...] = ()
        for number in range(100):
            step = clocks.Step(1e9 + number, 2.0 if number else -7.0, 'a')
            steps = clocks.with_step(steps, step)
        self.assertEqual(32, len(steps))
        self.assertEqual(198, sum(step.seconds for step in steps))
        age = clocks.certain_age(1e9, 2e9, steps)
        self.assertEqual(1e9 - 100 + 1, age)
        steps = clocks.with_step(steps, clocks.Step(1e9, -50.0, 'a'))
        for _step in range(40):
            steps = clocks.with_step(steps, clocks.Step(2e9, 0.0, 'a'))
        self.assertEqual(198, sum(step.seconds for step in steps))

    def test_a_use_of_the_moment_of_the_step_may_be_from_before_it(
        self,
    ) -> None:
        step = clocks.Step(1e9, 50.0, 'a')
        self.assertEqual(100, clocks.certain_age(1e9, 1e9 + 100, (step,)))
        late = clocks.Step(1e9 + 10, 20.0, 'a')
        self.assertEqual(90, clocks.certain_age(1e9, 1e9 + 100, (step, late)))
        self.assertEqual(
            30, clocks.certain_age(1e9, 1e9 + 100, (step, late), 'b')
        )


class SkewTest(base.TestCase):
    """Our clock and that of the storage."""

    def test_clocks_that_agree_are_no_news(self) -> None:
        for apart in (-60, 0, 60):
            self.assertEqual(0, clocks.skew(2e9 + apart, 2e9))

    def test_which_of_two_is_ahead_is_told(self) -> None:
        for apart, words in (
            (61, '61 s ahead of'), (-61, '61 s behind'),
        ):  # fmt: skip
            self.assertEqual(apart, clocks.skew(2e9 + apart, 2e9))
            self.assertIn(words, clocks.tell_skew(apart))
