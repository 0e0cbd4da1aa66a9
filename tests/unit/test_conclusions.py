# SPDX-License-Identifier: Apache-2.0

"""What a reading from start to end means for the ledger, on no disk at all.

What is known of a file and what it holds are texts, see
:mod:`tests.support.letters`.
"""

import dataclasses
from typing import Any

import ddt

from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from tests.support import concluding
from tests.support import letters
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
DOUBTFUL = scrubbing.DOUBTFUL
NOW = letters.NOW
BEFORE = letters.BEFORE
Aim = comparisons.Aim
bad = concluding.bad
ALL_THREE = (ledgers.Run(0, 3),)


@ddt.ddt
class FirstReadingTest(concluding.ConclusionTestCase):
    def test_what_it_holds_is_what_it_has_to_hold(self) -> None:
        ledger = self.learn('abc')
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=None), ledger
        )
        self.assertTrue(ledger.settled)

    def test_what_an_earlier_reading_noted_of_its_progress_is_over(
        self,
    ) -> None:
        ledger = letters.proven_of(
            'abc',
            started=NOW,
            position=2,
            times=(1, 2),
            unreadable='why',
            attempted=NOW,
        )
        after = self.conclude(ledger, 'abc', 'abc', whole=False).ledger
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW), after
        )

    def test_one_that_agrees_with_its_checksum_is_verified(self) -> None:
        sha1 = letters.sha1_of('abc')
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW),
            self.learn('abc', stored=sha1),
        )

    def test_one_that_differs_from_its_checksum_proves_nothing(self) -> None:
        ledger = self.learn('abc', stored='f' * 40)
        self.assertEqual(
            ('f' * 40, False, 'f' * 40, letters.sha1_of('abc'), NOW),
            (
                ledger.sha1,
                ledger.proven,
                ledger.stored,
                ledger.found,
                ledger.verified,
            ),
        )

    def test_what_the_ledger_says_counts_for_more(self) -> None:
        ledger = self.learn('abc', sha1='e' * 40, stored='f' * 40)
        self.assertEqual(('e' * 40, 'f' * 40), (ledger.sha1, ledger.stored))

    def test_what_the_ledger_says_is_stored_where_nothing_is(self) -> None:
        ledger = self.learn('abc', sha1='e' * 40, stored=None)
        self.assertEqual(('e' * 40, 'e' * 40), (ledger.sha1, ledger.stored))

    def test_one_that_was_stopped_after_its_last_block_is_not_verified(
        self,
    ) -> None:
        ledger = self.learn('abc', 'abc', whole=False)
        self.assertEqual((NOW, None), (ledger.read, ledger.verified))

    def test_one_that_was_interrupted_has_no_sha1(self) -> None:
        ledger = self.learn('abc', whole=False)
        self.assertEqual(
            (None, False, None, NOW),
            (ledger.sha1, ledger.proven, ledger.verified, ledger.read),
        )
        self.assertTrue(ledger.settled)

    def test_one_that_was_touched_is_settled_nowhere(self) -> None:
        ledger = self.learn('abc', moved=True)
        self.assertEqual(ALL_THREE, ledger.unsettled)
        self.assertEqual((None, False), (ledger.sha1, ledger.proven))
        self.assertFalse(ledger.suspect)

    def test_one_that_was_touched_and_has_its_checksum_is_settled(
        self,
    ) -> None:
        sha1 = letters.sha1_of('abc')
        ledger = self.learn('abc', moved=True, stored=sha1)
        self.assertTrue(ledger.settled)
        self.assertTrue(ledger.proven)
        ledger = self.learn('abc', moved=True, stored='f' * 40)
        self.assertFalse(ledger.settled)

    def test_an_empty_file_has_nothing_to_settle(self) -> None:
        ledger = self.learn('', moved=True)
        self.assertEqual(((), NOW), (ledger.unsettled, ledger.read))

    def test_one_of_another_size_was_written_to(self) -> None:
        self.assertRaises(
            errors.Written, self.learn, 'abc', size=2 * letters.BLOCK
        )

    def test_a_block_that_changed_meanwhile_is_not_settled(self) -> None:
        known = 'a?'
        ledger = letters.ledger_of(known, started=NOW, position=1)
        comparison = letters.compared(
            letters.ledger_of(known), known, 'xb', Aim.LEARN
        )
        reading = conclusions.Reading(
            comparison, NOW, False, ledger.size, None
        )
        after = conclusions.conclude(ledger, reading).ledger
        self.assertEqual((ledgers.Run(0, 1),), after.unsettled)
        self.assertTrue(after.suspect)
        self.assertEqual((ledgers.BadBlocks(0, 1, DOUBTFUL),), after.bad)

    def test_one_from_an_earlier_boot_is_suspect(self) -> None:
        self.assertTrue(self.learn('abc', outlived=True).suspect)
        self.assertFalse(self.learn('abc').suspect)

    def test_a_checksum_tells_of_one_from_an_earlier_boot(self) -> None:
        """Also where it says that the file is bad."""
        for digest in (letters.sha1_of('abc'), 'f' * 40):
            known = {'stored': digest}, {'sha1': digest, 'stored': None}
            for each in known:
                ledger = self.learn('abc', outlived=True, **each)
                self.assertFalse(ledger.suspect, each)

    def test_a_second_reading_in_a_later_boot_makes_no_suspect(self) -> None:
        ledger = letters.ledger_of('abc', read=BEFORE, unsettled=ALL_THREE)
        after = self.conclude(ledger, 'abc', 'abc', outlived=True).ledger
        self.assertFalse(after.suspect)

    def test_what_could_not_be_read_at_first_is_doubtful(self) -> None:
        unread = (ledgers.BadBlocks(1, 1, UNREADABLE),)
        ledger = self.learn('a0c', 'a?c', bad=unread)
        self.assertTrue(ledger.suspect)
        self.assertEqual((ledgers.BadBlocks(1, 1, DOUBTFUL),), ledger.bad)
        self.assertFalse(ledger.damaged)

    def test_a_checksum_tells_of_what_could_not_be_read_at_first(
        self,
    ) -> None:
        unread = (ledgers.BadBlocks(1, 1, UNREADABLE),)
        ledger = self.learn(
            'a0c', 'a?c', bad=unread, stored=letters.sha1_of('a0c')
        )
        self.assertEqual((False, ()), (ledger.suspect, ledger.bad))
        ledger = self.learn('a0c', 'a?c', bad=unread, stored='f' * 40)
        self.assertTrue(ledger.suspect)


