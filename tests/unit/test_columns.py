# SPDX-License-Identifier: Apache-2.0

import ddt

from nova_imagecache.cli import columns
from nova_imagecache.outlets import messages
from nova_imagecache.scrub import schedule
from tests.support import base


@ddt.ddt
class OutputTest(base.TestCase):
    @ddt.data(
        (0, '0 B'),
        (1023, '1023 B'),
        (1024, '1.0 KiB'),
        (5 * base.MIB, '5.0 MiB'),
        (3 * 1024**3 // 2, '1.5 GiB'),
        (2**50, '1024.0 TiB'),
    )
    @ddt.unpack
    def test_bytes_are_shown_in_the_unit_that_fits(
        self, value: int, shown: str
    ) -> None:
        self.assertEqual(shown, columns.Bytes(value).human_readable())
        self.assertEqual(value, columns.Bytes(value).machine_readable())

    def test_many_users_are_cut_short_for_people_only(self) -> None:
        users = ['a', 'b', 'c', 'd', 'e']
        column = columns.Users(users)
        self.assertEqual('a\nb\nc\nand 2 more', column.human_readable())
        self.assertEqual(users, column.machine_readable())


class FilledTest(base.TestCase):
    def test_what_there_is_not_has_one_form(self) -> None:
        never = columns.Seconds(None)
        line = (None, never, 0, False, 'x')
        for form, shown in (
            ('json', line),
            ('yaml', line),
            ('table', ('-', never, 0, False, 'x')),
            ('csv', ('', '', 0, False, 'x')),
            ('value', ('', '', 0, False, 'x')),
        ):
            self.assertEqual(shown, columns.filled(form, line), form)

    def test_what_there_is_stays(self) -> None:
        size = columns.Bytes(0)
        self.assertEqual((size,), columns.filled('csv', (size,)))


class ColumnTest(base.TestCase):
    def test_spans_of_time_are_shown_in_the_unit_that_fits(self) -> None:
        for value, shown in (
            (None, 'never'), (5, '5 s'), (120, '2 min'), (7200, '2 h'),
            (259237, '3 d'),
        ):  # fmt: skip
            self.assertEqual(shown, columns.Seconds(value).human_readable())

    def test_a_sufficient_rate_is_no_news(self) -> None:
        self.assertIsNone(messages.shortfall(schedule.Coverage()))
