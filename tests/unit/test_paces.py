# SPDX-License-Identifier: Apache-2.0

"""How many files go at a time."""

import itertools
import resource

from nova_imagecache.cache import paces
from tests.support import base


class PaceTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.pace = paces.Pace(lambda: self.now)

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds

    def look(self, seconds: float) -> paces.Deadline:
        with self.pace.looking():
            self.pass_seconds(seconds)
        return self.pace.acting()

    def test_a_batch_that_took_too_long_makes_the_next_smaller(self) -> None:
        self.pace.learn(tried=128, done=40)
        self.assertEqual(40, self.pace.size)

    def test_one_that_was_done_makes_it_larger(self) -> None:
        self.pace.learn(tried=128, done=40)
        before = self.pace.size
        self.pace.learn(tried=before, done=before)
        self.assertGreater(self.pace.size, before)

    def test_the_few_that_are_left_at_the_end_tell_nothing(self) -> None:
        self.pace.learn(tried=128, done=40)
        self.pace.learn(tried=5, done=5)
        self.assertEqual(40, self.pace.size)

    def test_a_batch_is_never_so_small_that_looking_is_all_that_is_done(
        self,
    ) -> None:
        self.pace.learn(tried=128, done=1)
        self.assertEqual(16, self.pace.size)

    def test_no_batch_takes_more_than_a_part_of_the_descriptors(self) -> None:
        self.patch(resource, 'getrlimit', lambda _: (2400, 4096))
        pace = paces.Pace(lambda: self.now)
        self.assertEqual(600, pace.size)
        pace.learn(pace.size, pace.size)
        self.assertEqual(600, pace.size)

    def test_no_lock_is_held_for_longer_than_a_second(self) -> None:
        for look, seconds in itertools.product(
            (0.01, 0.3, 0.5), (0.0, 0.1, 0.17)
        ):
            began = self.now
            locking = self.pace.locking()
            self.pass_seconds(seconds)
            since = self.now
            self.assertFalse(locking.is_over)
            while not locking.is_over:
                self.pass_seconds(0.01)
            acting = self.look(look)
            self.pass_seconds(0.19)
            self.assertFalse(acting.is_over_for(since))
            while not acting.is_over_for(since):
                self.pass_seconds(0.01)
            self.assertLess(self.now - since, 1)
            # Whoever was locked last may be done last.
            self.assertGreater(self.now - began, 0.83 + seconds)

    def test_a_quick_look_leaves_the_more_time_to_act(self) -> None:
        self.pace.locking()
        since = self.now
        acting = self.look(0.01)
        self.pass_seconds(0.8)
        self.assertFalse(acting.is_over_for(since))

    def test_a_look_that_took_long_leaves_less_time_to_lock(self) -> None:
        self.look(0.7)
        locking = self.pace.locking()
        self.pass_seconds(0.18)
        self.assertTrue(locking.is_over)

    def test_a_look_that_takes_long_is_not_most_of_it(self) -> None:
        since = self.now
        acting = self.look(5)
        self.pass_seconds(4.9)
        self.assertFalse(acting.is_over_for(since))
        self.pass_seconds(0.1)
        self.assertTrue(acting.is_over_for(since))
        locking = self.pace.locking()
        self.pass_seconds(1.2)
        self.assertFalse(locking.is_over)
