# SPDX-License-Identifier: Apache-2.0

"""What a reading means for a ledger that may be of another file.

What is known of a file and what it holds are texts, see
:mod:`tests.support.letters`.
"""

import dataclasses
from typing import Any

import ddt

from nova_imagecache.content import ledgers
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from tests.support import base
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
class QuestionTest(concluding.ConclusionTestCase):
    """Another file has the name: is it what the earlier one was?"""

    def ask(
        self, found: str, known: str = 'abc', **values: Any
    ) -> conclusions.Conclusion:
        fields = {
            key: values.pop(key) for key in ('bad', 'differs') if key in values
        }
        ledger = letters.proven_of(known, question=True, **fields)
        return self.conclude(ledger, known, found, **values)

    def test_if_it_is_the_history_goes_on(self) -> None:
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW),
            self.ask('abc').ledger,
        )

    @ddt.data('axc', 'xyz', 'abx')
    def test_an_original_of_the_same_form_differs(self, found: str) -> None:
        after = self.ask(found)
        ledger = after.ledger
        self.assertEqual((False, True), (ledger.question, ledger.differs))
        sha1 = letters.sha1_of('abc')
        self.assertEqual((sha1, sha1), (ledger.sha1, ledger.stored))
        self.assertIsNone(ledger.rebaselined)
        self.assertFalse(after.supersedes)
        self.assert_blocks('abc', after)

    @ddt.data('ab', 'abcd', 'xbcd')
    def test_an_original_of_another_size_with_kin_differs(
        self, found: str
    ) -> None:
        after = self.ask(found)
        self.assertTrue(after.ledger.differs)
        self.assertFalse(after.supersedes)

    def test_data_in_another_place_is_no_kin(self) -> None:
        self.assertTrue(self.ask('xyzc').supersedes)

    def test_zeros_are_no_kin(self) -> None:
        after = self.ask('x0zzz', 'a0c')
        self.assertTrue(after.supersedes)
        self.assertFalse(after.ledger.differs)

    def test_a_checksum_beside_digests_that_prove_nothing_has_to_agree(
        self,
    ) -> None:
        for stored, differs in (
            (letters.sha1_of('abc'), False),
            ('f' * 40, True),
            (None, False),
        ):
            ledger = letters.ledger_of(
                'abc', read=BEFORE, question=True, stored=stored
            )
            after = self.conclude(ledger, 'abc', 'abc').ledger
            self.assertEqual((False, differs), (after.question, after.differs))

    def test_an_original_in_another_form_is_made_anew(self) -> None:
        after = self.ask('wxyz')
        expected = letters.proven_of(
            'wxyz',
            read=NOW,
            verified=None,
            rebaselined=NOW.wall,
            anew=True,
        )
        # As large as such a file has them.
        self.assertEqual(
            expected, dataclasses.replace(after.ledger, block_size=4096)
        )
        self.assertTrue(after.supersedes)
        self.assert_blocks('wxyz', after)

    @ddt.data('axc', 'xyz', 'ab', 'abcd')
    def test_what_is_no_original_is_made_anew(self, found: str) -> None:
        after = self.ask(found, original=False)
        self.assertTrue(after.supersedes)
        self.assertEqual(
            (False, False, True, ()),
            (
                after.ledger.question,
                after.ledger.differs,
                after.ledger.anew,
                after.ledger.bad,
            ),
        )
        self.assertEqual(letters.sha1_of(found), after.ledger.sha1)

    def test_what_is_no_original_and_the_same_goes_on_too(self) -> None:
        after = self.ask('abc', original=False)
        self.assertFalse(after.supersedes)
        self.assertIsNone(after.ledger.rebaselined)
        self.assertEqual(NOW, after.ledger.verified)

    def test_one_made_anew_that_was_touched_is_read_once_more(self) -> None:
        ledger = self.ask('axc', original=False, moved=True).ledger
        self.assertEqual(ALL_THREE, ledger.unsettled)
        self.assertEqual(
            (None, False, None), (ledger.sha1, ledger.proven, ledger.stored)
        )
        self.assertTrue(ledger.anew)

    def test_one_made_anew_before_a_reboot_is_suspect(self) -> None:
        ledger = self.ask('axc', original=False, outlived=True).ledger
        self.assertTrue(ledger.suspect)

    def test_a_new_baseline_takes_a_reading_that_is_not_interrupted(
        self,
    ) -> None:
        after = self.ask('axc', original=False, whole=False)
        self.assertEqual(
            (True, False, ()),
            (after.ledger.question, after.ledger.differs, after.ledger.bad),
        )
        self.assertEqual(BEFORE, after.ledger.verified)
        self.assertFalse(after.supersedes)
        self.assert_blocks('abc', after)

    def test_of_one_that_gets_no_sha1_the_digests_are_one(self) -> None:
        after = self.ask('axc', original=False, whole=False, without=True)
        self.assertTrue(after.supersedes)
        self.assertEqual(
            (None, False, None, True),
            (
                after.ledger.sha1,
                after.ledger.proven,
                after.ledger.stored,
                after.ledger.anew,
            ),
        )
        self.assert_blocks('axc', after)

    def test_nor_without_new_digests_is_there_one(self) -> None:
        after = self.ask('axc', original=False, algorithm=None)
        self.assertTrue(after.ledger.question)
        self.assertFalse(after.supersedes)

    def test_until_then_it_is_not_said_to_differ(self) -> None:
        after = self.ask('axc', original=False, whole=False, differs=True)
        self.assertEqual(
            (True, False), (after.ledger.question, after.ledger.differs)
        )

    def test_digests_tell_where_no_sha1_is_known(self) -> None:
        ledger = letters.ledger_of('abc', question=True, read=BEFORE)
        after = self.conclude(ledger, 'abc', 'axc').ledger
        self.assertEqual((False, True), (after.question, after.differs))

    def test_what_was_known_to_be_bad_stays_so_until_then(self) -> None:
        after = self.ask('xxx', original=False, whole=False, bad=bad(1))
        self.assertEqual(bad(1), after.ledger.bad)

    def test_damage_that_came_along_is_known_still(self) -> None:
        after = self.ask('axc', bad=bad(1)).ledger
        self.assertEqual(
            (False, False, bad(1)), (after.question, after.differs, after.bad)
        )
        self.assertEqual(NOW, after.verified)

    @ddt.data(True, False)
    def test_more_damage_beside_what_came_along_is_corruption_as_well(
        self, original: bool
    ) -> None:
        after = self.ask('xxc', bad=bad(1), original=original)
        self.assertEqual(
            (False, False), (after.ledger.question, after.ledger.differs)
        )
        self.assertEqual(bad(0, 1), after.ledger.bad)
        self.assertFalse(after.supersedes)

    def test_what_was_known_to_be_bad_and_has_no_kin_says_nothing(
        self,
    ) -> None:
        self.assertTrue(self.ask('xxx', bad=bad(1)).ledger.differs)

    def test_what_an_unfinished_comparison_found_counts(self) -> None:
        # Though all that is bad was known to be before it.
        after = self.ask('xyz', differs=True, bad=bad(0, 1, 2)).ledger
        self.assertEqual((False, True), (after.question, after.differs))
        # And what was known to be bad is no difference by itself.
        after = self.ask('xyz', bad=bad(0, 1, 2)).ledger
        self.assertEqual((False, False), (after.question, after.differs))

    def test_there_is_no_form_that_is_empty(self) -> None:
        after = self.ask('')
        self.assertTrue(after.ledger.differs)
        self.assertFalse(after.supersedes)

    @ddt.data('x', 'xyz', 'wxyz')
    def test_one_in_another_form_is_made_anew_whatever_its_size(
        self, found: str
    ) -> None:
        ledger = letters.proven_of(
            'abc', question=True, form=ledgers.Form.QCOW2
        )
        for form, anew in (
            (ledgers.Form.OTHER, True),
            (ledgers.Form.QCOW2, found != 'xyz'),
            (None, found != 'xyz'),
        ):
            after = self.conclude(ledger, 'abc', found, form=form)
            self.assertEqual(anew, after.supersedes)
        # Unless it has something in common: then a bit has flipped there.
        after = self.conclude(ledger, 'abc', 'xbc', form=ledgers.Form.OTHER)
        self.assertTrue(after.ledger.differs)

    def test_the_form_is_noted_of_what_is_sure(self) -> None:
        form = ledgers.Form.QCOW2
        for fields, noted in (
            ({}, form),
            ({'question': True}, None),
            ({'differs': True}, None),
        ):
            ledger = letters.proven_of('abc', **fields)
            after = self.conclude(ledger, 'abc', 'axc', form=form).ledger
            self.assertEqual(noted, after.form)
        self.assertEqual(form, self.ask('wxyz', form=form).ledger.form)
        ledger = letters.proven_of('abc')
        unsure = self.conclude(ledger, 'abc', 'abc', form=form, unsure=True)
        self.assertIsNone(unsure.ledger.form)
        # Once noted, it stays.
        ledger = letters.proven_of('abc', form=ledgers.Form.OTHER)
        after = self.conclude(ledger, 'abc', 'abc', form=form).ledger
        self.assertEqual(ledgers.Form.OTHER, after.form)

    def test_what_another_file_differed_in_does_not_count(self) -> None:
        # A third one, which is what the first one was.
        after = self.ask('abc', bad=bad(1), differs=True).ledger
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW), after
        )

    def test_what_cannot_be_read_differs_in_nothing(self) -> None:
        after = self.ask('a!c').ledger
        self.assertEqual((False, False), (after.question, after.differs))
        self.assertEqual({1: UNREADABLE}, ledgers.spread(after.bad))


