# SPDX-License-Identifier: Apache-2.0

"""A cache as an earlier release has left it, and this one goes on with.

The records in ``caches/<when>/`` are real; the base files are made again.
"""

import json
import os
import shutil
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import records
from nova_imagecache.cache import states
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import names
from nova_imagecache.scrub import readers
from tests.node import caches
from tests.node.caches import inventory
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing

Case = inventory.Case
Verdict = scrubbing.Verdict
CORRUPT = scrubbing.CORRUPT
BLOCK = scrubbing.BLOCK
RELEASE = os.path.join(os.path.dirname(caches.__file__), '2026_11')

#: Cases in which a block went bad on the disk.
FLIPPED = (Case.CORRUPT, Case.CHANGED, Case.SHA1_WRONG, Case.TRASHED)
#: Those that are in the cache.
CACHED = tuple(case for case in Case if case is not Case.TRASHED)
#: Those with a ledger.
WITH_LEDGER = tuple(
    case for case in CACHED if case not in (Case.SHA1_ONLY, Case.SHA1_WRONG)
)


def rewrite(path: str, change: Any, version: int | None = None) -> None:
    """Change the body of a record, as whoever wrote it would have."""
    with open(path, 'rb') as file:
        record = json.loads(file.readline())
        payload = file.read()
    change(record['sealed']['body'])
    record['sha256'] = records._digest(record['sealed'])
    if version is not None:
        record['version'] = version
    with open(path, 'wb') as file:
        file.write(json.dumps(record).encode() + b'\n' + payload)


class UpgradeTestCase(scrubbing.ScrubTestCase):
    """A node with such a cache.

    :ivar digests: of blocks, by file
    :ivar checksums: what is stored, by file
    """

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(
            checksum=True, remove_unused=False, checksum_interval=base.DAY * 7
        )
        # An hour after it was left.
        self.node.clock.wall = 1.7e9 + base.HOUR
        self.node.clock.boottime = 1e6 + base.HOUR

    def put(self) -> None:
        """Put the cache there, the base files before what is known."""
        (self.trashed,) = (
            name.removesuffix('.ledger')
            for name in os.listdir(f'{RELEASE}/.imagecache/trash')
            if name.endswith('.ledger')
        )
        self.paths: dict[Case, str] = {
            case: self.node.base_path(case.file) for case in CACHED
        }
        os.makedirs(self.node.layout.trash)
        self.paths[Case.TRASHED] = os.path.join(
            self.node.layout.trash, self.trashed
        )
        for case, path in self.paths.items():
            with open(path, 'wb') as file:
                file.write(case.data)
            if case in FLIPPED:
                nodes.flip_bit(path, inventory.BAD * BLOCK + 100)
            os.utime(path, (1.7e9, 1.7e9))
        shutil.copytree(RELEASE, self.node.layout.base, dirs_exist_ok=True)
        self.digests = self.read_digests()
        self.checksums = self.read_checksums()

    def adopt(self) -> None:
        """Have the records be of the files that are there."""

        def key(path: str) -> identity.Key:
            return identity.stat_of(path).incarnation.key

        for case in WITH_LEDGER:
            own = key(self.paths[case])
            rewrite(
                self.node.layout.ledger(case.file),
                lambda body, own=own: body.update(key=own),
            )
        own = key(self.paths[Case.TRASHED])
        rewrite(
            self.paths[Case.TRASHED] + '.ledger',
            lambda body: body.update(key=own),
        )

        def adopt_all(body: dict[str, Any]) -> None:
            for name, sighting in body['files'].items():
                trashed = bool(names.trashed_name(name))
                sighting['key'] = key(self.node.layout.file(name, trashed))

        rewrite(self.node.layout.state, adopt_all)

    def read_digests(self) -> dict[str, bytes]:
        found = {}
        for name in os.listdir(self.node.layout.ledgers):
            with open(self.node.layout.ledger(name), 'rb') as file:
                found[name] = file.read().partition(b'\n')[2]
        return found

    def read_checksums(self) -> dict[str, bytes]:
        found = {}
        for name in os.listdir(self.node.layout.base):
            if name.endswith('.sha1'):
                with open(self.node.base_path(name), 'rb') as file:
                    found[name] = file.read()
        return found

    def blocks(self, case: Case) -> blockmap.Blocks:
        file = self.file(case.file)
        return self.ledger(case.file).load_blocks(file)

    def assert_nothing_is_relearnt(self) -> None:
        digests, checksums = self.read_digests(), self.read_checksums()
        for case in WITH_LEDGER:
            if case is not Case.BEGUN:
                self.assertEqual(
                    self.digests[case.file], digests[case.file], case
                )
        self.assertEqual(
            self.checksums, {name: checksums[name] for name in self.checksums}
        )
        damaged = [name for name in digests if name.endswith('.damaged')]
        self.assertEqual([], damaged)

    def verdicts(self) -> dict[Case, Verdict]:
        """Say what is known, without reading."""
        report = self.node.make_pass().preview()
        return {
            case: self.file_of(report, case.file).checksum for case in CACHED
        }

    def verify_all(self) -> dict[Case, Verdict]:
        report = self.node.make_pass().verify_now(
            [case.file for case in CACHED]
        )
        return {
            case: self.file_of(report, case.file).checksum for case in CACHED
        }

    def note_files_read(self) -> set[str]:
        real = readers.Reader.__init__
        found: set[str] = set()

        def init(reader: Any, fd: int, *args: Any, **kwargs: Any) -> None:
            path = os.readlink(f'/proc/self/fd/{fd}')
            found.add(os.path.basename(path))
            real(reader, fd, *args, **kwargs)

        self.patch(readers.Reader, '__init__', init)
        return found


