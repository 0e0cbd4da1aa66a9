# SPDX-License-Identifier: Apache-2.0

import hypothesis
from hypothesis import strategies as st

from nova_imagecache import clocks
from tests.support import base

BEFORE = clocks.Instant(wall=1e9, boottime=base.DAY, boot_id='a')


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
        self.assertIn('back', str(self.after(-600, 60 - base.DAY, 'b')))

    def test_the_real_clock_does_not_jump(self) -> None:
        self.assertIsNone(clocks.jump(clocks.now(), clocks.now()))

    @hypothesis.given(
        st.floats(0, 1e8), st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 2e5)
    )
    def test_any_large_step_is_told(self, real: float, step: float) -> None:
        self.assertIsNotNone(self.after(real + step, real))
