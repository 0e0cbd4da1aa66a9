# SPDX-License-Identifier: Apache-2.0

"""The same for each of many."""

from collections.abc import Callable
import threading
import types

import ddt
import testtools

from nova_imagecache import pools
from nova_imagecache import stopwatches
from tests.support import processes


def _double(item: int) -> int:
    return 2 * item


@ddt.ddt
class EachTest(testtools.TestCase):
    """Results, in which order and from which threads."""

    def always_slow(self) -> None:
        self.patch(pools, '_SLOW_SECONDS', -1.0)

    @ddt.data(0, 1, 2, 8, 9, 1000)
    def test_results_come_in_the_order_of_the_items(self, number: int) -> None:
        self.always_slow()
        items = range(number)
        self.assertEqual(
            [_double(item) for item in items],
            [*pools.each(_double, items)],
        )

    def test_what_is_quick_is_done_by_one_thread(self) -> None:
        self.patch(pools, '_SLOW_SECONDS', 60.0)
        threads = [
            *pools.each(lambda _item: threading.get_ident(), range(1000))
        ]
        self.assertEqual(1, len({*threads}))

    @ddt.data(None, _double)
    def test_with_all_threads_at_it_nobody_asks_how_slow_it_is(
        self, late: Callable[[int], int] | None
    ) -> None:
        self.always_slow()
        asked: list[int] = []

        def waited() -> float:
            asked.append(1)
            return 0.0

        self.patch(stopwatches, 'waited', waited)
        done = [*pools.each(_double, range(2000), late)]
        self.assertEqual(2000, len(done))
        # Of each thread once, and of what was begun before.
        self.assertLess(len(asked), 3 * pools.THREADS)

    def threads_for(self, seconds: list[float]) -> int:
        """Say how many threads do what takes so long each."""
        now = [0.0]

        def work(took: float) -> int:
            now[0] += took
            return threading.get_ident()

        clock = types.SimpleNamespace(monotonic=lambda: now[0])
        self.patch(pools, 'time', clock)
        return len({*pools.each(work, seconds)})

    def test_one_that_waited_for_a_processor_is_no_reason(self) -> None:
        quick = [0.0] * 20
        self.assertEqual(1, self.threads_for([*quick, 0.5, *quick, 3, *quick]))

    @ddt.data(([0.001] * 100,), ([0.0, 0.0, 0.05] * 40,))
    @ddt.unpack
    def test_several_that_took_long_are(self, seconds: list[float]) -> None:
        self.assertLess(1, self.threads_for(seconds))

    def test_to_wait_for_a_processor_is_none(self) -> None:
        waited = iter(range(10**6))
        self.patch(stopwatches, 'waited', lambda: float(next(waited)))
        self.assertEqual(1, self.threads_for([0.1] * 100))

    def test_one_thread_takes_turns_with_who_takes_the_results(self) -> None:
        self.patch(pools, '_SLOW_SECONDS', 60.0)
        begun: list[int] = []
        items = range(1000)
        ahead = [
            len(begun) - taken
            for taken, _result in enumerate(
                pools.each(begun.append, items, late=lambda _item: None)
            )
        ]
        # No more than the others of the same part.
        self.assertEqual(pools._FIRST, ahead[0])
        self.assertGreater(16, max(ahead))

    def test_what_is_done_is_not_given_up(self) -> None:
        """However long it takes until the next item is begun."""
        chunk = pools._Chunk[int, int]([1, 2])
        given_up: list[bool] = []

        def is_slow_after(_pace: object, _seconds: float) -> bool:
            given_up.append(chunk.give_up(0))
            return False

        self.patch(pools._Pace, 'is_slow_after', is_slow_after)
        chunk.work_off(_double, pools._Pace())
        self.assertEqual([False, False], given_up)
        self.assertEqual([2, 4], chunk.results)

    def test_what_is_worked_at_is(self) -> None:
        chunk = pools._Chunk[int, bool]([1])
        chunk.work_off(lambda _item: not chunk.give_up(0), pools._Pace())
        self.assertEqual([], chunk.results)
        self.assertFalse(chunk.done.is_set())

    def crew(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread.name == 'imagecache'
        ]

    def test_no_thread_is_left(self) -> None:
        for slow in (-1.0, 60.0):
            self.patch(pools, '_SLOW_SECONDS', slow)
            results = pools.each(_double, range(1000), late=_double)
            next(results)
            results.close()
            self.assertEqual(2000 - 2, [*pools.each(_double, range(1000))][-1])
        # One that is at its last may have begun others.
        for _round in range(pools.THREADS):
            for thread in self.crew():
                thread.join(processes.PATIENCE_SECONDS)
                self.assertFalse(thread.is_alive())
        self.assertEqual([], self.crew())

    def test_what_is_slow_is_done_by_several_at_once(self) -> None:
        """One ends only after another one that comes later."""
        self.always_slow()
        later = threading.Event()

        def work(item: int) -> int:
            if item == pools._FIRST:
                self.assertTrue(later.wait(60))
            if item == 150:
                later.set()
            return _double(item)

        self.assertEqual(
            [_double(item) for item in range(200)],
            [*pools.each(work, range(200))],
        )

    def test_what_the_work_raises_comes_out_after_what_was_done(self) -> None:
        self.always_slow()

        def work(item: int) -> int:
            if item == 20:
                raise OSError('no')
            return item

        found = []
        with testtools.ExpectedException(OSError, 'no'):
            for result in pools.each(work, range(1000)):
                found.append(result)
        self.assertEqual([*range(20)], found)

    @ddt.data(0, 7, 8, 30, 99)
    def test_an_item_that_does_not_answer_keeps_no_other(
        self, hangs: int
    ) -> None:
        self.always_slow()
        never = threading.Event()
        self.addCleanup(never.set)

        def work(item: int) -> int:
            if item == hangs:
                never.wait()
            return _double(item)

        self.assertEqual(
            [-1 if item == hangs else _double(item) for item in range(100)],
            [*pools.each(work, range(100), late=lambda _item: -1,
                         patience=0.05)],
        )  # fmt: skip

    def test_all_may_hang_and_each_is_told_of(self) -> None:
        never = threading.Event()
        self.addCleanup(never.set)
        self.assertEqual(
            [-1] * 20,
            [*pools.each(lambda _item: never.wait(), range(20),
                         late=lambda _item: -1, patience=0.01)],
        )  # fmt: skip

    def test_what_ends_after_all_is_not_taken(self) -> None:
        late = threading.Event()
        went_on: list[int] = []

        def work(item: int) -> int:
            if item == 0:
                late.wait()
            else:
                went_on.append(item)
            return item

        found = [*pools.each(work, range(8), lambda _item: -1, 0.05)]
        late.set()
        self.assertEqual([-1, *range(1, 8)], found)
        self.assertEqual([*range(1, 8)], went_on)

    def test_who_stops_asking_leaves_the_rest_undone(self) -> None:
        self.always_slow()
        begun: list[int] = []
        results = pools.each(lambda item: begun.append(item), range(100000))
        next(results)
        results.close()
        self.assertLess(len(begun), 100000)


