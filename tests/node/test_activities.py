# SPDX-License-Identifier: Apache-2.0

"""Held is not alive: a scrub that gets nowhere is a problem."""

from collections.abc import Iterator
import contextlib
import dataclasses
import os

from nova_imagecache.cache import coordination
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import courses
from tests.support import base
from tests.support import nodes
from tests.support import processes

MINUTE = 60


class NotingTest(nodes.NodeTestCase):
    def test_what_is_noted_every_few_seconds_waits_for_no_disk(self) -> None:
        now = self.node.clock()
        activity = activities.Activity('this-host', now, now)
        self.patch(os, 'fsync', self.fail)
        activities.save(self.node.layout, activity)
        self.assertEqual(activity, activities.load(self.node.layout))

    def test_half_of_it_is_as_good_as_none(self) -> None:
        now = self.node.clock()
        activity = activities.Activity('this-host', now, now)
        activities.save(self.node.layout, activity)
        os.truncate(self.node.layout.scrub, 100)
        self.assertIsNone(activities.load(self.node.layout))


class StalledTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, checksum_interval=base.DAY)
        self.name = self.node.add_image('x')
        self.node.run()
        now = self.node.clock()
        self.activity = activities.Activity(
            'another-host', now, now, current=self.name
        )
        activities.save(self.node.layout, self.activity)

    def hold(self) -> None:
        """Have another process have the turn to read."""
        self.useFixture(processes.OtherScrub(self.node.layout.instances))

    def preview(self) -> reports.Report:
        return self.node.make_pass().preview()

    def test_a_scrub_without_progress_is_a_problem_with_host_and_time(
        self,
    ) -> None:
        self.hold()
        self.node.clock.advance(11 * MINUTE)
        for report in (self.preview(), self.node.run(inline=False)):
            (problem,) = report.problems
            self.assertIn('host another-host', problem)
            self.assertIn('no progress for 11 min, since 20', problem)
            self.assertIn(self.name, problem)

    def test_one_that_goes_on_is_none(self) -> None:
        self.hold()
        self.node.clock.advance(11 * MINUTE)
        activities.save(
            self.node.layout,
            dataclasses.replace(self.activity, updated=self.node.clock()),
        )
        self.assertEqual((), self.preview().problems)

    def test_one_that_is_dead_is_none(self) -> None:
        self.node.clock.advance(11 * MINUTE)
        self.assertEqual((), self.preview().problems)

    def test_a_verification_is_not_taken_for_a_scrub_that_was_killed(
        self,
    ) -> None:
        self.node.clock.advance(11 * MINUTE)
        found: list[tuple[str, ...]] = []

        def look_meanwhile(length: int) -> None:
            taken = coordination.coordinator(self.node.layout).taken()
            self.assertTrue(taken)
            found.append(self.preview().problems)

        @contextlib.contextmanager
        def bar(total: int) -> Iterator[courses.Progress]:
            yield look_meanwhile

        pipeline.Pass(
            self.node.settings, clock=self.node.clock, progress_bar=bar
        ).verify_now([self.name])
        self.assertEqual({()}, set(found))
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertEqual('it was killed', last.reason)
