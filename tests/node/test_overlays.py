# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from collections.abc import Iterable
import errno
import json
import os
import shutil
import threading
import time
from typing import Any

import ddt

from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache import host
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import walks
from tests.support import base
from tests.support import nodes

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'
RESIZED = f'{SHA}_20'
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'


class OverlaysTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.add_base(SHA, size=base.MIB)

    def look(self) -> testimonies.Testimony:
        witness = overlays.OverlayWitness(self.node.layout)
        return witness.look([SHA, RESIZED])

    def assert_users(self, *users: str) -> None:
        testimony = self.look()
        self.assertEqual((), testimony.vetoes)
        self.assertEqual(frozenset(users), testimony.users.get(SHA, set()))


@ddt.ddt
class UsersTest(OverlaysTestCase):
    def test_nobody_uses_a_file_that_no_disk_names(self) -> None:
        self.node.add_file(GUEST, 'disk', data=os.urandom(8192))
        self.assert_users()

    def test_an_overlay_uses_its_base(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        self.assert_users(GUEST)

    @ddt.data(
        'disk.rescue', 'disk.local', 'disk.eph0', 'disk.swap', 'anything'
    )
    def test_any_disk_of_a_guest_counts(self, disk: str) -> None:
        self.node.add_overlay(GUEST, SHA, disk=disk)
        self.assert_users(GUEST)

    @ddt.data('_resize', '_del', '_resize_del')
    def test_a_renamed_directory_is_still_that_guests(
        self, suffix: str
    ) -> None:
        self.node.add_overlay(GUEST + suffix, SHA)
        self.assert_users(GUEST)

    def test_a_directory_of_nobody_known_counts(self) -> None:
        self.node.add_overlay('nobody', SHA)
        self.assert_users('nobody')

    def test_a_snapshot_in_the_making_counts(self) -> None:
        self.node.add_overlay('snapshots/tmpabc', SHA, disk='delta')
        self.assert_users('snapshots')

    def test_a_file_beside_the_directories_counts(self) -> None:
        path = self.node.add_overlay(GUEST, SHA)
        os.rename(path, os.path.join(self.node.layout.instances, 'stray'))
        self.assert_users('stray')

    def test_a_name_that_is_not_utf8_counts(self) -> None:
        self.node.add_overlay('caf\udce9', SHA)
        self.assert_users('caf\udce9')

    def test_the_whole_chain_counts_for_the_guest_on_top(self) -> None:
        self.node.add_overlay('snapshots', SHA, disk='first')
        first = os.path.join(self.node.layout.instances, 'snapshots', 'first')
        second = self.node.add_overlay(GUEST, first, 'second', 'qcow2')
        self.node.add_overlay(GUEST, second, 'disk', 'qcow2')
        self.assert_users('snapshots', GUEST)

    def test_a_disk_of_the_same_name_elsewhere_is_not_in_the_chain(
        self,
    ) -> None:
        self.node.add_overlay(GUEST, SHA)
        self.node.add_base(RESIZED, size=base.MIB)
        disk = self.node.add_overlay(OTHER, RESIZED)
        self.node.add_overlay(OTHER, disk, 'snapshot', 'qcow2')
        testimony = self.look()
        self.assertEqual({GUEST}, testimony.users[SHA])
        self.assertEqual({OTHER}, testimony.users[RESIZED])

    def test_a_base_file_in_a_chain_counts(self) -> None:
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.node.base_path(SHA),
            '-F', 'raw', self.node.base_path(RESIZED),
        )  # fmt: skip
        self.node.add_overlay(GUEST, RESIZED, form='qcow2')
        testimony = self.look()
        self.assertEqual({GUEST, RESIZED}, testimony.users[SHA])
        self.assertEqual({GUEST}, testimony.users[RESIZED])

    def test_a_base_file_that_names_itself_has_no_user(self) -> None:
        path = self.node.base_path(RESIZED)
        nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        nodes.qemu_img('rebase', '-u', '-b', path, '-F', 'raw', path)
        self.assertEqual({}, self.look().users)

    def test_an_external_data_file_counts(self) -> None:
        path = os.path.join(self.node.add_directory(GUEST), 'disk')
        nodes.qemu_img(
            'create', '-f', 'qcow2',
            '-o', f'data_file={self.node.base_path("f" * 40)}', path, '1M',
        )  # fmt: skip
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({'f' * 40: {GUEST}}, witness.look(['f' * 40]).users)

    def test_a_directory_behind_a_symbolic_link_counts(self) -> None:
        elsewhere = os.path.join(self.temporary, 'elsewhere')
        self.node.add_overlay(GUEST, SHA)
        directory = os.path.join(self.node.layout.instances, GUEST)
        os.rename(directory, elsewhere)
        os.symlink(elsewhere, directory)
        self.assert_users(GUEST)

    def test_a_link_out_of_the_instances_is_not_walked_but_named(
        self,
    ) -> None:
        directory = self.node.add_directory(GUEST)
        os.symlink('/', os.path.join(directory, 'everything'))
        os.symlink('/', os.path.join(self.node.layout.instances, 'root'))
        opened = self.note_opens()
        failures = [str(veto) for veto in self.look().vetoes]
        self.assertEqual(2, len(failures))
        self.assertIn('everything', ' '.join(failures))
        self.assertEqual(
            [], [path for path in opened if self.temporary not in path]
        )

    def test_links_in_a_circle_end(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        directory = os.path.join(self.node.layout.instances, GUEST)
        os.symlink('..', os.path.join(directory, 'up'))
        os.symlink('.', os.path.join(directory, 'here'))
        self.assert_users(GUEST)

    def test_a_cache_that_is_a_symbolic_link_is_not_taken_for_disks(
        self,
    ) -> None:
        elsewhere = os.path.join(self.temporary, 'elsewhere')
        os.rename(self.node.layout.base, elsewhere)
        os.symlink(elsewhere, self.node.layout.base)
        path = self.node.add_base(RESIZED, data=b'QFI\xfb garbage')
        self.assertTrue(os.path.exists(path))
        self.assert_users()

    def test_a_reference_in_qemus_own_json_counts(self) -> None:
        base_file = self.node.base_path(SHA)
        name = (
            "json:{'driver':'raw','file':{'driver':'file','filename':'"
            f"{base_file}'}}}}"
        )
        path = os.path.join(self.node.add_directory(GUEST), 'disk')
        nodes.qemu_img('create', '-f', 'qcow2', '-b', name, '-F', 'raw', path)
        self.assertEqual(2, len(nodes.backing_chain(path)))
        self.assert_users(GUEST)

    @ddt.data('golden', f'{SHA}.qcow2')
    def test_a_chain_through_a_file_of_no_pattern_counts(
        self, name: str
    ) -> None:
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', SHA, '-F', 'raw',
            self.node.base_path(name),
        )  # fmt: skip
        self.node.add_overlay(GUEST, name, form='qcow2')
        self.assert_users(GUEST, name)

    def test_an_overlay_with_the_name_of_its_base_counts(self) -> None:
        self.node.add_overlay(GUEST, SHA, disk=SHA)
        self.assert_users(GUEST)

    def test_a_link_to_a_base_file_in_a_chain_counts(self) -> None:
        link = os.path.join(self.node.add_directory(GUEST), 'parent')
        os.symlink(f'../_base/{SHA}', link)
        self.node.add_overlay(GUEST, link)
        self.assert_users(GUEST)

    def test_a_link_in_the_cache_counts(self) -> None:
        other = 'f' * 40
        os.symlink(SHA, self.node.base_path(other))
        self.node.add_overlay(GUEST, other)
        self.assert_users(GUEST, other)

    def test_locks_are_not_even_opened(self) -> None:
        # Closing one would drop it for the whole process.
        self.node.add_file('locks', f'nova-{SHA}')
        opened = self.note_opens()
        self.assert_users()
        self.assertEqual([], [path for path in opened if 'locks' in path])

    def test_a_missing_base_file_is_told(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        os.unlink(self.node.base_path(SHA))
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({SHA: {GUEST}}, witness.look([]).missing)


@ddt.ddt
class HostileTest(OverlaysTestCase):
    """Names in headers are compared, never opened."""

    @ddt.data(
        '/etc/shadow',
        '/dev/null',
        '/proc/self/mem',
        'json:{"driver": "file", "filename": "/etc/shadow"}',
        'json:{"file": {"driver": "nbd", "host": "127.0.0.1"}}',
        'nbd://127.0.0.1/x',
        '../../../../etc/shadow',
        'a' * 1023,
        '/' * 1023,
        '.',
        '..',
    )
    def test_a_name_is_never_opened(self, name: str) -> None:
        path = os.path.join(self.node.add_directory(GUEST), 'disk')
        nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        self.node.add_overlay(OTHER, SHA)
        opened = self.note_opens()
        self.assert_users(OTHER)
        before = sorted(opened)
        nodes.qemu_img('rebase', '-u', '-b', name, '-F', 'raw', path)
        opened.clear()
        # It leads out of sight, and that is told.
        testimony = self.look()
        self.assertEqual({OTHER}, testimony.users[SHA])
        self.assertEqual({path}, {veto.subject for veto in testimony.vetoes})
        # The same as without the name, by the same paths.
        self.assertIn(path, before)
        self.assertEqual(before, sorted(opened))

    def test_a_disk_that_names_itself_is_read_once(self) -> None:
        path = os.path.join(self.node.add_directory(GUEST), 'disk')
        nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        nodes.qemu_img('rebase', '-u', '-b', 'disk', '-F', 'qcow2', path)
        opened = self.note_opens()
        self.assert_users()
        self.assertEqual(1, opened.count(path))

    def test_a_loop_of_disks_ends(self) -> None:
        one = self.node.add_overlay(GUEST, SHA, disk='one')
        two = self.node.add_overlay(GUEST, one, disk='two', form='qcow2')
        nodes.qemu_img('rebase', '-u', '-b', two, '-F', 'qcow2', one)
        self.assert_users()

    def test_a_raw_disk_with_a_forged_header_can_only_protect(self) -> None:
        forged = self.node.add_overlay(GUEST, SHA)
        with open(forged, 'rb') as file:
            data = file.read()
        self.node.add_file(OTHER, 'disk', data=data)
        self.assert_users(GUEST, OTHER)


@ddt.ddt
class FailureTest(OverlaysTestCase):
    """What it cannot read, it counts as having seen everything."""

    def setUp(self) -> None:
        super().setUp()
        self.node.add_overlay(OTHER, SHA)

    def assert_failure(self, *words: str) -> None:
        testimony = self.look()
        (failure,) = testimony.vetoes
        for word in words:
            self.assertIn(word, str(failure))
        # The others still testify.
        self.assertEqual({OTHER}, testimony.users[SHA])

    def test_an_unreadable_disk_is_named(self) -> None:
        os.chmod(self.node.add_overlay(GUEST, SHA), 0)
        with nodes.unprivileged():
            self.assert_failure(GUEST, 'Permission denied')

    def test_an_unreadable_directory_is_named(self) -> None:
        os.chmod(self.node.add_directory(GUEST), 0)
        with nodes.unprivileged():
            self.assert_failure(GUEST, 'Permission denied')

    @ddt.data('console.log', 'console.log.0', 'disk.info')
    def test_an_unreadable_log_is_no_failure(self, name: str) -> None:
        os.chmod(self.node.add_file(GUEST, name), 0)
        with nodes.unprivileged():
            self.assert_users(OTHER)

    def test_the_state_of_a_vtpm_is_no_disk(self) -> None:
        os.chmod(self.node.add_directory(GUEST, 'swtpm'), 0)
        with nodes.unprivileged():
            self.assert_users(OTHER)

    def test_what_fsck_found_is_roots_and_no_guests(self) -> None:
        os.chmod(self.node.add_directory('lost+found'), 0)
        with nodes.unprivileged():
            self.assert_users(OTHER)

    def test_a_read_error_is_named(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        # Mocked: a disk that fails to order needs root and a block device.
        real = os.pread

        def pread(fd: int, length: int, offset: int) -> bytes:
            if GUEST in os.readlink(f'/proc/self/fd/{fd}'):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, length, offset)

        self.patch(os, 'pread', pread)
        self.assert_failure(GUEST, 'Input/output error')

    def test_a_damaged_header_is_named(self) -> None:
        self.node.add_file(GUEST, 'disk', data=b'QFI\xfb' + b'\xff' * 100)
        self.assert_failure(GUEST, 'damaged')

    def test_a_damaged_header_in_a_raw_disk_is_the_guests_affair(
        self,
    ) -> None:
        path = self.node.add_file(
            GUEST, 'disk', data=b'QFI\xfb' + b'\xff' * 100
        )
        info = json.dumps({path: 'raw'}).encode()
        self.node.add_file(GUEST, 'disk.info', data=info)
        self.assert_users(OTHER)

    @ddt.data(b'', b'[1]', b'{"disk": 5}', b'[' * 100000, b'\xff')
    def test_a_disk_info_that_is_garbage_excuses_nothing(
        self, data: bytes
    ) -> None:
        self.node.add_file(GUEST, 'disk', data=b'QFI\xfb' + b'\xff' * 100)
        self.node.add_file(GUEST, 'disk.info', data=data)
        self.assert_failure(GUEST, 'damaged')

    def test_a_disk_info_that_is_a_fifo_is_not_waited_for(self) -> None:
        self.node.add_file(GUEST, 'disk', data=b'QFI\xfb' + b'\xff' * 100)
        directory = self.node.add_directory(GUEST)
        os.mkfifo(os.path.join(directory, 'disk.info'))
        self.assert_failure(GUEST, 'damaged')

    def test_a_link_to_nothing_is_named(self) -> None:
        directory = self.node.add_directory(GUEST)
        os.symlink('/no/such/disk', os.path.join(directory, 'disk'))
        self.assert_failure(GUEST, 'nothing')

    def test_a_fifo_and_a_device_are_no_disks(self) -> None:
        directory = self.node.add_directory(GUEST)
        os.mkfifo(os.path.join(directory, 'fifo'))
        os.symlink('/dev/null', os.path.join(directory, 'device'))
        opened = self.note_opens()
        self.assert_users(OTHER)
        for name in ('fifo', 'device'):
            self.assertNotIn(os.path.join(directory, name), opened)

    def test_an_unreadable_base_file_is_noted_and_no_failure(self) -> None:
        os.chmod(self.node.add_base(RESIZED), 0)
        with nodes.unprivileged():
            testimony = self.look()
        self.assertEqual((), testimony.vetoes)
        self.assertIn(RESIZED, testimony.notes[0])

    def test_a_missing_instances_path_is_a_failure(self) -> None:
        layout = layouts.Layout('/no/such', '/no/such/_base')
        testimony = overlays.OverlayWitness(layout).look([SHA])
        self.assertIn('/no/such', str(testimony.vetoes[0]))


class RootTest(OverlaysTestCase):
    """Disks that only root may read, for a host that lends a way to."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = self.node.add_overlay(GUEST, SHA)
        with open(self.disk, 'rb') as file:
            self.data = file.read()
        os.chmod(self.disk, 0)
        self.asked: list[str] = []

    def read(self, path: str, offset: int, length: int) -> bytes:
        self.asked.append(path)
        return self.data[offset : offset + length]

    def look_as(self, read: host.ReadAsRoot) -> testimonies.Testimony:
        witness = overlays.OverlayWitness(
            self.node.layout, host.Host(read_as_root=read)
        )
        with nodes.unprivileged():
            return witness.look([SHA, RESIZED])

    def assert_failure(self, read: host.ReadAsRoot, text: str) -> None:
        (failure,) = self.look_as(read).vetoes
        self.assertIn(self.disk, str(failure))
        self.assertIn('Permission denied', str(failure))
        self.assertIn(text, str(failure))

    def test_an_unreadable_disk_is_read_as_root(self) -> None:
        testimony = self.look_as(self.read)
        self.assertEqual((), testimony.vetoes)
        self.assertEqual({GUEST}, testimony.users[SHA])

    def test_a_chain_through_an_unreadable_disk_is_followed(self) -> None:
        os.chmod(self.disk, 0o644)
        self.node.add_overlay(OTHER, self.disk, disk='top', form='qcow2')
        os.chmod(self.disk, 0)
        self.assertEqual({GUEST, OTHER}, self.look_as(self.read).users[SHA])

    def test_root_reads_nothing_that_can_be_read_without(self) -> None:
        self.node.add_overlay(OTHER, SHA)
        self.look_as(self.read)
        self.assertEqual({self.disk}, set(self.asked))

    def test_whatever_the_host_raises_names_the_disk(self) -> None:
        def read(path: str, offset: int, length: int) -> bytes:
            raise RuntimeError('its daemon is gone')

        self.assert_failure(read, 'its daemon is gone')

    def test_less_than_there_is_does_not_pass_for_a_raw_disk(self) -> None:
        self.assert_failure(lambda *args: self.read(*args)[:-1], 'less')

    def test_a_disk_that_only_root_cannot_find_is_not_gone(self) -> None:
        def read(path: str, offset: int, length: int) -> bytes:
            raise FileNotFoundError(errno.ENOENT, 'in another container')

        self.assert_failure(read, 'in another container')

    def test_a_disk_that_vanishes_is_no_failure(self) -> None:
        os.chmod(os.path.dirname(self.disk), 0o777)

        def read(path: str, offset: int, length: int) -> bytes:
            os.unlink(path)
            raise FileNotFoundError(errno.ENOENT, 'gone')

        testimony = self.look_as(read)
        self.assertEqual(((), {}), (testimony.vetoes, testimony.users))

    def test_a_damaged_header_is_named(self) -> None:
        self.data = self.data[:8] + b'\xff' * (len(self.data) - 8)
        (failure,) = self.look_as(self.read).vetoes
        self.assertIn('damaged', str(failure))

    def test_an_unreadable_directory_is_still_a_failure(self) -> None:
        os.chmod(self.node.add_directory(OTHER), 0)
        (failure,) = self.look_as(self.read).vetoes
        self.assertIn(OTHER, str(failure))

    def test_an_unreadable_log_is_not_asked_for(self) -> None:
        os.chmod(self.node.add_file(GUEST, 'console.log'), 0)
        self.assertEqual((), self.look_as(self.read).vetoes)
        self.assertEqual({self.disk}, set(self.asked))


@ddt.ddt
class ChangingTest(OverlaysTestCase):
    """Directories that are renamed while they are read."""

    def at_first_listing(self, change: Callable[[], Any]) -> None:
        """Do something between the listing of the top and all else."""
        real = os.scandir
        done: list[bool] = []

        def scandir(path: Any) -> Any:
            entries = real(path)
            if not done:
                done.append(True)
                change()
            return entries

        self.patch(os, 'scandir', scandir)
        self.addCleanup(self.assertEqual, [True], done)

    def rename(self) -> None:
        directory = os.path.join(self.node.layout.instances, GUEST)
        os.rename(directory, directory + '_resize')

    def test_a_directory_renamed_after_it_was_listed_is_found(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        self.at_first_listing(self.rename)
        self.assert_users(GUEST)

    def test_a_directory_that_vanishes_is_no_failure(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        directory = os.path.join(self.node.layout.instances, GUEST)
        self.at_first_listing(lambda: shutil.rmtree(directory))
        self.assert_users()

    def test_a_disk_that_vanishes_is_no_failure(self) -> None:
        path = self.node.add_overlay(GUEST, SHA)
        other = self.node.add_overlay(OTHER, SHA)
        real = os.open

        def open_late(name: Any, *args: Any, **kwargs: Any) -> int:
            if name == path and os.path.exists(path):
                os.unlink(path)
            return real(name, *args, **kwargs)

        self.patch(os, 'open', open_late)
        self.assert_users(OTHER)
        self.assertTrue(os.path.exists(other))

    def test_a_tree_that_never_holds_still_is_a_failure(self) -> None:
        directory = self.node.add_directory(GUEST)
        real = os.scandir

        def scandir(path: Any) -> Any:
            os.rename(directory, directory + 'x')
            os.rename(directory + 'x', directory)
            return real(path)

        self.patch(os, 'scandir', scandir)
        self.assertIn('changes', self.look().vetoes[0].problem)

    def test_a_directory_renamed_all_the_time_is_never_missed(self) -> None:
        self.node.add_overlay(GUEST, SHA)
        directory = os.path.join(self.node.layout.instances, GUEST)
        stop = threading.Event()

        def rename_to_and_fro() -> None:
            while not stop.is_set():
                os.rename(directory, directory + '_resize')
                os.rename(directory + '_resize', directory)

        thread = threading.Thread(target=rename_to_and_fro)
        thread.start()
        try:
            for _attempt in range(300):
                testimony = self.look()
                self.assertTrue(
                    testimony.vetoes or SHA in testimony.users,
                    'said that nobody uses it',
                )
        finally:
            stop.set()
            thread.join()

    def test_only_the_last_look_asks_each_directory_whether_it_changed(
        self,
    ) -> None:
        directory = self.node.add_directory(GUEST)
        asked: list[str] = []
        real = walks.Walk._now

        def now(walk: walks.Walk, path: str) -> Any:
            asked.append(path)
            return real(walk, path)

        self.patch(walks.Walk, '_now', now)
        witness = overlays.OverlayWitness(self.node.layout)
        witness.look([SHA])
        self.assertEqual([self.node.layout.instances], asked)
        witness.look_again([SHA])
        self.assertIn(directory, asked)

    def test_looking_again_sees_a_disk_that_was_moved_meanwhile(self) -> None:
        """To a directory that had been listed, from one that had not."""
        disk = self.node.add_overlay(GUEST, SHA)
        other = self.node.add_directory(OTHER)
        real: Any = walks.Walk._list
        before: list[walks.Stamp] = []

        def list_(walk: walks.Walk, directory: str) -> Any:
            if directory == os.path.dirname(disk) and not before:
                before.append(walks.stamp(other))
                os.rename(disk, os.path.join(other, 'disk'))
            elif directory == other and len(before) == 1:
                # As it was, whichever of the two is listed first.
                before.append(before[0])
                return before[0], []
            return real(walk, directory)

        # Settled, so that nothing but the change itself tells.
        self.patch(walks, '_TICK_NANOSECONDS', 0)
        self.patch(walks, '_GRAIN_NANOSECONDS', 0)
        self.patch(walks.Walk, '_list', list_)
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({}, witness.look([SHA]).users)
        self.assertEqual({OTHER}, witness.look_again([SHA]).users[SHA])

    def test_looking_again_sees_an_overlay_made_since(self) -> None:
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({}, witness.look([SHA]).users)
        self.node.add_overlay(GUEST, SHA)
        self.assertEqual({GUEST}, witness.look_again([SHA]).users[SHA])

    @ddt.data(False, True)
    def test_looking_again_sees_a_header_written_in_place(
        self, settled: bool
    ) -> None:
        """Also where the times of the directory are old, and stay as they are.

        It is read again then because of the disk alone.
        """
        if settled:
            # Its change time cannot be set.
            self.patch(walks, '_TICK_NANOSECONDS', 0)
        finished = self.node.add_overlay(GUEST, SHA)
        with open(finished, 'rb') as file:
            data = file.read()
        os.unlink(finished)
        path = self.node.add_file(OTHER, 'disk')
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({}, witness.look([SHA]).users)
        with open(path, 'r+b') as file:
            file.write(data)
        self.assertEqual({OTHER}, witness.look_again([SHA]).users[SHA])

    def test_looking_again_sees_a_header_written_to_a_base_file(self) -> None:
        path = self.node.add_base(RESIZED)
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({}, witness.look([SHA]).users)
        overlay = self.node.add_overlay(GUEST, SHA)
        with open(overlay, 'rb') as source, open(path, 'r+b') as file:
            file.write(source.read(4096))
        os.unlink(overlay)
        self.node.add_base('f' * 40)
        self.assertEqual({RESIZED}, witness.look_again([SHA]).users[SHA])

    def test_a_guest_that_never_rests_keeps_nobody_from_looking(self) -> None:
        self.node.add_overlay(OTHER, SHA)
        directory = self.node.add_directory(GUEST)
        real = walks.Walk.changed
        rounds: list[None] = []

        def changed(
            walk: walks.Walk, among: Iterable[str] | None = None
        ) -> list[str]:
            if among is None:
                rounds.append(None)
                self.node.add_file(GUEST, f'console.log.{len(rounds)}')
            return real(walk, among)

        self.patch(walks.Walk, 'changed', changed)
        witness = overlays.OverlayWitness(self.node.layout)
        testimony = witness.look([SHA])
        self.assertEqual((), testimony.vetoes)
        self.assertEqual({OTHER}, testimony.users[SHA])
        # And at the last moment it is read once more.
        self.node.add_overlay(GUEST, SHA)
        self.assertIn(directory, witness._walk.recent)
        self.assertEqual({GUEST, OTHER}, witness.look_again([SHA]).users[SHA])

    def test_looking_again_does_not_trust_times_that_are_too_new_to_tell(
        self,
    ) -> None:
        directory = self.node.add_directory(GUEST)
        real = walks.stamp
        stamps: dict[str, Any] = {}

        # Mocked: the clock of the file system cannot be stopped.
        def stamp(path: str, fd: int | None = None) -> Any:
            return stamps.setdefault(path, real(path, fd))

        self.patch(walks, 'stamp', stamp)
        witness = overlays.OverlayWitness(self.node.layout)
        self.assertEqual({}, witness.look([SHA]).users)
        self.node.add_overlay(GUEST, SHA)
        self.assertIn(directory, stamps)
        self.assertEqual({GUEST}, witness.look_again([SHA]).users[SHA])

    @ddt.data((3, True, False), (1, True, True), (3, False, True))
    @ddt.unpack
    def test_by_the_clock_of_the_storage_times_tell_after_two_seconds(
        self, seconds: int, known: bool, recent: bool
    ) -> None:
        directory = self.node.add_directory(GUEST)
        status = os.stat(directory)
        clock = walks.StorageClock(
            status.st_dev if known else 0,
            status.st_ctime_ns + seconds * 10**9,
            time.monotonic_ns() + 10**8,
        )
        witness = overlays.OverlayWitness(self.node.layout, clock=clock)
        witness.look([SHA])
        self.assertIs(recent, directory in witness._walk.recent)

    def memory_of(self, directory: str, **times: int) -> memories.Memory:
        """Remember a directory as it is, but for some of its times."""
        status = os.stat(directory)
        modified = times.get('modified', status.st_mtime_ns)
        version = status.st_ino, modified, status.st_ctime_ns
        return memories.Memory(
            inventories.Inventory(directories={directory: version})
        )

    def test_times_tell_that_were_noted_long_before(self) -> None:
        directory = self.node.add_directory(GUEST)
        witness = overlays.OverlayWitness(
            self.node.layout, memory=self.memory_of(directory), settled=True
        )
        witness.look([SHA])
        self.assertNotIn(directory, witness._walk.recent)
        self.node.add_overlay(GUEST, SHA)
        self.assertEqual({GUEST}, witness.look_again([SHA]).users[SHA])

    def test_times_do_not_tell_that_were_noted_just_now(self) -> None:
        directory = self.node.add_directory(GUEST)
        witness = overlays.OverlayWitness(
            self.node.layout, memory=self.memory_of(directory)
        )
        witness.look([SHA])
        self.assertIn(directory, witness._walk.recent)

    def test_times_do_not_tell_that_are_others_than_were_noted(self) -> None:
        directory = self.node.add_directory(GUEST)
        memory = self.memory_of(directory, modified=5)
        witness = overlays.OverlayWitness(
            self.node.layout, memory=memory, settled=True
        )
        witness.look([SHA])
        self.assertIn(directory, witness._walk.recent)

    def test_whole_seconds_do_not_tell_though_noted_long_before(self) -> None:
        directory = self.node.add_directory(GUEST)
        os.utime(directory, (5, 5))
        witness = overlays.OverlayWitness(
            self.node.layout, memory=self.memory_of(directory), settled=True
        )
        witness.look([SHA])
        self.assertIn(directory, witness._walk.recent)

    def test_looking_again_asks_each_directory_once_though_files_went(
        self,
    ) -> None:
        self.patch(walks, '_TICK_NANOSECONDS', 0)
        guest = self.node.add_directory(GUEST)
        self.node.add_file('_base', SHA)
        self.node.add_file('_base', f'{SHA}_20')
        witness = overlays.OverlayWitness(self.node.layout)
        witness.look([SHA, f'{SHA}_20'])
        os.unlink(self.node.layout.file(f'{SHA}_20'))
        asked: list[str] = []
        real = walks.Walk._now

        def now(walk: walks.Walk, directory: str) -> Any:
            asked.append(directory)
            return real(walk, directory)

        self.patch(walks.Walk, '_now', now)
        witness.look_again([SHA])
        self.assertEqual(1, asked.count(guest))

    def test_looking_again_reads_only_what_has_changed(self) -> None:
        self.patch(walks, '_TICK_NANOSECONDS', 0)
        self.node.add_overlay(OTHER, SHA)
        witness = overlays.OverlayWitness(self.node.layout)
        witness.look([SHA])
        self.node.add_overlay(GUEST, SHA)
        opened = self.note_opens()
        self.assertEqual({GUEST, OTHER}, witness.look_again([SHA]).users[SHA])
        disks = {path for path in opened if path.endswith('disk')}
        self.assertEqual(
            {os.path.join(self.node.layout.instances, GUEST, 'disk')}, disks
        )
