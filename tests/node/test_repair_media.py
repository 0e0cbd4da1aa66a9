# SPDX-License-Identifier: Apache-2.0

"""Repairs on real file systems, under real readers, over media that fail."""

import contextlib
import functools
import json
import mmap
import os
import subprocess
import time
from typing import Any

import ddt

from nova_imagecache.content import incidents
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import pages
from nova_imagecache.heal import rewriters
from nova_imagecache.heal.sources import page_cache
from nova_imagecache.heal import writer
from tests.support import base
from tests.support import healing
from tests.support import mounts
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

BLOCK = healing.BLOCK
Result = outcomes.Result
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'

_MAKE = {
    'ext4': ('mkfs.ext4', '-q', '-F'),
    'ext4-1k': ('mkfs.ext4', '-q', '-F', '-b', '1024'),
    'xfs': ('mkfs.xfs', '-q', '-f'),
    'btrfs': ('mkfs.btrfs', '-q', '-f'),
}
_SECTOR = 512


class MediaTestCase(healing.HealTestCase, mounts.MountingTestCase):
    """A node on a file system of its own. Takes root, and loop devices."""

    begins_at_once = False

    def on(self, kind: str) -> str:
        """Make the node on a new file system; give where that is mounted."""
        if kind == 'tmpfs':
            point = os.path.join(self.temporary, kind)
            os.mkdir(point)
            if os.geteuid() != 0:
                self.skipTest('only root can mount file systems')
            processes.run('mount', '-t', 'tmpfs', 'tmpfs', point)
            self.stack.callback(processes.run, 'umount', point)
        else:
            point = self.mount_new(kind, *_MAKE[kind])
        self.disk = os.path.join(self.temporary, f'{kind}.disk')
        self.begin_at(point)
        return point

    def begin_at(self, point: str) -> None:
        clock = self.node.clock
        self.node = nodes.Node(os.path.join(point, 'instances'))
        self.node.clock = clock
        self.write_conf(checksum_base_images='true')
        self.begin()
        self.drop()

    def change_medium(self, block: int, bit: int = 1) -> None:
        """Flip a bit under the file system."""
        os.sync()
        start = block * BLOCK
        with open(self.disk, 'r+b') as disk:
            at = disk.read().find(self.data[start + 4096 : start + 8192])
            self.assertNotEqual(-1, at, 'it is not on the disk')
            disk.seek(at + 9)
            (value,) = disk.read(1)
            disk.seek(at + 9)
            disk.write(bytes([value ^ bit]))

    def fill(self, point: str) -> None:
        """Leave no space on a file system."""
        for size in (base.MIB, 65536, 4096):
            path = os.path.join(point, f'filler-{size}')
            with (
                contextlib.suppress(OSError),
                open(path, 'wb', buffering=0) as file,
            ):
                while True:
                    file.write(os.urandom(size))
            os.sync()


