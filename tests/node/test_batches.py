# SPDX-License-Identifier: Apache-2.0

"""Many files that go together: for how long their locks are held."""

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import os
import threading
import time
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import batches
from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import scans
from nova_imagecache.cache import trash
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import pools
from tests.support import base
from tests.support import nodes
from tests.support import processes

COUNT = 200

# Of what is asked of the storage in between.
LOCK_SECONDS = 0.002
LOOK_SECONDS = 0.3
MOVE_SECONDS = 0.01


class BatchTestCase(nodes.NodeTestCase):
    """Removes files, on storage that takes as long as a test says."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.looks: list[set[str]] = []
        self.held: dict[str, float] = {}
        self.longest = 0.0
        # It is about our clock, which threads would all move.
        self.patch(pools, '_SLOW_SECONDS', 10**9)
        self.patch(locks, 'nova_lock', self.nova_lock(locks.nova_lock))
        self.patch(trash.Mover, 'move', self.move(trash.Mover.move))

    def add(self, count: int) -> list[base_file.BaseFile]:
        for number in range(count):
            name = names.get_cache_fname(str(number))
            self.node.add_base(name, age=base.DAY)
        return [*scans.scan(self.node.layout).files]

    def nova_lock(self, real: Any) -> Any:
        @contextlib.contextmanager
        def nova_lock(
            layout: Any, name: str, blocking: bool
        ) -> Iterator[None]:
            with real(layout, name, blocking):
                self.held[name] = self.now
                self.now += LOCK_SECONDS
                yield
                since = self.held.pop(name)
                self.longest = max(self.longest, self.now - since)

        return nova_lock

    def move(self, real: Any) -> Any:
        def move(mover: Any, file: Any) -> Any:
            self.assertIn(file.name, self.held)
            self.now += MOVE_SECONDS
            return real(mover, file)

        return move

    def objections(
        self, files: Collection[base_file.BaseFile]
    ) -> dict[str, str]:
        self.looks.append({file.name for file in files})
        self.assertEqual(self.looks[-1], {*self.held})
        self.now += LOOK_SECONDS
        return {}

    def remove(self, files: list[base_file.BaseFile]) -> dict[str, Any]:
        return removal.remove(
            self.node.layout,
            files,
            self.objections,
            0,
            monotonic=lambda: self.now,
        )


class DurationTest(BatchTestCase):
    def test_no_lock_is_held_for_longer_than_a_second(self) -> None:
        outcomes = self.remove(self.add(COUNT))
        self.assertEqual({None}, {*outcomes.values()})
        self.assertEqual(COUNT, len(outcomes))
        self.assertEqual(set(), self.node.files())
        self.assertGreater(self.now, 2)
        self.assertLess(self.longest, 1)

    def test_each_file_was_asked_about_under_the_lock_that_it_goes_under(
        self,
    ) -> None:
        files = self.add(COUNT)
        moved: dict[str, int] = {}
        real = trash.Mover.move

        def move(mover: Any, file: Any) -> Any:
            moved[file.name] = len(self.looks)
            self.assertIn(file.name, self.looks[-1])
            return real(mover, file)

        self.patch(trash.Mover, 'move', move)
        self.remove(files)
        self.assertEqual({file.name for file in files}, {*moved})
        # What was left of a batch was asked about anew.
        self.assertGreater(sum(map(len, self.looks)), COUNT)

    def test_after_a_batch_that_took_long_fewer_are_locked(self) -> None:
        self.remove(self.add(COUNT))
        self.assertLess(len(self.looks[1]), len(self.looks[0]))

    def test_a_lock_is_given_up_as_soon_as_its_file_has_gone(self) -> None:
        files = self.add(3)
        left: list[int] = []
        real = trash.Mover.move

        def move(*args: Any) -> Any:
            left.append(len(self.held))
            return real(*args)

        self.patch(trash.Mover, 'move', move)
        self.remove(files)
        self.assertEqual([3, 2, 1], left)

    def test_where_all_is_quick_nothing_is_done_meanwhile(self) -> None:
        """Two threads that compute are in the way of each other."""
        removal.remove(
            self.node.layout, self.add(3), self.objections, 0, self.fail
        )
        self.assertEqual(set(), self.node.files())

    def test_what_is_done_meanwhile_comes_after_the_last_look(self) -> None:
        self.patch(pools, 'are_slow', lambda *_args: True)
        files = self.add(COUNT)
        looks: list[int] = []
        outcomes = removal.remove(
            self.node.layout,
            files,
            self.objections,
            0,
            lambda: looks.append(len(self.looks)),
            monotonic=lambda: self.now,
        )
        self.assertEqual({None}, {*outcomes.values()})
        # Not in the first batch, which could not lock all of them in time.
        self.assertLess(len(self.looks[0]), COUNT)
        self.assertNotIn(1, looks)
        self.assertEqual(len(self.looks), looks[-1])

    def test_where_nothing_goes_nothing_is_done_meanwhile(self) -> None:
        self.patch(pools, 'are_slow', lambda *_args: True)
        removal.remove(
            self.node.layout, [], self.objections, 0, meanwhile=self.fail
        )
        files = self.add(1)
        with locks.nova_lock(self.node.layout, files[0].name, blocking=False):
            removal.remove(
                self.node.layout, files, self.objections, 0,
                meanwhile=self.fail,
            )  # fmt: skip
        self.assertEqual([], self.looks)

    def test_the_time_that_listing_takes_counts_too(self) -> None:
        files = self.add(60)
        real = os.listdir

        def listdir(path: Any) -> list[str]:
            self.now += 0.2
            return real(path)

        self.patch(os, 'listdir', listdir)
        outcomes = self.remove(files)
        self.assertEqual({None}, {*outcomes.values()})
        self.assertLess(len(self.looks), 5)

    def test_however_long_a_look_takes_files_go(self) -> None:
        files = self.add(3)

        def objections(files: Any) -> dict[str, str]:
            self.now += 3600
            return {}

        removal.remove(
            self.node.layout,
            files,
            objections,
            0,
            monotonic=lambda: self.now,
        )
        self.assertEqual(set(), self.node.files())

    def test_nothing_is_synced_while_a_lock_is_held(self) -> None:
        files = self.add(5)
        for file in files:
            with open(file.sidecar, 'wb') as sidecar:
                sidecar.write(b'da39a3ee')
        synced: list[bool] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(bool(self.held))
            real(fd)

        self.patch(os, 'fsync', fsync)
        self.remove(files)
        self.assertEqual(set(), self.node.files())
        self.assertEqual([False], synced)


class SlowTest(nodes.NodeTestCase):
    """Where files are moved in threads."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(pools, '_SLOW_SECONDS', -1)
        for number in range(40):
            name = names.get_cache_fname(str(number))
            self.node.add_base(name, age=base.DAY)
        self.files = [*scans.scan(self.node.layout).files]

    def test_one_that_cannot_be_moved_keeps_no_other(self) -> None:
        chosen = self.files[30].name
        real = trash.Mover.move

        def move(mover: Any, file: Any) -> Any:
            if file.name == chosen:
                raise PermissionError(1, 'not this one')
            return real(mover, file)

        self.patch(trash.Mover, 'move', move)
        outcomes = removal.remove(
            self.node.layout, self.files, lambda _: {}, 0
        )
        self.assertEqual({chosen}, self.node.files())
        self.assertEqual(
            [chosen], [name for name, each in outcomes.items() if each]
        )

    def test_one_that_is_locked_or_objected_to_stays(self) -> None:
        locked, objected = self.files[20].name, self.files[30].name
        with locks.nova_lock(self.node.layout, locked, blocking=False):
            outcomes = removal.remove(
                self.node.layout, self.files, lambda _: {objected: 'used'}, 0
            )
        self.assertEqual({locked, objected}, self.node.files())
        self.assertIsInstance(outcomes[locked], errors.Locked)
        self.assertIn('used', str(outcomes[objected]))

    def test_what_is_known_of_the_way_to_rename_serves_the_next(self) -> None:
        asked: list[str] = []

        def refuse(fd: int, source: str, *args: Any) -> None:
            asked.append(source)
            raise OSError(22, 'Invalid argument')

        self.patch(pools, '_SLOW_SECONDS', 10**9)
        self.patch(directories, '_renameat2', refuse)
        removal.remove(self.node.layout, self.files, lambda _: {}, 0)
        self.assertEqual(set(), self.node.files())
        self.assertEqual(1, len(asked))

    def test_only_what_is_known_of_a_file_is_looked_for(self) -> None:
        self.patch(pools, '_SLOW_SECONDS', 10**9)
        one, other = self.files[7], self.files[9]
        for path in (one.sidecar, other.ledger):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'wb') as companion:
                companion.write(b'it')
        asked: list[str] = []
        real = identity.gone

        def gone(path: str) -> bool:
            asked.append(path)
            return real(path)

        self.patch(identity, 'gone', gone)
        removal.remove(self.node.layout, self.files, lambda _: {}, 5)
        self.assertEqual(set(), self.node.files())
        self.assertEqual({one.sidecar, other.ledger}, {*asked})
        trashed = names.trash_name(one.name, 5)
        self.assertIn(f'{trashed}.sha1', os.listdir(self.node.layout.trash))
        trashed = names.trash_name(other.name, 5)
        self.assertIn(f'{trashed}.ledger', os.listdir(self.node.layout.trash))

    def test_where_that_cannot_be_listed_each_is_looked_for(self) -> None:
        """By its name, and what is there goes along."""
        os.makedirs(self.node.layout.ledgers)
        with open(self.files[7].ledger, 'wb') as companion:
            companion.write(b'it')
        real = os.listdir

        def listdir(path: Any) -> list[str]:
            if path == self.node.layout.ledgers:
                raise PermissionError(13, 'Permission denied')
            return real(path)

        self.patch(os, 'listdir', listdir)
        removal.remove(self.node.layout, self.files, lambda _: {}, 5)
        self.assertEqual(set(), self.node.files())
        trashed = names.trash_name(self.files[7].name, 5)
        self.assertIn(f'{trashed}.ledger', real(self.node.layout.trash))

    def test_no_lock_is_held_for_what_is_done_meanwhile(self) -> None:
        layout, chosen = self.node.layout, self.files[5].name
        free: list[bool] = []

        def meanwhile() -> None:
            """Wait for the locks, which whoever waits for this may hold."""
            deadline = time.monotonic() + processes.PATIENCE_SECONDS
            while time.monotonic() < deadline:
                with contextlib.suppress(errors.Locked):
                    with (
                        locks.remover_lock(layout, [chosen]) as refused,
                        locks.nova_lock(layout, chosen, blocking=False),
                    ):
                        if not refused:
                            free.append(True)
                            return

        removal.remove(layout, self.files, lambda _: {}, 5, meanwhile)
        self.assertEqual([True], free)

    def test_what_has_gone_is_synced_whatever_happens_meanwhile(self) -> None:
        synced: list[int] = []
        self.patch(directories, 'sync', synced.append)

        def meanwhile() -> None:
            raise KeyError('it')

        self.assertRaises(
            KeyError,
            removal.remove,
            *(self.node.layout, self.files, lambda _: {}, 5, meanwhile),
        )
        self.assertEqual(set(), self.node.files())
        self.assertEqual(1, len(synced))


