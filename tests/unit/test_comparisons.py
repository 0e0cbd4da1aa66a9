# SPDX-License-Identifier: Apache-2.0

"""Comparing what blocks hold with what they should, on no disk at all."""

from typing import Any

from nova_imagecache.content import blockmap
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import hashing
from tests.support import base
from tests.support import letters
from tests.support import scrubbing

BLOCK = letters.BLOCK
CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
DOUBTFUL = scrubbing.DOUBTFUL
Aim = comparisons.Aim


class ComparisonTestCase(base.TestCase):
    def begin(
        self,
        known: str,
        aim: Aim = Aim.CHECK,
        fresh: str | None = None,
        whole: bool = False,
        first: int = 0,
        **fields: Any,
    ) -> comparisons.Comparison:
        """Begin to read a file; it was read before, if it has digests."""
        fields.setdefault('read', None if aim is Aim.LEARN else letters.BEFORE)
        return comparisons.Comparison(
            aim,
            letters.ledger_of(known, **fields),
            letters.blocks_of(known),
            letters.blocks_of('?' * len(known), fresh) if fresh else None,
            hashing.WholeFile() if whole else None,
            first,
        )

    def take(
        self, comparison: comparisons.Comparison, index: int, letter: str
    ) -> None:
        comparison.take(
            letters.reading_of(index, letter, comparison.algorithms)
        )

    def take_again(
        self, comparison: comparisons.Comparison, index: int, letter: str
    ) -> bool:
        return comparison.take_again(
            letters.reading_of(index, letter, comparison.algorithms)
        )

    def bad(self, *runs: tuple[int, int, ledgers.Damage]) -> Any:
        return tuple(ledgers.BadBlocks(*run) for run in runs)


class TakeTest(ComparisonTestCase):
    def test_what_is_as_it_was_is_good(self) -> None:
        one = self.begin('ab', bad=self.bad((0, 1, CORRUPT)))
        for index, letter in enumerate('ab'):
            self.take(one, index, letter)
        self.assertEqual(({}, {}), (one.bad, one.mismatches))
        self.assertFalse(one.learnt)

    def test_what_is_doubtful_is_not_cleared_by_being_as_it_was(self) -> None:
        one = self.begin('ab', bad=self.bad((0, 2, DOUBTFUL)))
        self.take(one, 0, 'a')
        self.assertEqual({0: DOUBTFUL, 1: DOUBTFUL}, one.bad)
        self.assertFalse(one.is_bad(0))

    def test_what_does_not_match_is_read_again_before_it_counts(self) -> None:
        one = self.begin('ab')
        self.take(one, 1, 'x')
        self.assertEqual({1: letters.digest_of('x')}, one.mismatches)
        self.assertEqual({}, one.bad)
        self.assertFalse(self.take_again(one, 1, 'x'))
        self.assertEqual(({1: CORRUPT}, {}), (one.bad, one.mismatches))
        self.assertEqual(letters.digest_of('b'), one.blocks.get(1))

    def test_a_short_block_with_the_right_digest_does_not_match(self) -> None:
        one = self.begin('ab')
        digest = letters.digest_of('b')
        one.take(hashing.BlockReading(1, BLOCK - 1, (digest,)))
        self.assertEqual({1}, one.mismatches.keys())

    def test_a_digest_that_is_not_known_is_learnt(self) -> None:
        one = self.begin('a?')
        self.take(one, 0, 'a')
        self.assertFalse(one.learnt)
        self.take(one, 1, 'b')
        self.assertTrue(one.learnt)
        self.assertFalse(one.doubtful)
        self.assertEqual(letters.digest_of('b'), one.blocks.get(1))

    def test_a_block_of_another_length_is_not_learnt(self) -> None:
        one = self.begin('a?')
        one.take(hashing.BlockReading(1, 5, (letters.digest_of('b'),)))
        self.assertIsNone(one.blocks.get(1))
        self.assertEqual({1}, one.mismatches.keys())

    def test_corrupt_blocks_without_digests_learn_nothing(self) -> None:
        one = self.begin('a?', bad=self.bad((1, 1, CORRUPT)))
        self.take(one, 1, 'x')
        self.assertTrue(one.learnt)
        self.assertIsNone(one.blocks.get(1))
        self.assertEqual({1: CORRUPT}, one.bad)
        self.assertFalse(one.doubtful)

    def test_a_block_that_could_not_be_read_is_doubtful_when_it_can(
        self,
    ) -> None:
        one = self.begin('a?', bad=self.bad((1, 1, UNREADABLE)))
        self.take(one, 1, '0')
        self.assertEqual({1: DOUBTFUL}, one.bad)
        self.assertTrue(one.doubtful)
        self.assertEqual(letters.digest_of('0'), one.blocks.get(1))

    def test_a_reading_that_ends_beyond_goes_on_right_after_the_end(
        self,
    ) -> None:
        one = self.begin('ab')
        for index in range(5):
            self.take(one, index, 'abcde'[index])
        self.take_again(one, 2, 'c')
        self.assertEqual(3, one.position)

    def test_one_block_after_the_end_stands_for_all_that_come(self) -> None:
        one = self.begin('ab')
        self.take(one, 2, 'c')
        self.assertEqual({2}, one.mismatches.keys())
        self.take(one, 3, 'd')
        self.assertEqual({2}, one.mismatches.keys())
        self.assertFalse(self.take_again(one, 2, 'c'))
        self.assertEqual({2: CORRUPT}, one.bad)

    def test_what_comes_after_the_end_is_in_the_new_digests(self) -> None:
        one = self.begin('ab')
        one.fresh = letters.blocks_of('????')
        self.take(one, 3, 'd')
        self.assertEqual(letters.digest_of('d'), one.fresh.get(3))