#: What is found of each when it is read.
READ = {
    Case.GOOD: Verdict.GOOD,
    Case.CORRUPT: Verdict.CORRUPT,
    Case.UNREADABLE: Verdict.GOOD,
    Case.CHANGED: Verdict.GOOD,
    Case.REBASELINED: Verdict.GOOD,
    Case.BEGUN: Verdict.UNKNOWN,
    Case.TOUCHED: Verdict.GOOD,
    Case.SHA1_ONLY: Verdict.GOOD,
    Case.SHA1_WRONG: Verdict.CORRUPT,
}


class InPlaceTest(UpgradeTestCase):
    """The release changes, and the files are the same."""

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
            },
            self.verdicts(),
        )
        self.assertEqual(set(), read)

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
        self.assertEqual(READ, self.verify_all())
        self.assert_nothing_is_relearnt()
        self.assertEqual({inventory.BAD: CORRUPT}, self.bad(Case.CORRUPT.file))
        self.assertEqual(READ | {Case.BEGUN: Verdict.GOOD}, self.verify_all())
        self.assert_nothing_is_relearnt()

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
        self.assertIsNone(state.files[Case.CORRUPT.file].damage)
        self.node.run()
        state = states.load(self.node.layout)
        self.assertTrue(state.files[Case.CHANGED.file].suspect)
        damage = state.files[Case.CORRUPT.file].damage
        assert damage is not None
        self.assertEqual('corrupt', damage.verdict)
        os.unlink(self.node.layout.ledger(Case.CORRUPT.file))
        self.assertIs(Verdict.CORRUPT, self.verdicts()[Case.CORRUPT])

    def test_new_damage_is_found_by_the_old_digests(self) -> None:
        for case in (Case.GOOD, Case.REBASELINED, Case.CHANGED):
            nodes.flip_bit(self.paths[case], 4 * BLOCK)
        found = self.verify_all()
        for case in (Case.GOOD, Case.REBASELINED, Case.CHANGED):
            self.assertIs(Verdict.CORRUPT, found[case])
            self.assertEqual({4: CORRUPT}, self.bad(case.file))
        self.assert_nothing_is_relearnt()


@ddt.ddt
class MovedTest(UpgradeTestCase):
    """The release changes, and the cache is copied to another disk."""

    def setUp(self) -> None:
        super().setUp()
        self.put()

    def test_nobody_is_accused_of_what_nobody_has_read(self) -> None:
        read = self.note_files_read()
        self.assertEqual(
            dict.fromkeys(CACHED, Verdict.UNKNOWN), self.verdicts()
        )
        self.assertEqual(set(), read)
        finding = self.known(Case.CORRUPT.file).finding
        self.assertIn('of which some was bad', finding.note)

    def test_each_is_what_it_is_when_it_is_read(self) -> None:
        self.assertEqual(READ, self.verify_all())
        self.assert_nothing_is_relearnt()
        self.assertEqual({inventory.BAD: CORRUPT}, self.bad(Case.CORRUPT.file))
        self.assertEqual(READ | {Case.BEGUN: Verdict.GOOD}, self.verify_all())
        self.assert_nothing_is_relearnt()

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
            self.assertIs(Verdict.DIFFERS, found[case], case)
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


class AlternatingTest(UpgradeTestCase):
    """Two releases that take turns, as while a fleet is upgraded."""

    def setUp(self) -> None:
        super().setUp()
        self.put()
        self.adopt()
        self.verify_all()
        self.verify_all()

    def ledger_paths(self) -> list[str]:
        return [self.node.layout.ledger(case.file) for case in CACHED]

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
            rewrite(path, tomorrow, ledgers._FORMAT.version + 1)
        rewrite(self.node.layout.state, tomorrow, states._FORMAT.version + 1)

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
        self.assertEqual(READ | {Case.BEGUN: Verdict.GOOD}, self.verdicts())
        self.assert_nothing_is_relearnt()

    def test_no_checksum_goes_or_changes_meanwhile(self) -> None:
        checksums = self.read_checksums()
        self.go_forth()
        nodes.flip_bit(self.paths[Case.GOOD], 4 * BLOCK)
        self.assertIs(Verdict.CORRUPT, self.verify_all()[Case.GOOD])
        self.node.run()
        self.assertEqual(checksums, self.read_checksums())
