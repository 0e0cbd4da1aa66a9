# SPDX-License-Identifier: Apache-2.0

"""What is remembered of one incarnation of a file."""

from typing import Any

import ddt
import msgspec
import testtools

from nova_imagecache.cache import identity
from nova_imagecache.cache import sightings
from nova_imagecache import clocks
from tests.support import base
from tests.support import letters

NOW = letters.NOW
BEFORE = letters.BEFORE
KEY = letters.KEY
SECOND = 10**9
CORRUPT = sightings.Damage('corrupt', 5.0)


def sighting_of(**fields: Any) -> sightings.Sighting:
    """Give what was remembered of a file that nothing has happened to."""
    old = sightings.updated(letters.file_of(), None, BEFORE)
    return msgspec.structs.replace(old, **fields)


class FirstSightTest(base.TestCase):
    def test_nothing_has_happened_to_it_yet(self) -> None:
        self.assertEqual(
            sightings.Sighting(
                key=KEY,
                last_used=None,
                modified=10**18,
                seen=NOW,
                image=None,
                digested=False,
                suspect=False,
                rebaselined=None,
                damage=None,
                trashed=None,
                ahead=False,
            ),
            sightings.updated(letters.file_of(), None, NOW),
        )


class SightingTest(base.TestCase):
    def test_one_cannot_be_changed(self) -> None:
        with testtools.ExpectedException(AttributeError):
            sighting_of().ahead = True  # type: ignore[misc]


@ddt.ddt
class RemembersTest(base.TestCase):
    MARKS = (
        {'suspect': True},
        {'rebaselined': 7.0},
        {'damage': 'corrupt'},
    )

    def test_a_file_that_was_never_seen_is_not_remembered(self) -> None:
        self.assertFalse(sightings.remembers(None, sightings.History()))

    def test_nor_is_that_one_was_digested(self) -> None:
        history = sightings.History()
        self.assertFalse(sightings.remembers(sighting_of(), history))
        self.assertTrue(
            sightings.remembers(sighting_of(digested=True), history)
        )

    def test_what_could_not_be_written_says_nothing_of_a_ledger(self) -> None:
        history = sightings.History(digested=False)
        for digested in (False, True):
            old = sighting_of(digested=digested)
            self.assertTrue(sightings.remembers(old, history), digested)

    @ddt.data(*MARKS)
    def test_each_mark_counts(self, mark: dict[str, Any]) -> None:
        history = sightings.History(**mark)
        without = sighting_of(digested=True)
        self.assertFalse(sightings.remembers(without, history))
        marked = sighting_of(digested=True, **mark)
        self.assertTrue(sightings.remembers(marked, history))
        # One that is over is to be forgotten.
        self.assertFalse(sightings.remembers(marked, sightings.History()))


