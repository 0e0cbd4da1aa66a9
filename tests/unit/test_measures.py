# SPDX-License-Identifier: Apache-2.0

"""Bytes and times as people read them."""

from nova_imagecache import measures
from tests.support import base


class MeasuresTest(base.TestCase):
    def test_a_size_has_the_unit_that_fits(self) -> None:
        for value, shown in (
            (0, '0 B'), (9, '9 B'), (9.5, '10 B'), (10, '10 B'),
            (1023, '1023 B'),
        ):  # fmt: skip
            self.assertEqual(shown, measures.size(value))
        self.assertEqual('1.0 KiB', measures.size(1024))
        self.assertEqual('2.5 GiB', measures.size(2.5 * 2**30))

    def test_a_small_rate_is_not_0(self) -> None:
        self.assertEqual('0.02 B/s', measures.rate(0.02))

    def test_a_span_has_the_unit_that_fits(self) -> None:
        for seconds, text in (
            (0.4, '0 s'), (59, '59 s'), (60, '1 min'), (3599.99, '1 h'),
            (86400, '1 d'), (3 * 86400 + 5, '3 d'),
        ):  # fmt: skip
            self.assertEqual(text, measures.span(seconds))

    def test_a_moment_is_in_utc(self) -> None:
        self.assertEqual('28 Nov 03:12', measures.day(1795835520.0))