@ddt.ddt
class FileSystemTest(MediaTestCase):
    @ddt.data('ext4', 'ext4-1k', 'xfs', 'btrfs', 'tmpfs')
    def test_blocks_and_the_last_page_are_put_right(self, kind: str) -> None:
        self.on(kind)
        self.flip(1)
        self.flip(5, at=5)
        self.damage(5, at=BLOCK - 100)
        self.assertEqual({1, 5}, {*self.bad(self.name)})
        before = self.identity()
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual((), outcome.left, str(outcome))
        self.drop()
        self.assert_healed()
        self.assertEqual(before, self.identity())
        self.node.run()
        self.assert_healed()

    def test_without_direct_writes(self) -> None:
        """A FUSE file system, which knows none."""
        self.need('bindfs')
        source = os.path.join(self.temporary, 'source')
        point = os.path.join(self.temporary, 'point')
        os.mkdir(source)
        os.mkdir(point)
        try:
            processes.run('bindfs', source, point)
        except RuntimeError as error:
            self.skipTest(f'there is no FUSE here: {error}')
        self.stack.callback(processes.run, 'umount', point)
        self.begin_at(point)
        self.patch(pages, 'set_direct', lambda fd, direct: False)
        self.flip(5, at=BLOCK - 100)
        self.damage(1)
        before = self.identity()
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual((), outcome.left, str(outcome))
        self.assert_healed()
        self.assertEqual(before, self.identity())

    @ddt.data('xfs', 'btrfs')
    def test_the_other_file_of_a_reflink_stays_as_it_is(
        self, kind: str
    ) -> None:
        self.on(kind)
        self.damage(1)
        other = self.target + '.other'
        processes.run('cp', '--reflink=always', self.target, other)
        before = self.content()
        self.heal(healing.Given(self.data))
        self.assert_healed()
        with open(other, 'rb') as file:
            self.assertTrue(before == file.read(), 'the other one changed')

    @ddt.data('xfs', 'btrfs')
    def test_without_space_a_reflink_stays_bad_and_nothing_changes(
        self, kind: str
    ) -> None:
        point = self.on(kind)
        self.damage(1)
        processes.run(
            'cp', '--reflink=always', self.target, self.target + '.o'
        )
        self.fill(point)
        before = self.content()
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual(
            [Result.NO_SPACE], [block.result for block in outcome.blocks]
        )
        self.assertTrue(before == self.content(), 'it has changed')
        self.assertIn(1, self.bad(self.name))

    def test_on_a_full_disk_a_block_that_is_there_is_written(self) -> None:
        point = self.on('ext4')
        self.damage(1)
        # Space for the records, which are small.
        with open(os.path.join(point, 'reserve'), 'wb') as file:
            file.write(bytes(base.MIB))
        self.fill(point)
        os.unlink(os.path.join(point, 'reserve'))
        self.heal(healing.Given(self.data))
        self.assert_healed()

    def test_a_file_system_that_went_read_only_is_a_clear_error(self) -> None:
        point = self.on('ext4')
        self.damage(1)
        before = self.content()
        processes.run('mount', '-o', 'remount,ro', point)
        code, _blocks, _summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(1, code)
        self.assertIn('Read-only file system', stderr)
        self.assertTrue(before == self.content(), 'it has changed')


