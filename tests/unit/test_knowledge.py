# SPDX-License-Identifier: Apache-2.0

"""What is known of a file before it is read again, and what that means."""

import dataclasses
from typing import Any

import ddt

from nova_imagecache.cache import sightings
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from tests.support import base
from tests.support import letters
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
DOUBTFUL = scrubbing.DOUBTFUL
Verdict = knowledge.Verdict
Finding = knowledge.Finding
SHA1 = letters.sha1_of('abc')
OTHER = 'f' * 40
BEFORE = letters.BEFORE


def bad(**blocks: ledgers.Damage) -> tuple[ledgers.BadBlocks, ...]:
    """Give damage by block, as ``_2=CORRUPT``."""
    return ledgers.gather({int(key[1:]): each for key, each in blocks.items()})


@ddt.ddt
class HasHadLedgerTest(base.TestCase):
    @ddt.data('ledger', 'lost', 'blind')
    def test_one_that_is_there_or_lost_or_not_to_be_seen_counts(
        self, field: str
    ) -> None:
        ledger = ledgers.Ledger.begin((1, 2, None), 5, 'sha256')
        known: dict[str, Any] = {field: ledger if field == 'ledger' else True}
        self.assertTrue(knowledge.Knowledge(**known).has_had_ledger)

    def test_else_it_never_had_one(self) -> None:
        self.assertFalse(knowledge.Knowledge().has_had_ledger)


@ddt.ddt
class FindingTest(base.TestCase):
    @ddt.data(
        (Verdict.GOOD, False, False),
        (Verdict.UNKNOWN, False, False),
        (Verdict.OFF, False, False),
        (Verdict.CORRUPT, True, True),
        (Verdict.UNREADABLE, True, True),
        (Verdict.DIFFERS, False, True),
    )
    @ddt.unpack
    def test_what_is_harmful_and_what_is_damage(
        self, verdict: Verdict, damaged: bool, harmful: bool
    ) -> None:
        finding = Finding(verdict)
        self.assertEqual(
            (damaged, harmful), (finding.damaged, finding.harmful)
        )

    def test_nothing_is_wrong_with_it_by_itself(self) -> None:
        finding = Finding()
        self.assertEqual(
            (False, False, None),
            (finding.skipped, finding.problem, finding.history),
        )

    def test_what_the_state_is_to_remember_is_no_part_of_it(self) -> None:
        history = sightings.History(damage=sightings.Damage('corrupt', 5.0))
        self.assertEqual(Finding(), Finding(history=history))
        self.assertEqual(repr(Finding()), repr(Finding(history=history)))

    def test_nor_is_how_it_was_found_out(self) -> None:
        self.assertFalse(Finding().contradicted)
        self.assertFalse(Finding().digested)
        self.assertEqual(Finding(), Finding(contradicted=True, digested=True))

    def test_a_note_is_added_to_others(self) -> None:
        finding = Finding(Verdict.GOOD).noting('one').noting('two')
        self.assertEqual(Finding(Verdict.GOOD, 'one; two'), finding)

    def test_what_was_not_read_keeps_its_verdict(self) -> None:
        finding = Finding(Verdict.CORRUPT, 'bad').postponed('why')
        self.assertEqual(
            Finding(Verdict.CORRUPT, 'bad; not verified: why', skipped=True),
            finding,
        )
        self.assertTrue(Finding().postponed('why', problem=True).problem)


class RecalledTest(base.TestCase):
    def known(self, **fields: Any) -> knowledge.Knowledge:
        return knowledge.Knowledge(ledger=letters.proven_of('abc', **fields))

    def test_when_it_was_good_last_is_known_of_what_is_good(self) -> None:
        known = self.known()
        assert known.ledger is not None
        assert known.ledger.verified is not None
        self.assertEqual(known.ledger.verified.wall, known.last_good)
        for other in (
            self.known(verified=None),
            self.known(bad=bad(_1=CORRUPT)),
            knowledge.Knowledge(),
        ):
            self.assertIsNone(other.last_good)

    def test_which_file_it_is_of_is_known_once_it_was_compared(self) -> None:
        known = self.known()
        assert known.ledger is not None
        self.assertEqual(known.ledger.key, known.key)
        for other in (self.known(question=True), knowledge.Knowledge()):
            self.assertIsNone(other.key)

    def test_how_long_a_file_is_makes_no_other_knowledge(self) -> None:
        self.assertEqual(knowledge.Knowledge(), knowledge.Knowledge(size=5))


