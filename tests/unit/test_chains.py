# SPDX-License-Identifier: Apache-2.0

import fixtures

from nova_imagecache.witnesses import chains
from tests.support import base


def make_disks(*disks: tuple[str, str, str]) -> chains.Disks:
    """Put disks together: where each is, its guest, and what it needs."""
    found = chains.Disks()
    for path, guest, needs in disks:
        directory, _slash, name = path.rpartition('/')
        found.add(
            chains.Disk(directory, name, guest, frozenset(needs.split()))
        )
    return found


class ChainsTest(base.TestCase):
    def test_a_disk_uses_what_it_needs_and_nothing_else(self) -> None:
        disks = make_disks(('/a/disk', 'a', 'base'), ('/b/disk', 'b', 'other'))
        self.assertEqual({'a'}, disks.users('base', '/_base/base'))
        self.assertEqual({'base', 'other'}, {*disks.needed})
        self.assertEqual(set(), disks.users('third', '/_base/third'))
        self.assertEqual([], disks.chains('third'))

    def test_a_snapshot_uses_what_its_backing_file_needs(self) -> None:
        disks = make_disks(
            ('/a/disk', 'a', 'base'), ('/a/snap', 'a', 'disk'),
            ('/b/disk', 'b', 'base'), ('/c/top', 'c', 'snap'),
        )  # fmt: skip
        self.assertEqual({'a', 'b', 'c'}, disks.users('base', '/_base/base'))
        self.assertEqual(
            [
                chains.Chain('b', ('/b/disk',)),
                chains.Chain('c', ('/c/top', '/a/snap', '/a/disk')),
            ],
            disks.chains('base'),
        )

    def test_the_disk_in_its_own_directory_is_meant(self) -> None:
        disks = make_disks(
            ('/a/disk', 'a', 'base'), ('/b/disk', 'b', 'other'),
            ('/b/snap', 'b', 'disk'),
        )  # fmt: skip
        self.assertEqual({'a'}, disks.users('base', '/_base/base'))
        self.assertEqual({'b'}, disks.users('other', '/_base/other'))

    def test_a_disk_of_that_name_elsewhere_is_meant_where_none_is_nearer(
        self,
    ) -> None:
        disks = make_disks(('/a/disk', 'a', 'base'), ('/c/snap', 'c', 'disk'))
        self.assertEqual({'a', 'c'}, disks.users('base', '/_base/base'))

    def test_a_file_is_no_user_of_itself(self) -> None:
        disks = make_disks(('/_base/base', 'none', 'base'))
        self.assertEqual(set(), disks.users('base', '/_base/base'))
        self.assertEqual({'none'}, disks.users('base', '/elsewhere/base'))

    def test_disks_that_need_each_other_come_to_an_end(self) -> None:
        disks = make_disks(
            ('/a/one', 'a', 'two'), ('/a/two', 'b', 'one'),
            ('/a/three', 'c', 'two'),
        )  # fmt: skip
        self.assertEqual({'a', 'b', 'c'}, disks.users('one', '/_base/one'))
        self.assertEqual(
            [('/a/one', '/a/two'), ('/a/three', '/a/two')],
            [each.paths for each in disks.chains('one')],
        )

    def test_a_disk_is_in_one_chain_though_two_ways_lead_to_it(self) -> None:
        disks = make_disks(
            ('/a/one', 'a', 'base'), ('/a/two', 'a', 'one three'),
            ('/a/three', 'a', 'two'),
        )  # fmt: skip
        self.assertEqual(
            [('/a/three', '/a/two', '/a/one')],
            [each.paths for each in disks.chains('base')],
        )

    def test_a_disk_that_is_found_again_is_still_one(self) -> None:
        disks = make_disks(('/a/disk', 'a', 'base'), ('/a/disk', 'b', 'base'))
        self.assertEqual({'b'}, disks.users('base', '/_base/base'))

    def test_forged_headers_in_a_loop_of_three_end(self) -> None:
        """A header names two files: a backing file, and one for the data."""
        self.useFixture(fixtures.Timeout(60, gentle=True))
        disks = make_disks(
            ('/a/one', 'a', 'base'), ('/a/two', 'a', 'one four'),
            ('/a/three', 'a', 'two'), ('/a/four', 'a', 'three'),
        )  # fmt: skip
        (chain,) = disks.chains('base')
        self.assertEqual(
            ('/a/four', '/a/three', '/a/two', '/a/one'), chain.paths
        )
        self.assertEqual({'a'}, disks.users('base', '/_base/base'))
