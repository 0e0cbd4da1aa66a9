# SPDX-License-Identifier: Apache-2.0

"""The locks of a real QEMU on base files, here of its program qemu-nbd."""

import errno
import fcntl
import os
import subprocess
from typing import Any

import ddt

from nova_imagecache.cache import directories
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import removal
from nova_imagecache import errors
from tests.support import base
from tests.support import nodes
from tests.support import processes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'

look = qemu_locks.look


@ddt.ddt
class ImageLockTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image', age=365 * base.DAY)
        self.path = self.node.base_path(self.name)
        # Where no witness that reads disks finds it.
        self.disk = os.path.join(self.temporary, 'disk')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.path, '-F', 'raw', self.disk
        )

    def start_qemu(self, *options: str) -> subprocess.Popen[bytes]:
        """Let a QEMU have the disk open; wait until it has."""
        socket = os.path.join(self.temporary, 'socket')
        process = subprocess.Popen(
            ['qemu-nbd', '-k', socket, '-t', '-f', 'qcow2', *options,
             self.disk],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        processes.wait_for(
            lambda: look(self.path).in_use or process.poll() is not None
        )
        return process

    def test_a_base_file_that_only_an_open_file_holds_is_not_removed(
        self,
    ) -> None:
        process = self.start_qemu()
        file = self.file_of(self.node.run(), self.name)
        self.assertIn('running QEMU', file.reason)
        self.assertEqual((), file.users)
        self.assertTrue(file.used)
        self.assertIn(self.name, self.node.files())
        process.kill()
        process.wait()
        # It counts as used until then.
        self.node.clock.advance(23 * base.HOUR)
        self.node.run()
        self.assertIn(self.name, self.node.files())
        self.node.clock.advance(2 * base.HOUR)
        self.node.run()
        self.assertEqual(set(), self.node.files())

    def test_a_guest_that_only_reads_counts_too(self) -> None:
        self.start_qemu('--read-only')
        self.node.run()
        self.assertIn(self.name, self.node.files())

    def test_a_qemu_that_starts_during_the_pass_is_seen_at_the_last_moment(
        self,
    ) -> None:
        real = removal.remove

        def remove(*args: Any) -> Any:
            self.start_qemu()
            return real(*args)

        self.patch(removal, 'remove', remove)
        file = self.file_of(self.node.run(), self.name)
        self.assertIn('running QEMU', file.reason)
        self.assertIn(self.name, self.node.files())

    def test_no_qemu_gets_in_between_the_question_and_the_act(self) -> None:
        started: list[bytes] = []
        real = directories.rename_at_once

        def rename(*args: Any) -> bool:
            process = self.start_qemu()
            process.wait()
            assert process.stderr is not None
            started.append(process.stderr.read())
            return real(*args)

        self.patch(directories, 'rename_at_once', rename)
        self.node.run()
        self.assertIn(b'Failed to get "consistent read" lock', started[0])
        self.assertNotIn(self.name, self.node.files())

    def test_asking_keeps_nobody_out(self) -> None:
        self.assertFalse(qemu_locks.look(self.path).in_use)
        self.assertIsNone(qemu_locks.why_untold(self.path))
        process = self.start_qemu()
        self.assertIsNone(process.poll())
        self.assertTrue(qemu_locks.look(self.path).in_use)
        with self.assertRaisesRegex(errors.NotNow, 'running QEMU'):
            with qemu_locks.fence(self.path):
                self.fail('it was let in')

    def refuse_locks(self, code: int) -> None:
        real = fcntl.fcntl

        # Mocked: a file system without locks takes a server.
        def refuse(fd: Any, command: int, *args: Any) -> Any:
            if command in (fcntl.F_OFD_GETLK, fcntl.F_OFD_SETLK):
                raise OSError(code, os.strerror(code))
            return real(fd, command, *args)

        self.patch(fcntl, 'fcntl', refuse)

    def test_ten_passes_leave_the_open_descriptors_as_they_were(self) -> None:
        """With a file that stays for its lock, and one that goes each time."""
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        # As QEMU does.
        qemu_locks._share(fd, qemu_locks._USES_READ)
        # What is opened once, and for good, is open after the first one.
        self.node.run()
        before = set(os.listdir('/proc/self/fd'))
        for number in range(10):
            gone = self.node.add_image(f'{number}', age=365 * base.DAY)
            self.assertRaises(errors.NotNow, self.fence)
            self.node.run()
            self.assertNotIn(gone, self.node.files())
            self.node.clock.advance(2 * base.HOUR)
        self.assertEqual(set(), set(os.listdir('/proc/self/fd')) - before)
        self.assertIn(self.name, self.node.files())

    @ddt.data(errno.ENOLCK, errno.EIO)
    def test_nor_do_they_where_locks_cannot_be_asked_for(
        self, code: int
    ) -> None:
        self.refuse_locks(code)
        self.node.configure(remove_unused=False)
        self.node.run()
        before = set(os.listdir('/proc/self/fd'))
        for _pass in range(10):
            self.node.run()
        self.assertEqual(set(), set(os.listdir('/proc/self/fd')) - before)

    def fence(self) -> None:
        with qemu_locks.fence(self.path):
            self.fail('a QEMU has it open')

    def test_where_there_are_no_locks_it_is_said_and_others_decide(
        self,
    ) -> None:
        self.refuse_locks(errno.ENOLCK)
        report = self.node.run()
        self.assertIn('the other witnesses decide alone', report.notes[0])
        self.assertIn('No locks available', report.notes[0])
        self.assertEqual((), report.vetoes)
        self.assertNotIn(self.name, self.node.files())

    def test_a_base_file_that_cannot_be_asked_about_stays(self) -> None:
        self.node.add_image('another', age=365 * base.DAY)
        real = qemu_locks.look

        # Mocked: another user's file takes root.
        def look_at(path: str) -> qemu_locks.Seen:
            if path == self.path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path)

        self.patch(qemu_locks, 'look', look_at)
        report = self.node.run()
        self.assertIn('cannot be asked', report.notes[0])
        self.assertEqual({self.name}, self.node.files())
