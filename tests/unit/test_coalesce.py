# SPDX-License-Identifier: Apache-2.0

"""One answer for all who ask at the same time."""

import concurrent.futures
from typing import Any

from nova_imagecache import coalesce
from tests.support import base
from tests.support import turns


class CoalescedTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.calls: list[int] = []
        self.turn = turns.Turn(6)
        self.outcomes: list[Any] = []
        self.coalesced = coalesce.Coalesced(self.call)
        self.patch(self.coalesced, '_turn', self.turn)

    def call(self) -> int:
        self.calls.append(len(self.calls))
        if len(self.calls) == 1:
            self.turn.wait_for_all()
        if self.outcomes:
            raise self.outcomes.pop()
        return self.calls[-1]

    def ask_at_once(self) -> list[Any]:
        """Ask six times, all of them before the first has its answer."""
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(self.coalesced) for _caller in range(6)]
        return [each.exception() or each.result() for each in asked]

    def test_those_who_come_meanwhile_share_one_more_call(self) -> None:
        self.assertEqual([0, 1, 1, 1, 1, 1], sorted(self.ask_at_once()))
        self.assertEqual([0, 1], self.calls)

    def test_what_is_raised_is_shared_too(self) -> None:
        self.outcomes += [KeyError('second'), KeyError('first')]
        answers = [each.args[0] for each in self.ask_at_once()]
        self.assertEqual(['first'] + ['second'] * 5, sorted(answers))
        self.assertEqual([0, 1], self.calls)

    def test_one_that_is_killed_is_shared_with_nobody(self) -> None:
        killed = SystemExit()

        def call() -> int:
            if not self.calls:
                self.calls.append(1)
                raise killed
            return 2

        coalesced = coalesce.Coalesced(call)
        self.assertIs(killed, self.assertRaises(SystemExit, coalesced))
        self.assertEqual(2, coalesced())

    def test_who_comes_later_gets_an_answer_of_its_own(self) -> None:
        coalesced = coalesce.Coalesced(lambda: self.calls.append(1))
        coalesced()
        coalesced()
        self.assertEqual([1, 1], self.calls)

    def test_patience_has_an_end(self) -> None:
        coalesced = coalesce.Coalesced(lambda: None)
        with coalesced._turn:
            self.assertRaises(TimeoutError, coalesced, 0.01)
        coalesced(0.01)
