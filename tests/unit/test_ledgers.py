# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import identity
from nova_imagecache.content import ledgers
from tests.support import base
from tests.support import letters
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
DOUBTFUL = scrubbing.DOUBTFUL
BEFORE = letters.BEFORE


class LedgerTest(base.TestCase):
    @hypothesis.given(
        st.dictionaries(
            st.integers(0, 300), st.sampled_from(list(ledgers.Damage))
        )
    )
    def test_bad_blocks_in_a_row_are_put_together_and_apart_again(
        self, bad: dict[int, ledgers.Damage]
    ) -> None:
        runs = ledgers.gather(bad)
        self.assertEqual(bad, ledgers.spread(runs))
        for left, right in itertools.pairwise(runs):
            self.assertLess(left.first, right.first)
            together = left.first + left.count == right.first
            self.assertFalse(together and left.damage == right.damage)

    def test_of_a_new_file_nothing_is_known(self) -> None:
        ledger = ledgers.Ledger.begin((1, 2, None), 5, 'sha256', 'image')
        self.assertEqual(
            (None, False, 0, (), ()),
            (
                ledger.read,
                ledger.proven,
                ledger.position,
                ledger.bad,
                ledger.unsettled,
            ),
        )
        self.assertEqual('image', ledger.image)

    def test_how_far_it_is_trusted_is_told_once_it_was_compared(self) -> None:
        new = ledgers.Ledger.begin((1, 2, None), 5, 'sha256', 'image')
        trust = ledgers.Trust
        read = dataclasses.replace(new, read=BEFORE)
        for ledger, expected in (
            (new, None),
            (dataclasses.replace(read, question=True), None),
            (dataclasses.replace(read, suspect=True), trust.SUSPECT),
            (dataclasses.replace(read, differs=True), trust.SUSPECT),
            (dataclasses.replace(read, origin=BEFORE), trust.ORIGIN_VERIFIED),
            (read, trust.FIRST_SEEN),
        ):
            self.assertEqual(expected, ledger.trust)

    def test_from_the_start_nothing_counts_that_was_interrupted(self) -> None:
        new = ledgers.Ledger.begin((1, 2, None), 5, 'sha256', 'image')
        begun = dataclasses.replace(
            new, started=BEFORE, position=4096, times=(1, 2)
        )
        self.assertEqual(new, begun.from_the_start())

    def test_ranges_end_where_the_file_does(self) -> None:
        ledger = dataclasses.replace(
            ledgers.Ledger.begin((1, None, None), 9 * base.MIB, 'xxh3_128'),
            bad=ledgers.gather({0: CORRUPT, 2: CORRUPT}),
        )
        mib = base.MIB
        self.assertEqual(
            [(0, 4 * mib), (8 * mib, 9 * mib)],
            [(each.start, each.end) for each in ledger.bad_ranges],
        )
        # It goes on where it should have ended.
        grown = dataclasses.replace(
            ledger, bad=ledgers.gather({2: CORRUPT, 3: CORRUPT})
        )
        self.assertEqual(
            [(8 * mib, 16 * mib)],
            [(each.start, each.end) for each in grown.bad_ranges],
        )


