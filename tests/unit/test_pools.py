# SPDX-License-Identifier: Apache-2.0

"""The same for each of many."""

from collections.abc import Callable
import itertools
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

    def test_with_all_threads_at_it_nobody_asks_how_slow_it_is(self) -> None:
        self.always_slow()
        asked: list[int] = []

        def waited() -> float:
            asked.append(1)
            return 0.0

        self.patch(stopwatches, 'waited', waited)
        done = [*pools.each(_double, range(2000))]
        self.assertEqual(2000, len(done))
        # For what was begun before.
        self.assertGreater(4, len(asked))

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

    @ddt.data(
        ([0.001] * 100,),
        ([0.0, 0.0, 0.05] * 40,),
        ([*[0.0] * 100, *[0.001] * 200],),
    )
    @ddt.unpack
    def test_several_that_took_long_are(self, seconds: list[float]) -> None:
        self.assertLess(1, self.threads_for(seconds))

    def test_to_wait_for_a_processor_is_none(self) -> None:
        waited = iter(range(10**6))
        self.patch(stopwatches, 'waited', lambda: float(next(waited)))
        self.assertEqual(1, self.threads_for([0.1] * 100))

    def crew(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread.name == 'imagecache'
        ]

    def test_no_thread_is_left(self) -> None:
        self.always_slow()
        results = pools.each(_double, range(1000))
        for _result in range(20):
            next(results)
        results.close()
        self.assertEqual(2000 - 2, [*pools.each(_double, range(1000))][-1])
        for thread in self.crew():
            thread.join(processes.PATIENCE_SECONDS)
            self.assertFalse(thread.is_alive())

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

    def test_of_those_after_quick_ones_each_is_not_timed(self) -> None:
        asked: list[int] = []

        def monotonic() -> float:
            asked.append(1)
            return 0.0

        clock = types.SimpleNamespace(monotonic=monotonic)
        self.patch(pools, 'time', clock)
        self.assertEqual(2000, len([*pools.each(_double, range(2000))]))
        self.assertGreater(200, len(asked))

    @ddt.data(-1.0, 60.0)
    def test_what_the_work_raises_comes_out_after_what_was_done(
        self, slow: float
    ) -> None:
        self.patch(pools, '_SLOW_SECONDS', slow)

        def work(item: int) -> int:
            if item == 20:
                raise OSError('no')
            return item

        found = []
        with testtools.ExpectedException(OSError, 'no'):
            for result in pools.each(work, range(1000)):
                found.append(result)
        self.assertEqual([*range(20)], found)

    def test_who_stops_asking_leaves_the_rest_undone(self) -> None:
        self.always_slow()
        begun: list[int] = []
        results = pools.each(lambda item: begun.append(item), range(100000))
        next(results)
        results.close()
        self.assertLess(len(begun), 100000)


class ChunkTest(testtools.TestCase):
    """What one thread is given."""

    def test_what_is_done_is_not_given_up(self) -> None:
        """However long it takes to take it."""
        taken: list[tuple[int, int, bool]] = []
        chunk = pools._Chunk[int, int](
            [1, 2],
            lambda item, result: taken.append(
                (item, result, chunk.give_up(chunk.at))
            ),
        )
        chunk.work_off(_double)
        self.assertEqual([(1, 2, False), (2, 4, False)], taken)
        self.assertEqual(2, chunk.taken)
        self.assertTrue(chunk.done.is_set())

    def test_what_is_worked_at_is(self) -> None:
        taken: list[int] = []
        chunk = pools._Chunk[int, bool](
            [1], lambda item, _result: taken.append(item)
        )
        chunk.work_off(lambda _item: not chunk.give_up(chunk.at))
        self.assertEqual([], taken)
        self.assertEqual(0, chunk.taken)
        self.assertFalse(chunk.done.is_set())

    def test_what_is_given_up_has_no_error_either(self) -> None:
        def work(_item: int) -> None:
            chunk.give_up(chunk.at)
            raise OSError('late')

        chunk = pools._Chunk[int, None]([1], lambda _item, _result: None)
        chunk.work_off(work)
        self.assertIsNone(chunk.error)
        self.assertFalse(chunk.done.is_set())

    def test_one_that_has_come_further_is_not_given_up(self) -> None:
        given_up: list[bool] = []
        chunk = pools._Chunk[int, None]([1, 2], lambda _item, _result: None)
        chunk.work_off(lambda _item: given_up.append(chunk.give_up(1)))
        self.assertEqual([False, True], given_up)
        self.assertEqual(1, chunk.taken)

    def test_once_it_is_left_nothing_is_taken(self) -> None:
        taken: list[int] = []

        def take(item: int, _result: int) -> None:
            taken.append(item)
            chunk.leave()

        chunk = pools._Chunk[int, int]([1, 2, 3], take)
        chunk.work_off(_double)
        self.assertEqual([1], taken)