@ddt.ddt
class ReaderTest(MediaTestCase):
    """A QEMU that reads through an overlay, and is never restarted."""

    def export(self, disk: str, direct: bool) -> str:
        self.need('qemu-storage-daemon')
        socket = os.path.join(self.temporary, 'socket')
        cache = {'direct': direct, 'no-flush': False}
        file = {
            'driver': 'file', 'node-name': 'file', 'filename': disk,
            'cache': cache, 'read-only': True,
        }  # fmt: skip
        top = {
            'driver': 'qcow2', 'node-name': 'top', 'file': 'file',
            'cache': cache, 'read-only': True,
        }  # fmt: skip
        daemon = subprocess.Popen(
            ['qemu-storage-daemon', '--blockdev', json.dumps(file),
             '--blockdev', json.dumps(top), '--nbd-server',
             f'addr.type=unix,addr.path={socket}', '--export',
             'type=nbd,id=top,node-name=top'],
        )  # fmt: skip
        self.stack.callback(daemon.wait)
        self.stack.callback(daemon.terminate)
        while not os.path.exists(socket):
            self.assertIsNone(daemon.poll(), 'it has not come up')
            time.sleep(0.01)
        return f'nbd+unix:///top?socket={socket}'

    def read(self, url: str) -> bytes:
        target = os.path.join(self.temporary, 'read')
        nodes.qemu_img('convert', '-f', 'raw', '-O', 'raw', url, target)
        with open(target, 'rb') as file:
            return file.read()[: len(self.data)]

    @ddt.data(
        ('ext4', False), ('ext4', True), ('xfs', False), ('xfs', True),
        ('btrfs', False), ('btrfs', True),
    )  # fmt: skip
    @ddt.unpack
    def test_it_reads_the_good_bytes_at_once(
        self, kind: str, direct: bool
    ) -> None:
        self.on(kind)
        self.damage(1, 3)
        disk = self.node.add_overlay(GUEST, self.name)
        url = self.export(disk, direct)
        self.assertFalse(self.data == self.read(url), 'it reads good bytes')
        code, _blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        self.assertTrue(self.data == self.read(url), 'it reads bad bytes')
        self.assertEqual(
            [(GUEST, 'disk', 'reads-good')],
            [(g['guest'], g['disk'], g['fate']) for g in summary['guests']],
        )

    def test_a_guest_that_has_copied_the_bad_bytes_is_named(self) -> None:
        self.on('ext4')
        disk = self.node.add_overlay(GUEST, self.name)
        self.damage(1)
        # In the same cluster as the bad byte.
        nodes.qemu_io(disk, f'write {BLOCK + 8192} 4k')
        code, _blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        (guest,) = summary['guests']
        self.assertEqual(
            ('still-damaged', [[BLOCK, 2 * BLOCK]]),
            (guest['fate'], guest['extents']),
        )
        self.assertIn('has copied bytes', stderr)

    def test_guests_of_a_qcow2_base_file_are_to_be_restarted(self) -> None:
        self.on('ext4')
        qcow2 = os.path.join(self.temporary, 'qcow2')
        nodes.qemu_img('convert', '-O', 'qcow2', self.copy, qcow2)
        with open(qcow2, 'rb') as file:
            self.data = file.read()
        self.name = self.node.add_image('qcow2', data=self.data)
        self.target = self.node.base_path(self.name)
        self.learn()
        self.node.add_overlay(GUEST, self.name, form='qcow2')
        self.damage(2)
        code, _blocks, summary, stderr = self.repair('--source', qcow2)
        self.assertEqual(0, code, stderr)
        self.assertEqual(
            [(GUEST, 'restart')],
            [(g['guest'], g['fate']) for g in summary['guests']],
        )
        self.assertIn('stop and start it', stderr)


