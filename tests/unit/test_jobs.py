# SPDX-License-Identifier: Apache-2.0

"""What the scrub of a base file begins with."""

import dataclasses
from typing import Any

import ddt

from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import jobs
from tests.support import base
from tests.support import letters
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
BEFORE = letters.BEFORE
NOW = letters.NOW
Aim = jobs.Aim
Verdict = knowledge.Verdict
SHA1 = 'f' * 40
ONE = (ledgers.Run(0, 1),)


class JobTest(base.TestCase):
    def test_nothing_is_said_of_a_file_but_what_is_known(self) -> None:
        job = jobs.Job(letters.file_of(), knowledge.Knowledge())
        self.assertEqual(
            (None, False, False, None, False),
            (
                job.image,
                job.outlived,
                job.suspect,
                job.rebaselined,
                job.afresh,
            ),
        )


class AimTest(base.TestCase):
    def aim(self, known: str, **fields: Any) -> Aim:
        return jobs.aim_of(
            letters.ledger_of(known, **fields), letters.blocks_of(known)
        )

    def test_what_was_never_read_is_learnt(self) -> None:
        self.assertIs(Aim.LEARN, self.aim('???'))
        self.assertIs(Aim.LEARN, self.aim('???', sha1=SHA1))
        self.assertIs(Aim.LEARN, self.aim('a??', found=SHA1))

    def test_what_has_digests_is_compared_with_them(self) -> None:
        self.assertIs(Aim.CHECK, self.aim('abc', read=BEFORE))
        self.assertIs(Aim.CHECK, self.aim('a??', read=BEFORE, sha1=SHA1))

    def test_what_is_other_than_its_checksum_takes_a_proof(self) -> None:
        self.assertIs(Aim.PROVE, self.aim('abc', read=BEFORE, found=SHA1))
        proven = {'read': BEFORE, 'found': SHA1, 'proven': True}
        self.assertIs(Aim.CHECK, self.aim('abc', **proven))

    def test_what_has_a_sha1_and_no_digests_takes_a_proof(self) -> None:
        self.assertIs(Aim.PROVE, self.aim('???', read=BEFORE, sha1=SHA1))
        self.assertIs(Aim.CHECK, self.aim('???', read=BEFORE))

    def test_an_empty_file_has_all_of_its_digests(self) -> None:
        self.assertIs(Aim.CHECK, self.aim('', read=BEFORE, sha1=SHA1))

    def test_a_file_of_one_block_may_have_lost_it(self) -> None:
        self.assertIs(Aim.PROVE, self.aim('?', read=BEFORE, sha1=SHA1))


class GoesOnTest(base.TestCase):
    def goes_on(self, known: str | None, size: int = 3, **fields: Any) -> bool:
        blocks = None if known is None else letters.blocks_of(known)
        ledger = letters.ledger_of('abc', **fields)
        return jobs.goes_on(ledger, blocks, size * letters.BLOCK)

    def test_without_a_ledger_there_is_nothing_to_go_on_with(self) -> None:
        self.assertFalse(jobs.goes_on(None, None, 0))
        self.assertFalse(jobs.goes_on(None, letters.blocks_of('a'), 4096))

    def test_one_with_digests_goes_on(self) -> None:
        self.assertTrue(self.goes_on('abc', read=BEFORE))
        self.assertTrue(self.goes_on('a??', read=BEFORE))

    def test_one_that_was_only_begun_goes_on(self) -> None:
        self.assertTrue(self.goes_on('???'))

    def test_one_that_has_lost_its_digests_does_not(self) -> None:
        self.assertFalse(self.goes_on(None, read=BEFORE))
        self.assertFalse(self.goes_on('???', read=BEFORE))
        self.assertFalse(self.goes_on(None))

    def test_nor_does_one_whose_only_digest_is_lost(self) -> None:
        ledger = letters.ledger_of('a', read=BEFORE)
        self.assertFalse(
            jobs.goes_on(ledger, letters.blocks_of('?'), letters.BLOCK)
        )

    def test_its_sha1_is_enough_to_go_on_with(self) -> None:
        self.assertTrue(self.goes_on(None, read=BEFORE, sha1=SHA1))
        self.assertTrue(self.goes_on('???', read=BEFORE, sha1=SHA1))

    def test_not_where_it_was_not_settled(self) -> None:
        self.assertFalse(
            self.goes_on('???', read=BEFORE, sha1=SHA1, unsettled=ONE)
        )
        self.assertFalse(self.goes_on(None, sha1=SHA1))

    def test_a_settled_one_goes_on_whatever_the_size(self) -> None:
        self.assertTrue(self.goes_on('abc', 2, read=BEFORE))
        self.assertTrue(self.goes_on('abc', 4, read=BEFORE))

    def test_one_that_has_resized_before_that_does_not(self) -> None:
        self.assertFalse(self.goes_on('abc', 2, read=BEFORE, unsettled=ONE))
        self.assertFalse(self.goes_on('a??', 4))
        self.assertTrue(self.goes_on('abc', 3, read=BEFORE, unsettled=ONE))

    def test_an_empty_file_has_lost_nothing(self) -> None:
        ledger = letters.ledger_of('', read=BEFORE)
        self.assertTrue(jobs.goes_on(ledger, letters.blocks_of(''), 0))