class TakeAgainTest(ComparisonTestCase):
    def suspect(self, known: str = 'ab', **values: Any) -> Any:
        """Read the second of two blocks, which is not what it was."""
        one = self.begin(known, **values)
        self.take(one, 1, 'x')
        return one

    def test_it_was_misread_if_it_is_as_it_was(self) -> None:
        one = self.suspect(whole=True, bad=self.bad((1, 1, CORRUPT)))
        self.assertTrue(self.take_again(one, 1, 'b'))
        self.assertEqual({}, one.bad)
        # What was misread is in it.
        self.assertIsNone(one.sha1)

    def test_what_is_the_same_twice_does_not_spoil_the_sha1(self) -> None:
        one = self.suspect(whole=True)
        self.take_again(one, 1, 'x')
        self.assertIsNotNone(one.sha1)

    def test_what_is_neither_is_corrupt_and_unsteady(self) -> None:
        one = self.suspect()
        self.assertTrue(self.take_again(one, 1, 'y'))
        self.assertEqual({1: CORRUPT}, one.bad)

    def test_the_new_digest_is_that_of_the_second_reading(self) -> None:
        one = self.suspect(fresh='sha256')
        self.take_again(one, 1, 'b')
        self.assertEqual(letters.digest_of('b', 'sha256'), one.fresh.get(1))

    def test_one_digest_does_where_the_algorithm_stays(self) -> None:
        one = self.suspect(fresh=letters.ALGORITHM)
        self.take_again(one, 1, 'b')
        self.assertEqual(letters.digest_of('b'), one.fresh.get(1))

    def test_a_block_that_is_gone_is_corrupt(self) -> None:
        one = self.begin('abc')
        self.take(one, 2, 'x')
        self.take(one, 1, 'x')
        self.assertFalse(one.take_again(None))
        self.assertEqual({1: CORRUPT}, one.bad)
        self.assertEqual({2}, one.mismatches.keys())

    def test_one_that_cannot_be_read_now_is_unreadable(self) -> None:
        one = self.suspect()
        self.assertFalse(self.take_again(one, 1, '!'))
        self.assertEqual({1: UNREADABLE}, one.bad)
        self.assertEqual({}, one.mismatches)

    def test_where_nobody_vouches_for_it_the_new_one_counts(self) -> None:
        one = self.suspect(unsettled=(ledgers.Run(1, 1),))
        self.assertFalse(self.take_again(one, 1, 'x'))
        self.assertEqual({1: DOUBTFUL}, one.bad)
        self.assertEqual({1}, one.unsettled)
        self.assertTrue(one.changed)
        self.assertEqual(letters.digest_of('x'), one.blocks.get(1))

    def test_a_settled_block_beside_one_that_is_not_is_corrupt(self) -> None:
        one = self.suspect(unsettled=(ledgers.Run(0, 1),))
        self.take_again(one, 1, 'x')
        self.assertEqual({1: CORRUPT}, one.bad)
        self.assertFalse(one.changed)

    def test_in_a_first_reading_nobody_vouches_for_any(self) -> None:
        one = self.suspect(aim=Aim.LEARN)
        self.take_again(one, 1, 'x')
        self.assertEqual(({1}, True), (one.unsettled, one.changed))

    def test_a_block_that_is_as_it_was_is_settled(self) -> None:
        one = self.begin('ab', unsettled=(ledgers.Run(0, 2),))
        self.take(one, 0, 'a')
        self.assertEqual({1}, one.unsettled)
        self.take(one, 1, 'x')
        self.take_again(one, 1, 'b')
        self.assertEqual(set(), one.unsettled)

    def test_what_comes_after_the_end_is_never_learnt(self) -> None:
        one = self.begin('ab', Aim.LEARN)
        self.take(one, 2, 'x')
        self.take_again(one, 2, 'x')
        self.assertEqual(({2: CORRUPT}, False), (one.bad, one.changed))