@ddt.ddt
class CacheTest(MediaTestCase):
    """The page cache and the medium hold different bytes."""

    @ddt.data('ext4', 'xfs')
    def test_good_cached_pages_heal_a_bad_medium(self, kind: str) -> None:
        self.on(kind)
        self.change_medium(1)
        self.node.run()
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        self.change_medium_back_and_forth()
        outcome = self.heal(page_cache.PageCache())
        self.assertEqual('page-cache', outcome.blocks[0].source)
        self.assertEqual(pages.PAGE, outcome.blocks[0].written)
        self.drop()
        self.assert_healed()

    def change_medium_back_and_forth(self) -> None:
        """Have the good bytes in the page cache, over the bad medium."""
        data = bytearray(self.data)
        data[BLOCK + 4096 + 9] ^= 1
        good, self.data = self.data, bytes(data)
        self.change_medium(1)
        self.data = good
        self.drop()
        self.content()
        self.change_medium(1)

    @ddt.data('ext4', 'xfs')
    def test_bad_cached_pages_over_a_good_medium_are_dropped(
        self, kind: str
    ) -> None:
        self.on(kind)
        self.change_medium(1)
        self.node.run()
        self.content()
        data = bytearray(self.data)
        data[BLOCK + 4096 + 9] ^= 1
        good, self.data = self.data, bytes(data)
        self.change_medium(1)
        self.data = good
        self.assertFalse(good == self.content(), 'the cache holds it already')
        outcome = self.heal(rewrite=self.fail)
        (block,) = outcome.blocks
        self.assertEqual((Result.WAS_GOOD, 1), (block.result, block.stale))
        self.assert_healed()

    def test_what_is_wrong_in_the_cache_alone_is_found_by_the_command(
        self,
    ) -> None:
        """To verify finds nothing: a read went wrong once, and is cached."""
        self.have_wrong_pages_cached()
        code, blocks, _summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assertEqual(
            [(BLOCK, 'was-good')],
            [(block['start'], block['result']) for block in blocks],
        )
        self.assert_healed()

    def test_pages_that_were_dropped_keep_no_incident_from_its_end(
        self,
    ) -> None:
        self.on('ext4')
        self.node.add_overlay(GUEST, self.name)
        self.change_medium(1)
        self.run_command('verify', self.name)
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        good, self.data = self.data, self.content()
        self.change_medium(1)
        self.data = good
        code, blocks, _summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assertIn('in the page cache were wrong', blocks[0]['note'])
        self.assertEqual(self.data, self.content())
        (incident,) = incidents.load(self.node.layout).incidents
        self.assertEqual(incidents.Outcome.HEALED, incident.outcome)

    def have_wrong_pages_cached(self) -> None:
        self.on('ext4')
        self.change_medium(1)
        self.drop()
        bad = self.content()
        good, self.data = self.data, bad
        self.change_medium(1)
        self.data = good
        self.assertEqual(0, self.run_command('verify')[0])
        self.assertFalse(good == self.content(), 'it is not cached')

    def test_guests_are_told_apart_where_the_cache_alone_was_wrong(
        self,
    ) -> None:
        """As where the medium was: nothing tells it before that is found."""
        self.have_wrong_pages_cached()
        other = GUEST.replace('1', '2')
        self.node.add_overlay(GUEST, self.name)
        disk = self.node.add_overlay(other, self.name)
        # In the same cluster as the bad byte.
        nodes.qemu_io(disk, f'write {BLOCK + 8192} 4k')
        code, _blocks, summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assertEqual(
            [
                (GUEST, 'reads-good', []),
                (other, 'still-damaged', [[BLOCK, 2 * BLOCK]]),
            ],
            [(g['guest'], g['fate'], g['extents']) for g in summary['guests']],
        )
        self.assertIn(f'Guest {other} disk has copied bytes', stderr)
        self.assertNotIn(f'guest {GUEST}', stderr.lower())

    def test_who_reads_wrong_pages_that_stay_is_not_said_to_be_well(
        self,
    ) -> None:
        """They stay where some process has the file mapped."""
        self.have_wrong_pages_cached()
        self.node.add_overlay(GUEST, self.name)
        with (
            open(self.target, 'rb') as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        ):
            self.assertFalse(self.data == mapped[:], 'it is good')
            code, blocks, summary, stderr = self.repair()
            self.assertFalse(self.data == self.content(), 'it is dropped')
        self.assertEqual(3, code, stderr)
        self.assertIn('stay there', blocks[0]['note'])
        self.assertEqual(
            [(GUEST, 'reads-stale')],
            [(g['guest'], g['fate']) for g in summary['guests']],
        )
        self.assertIn(f'Guest {GUEST} disk may read wrong bytes', stderr)
        code, blocks, summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assert_healed()


class HungTest(MediaTestCase):
    """A file system that is frozen: who writes waits in the kernel."""

    def test_a_write_that_the_kernel_does_not_finish(self) -> None:
        point = self.on('ext4')
        self.need('fsfreeze')
        self.damage(1)
        before = self.content()
        self.patch(rewriters, '_WRITE_SECONDS', 0.3)
        self.patch(rewriters, '_END_SECONDS', 0.5)
        real = writer.rewrite

        def freeze(*args: Any) -> None:
            if args[3]:
                # Now, so that all else is written by then.
                processes.run('fsfreeze', '--freeze', point)
            real(*args)

        with base.patched(writer, 'rewrite', freeze):
            remote = rewriters.fork(self.node.layout.base)
        frozen = contextlib.ExitStack()
        self.stack.push(frozen)
        frozen.callback(processes.run, 'fsfreeze', '--unfreeze', point)
        outcome = self.heal(healing.Given(self.data), rewrite=remote)
        self.assertEqual([Result.HUNG], [b.result for b in outcome.blocks])
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        # It was told to end, and was killed.
        remote.close()
        frozen.close()
        assert isinstance(remote._reap, functools.partial)
        (child,) = remote._reap.args
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
        self.drop()
        self.assertIn(self.content(), (before, self.data))
        self.heal(healing.Given(self.data))
        self.drop()
        self.assert_healed()