@ddt.ddt
class UpdatedTest(base.TestCase):
    def update(
        self, old: sightings.Sighting | None, **values: Any
    ) -> sightings.Sighting:
        stat = {
            name: values.pop(name)
            for name in ('modified', 'trashed', 'key', 'name')
            if name in values
        }
        return sightings.updated(letters.file_of(**stat), old, NOW, **values)

    def test_what_is_remembered_stays_remembered(self) -> None:
        old = sighting_of(
            last_used=BEFORE.wall,
            image='image',
            digested=True,
            suspect=True,
            rebaselined=7.0,
            damage=CORRUPT,
        )
        self.assertEqual(old, self.update(old))

    def test_and_nothing_else_is(self) -> None:
        self.assertEqual(sighting_of(), self.update(sighting_of()))

    def test_what_could_not_be_written_is_no_ledger(self) -> None:
        history = sightings.History(suspect=True, digested=False)
        new = self.update(None, history=history)
        self.assertEqual((True, False), (new.suspect, new.digested))

    def test_what_is_said_now_takes_its_place(self) -> None:
        old = sighting_of(
            image='image', suspect=True, rebaselined=7.0, damage=CORRUPT
        )
        new = self.update(old, image='other', history=sightings.History())
        self.assertEqual(sighting_of(image='other', digested=True), new)
        history = sightings.History(True, 8.0, CORRUPT)
        new = self.update(sighting_of(), history=history)
        self.assertTrue(sightings.remembers(new, history))

    def test_one_that_is_used_was_used_now(self) -> None:
        self.assertEqual(NOW.wall, self.update(None, used=True).last_used)
        old = sighting_of(last_used=BEFORE.wall)
        self.assertEqual(NOW.wall, self.update(old, used=True).last_used)

    def test_no_use_is_later_than_now(self) -> None:
        old = sighting_of(last_used=NOW.wall + 5)
        self.assertEqual(NOW.wall, self.update(old).last_used)

    def test_a_touch_in_the_future_is_a_use_once(self) -> None:
        ahead = int(NOW.wall + 60) * SECOND
        new = self.update(sighting_of(), modified=ahead)
        self.assertEqual(
            (NOW.wall, True, ahead), (new.last_used, new.ahead, new.modified)
        )
        old = msgspec.structs.replace(new, last_used=BEFORE.wall)
        self.assertEqual(
            BEFORE.wall, self.update(old, modified=ahead).last_used
        )
        # Another touch is another use.
        new = self.update(old, modified=ahead + 1)
        self.assertEqual(NOW.wall, new.last_used)

    def test_a_touch_right_now_is_not_in_the_future(self) -> None:
        new = self.update(None, modified=int(NOW.wall) * SECOND)
        self.assertEqual((None, False), (new.last_used, new.ahead))

    def test_what_one_host_sees_of_it_the_other_keeps(self) -> None:
        new = self.update(sighting_of(), key=(1, None, 9))
        self.assertEqual((1, 2, 9), new.key)

    def test_when_it_was_first_seen_stays(self) -> None:
        self.assertEqual(BEFORE, self.update(sighting_of()).seen)
        same = clocks.Instant(NOW.wall, 0.0, 'an earlier boot')
        self.assertEqual(same, self.update(sighting_of(seen=same)).seen)

    def test_one_that_was_first_seen_in_the_future_was_seen_now(self) -> None:
        later = clocks.Instant(NOW.wall + 5, 7.0, 'an earlier boot')
        seen = self.update(sighting_of(seen=later)).seen
        self.assertEqual(NOW.wall, seen.wall)
        # What came to the disk in that boot may be lost all the same.
        self.assertEqual('an earlier boot', seen.boot_id)

    def test_in_the_trash_it_is_since_it_was_first_seen_there(self) -> None:
        name = f'{letters.NAME}.6553f6a0'
        first = self.update(sighting_of(), name=name, trashed=True)
        self.assertEqual(NOW, first.trashed)
        old = msgspec.structs.replace(first, trashed=BEFORE)
        again = self.update(old, name=name, trashed=True)
        self.assertEqual(BEFORE, again.trashed)
        self.assertIsNone(self.update(old).trashed)

    def test_in_the_trash_the_clock_may_have_been_set_back(self) -> None:
        name = f'{letters.NAME}.6553f6a0'
        later = clocks.Instant(NOW.wall + 5, 0.0, 'an earlier boot')
        old = sighting_of(trashed=later)
        new = self.update(old, name=name, trashed=True)
        self.assertEqual(NOW, new.trashed)
        same = clocks.Instant(NOW.wall, 0.0, 'an earlier boot')
        old = sighting_of(trashed=same)
        new = self.update(old, name=name, trashed=True)
        self.assertEqual(same, new.trashed)


@ddt.ddt
class WithTimesOfTest(base.TestCase):
    """What is seen by a clock that is wrong."""

    def test_since_when_it_is_in_the_trash_is_in_its_name(self) -> None:
        new = sighting_of(trashed=NOW, suspect=True)
        self.assertEqual(
            sighting_of(suspect=True), sightings.with_times_of(None, new)
        )

    def test_when_it_was_first_seen_stays(self) -> None:
        old, new = sighting_of(seen=BEFORE), sighting_of(seen=NOW, image='i')
        self.assertEqual(
            sighting_of(seen=BEFORE, image='i'),
            sightings.with_times_of(old, new),
        )

    @ddt.data(
        (None, NOW, None),
        (BEFORE, None, None),
        (BEFORE, NOW, BEFORE),
    )
    @ddt.unpack
    def test_so_does_since_when_it_is_in_the_trash_if_it_is(
        self,
        before: clocks.Instant | None,
        now: clocks.Instant | None,
        expected: clocks.Instant | None,
    ) -> None:
        old, new = sighting_of(trashed=before), sighting_of(trashed=now)
        found = sightings.with_times_of(old, new)
        self.assertEqual(expected, found.trashed)

    @ddt.data(
        (None, None, None),
        (None, 7.0, 7.0),
        (7.0, None, 7.0),
        (7.0, 8.0, 8.0),
        (8.0, 7.0, 8.0),
    )
    @ddt.unpack
    def test_the_later_use_counts(
        self, before: float | None, now: float | None, expected: float | None
    ) -> None:
        old, new = sighting_of(last_used=before), sighting_of(last_used=now)
        found = sightings.with_times_of(old, new)
        self.assertEqual(expected, found.last_used)


