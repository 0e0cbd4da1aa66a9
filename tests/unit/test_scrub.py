# SPDX-License-Identifier: Apache-2.0

"""One file, scrubbed again and again while all kinds of things happen."""

from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import threading
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import locks
from nova_imagecache.content import digests
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache import errors
from nova_imagecache import hook
from nova_imagecache import names
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import readers
from tests import base
from tests import scrubbing
from tests.unit import test_cache

BLOCK = scrubbing.BLOCK
CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
Verdict = scrubbing.Verdict

COUNT = 10
SIZE = COUNT * BLOCK - 777


class OneFileTestCase(scrubbing.ScrubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = random.Random(7).randbytes(SIZE)
        self.name = self.node.add_image('image', data=self.data)
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'

    def flip(self, block: int) -> None:
        base.flip_bit(self.path, block * BLOCK + 100)

    def write_sidecar(self, text: str) -> None:
        with open(self.sidecar, 'w') as file:
            file.write(text)

    def read_sidecar(self) -> str:
        with open(self.sidecar) as file:
            return file.read()

    def sha1(self) -> str:
        with open(self.path, 'rb') as file:
            return hashlib.sha1(file.read()).hexdigest()

    def scrub_file(self, **method: Any) -> scrubbing.Verdict:
        return self.scrub(self.name, **method).verdict

    def bad_blocks(self) -> dict[int, ledgers.Damage]:
        return self.bad(self.name)

    def touch_while_reading(self, number: int = 1) -> None:
        """Let a guest start meanwhile, which touches its base file."""
        self.before_read(number, lambda: os.utime(self.path))

    def fail_reads(self, *blocks: int) -> None:
        """Let reading these blocks fail from now on."""
        real = readers.Reader._read_into

        # Mocked here; tests/functional has a disk that fails.
        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            if offset // BLOCK in blocks:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(reader, buffer, offset)

        self.patch(readers.Reader, '_read_into', read_into)

    def misread_once(self, block: int, touch: bool = False) -> list[int]:
        """Let a block be misread once; give the offsets that were."""
        real = readers.Reader._read_into
        spoilt: list[int] = []

        # Mocked: a cable or a memory that flips a bit on the way.
        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            if touch:
                os.utime(self.path)
            got = real(reader, buffer, offset)
            if offset // BLOCK == block and not spoilt:
                spoilt.append(offset)
                buffer[9] ^= 1
            return got

        self.patch(readers.Reader, '_read_into', read_into)
        return spoilt

    @contextlib.contextmanager
    def patched_reads(self, *blocks: int) -> Iterator[None]:
        real = readers.Reader._read_into
        with base.patched(readers.Reader, '_read_into', real):
            self.fail_reads(*blocks)
            yield


@ddt.ddt
class FirstReadingTest(OneFileTestCase):
    def test_it_gives_the_digests_and_what_sha1sum_says(self) -> None:
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        printed = subprocess.check_output(['sha1sum', self.path], text=True)
        self.assertEqual(printed.split()[0], self.read_sidecar())
        ledger = self.ledger(self.name)
        self.assertEqual(
            (SIZE, BLOCK, 'xxh3_128', True),
            (
                ledger.size,
                ledger.block_size,
                ledger.algorithm,
                ledger.settled,
            ),
        )
        blocks = ledger.load_blocks(self.file(self.name))
        self.assertNotIn(None, [blocks.get(i) for i in range(COUNT)])

    def test_a_sparse_file_has_the_sha1_that_sha1sum_gives(self) -> None:
        os.truncate(self.path, 100 * base.MIB + 1)
        self.scrub_file()
        printed = subprocess.check_output(['sha1sum', self.path], text=True)
        self.assertEqual(printed.split()[0], self.read_sidecar())

    def test_what_is_in_memory_only_is_written_to_the_disk_first(
        self,
    ) -> None:
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(os.readlink(f'/proc/self/fd/{fd}'))
            real(fd)

        self.patch(os, 'fsync', fsync)
        self.scrub_file()
        self.assertEqual(self.path, synced[0])
        synced.clear()
        self.scrub_file()
        self.assertNotIn(self.path, synced)

    def test_the_second_reading_makes_it_good(self) -> None:
        self.scrub_file()
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual({}, self.bad_blocks())

    def test_a_stopped_one_goes_on_and_has_its_sha1_later(self) -> None:
        self.scrub_file(**self.stop_after(4))
        ledger = self.ledger(self.name)
        self.assertEqual((4, None), (ledger.position, ledger.read))
        self.assertFalse(os.path.exists(self.sidecar))
        self.go_on()
        reads: list[int] = []
        real = readers.Reader._read_into

        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            reads.append(offset // BLOCK)
            return real(reader, buffer, offset)

        self.patch(readers.Reader, '_read_into', read_into)
        self.scrub_file()
        self.assertEqual(list(range(4, COUNT)), reads)
        self.assertIsNotNone(self.ledger(self.name).read)
        self.assertFalse(os.path.exists(self.sidecar))
        # The next one is uninterrupted.
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_one_that_is_stopped_each_time_still_gets_its_ledger(
        self,
    ) -> None:
        for _restart in range(COUNT + 1):
            self.scrub_file(**self.stop_after(1))
        self.assertIsNotNone(self.ledger(self.name).read)
        self.go_on()
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({3: CORRUPT}, self.bad_blocks())

    def test_a_checksum_of_an_older_manager_is_what_it_has_to_match(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_one_that_differs_is_corruption_and_no_new_baseline(self) -> None:
        good = self.sha1()
        self.write_sidecar(good)
        self.flip(3)
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertIs(Verdict.CORRUPT, finding.verdict)
            self.assertIn(good, finding.note)
        self.assertEqual(good, self.read_sidecar())
        self.flip(3)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        # And now its blocks are known.
        self.flip(5)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({5: CORRUPT}, self.bad_blocks())

    def test_an_interrupted_one_is_compared_with_it_later(self) -> None:
        self.write_sidecar(self.sha1())
        self.flip(3)
        self.scrub_file(**self.stop_after(5))
        self.go_on()
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_a_file_made_in_an_earlier_boot_is_suspect_for_ever(self) -> None:
        self.assertIn('suspect', self.scrub(self.name, outlived=True).note)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_an_older_checksum_vouches_for_it(self) -> None:
        self.write_sidecar(self.sha1())
        self.assertEqual('', self.scrub(self.name, outlived=True).note)

    def test_an_older_checksum_vouches_for_an_interrupted_one_later(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.scrub(self.name, outlived=True, **self.stop_after(4))
        self.go_on()
        for _scrub in range(2):
            self.assertEqual('', self.scrub(self.name, outlived=True).note)
        self.assertIs(Verdict.GOOD, self.known(self.name).finding.verdict)

    def test_a_suspect_stays_one_when_its_ledger_is_lost(self) -> None:
        self.scrub(self.name, outlived=True)
        os.unlink(self.node.layout.ledger(self.name))
        job = one_file.Job(
            self.file(self.name), self.known(self.name), suspect=True
        )
        method = one_file.Method('xxh3_128', self.means, self.node.clock)
        finding = one_file.scrub(job, method)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertIn('suspect', finding.note)

    def test_a_reading_asked_for_begins_at_the_start(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        job = one_file.Job(
            self.file(self.name), self.known(self.name), afresh=True
        )
        method = one_file.Method('xxh3_128', self.means, self.node.clock)
        one_file.scrub(job, method)
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_a_lost_ledger_and_checksum_are_told_for_ever(self) -> None:
        self.scrub_file()
        os.unlink(self.sidecar)
        os.truncate(self.node.layout.ledger(self.name), 50)
        for _scrub in range(3):
            self.assertIn('rebaselined on 20', self.scrub(self.name).note)

    def test_the_image_is_remembered(self) -> None:
        job = one_file.Job(
            self.file(self.name), self.known(self.name), image='an image'
        )
        method = one_file.Method('sha256', readers.Means(), self.node.clock)
        one_file.scrub(job, method)
        self.scrub_file()
        self.assertEqual('an image', self.ledger(self.name).image)

    @ddt.data(0, 1, 4095, BLOCK, BLOCK + 1, 3 * BLOCK)
    def test_files_of_any_size_are_good(self, size: int) -> None:
        os.truncate(self.path, size)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())


@ddt.ddt
class TouchedTest(OneFileTestCase):
    """A file is touched while it is first read, or written to."""

    def test_a_touched_one_gets_no_checksum_until_it_is_read_again(
        self,
    ) -> None:
        self.touch_while_reading()
        finding = self.scrub(self.name)
        self.assertIn('read again', finding.note)
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_one_that_is_touched_all_the_time_does_not_escape(self) -> None:
        real = readers.Reader._read_into

        def read_into(reader: Any, *args: Any) -> int:
            os.utime(self.path)
            return real(reader, *args)

        self.patch(readers.Reader, '_read_into', read_into)
        self.scrub_file()
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_one_that_is_written_to_is_not_called_corrupt(self) -> None:
        self.before_read(5, lambda: self.flip(1))
        self.scrub_file()
        finding = self.scrub(self.name)
        self.assertIs(Verdict.UNKNOWN, finding.verdict)
        self.assertEqual({}, self.bad_blocks())
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_one_that_grows_gets_no_ledger(self) -> None:
        def grow() -> None:
            os.truncate(self.path, SIZE + 10)

        self.before_read(5, grow)
        finding = self.scrub(self.name)
        self.assertIn('written to', finding.note)
        self.assertTrue(finding.problem)
        self.assertIsNone(self.known(self.name).ledger)
        self.scrub_file()
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_touch_while_it_was_stopped_counts_too(self) -> None:
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        os.utime(self.path, (1, 1))
        self.assertIn('read again', self.scrub(self.name).note)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_settled_one_may_be_touched_at_will(self) -> None:
        self.scrub_file()
        self.touch_while_reading()
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_checksum_it_matches_makes_it_sure_at_once(self) -> None:
        self.write_sidecar(self.sha1())
        self.touch_while_reading()
        self.assertIs(Verdict.GOOD, self.scrub_file())


@ddt.ddt
class DamageTest(OneFileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.scrub_file()
        self.known_sha1 = self.read_sidecar()

    @ddt.data(0, 5, COUNT - 1)
    def test_the_bad_block_is_named_with_its_bytes(self, block: int) -> None:
        self.flip(block)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual({block: CORRUPT}, self.bad_blocks())
        end = min((block + 1) * BLOCK, SIZE) - 1
        self.assertIn(f'bytes {block * BLOCK}-{end} are corrupt', finding.note)

    def test_it_stays_bad_until_it_is_read_good(self) -> None:
        self.flip(3)
        self.scrub_file()
        self.scrub_file()
        self.assertIs(Verdict.CORRUPT, self.known(self.name).finding.verdict)
        self.flip(3)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual({}, self.bad_blocks())

    def test_a_bad_block_keeps_its_old_digest(self) -> None:
        before = (
            self.ledger(self.name).load_blocks(self.file(self.name)).get(3)
        )
        self.flip(3)
        for _scrub in range(3):
            self.scrub_file()
        after = self.ledger(self.name).load_blocks(self.file(self.name)).get(3)
        self.assertEqual(before, after)
        self.assertEqual(self.known_sha1, self.read_sidecar())

    def test_a_file_cut_short_has_lost_the_blocks_past_its_end(self) -> None:
        os.truncate(self.path, 7 * BLOCK + 5)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual(
            dict.fromkeys(range(7, COUNT), CORRUPT), self.bad_blocks()
        )

    def test_a_file_cut_short_at_a_block_is_found_even_if_zeros_are_lost(
        self,
    ) -> None:
        name = self.node.add_image('zeros', data=b'x', size=4 * BLOCK)
        self.scrub(name)
        os.truncate(self.node.base_path(name), 2 * BLOCK)
        self.assertIs(Verdict.CORRUPT, self.scrub(name).verdict)
        self.assertEqual({2: CORRUPT, 3: CORRUPT}, self.bad(name))

    def test_a_file_that_has_grown_is_corrupt_from_its_old_end(self) -> None:
        os.truncate(self.path, (COUNT + 1) * BLOCK)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual(
            {COUNT - 1: CORRUPT, COUNT: CORRUPT}, self.bad_blocks()
        )
        os.truncate(self.path, SIZE)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_file_cut_short_after_its_end_was_read_is_found(self) -> None:

        class Killed(BaseException):
            pass

        def conclude(*args: Any) -> Any:
            raise Killed

        with base.patched(conclusions, 'conclude', conclude):
            self.assertRaises(Killed, self.scrub_file, checkpoint_seconds=0)
        self.assertEqual(COUNT, self.ledger(self.name).position)
        os.truncate(self.path, 7 * BLOCK + 5)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual(
            dict.fromkeys(range(7, COUNT), CORRUPT), self.bad_blocks()
        )

    def test_a_hole_where_there_was_data_is_corruption(self) -> None:
        subprocess.run(
            ['fallocate', '-p', '-o', str(2 * BLOCK), '-l', str(BLOCK),
             self.path],
            check=True,
        )  # fmt: skip
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_only_content_decides_and_no_hole_map(self) -> None:
        data = b'x' * BLOCK + bytes(5 * BLOCK) + b'y' * BLOCK
        name = self.node.add_image('sparse', data=data)
        path = self.node.base_path(name)
        self.scrub(name)
        subprocess.run(['fallocate', '-d', path], check=True)
        self.assertLess(os.stat(path).st_blocks * 512, 7 * BLOCK)
        self.assertIs(Verdict.GOOD, self.scrub(name).verdict)
        self.overwrite(name, 0, data)
        self.assertEqual(os.stat(path).st_blocks * 512, 7 * BLOCK)
        self.assertIs(Verdict.GOOD, self.scrub(name).verdict)

    def test_a_mismatch_that_is_gone_when_read_again_is_none(self) -> None:
        spoilt = self.misread_once(4)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual([4 * BLOCK], spoilt)
        self.assertIn('came out differently', self.log.output)

    def test_a_sha1_with_a_misread_in_it_is_not_stored(self) -> None:
        os.unlink(self.sidecar)
        os.unlink(self.node.layout.ledger(self.name))
        self.scrub_file(**self.stop_after(2))
        self.go_on()
        self.scrub_file()
        self.test_a_mismatch_that_is_gone_when_read_again_is_none()
        self.assertFalse(os.path.exists(self.sidecar))
        self.scrub_file()
        self.assertEqual(self.known_sha1, self.read_sidecar())

    def test_the_second_reading_is_later_and_to_other_memory(self) -> None:
        self.flip(1)
        buffers: list[tuple[int, Any]] = []
        real = readers.Reader._read_into

        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            buffers.append((offset // BLOCK, reader._buffers[0]))
            return real(reader, buffer, offset)

        self.patch(readers.Reader, '_read_into', read_into)
        self.scrub_file()
        self.assertEqual(
            [*range(COUNT), 1], [block for block, _buffer in buffers]
        )
        self.assertIsNot(buffers[1][1], buffers[-1][1])

    def test_a_suspect_is_not_lost_when_it_is_stopped_first(self) -> None:
        self.flip(1)
        self.scrub_file(**self.stop_after(5))
        ledger = self.ledger(self.name)
        self.assertEqual((1, ()), (ledger.position, ledger.bad))
        self.go_on()
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({1: CORRUPT}, self.bad_blocks())

    def test_a_checkpoint_keeps_what_was_found_so_far(self) -> None:
        self.flip(1)
        self.flip(8)
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(5))
        ledger = self.ledger(self.name)
        self.assertEqual({1: CORRUPT}, ledgers.spread(ledger.bad))
        self.assertEqual(5, ledger.position)
        self.assertIs(Verdict.CORRUPT, self.known(self.name).finding.verdict)
        self.go_on()
        self.scrub_file()
        self.assertEqual({1: CORRUPT, 8: CORRUPT}, self.bad_blocks())

    def test_a_wrong_checksum_does_not_hide_where_the_damage_is(self) -> None:
        self.write_sidecar('f' * 40)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.flip(6)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({6: CORRUPT}, self.bad_blocks())


@ddt.ddt
class KnowledgeLostTest(OneFileTestCase):
    """Ledgers that are damaged, foreign or of the future."""

    def setUp(self) -> None:
        super().setUp()
        self.scrub_file()
        self.record = self.node.layout.ledger(self.name)

    def spoil_payload(self) -> None:
        base.flip_bit(self.record, os.path.getsize(self.record) - 1)

    def spoil_line(self) -> None:
        base.flip_bit(self.record, 30)

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

    @ddt.data(
        {'version': 3}, {'version': 1}, {'kind': 'state'}, {'sealed': []}
    )
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
class LaunderingTest(OneFileTestCase):
    """Ways in which damage could become what a file should hold."""

    def spoil_payload(self) -> None:
        record = self.node.layout.ledger(self.name)
        base.flip_bit(record, os.path.getsize(record) - 1)

    def assert_corrupt(self, times: int = 3) -> None:
        for _scrub in range(times):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_digests_lost_and_a_block_that_cannot_be_read(self) -> None:
        self.scrub_file()
        self.spoil_payload()
        self.flip(2)
        verified = self.ledger(self.name).verified
        with self.patched_reads(5):
            self.scrub_file()
        # Nothing was compared with anything.
        self.assertEqual(verified, self.ledger(self.name).verified)
        self.assert_corrupt()

    def test_digests_lost_and_a_touch_each_time(self) -> None:
        self.scrub_file()
        self.spoil_payload()
        self.flip(2)
        real = readers.Reader._read_into

        def read_into(reader: Any, *args: Any) -> int:
            os.utime(self.path)
            return real(reader, *args)

        self.patch(readers.Reader, '_read_into', read_into)
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

    def test_a_write_between_two_legs_is_no_corruption_later(self) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(5))
        self.go_on()
        with open(self.path, 'r+b') as file:
            file.seek(2 * BLOCK)
            file.write(b'other bytes')
        for _scrub in range(4):
            self.assertIsNot(Verdict.CORRUPT, self.scrub_file())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_block_not_read_twice_settles_nothing(self) -> None:
        self.touch_while_reading(9)
        self.scrub_file()
        self.flip(3)
        with self.patched_reads(3):
            self.scrub_file()
        self.assertFalse(self.ledger(self.name).settled)

    def test_a_block_that_was_never_read_was_compared_with_nothing(
        self,
    ) -> None:
        for _scrub in range(2):
            with self.patched_reads(5):
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
            with self.patched_reads(2):
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
class NoFaultOfTheFileTest(OneFileTestCase):
    """What fails is not always the file."""

    def test_progress_that_nobody_hears_is_not_an_unreadable_file(
        self,
    ) -> None:
        self.scrub_file()

        def progress(length: int) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

        for ahead in (False, True):
            self.means = readers.Means(progress=progress, ahead=ahead)
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
        with self.patched_reads(0, 1, 2, 3, 4):
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
        base.flip_bit(record, os.path.getsize(record) - 1)

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
            base.flip_bit(record, os.path.getsize(record) - 1)
        self.misread_once(4)
        finding = self.scrub(self.name)
        self.assertIsNot(Verdict.CORRUPT, finding.verdict)
        self.assertIn('came out differently', finding.note)
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_proof_ends_when_its_file_has_gone(self) -> None:
        self.write_sidecar('f' * 40)
        self.scrub_file()
        reads: list[int] = []
        real = readers.Reader._read_into

        def read_into(reader: Any, buffer: Any, offset: int) -> int:
            reads.append(offset)
            if len(reads) == 2:
                os.unlink(self.path)
            return real(reader, buffer, offset)

        self.patch(readers.Reader, '_read_into', read_into)
        self.scrub_file(checkpoint_seconds=0)
        self.assertEqual(2, len(reads))

    def test_a_checksum_of_a_clock_that_was_ahead_does_not_cross_over(
        self,
    ) -> None:
        self.scrub_file()
        os.unlink(self.path)
        self.node.add_base(self.name, data=b'other bytes')

        # Mocked: a birth time cannot be set.
        def born_after(*args: Any) -> bool:
            return True

        with base.patched(sidecars, '_born_after', born_after):
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
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual(known, self.read_sidecar())


class AlgorithmTest(OneFileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.scrub_file()

    def algorithm(self) -> str:
        return self.ledger(self.name).algorithm

    def test_it_changes_with_the_reading_that_compares_the_old_digests(
        self,
    ) -> None:
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('sha256', self.algorithm())
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file(algorithm='sha256'))
        self.assertEqual({3: CORRUPT}, self.bad_blocks())

    def test_damage_keeps_the_old_digests_until_it_is_gone(self) -> None:
        self.flip(3)
        for _scrub in range(2):
            self.assertIs(Verdict.CORRUPT, self.scrub_file(algorithm='sha256'))
            self.assertEqual('xxh3_128', self.algorithm())
        self.flip(3)
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('sha256', self.algorithm())

    def test_a_stopped_change_waits_for_the_next_reading(self) -> None:
        self.scrub_file(algorithm='sha256', **self.stop_after(4))
        self.go_on()
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('xxh3_128', self.algorithm())
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))
        self.assertEqual('sha256', self.algorithm())

    def test_a_misread_gets_into_no_new_digest(self) -> None:
        self.misread_once(0)
        self.scrub_file(algorithm='sha256')
        self.assertEqual('sha256', self.algorithm())
        self.assertIs(Verdict.GOOD, self.scrub_file(algorithm='sha256'))

    def test_each_algorithm_finds_a_flipped_bit(self) -> None:
        for algorithm in digests.ALGORITHMS:
            self.assertIs(Verdict.GOOD, self.scrub_file(algorithm=algorithm))
            self.assertEqual(algorithm, self.algorithm())
            self.flip(7)
            self.assertIs(
                Verdict.CORRUPT, self.scrub_file(algorithm=algorithm)
            )
            self.flip(7)
            self.assertIs(Verdict.GOOD, self.scrub_file(algorithm=algorithm))


class UnreadableTest(OneFileTestCase):
    def test_a_block_that_cannot_be_read_is_named_and_the_rest_checked(
        self,
    ) -> None:
        self.scrub_file()
        self.flip(6)
        self.fail_reads(2)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual({2: UNREADABLE, 6: CORRUPT}, self.bad_blocks())
        self.assertIn(
            f'bytes {2 * BLOCK}-{3 * BLOCK - 1} are unreadable', finding.note
        )

    def test_a_file_is_left_after_a_few_errors_and_gone_on_with_later(
        self,
    ) -> None:
        self.scrub_file()
        with self.patched_reads(1, 2, 3, 4):
            finding = self.scrub(self.name)
        self.assertIs(Verdict.UNREADABLE, finding.verdict)
        self.assertIn('left for later', finding.note)
        self.assertEqual(
            dict.fromkeys([1, 2, 3], UNREADABLE), self.bad_blocks()
        )
        self.assertEqual(4, self.ledger(self.name).position)
        self.scrub_file()
        # What was not read again is still unreadable.
        self.assertEqual(
            dict.fromkeys([1, 2, 3], UNREADABLE), self.bad_blocks()
        )
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_block_never_read_is_learnt_when_it_can_be(self) -> None:
        with self.patched_reads(2):
            self.assertIs(Verdict.UNREADABLE, self.scrub_file())
        self.assertFalse(os.path.exists(self.sidecar))
        # There was nothing to compare with, for a part of it.
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_what_is_corrupt_stays_so_when_it_cannot_be_read(self) -> None:
        self.scrub_file()
        self.flip(2)
        self.scrub_file()
        with self.patched_reads(2):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_a_file_that_cannot_be_opened_keeps_its_digests(self) -> None:
        self.scrub_file()
        os.chmod(self.path, 0)
        for directory in (
            self.node.layout.instances, self.node.layout.base,
            self.node.layout.own, self.node.layout.ledgers,
            self.node.layout.temporary, self.node.layout.locks,
        ):  # fmt: skip
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, 0o777)
        lock = os.path.join(self.node.layout.locks, f'nova-{self.name}')
        os.chmod(lock, 0o666)
        with base.unprivileged():
            finding = self.scrub(self.name)
        self.assertIs(Verdict.UNREADABLE, finding.verdict)
        os.chmod(self.path, 0o644)
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())


class IncarnationTest(OneFileTestCase):
    """Deleted and fetched anew, at every moment of a scrub."""

    def replace(self) -> None:
        """Do as stock Nova: the checksum stays, the bytes are others."""
        os.unlink(self.path)
        # ext4 and xfs give the inode to the next file.
        data = random.Random(99).randbytes(SIZE)
        self.node.add_base(self.name, data=data)

    def lock_is_free(self) -> bool:
        """Whether Nova could remove the file and fetch another now."""
        try:
            with locks.nova_lock(self.node.layout, self.name, blocking=False):
                return True
        except errors.Locked:
            return False

    def check(self, moment: tuple[Any, str], prepared: int) -> None:
        """Replace the file at one moment; no verdict may cross over."""
        owner, function = moment
        for _scrub in range(prepared):
            self.scrub_file()
        real = getattr(owner, function)
        done: list[None] = []

        def hooked(*args: Any, **kwargs: Any) -> Any:
            if not done and self.lock_is_free():
                done.append(None)
                self.replace()
            return real(*args, **kwargs)

        with base.patched(owner, function, hooked):
            self.scrub_file()
        # Whatever was noted, it is not of the file that is there now.
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertIsNot(Verdict.CORRUPT, finding.verdict, str(moment))
            self.assertNotIn('rebaselined', finding.note)
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_no_verdict_ever_crosses_over(self) -> None:
        for prepared in (0, 1, 2):
            for moment in MOMENTS:
                for trace in (self.path, self.sidecar):
                    if os.path.exists(trace):
                        os.unlink(trace)
                self.node.add_base(self.name, data=self.data)
                self.check(moment, prepared)

    def test_known_damage_does_not_cross_over_either(self) -> None:
        self.scrub_file()
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.replace()
        self.assertIs(Verdict.UNKNOWN, self.known(self.name).finding.verdict)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())