class FailingTest(MediaTestCase):
    """A medium that cannot read a sector, or take it, made by QEMU."""

    def break_at(self, block: int, iotype: str) -> None:
        """Have the file system on a disk that fails at a page of a block."""
        self.need('mkfs.ext4', 'qemu-storage-daemon')
        with contextlib.ExitStack() as stack:
            stack, self.stack = self.stack, stack
            self.on('ext4')
            os.sync()
            stack, self.stack = self.stack, stack
            with open(self.disk, 'rb') as disk:
                start = block * BLOCK + 4096
                at = disk.read().find(self.data[start : start + 4096])
            if iotype == 'write':
                self.damage(block, at=4096 + 9)
            point = os.path.dirname(self.node.layout.instances)
        broken = os.path.join(self.temporary, 'broken')
        pid = os.path.join(self.temporary, 'pid')
        with open(broken, 'wb'):
            pass
        rule = {
            'event': 'none', 'errno': 5, 'sector': at // _SECTOR,
            'iotype': iotype,
        }  # fmt: skip
        blkdebug = {
            'driver': 'blkdebug', 'node-name': 'broken', 'image': 'disk',
            'inject-error': [rule],
        }  # fmt: skip
        try:
            processes.run(
                'qemu-storage-daemon', '--daemonize', '--pidfile', pid,
                '--blockdev',
                f'driver=file,node-name=disk,filename={self.disk}',
                '--blockdev', json.dumps(blkdebug),
                '--export',
                f'type=fuse,id=e,node-name=broken,mountpoint={broken},'
                'writable=on',
            )  # fmt: skip
        except RuntimeError as error:
            self.skipTest(f'there is no FUSE here: {error}')
        with open(pid) as file:
            self.stack.callback(os.kill, int(file.read()), 15)
        device = self.loop(broken, self.stack)
        # Else the loop device gives back what it has in memory.
        processes.run('losetup', '--direct-io=on', device)
        processes.run('mount', device, point)
        self.stack.callback(processes.run, 'umount', point)

    def test_a_page_that_cannot_be_read_costs_that_page_alone(self) -> None:
        self.break_at(1, 'read')
        self.node.run()
        self.assertEqual({1: scrubbing.UNREADABLE}, self.bad(self.name))
        outcome = self.heal(healing.Given(self.data))
        (block,) = outcome.blocks
        # It was taken, and cannot be read: that disk is to be replaced.
        self.assertEqual(
            (Result.MEDIUM, 1), (block.result, block.unreadable), str(block)
        )
        self.assertIn('cannot read what it has just taken', block.note)
        self.assertIn(1, self.bad(self.name))

    def test_a_medium_that_takes_no_write_is_told(self) -> None:
        self.break_at(1, 'write')
        before = self.content()
        outcome = self.heal(healing.Given(self.data))
        (block,) = outcome.blocks
        self.assertEqual(Result.MEDIUM, block.result, str(block))
        self.assertIn('does not take what is written', block.note)
        self.assertTrue(before == self.content(), 'it has changed')
        self.assertIn(1, self.bad(self.name))

    def test_a_sector_that_btrfs_refuses_is_good_once_it_is_written(
        self,
    ) -> None:
        """As a disk that remaps: it cannot be read until it is written."""
        self.need('mkfs.btrfs')
        self.on('btrfs')
        self.change_medium(1)
        self.drop()
        self.node.run()
        self.assertEqual({1: scrubbing.UNREADABLE}, self.bad(self.name))
        outcome = self.heal(healing.Given(self.data))
        (block,) = outcome.blocks
        self.assertEqual(
            (Result.REPAIRED, 1, pages.PAGE),
            (block.result, block.unreadable, block.written),
            str(block),
        )
        self.drop()
        self.assert_healed()
