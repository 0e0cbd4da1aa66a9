# SPDX-License-Identifier: Apache-2.0

from typing import Any

import msgspec

from nova_imagecache.cache import sightings
from nova_imagecache.cache import uses
from nova_imagecache import clocks
from tests.support import base

ONE = frozenset({'one'})
BOTH = frozenset({'one', 'two'})


def sighting(last_used: float | None) -> sightings.Sighting:
    return sightings.Sighting(
        key=(1, 2, None),
        last_used=last_used,
        modified=5,
        seen=clocks.Instant(1.0, 1.0, 'boot'),
        image=None,
        digested=False,
        suspect=False,
        rebaselined=None,
        damage=None,
        trashed=None,
        ahead=False,
    )


class CompletedTest(base.TestCase):
    def last_uses(
        self, used: uses.Used, **passed: float
    ) -> dict[str, float | None]:
        files = {'one': sighting(10.0), 'two': sighting(None)}
        found = uses.completed(files, used, passed)
        return {name: each.last_used for name, each in found.items()}

    def test_what_a_host_uses_was_used_in_its_last_pass(self) -> None:
        self.assertEqual(
            {'one': 20.0, 'two': None}, self.last_uses({'a': ONE}, a=20.0)
        )

    def test_the_last_of_several_hosts_counts(self) -> None:
        self.assertEqual(
            {'one': 30.0, 'two': 20.0},
            self.last_uses({'a': ONE, 'b': BOTH}, a=30.0, b=20.0),
        )

    def test_no_use_becomes_an_earlier_one(self) -> None:
        self.assertEqual(
            {'one': 10.0, 'two': 5.0}, self.last_uses({'a': BOTH}, a=5.0)
        )

    def test_what_is_gone_does_not_come_back(self) -> None:
        found = self.last_uses({'a': frozenset({'gone'})}, a=20.0)
        self.assertEqual({'one', 'two'}, found.keys())


class SettledTest(base.TestCase):
    def test_a_host_whose_clock_was_ahead_is_left_out(self) -> None:
        files = {'one': sighting(10.0), 'two': sighting(None)}
        used = {'a': ONE, 'b': ONE, 'c': frozenset({'two'})}
        found = uses.settled(files, used, {'a': 10.0, 'b': 11.0, 'c': 1.0})
        self.assertEqual({'a': ONE}, found)


class AgreeTest(base.TestCase):
    def agree(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        return uses.agree(
            {'f': msgspec.structs.replace(sighting(1.0), **one)},
            {'f': msgspec.structs.replace(sighting(1.0), **other)},
            {},
            {},
        )

    def test_a_touch_is_no_news(self) -> None:
        self.assertTrue(self.agree({}, {}))
        self.assertTrue(self.agree({}, {'modified': 6}))

    def test_a_touch_that_is_ahead_is_news(self) -> None:
        for one, other in ((False, True), (True, False), (True, True)):
            self.assertFalse(
                self.agree({'ahead': one}, {'ahead': other, 'modified': 6})
            )

    def test_all_else_is_news(self) -> None:
        for field, value in (
            ('last_used', 2.0), ('image', 'x'), ('digested', True),
            ('key', (2, 2, None)), ('suspect', True), ('rebaselined', 1.0),
            ('seen', clocks.Instant(2.0, 1.0, 'boot')),
            ('trashed', clocks.Instant(2.0, 1.0, 'boot')),
            ('damage', sightings.Damage('corrupt', 1.0)),
        ):  # fmt: skip
            self.assertFalse(self.agree({}, {field: value, 'modified': 6}))
        self.assertFalse(uses.agree({}, {'f': sighting(1.0)}, {}, {}))
        self.assertFalse(uses.agree({'f': sighting(1.0)}, {}, {}, {}))

    def test_the_last_passes_of_hosts_count(self) -> None:
        used = {'a': frozenset({'f'}), 'b': frozenset({'f'})}
        for written in (None, 1.0, 3.0, 5.0):
            for passed in ({}, {'a': 2.0}, {'a': 2.0, 'b': 4.0}, {'c': 9.0}):
                before = {'f': sighting(written)}
                completed = uses.completed(before, used, passed)
                for last in (None, 1.0, 2.0, 3.0, 4.0, 5.0, 9.0):
                    files = {'f': sighting(last)}
                    self.assertEqual(
                        files == completed,
                        uses.agree(files, before, used, passed),
                    )


class GroupedTest(base.TestCase):
    def test_what_several_hosts_use_is_written_once(self) -> None:
        used = {'b': BOTH, 'a': BOTH, 'c': ONE}
        groups = uses.grouped(used, ['b', 'c', 'a'], 1)
        self.assertEqual(
            (
                uses.Group(('a', 'b'), ('one', 'two')),
                uses.Group(('c',), ('one',)),
            ),
            groups,
        )
        self.assertEqual(used, uses.spread(groups))

    def test_what_would_be_too_much_is_left_out(self) -> None:
        used = {'a': ONE, 'b': BOTH, 'c': frozenset({'two'})}
        found = uses.spread(uses.grouped(used, ['a', 'b', 'c'], 1))
        self.assertEqual({'a', 'c'}, found.keys())