MOMENTS: list[tuple[Any, str]] = [
    (os, 'open'), (os, 'fsync'), (os, 'preadv'), (os, 'lseek'),
    (os, 'rename'), (os, 'close'), (ledgers.Ledger, 'load'),
    (ledgers.Ledger, 'save'), (ledgers.Ledger, 'load_blocks'),
    (conclusions, 'conclude'), (sidecars, 'save'),
    (base_file.BaseFile, 'guard'), (base_file.BaseFile, 'same'),
]  # fmt: skip


@ddt.ddt
class LockTest(OneFileTestCase):
    def test_a_file_that_is_being_fetched_is_not_read(self) -> None:
        self.useFixture(
            test_cache.NovaProcess(self.node.layout.locks, self.name)
        )
        self.before_read(0, lambda: self.fail('it was read'))
        finding = self.scrub(self.name)
        self.assertTrue(finding.skipped)
        self.assertIn('lock', finding.note)

    def test_its_lock_is_free_while_it_is_read(self) -> None:
        def take() -> None:
            holder = test_cache.NovaProcess(self.node.layout.locks, self.name)
            holder.setUp()
            holder.cleanUp()

        self.before_read(3, take)
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())

    def test_a_lock_held_at_the_end_costs_the_ledger_and_no_verdict(
        self,
    ) -> None:
        self.scrub_file()
        self.flip(3)

        def hold() -> None:
            self.useFixture(
                test_cache.NovaProcess(self.node.layout.locks, self.name)
            )

        self.before_read(3, hold)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertIn('cannot be kept', self.log.output)

    def test_a_lock_that_is_free_in_a_moment_is_waited_for(self) -> None:
        holder = test_cache.NovaProcess(self.node.layout.locks, self.name)

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                holder.cleanUp()
                return False

        self.before_read(3, holder.setUp)
        self.means = readers.Means(stop=Stop())
        self.scrub_file(patience=3600)
        self.assertTrue(os.path.exists(self.sidecar))


