# SPDX-License-Identifier: Apache-2.0

"""What passes find out about the content of files."""

from collections.abc import Callable
import dataclasses
import errno
import hashlib
import os
import shutil
import tempfile
from typing import Any

import ddt
import fixtures

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache import hook
from nova_imagecache.passes import decide
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import one_file
from tests.support import base
from tests.support import nodes
from tests.support import processes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
KEEP = decide.Action.KEEP
Verdict = knowledge.Verdict


@ddt.ddt
class ChecksumTest(nodes.NodeTestCase):
    """What passes find out about the content of files."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True)
        self.name = self.node.add_image('image')
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'
        self.node.add_overlay(GUEST, self.name)
        self.reads: list[str] = []
        self.patch(one_file, 'scrub', self.noted(one_file.scrub))

    def test_what_is_overdue_is_told_unless_this_pass_reads_it(self) -> None:
        self.node.configure(checksum=True, checksum_interval=base.DAY)
        self.node.run()
        self.node.clock.advance(8 * base.DAY)
        (told,) = self.node.run(inline=False).problems
        self.assertIn('verification is overdue: 1 file, ', told)
        self.assertEqual((), self.node.run(inline=True).problems)
        self.assertEqual((), self.node.run(inline=False).problems)

    def noted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Have it noted which files are read, once for each scrub."""

        def scrub(job: one_file.Job, method: one_file.Method) -> Any:
            read: list[str] = []

            def pread(*args: Any) -> int:
                read[:] = [job.file.name]
                return method.means.pread(*args)

            means = dataclasses.replace(method.means, pread=pread)
            try:
                return real(job, dataclasses.replace(method, means=means))
            finally:
                self.reads += read

        return scrub

    def verdict(self) -> knowledge.Verdict:
        return self.file_of(self.node.run(), self.name).checksum

    def test_the_first_pass_creates_and_the_second_verifies(self) -> None:
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertEqual(40, len(self.read_sidecar()))
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_with_the_option_off_nothing_is_read_or_written(self) -> None:
        self.node.configure(checksum=False)
        self.write_sidecar('f' * 40)
        for _pass in range(2):
            self.assertIs(Verdict.OFF, self.verdict())
        self.assertEqual([], self.reads)
        self.assertEqual('f' * 40, self.read_sidecar())
        self.assertEqual([], os.listdir(self.node.layout.ledgers))

    def test_a_flipped_bit_is_found_with_the_guests_it_hits(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        report = self.node.run()
        (file,) = report.corrupt
        self.assertEqual((self.name, (GUEST,)), (file.name, file.users))
        self.assertIs(KEEP, file.action)

    def test_corruption_is_logged_with_image_file_and_guests(self) -> None:
        conf = base.make_conf(
            instances_path=self.node.layout.instances,
            checksum_base_images=True,
            checksum_interval_seconds=0,
        )
        manager = hook.ImageCacheManager(conf, inline=True)
        manager.update(None, [])
        nodes.flip_bit(self.path)
        manager.update(None, [{'uuid': GUEST, 'image_ref': 'image'}])
        for word in (self.path, '(image image)', GUEST, 'corrupt'):
            self.assertIn(word, self.log.output)

    def test_a_checksum_of_an_older_manager_is_honoured(self) -> None:
        self.write_sidecar('f' * 40)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        self.assertEqual('f' * 40, self.read_sidecar())

    @ddt.data('', 'banana', 'f' * 39)
    def test_garbage_is_redone_and_hides_nothing(self, text: str) -> None:
        self.write_sidecar(text)
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertEqual(40, len(self.read_sidecar()))
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_garbage_does_not_launder_what_is_known(self) -> None:
        self.node.run()
        known = self.read_sidecar()
        self.write_sidecar('banana')
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        self.assertEqual(known, self.read_sidecar())

    def test_what_is_corrupt_is_not_laundered_by_a_new_checksum(
        self,
    ) -> None:
        self.node.run()
        known = self.read_sidecar()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        os.unlink(self.sidecar)
        self.assertEqual(known, hook.write_stored_checksum(self.path))
        self.assertIs(Verdict.CORRUPT, self.verdict())
        # Not even by one that somebody has computed of the bad bytes.
        with open(self.path, 'rb') as file:
            self.write_sidecar(hashlib.sha1(file.read()).hexdigest())
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_a_wrong_checksum_does_not_replace_what_is_known(self) -> None:
        self.node.run()
        known = self.read_sidecar()
        self.write_sidecar('f' * 40)
        file = self.file_of(self.node.run(), self.name)
        self.assertIs(Verdict.CORRUPT, file.checksum)
        self.assertIn('if that is wrong, remove it', file.reason)
        self.write_sidecar(known)
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_a_replaced_checksum_is_compared_once_per_interval(self) -> None:
        self.node.configure(checksum_interval=1000)
        self.node.run()
        self.node.run()
        self.reads.clear()
        self.write_sidecar('f' * 40)
        for _pass in range(3):
            self.assertIs(Verdict.CORRUPT, self.verdict())
        self.assertEqual([], self.reads)
        self.node.clock.advance(1000)
        for _pass in range(3):
            self.assertIs(Verdict.CORRUPT, self.verdict())
        self.assertEqual([self.name], self.reads)

    def test_a_baseline_made_after_all_was_lost_is_marked_for_ever(
        self,
    ) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        os.unlink(self.sidecar)
        os.truncate(self.node.layout.ledger(self.name), 10)
        for _pass in range(3):
            file = self.file_of(self.node.run(), self.name)
            # The state remembers what was wrong with it.
            self.assertIs(Verdict.CORRUPT, file.checksum)
            self.assertIn('rebaselined on 20', file.reason)

    def test_a_corrupt_file_that_is_touched_all_the_time_is_found(
        self,
    ) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            os.utime(self.path)
            return real(fd, buffers, offset)

        self.patch(os, 'preadv', preadv)
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def unreadable_for(self, *paths: str) -> None:
        """Let some files be those of another user, with umask 077."""
        real = os.open

        # Mocked: another user takes root.
        def open_other(path: Any, *args: Any, **kwargs: Any) -> int:
            if path in paths:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path, *args, **kwargs)

        self.useFixture(fixtures.MonkeyPatch('os.open', open_other))

    def test_what_cannot_be_read_is_not_replaced(self) -> None:
        self.write_sidecar('f' * 40)
        self.unreadable_for(self.sidecar)
        report = self.node.run()
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertEqual(2, len(report.problems))
        self.assertEqual([], self.reads)
        self.assertEqual(40, os.path.getsize(self.sidecar), 'it was replaced')
        self.assertFalse(os.path.exists(self.node.layout.ledger(self.name)))

    def test_a_checksum_stored_while_a_file_is_read_is_not_overtaken(
        self,
    ) -> None:
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            self.write_sidecar('f' * 40)
            return real(fd, buffers, offset)

        with fixtures.MonkeyPatch('os.preadv', preadv):
            file = self.file_of(self.node.run(), self.name)
        self.assertIs(Verdict.CORRUPT, file.checksum)
        self.assertEqual('f' * 40, self.read_sidecar())
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_a_moment_without_records_launders_nothing(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        real = os.open
        self.unreadable_for(self.sidecar, self.node.layout.ledger(self.name))
        self.assertIs(Verdict.CORRUPT, self.verdict())
        self.patch(os, 'open', real)
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_a_file_that_cannot_be_looked_at_keeps_its_ledger(self) -> None:
        self.node.run()
        other = self.node.add_image('other')
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        os.unlink(self.sidecar)
        real = os.lstat

        # Mocked: ESTALE takes an NFS server.
        def fail(path: Any, *args: Any, **kwargs: Any) -> Any:
            if path == self.path:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path, *args, **kwargs)

        real_stat_of = identity.stat_of

        def stat_of(path: str, *args: Any, **kwargs: Any) -> identity.Stat:
            fail(path)
            return real_stat_of(path, *args, **kwargs)

        with (
            fixtures.MonkeyPatch('os.lstat', fail),
            fixtures.MonkeyPatch(
                'nova_imagecache.cache.identity.stat_of', stat_of
            ),
        ):
            report = self.node.run()
        self.assertEqual([other], [file.name for file in report.files])
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_an_unreadable_file_is_tried_once_per_interval(self) -> None:
        self.node.configure(checksum_interval=7 * base.DAY)
        real = os.preadv

        # Mocked: a disk that fails to order needs root and a block device.
        def preadv(fd: int, buffers: Any, offset: int) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, 'preadv', preadv)
        for _pass in range(3):
            self.assertIs(Verdict.UNREADABLE, self.verdict())
            self.node.clock.advance(base.HOUR)
        self.assertEqual([self.name], self.reads)
        self.patch(os, 'preadv', real)
        self.node.clock.advance(base.DAY)
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.node.clock.advance(8 * base.DAY)
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_what_is_corrupt_stays_so_when_it_cannot_be_read(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())

        # Mocked: a disk that fails to order needs root and a block device.
        def preadv(fd: int, buffers: Any, offset: int) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, 'preadv', preadv)
        self.assertIs(Verdict.CORRUPT, self.verdict())

    @ddt.data('sidecar', 'ledger')
    def test_a_record_that_cannot_be_read_hides_nothing(
        self, which: str
    ) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        ledger = self.node.layout.ledger(self.name)
        hidden = self.sidecar if which == 'sidecar' else ledger
        before = os.stat(hidden)
        self.unreadable_for(hidden)
        report = self.node.run()
        self.assertIs(
            Verdict.CORRUPT, self.file_of(report, self.name).checksum
        )
        self.assertIn(self.name, report.problems[0])
        self.assertEqual(before.st_ino, os.stat(hidden).st_ino, 'replaced')

    def test_without_birth_times_an_old_checksum_is_known_as_such(
        self,
    ) -> None:
        # Mocked: the file systems without birth times are on the network.
        self.patch(identity, '_STATX_BTIME', 0)
        self.node.run()
        self.node.run()
        os.rename(self.path, self.path + 'x')
        self.node.add_base(self.name, data=b'other bytes')
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_a_file_is_read_once_per_interval_whatever_was_found(
        self,
    ) -> None:
        self.node.configure(checksum_interval=1000)
        self.node.run()
        self.assertEqual(1, len(self.reads))
        for old, new in (
            (Verdict.UNKNOWN, Verdict.CORRUPT),
            (Verdict.CORRUPT, Verdict.GOOD),
        ):
            nodes.flip_bit(self.path)
            for _pass in range(3):
                self.node.clock.advance(300)
                self.assertIs(old, self.verdict())
            self.node.clock.advance(100)
            self.assertIs(new, self.verdict())
        # Read first, and once per interval since.
        self.assertEqual(3, len(self.reads))

    def test_an_interval_of_zero_reads_in_every_pass(self) -> None:
        for _pass in range(4):
            self.node.run()
        self.assertEqual([self.name] * 4, self.reads)

    def test_a_file_read_good_again_is_good(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_another_file_under_the_name_is_not_called_corrupt(self) -> None:
        self.node.run()
        self.node.run()
        os.unlink(self.path)
        # As stock Nova does it: other bytes, and the old checksum still here.
        self.node.add_base(self.name, data=b'other bytes')
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_a_lost_checksum_comes_back_without_reading(self) -> None:
        self.node.run()
        self.node.run()
        self.node.configure(checksum_interval=1000)
        known = self.read_sidecar()
        os.unlink(self.sidecar)
        self.reads.clear()
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertEqual(known, self.read_sidecar())
        self.assertEqual([], self.reads)

    def lose_checksum(self) -> knowledge.Knowledge:
        """Have the ledger alone know the checksum; give what is known."""
        self.node.run()
        self.node.run()
        self.node.configure(checksum_interval=1000)
        os.unlink(self.sidecar)
        return knowledge.recall(self.base_file())

    def base_file(self) -> base_file.BaseFile:
        return base_file.BaseFile.named(self.node.layout, self.name)

    def test_while_its_lock_is_held_a_lost_checksum_stays_lost(self) -> None:
        self.lose_checksum()
        nova = self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        self.node.run()
        self.assertFalse(os.path.exists(self.sidecar))
        nova.end()
        self.node.run()
        self.assertTrue(os.path.exists(self.sidecar))

    def test_a_lost_checksum_does_not_come_back_to_another_file(self) -> None:
        known, file = self.lose_checksum(), self.base_file()
        # Of the same bytes, so that nothing but the file itself tells.
        copy = shutil.copy2(self.path, f'{self.path}.part')
        os.replace(copy, self.path)
        self.assertRaises(errors.Changed, keeper.restore_checksum, file, known)
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_checksum_that_is_stored_meanwhile_is_not_written_over(
        self,
    ) -> None:
        known = self.lose_checksum()
        self.write_sidecar('f' * 40)
        self.assertRaises(
            errors.NotNow, keeper.restore_checksum, self.base_file(), known
        )
        self.assertEqual('f' * 40, self.read_sidecar())

    def test_a_damaged_ledger_is_never_taken_for_corruption(self) -> None:
        self.node.run()
        ledger = self.node.layout.ledger(self.name)
        with open(ledger, 'w') as file:
            file.write('garbage')
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertTrue(os.path.exists(ledger + '.damaged'))
        self.assertIn('damaged', self.log.output)

    def test_a_damaged_ledger_does_not_launder_corruption(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        os.truncate(self.node.layout.ledger(self.name), 10)
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_a_resized_file_gets_its_checksum_when_seen_again(self) -> None:
        name = self.name + '_20'
        self.node.add_base(name)
        self.node.run()
        self.assertNotIn(name + '.sha1', self.node.files())
        self.node.run()
        self.assertIn(name + '.sha1', self.node.files())

    def test_a_file_that_is_being_fetched_is_not_read(self) -> None:
        self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        file = self.file_of(self.node.run(), self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('lock', file.reason)
        self.assertEqual([], self.reads)

    def test_what_is_corrupt_stays_so_while_its_lock_is_held(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        self.node.run()
        self.reads.clear()
        self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        file = self.file_of(self.node.run(), self.name)
        self.assertIs(Verdict.CORRUPT, file.checksum)
        self.assertIn('not verified', file.reason)
        self.assertEqual([], self.reads)

    def test_a_file_touched_while_it_is_read_can_be_good(self) -> None:
        self.node.run()
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            os.utime(self.path)
            return real(fd, buffers, offset)

        self.patch(os, 'preadv', preadv)
        self.assertIs(Verdict.GOOD, self.verdict())

    def test_a_verdict_never_crosses_over_to_another_file(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)
        real = conclusions.conclude

        def conclude(*args: Any) -> Any:
            after = real(*args)
            os.unlink(self.path)
            self.node.add_base(self.name, data=b'other bytes')
            return after

        self.patch(conclusions, 'conclude', conclude)
        file = self.file_of(self.node.run(), self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('another file', file.reason)

    def test_an_unreadable_file_is_named_and_the_others_verified(
        self,
    ) -> None:
        other = self.node.add_image('other')
        self.node.run()
        # Mocked: a disk that fails to order needs root and a block device.
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            if self.name in os.readlink(f'/proc/self/fd/{fd}'):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, offset)

        self.patch(os, 'preadv', preadv)
        report = self.node.run()
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.UNREADABLE, file.checksum)
        self.assertIn('bytes 0-65535 are unreadable', file.reason)
        self.assertEqual([file], list(report.unreadable))
        self.assertIs(Verdict.GOOD, self.file_of(report, other).checksum)

    def test_a_second_manager_verifies_nothing_meanwhile(self) -> None:
        real = os.preadv
        second: list[Any] = []

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            if not second:
                second.append(None)
                second[0] = self.node.run()
            return real(fd, buffers, offset)

        self.patch(os, 'preadv', preadv)
        self.node.run()
        file = self.file_of(second[0], self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('another manager', file.reason)
        self.assertEqual((), second[0].problems)

    @ddt.data('directory', 'fifo', 'symlink')
    def test_a_checksum_that_is_no_file_hides_nothing(self, kind: str) -> None:
        if kind == 'directory':
            os.mkdir(self.sidecar)
        elif kind == 'fifo':
            os.mkfifo(self.sidecar)
        else:
            os.symlink('/etc/passwd', self.sidecar)
        self.node.run()
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verdict())

    def test_a_full_disk_costs_the_records_and_not_the_verdict(self) -> None:
        self.node.run()
        nodes.flip_bit(self.path)

        # Mocked: a full file system would need root to mount.
        def mkstemp(*args: Any, **kwargs: Any) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(tempfile, 'mkstemp', mkstemp)
        report = self.node.run()
        self.assertEqual(1, len(report.corrupt))
        self.assertIn('No space left', report.problems[0])

    def test_swap_and_ephemeral_files_are_verified_too(self) -> None:
        for name in ('swap_64', 'ephemeral_1_0706d66'):
            self.node.add_base(name)
        self.node.run()
        nodes.flip_bit(self.node.base_path('swap_64'))
        report = self.node.run()
        self.assertEqual(['swap_64'], [f.name for f in report.corrupt])

    def test_verifying_now_removes_nothing_and_skips_the_rest(self) -> None:
        old = self.node.add_image('old', age=365 * base.DAY)
        report = self.node.make_pass().verify_now([self.name])
        self.assertEqual([self.name], [file.name for file in report.files])
        self.assertEqual([self.name], self.reads)
        self.assertIn(old, self.node.files())