class SettlingTest(concluding.ConclusionTestCase):
    """A file that was touched while it was first read, and again."""

    def unsettled(self, **fields: Any) -> ledgers.Ledger:
        values = {'read': BEFORE, 'unsettled': ALL_THREE} | fields
        return letters.ledger_of('abc', **values)

    def test_it_is_settled_when_it_is_the_same(self) -> None:
        after = self.conclude(self.unsettled(), 'abc', 'abc', moved=True)
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW), after.ledger
        )

    def test_a_block_that_is_other_is_read_once_more(self) -> None:
        after = self.conclude(self.unsettled(), 'abc', 'axc')
        self.assertEqual((ledgers.Run(1, 1),), after.ledger.unsettled)
        self.assertTrue(after.ledger.suspect)
        self.assertIsNone(after.ledger.sha1)
        self.assertEqual(BEFORE, self.unsettled().read)
        self.assertEqual(NOW, after.ledger.read)
        self.assertIsNone(after.ledger.verified)
        self.assert_blocks('axc', after)

    def test_a_block_that_cannot_be_read_settles_the_others(self) -> None:
        after = self.conclude(self.unsettled(), 'abc', 'a!c').ledger
        self.assertEqual((ledgers.Run(1, 1),), after.unsettled)
        self.assertEqual((ledgers.BadBlocks(1, 1, UNREADABLE),), after.bad)
        self.assertFalse(after.suspect)

    def test_damage_beside_one_that_is_unsettled_is_corruption(self) -> None:
        ledger = self.unsettled(unsettled=(ledgers.Run(1, 1),))
        after = self.conclude(ledger, 'abc', 'x!c').ledger
        self.assertEqual(
            {0: CORRUPT, 1: UNREADABLE}, ledgers.spread(after.bad)
        )

    def test_its_checksum_settles_it_whatever_changed(self) -> None:
        sha1 = letters.sha1_of('axc')
        after = self.conclude(self.unsettled(), 'abc', 'axc', stored=sha1)
        self.assertTrue(after.ledger.settled)
        self.assertFalse(after.ledger.suspect)
        self.assertEqual(((), True), (after.ledger.bad, after.ledger.proven))
        self.assert_blocks('axc', after)

    def test_of_another_size_it_was_written_to(self) -> None:
        self.assertRaises(
            errors.Written, self.conclude, self.unsettled(), 'abc', 'abcd'
        )


