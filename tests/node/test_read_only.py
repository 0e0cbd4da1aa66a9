# SPDX-License-Identifier: Apache-2.0

"""A cache that cannot be written to is still read, verified and reported."""

import os

from nova_imagecache import errors
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import scrubber
from tests.node import test_medium
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

Verdict = scrubbing.Verdict


class ReadOnlyTest(test_medium.MediumTestCase):
    """A file system that went read-only, as ext4 does after an error."""

    def setUp(self) -> None:
        super().setUp()
        self.mount(self.stack, 'tmpfs', '-t', 'tmpfs')
        self.one = self.node()
        self.name = self.one.add_image('x', data=self.data)

    def freeze(self) -> None:
        processes.run('mount', '-o', 'remount,ro', self.point)

    def damage(self) -> None:
        nodes.flip_bit(self.one.base_path(self.name))

    def verify(self) -> reports.Report:
        return self.one.make_pass().verify_now([self.name])

    def preview(self) -> reports.Report:
        return self.one.make_pass(inline=False).preview()

    def test_damage_is_found_though_it_cannot_be_kept(self) -> None:
        self.verify()
        self.damage()
        self.freeze()
        for _time in range(2):
            report = self.verify()
            self.assertEqual([self.name], [f.name for f in report.corrupt])
            self.assertIn('that cannot be kept', ' '.join(report.problems))

    def test_one_that_is_sound_is_good(self) -> None:
        self.verify()
        self.freeze()
        file = self.file_of(self.verify(), self.name)
        self.assertIs(Verdict.GOOD, file.checksum)

    def test_a_first_reading_gives_no_verdict(self) -> None:
        self.freeze()
        file = self.file_of(self.verify(), self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('cannot be kept', file.reason)

    def test_it_is_told_for_as_long_as_nothing_can_be_kept(self) -> None:
        self.one.run()
        self.freeze()
        for report in (self.preview(), self.one.run(inline=False)):
            self.assertIn('read-only', ' '.join(report.problems))

    def test_to_a_host_that_never_wrote_it_is_no_problem(self) -> None:
        self.one.run()
        self.freeze()
        self.one.configure(host='reader')
        self.assertEqual((), self.preview().problems)

    def test_nothing_is_read_that_cannot_be_kept(self) -> None:
        self.one.configure(checksum_interval=0)
        self.scrub(self.one)
        self.damage()
        self.freeze()
        self.assertRaises(errors.LockBroken, self.scrub, self.one)


class UnwritableTest(scrubbing.ScrubTestCase):
    """Records of ours that belong to somebody else, such as root."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, checksum_interval=0)
        self.name = self.node.add_image('x')
        self.node.run()
        self.node.clock.advance(60)
        for directory, _directories, files in os.walk(self.temporary):
            for name in ['.', *files]:
                path = os.path.join(directory, name)
                os.chown(path, nodes.NOBODY, nodes.NOBODY)
        os.chown(self.node.layout.ledgers, 0, 0)
        nodes.flip_bit(self.node.base_path(self.name))

    def scrub_cache(self) -> None:
        with nodes.unprivileged():
            one = scrubber.Scrubber(
                self.node.settings, self.means, self.node.clock
            )
            list(one.run())

    def test_a_scrub_reads_nothing_for_nothing_and_says_so(self) -> None:
        self.before_read(0, lambda: self.fail('it was read'))
        error = self.assertRaises(errors.Error, self.scrub_cache)
        self.assertIn('cannot be written to', str(error))
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertIn(self.node.layout.ledgers, last.problems[0])

    def test_where_all_of_ours_is_roots_files_are_still_verified(self) -> None:
        for directory, _directories, files in os.walk(self.node.layout.own):
            for name in ['.', *files]:
                os.chown(os.path.join(directory, name), 0, 0)
                os.chmod(os.path.join(directory, name), 0o755)
        with nodes.unprivileged():
            report = self.node.make_pass().verify_now([self.name])
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.CORRUPT, file.checksum)
        self.assertIn('cannot be kept', file.reason)
        self.assertRaises(errors.LockBroken, self.scrub_cache)

    def test_a_preview_says_so(self) -> None:
        with nodes.unprivileged():
            report = self.node.make_pass(inline=False).preview()
        self.assertIn(self.node.layout.ledgers, ' '.join(report.problems))

    def test_what_is_found_on_demand_is_noted_in_the_state(self) -> None:
        with nodes.unprivileged():
            self.node.make_pass().verify_now([self.name])
        report = self.node.make_pass(inline=False).preview()
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.CORRUPT, file.checksum)