@ddt.ddt
class VerdictTest(base.TestCase):
    def verdict(self, stored: str | None = SHA1, /, **fields: Any) -> Verdict:
        return self.judge(stored, **fields).verdict

    def judge(self, stored: str | None = SHA1, /, **fields: Any) -> Finding:
        return knowledge.judge(letters.proven_of('abc', **fields), stored)

    def test_what_was_verified_is_good_and_there_is_nothing_to_say(
        self,
    ) -> None:
        self.assertEqual(Finding(Verdict.GOOD), self.judge())
        self.assertEqual(Finding(Verdict.GOOD), self.judge(None))

    def test_what_was_read_once_is_not_known_to_be_good(self) -> None:
        self.assertEqual(Finding(), self.judge(verified=None))

    def test_people_are_told_that_it_was_read_all_the_same(self) -> None:
        for fields, word in (
            ({'verified': None}, 'digested'),
            ({'verified': None, 'read': None}, 'unknown'),
            ({'verified': None, 'question': True}, 'unknown'),
            ({}, 'good'),
            ({'bad': bad(_1=CORRUPT)}, 'corrupt'),
        ):
            self.assertEqual(word, self.judge(**fields).word)
        self.assertEqual('off', Finding(Verdict.OFF).word)

    def test_what_is_missing_is_said_as_such(self) -> None:
        ledger = letters.proven_of('abcd', bad=bad(_2=CORRUPT, _3=CORRUPT))
        block = ledger.block_size
        for size, note in (
            (2 * block, 'it is 8.0 KiB too short'),
            # The block in which it ends is bad for that alone.
            (3 * block - 5, 'it is 4.0 KiB too short'),
            (ledger.size, 'bytes 8192-16383 are corrupt'),
            (
                3 * block,
                'it is 4.0 KiB too short; bytes 8192-12287 are corrupt',
            ),
        ):
            found = knowledge.judge(ledger, size=size)
            self.assertEqual(
                (Verdict.CORRUPT, note), (found.verdict, found.note)
            )

    def test_what_is_too_much_is_too(self) -> None:
        ledger = letters.proven_of('abcd', bad=bad(_1=CORRUPT, _4=CORRUPT))
        found = knowledge.judge(ledger, size=ledger.size + 5)
        self.assertEqual(
            'it is 5 B too long; bytes 4096-8191 are corrupt', found.note
        )

    def test_a_file_that_differs_may_be_the_right_one(self) -> None:
        ledger = letters.proven_of('abcd', bad=bad(_3=CORRUPT), differs=True)
        found = knowledge.judge(ledger, size=ledger.size - 5)
        self.assertNotIn('too short', found.note)

    @ddt.data(
        ({'_1': CORRUPT}, Verdict.CORRUPT),
        ({'_1': UNREADABLE}, Verdict.UNREADABLE),
        ({'_0': UNREADABLE, '_1': CORRUPT}, Verdict.CORRUPT),
        ({'_1': DOUBTFUL}, Verdict.GOOD),
    )
    @ddt.unpack
    def test_the_worst_block_counts(
        self, blocks: dict[str, ledgers.Damage], verdict: Verdict
    ) -> None:
        self.assertIs(verdict, self.verdict(bad=bad(**blocks)))

    @ddt.data(
        ({}, Verdict.DIFFERS),
        ({'_1': CORRUPT}, Verdict.DIFFERS),
        ({'_1': UNREADABLE}, Verdict.UNREADABLE),
    )
    @ddt.unpack
    def test_what_differs_is_not_corrupt(
        self, blocks: dict[str, ledgers.Damage], verdict: Verdict
    ) -> None:
        finding = self.judge(differs=True, bad=bad(**blocks))
        self.assertIs(verdict, finding.verdict)
        self.assertIn('an earlier file of this image', finding.note)
        self.assertNotIn('corrupt', finding.note)

    def test_what_differs_by_its_sha1_alone_is_not_corrupt(self) -> None:
        finding = self.judge(OTHER, differs=True, proven=False, found='e' * 40)
        self.assertIs(Verdict.DIFFERS, finding.verdict)
        self.assertIn(f'its SHA-1 is {"e" * 40}', finding.note)

    def test_bytes_are_named_from_0(self) -> None:
        finding = self.judge(bad=bad(_1=CORRUPT, _2=UNREADABLE))
        self.assertEqual(
            'bytes 4096-8191 are corrupt, bytes 8192-12287 are unreadable',
            finding.note,
        )
        finding = self.judge(differs=True, bad=bad(_1=CORRUPT))
        self.assertIn('bytes 4096-8191 differ;', finding.note)
        finding = self.judge(bad=bad(_1=DOUBTFUL))
        self.assertEqual('bytes 4096-8191 are doubtful', finding.note)

    def test_of_many_ranges_some_are_named(self) -> None:
        blocks = dict.fromkeys([0, 2, 4, 6], CORRUPT)
        ledger = letters.proven_of('a' * 11, bad=ledgers.gather(blocks))
        self.assertNotIn('more', knowledge.judge(ledger).note)
        blocks |= {8: CORRUPT}
        ledger = letters.proven_of('a' * 11, bad=ledgers.gather(blocks))
        note = knowledge.judge(ledger).note
        self.assertTrue(note.endswith(', and 1 more ranges'), note)
        self.assertEqual(4, note.count('are corrupt'))

    def test_why_it_cannot_be_read_is_told(self) -> None:
        finding = self.judge(unreadable='Input/output error')
        self.assertEqual(
            Finding(
                Verdict.UNREADABLE, 'it cannot be read: Input/output error'
            ),
            finding,
        )

    def test_one_that_is_corrupt_and_unreadable_is_corrupt(self) -> None:
        finding = self.judge(unreadable='why', bad=bad(_1=CORRUPT))
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual(
            'bytes 4096-8191 are corrupt; it cannot be read: why', finding.note
        )

    def test_the_stored_checksum_that_is_now_there_counts(self) -> None:
        finding = self.judge(OTHER)
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual(
            'only its .sha1 says so: if that is wrong, remove it, and verify '
            'the file; it has not changed since it was first read; its SHA-1 '
            f'is {SHA1} and not {OTHER}',
            finding.note,
        )

    def test_one_that_is_lost_by_now_is_remembered(self) -> None:
        finding = self.judge(None, stored=OTHER, found=SHA1)
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertIn(f'and not {OTHER}', finding.note)

    def test_one_that_was_put_right_is_believed_at_once(self) -> None:
        finding = self.judge(SHA1, stored=OTHER, found=SHA1)
        self.assertEqual(Finding(Verdict.GOOD), finding)

    def test_where_the_sha1_is_not_proven_another_one_proves_nothing(
        self,
    ) -> None:
        finding = self.judge(OTHER, proven=False)
        self.assertEqual(Finding(), finding)

    def test_beside_damage_the_checksum_says_nothing(self) -> None:
        finding = self.judge(OTHER, bad=bad(_1=CORRUPT))
        self.assertEqual('bytes 4096-8191 are corrupt', finding.note)

    def test_a_sha1_that_is_neither_is_corruption(self) -> None:
        finding = self.judge(proven=False, found=OTHER)
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual(f'its SHA-1 is {OTHER} and not {SHA1}', finding.note)

    def test_a_sha1_found_that_is_what_both_say_is_none(self) -> None:
        finding = self.judge(proven=False, found=SHA1)
        self.assertEqual(Finding(Verdict.GOOD), finding)

    def test_a_sha1_with_which_nothing_is_known_to_agree_is_none(
        self,
    ) -> None:
        finding = self.judge(
            None, sha1=None, stored=None, proven=False, found=OTHER
        )
        self.assertEqual(Finding(Verdict.GOOD), finding)

    def test_a_checksum_that_was_not_compared_leaves_it_unknown(self) -> None:
        values: dict[str, Any] = {
            'sha1': None, 'proven': False, 'stored': None,
        }  # fmt: skip
        self.assertIs(Verdict.UNKNOWN, self.verdict(SHA1, **values))
        self.assertIs(Verdict.GOOD, self.verdict(None, **values))
        values |= {'stored': SHA1}
        self.assertIs(Verdict.GOOD, self.verdict(SHA1, **values))

    def test_what_is_not_settled_is_to_be_read_again(self) -> None:
        finding = self.judge(
            OTHER,
            unsettled=(ledgers.Run(0, 1),),
            verified=None,
            proven=False,
            found='e' * 40,
        )
        self.assertIs(Verdict.UNKNOWN, finding.verdict)
        self.assertEqual(
            'it was touched or written to while it was first read, so it is '
            'to be read again',
            finding.note,
        )

    def test_of_one_whose_first_reading_goes_on_nothing_is_said(self) -> None:
        finding = self.judge(
            None, read=None, verified=None, sha1=None, stored=None,
            proven=False, started=BEFORE, position=1,
        )  # fmt: skip
        self.assertEqual(Finding(), finding)

    def test_what_differs_says_how_to_end_that(self) -> None:
        finding = self.judge(differs=True)
        self.assertTrue(
            finding.note.endswith('one of the two is bad; see nova-imagecache '
                                  'confirm')
        )  # fmt: skip
        self.assertNotIn('confirm', self.judge().note)

    def test_it_is_told_where_only_the_stored_checksum_says_so(self) -> None:
        self.assertTrue(self.judge(OTHER).contradicted)
        for stored, fields in (
            (SHA1, {}),
            (OTHER, {'bad': bad(_1=CORRUPT)}),
            (SHA1, {'found': OTHER}),
            # What it was is not known.
            (OTHER, {'found': SHA1, 'proven': False}),
        ):
            finding = self.judge(stored, **fields)
            self.assertFalse(finding.contradicted, finding)

    def test_that_one_is_too_sparse_for_a_sha1_is_told_where_it_has_none(
        self,
    ) -> None:
        none: dict[str, Any] = {'sha1': None, 'proven': False, 'stored': None}
        why = 'it has no SHA-1, as it is too sparse for one'

        def note(of: str | None, sparse: bool, /, **fields: Any) -> str:
            ledger = letters.proven_of('abc', **fields)
            return knowledge.judge(ledger, of, sparse).note

        self.assertEqual(why, note(None, True, **none))
        for other in (
            note(None, False, **none),
            note(SHA1, True, **none),
            note(None, True),
            note(None, True, **none, unsettled=(ledgers.Run(0, 1),)),
        ):
            self.assertNotIn(why, other)

    def test_marks_are_told_whatever_the_verdict(self) -> None:
        finding = self.judge(suspect=True, rebaselined=1e9)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertEqual(
            'suspect: it may have been damaged before anything was known of '
            'it; rebaselined on 2001-09-09, as all that was known of it was '
            'lost; see nova-imagecache confirm',
            finding.note,
        )
        finding = self.judge(rebaselined=1e9, anew=True)
        self.assertEqual(
            'rebaselined on 2001-09-09, as it was made anew with other '
            'bytes; see nova-imagecache confirm',
            finding.note,
        )


