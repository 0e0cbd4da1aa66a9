# SPDX-License-Identifier: Apache-2.0

import fixtures

from nova_imagecache.witnesses import chains
from tests.support import base

BASE = 'f' * 40
WHERE = '/instances/guest'


class ChainsTest(base.TestCase):
    def disks(self, **needs: str) -> chains.Disks:
        """Make disks in one directory, of what each of them needs."""
        disks = chains.Disks()
        for name, needed in needs.items():
            disks.add(
                chains.Disk(WHERE, name, 'guest', frozenset(needed.split()))
            )
        return disks

    def found(self, disks: chains.Disks) -> list[tuple[str, ...]]:
        """Give the chains that lead to the base file, by names."""
        return [
            tuple(path.removeprefix(f'{WHERE}/') for path in chain.paths)
            for chain in disks.chains(BASE)
        ]

    def test_a_chain_is_told_from_its_top(self) -> None:
        disks = self.disks(one=BASE, two='one', three='two', other=BASE)
        self.assertEqual(
            [('other',), ('three', 'two', 'one')], self.found(disks)
        )

    def test_forged_headers_in_a_loop_of_three_end(self) -> None:
        """A header names two files: a backing file, and one for the data."""
        self.useFixture(fixtures.Timeout(60, gentle=True))
        disks = self.disks(one=BASE, two='one four', three='two', four='three')
        self.assertEqual([('four', 'three', 'two', 'one')], self.found(disks))
        self.assertEqual(
            frozenset({'guest'}), disks.users(BASE, f'/instances/{BASE}')
        )
