# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools

import hypothesis
from hypothesis import strategies as st

from nova_imagecache.content import ledgers
from tests.support import base
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT


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