class InterruptionTest(base.TestCase):
    """What is begun in threads when somebody ends the process, kindly."""

    def setUp(self) -> None:
        super().setUp()
        self.begun = threading.Event()
        self.ending = threading.Event()
        self.work: Any = None
        self.ended: list[int] = []
        self.patch(pools, 'each', self.each)
        real = batches._Flight.end

        def end(flight: Any) -> None:
            self.ending.set()
            real(flight)

        self.patch(batches._Flight, 'end', end)

    def each(self, work: Any, items: Any) -> Iterator[Any]:
        self.work = work
        threading.Thread(target=work, args=(1,), daemon=True).start()
        self.begun.wait(processes.PATIENCE_SECONDS)
        raise KeyboardInterrupt
        yield

    def slowly(self, item: int) -> None:
        self.begun.set()
        self.ending.wait(processes.PATIENCE_SECONDS)
        self.ended.append(item)

    def interrupt(self) -> None:
        self.assertRaises(
            KeyboardInterrupt, batches._each, self.slowly, [1, 2]
        )

    def test_it_is_waited_for_as_its_lock_goes_then(self) -> None:
        self.interrupt()
        self.assertEqual([1], self.ended)

    def test_nothing_is_begun_any_more(self) -> None:
        self.interrupt()
        self.assertRaises(batches._Given, self.work, 2)
        self.assertEqual([1], self.ended)