@ddt.ddt
class ChecksumQuestionTest(concluding.ConclusionTestCase):
    """Nothing but a SHA-1 is left of an earlier file of the name."""

    def ask(
        self, found: str, sha1: str, **values: Any
    ) -> conclusions.Conclusion:
        known = '?' * len(found)
        ledger = letters.ledger_of(known, question=True, sha1=sha1)
        values = {'stored': sha1} | values
        return self.conclude(ledger, known, found, Aim.LEARN, **values)

    def test_if_the_file_has_it_it_is_good(self) -> None:
        after = self.ask('abc', letters.sha1_of('abc'))
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW), after.ledger
        )

    def test_if_an_original_has_not_it_differs(self) -> None:
        after = self.ask('abc', 'f' * 40)
        ledger = after.ledger
        self.assertTrue(ledger.differs)
        self.assertEqual(
            ('f' * 40, 'f' * 40, letters.sha1_of('abc'), False),
            (ledger.sha1, ledger.stored, ledger.found, ledger.proven),
        )
        self.assertFalse(after.supersedes)

    def test_if_what_is_no_original_has_not_it_is_made_anew(self) -> None:
        after = self.ask('abc', 'f' * 40, original=False)
        self.assertTrue(after.supersedes)
        self.assertEqual(letters.sha1_of('abc'), after.ledger.sha1)

    @ddt.data({'whole': False}, {'found': 'a!c'})
    def test_as_long_as_there_is_no_sha1_it_is_a_question(
        self, how: dict[str, Any]
    ) -> None:
        values = {'found': 'abc', 'sha1': 'f' * 40} | how
        after = self.ask(**values)
        self.assertEqual(
            (True, False), (after.ledger.question, after.ledger.differs)
        )
        self.assertIsNone(after.ledger.verified)

    def test_one_that_is_not_settled_is_asked_later(self) -> None:
        after = self.ask('abc', 'f' * 40, moved=True).ledger
        self.assertEqual(
            (True, False, ALL_THREE),
            (after.question, after.differs, after.unsettled),
        )


