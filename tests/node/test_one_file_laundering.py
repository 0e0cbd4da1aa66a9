# SPDX-License-Identifier: Apache-2.0

"""No knowledge that is lost makes damage what a file should hold."""

import errno
import json
import os
import random
import shutil
from typing import Any

import ddt

from nova_imagecache.cache import identity
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache import hook
from nova_imagecache.scrub import one_file
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing

BLOCK = scrubbing.BLOCK
COUNT = scrubbing.COUNT
UNREADABLE = scrubbing.UNREADABLE
CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict


@ddt.ddt
class KnowledgeLostTest(scrubbing.OneFileTestCase):
    """Ledgers that are damaged, foreign or of the future."""

    def setUp(self) -> None:
        super().setUp()
        self.scrub_file()
        self.record = self.node.layout.ledger(self.name)

    def spoil_payload(self) -> None:
        nodes.flip_bit(self.record, os.path.getsize(self.record) - 1)

    def spoil_line(self) -> None:
        nodes.flip_bit(self.record, 30)

    @ddt.data('spoil_payload', 'spoil_line')
    def test_a_damaged_ledger_is_set_aside_and_no_corruption(
        self, spoil: str
    ) -> None:
        getattr(self, spoil)()
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertTrue(os.path.exists(self.record + '.damaged'))
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({3: CORRUPT}, self.bad_blocks())

    @ddt.data('spoil_payload', 'spoil_line')
    def test_known_damage_never_becomes_the_baseline(self, spoil: str) -> None:
        self.flip(3)
        self.scrub_file()
        getattr(self, spoil)()
        for _scrub in range(3):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.flip(3)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_digests_lost_and_checksum_too_leave_the_sha1_in_the_line(
        self,
    ) -> None:
        known = self.read_sidecar()
        os.unlink(self.sidecar)
        self.spoil_payload()
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual(known, self.read_sidecar())

    def test_a_stop_while_the_sha1_is_to_prove_it_loses_nothing(self) -> None:
        self.flip(3)
        self.scrub_file()
        self.spoil_payload()
        self.scrub_file(**self.stop_after(4))
        self.assertIs(Verdict.CORRUPT, self.known(self.name).finding.verdict)
        self.go_on()
        self.assertIs(Verdict.CORRUPT, self.scrub_file())

    @ddt.data({'version': 1}, {'kind': 'state'}, {'sealed': []})
    def test_a_ledger_of_another_kind_is_set_aside(
        self, change: dict[str, Any]
    ) -> None:
        with open(self.record, 'rb') as file:
            line = json.loads(file.readline())
        with open(self.record, 'w') as text:
            json.dump(line | change, text)
            text.write('\n')
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertTrue(os.path.exists(self.record + '.damaged'))

    def test_garbage_of_any_kind_is_never_corruption(self) -> None:
        with open(self.record, 'rb') as file:
            sound = file.read()
        generator = random.Random(1)
        for _garbage in range(60):
            data = bytearray(sound)
            for _byte in range(generator.randrange(1, 5)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            del data[generator.randrange(len(data)) :]
            with open(self.record, 'wb') as file:
                file.write(data)
            self.assertIs(Verdict.GOOD, self.scrub_file())


@ddt.ddt
class StateRemembersTest(nodes.NodeTestCase):
    def test_the_state_remembers_that_all_was_lost(self) -> None:
        self.node.configure(checksum=True)
        name = self.node.add_image('x')
        self.node.run()
        os.unlink(self.node.base_path(name) + '.sha1')
        os.truncate(self.node.layout.ledger(name), 10)
        # Noted in the ledger, and then in the state.
        self.node.run()
        self.node.run()
        os.unlink(self.node.layout.ledger(name))
        self.node.run()
        file = self.file_of(self.node.run(), name)
        self.assertIn('rebaselined on', file.reason)


class LaunderingTest(scrubbing.OneFileTestCase):
    """Ways in which damage could become what a file should hold."""

    def spoil_payload(self) -> None:
        record = self.node.layout.ledger(self.name)
        nodes.flip_bit(record, os.path.getsize(record) - 1)

    def assert_corrupt(self, times: int = 3) -> None:
        for _scrub in range(times):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_digests_lost_and_a_block_that_cannot_be_read(self) -> None:
        self.scrub_file()
        self.spoil_payload()
        self.flip(2)
        verified = self.ledger(self.name).verified
        with self.failing_reads(5):
            self.scrub_file()
        # Nothing was compared with anything.
        self.assertEqual(verified, self.ledger(self.name).verified)
        self.assert_corrupt()

    def test_digests_lost_and_a_touch_each_time(self) -> None:
        self.scrub_file()
        self.spoil_payload()
        self.flip(2)
        self.touch_at_each_read()
        self.assert_corrupt()

    def test_digests_lost_and_no_sha1_leave_the_bad_blocks_bad(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.scrub_file()
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertFalse(os.path.exists(self.sidecar))
        self.spoil_payload()
        self.assert_corrupt()
        self.assertEqual({2: CORRUPT}, self.bad_blocks())
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertIn('rebaselined', self.scrub(self.name).note)
        # The other blocks are watched again.
        self.flip(7)
        self.assert_corrupt(1)
        self.assertEqual({2: CORRUPT, 7: CORRUPT}, self.bad_blocks())

    def test_an_older_checksum_counts_when_it_and_the_digests_are_lost(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.flip(2)
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        os.unlink(self.sidecar)
        self.spoil_payload()
        self.scrub_file()
        self.assert_corrupt()

    def test_a_write_to_a_block_not_read_twice_is_no_corruption(self) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(5))
        self.go_on()
        with open(self.path, 'r+b') as file:
            file.seek(7 * BLOCK)
            file.write(b'other bytes')
        for _scrub in range(4):
            self.assertIsNot(Verdict.CORRUPT, self.scrub_file())
        finding = self.scrub(self.name)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_a_block_that_was_the_same_twice_is_settled(self) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(5))
        self.go_on()
        # However often it is touched in between, as a guest uses it.
        os.utime(self.path)
        reads = self.note_reads()
        self.scrub_file()
        self.assertEqual(list(range(5, COUNT)), reads)
        self.assertTrue(self.ledger(self.name).settled)

    def test_a_block_not_read_twice_settles_nothing_but_the_others(
        self,
    ) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.flip(3)
        with self.failing_reads(3):
            self.scrub_file()
            self.assertEqual(
                (ledgers.Run(3, 1),), self.ledger(self.name).unsettled
            )
            self.flip(7)
            self.scrub_file()
        self.assertEqual({3: UNREADABLE, 7: CORRUPT}, self.bad_blocks())
        self.scrub_file()
        self.assertEqual(
            {3: scrubbing.DOUBTFUL, 7: CORRUPT}, self.bad_blocks()
        )
        self.assertTrue(self.ledger(self.name).suspect)

    def test_a_block_that_was_never_read_was_compared_with_nothing(
        self,
    ) -> None:
        for _scrub in range(2):
            with self.failing_reads(5):
                self.scrub_file()
            self.assertIsNone(self.ledger(self.name).verified)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())

    def test_an_unsteady_block_does_not_hide_another_that_is_bad(
        self,
    ) -> None:
        self.scrub_file()
        self.flip(2)
        self.misread_once(5, touch=True)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_a_checksum_that_was_wrong_for_a_while_is_not_kept(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.scrub_file()
        self.write_sidecar('b' * 40)
        self.assert_corrupt(1)
        self.write_sidecar(self.sha1())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_change_is_not_forgotten_when_it_is_stopped(self) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.assertFalse(self.ledger(self.name).settled)
        self.flip(1)
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(5))
        self.go_on()
        self.scrub_file()
        ledger = self.ledger(self.name)
        self.assertEqual((False, True), (ledger.settled, ledger.suspect))

    def test_a_change_between_first_readings_is_told(self) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.flip(1)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertIn('did not hold the same', self.log.output)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_an_older_checksum_that_is_lost_meanwhile_still_counts(
        self,
    ) -> None:
        self.write_sidecar('f' * 40)
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        os.unlink(self.sidecar)
        self.assertIsNot(Verdict.GOOD, self.scrub_file())
        self.assert_corrupt()
        self.assertEqual('f' * 40, self.read_sidecar())

    def test_it_is_not_good_before_its_checksum_was_compared(self) -> None:
        self.write_sidecar('f' * 40)
        for _restart in range(3):
            self.scrub_file(**self.stop_after(4))
            self.go_on()
            with self.failing_reads(2):
                verdict = self.scrub_file()
            self.assertIsNot(Verdict.GOOD, verdict)

    def test_a_file_that_was_mended_and_matches_its_checksum_is_good(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.flip(2)
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.scrub_file()
        self.flip(2)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual({}, self.bad_blocks())
        self.flip(2)
        self.assert_corrupt(1)
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_a_checksum_made_of_bad_bytes_proves_nothing(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.scrub_file()
        self.flip(2)
        self.assert_corrupt(1)
        self.assertRaises(
            errors.KnownDamage, hook.write_stored_checksum, self.path
        )
        self.write_sidecar(self.sha1())
        self.assert_corrupt()
        self.flip(2)
        self.scrub_file()
        self.assertEqual({}, self.bad_blocks())

    def test_a_misread_of_a_file_that_is_not_settled_gets_into_no_sha1(
        self,
    ) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.misread_once(4)
        self.scrub_file()
        self.scrub_file()
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_rebaselined_is_told_for_ever(self) -> None:
        self.scrub_file()
        job = one_file.Job(
            self.file(self.name),
            knowledge.Knowledge(lost=True),
            rebaselined=1e9,
        )
        os.unlink(self.sidecar)
        os.unlink(self.node.layout.ledger(self.name))
        method = one_file.Method('xxh3_128', self.means, self.node.clock)
        finding = one_file.scrub(job, method)
        self.assertIn('rebaselined on 2001-09-09', finding.note)

    def test_a_file_read_in_its_boot_is_not_suspect_for_being_touched(
        self,
    ) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.assertEqual('', self.scrub(self.name, outlived=True).note)


@ddt.ddt
class NoFaultOfTheFileTest(scrubbing.OneFileTestCase):
    """What fails is not always the file."""

    def test_progress_that_nobody_hears_is_not_an_unreadable_file(
        self,
    ) -> None:
        self.scrub_file()

        def progress(length: int) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

        for ahead in (False, True):
            self.means = self.make_means(progress=progress, ahead=ahead)
            self.assertRaises(errors.Error, self.scrub_file)
        self.go_on()
        self.assertIsNone(self.ledger(self.name).unreadable)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_ledger_that_cannot_be_read_is_not_an_unreadable_file(
        self,
    ) -> None:
        self.scrub_file()

        # Mocked: a disk that fails in just that place.
        def load_blocks(*args: Any) -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with base.patched(ledgers.Ledger, 'load_blocks', load_blocks):
            finding = self.scrub(self.name)
        self.assertIs(Verdict.UNKNOWN, finding.verdict)
        self.assertTrue(finding.problem)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_file_that_was_replaced_is_not_called_unreadable(self) -> None:
        def fail() -> None:
            os.unlink(self.path)
            self.node.add_base(self.name, data=b'other bytes')
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        self.before_read(3, fail)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.UNKNOWN, finding.verdict)

    def test_a_disk_that_fails_is_spared_when_the_ledger_is_lost_too(
        self,
    ) -> None:
        self.scrub_file()
        os.truncate(self.node.layout.ledger(self.name), 50)
        with self.failing_reads(0, 1, 2, 3, 4):
            self.assertIs(Verdict.UNREADABLE, self.scrub_file())
        self.assertIs(
            Verdict.UNREADABLE, self.known(self.name).finding.verdict
        )
        self.assertIsNotNone(self.ledger(self.name).attempted)
        # The rest of it, and then all of it.
        self.scrub_file()
        self.assertIs(Verdict.GOOD, self.scrub_file())

    @ddt.data(True, False)
    def test_a_file_that_cannot_be_opened_and_lost_digests_launder_nothing(
        self, with_sha1: bool
    ) -> None:
        if not with_sha1:
            self.scrub_file(**self.stop_after(4))
            self.go_on()
        self.scrub_file()
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        record = self.node.layout.ledger(self.name)
        nodes.flip_bit(record, os.path.getsize(record) - 1)

        # Mocked: another user's file takes root.
        def open_regular(path: str) -> int:
            if path == self.path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path)

        real = identity.open_regular
        with base.patched(identity, 'open_regular', open_regular):
            self.scrub_file()
        for _scrub in range(3):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())

    @ddt.data(True, False)
    def test_one_misread_is_no_corruption_where_the_sha1_alone_tells(
        self, first: bool
    ) -> None:
        self.write_sidecar(self.sha1())
        if not first:
            self.scrub_file()
            record = self.node.layout.ledger(self.name)
            nodes.flip_bit(record, os.path.getsize(record) - 1)
        self.misread_once(4)
        finding = self.scrub(self.name)
        self.assertIsNot(Verdict.CORRUPT, finding.verdict)
        self.assertIn('came out differently', finding.note)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_proof_ends_when_its_file_has_gone(self) -> None:
        self.write_sidecar('f' * 40)
        self.scrub_file()
        self.before_read(1, lambda: os.unlink(self.path))
        reads = self.note_reads()
        self.scrub_file(checkpoint_seconds=0)
        self.assertEqual(2, len(reads))

    def test_a_checksum_of_a_clock_that_was_ahead_does_not_cross_over(
        self,
    ) -> None:
        self.scrub_file()
        os.unlink(self.path)
        self.node.add_base(self.name, data=b'other bytes')

        real = identity.stat_of_fd

        # Mocked: a birth time cannot be set.
        def stat_of_fd(fd: int) -> identity.Stat:
            stat = real(fd)
            if os.readlink(f'/proc/self/fd/{fd}') != self.sidecar:
                return stat
            late = stat.incarnation._replace(born=2**62)
            return stat._replace(incarnation=late)

        with base.patched(identity, 'stat_of_fd', stat_of_fd):
            self.assertIs(Verdict.UNKNOWN, self.scrub_file())
            self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_cache_that_was_moved_is_compared_with_its_checksums(
        self,
    ) -> None:
        self.scrub_file()
        self.flip(2)
        known = self.read_sidecar()
        # As rsync does: other files, the checksum after its base file.
        for path in (self.path, self.sidecar):
            shutil.copy2(path, path + '.part')
            os.rename(path + '.part', path)
        self.assertIs(Verdict.DIFFERS, self.scrub_file())
        self.assertEqual(known, self.read_sidecar())
