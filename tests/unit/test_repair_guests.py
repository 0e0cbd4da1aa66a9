# SPDX-License-Identifier: Apache-2.0

import dataclasses

from nova_imagecache.heal import guests
from nova_imagecache.heal import outcomes
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import qcow2_map
from tests.support import base

Effect = qcow2_map.Effect
Fate = guests.Fate
Result = outcomes.Result


def block(index: int, result: Result = Result.REPAIRED) -> outcomes.Block:
    return outcomes.Block(index, index * 100, index * 100 + 100, result)


def exposed(*extents: tuple[int, int, Effect]) -> exposure.Exposure:
    found = tuple(qcow2_map.Extent(*each) for each in extents)
    return exposure.Exposure('guest', 'disk', found)


def fates(
    each: exposure.Exposure, *blocks: outcomes.Block
) -> list[tuple[Fate, tuple[tuple[int, int], ...]]]:
    return [
        (guest.fate, guest.extents)
        for guest in guests.fates(['guest'], [each], False, blocks)
    ]


class FateTest(base.TestCase):
    def test_who_reads_through_reads_good_bytes(self) -> None:
        each = exposed((100, 200, Effect.READS_THROUGH))
        self.assertEqual([(Fate.READS_GOOD, ())], fates(each, block(1)))

    def test_who_has_zeroed_it_is_well(self) -> None:
        each = exposed((100, 200, Effect.ZEROED))
        self.assertEqual([(Fate.READS_GOOD, ())], fates(each, block(1)))

    def test_who_has_copied_some_of_it_is_still_damaged(self) -> None:
        each = exposed(
            (100, 150, Effect.READS_THROUGH), (150, 350, Effect.COPIED)
        )
        self.assertEqual(
            [(Fate.STILL_DAMAGED, ((150, 200), (300, 350)))],
            fates(each, block(1), block(3)),
        )

    def test_what_was_copied_elsewhere_does_not_count(self) -> None:
        each = exposed((0, 100, Effect.COPIED), (200, 300, Effect.COPIED))
        self.assertEqual([(Fate.READS_GOOD, ())], fates(each, block(1)))

    def test_copied_counts_more_than_unknown(self) -> None:
        each = exposed((100, 150, Effect.COPIED), (150, 200, Effect.UNKNOWN))
        self.assertEqual(
            [(Fate.STILL_DAMAGED, ((100, 150),))], fates(each, block(1))
        )

    def test_what_cannot_be_told_is_unknown_with_its_range(self) -> None:
        each = exposed((150, 200, Effect.UNKNOWN))
        self.assertEqual(
            [(Fate.UNKNOWN, ((150, 200),))], fates(each, block(1))
        )

    def test_who_reads_wrong_pages_that_stay_cached_is_not_well(self) -> None:
        stuck = dataclasses.replace(block(1), stale=2, stuck=1)
        each = exposed((150, 350, Effect.READS_THROUGH))
        self.assertEqual(
            [(Fate.READS_STALE, ((150, 200),))], fates(each, stuck, block(3))
        )
        # What it has copied is damaged for good.
        each = exposed(
            (100, 150, Effect.COPIED), (150, 200, Effect.READS_THROUGH)
        )
        self.assertEqual(
            [
                (Fate.READS_STALE, ((150, 200),)),
                (Fate.STILL_DAMAGED, ((100, 150),)),
            ],
            fates(each, stuck),
        )
        # Pages that were dropped are none.
        dropped = dataclasses.replace(block(1), stale=2)
        each = exposed((100, 200, Effect.READS_THROUGH))
        self.assertEqual([(Fate.READS_GOOD, ())], fates(each, dropped))

    def test_nothing_is_said_of_blocks_that_stay_bad(self) -> None:
        each = exposed((100, 200, Effect.COPIED))
        self.assertEqual([], fates(each, block(1, Result.NO_DATA)))

    def test_guests_without_a_disk_are_named_too(self) -> None:
        for is_qcow2, fate in ((True, Fate.RESTART), (False, Fate.UNKNOWN)):
            found = [*guests.fates(['a'], [], is_qcow2, [block(1)])]
            self.assertEqual([guests.Guest('a', '', fate)], found)


class SentenceTest(base.TestCase):
    def test_of_who_is_well_nothing_is_said(self) -> None:
        self.assertEqual(
            '', guests.sentence(guests.Guest('g', 'disk', Fate.READS_GOOD))
        )

    def test_a_range_is_named_by_its_first_and_last_byte(self) -> None:
        said = guests.sentence(
            guests.Guest('g', 'disk', Fate.STILL_DAMAGED, ((5, 10), (20, 21)))
        )
        self.assertIn('Guest g disk has copied bytes 5-9, 20-20 to', said)

    def test_who_is_to_be_restarted_is_told(self) -> None:
        said = guests.sentence(guests.Guest('g', '', Fate.RESTART))
        self.assertTrue(said.startswith('Guest g may keep tables'), said)

    def test_who_reads_wrong_pages_is_told_where_and_what_to_do(self) -> None:
        said = guests.sentence(
            guests.Guest('g', 'd', Fate.READS_STALE, ((5, 9),))
        )
        self.assertTrue(said.startswith('Guest g d may read wrong bytes 5-8'))
        self.assertIn('repair again', said)

    def test_what_cannot_be_told_is_said_with_and_without_a_range(
        self,
    ) -> None:
        said = guests.sentence(guests.Guest('g', '', Fate.UNKNOWN))
        self.assertTrue(said.endswith('what it has read'), said)
        said = guests.sentence(guests.Guest('g', 'd', Fate.UNKNOWN, ((5, 9),)))
        self.assertTrue(said.endswith('read at bytes 5-8'), said)