@ddt.ddt
class DiffersTest(concluding.ConclusionTestCase):
    """A file that was not what an earlier one was, and is read again."""

    def check(self, found: str, **values: Any) -> ledgers.Ledger:
        ledger = letters.proven_of('abc', differs=True, bad=bad(1))
        values = {'whole': False, 'algorithm': None} | values
        return self.conclude(ledger, 'abc', found, **values).ledger

    def test_it_stays_so(self) -> None:
        after = self.check('axc')
        self.assertEqual((True, bad(1)), (after.differs, after.bad))

    def test_more_of_it_may_differ(self) -> None:
        self.assertEqual(bad(0, 1), self.check('xxc').bad)
        self.assertTrue(self.check('xxc').differs)

    def test_it_ends_when_it_is_what_the_earlier_one_was(self) -> None:
        after = self.check('abc')
        self.assertEqual((False, ()), (after.differs, after.bad))
        self.assertEqual(NOW, after.verified)

    def test_it_does_not_end_while_some_of_it_cannot_be_read(self) -> None:
        self.assertTrue(self.check('!bc').differs)

    def test_it_stays_so_where_the_sha1_alone_tells(self) -> None:
        ledger = letters.ledger_of(
            'abc', differs=True, read=BEFORE, sha1='f' * 40, found='e' * 40
        )
        after = self.conclude(ledger, 'abc', 'abc', Aim.PROVE).ledger
        self.assertTrue(after.differs)
        known = dataclasses.replace(ledger, sha1=letters.sha1_of('abc'))
        after = self.conclude(known, 'abc', 'abc', Aim.PROVE).ledger
        self.assertEqual((False, None), (after.differs, after.found))