class QuestionTest(base.TestCase):
    def judge(self, **fields: Any) -> Finding:
        ledger = letters.proven_of('abc', question=True, **fields)
        return knowledge.judge(ledger, OTHER)

    def test_of_another_file_nothing_is_known(self) -> None:
        self.assertEqual(
            Finding(note='it is to be compared with an earlier file of its '
                    'name'),
            self.judge(suspect=True, rebaselined=1e9),
        )  # fmt: skip

    def test_what_was_bad_of_the_earlier_one_is_said(self) -> None:
        finding = self.judge(bad=bad(_1=CORRUPT))
        self.assertIs(Verdict.UNKNOWN, finding.verdict)
        self.assertTrue(finding.note.endswith(', of which some was bad'))
        finding = self.judge(bad=bad(_1=DOUBTFUL))
        self.assertFalse(finding.note.endswith('bad'))

    def test_one_that_cannot_be_read_cannot(self) -> None:
        finding = self.judge(unreadable='why')
        self.assertIs(Verdict.UNREADABLE, finding.verdict)
        self.assertTrue(finding.note.startswith('it cannot be read: why; '))


def sighting_of(**fields: Any) -> sightings.Sighting:
    values: dict[str, Any] = {
        'key': letters.KEY,
        'last_used': None,
        'modified': 10**18,
        'seen': BEFORE,
        'image': None,
        'digested': True,
        'suspect': False,
        'rebaselined': None,
        'damage': None,
        'trashed': None,
        'ahead': False,
    }
    return sightings.Sighting(**(values | fields))


