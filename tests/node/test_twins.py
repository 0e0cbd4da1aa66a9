# SPDX-License-Identifier: Apache-2.0

"""Two machines that share a cache and have the same name."""

from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import nodes


class TwinsTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.configure(host='localhost')
        self.name = self.node.add_image('unused')
        self.clocks = [self.node.clock, base.FakeClock()]
        self.clocks[1].boottime *= 2
        self.clocks[1].boot_id = 'boot of the other'
        self.patch(clocks, 'machine_id', lambda: None)

    def advance(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)

    def pass_of(self, which: int) -> reports.Report:
        self.node.clock = self.clocks[which]
        return self.node.run()

    def by_turns(self) -> reports.Report:
        """Have both make passes for some hours."""
        for _round in range(3):
            for which in (0, 1):
                report = self.pass_of(which)
                self.advance(base.HOUR)
        return report

    def test_that_is_a_problem_and_no_veto(self) -> None:
        report = self.by_turns()
        (problem,) = report.problems
        self.assertIn('two machines call themselves localhost', problem)
        self.assertIn('boot of the other', problem)
        self.assertEqual(((), ()), (report.vetoes, report.notes))
        preview = self.node.make_pass().preview()
        self.assertIn(problem[:40], preview.problems[0])

    def test_an_unused_file_goes_all_the_same(self) -> None:
        self.by_turns()
        self.assertIn(self.name, self.node.files())
        self.advance(19 * base.HOUR)
        self.pass_of(0)
        self.assertNotIn(self.name, self.node.files())

    def test_it_ends_once_each_has_a_name_of_its_own(self) -> None:
        self.by_turns()
        self.node.configure(host='compute1')
        self.assertEqual((), self.pass_of(0).problems)
        self.node.configure(host='localhost')
        self.assertEqual(1, len(self.pass_of(1).problems))
        self.advance(25 * base.HOUR)
        self.assertEqual((), self.pass_of(1).problems)
        state = states.load(self.node.layout)
        self.assertIsNone(state.twins('localhost', self.node.clock()))
