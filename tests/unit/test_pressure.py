# SPDX-License-Identifier: Apache-2.0

"""What goes early when the disk is full, and what does not."""

import os
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.conf import Settings
from nova_imagecache.passes import decide
from nova_imagecache.passes import pressure
from nova_imagecache.passes import reports
from tests import base
from tests.unit import test_trash

KIB = base.KIB
MIB = base.MIB
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


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


class PassTest(base.NodeTestCase):
    """Passes over a cache that is too large, on real files."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [
            self.node.add_image(
                f'image {number}',
                data=os.urandom(MIB),
                age=3600 * (5 - number),
            )
            for number in range(4)
        ]

    def bound(self, mebibytes: float) -> None:
        self.node.configure(max_size=int(mebibytes * MIB))

    def run_(self, *witnesses: Any) -> reports.Report:
        return self.node.run(*witnesses)

    def removed(self, *witnesses: Any) -> list[str]:
        report = self.run_(*witnesses)
        self.assertEqual((), report.problems)
        return [file.name for file in report.removed]

    def test_the_least_recently_used_goes_before_its_age(self) -> None:
        self.bound(3)
        report = self.run_()
        (file,) = report.removed
        self.assertEqual(self.names[0], file.name)
        self.assertIn('to make room', file.reason)
        self.assertEqual({self.names[0]}, self.node.trash())

    def test_what_is_in_the_trash_is_deleted_early_and_nothing_more_goes(
        self,
    ) -> None:
        self.bound(3)
        self.assertEqual([self.names[0]], self.removed())
        # Too young to be deleted, but it will be: that is enough.
        self.assertEqual([], self.removed())
        self.node.clock.advance(601)
        report = self.run_()
        self.assertEqual(1, len(report.deleted))
        self.assertEqual((), report.removed)
        self.assertEqual([], self.removed())
        self.assertEqual(set(self.names[1:]), self.node.files())

    def test_what_is_used_pinned_or_young_stays_and_it_is_said(self) -> None:
        self.node.add_overlay(GUEST, self.names[0])
        self.node.pin(self.names[1])
        self.node.set_age(self.names[2], 599)
        self.bound(1)
        report = self.run_()
        self.assertEqual(
            [self.names[3]], [file.name for file in report.removed]
        )
        self.assertIn('cache_max_size', report.problems[0])
        self.assertIn('1 MiB in use', report.problems[0])
        self.assertIn('2 MiB of that cannot', report.problems[0])

    def test_nothing_goes_while_a_witness_is_blind(self) -> None:
        self.bound(1)
        report = self.run_(test_trash.Sees(failures=('blind',)))
        self.assertEqual((), report.removed)
        self.assertIn('cache_max_size', report.problems[0])
        self.assertEqual(set(self.names), self.node.files())

    def test_nothing_goes_when_removal_is_off(self) -> None:
        self.bound(1)
        self.node.configure(remove_unused=False)
        report = self.run_()
        self.assertEqual((), report.removed)
        self.assertIn('cache_max_size', report.problems[0])

    def test_what_is_in_the_trash_does_not_count_when_removal_is_off(
        self,
    ) -> None:
        self.bound(3)
        self.removed()
        self.node.configure(remove_unused=False)
        self.assertIn('cache_max_size', self.run_().problems[0])

    def test_a_dry_run_says_what_would_go_and_lets_it_be(self) -> None:
        self.bound(3)
        report = self.node.make_pass().preview()
        self.assertEqual(
            [self.names[0]], [file.name for file in report.removed]
        )
        self.assertEqual(set(self.names), self.node.files())

    def test_above_the_high_mark_files_go_until_below_the_low_one(
        self,
    ) -> None:
        real = os.statvfs

        # Mocked here; a real full disk is in functional.test_full_disk.
        class Full:
            f_frsize = 4096
            f_blocks = 10 * MIB // f_frsize
            f_bfree = f_bavail = f_blocks // 10

        self.patch(os, 'statvfs', lambda path: Full)
        self.node.configure(high_watermark=80, low_watermark=75)
        self.assertEqual(self.names[:2], sorted(
            self.removed(), key=self.names.index
        ))  # fmt: skip
        self.patch(os, 'statvfs', real)

    def test_a_disk_that_cannot_be_measured_is_a_problem(self) -> None:
        def refuse(path: str) -> None:
            raise PermissionError(13, 'Permission denied')

        self.patch(os, 'statvfs', refuse)
        self.node.configure(high_watermark=80, low_watermark=75)
        report = self.run_()
        self.assertIn('Permission denied', report.problems[0])
        self.assertEqual((), report.removed)

    def test_leftovers_go_early_too(self) -> None:
        leftover = self.names[0] + '.part'
        self.node.add_base(leftover, data=os.urandom(MIB), age=6 * 3600)
        self.bound(4)
        self.assertEqual([leftover], self.removed())
        self.assertEqual(set(self.names), self.node.files())
        self.assertEqual(set(), self.node.trash())

    def test_the_floor_is_ten_minutes(self) -> None:
        for name in self.names:
            self.node.set_age(name, decide.FLOOR_SECONDS - 1)
        self.bound(0.5)
        self.assertEqual((), self.run_().removed)