@ddt.ddt
class IsOfTest(base.TestCase):
    @ddt.data(
        ((1, 2, None), True),
        ((1, None, None), True),
        ((1, None, 5), True),
        ((1, 3, None), False),
        ((9, 2, None), False),
        ((9, None, None), False),
    )
    @ddt.unpack
    def test_whose_it_is(self, key: identity.Key, expected: bool) -> None:
        self.assertIs(expected, sightings.is_of(sighting_of(), key))


class LastUseTest(base.TestCase):
    def last_use(self, modified: float, /, **fields: Any) -> float:
        sighting = sighting_of(**fields) if fields else None
        file = letters.file_of(modified=int(modified * SECOND))
        return sightings.last_use(file, sighting, NOW.wall)

    def test_it_is_the_later_one_of_mtime_and_memory(self) -> None:
        self.assertEqual(7, self.last_use(7))
        self.assertEqual(7, self.last_use(7, last_used=6.0))
        self.assertEqual(8, self.last_use(7, last_used=8.0))
        self.assertEqual(7, self.last_use(7, last_used=None))

    def test_a_memory_of_the_future_is_of_now(self) -> None:
        self.assertEqual(NOW.wall, self.last_use(7, last_used=NOW.wall + 1))

    def test_an_mtime_of_the_future_is_of_now_once(self) -> None:
        ahead = NOW.wall + 60
        self.assertEqual(NOW.wall, self.last_use(ahead))
        modified = int(ahead * SECOND)
        self.assertEqual(
            8, self.last_use(ahead, ahead=True, modified=modified, last_used=8)
        )
        self.assertEqual(
            0, self.last_use(ahead, ahead=True, modified=modified)
        )
        self.assertEqual(
            NOW.wall,
            self.last_use(ahead, ahead=True, modified=modified - 1),
        )
        self.assertEqual(
            NOW.wall, self.last_use(ahead, ahead=False, modified=modified)
        )

    def test_an_mtime_of_this_moment_is_believed(self) -> None:
        self.assertEqual(NOW.wall, self.last_use(NOW.wall))
        modified = int(NOW.wall) * SECOND
        self.assertEqual(
            NOW.wall, self.last_use(NOW.wall, ahead=True, modified=modified)
        )


class UsesTest(base.TestCase):
    def test_mtime_and_memory_are_told_apart(self) -> None:
        file = letters.file_of(modified=7 * SECOND)
        for last_used, uses in ((None, (7, 0)), (6.0, (7, 6))):
            sighting = sighting_of(last_used=last_used)
            self.assertEqual(uses, sightings.uses(file, sighting, NOW.wall))


class BirthTest(base.TestCase):
    def birth(self, born: int | None) -> float:
        file = letters.file_of(key=(1, born, None))
        return sightings.birth(file, NOW.wall)

    def test_it_is_what_the_file_system_says(self) -> None:
        self.assertEqual(7.5, self.birth(75 * SECOND // 10))
        now = int(NOW.wall) * SECOND
        self.assertEqual(NOW.wall, self.birth(now))

    def test_none_and_one_in_the_future_say_nothing(self) -> None:
        self.assertEqual(0, self.birth(None))
        self.assertEqual(0, self.birth(int(NOW.wall + 1) * SECOND))


class OutlivedTest(base.TestCase):
    def outlived(
        self,
        born: float | None,
        seen: clocks.Instant | None = None,
        others: tuple[str, ...] = (),
    ) -> bool:
        time = None if born is None else int(born * SECOND)
        file = letters.file_of(key=(1, time, None))
        sighting = sighting_of(seen=seen) if seen else None
        return sightings.outlived(file, sighting, others, NOW)

    def test_one_that_was_born_in_this_boot_has_not(self) -> None:
        boot = NOW.wall - NOW.boottime
        self.assertFalse(self.outlived(boot))
        self.assertFalse(self.outlived(NOW.wall))
        self.assertFalse(self.outlived(None))

    def test_one_that_was_born_before_it_has(self) -> None:
        self.assertTrue(self.outlived(NOW.wall - NOW.boottime - 1))

    def test_one_that_was_seen_in_another_boot_has(self) -> None:
        earlier = clocks.Instant(NOW.wall, NOW.boottime, 'another boot')
        self.assertTrue(self.outlived(None, earlier))
        self.assertFalse(self.outlived(None, BEFORE))

    def test_one_that_another_host_saw_in_its_boot_has_not(self) -> None:
        there = clocks.Instant(NOW.wall, 100.0, 'another boot')
        self.assertFalse(
            self.outlived(NOW.wall - 50, there, ('another boot',))
        )
        self.assertTrue(self.outlived(NOW.wall - 50, there, ('a third',)))
        # It was born before that boot.
        self.assertTrue(
            self.outlived(NOW.wall - 150, there, ('another boot',))
        )
