# SPDX-License-Identifier: Apache-2.0

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
    def after(
        self, wall: float, boottime: float, boot_id: str = 'a'
    ) -> str | None:
        return clocks.jump(
            BEFORE,
            clocks.Instant(
                BEFORE.wall + wall, BEFORE.boottime + boottime, boot_id
            ),
        )

    def test_time_that_passes_is_no_jump(self) -> None:
        self.assertIsNone(self.after(2400, 2400))

    def test_a_slewed_clock_is_no_jump(self) -> None:
        self.assertIsNone(self.after(2401.2, 2400))
        self.assertIsNone(self.after(30 * base.DAY + 1296, 30 * base.DAY))

    def test_a_step_forward_is_told(self) -> None:
        self.assertIn('forward by 86400 s', str(self.after(88800, 2400)))

    def test_a_step_back_is_told(self) -> None:
        self.assertIn('back by 86400 s', str(self.after(-84000, 2400)))

    def test_a_long_time_off_is_no_jump(self) -> None:
        self.assertIsNone(self.after(9 * base.DAY, 60 - base.DAY, 'b'))

    def test_a_step_back_over_a_reboot_is_told(self) -> None:
        told = str(self.after(-600, 60 - base.DAY, 'b'))
        self.assertIn('back by 660 s', told)

    def test_another_boot_id_alone_is_no_reboot(self) -> None:
        self.assertIsNone(self.after(2400, 2400, 'b'))

    def test_the_real_clock_does_not_jump(self) -> None:
        self.assertIsNone(clocks.jump(clocks.now(), clocks.now()))

    def test_a_step_within_the_tolerance_is_none(self) -> None:
        self.assertIsNone(self.after(60, 0))
        self.assertIsNone(self.after(2400 + 60, 2400))
        self.assertIn('forward', str(self.after(2400 + 63, 2400)))
        self.assertIn('back', str(self.after(2400 - 63, 2400)))

    @hypothesis.given(
        st.floats(0, 1e8), st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 2e5)
    )
    def test_any_large_step_is_told(self, real: float, step: float) -> None:
        self.assertIsNotNone(self.after(real + step, real))


class SkewTest(base.TestCase):
    """Our clock and that of the storage."""

    def test_clocks_that_agree_are_no_news(self) -> None:
        for apart in (-60, 0, 60):
            self.assertIsNone(clocks.skew(2e9 + apart, 2e9))

    def test_which_of_two_is_ahead_is_told(self) -> None:
        self.assertIn('61 s ahead of', str(clocks.skew(2e9 + 61, 2e9)))
        self.assertIn('61 s behind', str(clocks.skew(2e9 - 61, 2e9)))