@ddt.ddt
class AskedOfTest(base.TestCase):
    """What the ledger of one file says of another one."""

    ANOTHER: identity.Key = (1, 3, None)
    BAD = ledgers.gather({0: CORRUPT, 1: UNREADABLE, 2: DOUBTFUL})

    def ledger(self, **fields: Any) -> ledgers.Ledger:
        values = {
            'bad': self.BAD,
            'started': letters.NOW,
            'position': 2,
            'times': (1, 2),
            'unreadable': 'why',
            'attempted': letters.NOW,
            'suspect': True,
            'rebaselined': 7.0,
        }
        return letters.proven_of('abc', **(values | fields))

    @ddt.data(letters.KEY, (1, None, None), (9, 2, None), (9, None, 5))
    def test_of_what_may_be_the_same_file_it_says_the_same(
        self, key: identity.Key
    ) -> None:
        ledger = self.ledger()
        self.assertIs(ledger, ledger.asked_of(key))

    def test_of_another_one_it_is_a_question(self) -> None:
        self.assertEqual(
            self.ledger(
                key=self.ANOTHER,
                question=True,
                bad=ledgers.gather({0: CORRUPT, 2: DOUBTFUL}),
                started=None,
                position=0,
                times=None,
                unreadable=None,
                attempted=None,
            ),
            self.ledger().asked_of(self.ANOTHER),
        )

    def test_of_another_one_nothing_that_differed_is_known_to_be_bad(
        self,
    ) -> None:
        asked = self.ledger(differs=True).asked_of(self.ANOTHER)
        self.assertFalse(asked.differs)
        self.assertEqual(ledgers.gather({2: DOUBTFUL}), asked.bad)

    def test_of_the_next_one_that_is_the_same_question(self) -> None:
        asked = self.ledger().asked_of(self.ANOTHER)
        again = asked.asked_of((1, 4, None))
        self.assertEqual(dataclasses.replace(asked, key=(1, 4, None)), again)

    @ddt.data({'read': None}, {'unsettled': (ledgers.Run(0, 1),)})
    def test_what_is_not_sure_yet_is_asked_as_well(
        self, how: dict[str, Any]
    ) -> None:
        ledger = self.ledger(**how)
        self.assertTrue(ledger.asked_of(self.ANOTHER).question)

    def test_where_one_block_is_not_sure_no_other_one_is(self) -> None:
        one = (ledgers.Run(1, 1),)
        for bad, expected in (
            ({1: UNREADABLE}, (ledgers.Run(0, 3),)),
            # But what was known to be bad is not to be forgotten.
            ({0: CORRUPT}, (ledgers.Run(1, 2),)),
        ):
            ledger = self.ledger(unsettled=one, bad=ledgers.gather(bad))
            asked = ledger.asked_of(self.ANOTHER)
            self.assertEqual(expected, asked.unsettled)
        self.assertEqual((), self.ledger().asked_of(self.ANOTHER).unsettled)


class BadTest(base.TestCase):
    def test_what_is_doubtful_is_no_damage(self) -> None:
        for bad, damaged in (
            ({}, False),
            ({1: DOUBTFUL}, False),
            ({1: DOUBTFUL, 2: UNREADABLE}, True),
            ({1: CORRUPT}, True),
        ):
            ledger = letters.ledger_of('abc', bad=ledgers.gather(bad))
            self.assertIs(damaged, ledger.damaged)

    def test_the_corrupt_blocks_are_those_alone(self) -> None:
        bad = ledgers.gather({0: CORRUPT, 1: UNREADABLE, 2: DOUBTFUL})
        ledger = letters.ledger_of('abc', bad=bad)
        self.assertEqual({0}, ledger.corrupt)

    def test_it_is_settled_when_all_of_it_is(self) -> None:
        self.assertFalse(letters.ledger_of('abc').settled)
        self.assertTrue(letters.ledger_of('abc', read=letters.NOW).settled)
        one = (ledgers.Run(2, 1),)
        ledger = letters.ledger_of('abc', read=letters.NOW, unsettled=one)
        self.assertFalse(ledger.settled)

    def test_runs_of_blocks_are_put_together_and_apart_again(self) -> None:
        runs = ledgers.runs_of([5, 1, 2, 4])
        self.assertEqual((ledgers.Run(1, 2), ledgers.Run(4, 2)), runs)
        self.assertEqual({1, 2, 4, 5}, ledgers.blocks_in(runs))
        self.assertEqual((), ledgers.runs_of([]))


@ddt.ddt
class FormTest(base.TestCase):
    @ddt.data(
        (b'QFI\xfb', 'qcow2'), (b'QFI', 'other'), (b'\0\0\0\0', 'other'),
        (b'', 'other'),
    )  # fmt: skip
    @ddt.unpack
    def test_it_is_told_by_the_first_bytes(
        self, head: bytes, form: str
    ) -> None:
        self.assertEqual(form, ledgers.Form.of(head))