class ErrorTest(ComparisonTestCase):
    def test_what_cannot_be_read_is_unreadable(self) -> None:
        one = self.begin('ab', fresh='sha256')
        self.take(one, 1, '!')
        self.assertEqual({1: UNREADABLE}, one.bad)
        self.assertEqual(2, one.next)
        self.assertFalse(one.learnt)
        # There is a digest missing in them.
        self.assertIsNone(one.fresh)

    def test_what_was_never_read_is_yet_to_be_learnt(self) -> None:
        one = self.begin('a?')
        self.take(one, 1, '!')
        self.assertTrue(one.learnt)

    def test_what_was_learnt_before_an_error_stays_so(self) -> None:
        one = self.begin('?b')
        self.take(one, 0, 'a')
        self.take(one, 1, '!')
        self.assertTrue(one.learnt)

    def test_what_is_corrupt_stays_so(self) -> None:
        one = self.begin('ab', bad=self.bad((1, 1, CORRUPT)))
        self.take(one, 1, '!')
        self.assertEqual({1: CORRUPT}, one.bad)

    def test_what_is_doubtful_is_unreadable(self) -> None:
        one = self.begin('ab', bad=self.bad((1, 1, DOUBTFUL)))
        self.take(one, 1, '!')
        self.assertEqual({1: UNREADABLE}, one.bad)

    def test_after_three_errors_the_file_is_left_alone(self) -> None:
        one = self.begin('abcd')
        self.take(one, 0, '!')
        self.take(one, 1, '!')
        error = self.assertRaises(
            comparisons.TooManyErrors, self.take, one, 2, '!'
        )
        self.assertEqual('Input/output error', str(error))
        self.assertEqual({0, 1, 2}, one.bad.keys())

    def test_an_error_without_words_has_its_own(self) -> None:
        self.assertEqual('x', str(comparisons.TooManyErrors(OSError('x'))))


class ProveTest(ComparisonTestCase):
    """Of a file whose digests say nothing, its SHA-1 alone tells."""

    def test_nothing_is_compared_nor_learnt(self) -> None:
        one = self.begin('??', Aim.PROVE, fresh='sha256')
        for index, letter in enumerate('ab'):
            self.take(one, index, letter)
        self.assertEqual(
            ({}, {}, False), (one.bad, one.mismatches, one.learnt)
        )
        self.assertEqual(2, one.blocks.unknown)
        assert one.fresh is not None
        self.assertEqual(0, one.fresh.unknown)

    def test_what_can_be_read_again_is_unreadable_no_longer(self) -> None:
        bad = self.bad((0, 1, UNREADABLE), (1, 1, CORRUPT))
        one = self.begin('??', Aim.PROVE, bad=bad)
        self.take(one, 0, 'a')
        self.take(one, 1, 'b')
        self.assertEqual({1: CORRUPT}, one.bad)

    def test_it_always_begins_at_the_start(self) -> None:
        one = self.begin('??', Aim.PROVE)
        self.take(one, 0, 'a')
        self.assertEqual(0, one.position)

    def test_an_end_that_is_missing_says_nothing_of_blocks(self) -> None:
        one = self.begin('ab', Aim.PROVE)
        one.end(BLOCK)
        self.assertEqual({}, one.bad)


class PositionTest(ComparisonTestCase):
    def test_it_begins_at_the_start(self) -> None:
        one = comparisons.Comparison(
            Aim.CHECK, letters.ledger_of('a'), letters.blocks_of('a')
        )
        self.assertEqual(0, one.position)

    def test_it_goes_on_after_the_last_block(self) -> None:
        one = self.begin('abc', first=1)
        self.assertEqual(1, one.position)
        self.take(one, 1, 'b')
        self.assertEqual(2, one.position)

    def test_it_goes_on_with_what_is_to_be_read_again(self) -> None:
        one = self.begin('abc')
        self.take(one, 0, 'x')
        self.take(one, 1, 'b')
        self.assertEqual(0, one.position)

    def test_without_a_whole_file_there_is_no_sha1(self) -> None:
        self.assertIsNone(self.begin('a').sha1)

    def test_a_digest_is_made_once_where_the_algorithm_stays(self) -> None:
        self.assertEqual(['xxh3_128'], self.begin('a').algorithms)
        one = self.begin('a', fresh='xxh3_128')
        self.assertEqual(['xxh3_128', 'blake2b'], one.algorithms)
        one = self.begin('a', fresh='sha256')
        self.assertEqual(['xxh3_128', 'sha256'], one.algorithms)


