# SPDX-License-Identifier: Apache-2.0

"""The short table of files, and names that fit."""

from typing import Any

from nova_imagecache.cli import tables
from tests.support import base


def row(name: str) -> dict[str, Any]:
    return {
        'name': name,
        'image': None,
        'image_name': '',
        'kind': 'original',
        'size': 1 << 30,
        'allocated': 1 << 20,
        'guests': 0,
        'used': False,
        'age': 7200,
        'verdict': 'corrupt',
        'action': 'remove',
    }


class ShortenerTest(base.TestCase):
    def test_a_name_is_as_short_as_tells_it_from_the_others(self) -> None:
        first, second = 'a' * 40, 'a' * 12 + 'b' * 28
        resized = f'{first}_1024'
        short = tables.shortener([first, second, resized, 'swap_64'])
        self.assertEqual('a' * 16, short(first))
        self.assertEqual('a' * 12 + 'bbbb', short(second))
        self.assertEqual('aaaaaaaa_1024', short(resized))
        self.assertEqual('swap_64', short('swap_64'))

    def test_one_that_is_not_among_them_is_told_from_them_too(self) -> None:
        short = tables.shortener(['a' * 40])
        self.assertEqual('aaaaaaaabbbb', short('a' * 8 + 'b' * 32))
        self.assertEqual('', short(''))


class TableTest(base.TestCase):
    def test_what_is_bad_is_loud_and_what_goes_says_where(self) -> None:
        _heads, line = tables.table([row('c' * 40)], 80)
        self.assertEqual(
            ['cccccccc', '-', 'original', '1.0G/1.0M', '-', '2', 'h'],
            line.split()[:7],
        )
        self.assertEqual(['CORRUPT', 'trash'], line.split()[7:])

    def test_where_there_is_room_names_are_whole(self) -> None:
        _heads, line = tables.table([row('c' * 40)], 200)
        self.assertTrue(line.startswith('c' * 40))

    def test_however_little_room_there_is_it_fits(self) -> None:
        file = row('ephemeral_1048576_40d1d2c')
        file |= {
            'kind': 'ephemeral', 'image_name': 'x' * 99, 'guests': 123456,
            'size': 1023 << 30, 'allocated': 1023 << 20,
            'verdict': 'unreadable',
        }  # fmt: skip
        heads, line = tables.table([file], 80)
        self.assertLessEqual(max(len(heads), len(line)), 80)
        self.assertTrue(line.startswith(file['name']))
        self.assertIn('UNREADABLE', line)

    def test_what_tells_one_in_the_trash_stays(self) -> None:
        _heads, line = tables.table([row('c' * 40 + '.6abc1234')], 80)
        self.assertTrue(line.startswith('cccccccc.6abc1234 '))

    def test_no_file_is_a_head_alone(self) -> None:
        self.assertEqual(1, len(tables.table([], 80)))