@ddt.ddt
class VerifyingTest(concluding.ConclusionTestCase):
    """A settled file of which all is known."""

    def check(
        self, found: str, known: str = 'abc', **values: Any
    ) -> conclusions.Conclusion:
        fields = {
            key: values.pop(key) for key in ('bad', 'suspect') if key in values
        }
        ledger = letters.proven_of(known, **fields)
        values = {'whole': False, 'algorithm': None} | values
        return self.conclude(ledger, known, found, **values)

    def test_it_is_good_if_all_is_as_it_was_touched_or_not(self) -> None:
        for moved in (False, True):
            after = self.check('abc', moved=moved)
            self.assertEqual(
                letters.proven_of('abc', read=NOW, verified=NOW), after.ledger
            )
            self.assertFalse(after.supersedes)

    @ddt.data(
        ('axc', (1,)),
        ('xbx', (0, 2)),
        ('xyz', (0, 1, 2)),
        ('ab', (2,)),
        ('abcd', (3,)),
    )
    @ddt.unpack
    def test_it_is_corrupt_where_it_is_not(
        self, found: str, blocks: tuple[int, ...]
    ) -> None:
        after = self.check(found)
        self.assertEqual(bad(*blocks), after.ledger.bad)
        self.assertEqual(NOW, after.ledger.verified)
        self.assertFalse(after.ledger.differs)
        self.assertFalse(after.ledger.suspect)
        self.assert_blocks('abc', after)

    def test_what_cannot_be_read_is_not_another_file(self) -> None:
        after = self.check('a!c').ledger
        self.assertEqual({1: UNREADABLE}, ledgers.spread(after.bad))
        self.assertFalse(after.differs)

    def test_a_sha1_without_new_digests_changes_nothing(self) -> None:
        after = self.check('abc', whole=True)
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW), after.ledger
        )
        self.assert_blocks('abc', after)

    def test_another_stored_checksum_is_told(self) -> None:
        after = self.check('abc', stored='f' * 40).ledger
        sha1 = letters.sha1_of('abc')
        self.assertEqual(
            (sha1, 'f' * 40, sha1), (after.sha1, after.stored, after.found)
        )

    def test_where_it_is_damaged_another_checksum_says_nothing(self) -> None:
        after = self.check('axc', stored='f' * 40).ledger
        self.assertEqual(('f' * 40, None), (after.stored, after.found))

    def test_a_stored_checksum_that_is_lost_is_as_it_was(self) -> None:
        after = self.check('abc', stored=None).ledger
        self.assertEqual(letters.sha1_of('abc'), after.stored)
        self.assertIsNone(after.found)

    def test_new_digests_take_the_place_of_the_old_if_all_is_good(
        self,
    ) -> None:
        after = self.check('abc', algorithm='sha256')
        self.assertEqual('sha256', after.ledger.algorithm)
        self.assertEqual('sha256', after.blocks.algorithm)
        self.assertEqual(0, after.blocks.unknown)

    def test_one_that_has_no_sha1_and_gets_none_has_them_by_its_blocks(
        self,
    ) -> None:
        ledger = letters.proven_of('abc', sha1=None, proven=False, stored=None)
        for without, algorithm in (
            (True, 'sha256'),
            (False, letters.ALGORITHM),
        ):
            after = self.conclude(
                ledger, 'abc', 'abc', whole=False, algorithm='sha256',
                without=without,
            )  # fmt: skip
            self.assertEqual(algorithm, after.ledger.algorithm)
            self.assertEqual(algorithm, after.blocks.algorithm)

    @ddt.data('axc', 'a!c', 'ab')
    def test_new_digests_wait_while_something_is_bad(self, found: str) -> None:
        after = self.check(found, algorithm='sha256')
        self.assertEqual(letters.ALGORITHM, after.ledger.algorithm)
        self.assert_blocks('abc', after)

    def test_new_digests_that_are_not_complete_wait(self) -> None:
        ledger = letters.proven_of('abc')
        comparison = letters.compared(ledger, 'abc', 'abc', whole=False)
        comparison.fresh = letters.blocks_of('ab?', 'sha256')
        reading = conclusions.Reading(
            comparison, NOW, False, ledger.size, ledger.stored
        )
        after = conclusions.conclude(ledger, reading)
        self.assertEqual(letters.ALGORITHM, after.ledger.algorithm)
        self.assert_blocks('abc', after)

    def test_a_suspect_stays_one_and_its_doubtful_blocks_too(self) -> None:
        doubtful = (ledgers.BadBlocks(1, 1, DOUBTFUL),)
        after = self.check('abc', suspect=True, bad=doubtful).ledger
        self.assertEqual((True, doubtful), (after.suspect, after.bad))


