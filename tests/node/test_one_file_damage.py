# SPDX-License-Identifier: Apache-2.0

"""Damage in one file: what is found, named and remembered."""

import ctypes
import errno
import os
import random
import subprocess
from typing import Any

import ddt

from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import names
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import limiters
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

COUNT = scrubbing.COUNT
SIZE = scrubbing.SIZE
BLOCK = scrubbing.BLOCK
CORRUPT = scrubbing.CORRUPT
UNREADABLE = scrubbing.UNREADABLE
Verdict = scrubbing.Verdict


@ddt.ddt
class DamageTest(scrubbing.OneFileTestCase):
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

    def test_a_block_that_is_bad_each_time_is_no_misread(self) -> None:
        self.flip(4)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertNotIn('came out differently', self.log.output)

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
        reads: list[tuple[int, Any]] = []
        real = self.pread

        def pread(fd: int, buffers: Any, offset: int) -> int:
            reads.append((offset // BLOCK, buffers[0]))
            return real(fd, buffers, offset)

        self.pread = pread
        self.scrub_file()
        self.assertEqual(
            [*range(COUNT), 1], [block for block, _buffer in reads]
        )
        first, second = (
            ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            for _block, buffer in (reads[1], reads[-1])
        )
        self.assertNotEqual(first, second)

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


class UnreadableTest(scrubbing.OneFileTestCase):
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

    def test_one_that_differs_and_fails_when_read_again_is_bad(self) -> None:
        self.scrub_file()
        self.flip(2)
        self.flip(6)
        real = self.pread
        read: list[int] = []

        # Mocked: a sector that goes between two reads.
        def pread(fd: int, buffers: Any, offset: int) -> int:
            block = offset // BLOCK
            read.append(block)
            if block == 2 and read.count(2) > 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset)

        self.pread = pread
        self.scrub_file(checkpoint_seconds=0)
        self.assertEqual({2: UNREADABLE, 6: CORRUPT}, self.bad_blocks())
        self.assertEqual({*range(COUNT)}, {*read})

    def test_that_is_said_also_while_its_lock_is_held(self) -> None:
        self.scrub_file()

        def hold() -> None:
            self.useFixture(
                processes.NovaProcess(self.node.layout.locks, self.name)
            )

        self.fail_reads(2, 3, 4, 5)
        self.before_read(1, hold)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.UNREADABLE, finding.verdict)
        assert finding.history is not None
        self.assertIsNotNone(finding.history.damage)

    def test_an_error_within_a_block_costs_that_block_alone(self) -> None:
        """A block is read in pieces, and not each fails at its start."""
        self.scrub_file()
        real = self.pread

        # Mocked here; tests/node/test_medium.py has a disk that fails.
        def pread(fd: int, buffers: Any, offset: int) -> int:
            if offset == 4 * BLOCK + BLOCK // 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset)

        self.pread = pread
        self.patch(limiters, 'LARGE_PIECE', BLOCK // 4)
        self.flip(5)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({4: UNREADABLE, 5: CORRUPT}, self.bad_blocks())

    def test_a_file_is_left_after_a_few_errors_and_gone_on_with_later(
        self,
    ) -> None:
        self.scrub_file()
        with self.failing_reads(1, 2, 3, 4):
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
        with self.failing_reads(2):
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
        with self.failing_reads(2):
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
        with nodes.unprivileged():
            finding = self.scrub(self.name)
        self.assertEqual((True, True), (finding.skipped, finding.problem))
        self.assertIn('Permission denied', finding.note)
        self.assertIn('let the owner of instances_path read it', finding.note)
        os.chmod(self.path, 0o644)
        self.flip(2)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())


# What says something of the process, the host or the way to the storage.
_NO_FAULT_OF_THE_MEDIUM = (
    errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ESTALE, errno.EROFS, errno.ENOTCONN, errno.ETIMEDOUT, errno.EAGAIN,
    errno.EHOSTDOWN, errno.ENODEV, errno.EINTR,
)  # fmt: skip


@ddt.ddt
class NotNowTest(scrubbing.OneFileTestCase):
    """Only the medium damages."""

    def fail_once(self, code: int, number: int) -> None:
        # Mocked: most of these cannot be had to order.
        failed: list[None] = []

        def fail() -> None:
            if not failed:
                failed.append(None)
                raise OSError(code, os.strerror(code))

        self.before_read(number, fail)

    def answer(self) -> soundness.Answer:
        return soundness.ask(self.node.layout, self.name)

    @ddt.data(*_NO_FAULT_OF_THE_MEDIUM)
    def test_what_is_no_fault_of_the_medium_is_read_later(
        self, code: int
    ) -> None:
        for _scrub in range(2):
            self.scrub_file()
        self.fail_once(code, 3)
        finding = self.scrub(self.name)
        self.assertEqual(
            (Verdict.GOOD, True, True),
            (finding.verdict, finding.skipped, finding.problem),
        )
        self.assertIn(os.strerror(code), finding.note)
        self.assertIs(soundness.Soundness.SOUND, self.answer().soundness)
        self.assertEqual({}, self.bad_blocks())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    @ddt.data(*_NO_FAULT_OF_THE_MEDIUM)
    def test_it_makes_no_verdict_of_a_first_reading(self, code: int) -> None:
        self.fail_once(code, 3)
        finding = self.scrub(self.name)
        self.assertEqual(
            (Verdict.UNKNOWN, True), (finding.verdict, finding.skipped)
        )
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    @ddt.data(*_NO_FAULT_OF_THE_MEDIUM)
    def test_what_is_bad_stays_bad(self, code: int) -> None:
        self.scrub_file()
        self.flip(6)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.fail_once(code, 3)
        self.assertIs(Verdict.CORRUPT, self.scrub(self.name).verdict)
        self.assertTrue(self.answer().is_bad)
        self.assertEqual({6: CORRUPT}, self.bad_blocks())

    def test_the_reading_goes_on_where_it_was_cut_short(self) -> None:
        self.scrub_file()
        self.fail_once(errno.ESTALE, 3)
        self.scrub(self.name)
        self.assertEqual(3, self.ledger(self.name).position)

    def test_an_error_of_the_medium_is_damage_as_before(self) -> None:
        self.scrub_file()
        self.fail_once(errno.EIO, 3)
        self.assertIs(Verdict.UNREADABLE, self.scrub(self.name).verdict)
        self.assertEqual('unreadable', self.answer().reason)


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
            nodes.qemu_img(
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
