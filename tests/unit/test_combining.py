# SPDX-License-Identifier: Apache-2.0

"""A good block out of several bad ones."""

from nova_imagecache.heal import combining
from tests.support import base


def combine(*copies: str) -> list[str]:
    """Give what is tried; a page is a letter, and missing where it is -."""
    pages = [
        [None if page == '-' else page.encode() for page in copy]
        for copy in copies
    ]
    return [each.decode() for each in combining.combinations(pages)]


class CombiningTest(base.TestCase):
    def test_what_is_missing_in_one_is_taken_from_another(self) -> None:
        self.assertEqual(['abcd'], combine('a-cd', 'ab-d', '--c-'))

    def test_what_most_of_them_have_comes_first(self) -> None:
        found = combine('Xbcd', 'aXcd', 'abXd')
        self.assertEqual('abcd', found[0])
        self.assertEqual(8 - 3, len(found))

    def test_of_two_all_that_there_is_is_tried(self) -> None:
        self.assertEqual({'aB', 'Ab'}, {*combine('ab', 'AB')})

    def test_what_is_nowhere_leaves_nothing_to_try(self) -> None:
        self.assertEqual([], combine('a-', 'b-'))

    def test_no_copy_as_a_whole_is_tried_again(self) -> None:
        self.assertEqual([], combine('ab', 'ab'))
        self.assertEqual([], combine('ab'))

    def test_copies_are_of_the_same_block(self) -> None:
        self.assertRaises(ValueError, combine, 'ab', 'abc')

    def test_there_is_an_end_to_it(self) -> None:
        found = combine('a' * 100, 'b' * 100)
        # The first of them is a copy as a whole.
        self.assertEqual(256 - 1, len(found))
        # And many differences are no matter where most of them agree.
        damages = ['ab' * 50 for _copy in range(3)]
        for number in range(3):
            for page in range(number, 99, 3):
                text = damages[number]
                damages[number] = text[:page] + 'x' + text[page + 1 :]
        self.assertEqual('ab' * 50, combine(*damages)[0])