class UnprovenTest(concluding.ConclusionTestCase):
    """A file whose blocks are known, and whose SHA-1 is not, or is wrong."""

    def unproven(self, **fields: Any) -> ledgers.Ledger:
        values = {'read': BEFORE} | fields
        return letters.ledger_of('abc', **values)

    def test_it_is_verified_by_its_blocks(self) -> None:
        after = self.conclude(
            self.unproven(), 'abc', 'abc', whole=False
        ).ledger
        self.assertEqual((NOW, None), (after.verified, after.sha1))

    def test_with_a_block_that_was_never_read_it_is_not(self) -> None:
        after = self.conclude(
            self.unproven(), 'a?c', 'abc', whole=False
        ).ledger
        self.assertIsNone(after.verified)

    def test_while_it_is_not_compared_with_its_checksum_it_is_not(
        self,
    ) -> None:
        ledger = self.unproven(sha1='f' * 40)
        after = self.conclude(ledger, 'abc', 'abc', whole=False).ledger
        self.assertIsNone(after.verified)

    def test_it_gets_its_sha1_with_a_reading_that_is_whole(self) -> None:
        after = self.conclude(self.unproven(), 'abc', 'abc').ledger
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW), after
        )

    def test_its_digests_count_for_more_than_a_stored_checksum(self) -> None:
        after = self.conclude(
            self.unproven(), 'abc', 'abc', stored='f' * 40
        ).ledger
        sha1 = letters.sha1_of('abc')
        self.assertEqual(
            (sha1, True, 'f' * 40, sha1),
            (after.sha1, after.proven, after.stored, after.found),
        )

    def test_no_sha1_is_made_of_damage(self) -> None:
        after = self.conclude(self.unproven(), 'abc', 'axc')
        ledger = after.ledger
        self.assertEqual(
            (None, False, None, None),
            (ledger.sha1, ledger.proven, ledger.stored, ledger.found),
        )
        self.assertEqual(NOW, ledger.verified)
        self.assertEqual(bad(1), ledger.bad)
        self.assert_blocks('abc', after)

    def test_the_right_sha1_ends_damage_of_which_no_digest_is_known(
        self,
    ) -> None:
        sha1 = letters.sha1_of('abc')
        ledger = self.unproven(sha1=sha1, bad=bad(1), found='f' * 40)
        after = self.conclude(ledger, 'a?c', 'abc', Aim.PROVE).ledger
        self.assertEqual(
            ((), True, None), (after.bad, after.proven, after.found)
        )
        self.assertEqual(NOW, after.verified)

    def test_its_new_digests_may_be_of_another_algorithm(self) -> None:
        after = self.conclude(
            self.unproven(), 'abc', 'abc', algorithm='sha256'
        )
        self.assertEqual('sha256', after.ledger.algorithm)
        self.assertEqual('sha256', after.blocks.algorithm)

    def test_a_wrong_sha1_is_told_again(self) -> None:
        ledger = self.unproven(sha1='f' * 40, found='e' * 40)
        after = self.conclude(ledger, 'abc', 'abc', Aim.PROVE).ledger
        self.assertEqual(
            (letters.sha1_of('abc'), False), (after.found, after.proven)
        )
        self.assertEqual(NOW, after.verified)

    def test_without_its_sha1_a_proof_is_none(self) -> None:
        ledger = self.unproven(sha1='f' * 40, found='e' * 40)
        after = self.conclude(ledger, '???', 'a!c', Aim.PROVE).ledger
        self.assertEqual((None, 'e' * 40), (after.verified, after.found))

    def test_what_a_sha1_proves_may_be_longer_than_was_known(self) -> None:
        ledger = letters.ledger_of(
            'ab', read=BEFORE, sha1=letters.sha1_of('abc'), found='e' * 40
        )
        after = self.conclude(ledger, 'ab', 'abc', Aim.PROVE)
        self.assertEqual(3 * letters.BLOCK, after.ledger.size)
        self.assert_blocks('abc', after)

    def test_a_suspect_that_is_proven_keeps_its_doubtful_blocks(self) -> None:
        doubtful = (ledgers.BadBlocks(1, 1, DOUBTFUL),)
        ledger = self.unproven(suspect=True, bad=doubtful)
        after = self.conclude(ledger, 'abc', 'abc').ledger
        self.assertEqual((doubtful, True), (after.bad, after.proven))


