# SPDX-License-Identifier: Apache-2.0

"""What goes early when the disk is full, and what does not."""

from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.conf import Settings
from nova_imagecache.passes import pressure
from tests.support import base


def settings(**changes: Any) -> Settings:
    return Settings(instances_path='/i', **changes)


@ddt.ddt
class ExcessTest(base.TestCase):
    """How much is too much."""

    def excess(
        self, used: int, available: int, size: int = 0, **changes: Any
    ) -> int:
        space = pressure.Space(used, available)
        return pressure.excess(settings(**changes), space, size)[0]

    def test_nothing_goes_early_unless_it_is_asked_for(self) -> None:
        self.assertEqual(0, self.excess(100, 0, size=10**12))

    @ddt.data((80, 0), (81, 6), (100, 25))
    def test_above_the_high_mark_all_above_the_low_one(
        self, case: tuple[int, int]
    ) -> None:
        used, excess = case
        self.assertEqual(
            excess,
            self.excess(used, 100 - used, high_watermark=80, low_watermark=75),
        )

    def test_what_is_reserved_for_root_is_not_there(self) -> None:
        # 100 blocks, of which 10 are root's: df(1) says 89 %.
        self.assertGreater(
            self.excess(80, 10, high_watermark=85, low_watermark=85), 0
        )

    def test_the_cache_itself_has_a_bound(self) -> None:
        self.assertEqual(0, self.excess(1, 99, size=10, max_size=10))
        self.assertEqual(5, self.excess(1, 99, size=15, max_size=10))

    def test_the_larger_excess_counts(self) -> None:
        both: dict[str, Any] = {
            'high_watermark': 80, 'low_watermark': 75, 'max_size': 10,
        }  # fmt: skip
        self.assertEqual(25, self.excess(100, 0, size=15, **both))
        self.assertEqual(90, self.excess(100, 0, size=100, **both))

    def test_where_the_disk_was_not_looked_at_it_is_not_full(self) -> None:
        found = pressure.excess(settings(high_watermark=80), None, 10**12)
        self.assertEqual((0, ''), found)

    def test_a_disk_of_no_size_is_not_full(self) -> None:
        self.assertEqual(0, self.excess(0, 0, high_watermark=80))


_CANDIDATES = st.lists(
    st.builds(
        pressure.Candidate,
        name=st.text('abcdef', min_size=1, max_size=3),
        allocated=st.integers(0, 100),
        since=st.floats(0, 1e6),
    ),
    unique_by=lambda each: each.name,
    max_size=12,
)


class PlanTest(base.TestCase):
    """Which files are chosen."""

    @hypothesis.given(st.integers(1, 800), st.integers(0, 99), _CANDIDATES)
    def test_the_least_recently_used_go_and_no_more_than_needed(
        self, need: int, going: int, unused: list[pressure.Candidate]
    ) -> None:
        plan = pressure.plan(need, 'full', going, [], unused, {})
        chosen = [each for each in unused if each.name in plan.names]
        others = [each for each in unused if each.name not in plan.names]
        covered = going + sum(each.allocated for each in chosen)
        if chosen and others:
            self.assertGreaterEqual(
                min(each.since for each in chosen),
                max(each.since for each in others),
            )
        if chosen:
            last = min(chosen, key=lambda each: each.since)
            self.assertLess(covered - last.allocated, need)
        self.assertEqual(covered < need, plan.problem is not None)
        if plan.problem:
            self.assertEqual([], others)

    @hypothesis.given(st.integers(1, 800), _CANDIDATES)
    def test_what_is_in_the_trash_goes_before_any_other(
        self, need: int, trashed: list[pressure.Candidate]
    ) -> None:
        unused = [pressure.Candidate('unused', 1000, 1e9)]
        plan = pressure.plan(need, 'full', 0, trashed, unused, {})
        enough = sum(each.allocated for each in trashed) >= need
        self.assertEqual(not enough, 'unused' in plan.names)

    def test_nothing_is_chosen_when_nothing_is_needed(self) -> None:
        unused = [pressure.Candidate('unused', 1000, 1e9)]
        self.assertEqual(
            pressure.Plan(), pressure.plan(0, '', 0, unused, unused, {})
        )

    def test_no_more_of_the_trash_goes_than_is_needed(self) -> None:
        trashed = [
            pressure.Candidate('old', 10, 9), pressure.Candidate('new', 10, 5),
        ]  # fmt: skip
        for need, names in ((10, {'old'}), (11, {'old', 'new'})):
            plan = pressure.plan(need, 'full', 0, trashed, [], {})
            self.assertEqual(pressure.Plan(frozenset(names)), plan)

    def test_what_cannot_go_is_told_with_what_keeps_it(self) -> None:
        unused = [pressure.Candidate('unused', base.MIB, 5)]
        need = 4 * base.MIB
        for kept, words in (
            ({'in use': 2 * base.MIB, 'young': 0}, '2 MiB in use'),
            ({'a': base.MIB, 'b': base.MIB}, '1 MiB a, 1 MiB b'),
            ({}, 'nothing'),
        ):
            plan = pressure.plan(need, 'full', 0, [], unused, kept)
            self.assertEqual(
                'full: 4 MiB should go, and 3 MiB of that cannot; what stays '
                f'in the cache is {words}',
                plan.problem,
            )
