# SPDX-License-Identifier: Apache-2.0

"""File systems on which the locks of QEMU do not tell, or may not."""

import os
import subprocess
import sys
import textwrap
from typing import Any

from nova_imagecache.cache import mounts
from nova_imagecache.cache import qemu_locks
from nova_imagecache import children
from nova_imagecache.witnesses import image_locks
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import mounts as mounting
from tests.support import nodes
from tests.support import processes


class FuseTest(mounting.MountingTestCase):
    """A cache that is shown in another place by a file system of FUSE."""

    def setUp(self) -> None:
        super().setUp()
        below = nodes.Node(os.path.join(self.temporary, 'below'))
        self.name = below.add_image('image', age=365 * base.DAY)
        self.below = below.base_path(self.name)
        self.point = os.path.join(self.temporary, 'point')
        self.mount_without_birth_times(below.layout.instances, self.point)
        self.node = nodes.Node(self.point)
        self.path = self.node.base_path(self.name)

    def start_qemu(self, path: str) -> subprocess.Popen[bytes]:
        """Let a QEMU have a base file open; wait until it has."""
        socket = os.path.join(self.temporary, 'socket')
        process = subprocess.Popen(
            ['qemu-nbd', '-k', socket, '-t', '-r', '-f', 'raw', path]
        )
        # Before the file system is unmounted.
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        processes.wait_for(
            lambda: qemu_locks.look(path).in_use or process.poll() is not None
        )
        self.assertIsNone(process.poll())
        return process

    def look(self) -> testimonies.Testimony:
        witness = image_locks.ImageLockWitness(self.node.layout)
        return witness.look([self.name])

    def test_a_lock_that_is_not_to_be_seen_is_no_lock_that_is_not_there(
        self,
    ) -> None:
        self.start_qemu(self.below)
        self.assertFalse(qemu_locks.look(self.path).in_use)
        (note,) = self.look().notes
        for part in (
            self.node.layout.base,
            'the other witnesses decide alone',
            f'{self.point} is of the type fuse',
            'have the cache on a file system that',
        ):
            self.assertIn(part, note)

    def test_the_report_says_so_and_what_it_means_for_other_locks(
        self,
    ) -> None:
        report = self.node.make_pass().preview()
        about = [note for note in report.notes if self.point in note]
        of_qemu, of_hosts = about
        self.assertIn('the locks of QEMU', of_qemu)
        self.assertIn("each other's locks", of_hosts)

    def test_a_lock_that_is_seen_counts_all_the_same(self) -> None:
        self.start_qemu(self.path)
        self.assertEqual(frozenset({self.name}), self.look().held)
        self.node.run()
        self.assertIn(self.name, self.node.files())

    def test_it_is_found_where_it_is_mounted(self) -> None:
        self.assertEqual(self.point, mounts.mount_point(self.path))
        self.assertIn(self.point, mounts.below(self.temporary))
        link = os.path.join(self.temporary, 'link')
        os.symlink(self.point, link)
        self.assertEqual(self.point, mounts.mount_point(link))
        self.assertEqual((), mounts.below(link))


class ServerTest(nodes.NodeTestCase):
    """A file system whose server has a say, as far as the mount tells."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image', age=365 * base.DAY)
        self.path = self.node.base_path(self.name)
        # Mocked: a server that shares its locks takes a server.
        self.patch(mounts, 'is_of_this_host', lambda mount: False)
        self.started: list[list[str]] = []
        real = children.run

        def run(*command: str, **kwargs: Any) -> object:
            self.started.append([*command])
            return real(*command, **kwargs)

        self.patch(children, 'run', run)

    def pretend(self, script: str) -> None:
        """Have another program in the place of Python."""
        path = os.path.join(self.temporary, 'python')
        with open(path, 'w') as file:
            file.write('#!/bin/sh\n' + textwrap.dedent(script))
        os.chmod(path, 0o755)
        self.patch(sys, 'executable', path)

    def note(self) -> str:
        """Make a pass; give what it says of the locks."""
        report = self.node.make_pass().preview()
        (note,) = [note for note in report.notes if 'locks of QEMU' in note]
        self.assertEqual((), report.vetoes)
        return note

    def test_another_process_sees_the_lock_of_this_one(self) -> None:
        self.assertIsNone(qemu_locks.why_untold(self.path))
        self.assertEqual(1, len(self.started))
        self.assertEqual((), self.node.make_pass().preview().notes)

    def test_it_sees_none_where_there_is_none(self) -> None:
        self.assertFalse(qemu_locks._seen_by_another(self.path))

    def test_no_lock_is_left_behind(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        with qemu_locks._shared(fd, qemu_locks._MEANS_NOTHING):
            self.assertTrue(qemu_locks._seen_by_another(self.path))
        # While the file is still open, as closing it need not be enough.
        self.assertFalse(qemu_locks._seen_by_another(self.path))

    def test_a_pass_starts_one_at_most(self) -> None:
        self.node.add_image('another')
        self.node.run()
        self.assertEqual(1, len(self.started))
        self.node.run()
        self.assertEqual(2, len(self.started))

    def test_a_disk_of_this_host_needs_none(self) -> None:
        self.patch(mounts, 'is_of_this_host', lambda mount: True)
        self.node.run()
        self.assertEqual([], self.started)

    def test_a_lock_that_another_process_does_not_see_tells_nothing(
        self,
    ) -> None:
        self.pretend('echo unseen\n')
        self.assertIn('no process sees the locks of another', self.note())

    def test_where_python_cannot_be_started_it_cannot_be_told(self) -> None:
        self.patch(sys, 'executable', '/nonexistent/python')
        note = self.note()
        self.assertIn('/nonexistent/python cannot be started', note)
        self.assertIn('cannot be told', note)

    def test_nor_where_it_does_not_know_its_path(self) -> None:
        self.patch(sys, 'executable', '')
        self.assertIn('does not know its path', self.note())

    def test_nor_where_it_is_something_else(self) -> None:
        self.pretend('echo "usage: uwsgi" >&2\nexit 2\n')
        self.assertIn('ended with status 2: usage: uwsgi', self.note())

    def test_nor_where_it_does_not_end(self) -> None:
        self.patch(qemu_locks, '_DEADLINE_SECONDS', 0.05)
        self.pretend('exec sleep 60\n')
        self.assertIn('does not end within', self.note())

    def test_a_file_that_goes_meanwhile_says_nothing_of_locks(self) -> None:
        self.pretend(f'rm {self.path}\nexit 1\n')
        with self.assertRaises(FileNotFoundError):
            qemu_locks.why_untold(self.path)

    def test_one_that_is_replaced_meanwhile_neither(self) -> None:
        self.pretend(
            f'cp {self.path} {self.path}.2\nmv {self.path}.2 {self.path}\n'
            'echo unseen\n'
        )
        with self.assertRaises(FileNotFoundError):
            qemu_locks.why_untold(self.path)