class EvidenceTest(concluding.ConclusionTestCase):
    """What somebody else says of all of a file."""

    def weigh(
        self,
        holds: bool,
        stored: str | None = None,
        whole: bool = True,
        moved: bool = False,
        suspect: bool = False,
        algorithm: str | None = letters.ALGORITHM,
    ) -> tuple[conclusions.Conclusion, conclusions.Conclusion]:
        """Learn a file, and give what follows without it and with it."""
        ledger = letters.ledger_of('??', started=letters.NOW, suspect=suspect)
        compared = letters.compared(
            ledger, '??', 'ab', Aim.LEARN, whole, algorithm
        )
        reading = conclusions.Reading(
            compared, letters.NOW, moved, 2 * letters.BLOCK, stored,
            form=ledgers.Form.OTHER,
        )  # fmt: skip
        before = conclusions.conclude(ledger, reading)
        return before, conclusions.weigh(before, reading, 'image', holds)

    def test_what_holds_ends_all_doubts(self) -> None:
        before, after = self.weigh(True, suspect=True)
        self.assertTrue(before.ledger.suspect)
        ledger = after.ledger
        self.assertIs(ledgers.Form.OTHER, ledger.form)
        self.assertIs(ledgers.Trust.ORIGIN_VERIFIED, ledger.trust)
        self.assertEqual(
            ('image', letters.NOW, letters.NOW, letters.NOW, True),
            (ledger.image, ledger.read, ledger.verified, ledger.origin,
             ledger.proven),
        )  # fmt: skip
        self.assertEqual(before.ledger.sha1, ledger.sha1)
        self.assertEqual(ledger.sha1, ledger.stored)
        self.assertEqual(
            (before.ledger.key, before.ledger.size, before.ledger.block_size),
            (ledger.key, ledger.size, ledger.block_size),
        )
        self.assertFalse(after.supersedes)
        self.assert_blocks('ab', after)

    def test_a_checksum_of_other_bytes_goes(self) -> None:
        before, _after = self.weigh(True)
        for stored, goes in ((before.ledger.sha1, False), ('0' * 40, True)):
            _before, after = self.weigh(True, stored)
            self.assertIs(goes, after.supersedes)

    def test_what_does_not_hold_is_a_doubt_and_nothing_else(self) -> None:
        before, after = self.weigh(False)
        self.assertFalse(before.ledger.suspect)
        self.assertEqual(
            dataclasses.replace(before.ledger, suspect=True), after.ledger
        )
        self.assertIs(before.blocks, after.blocks)

    def test_without_all_of_the_file_nothing_follows(self) -> None:
        for values in ({'whole': False}, {'algorithm': None}):
            given: dict[str, Any] = values
            before, after = self.weigh(True, **given)
            self.assertEqual(before, after)

    def test_what_was_touched_meanwhile_is_asked_of_the_next_reading(
        self,
    ) -> None:
        before, after = self.weigh(False, moved=True)
        self.assertEqual(before, after)
        _before, after = self.weigh(True, moved=True)
        self.assertIs(ledgers.Trust.ORIGIN_VERIFIED, after.ledger.trust)