class StrongTest(ComparisonTestCase):
    def weak(self, known: str, **fields: Any) -> comparisons.Comparison:
        """Begin to read a file of an earlier release."""
        blocks = letters.blocks_of(known)
        for index, letter in enumerate(known):
            blocks.put(index, letters.digest_of(letter))
        fields.setdefault('read', letters.BEFORE)
        ledger = letters.ledger_of(known, **fields)
        return comparisons.Comparison(Aim.CHECK, ledger, blocks)

    def test_a_first_reading_learns_strong_digests(self) -> None:
        one = self.begin('??0', Aim.LEARN)
        for index, letter in enumerate('ab0'):
            self.take(one, index, letter)
        self.assertEqual(frozenset(), one.blocks.weak)
        data = letters.data_of('a')
        self.assertTrue(one.blocks.matches(0, data, cryptographic=True))

    def test_a_block_that_is_good_gets_one_later(self) -> None:
        one = self.weak('ab')
        self.assertEqual(['xxh3_128', 'blake2b'], one.algorithms)
        self.take(one, 0, 'a')
        self.take(one, 1, 'x')
        self.take_again(one, 1, 'x')
        self.assertEqual(frozenset({1}), one.blocks.weak)
        self.assertEqual(letters.digest_of('b'), one.blocks.get(1))

    def test_none_is_made_for_what_is_corrupt_alone(self) -> None:
        one = self.weak('0b', bad=self.bad((1, 1, CORRUPT)))
        self.assertEqual(['xxh3_128'], one.algorithms)

    def test_none_is_made_where_all_have_one(self) -> None:
        self.assertEqual(['xxh3_128'], self.begin('ab0').algorithms)

    def test_a_block_that_is_other_while_it_is_learnt_gets_its_new_one(
        self,
    ) -> None:
        one = self.begin('a', unsettled=(ledgers.Run(0, 1),))
        self.assertEqual(['xxh3_128'], one.algorithms)
        self.take(one, 0, 'b')
        self.take_again(one, 0, 'b')
        self.assertFalse(
            one.blocks.matches(0, letters.data_of('a'), cryptographic=False)
        )


class EndTest(ComparisonTestCase):
    def test_what_is_missing_at_the_end_is_corrupt(self) -> None:
        one = self.begin('abcd')
        one.end(2 * BLOCK)
        self.assertEqual({2: CORRUPT, 3: CORRUPT}, one.bad)

    def test_a_block_that_has_lost_its_end_is_corrupt(self) -> None:
        one = self.begin('abcd')
        one.end(4 * BLOCK - 1)
        self.assertEqual({3: CORRUPT}, one.bad)

    def test_a_file_of_the_right_size_lacks_nothing(self) -> None:
        one = self.begin('abcd')
        one.end(4 * BLOCK)
        self.assertEqual({}, one.bad)

    def test_a_short_last_block_lacks_nothing(self) -> None:
        size = 2 * BLOCK - 5
        blocks = blockmap.Blocks(letters.ALGORITHM, size, BLOCK)
        blocks.put(1, letters.digest_of('b'))
        one = comparisons.Comparison(
            Aim.CHECK, letters.ledger_of('ab', read=letters.BEFORE), blocks
        )
        one.end(size)
        self.assertEqual({}, one.bad)

    def test_what_was_never_known_is_not_missing(self) -> None:
        one = self.begin('ab?d')
        one.end(BLOCK)
        self.assertEqual({1: CORRUPT, 3: CORRUPT}, one.bad)

    def test_what_came_after_the_end_and_has_gone_is_bad_no_longer(
        self,
    ) -> None:
        bad = self.bad((1, 2, CORRUPT))
        one = self.begin('ab', first=2, bad=bad)
        one.end(2 * BLOCK)
        self.assertEqual({1: CORRUPT}, one.bad)

    def test_what_comes_after_the_end_and_is_there_is_bad(self) -> None:
        one = self.begin('ab', first=2)
        self.take(one, 2, 'c')
        self.take_again(one, 2, 'c')
        one.end(3 * BLOCK)
        self.assertEqual({2: CORRUPT}, one.bad)
