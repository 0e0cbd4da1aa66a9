# SPDX-License-Identifier: Apache-2.0

"""A cache as an earlier release has left it, and this one goes on with.

The records in ``caches/<when>/`` are real; the base files are made again.
"""

import os
from typing import Any
from typing import ClassVar

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import hosts
from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import state_records
from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from tests.node.caches import inventory
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing
from tests.support import upgrading

Case = inventory.Case
Verdict = scrubbing.Verdict
CORRUPT = scrubbing.CORRUPT
BLOCK = scrubbing.BLOCK


class InPlaceTest(upgrading.UpgradeTestCase):
    """The release changes, and the files are the same.

    :cvar also_known: of what the first release could not know
    """

    also_known: ClassVar[dict[Case, Verdict]] = {}

    def setUp(self) -> None:
        super().setUp()
        self.put()
        self.adopt()

    def test_what_was_known_is_known_unread(self) -> None:
        read = self.note_files_read()
        self.assertEqual(
            {
                Case.GOOD: Verdict.GOOD,
                Case.CORRUPT: Verdict.CORRUPT,
                Case.UNREADABLE: Verdict.UNREADABLE,
                Case.CHANGED: Verdict.GOOD,
                Case.REBASELINED: Verdict.GOOD,
                Case.BEGUN: Verdict.UNKNOWN,
                Case.TOUCHED: Verdict.UNKNOWN,
                Case.SHA1_ONLY: Verdict.UNKNOWN,
                Case.SHA1_WRONG: Verdict.UNKNOWN,
            }
            | self.also_known,
            self.verdicts(),
        )
        self.assertEqual([], read)

    def test_doubtful_stays_marked(self) -> None:
        report = self.node.make_pass().preview()
        changed = self.file_of(report, Case.CHANGED.file)
        self.assertTrue(changed.suspect)
        self.assertIn('suspect', changed.reason)
        rebaselined = self.file_of(report, Case.REBASELINED.file)
        self.assertIn('rebaselined on 2023-11-14', rebaselined.reason)
        self.assertIn('all that was known', rebaselined.reason)
        for case in (Case.GOOD, Case.CORRUPT, Case.TOUCHED):
            self.assertFalse(self.file_of(report, case.file).suspect)

    def test_a_pass_reads_what_is_due_and_not_what_is_good(self) -> None:
        read = self.note_files_read()
        self.node.run()
        for case in (Case.GOOD, Case.REBASELINED, Case.CHANGED):
            self.assertNotIn(case.file, read)
        for case in (Case.BEGUN, Case.TOUCHED, Case.SHA1_ONLY):
            self.assertIn(case.file, read)
        self.assert_nothing_is_relearnt()

    def test_what_is_not_read_is_not_written_anew(self) -> None:
        path = self.node.layout.ledger(Case.GOOD.file)
        with open(path, 'rb') as file:
            before = file.read()
        self.node.run()
        with open(path, 'rb') as file:
            self.assertEqual(before, file.read())

    def test_each_is_what_it_is_when_it_is_read(self) -> None:
        self.assert_each_is_what_it_is()

    def test_marks_outlive_the_next_reading(self) -> None:
        self.verify_all()
        self.assertTrue(self.ledger(Case.CHANGED.file).suspect)
        ledger = self.ledger(Case.REBASELINED.file)
        self.assertEqual(
            (1700000840.0, False), (ledger.rebaselined, ledger.anew)
        )
        for case in (Case.GOOD, Case.SHA1_ONLY, Case.TOUCHED):
            self.assertIsNone(self.ledger(case.file).rebaselined)

    def test_a_reading_that_was_begun_goes_on_where_it_was(self) -> None:
        known = self.blocks(Case.BEGUN)
        self.assertEqual(inventory.COUNT - 4, known.unknown)
        read: list[int] = []
        real = self.pread

        def pread(fd: int, buffers: Any, offset: int) -> int:
            read.append(offset // BLOCK)
            return real(fd, buffers, offset)

        self.pread = pread
        self.scrub(Case.BEGUN.file)
        self.assertEqual([4, 5], read)
        after = self.blocks(Case.BEGUN)
        for index in range(4):
            self.assertEqual(known.get(index), after.get(index))

    def test_what_is_in_the_trash_is_known_to_be_bad(self) -> None:
        file = base_file.BaseFile.named(
            self.node.layout, self.trashed, trashed=True
        )
        finding = knowledge.recall(file).finding
        self.assertIs(Verdict.CORRUPT, finding.verdict)

    def test_the_state_remembers_from_the_next_pass_on(self) -> None:
        state = states.load(self.node.layout)
        self.assertTrue(state.files[Case.CHANGED.file].suspect)
        self.node.run()
        state = states.load(self.node.layout)
        self.assertTrue(state.files[Case.CHANGED.file].suspect)
        damage = state.files[Case.CORRUPT.file].damage
        assert damage is not None
        self.assertEqual('corrupt', damage.verdict)
        os.unlink(self.node.layout.ledger(Case.CORRUPT.file))
        self.assertIs(Verdict.CORRUPT, self.verdicts()[Case.CORRUPT])

    def test_new_damage_is_found_by_the_old_digests(self) -> None:
        before = {}
        for case in (Case.GOOD, Case.REBASELINED, Case.CHANGED):
            before[case] = self.bad(case.file)
            nodes.flip_bit(self.paths[case], 4 * BLOCK)
        found = self.verify_all()
        for case, bad in before.items():
            self.assertIs(Verdict.CORRUPT, found[case])
            self.assertEqual({**bad, 4: CORRUPT}, self.bad(case.file))
        self.assert_nothing_is_relearnt()


class InPlace29Test(InPlaceTest):
    """Likewise, after the release that asks and tells them apart."""

    release = '2026_11_29'
    also_known: ClassVar[dict[Case, Verdict]] = {
        Case.DIFFERS: Verdict.DIFFERS,
        Case.QUESTION: Verdict.UNKNOWN,
        Case.DOUBTFUL: Verdict.UNKNOWN,
    }

    def test_what_it_left_open_is_still_open(self) -> None:
        self.assertTrue(self.ledger(Case.QUESTION.file).question)
        self.assertTrue(self.ledger(Case.DIFFERS.file).differs)
        for case, damage in (
            (Case.DIFFERS, CORRUPT), (Case.DOUBTFUL, scrubbing.DOUBTFUL),
        ):  # fmt: skip
            self.assertEqual({inventory.BAD: damage}, self.bad(case.file))

    def test_the_state_still_knows_of_damage(self) -> None:
        for case, verdict in (
            (Case.CORRUPT, Verdict.CORRUPT), (Case.DIFFERS, Verdict.DIFFERS),
        ):  # fmt: skip
            os.unlink(self.node.layout.ledger(case.file))
            self.assertIs(verdict, self.verdicts()[case])


@ddt.ddt
class MovedTest(upgrading.UpgradeTestCase):
    """The release changes, and the cache is copied to another disk."""

    def setUp(self) -> None:
        super().setUp()
        self.put()

    def test_nobody_is_accused_of_what_nobody_has_read(self) -> None:
        read = self.note_files_read()
        self.assertEqual(
            dict.fromkeys(self.cached, Verdict.UNKNOWN), self.verdicts()
        )
        self.assertEqual([], read)
        finding = self.known(Case.CORRUPT.file).finding
        self.assertIn('of which some was bad', finding.note)

    def test_each_is_what_it_is_when_it_is_read(self) -> None:
        self.assert_each_is_what_it_is()

    def test_marks_come_along(self) -> None:
        self.verify_all()
        self.assertTrue(self.ledger(Case.CHANGED.file).suspect)
        ledger = self.ledger(Case.REBASELINED.file)
        self.assertEqual(1700000840.0, ledger.rebaselined)
        for case in (Case.GOOD, Case.SHA1_ONLY, Case.TOUCHED):
            self.assertIsNone(self.ledger(case.file).rebaselined)

    def test_damage_on_the_way_differs_and_nothing_is_overwritten(
        self,
    ) -> None:
        hit = (Case.GOOD, Case.REBASELINED, Case.CORRUPT, Case.UNREADABLE)
        for case in hit:
            nodes.flip_bit(self.paths[case], 4 * BLOCK)
        found = self.verify_all()
        for case in hit:
            # What was bad before is, whatever comes to it.
            verdict = Verdict.DIFFERS
            if case is Case.CORRUPT:
                verdict = Verdict.CORRUPT
            self.assertIs(verdict, found[case], case)
            self.assertIn(4, self.bad(case.file))
        self.assert_nothing_is_relearnt()

    @ddt.data(Case.SHA1_ONLY, Case.SHA1_WRONG)
    def test_a_checksum_that_came_before_its_file_is_compared(
        self, case: Case
    ) -> None:
        path = self.paths[case]
        with open(path, 'rb') as file:
            data = file.read()
        nodes.write_after(path, data, path + '.sha1')
        wrong = case is Case.SHA1_WRONG
        self.assertIs(
            Verdict.DIFFERS if wrong else Verdict.GOOD,
            self.verify_all()[case],
        )
        self.assert_nothing_is_relearnt()


class Moved29Test(MovedTest):
    """Likewise, after the release that asks and tells them apart."""

    release = '2026_11_29'


class AlternatingTest(upgrading.UpgradeTestCase):
    """Two releases that take turns, as while a fleet is upgraded."""

    def setUp(self) -> None:
        super().setUp()
        self.put()
        self.adopt()
        self.verify_all()
        self.verify_all()

    def ledger_paths(self) -> list[str]:
        return [self.node.layout.ledger(case.file) for case in self.cached]

    def read_all(self) -> dict[str, bytes]:
        found = {}
        for path in (*self.ledger_paths(), self.node.layout.state):
            with open(path, 'rb') as file:
                found[path] = file.read()
        return found

    def go_forth(self) -> None:
        """Have the next release write all records."""

        def tomorrow(body: dict[str, Any]) -> None:
            body['of_tomorrow'] = 'x'

        for path in self.ledger_paths():
            upgrading.rewrite(path, tomorrow, ledgers._FORMAT.version + 1)
        upgrading.rewrite(
            self.node.layout.state, tomorrow, state_records.FORMAT.version + 1
        )

    def test_what_the_later_one_wrote_comes_back_whole(self) -> None:
        before = self.read_all()
        self.go_forth()
        later = self.read_all()
        for _pass in range(3):
            self.node.run()
            self.node.clock.advance(8 * base.DAY)
        self.verify_all()
        self.assertEqual(later, self.read_all())
        self.assertEqual(
            [],
            [
                name
                for name in os.listdir(self.node.layout.ledgers)
                if name.endswith('.damaged')
            ],
        )
        # And the later one goes on with what it knew.
        for path, data in before.items():
            with open(path, 'wb') as file:
                file.write(data)
        read = {case: upgrading.READ[case] for case in self.cached}
        self.assertEqual(read | {Case.BEGUN: Verdict.GOOD}, self.verdicts())
        self.assert_nothing_is_relearnt()

    def test_no_checksum_goes_or_changes_meanwhile(self) -> None:
        checksums = self.read_checksums()
        self.go_forth()
        nodes.flip_bit(self.paths[Case.GOOD], 4 * BLOCK)
        self.assertIs(Verdict.CORRUPT, self.verify_all()[Case.GOOD])
        self.node.run()
        self.assertEqual(checksums, self.read_checksums())


class Alternating29Test(AlternatingTest):
    """Likewise, with the release that asks and tells them apart."""

    release = '2026_11_29'


class InPlace30Test(InPlace29Test):
    """Likewise, after the last release that wrote all of it in each pass."""

    release = '2026_11_30'

    def test_what_was_noted_of_hosts_and_uses_is_known(self) -> None:
        layout, name = self.node.layout, Case.SHA1_ONLY.file
        state = states.load(layout)
        noted = state.last_passes['a-host'].wall
        self.assertEqual(noted, state.files[name].last_used)
        self.assertEqual({name: noted}, hosts.load(layout, 'a-host').below)
        self.assertEqual(
            {'/no/disk'}, ignored_files.load(layout, 'a-host').keys()
        )
        self.node.run()
        after = states.load(layout)
        self.assertEqual(noted, after.last_passes['a-host'].wall)
        # The other host still says that it needs it.
        last = after.last_passes[self.node.settings.host].wall
        self.assertEqual(last, after.files[name].last_used)

    def test_a_crash_between_both_records_loses_nothing(self) -> None:
        layout = self.node.layout
        with open(layout.state, 'rb') as file:
            before = file.read()
        expected = states.load(layout)
        self.node.run()
        with open(layout.state, 'wb') as file:
            file.write(before)
        after = states.load(layout)
        self.assertEqual(
            (expected.files, expected.boots), (after.files, after.boots)
        )


class Moved30Test(MovedTest):
    """Likewise, with the last release that wrote all of it in each pass."""

    release = '2026_11_30'


class Alternating30Test(AlternatingTest):
    """Likewise, with the last release that wrote all of it in each pass."""

    release = '2026_11_30'