@ddt.ddt
class NewLedgerTest(base.TestCase):
    def begin(
        self,
        old: ledgers.Ledger | None = None,
        size: int = 3,
        known: knowledge.Knowledge | None = None,
        **job: Any,
    ) -> ledgers.Ledger:
        known = known or knowledge.Knowledge(ledger=old)
        return jobs.new_ledger(
            jobs.Job(letters.file_of(), known, **job),
            old,
            size * letters.BLOCK,
            letters.ALGORITHM,
            NOW,
        )

    def setUp(self) -> None:
        super().setUp()
        # So that a small file has many.
        self.patch(blockmap, 'BLOCK_SIZE', letters.BLOCK)

    def test_of_a_new_file_nothing_is_known(self) -> None:
        self.assertEqual(
            letters.ledger_of('abc', image='image'), self.begin(image='image')
        )

    def test_its_stored_checksum_is_what_it_has_to_have(self) -> None:
        known = knowledge.Knowledge(stored=SHA1)
        ledger = self.begin(known=known)
        self.assertEqual((SHA1, False), (ledger.sha1, ledger.question))

    def test_an_older_one_is_a_question(self) -> None:
        ledger = self.begin(known=knowledge.Knowledge(SHA1, older=True))
        self.assertEqual((SHA1, True), (ledger.sha1, ledger.question))

    def test_what_the_ledger_said_counts_for_more(self) -> None:
        old = letters.ledger_of('abc', read=BEFORE, sha1='e' * 40)
        known = knowledge.Knowledge(SHA1, old)
        self.assertEqual('e' * 40, self.begin(old, known=known).sha1)
        old = letters.ledger_of('abc', read=BEFORE)
        known = knowledge.Knowledge(SHA1, old)
        self.assertEqual(SHA1, self.begin(old, known=known).sha1)

    def test_the_marks_of_the_old_one_stay(self) -> None:
        old = letters.ledger_of(
            'abc',
            read=BEFORE,
            question=True,
            differs=True,
            suspect=True,
            rebaselined=7.0,
            anew=True,
            bad=ledgers.gather({1: CORRUPT, 2: UNREADABLE}),
        )
        self.assertEqual(dataclasses.replace(old, read=None), self.begin(old))

    def test_and_there_are_none_that_it_had_not(self) -> None:
        old = letters.ledger_of('abc', read=BEFORE)
        self.assertEqual(letters.ledger_of('abc'), self.begin(old))

    def test_what_was_bad_before_all_was_settled_stays_so(self) -> None:
        bad = ledgers.gather({1: CORRUPT, 2: UNREADABLE})
        old = letters.ledger_of('abc', read=BEFORE, unsettled=ONE, bad=bad)
        self.assertEqual(bad, self.begin(old).bad)
        # As far as the file goes on for so long, and a block after it.
        self.assertEqual((), self.begin(old, size=0).bad)
        one = self.begin(old, size=1)
        self.assertEqual(ledgers.gather({1: CORRUPT}), one.bad)

    def test_a_size_that_changed_before_it_was_settled_is_suspect(
        self,
    ) -> None:
        old = letters.ledger_of('abc', read=BEFORE, unsettled=ONE)
        self.assertFalse(self.begin(old, 3).suspect)
        self.assertTrue(self.begin(old, 2).suspect)
        self.assertTrue(self.begin(old, 4).suspect)
        settled = letters.ledger_of('abc', read=BEFORE)
        self.assertFalse(self.begin(settled, 4).suspect)

    def test_the_state_remembers_that_it_was_suspect(self) -> None:
        self.assertTrue(self.begin(suspect=True).suspect)

    def test_when_all_was_lost_that_is_told_from_then_on(self) -> None:
        lost = knowledge.Knowledge(lost=True)
        self.assertEqual(NOW.wall, self.begin(known=lost).rebaselined)
        ledger = self.begin(known=lost, rebaselined=7.0)
        self.assertEqual((7.0, False), (ledger.rebaselined, ledger.anew))
        ledger = self.begin(rebaselined=7.0)
        self.assertEqual(7.0, ledger.rebaselined)

    def test_while_there_is_a_checksum_not_all_is_lost(self) -> None:
        lost = knowledge.Knowledge(SHA1, lost=True)
        self.assertIsNone(self.begin(known=lost).rebaselined)

    @ddt.data(
        (Verdict.CORRUPT, CORRUPT),
        (Verdict.UNREADABLE, UNREADABLE),
        (Verdict.DIFFERS, CORRUPT),
    )
    @ddt.unpack
    def test_damage_that_the_state_remembers_is_anywhere_in_it(
        self, verdict: Verdict, damage: ledgers.Damage
    ) -> None:
        known = knowledge.Knowledge(SHA1, older=True, damage=verdict)
        ledger = self.begin(known=known)
        self.assertEqual((ledgers.BadBlocks(0, 3, damage),), ledger.bad)
        self.assertEqual(verdict is Verdict.DIFFERS, ledger.differs)
        self.assertEqual(verdict is not Verdict.DIFFERS, ledger.question)
        self.assertEqual((), self.begin(size=0, known=known).bad)

    def test_where_the_state_remembers_none_there_is_none(self) -> None:
        ledger = self.begin(known=knowledge.Knowledge(lost=True))
        self.assertEqual(((), False), (ledger.bad, ledger.differs))

    def test_where_there_is_a_ledger_the_state_does_not_count(self) -> None:
        old = letters.ledger_of('abc', read=BEFORE)
        known = knowledge.Knowledge(ledger=old, damage=Verdict.CORRUPT)
        self.assertEqual((), self.begin(old, known=known).bad)
        known = knowledge.Knowledge(ledger=old, damage=Verdict.DIFFERS)
        self.assertFalse(self.begin(old, known=known).question)