class RandomDamageTest(scrubbing.ScrubTestCase):
    """Any damage, in files of any kind: all of it is found, and no other."""

    ROUNDS = 90
    PER_ROUND = 16

    def images(self) -> dict[str, str]:
        """Make a base file of each kind; give their paths by kind."""
        sha = names.get_cache_fname('image')
        size = 40 * BLOCK
        paths = {
            'original': self.node.add_base(
                sha, data=random.Random(1).randbytes(size - 12345)
            )
        }
        for kind, name in (
            ('qcow2', names.get_cache_fname('qcow2')),
            ('resized', f'{sha}_{2 * size}'),
            ('swap', 'swap_2'),
            ('ephemeral', 'ephemeral_1_0706d66'),
            ('legacy', f'{sha}_sm'),
            ('vmdk', names.get_cache_fname('vmdk')),
        ):
            paths[kind] = self.node.base_path(name)
        environment = dict(os.environ)
        environment['PATH'] += ':/usr/sbin:/sbin'
        for form in ('qcow2', 'vmdk'):
            base.qemu_img(
                'convert', '-f', 'raw', '-O', form, paths['original'],
                paths[form],
            )  # fmt: skip
        for command in (
            ['cp', paths['original'], paths['resized']],
            ['truncate', '-s', str(2 * size), paths['resized']],
            ['cp', paths['original'], paths['legacy']],
            ['truncate', '-s', str(size), paths['swap']],
            ['truncate', '-s', str(32 * BLOCK), paths['ephemeral']],
            ['mkswap', paths['swap']],
            ['mkfs.ext4', '-q', '-F', paths['ephemeral']],
        ):
            subprocess.run(
                command, check=True, capture_output=True, env=environment
            )
        return paths

    def damage(
        self, generator: random.Random, data: bytearray, size: int
    ) -> None:
        """Do one damage to a copy of a file's content."""
        kind = generator.choice(['flip', 'flip', 'flip', 'zeros', 'swap'])
        offset = generator.randrange(size)
        if kind == 'flip':
            data[offset] ^= 1 << generator.randrange(8)
        elif kind == 'zeros':
            page = offset - offset % 4096
            end = min(page + 4096, size)
            data[page:end] = bytes(end - page)
        else:
            first, second = (
                generator.randrange(size // BLOCK) * BLOCK for _i in range(2)
            )
            kept = data[first : first + BLOCK]
            data[first : first + BLOCK] = data[second : second + BLOCK]
            data[second : second + BLOCK] = kept

    def test_ten_thousand_damages(self) -> None:
        generator = random.Random(2012)
        damages = 0
        for kind, path in self.images().items():
            name = os.path.basename(path)
            with open(path, 'rb') as file:
                sound = file.read()
            self.scrub(name)
            self.assertIs(Verdict.GOOD, self.scrub(name).verdict, kind)
            for _round in range(self.ROUNDS):
                spoilt = bytearray(sound)
                for _damage in range(self.PER_ROUND):
                    self.damage(generator, spoilt, len(sound))
                damages += self.PER_ROUND
                if generator.randrange(10) == 0:
                    del spoilt[generator.randrange(len(sound)) :]
                    damages += 1
                with open(path, 'r+b') as file:
                    file.write(spoilt)
                    file.truncate()
                expected = {
                    block
                    for block in range(-(-len(sound) // BLOCK))
                    if sound[block * BLOCK : (block + 1) * BLOCK]
                    != spoilt[block * BLOCK : (block + 1) * BLOCK]
                }
                finding = self.scrub(name)
                found = set(self.bad(name))
                self.assertEqual(expected, found, kind)
                self.assertIs(
                    Verdict.CORRUPT if expected else Verdict.GOOD,
                    finding.verdict,
                )
                with open(path, 'r+b') as file:
                    file.write(sound)
            self.assertIs(Verdict.GOOD, self.scrub(name).verdict)
        self.assertGreater(damages, 10000)


class LedgerTest(base.TestCase):
    @hypothesis.given(
        st.dictionaries(
            st.integers(0, 300), st.sampled_from(list(ledgers.Damage))
        )
    )
    def test_bad_blocks_in_a_row_are_put_together_and_apart_again(
        self, bad: dict[int, ledgers.Damage]
    ) -> None:
        runs = ledgers.gather(bad)
        self.assertEqual(bad, ledgers.spread(runs))
        for left, right in itertools.pairwise(runs):
            self.assertLess(left.first, right.first)
            together = left.first + left.count == right.first
            self.assertFalse(together and left.damage == right.damage)

    def test_ranges_end_where_the_file_does(self) -> None:
        ledger = dataclasses.replace(
            ledgers.Ledger.begin((1, None, None), 9 * base.MIB, 'xxh3_128'),
            bad=ledgers.gather({0: CORRUPT, 2: CORRUPT}),
        )
        mib = base.MIB
        self.assertEqual(
            [(0, 4 * mib), (8 * mib, 9 * mib)],
            [(each.start, each.end) for each in ledger.bad_ranges],
        )
        # It goes on where it should have ended.
        grown = dataclasses.replace(
            ledger, bad=ledgers.gather({2: CORRUPT, 3: CORRUPT})
        )
        self.assertEqual(
            [(8 * mib, 16 * mib)],
            [(each.start, each.end) for each in grown.bad_ranges],
        )
