# SPDX-License-Identifier: Apache-2.0

import ddt

from nova_imagecache.witnesses import vetoing
from tests.support import base

Reason = vetoing.Reason


def veto(number: int = 1, reason: Reason = Reason.DAMAGED) -> vetoing.Veto:
    return vetoing.Veto(reason, f'/disk{number}', f'it is bad ({number})')


@ddt.ddt
class SentencesTest(base.TestCase):
    def test_nothing_is_nothing_to_say(self) -> None:
        self.assertEqual((), vetoing.sentences([]))

    def test_one_says_what_is_the_matter_and_what_to_do(self) -> None:
        self.assertEqual(
            (
                '/disk1: it is bad (1); mend it or move it away, or say '
                '"nova-imagecache ignore PATH" of a file that is no disk of '
                'a guest',
            ),
            vetoing.sentences([veto()]),
        )

    def test_where_there_is_nothing_to_do_it_ends_there(self) -> None:
        for reason in (Reason.UNANSWERED, Reason.UNSTABLE, Reason.RECORD):
            self.assertEqual(
                ('/disk1: it is bad (1)',),
                vetoing.sentences([veto(reason=reason)]),
            )

    @ddt.data(2, 3)
    def test_a_few_are_all_named(self, count: int) -> None:
        (text,) = vetoing.sentences(map(veto, range(count)))
        self.assertTrue(
            text.startswith(f'{count} disks have a damaged header: /disk0: ')
        )
        for number in range(count):
            self.assertIn(f'/disk{number}: it is bad ({number})', text)
        self.assertNotIn('more', text)
        self.assertEqual(1, text.count('mend it'))

    @ddt.data(4, 1000)
    def test_of_many_three_are_named_and_the_rest_counted(
        self, count: int
    ) -> None:
        (text,) = vetoing.sentences(map(veto, range(count)))
        self.assertTrue(text.startswith(f'{count} disks have'))
        self.assertEqual(3, text.count('/disk'))
        self.assertIn(f'; and {count - 3} more; mend it', text)

    def test_each_kind_is_told_once_in_the_order_in_which_it_came(
        self,
    ) -> None:
        found = vetoing.sentences(
            [
                veto(1, Reason.UNREADABLE),
                veto(2),
                veto(3, Reason.UNREADABLE),
                veto(4),
            ]
        )
        self.assertEqual(
            ['2 files or directories cannot', '2 disks have a damaged'],
            [
                text[: len(begins)]
                for text, begins in zip(
                    found,
                    [
                        '2 files or directories cannot',
                        '2 disks have a damaged',
                    ],
                    strict=True,
                )
            ],
        )

    def test_the_same_one_is_told_once(self) -> None:
        (text,) = vetoing.sentences([veto(), veto()])
        self.assertTrue(text.startswith('/disk1: it is bad'))

    def test_every_kind_can_be_counted_and_has_a_way_out(self) -> None:
        for reason in Reason:
            (text,) = vetoing.sentences([veto(1, reason), veto(2, reason)])
            self.assertTrue(text.startswith('2 '), reason)
            self.assertIsInstance(veto(1, reason).way_out, str)

    def test_what_is_no_text_is_shown_in_escapes(self) -> None:
        (text,) = vetoing.sentences(
            [vetoing.Veto(Reason.DAMAGED, '/\udcff\n', 'it is bad')]
        )
        self.assertTrue(text.startswith('/\\xff\\n: it is bad'), text)


class KeepsTest(base.TestCase):
    def test_one_that_says_nothing_of_it_keeps_everything(self) -> None:
        self.assertFalse(veto().is_narrow)
        self.assertTrue(veto().keeps_file('anything'))

    def test_one_that_does_keeps_that(self) -> None:
        narrow = vetoing.Veto(
            Reason.DAMAGED, '/disk', 'it is bad', frozenset({'swap_512'})
        )
        self.assertTrue(narrow.is_narrow)
        self.assertTrue(narrow.keeps_file('swap_512'))
        self.assertFalse(narrow.keeps_file('swap_64'))

    def test_one_that_needs_nothing_keeps_nothing(self) -> None:
        narrow = vetoing.Veto(Reason.DAMAGED, '/disk', 'bad', frozenset())
        self.assertTrue(narrow.is_narrow)
        self.assertFalse(narrow.keeps_file('swap_64'))
