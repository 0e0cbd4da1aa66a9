# SPDX-License-Identifier: Apache-2.0

"""Files whose holes dwarf their data: no SHA-1 is made of these."""

import itertools
import json
import os

from nova_imagecache.cli import progress
from nova_imagecache.content import sidecars
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import keeper
from tests.support import base
from tests.support import identities
from tests.support import nodes
from tests.support import scrubbing
from tests.support import shell

Verdict = scrubbing.Verdict

TOO_SPARSE = 'it has no SHA-1, as it is too sparse for one'


class GiantTest(scrubbing.ScrubTestCase):
    """A few KiB that somebody has uploaded."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('giant', data=b'boot' * 1024)
        self.path = self.node.base_path(self.name)
        # Twice the holes that are too many; more would only take longer.
        os.truncate(self.path, 2**37)

    def test_it_is_digested_without_a_sha1_and_this_is_said(self) -> None:
        self.patch(hashing.WholeFile, 'add', lambda *args: self.fail('SHA-1'))
        first = self.scrub(self.name)
        self.assertEqual(
            f'{TOO_SPARSE}; its blocks have been digested', first.note
        )
        for finding in (self.scrub(self.name), self.known(self.name).finding):
            self.assertEqual(
                (Verdict.GOOD, TOO_SPARSE), (finding.verdict, finding.note)
            )
        self.assertFalse(os.path.exists(f'{self.path}.sha1'))
        ledger = self.ledger(self.name)
        self.assertEqual((None, False), (ledger.sha1, ledger.proven))

    def test_damage_is_found_all_the_same(self) -> None:
        self.scrub(self.name)
        nodes.flip_bit(self.path)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.CORRUPT, finding.verdict)

    def test_it_is_no_reason_to_read_it_again(self) -> None:
        self.node.configure(checksum=True, checksum_interval=7 * base.DAY)
        self.scrub(self.name)
        self.node.clock.advance(2 * base.DAY)
        report = self.node.run(inline=False)
        assert report.coverage is not None
        self.assertEqual(0, report.coverage.queue)
        self.assertEqual((), report.problems)

    def test_a_pass_says_it_too(self) -> None:
        self.node.configure(checksum=True)
        self.scrub(self.name)
        self.scrub(self.name)
        (file,) = self.node.run(inline=False).files
        self.assertEqual('good', file.checksum)
        self.assertIn(TOO_SPARSE, file.reason)

    def test_no_sha1_is_brought_back(self) -> None:
        self.scrub(self.name)
        keeper.restore_checksum(self.file(self.name), self.known(self.name))
        self.assertFalse(os.path.exists(f'{self.path}.sha1'))


class SparseTest(identities.IdentityTestCase):
    """As if any file were too sparse, so that small ones do."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sidecars, 'is_too_sparse', lambda stat: True)

    def test_a_checksum_that_it_has_is_compared(self) -> None:
        self.write_sidecar(self.sha1())
        finding = self.scrub(self.name)
        self.assertEqual((Verdict.GOOD, ''), (finding.verdict, finding.note))
        self.assertTrue(self.ledger(self.name).proven)

    def test_a_checksum_that_is_wrong_is_told(self) -> None:
        self.write_sidecar('f' * 40)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_evidence_gives_it_one(self) -> None:
        self.scrub(self.name)
        finding = confirmation.confirm(
            self.node.settings, self.file(self.name), self.sha1()
        )
        self.assertEqual((Verdict.GOOD, ''), (finding.verdict, finding.note))
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_its_digests_change_with_the_algorithm(self) -> None:
        self.scrub(self.name)
        finding = self.scrub(self.name, algorithm='sha256')
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertEqual('sha256', self.ledger(self.name).algorithm)
        self.assertIs(
            Verdict.GOOD, self.scrub(self.name, algorithm='sha256').verdict
        )

    def test_digests_that_do_not_match_do_not_change(self) -> None:
        self.scrub(self.name)
        self.flip(3)
        finding = self.scrub(self.name, algorithm='sha256')
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual('xxh3_128', self.ledger(self.name).algorithm)


class CourseTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.shown: list[int] = []
        self.course = courses.Course(self.shown.append)

    def test_what_is_passed_twice_counts_once(self) -> None:
        with self.course.through(10):
            for length in (6, 6, 6):
                self.course.passed(length)
        self.assertEqual([6, 4], self.shown)

    def test_a_file_that_is_left_early_is_behind_us(self) -> None:
        with self.course.through(10):
            self.course.passed(1)
        with self.course.through(5):
            pass
        self.assertEqual([1, 9, 5], self.shown)


class ProgressTest(shell.ShellTestCase):
    """All of a file is in the total, and all of it gets done."""

    def setUp(self) -> None:
        super().setUp()
        self.size = 64 * base.MIB
        self.name = self.node.add_image('image', data=b'x' * base.MIB)
        os.truncate(self.node.base_path(self.name), self.size)
        self.patch(hashing, '_HOLE_PART', 8 * base.MIB)
        self.patch(progress, '_JSON_PROGRESS_SECONDS', 0)

    def steps(self, *argv: str) -> list[tuple[int, int]]:
        _code, stdout, _stderr = self.run_command(
            *argv, '--progress', 'json', '--bandwidth', '0'
        )
        found = [json.loads(line) for line in stdout.splitlines()]
        return [
            (each['progress']['done'], each['progress']['total'])
            for each in found
            if 'progress' in each
        ]

    def test_a_first_reading_goes_through_holes_in_steps(self) -> None:
        steps = self.steps('verify')
        self.assertEqual({self.size}, {total for _done, total in steps})
        done = [done for done, _total in steps]
        self.assertEqual(self.size, done[-1])
        longest = max(
            after - before for before, after in itertools.pairwise([0, *done])
        )
        self.assertLess(longest, self.size // 4)

    def test_a_bad_block_that_is_read_again_is_not_done_twice(self) -> None:
        self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.name))
        steps = self.steps('verify')
        self.assertEqual((self.size, self.size), steps[-1])

    def test_a_scrub_gets_there_too(self) -> None:
        self.run_command('pass', '--no-verify')
        steps = self.steps('scrub')
        self.assertEqual((self.size, self.size), steps[-1])