class BesideTest(testtools.TestCase):
    """Something else, meanwhile."""

    def test_it_is_at_work_meanwhile_and_waited_for(self) -> None:
        begun, go_on, done = (threading.Event() for _ in range(3))

        def work() -> None:
            begun.set()
            go_on.wait(processes.PATIENCE_SECONDS)
            done.set()

        with pools.beside(work):
            self.assertTrue(begun.wait(processes.PATIENCE_SECONDS))
            self.assertFalse(done.is_set())
            go_on.set()
        self.assertTrue(done.is_set())

    def test_what_it_raises_comes_out_in_the_end(self) -> None:
        def work() -> None:
            raise KeyError('it')

        after = False
        with testtools.ExpectedException(KeyError, "'it'"):
            with pools.beside(work):
                after = True
        self.assertTrue(after)

    def test_what_is_raised_meanwhile_comes_first(self) -> None:
        def work() -> None:
            raise KeyError('it')

        with testtools.ExpectedException(ValueError):
            with pools.beside(work):
                raise ValueError

    def test_where_there_can_be_no_other_thread_it_is_not_done(self) -> None:
        # Mocked: a limit on threads is one on all processes of a user.
        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, 'start', start)
        after = False
        with pools.beside(self.fail):
            after = True
        self.assertTrue(after)