@ddt.ddt
class KnowledgeTest(base.TestCase):
    def test_a_file_that_was_never_read_is_unknown(self) -> None:
        self.assertEqual(
            Finding(note='it has not been read yet'),
            knowledge.Knowledge().finding,
        )
        self.assertIsNone(knowledge.Knowledge().history)

    def test_with_a_ledger_that_tells(self) -> None:
        known = knowledge.Knowledge(SHA1, letters.proven_of('abc'))
        self.assertEqual(Finding(Verdict.GOOD), known.finding)
        self.assertEqual(sightings.History(), known.history)
        known = knowledge.Knowledge(OTHER, letters.proven_of('abc'))
        self.assertIs(Verdict.CORRUPT, known.finding.verdict)

    def test_the_digests_are_all_that_it_has_to_have(self) -> None:
        ledger = letters.proven_of('abc')
        for stored, with_ledger, expected in (
            (None, None, set()),
            (OTHER, None, {OTHER}),
            (None, ledger, {SHA1}),
            (SHA1, ledger, {SHA1}),
            (OTHER, ledger, {OTHER, SHA1}),
            (OTHER, letters.ledger_of('abc'), {OTHER}),
        ):
            known = knowledge.Knowledge(stored, with_ledger)
            self.assertEqual(expected, known.digests)

    def test_whose_it_is_the_ledger_says_if_there_is_one(self) -> None:
        self.assertFalse(knowledge.Knowledge().question)
        self.assertTrue(knowledge.Knowledge(SHA1, older=True).question)
        ledger = letters.proven_of('abc')
        known = knowledge.Knowledge(SHA1, ledger, older=True)
        self.assertFalse(known.question)
        ledger = letters.proven_of('abc', question=True)
        self.assertTrue(knowledge.Knowledge(SHA1, ledger).question)

    @ddt.data('corrupt', 'unreadable', 'differs')
    def test_where_there_is_none_the_damage_remembered_counts(
        self, damage: str
    ) -> None:
        known = knowledge.Knowledge().remembering(
            sighting_of(damage=sightings.Damage(damage, 5.0))
        )
        was = {'differs': 'differed from an earlier file'}.get(
            damage, f'was {damage}'
        )
        self.assertEqual(
            Finding(
                Verdict(damage),
                f'it {was} when it was read last; see nova-imagecache confirm',
            ),
            known.finding,
        )
        self.assertTrue(known.lost)

    def test_without_a_ledger_it_counts_however_early_it_was_found(
        self,
    ) -> None:
        sighting = sighting_of(damage=sightings.Damage('corrupt', 0.0))
        known = knowledge.Knowledge().remembering(sighting)
        self.assertIs(Verdict.CORRUPT, known.finding.verdict)

    def test_a_good_verdict_is_no_damage(self) -> None:
        sighting = sighting_of(damage=sightings.Damage('good', 1e99))
        known = knowledge.Knowledge().remembering(sighting)
        self.assertIs(Verdict.UNKNOWN, known.finding.verdict)

    def test_damage_of_a_kind_that_is_not_known_says_nothing(self) -> None:
        known = knowledge.Knowledge().remembering(
            sighting_of(damage=sightings.Damage('new', 5.0))
        )
        self.assertIs(Verdict.UNKNOWN, known.finding.verdict)

    def test_beside_a_ledger_that_could_not_be_written_it_counts(self) -> None:
        ledger = letters.proven_of('abc')
        assert ledger.read is not None
        given_up = dataclasses.replace(ledger, attempted=letters.NOW)
        begun = letters.ledger_of('abc')
        for each, last in (
            (ledger, ledger.read.wall),
            (given_up, letters.NOW.wall),
            (begun, -1.0),
        ):
            known = knowledge.Knowledge(SHA1, each)
            self.assertEqual(last, known.last_read)
            for beside, counts in (
                (last, True),
                (last - 1, False),
                (last + 1, False),
                (None, False),
            ):
                # Whatever the clock said, which may have been set since.
                damage = sightings.Damage('corrupt', 0.0, beside)
                found = known.remembering(sighting_of(damage=damage))
                self.assertEqual(counts, found.damage is Verdict.CORRUPT)
                self.assertEqual(counts, found.history is None)
        self.assertEqual(-1.0, knowledge.Knowledge().last_read)

    def test_what_has_a_ledger_is_not_lost(self) -> None:
        known = knowledge.Knowledge(SHA1, letters.proven_of('abc'))
        self.assertFalse(known.remembering(sighting_of()).lost)

    def test_without_a_sighting_nothing_is_remembered(self) -> None:
        known = knowledge.Knowledge(SHA1)
        self.assertEqual(known, known.remembering(None))

    def test_a_ledger_is_lost_if_there_was_one(self) -> None:
        new = sighting_of(digested=False)
        known = knowledge.Knowledge()
        self.assertFalse(known.remembering(new).lost)
        self.assertTrue(known.remembering(sighting_of()).lost)
        known = knowledge.Knowledge(lost=True)
        self.assertTrue(known.remembering(new).lost)

    def test_what_was_lost_stays_so(self) -> None:
        damage = sightings.Damage('corrupt', -1.0)
        seen = sighting_of(digested=False, damage=damage)
        known = knowledge.Knowledge(lost=True).remembering(seen)
        self.assertTrue(known.lost)
        self.assertIs(Verdict.CORRUPT, known.damage)

    def test_what_is_not_seen_just_now_is_not_lost(self) -> None:
        known = knowledge.Knowledge(blind=True)
        self.assertFalse(known.remembering(sighting_of()).lost)

    def test_the_damage_to_remember_is_that_of_the_last_reading(self) -> None:
        bad = Finding(Verdict.UNREADABLE)
        ledger = letters.proven_of('abc', attempted=letters.NOW)
        history = knowledge.history_of(ledger, bad)
        self.assertEqual(
            sightings.Damage('unreadable', letters.NOW.wall), history.damage
        )
        # Before the first one there is no time.
        history = knowledge.history_of(letters.ledger_of('abc'), bad)
        self.assertEqual(sightings.Damage('unreadable', 0.0), history.damage)

    def test_that_of_an_earlier_file_is_not_remembered(self) -> None:
        ledger = letters.proven_of('abc', question=True)
        history = knowledge.history_of(ledger, Finding(Verdict.UNREADABLE))
        self.assertIsNone(history.damage)

    @ddt.data(
        (Verdict.GOOD, None),
        (Verdict.UNKNOWN, None),
        (Verdict.CORRUPT, 'corrupt'),
        (Verdict.UNREADABLE, 'unreadable'),
        (Verdict.DIFFERS, 'differs'),
    )
    @ddt.unpack
    def test_what_the_state_is_to_remember(
        self, verdict: Verdict, damage: str | None
    ) -> None:
        ledger = letters.proven_of('abc', suspect=True, rebaselined=7.0)
        assert ledger.read is not None
        remembered = damage and sightings.Damage(damage, ledger.read.wall)
        self.assertEqual(
            sightings.History(True, 7.0, remembered or None),
            knowledge.history_of(ledger, Finding(verdict)),
        )

    def test_the_state_is_told_when_damage_was_found(self) -> None:
        bad = Finding(Verdict.CORRUPT)
        for ledger, damage in (
            (
                letters.proven_of('abc'),
                sightings.Damage('corrupt', BEFORE.wall),
            ),
            (
                letters.proven_of('abc', attempted=letters.NOW),
                sightings.Damage('corrupt', letters.NOW.wall),
            ),
            (letters.ledger_of('abc'), sightings.Damage('corrupt', 0.0)),
            # That is of another file.
            (letters.proven_of('abc', question=True), None),
        ):
            found = knowledge.history_of(ledger, bad).damage
            self.assertEqual(damage, found)
