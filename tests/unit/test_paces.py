# SPDX-License-Identifier: Apache-2.0

"""How many files go at a time."""

import functools
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

    def test_all_of_it_takes_less_than_a_second(self) -> None:
        for look in (0.01, 0.3, 0.55):
            began = self.now
            locking = self.pace.locking()
            self.pass_seconds(0.15)
            self.assertTrue(locking.is_over)
            acting = self.pace.look(functools.partial(self.pass_seconds, look))
            self.pass_seconds(0.2)
            self.assertFalse(acting.is_over)
            while not acting.is_over:
                self.pass_seconds(0.01)
            self.assertLess(self.now - began, 1)

    def test_a_quick_look_leaves_the_more_time_to_act(self) -> None:
        self.pace.locking()
        acting = self.pace.look(lambda: self.pass_seconds(0.01))
        self.pass_seconds(0.8)
        self.assertFalse(acting.is_over)

    def test_a_look_that_takes_long_is_not_most_of_it(self) -> None:
        acting = self.pace.look(lambda: self.pass_seconds(5))
        self.pass_seconds(4.9)
        self.assertFalse(acting.is_over)
        self.pass_seconds(0.1)
        self.assertTrue(acting.is_over)
        locking = self.pace.locking()
        self.pass_seconds(1.2)
        self.assertFalse(locking.is_over)
