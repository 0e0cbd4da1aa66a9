# SPDX-License-Identifier: Apache-2.0

"""Whether two keys are of one file: inode, birth time, generation."""

import itertools
import stat
from typing import Any

import ddt

from nova_imagecache.cache import identity
from tests.support import base
from tests.support import letters

SAME = identity.Likeness.SAME
ANOTHER = identity.Likeness.ANOTHER
UNSURE = identity.Likeness.UNSURE

Key = identity.Key

#: All keys that can be made of two inodes, two times and two generations.
KEYS: tuple[Key, ...] = tuple(
    itertools.product((1, 2), (None, 10, 11), (None, 100, 101))
)


@ddt.ddt
class CompareTest(base.TestCase):
    @ddt.data(
        # With a birth time, the inode has to be the same as well.
        ((1, 10, None), (1, 10, None), SAME),
        ((1, 10, None), (2, 10, None), UNSURE),
        ((1, 10, None), (1, 11, None), ANOTHER),
        ((1, 10, None), (2, 11, None), ANOTHER),
        # Likewise with a generation.
        ((1, None, 100), (1, None, 100), SAME),
        ((1, None, 100), (2, None, 100), UNSURE),
        ((1, None, 100), (1, None, 101), ANOTHER),
        ((1, None, 100), (2, None, 101), ANOTHER),
        # An inode alone says nothing, the same one or another.
        ((1, None, None), (1, None, None), UNSURE),
        ((1, None, None), (2, None, None), UNSURE),
        # Nor what one of the two alone can see.
        ((1, 10, None), (1, None, None), UNSURE),
        ((1, 10, None), (2, None, None), UNSURE),
        ((1, 10, None), (1, None, 100), UNSURE),
        ((1, None, 100), (1, None, None), UNSURE),
        # With both, the birth time counts, and then the generation.
        ((1, 10, 100), (1, 10, 100), SAME),
        ((1, 10, 100), (1, 10, 101), SAME),
        ((1, 10, 100), (1, 11, 100), ANOTHER),
        ((1, 10, 100), (2, 10, 100), UNSURE),
        ((1, 10, 100), (2, 10, 101), ANOTHER),
        ((1, 10, 100), (1, None, 100), SAME),
        ((1, 10, 100), (1, None, 101), ANOTHER),
    )
    @ddt.unpack
    def test_likeness(
        self, one: Key, other: Key, likeness: identity.Likeness
    ) -> None:
        self.assertIs(likeness, identity.compare(one, other))
        self.assertIs(likeness, identity.compare(other, one))

    def test_no_time_of_the_epoch_is_taken_for_none(self) -> None:
        self.assertIs(SAME, identity.compare((1, 0, None), (1, 0, None)))
        self.assertIs(ANOTHER, identity.compare((1, 0, None), (1, 1, None)))
        self.assertIs(ANOTHER, identity.compare((1, None, 0), (1, None, 1)))

    def test_nobody_is_another_than_himself(self) -> None:
        for key in KEYS:
            told = key[1:] != (None, None)
            self.assertIs(SAME if told else UNSURE, identity.compare(key, key))


@ddt.ddt
class MergedTest(base.TestCase):
    @ddt.data(
        ((1, 10, None), (1, None, None), (1, 10, None)),
        ((1, None, None), (1, 10, None), (1, 10, None)),
        ((1, 10, None), (1, None, 100), (1, 10, 100)),
        ((1, None, 100), (1, 10, None), (1, 10, 100)),
        ((1, 10, 100), (1, None, None), (1, 10, 100)),
        # What is seen now counts for more.
        ((1, 10, 100), (1, 11, 101), (1, 11, 101)),
        ((1, 10, 100), (1, 11, None), (1, 11, 100)),
        ((1, 0, 0), (1, None, None), (1, 0, 0)),
        ((1, 10, 100), (1, 0, 0), (1, 0, 0)),
        # What belongs to another inode is forgotten with that.
        ((1, 10, 100), (2, None, None), (2, None, None)),
        ((1, 10, 100), (2, 11, None), (2, 11, None)),
    )
    @ddt.unpack
    def test_what_is_remembered(self, old: Key, new: Key, key: Key) -> None:
        self.assertEqual(key, identity.merged(old, new))

    def test_whoever_noted_it_last_knows_it_again(self) -> None:
        for old, new in itertools.product(KEYS, KEYS):
            key = identity.merged(old, new)
            likeness = identity.compare(key, new)
            told = new[1:] != (None, None)
            self.assertIs(SAME if told else UNSURE, likeness, f'{old}, {new}')

    def test_two_that_see_different_things_both_know_it(self) -> None:
        server, client = (1, 10, None), (1, None, 100)
        key = identity.merged(identity.merged(server, client), server)
        self.assertIs(SAME, identity.compare(key, server))
        self.assertIs(SAME, identity.compare(key, client))


@ddt.ddt
class StatTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen = letters.file_of().stat

    def test_nothing_suggests_a_write_where_all_is_the_same(self) -> None:
        again = self.seen._replace(mode=0o100600, allocated=0)
        self.assertTrue(self.seen.same_content_as(again))

    @ddt.data(
        {'incarnation': identity.Incarnation(8, *letters.KEY)},
        {'size': 1},
        {'modified': 1},
        {'changed': 1},
    )
    def test_each_of_these_suggests_one(self, change: dict[str, Any]) -> None:
        again = self.seen._replace(**change)
        self.assertFalse(self.seen.same_content_as(again))
        self.assertFalse(again.same_content_as(self.seen))

    def test_only_a_file_is_regular(self) -> None:
        for kind, regular in (
            (stat.S_IFREG, True),
            (stat.S_IFDIR, False),
            (stat.S_IFLNK, False),
        ):
            seen = self.seen._replace(mode=kind | 0o644)
            self.assertIs(regular, seen.regular)
