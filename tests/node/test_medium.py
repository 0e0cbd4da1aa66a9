# SPDX-License-Identifier: Apache-2.0

import contextlib
import errno
import json
import os
import random
import subprocess
import threading
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.content import ledgers
from nova_imagecache.passes import pipeline
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import scrubber
from tests.support import base
from tests.support import mounts
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

Verdict = scrubbing.Verdict

BLOCK = 4 * base.MIB
SIZE = 6 * BLOCK - 12345
_SECTOR = 512


class MediumTestCase(mounts.MountingTestCase):
    """A cache on a file system of its own. Takes root, and loop devices."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can mount file systems')
        self.disk = os.path.join(self.temporary, 'disk')
        self.point = os.path.join(self.temporary, 'mnt')
        os.mkdir(self.point)
        self.data = random.Random(3).randbytes(SIZE)

    def make(self, *command: str, size: int = 320 * base.MIB) -> None:
        """Make a file system in a file."""
        with open(self.disk, 'wb') as file:
            file.truncate(size)
        processes.run(*command, self.disk)

    def mount(
        self, stack: contextlib.ExitStack, device: str, *options: str
    ) -> None:
        try:
            processes.run('mount', *options, device, self.point)
        except RuntimeError as error:
            self.skipTest(f'it cannot be mounted here: {error}')
        stack.callback(processes.run, 'umount', self.point)

    def node(self) -> nodes.Node:
        node = nodes.Node(os.path.join(self.point, 'instances'))
        node.configure(checksum=True)
        return node

    def scrub(self, node: nodes.Node) -> dict[str, Any]:
        """Scrub as the process does; give the findings by name."""
        stop = threading.Event()
        means = readers.Means(
            limiters.Limiter(wait=stop.wait), stop=stop, ahead=True
        )
        one = scrubber.Scrubber(node.settings, means, node.clock)
        return {result.name: result.finding for result in one.run()}

    def check(self) -> None:
        """Make a cache here, and see that it is scrubbed as anywhere."""
        node = self.node()
        name = node.add_image('x', data=self.data, size=40 * BLOCK)
        path = node.base_path(name)
        self.assertIs(Verdict.UNKNOWN, self.scrub(node)[name].verdict)
        printed = subprocess.check_output(['sha1sum', path], text=True)
        with open(path + '.sha1') as file:
            self.assertEqual(printed.split()[0], file.read())
        self.assertIs(Verdict.GOOD, self.scrub(node)[name].verdict)
        nodes.flip_bit(path, 3 * BLOCK + 5)
        self.assertIs(Verdict.CORRUPT, self.scrub(node)[name].verdict)
        ledger = ledgers.Ledger.load(
            base_file.BaseFile.named(node.layout, name)
        )
        assert ledger is not None
        self.assertEqual({3: scrubbing.CORRUPT}, ledgers.spread(ledger.bad))
        nodes.flip_bit(path, 3 * BLOCK + 5)
        self.assertIs(Verdict.GOOD, self.scrub(node)[name].verdict)


class FileSystemTest(MediumTestCase):
    def test_ext4(self) -> None:
        self.need('mkfs.ext4')
        self.make('mkfs.ext4', '-q', '-F')
        self.mount(self.stack, self.loop(self.disk, self.stack))
        self.check()

    def test_ext2_which_has_no_birth_times(self) -> None:
        self.need('mkfs.ext2')
        # Inodes of 128 bytes have no room for them.
        self.make('mkfs.ext2', '-q', '-F', '-I', '128')
        self.mount(self.stack, self.loop(self.disk, self.stack))
        self.check()

    def test_xfs(self) -> None:
        self.need('mkfs.xfs')
        self.make('mkfs.xfs', '-q', '-f')
        self.mount(self.stack, self.loop(self.disk, self.stack))
        self.check()

    def test_tmpfs(self) -> None:
        self.mount(self.stack, 'tmpfs', '-t', 'tmpfs')
        self.check()

    def test_overlayfs(self) -> None:
        for name in ('lower', 'upper', 'work'):
            os.mkdir(os.path.join(self.temporary, name))
        where = self.temporary
        self.mount(
            self.stack, 'overlay', '-t', 'overlay', '-o',
            f'lowerdir={where}/lower,upperdir={where}/upper,'
            f'workdir={where}/work',
        )  # fmt: skip
        self.check()

    def test_fuse_which_knows_no_holes(self) -> None:
        self.need('bindfs')
        source = os.path.join(self.temporary, 'source')
        os.mkdir(source)
        try:
            processes.run('bindfs', source, self.point)
        except RuntimeError as error:
            self.skipTest(f'there is no FUSE here: {error}')
        self.stack.callback(processes.run, 'umount', self.point)
        self.check()

    def test_squashfs_which_knows_no_direct_reads(self) -> None:
        """It cannot be written to, so a file is read and that is all."""
        self.need('mksquashfs')
        source = os.path.join(self.temporary, 'source')
        os.mkdir(source)
        with open(os.path.join(source, 'file'), 'wb') as file:
            file.write(self.data)
        processes.run('mksquashfs', source, self.disk, '-noappend', '-quiet')
        self.mount(self.stack, self.loop(self.disk, self.stack))
        path = os.path.join(self.point, 'file')
        self.assertRaises(OSError, os.open, path, os.O_RDONLY | os.O_DIRECT)
        fd = os.open(path, os.O_RDONLY)
        self.stack.callback(os.close, fd)
        pieces = readers.Reader(fd, readers.Means()).read(0, SIZE, BLOCK)
        content = b''.join(bytes(piece.data or b'') for piece in pieces)
        self.assertTrue(self.data == content, 'it holds something else')

    def test_on_a_full_file_system_nothing_is_read_for_nothing(self) -> None:
        self.mount(self.stack, 'tmpfs', '-t', 'tmpfs', '-o', 'size=40m')
        node = self.node()
        name = node.add_image('x', data=self.data)
        self.scrub(node)
        nodes.flip_bit(node.base_path(name), 3 * BLOCK)
        filler = os.path.join(self.point, 'filler')
        with contextlib.suppress(OSError), open(filler, 'wb') as file:
            while True:
                file.write(bytes(4096))
        error = self.assertRaises(OSError, self.scrub, node)
        self.assertEqual(errno.ENOSPC, error.errno)
        os.unlink(filler)
        self.assertIs(Verdict.CORRUPT, self.scrub(node)[name].verdict)


class FailingDiskTest(MediumTestCase):
    """A disk with sectors that cannot be read, made by QEMU."""

    def offset_on_disk(self, path: str, offset: int) -> int:
        """Find where a byte of a file is on the disk."""
        number = offset // 4096
        for line in processes.run(
            'filefrag', '-b4096', '-v', path
        ).splitlines():
            fields = line.replace('.', ' ').replace(':', ' ').split()
            if not fields or not fields[0].isdigit():
                continue
            first, last, physical = (int(fields[i]) for i in (1, 2, 3))
            if first <= number <= last:
                return (physical + number - first) * 4096
        raise RuntimeError(f'{path} has no extent with block {number}')

    def break_sector(self, offset: int) -> str:
        """Give the disk as a file in which reading one sector fails."""
        self.need('qemu-storage-daemon')
        broken = os.path.join(self.temporary, 'broken')
        pid = os.path.join(self.temporary, 'pid')
        with open(broken, 'wb'):
            pass
        rule = {
            'event': 'none',
            'errno': 5,
            'sector': offset // _SECTOR,
        }
        blkdebug = {
            'driver': 'blkdebug',
            'node-name': 'broken',
            'image': 'disk',
            'inject-error': [rule],
        }
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
            number = int(file.read())
        self.stack.callback(os.kill, number, 15)
        return broken

    def test_a_read_error_is_reported_with_its_range_and_the_rest_scrubbed(
        self,
    ) -> None:
        self.need('mkfs.ext4', 'filefrag', 'qemu-storage-daemon')
        self.make('mkfs.ext4', '-q', '-F')
        with contextlib.ExitStack() as stack:
            self.mount(stack, self.loop(self.disk, stack))
            node = self.node()
            name = node.add_image('x', data=self.data)
            other = node.add_image('y', data=self.data)
            guest = '11111111-aaaa-4aaa-8aaa-000000000001'
            node.add_overlay(guest, name)
            self.scrub(node)
            path = node.base_path(name)
            nodes.flip_bit(path, 4 * BLOCK)
            # It may stay mounted for a while, in a namespace that somebody
            # else has made meanwhile, as libvirt does.
            processes.run('sync', '--file-system', self.point)
            bad = self.offset_on_disk(path, 2 * BLOCK + 8192)
        broken = self.break_sector(bad)
        self.mount(self.stack, self.loop(broken, self.stack))
        sha1sum = subprocess.run(['sha1sum', path], capture_output=True)
        self.assertIn(b'Input/output error', sha1sum.stderr)
        findings = self.scrub(node)
        self.assertIs(Verdict.GOOD, findings[other].verdict)
        layout = layouts.Layout.of(node.settings)
        ledger = ledgers.Ledger.load(base_file.BaseFile.named(layout, name))
        assert ledger is not None
        self.assertEqual(
            {2: scrubbing.UNREADABLE, 4: scrubbing.CORRUPT},
            ledgers.spread(ledger.bad),
        )
        self.assertIn(
            f'bytes {2 * BLOCK}-{3 * BLOCK - 1} are unreadable',
            findings[name].note,
        )
        report = pipeline.Pass(node.settings, clock=node.clock).preview()
        file_report = self.file_of(report, name)
        self.assertEqual((guest,), file_report.users)
        self.assertIs(Verdict.CORRUPT, file_report.checksum)