@ddt.ddt
class UnsureTest(concluding.ConclusionTestCase):
    """Nobody can tell whether it is the file that the ledger is of."""

    def check(
        self, found: str, known: str = 'abc', **values: Any
    ) -> conclusions.Conclusion:
        fields = {
            key: values.pop(key) for key in ('bad', 'differs') if key in values
        }
        ledger = letters.proven_of('abc', **fields)
        values = {'unsure': True} | values
        return self.conclude(ledger, known, found, **values)

    def test_what_is_as_it_was_is_good(self) -> None:
        self.assertEqual(
            letters.proven_of('abc', read=NOW, verified=NOW),
            self.check('abc').ledger,
        )

    @ddt.data('axc', 'xyc', 'ab', 'abcd')
    def test_what_has_something_of_it_has_decayed(self, found: str) -> None:
        after = self.check(found)
        self.assertEqual(
            (False, True), (after.ledger.differs, after.ledger.damaged)
        )
        self.assertFalse(after.supersedes)

    def test_what_has_nothing_of_it_is_another_and_not_corrupt(self) -> None:
        after = self.check('xyz')
        self.assertTrue(after.ledger.differs)
        self.assertFalse(after.supersedes)
        # What decays keeps its size.
        for original in (True, False):
            for found in ('xyz', ''):
                after = self.check(found, original=original)
                self.assertTrue(after.ledger.differs)
                self.assertFalse(after.supersedes)
            for found in ('wxyz', 'xy'):
                after = self.check(found, original=original)
                self.assertTrue(after.supersedes)

    def test_where_it_is_sure_it_is_corrupt(self) -> None:
        after = self.check('xyz', unsure=False, original=False)
        self.assertEqual(bad(0, 1, 2), after.ledger.bad)
        self.assertFalse(after.ledger.differs)
        self.assertFalse(after.supersedes)

    def test_all_of_it_that_was_bad_before_is_as_bad(self) -> None:
        after = self.check('xyz', bad=bad(0, 1, 2), original=False)
        self.assertFalse(after.ledger.differs)
        self.assertFalse(after.supersedes)

    def test_one_that_differs_does_so_still(self) -> None:
        """It was asked already, and nothing is begun anew."""
        for found in ('xyz', 'wxyz'):
            after = self.check(found, differs=True, original=False)
            self.assertTrue(after.ledger.differs)
            self.assertFalse(after.supersedes)

    def test_where_no_digest_is_known_nothing_is_another(self) -> None:
        after = self.check('xyzw', '???', aim=Aim.PROVE, original=False)
        self.assertFalse(after.supersedes)

    def test_an_empty_file_that_has_grown_is_corrupt(self) -> None:
        ledger = letters.proven_of('')
        after = self.conclude(ledger, '', 'a', unsure=True)
        self.assertEqual(bad(0), after.ledger.bad)
        self.assertFalse(after.supersedes)

    def test_it_may_take_another_reading_to_tell(self) -> None:
        after = self.check('wxyz', original=False, whole=False)
        self.assertEqual(
            (True, False, ()),
            (after.ledger.question, after.ledger.differs, after.ledger.bad),
        )
        ledger = letters.ledger_of('abc', read=BEFORE, sha1='f' * 40)
        after = self.conclude(ledger, 'abc', 'xyz', unsure=True, whole=False)
        self.assertTrue(after.ledger.question)

    def test_a_file_without_data_is_no_other_for_that(self) -> None:
        ledger = letters.ledger_of('000', read=BEFORE, sha1='f' * 40)
        after = self.conclude(ledger, '000', '000', unsure=True, whole=False)
        self.assertFalse(after.ledger.question)

    def test_what_cannot_be_read_is_no_other(self) -> None:
        after = self.check('a!c', original=False)
        self.assertFalse(after.supersedes)
        self.assertEqual({1: UNREADABLE}, ledgers.spread(after.ledger.bad))


class NewDamageTest(base.TestCase):
    def test_only_corruption_that_was_not_known_is_news(self) -> None:
        new = conclusions.new_damage
        self.assertFalse(new({}, frozenset()))
        self.assertTrue(new({1: CORRUPT}, frozenset()))
        self.assertFalse(new({1: CORRUPT}, frozenset({1})))
        self.assertTrue(new({1: CORRUPT, 2: CORRUPT}, frozenset({1})))
        self.assertFalse(new({1: UNREADABLE, 2: DOUBTFUL}, frozenset()))