@ddt.ddt
class HandOverTest(testtools.TestCase):
    """Results that are handed over, of what may never answer."""

    def setUp(self) -> None:
        """Take nothing yet."""
        super().setUp()
        self.taken: list[tuple[int, int]] = []
        self.never = threading.Event()
        self.addCleanup(self.never.set)

    def take(self, item: int, result: int) -> None:
        self.taken.append((item, result))

    def set_slow(self, slow: bool) -> None:
        self.patch(pools, '_SLOW_SECONDS', -1.0 if slow else 60.0)

    def hand_over(
        self,
        work: Callable[[int], int],
        number: int,
        take: Callable[[int, int], None] | None = None,
        patience: float = 0.05,
    ) -> None:
        pools.hand_over(
            work, range(number), take or self.take, lambda _item: -1, patience
        )

    @ddt.data(*itertools.product((0, 1, 8, 9, 1000), (False, True)))
    @ddt.unpack
    def test_each_is_taken_once_and_in_their_order(
        self, number: int, slow: bool
    ) -> None:
        self.set_slow(slow)
        self.hand_over(_double, number, patience=60)
        self.assertEqual(
            [(item, 2 * item) for item in range(number)], self.taken
        )

    def test_what_is_quick_is_done_and_taken_by_one_thread(self) -> None:
        """To change from one to another takes longer."""
        self.set_slow(False)
        threads: set[int] = set()

        def note(item: int, *_result: int) -> int:
            threads.add(threading.get_ident())
            return item

        self.hand_over(note, 1000, note, 60)  # type: ignore[arg-type]
        self.assertEqual(1, len(threads))

    def test_what_is_slow_is_done_by_several_at_once(self) -> None:
        """One ends only after another one that comes later."""
        self.set_slow(True)
        later = threading.Event()

        def work(item: int) -> int:
            if item == 2 * pools._FIRST:
                later.wait(60)
            if item == 150:
                later.set()
            return _double(item)

        self.hand_over(work, 200, patience=60)
        self.assertEqual([(item, 2 * item) for item in range(200)], self.taken)

    @ddt.data(*itertools.product((0, 7, 8, 30, 99), (False, True)))
    @ddt.unpack
    def test_an_item_that_does_not_answer_keeps_no_other(
        self, hangs: int, slow: bool
    ) -> None:
        self.set_slow(slow)

        def work(item: int) -> int:
            if item == hangs:
                self.never.wait()
            return _double(item)

        self.hand_over(work, 100)
        self.assertEqual(
            [(item, -1 if item == hangs else 2 * item) for item in range(100)],
            self.taken,
        )

    @ddt.data(False, True)
    def test_all_may_hang_and_each_is_told_of(self, slow: bool) -> None:
        self.set_slow(slow)
        self.hand_over(lambda _item: self.never.wait(), 20, patience=0.01)
        self.assertEqual([(item, -1) for item in range(20)], self.taken)

    def test_what_ends_after_all_is_not_taken(self) -> None:
        self.set_slow(False)
        went_on: list[int] = []

        def work(item: int) -> int:
            if item == 0:
                self.never.wait()
            else:
                went_on.append(item)
            return item

        self.hand_over(work, 8)
        [hung] = [
            thread
            for thread in threading.enumerate()
            if thread.name == 'imagecache'
        ]
        self.never.set()
        hung.join(processes.PATIENCE_SECONDS)
        self.assertEqual(
            [(0, -1), *((item, item) for item in range(1, 8))], self.taken
        )
        self.assertEqual([*range(1, 8)], went_on)

    @ddt.data(*itertools.product((3, 20), (False, True)))
    @ddt.unpack
    def test_what_is_raised_comes_out_after_what_was_taken(
        self, last: int, slow: bool
    ) -> None:
        self.set_slow(slow)

        def work(item: int) -> int:
            if item == last:
                raise OSError('no')
            return item

        def take(item: int, result: int) -> None:
            self.take(item, result)
            if item == last:
                raise OSError('no')

        for doing, taking, number in (
            (work, None, last),
            (int, take, last + 1),
        ):
            self.taken.clear()
            with testtools.ExpectedException(OSError, 'no'):
                self.hand_over(doing, 1000, taking, 60)
            self.assertEqual(
                [(item, item) for item in range(number)], self.taken
            )


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
