# SPDX-License-Identifier: Apache-2.0

import dataclasses

import ddt

from nova_imagecache import clocks
from nova_imagecache.heal import policies
from tests.support import base

NOON = clocks.Instant(1_000_000.0, 1000.0, 'boot')


def after(seconds: float) -> clocks.Instant:
    return clocks.Instant(NOON.wall + seconds, NOON.boottime + seconds, 'boot')


class RefusalTest(base.TestCase):
    def test_a_block_or_two_are_repaired(self) -> None:
        self.assertIsNone(policies.refusal([7], 100))
        self.assertIsNone(policies.refusal([7, 50], 100))

    def test_a_small_file_may_be_bad_in_most_of_its_blocks(self) -> None:
        self.assertIsNone(policies.refusal([0], 1))
        self.assertIsNone(policies.refusal([0, 1], 2))

    def test_many_blocks_in_a_row_are_one_place(self) -> None:
        self.assertIsNone(policies.refusal(range(10, 40), 100))

    def test_three_places_are_repaired_and_four_are_a_dying_disk(self) -> None:
        self.assertIsNone(policies.refusal([1, 3, 5], 100))
        self.assertIn('dying', policies.refusal([1, 3, 5, 7], 100) or '')

    def test_where_most_is_bad_the_baseline_may_be_wrong(self) -> None:
        self.assertIsNone(policies.refusal(range(4), 8))
        found = policies.refusal(range(5), 8) or ''
        self.assertIn('what is known of it may be what is wrong', found)
        self.assertIn('nova-imagecache repair', found)
        self.assertIsNotNone(policies.refusal(range(3), 5))
        self.assertIsNone(policies.refusal(range(2), 3))


@ddt.ddt
class BudgetTest(base.TestCase):
    @ddt.data((0, 20), (1, 10), (2, 5), (0.5, 14.142135623730951))
    @ddt.unpack
    def test_what_is_spent_is_halved_each_hour(
        self, hours: float, spent: float
    ) -> None:
        now = after(hours * 3600)
        self.assertAlmostEqual(spent, policies.spent(20, NOON, now))

    def test_before_the_first_repair_nothing_is_spent(self) -> None:
        self.assertEqual(0, policies.spent(0, None, NOON))

    def test_a_clock_that_goes_back_refills_nothing_and_takes_nothing(
        self,
    ) -> None:
        self.assertEqual(20, policies.spent(20, NOON, after(-3600)))
        self.assertEqual(0, policies.spent(-3, NOON, NOON))
        self.assertEqual(0, policies.spent(-3, None, NOON))

    @ddt.data((0, 20), (0.5, 19), (19, 1), (19.5, 0), (20, 0), (30, 0))
    @ddt.unpack
    def test_twenty_blocks_may_be_repaired(
        self, spent: float, left: int
    ) -> None:
        self.assertEqual(left, policies.left(spent))

    @ddt.data(1e308, float('inf'))
    def test_whatever_was_noted_there_is_an_end_to_it(
        self, spent: float
    ) -> None:
        self.assertEqual(2**20, policies.spent(spent, None, NOON))
        by_then = policies.spent(spent, NOON, after(17 * 3600))
        self.assertLess(0, policies.left(by_then))

    def test_a_clock_that_was_set_back_over_a_reboot_stops_nothing(
        self,
    ) -> None:
        """What was noted in a year to come refills from the boot on."""
        noted = dataclasses.replace(
            NOON, wall=NOON.wall + 10**9, boot_id='before'
        )
        booted = dataclasses.replace(NOON, boottime=3600.0)
        self.assertEqual(3600, policies.since(noted, booted))
        self.assertEqual(15, policies.spent(30, noted, booted))
        self.assertEqual(60, policies.since(NOON, after(60)))

    @ddt.data(0, 0.5, 500)
    def test_over_a_reboot_the_clock_is_believed_where_it_went_on(
        self, seconds: float
    ) -> None:
        noted = dataclasses.replace(
            NOON, wall=NOON.wall - seconds, boot_id='before'
        )
        self.assertEqual(seconds, policies.since(noted, NOON))

    def test_it_is_told_when_the_next_block_may_be(self) -> None:
        self.assertEqual(0, policies.refills_in(19))
        seconds = policies.refills_in(38)
        self.assertAlmostEqual(3600, seconds)
        by_then = policies.spent(38, NOON, after(seconds + 1))
        self.assertEqual(1, policies.left(by_then))


@ddt.ddt
class WaitTest(base.TestCase):
    @ddt.data((1, 600), (2, 1200), (4, 4800), (8, 76800), (9, 86400),
              (10**6, 86400), (0, 600))  # fmt: skip
    @ddt.unpack
    def test_the_wait_doubles_up_to_a_day(
        self, tries: int, seconds: float
    ) -> None:
        self.assertEqual(seconds, policies.wait(tries, 0.5))

    @ddt.data(129600.0, 1e300, float('inf'), float('nan'))
    def test_no_wait_is_longer_than_a_day_and_a_half(
        self, noted: float
    ) -> None:
        self.assertFalse(policies.is_over(NOON, noted, after(129599)))
        self.assertTrue(policies.is_over(NOON, noted, after(129600)))
        self.assertTrue(policies.is_over(NOON, 600, after(600)))

    def test_a_fleet_does_not_ask_in_step(self) -> None:
        self.assertEqual(300, policies.wait(1, 0))
        self.assertEqual(900, policies.wait(1, 1))

    @ddt.data((0, 3.75), (0.5, 5), (1, 6.25))
    @ddt.unpack
    def test_whether_there_is_an_image_is_asked_every_five_days_or_so(
        self, chance: float, days: float
    ) -> None:
        seconds = days * 86400
        self.assertTrue(policies.is_to_ask(seconds, chance))
        self.assertFalse(policies.is_to_ask(seconds - 1, chance))

    def test_what_fetched_much_for_nothing_waits_the_longer(self) -> None:
        """256 KiB/s at most, be it for whole images."""
        self.assertEqual(600, policies.wait(1, 0.5, 4 * 2**20))
        self.assertEqual(40960, policies.wait(1, 0.5, 10 * 2**30))
        self.assertEqual(76800, policies.wait(8, 0.5, 10 * 2**30))
        self.assertEqual(86400, policies.wait(1, 0.5, 100 * 2**30))
