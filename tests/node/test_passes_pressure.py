# SPDX-License-Identifier: Apache-2.0

"""What passes remove early when the disk is full."""

import os
from typing import Any

from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import fake_witnesses
from tests.support import nodes


class RelievedTest(nodes.NodeTestCase):
    """File systems that free late."""

    def test_no_more_goes_early_right_after_something_was_deleted(
        self,
    ) -> None:
        names = [
            self.node.add_image(f'{number}', age=base.HOUR * (9 - number))
            for number in range(8)
        ]
        size = len(names) * 64 * base.KIB
        self.node.configure(max_size=size * 3 // 4)
        self.node.run()
        self.node.clock.advance(601)
        report = self.node.run()
        self.assertEqual(2, len(report.deleted))
        # As if nothing had become free.
        self.node.configure(max_size=size // 2)
        self.node.clock.advance(10)
        report = self.node.run()
        self.assertEqual(((), ()), (report.removed, report.problems))
        # What cannot be reached is said all the same.
        self.node.configure(max_size=1, retention=0)
        self.node.pin(names[-1])
        self.assertIn('cache_max_size', self.node.run().problems[0])
        self.node.configure(max_size=size // 2)
        self.node.clock.advance(decide.FLOOR_SECONDS)
        self.assertEqual(2, len(self.node.run().removed))


MIB = base.MIB
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


class PassTest(nodes.NodeTestCase):
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
        report = self.run_(
            fake_witnesses.Sees(vetoes=(fake_witnesses.blind(),))
        )
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

        # Mocked here; a real full disk is in test_full_disk.
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
        self.assertEqual({leftover}, self.node.trash())

    def test_the_floor_is_ten_minutes(self) -> None:
        for name in self.names:
            self.node.set_age(name, decide.FLOOR_SECONDS - 1)
        self.bound(0.5)
        self.assertEqual((), self.run_().removed)
