# SPDX-License-Identifier: Apache-2.0

"""What a pass believes of directories that are as they were, and what not."""

from collections.abc import Callable
import dataclasses
import os
import shutil
import threading
import time
from typing import Any
from unittest import mock

import ddt
import hypothesis
from hypothesis import strategies as st
import msgspec

from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import scans
from nova_imagecache import names
from nova_imagecache.passes import foresight
from nova_imagecache.passes import look
from nova_imagecache import pools
from nova_imagecache.witnesses import chain_ends
from nova_imagecache.witnesses import findings
from nova_imagecache.witnesses import headers
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import walks
from tests.support import nodes
from tests.support import seeing

GUEST = seeing.GUEST
OTHER = seeing.OTHER
THIRD = seeing.THIRD
MORE = names.get_cache_fname('more')

# Of the extension that has the format of the backing file. qemu-img before
# release 6.1 left that out, where nobody told.
_FORMAT = b'\xe2\x79\x2a\xca'


class GlanceTestCase(seeing.SeeingTestCase):
    """A node with guests on one base file, all of it seen by a pass."""

    def setUp(self) -> None:
        super().setUp()
        # What changes a moment after a pass is told apart by its times here.
        self.patch(walks, '_GRAIN_NANOSECONDS', 0)
        self.other = self.node.add_overlay(OTHER, self.used)
        self.node.configure(remove_unused=False)
        self.node.run()
        self.opened: list[str] = []

    def note_headers(self) -> list[str]:
        """Give the paths of the files whose headers are read from now on."""
        read: list[str] = []
        real = headers.read

        def spy(path: str, *args: Any, **kwargs: Any) -> Any:
            read.append(path)
            return real(path, *args, **kwargs)

        self.patch(headers, 'read', spy)
        return read

    def spy_on_opens(self) -> None:
        self.opened = self.note_opens()

    def opened_of(self, guest: str) -> list[str]:
        return [path for path in self.opened if guest in path]

    def users_of(self, name: str) -> tuple[str, ...]:
        (found,) = [
            file for file in self.node.run().files if file.name == name
        ]
        return found.users

    def inventory(self) -> inventories.Inventory:
        return inventories.load(self.node.layout, self.node.settings.host)

    def add_disk(self) -> None:
        """Have a disk more in the directory of a guest."""
        made = self.node.add_overlay(THIRD, self.free)
        os.rename(made, os.path.join(self.top, GUEST, 'disk.more'))
        os.rmdir(os.path.dirname(made))

    def rewrite(self, path: str, base_file: str) -> None:
        """Have a disk stand on another file, with its size and times kept.

        And its directory as it is.
        """
        before = os.stat(path)
        nodes.qemu_img(
            'rebase', '-u', '-F', 'raw', '-b',
            self.node.base_path(base_file), path,
        )  # fmt: skip
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def may_remove(self) -> None:
        self.node.configure(remove_unused=True)


@ddt.ddt
class QuietTest(GlanceTestCase):
    """Where nothing has changed, and nothing goes."""

    def test_no_directory_of_a_guest_is_listed_and_no_disk_is_read(
        self,
    ) -> None:
        self.spy_on_opens()
        self.assertEqual((GUEST, OTHER), self.users_of(self.used))
        self.assertEqual([], self.opened_of(GUEST) + self.opened_of(OTHER))

    def test_nor_is_the_header_of_a_base_file(self) -> None:
        read = self.note_headers()
        self.node.run()
        self.assertEqual([], read)

    def test_nor_is_a_base_file_looked_at_that_was_just_seen(self) -> None:
        # It has no say in that, but to tell whether locks tell takes a look.
        self.node.configure(witnesses=('overlays',))
        asked: list[str] = []
        real = os.lstat

        def spy(path: Any, **kwargs: Any) -> os.stat_result:
            asked.append(path)
            return real(path, **kwargs)

        self.patch(os, 'lstat', spy)
        self.node.run()
        paths = {*map(self.node.base_path, (self.used, self.free))}
        self.assertEqual(set(), paths & {*asked})

    def visited(self) -> list[str]:
        """Make a pass; give the names that it has come to in the cache."""
        found: list[str] = []
        real = findings.Findings.visit

        def spy(them: Any, entry: walks.Entry, read: Any) -> None:
            if entry.directory == self.node.layout.base:
                found.append(entry.name)
            real(them, entry, read)

        with mock.patch.object(findings.Findings, 'visit', spy):
            self.node.run()
        return found

    @ddt.data(False, True)
    def test_nor_is_one_asked_for_locks_of_which_a_disk_shows_a_user(
        self, all_used: bool
    ) -> None:
        """But for one, where none is left to tell whether locks tell."""
        if all_used:
            os.unlink(self.node.base_path(self.free))
        asked: list[str] = []
        real = qemu_locks.look

        def spy(path: str) -> qemu_locks.Seen:
            asked.append(os.path.basename(path))
            return real(path)

        self.patch(qemu_locks, 'look', spy)
        self.node.run()
        self.assertEqual({self.used if all_used else self.free}, {*asked})

    def test_nor_is_the_cache_gone_through_once_more(self) -> None:
        self.assertEqual([], self.visited())
        self.assertEqual([], self.visited())

    @ddt.data('qcow2', 'link', 'garbage', 'somebody\'s')
    def test_but_with_more_in_it_than_plain_files(self, what: str) -> None:
        path = self.node.base_path(MORE)
        if what == 'qcow2':
            nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        elif what == 'link':
            os.symlink(self.node.base_path(self.used), path)
        else:
            if what == 'somebody\'s':
                path = self.node.base_path('somebody\'s')
            with open(path, 'wb') as file:
                file.write(b'QFI\xfb' + bytes(4092))
        self.node.run()
        self.assertIn(self.used, self.visited())

    def test_nor_where_one_was_written_in_place(self) -> None:
        os.truncate(self.node.base_path(self.used), 2**21)
        self.assertIn(self.used, self.visited())

    def test_what_comes_into_the_cache_is_read(self) -> None:
        path = self.node.base_path(MORE)
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-F', 'raw',
            '-b', self.node.base_path(self.free), path,
        )  # fmt: skip
        self.assertNotEqual((), self.users_of(self.free))

    @ddt.data(
        (findings.Findings, 'visit'), (overlays.OverlayWitness, '_users')
    )
    @ddt.unpack
    def test_a_look_that_fails_half_way_is_not_what_the_next_goes_by(
        self, where: Any, what: str
    ) -> None:
        made = self.node.add_overlay(THIRD, self.free)
        self.assertTrue(os.path.exists(made))
        inventories.forget(self.node.layout, self.node.settings.host)

        def fail(*_args: Any) -> Any:
            raise MemoryError

        with mock.patch.object(where, what, fail):
            report = self.node.run()
        self.assertIn('OverlayWitness', ' '.join(map(str, report.vetoes)))
        self.assertEqual((GUEST, OTHER), self.users_of(self.used))
        self.assertEqual((THIRD,), self.users_of(self.free))

    def test_what_is_noted_for_the_next_pass_stays_as_it_is(self) -> None:
        path = inventories.path_of(self.node.layout, self.node.settings.host)
        before = os.stat(path)
        self.node.run()
        self.node.run()
        self.assertEqual(before.st_ino, os.stat(path).st_ino)

    def test_a_disk_that_is_new_is_seen(self) -> None:
        self.node.add_overlay(THIRD, self.free)
        self.assertEqual((THIRD,), self.users_of(self.free))

    def test_so_is_one_in_a_directory_that_was_there(self) -> None:
        self.add_disk()
        self.spy_on_opens()
        self.assertEqual((GUEST,), self.users_of(self.free))
        self.assertNotEqual([], self.opened_of(GUEST))
        self.assertEqual([], self.opened_of(OTHER))

    def test_so_is_one_in_a_directory_below(self) -> None:
        below = os.path.join(self.top, GUEST, 'below')
        os.mkdir(below)
        self.node.run()
        os.rename(self.other, os.path.join(below, 'disk'))
        self.spy_on_opens()
        self.assertEqual((GUEST,), self.users_of(self.used))
        self.assertIn(below, self.opened)

    def test_a_guest_that_has_gone_is_no_user(self) -> None:
        os.unlink(self.other)
        os.rmdir(os.path.dirname(self.other))
        self.assertEqual((GUEST,), self.users_of(self.used))

    def test_one_that_goes_meanwhile_with_its_base_file_misses_nothing(
        self,
    ) -> None:
        real = chain_ends.follow

        def follow(*args: Any) -> Any:
            shutil.rmtree(self.path(THIRD))
            os.unlink(self.node.base_path(gone))
            return real(*args)

        gone = self.node.add_image('gone', age=seeing.OLD)
        self.node.add_overlay(THIRD, gone)
        os.rename(self.node.base_path(gone), self.path('gone'))
        self.assertEqual(1, len(self.node.run().problems))
        os.rename(self.path('gone'), self.node.base_path(gone))
        self.patch(scans, 'scan', self.without(gone))
        self.patch(chain_ends, 'follow', follow)
        self.assertEqual((), self.node.run().problems)

    def without(self, name: str) -> Callable[..., Any]:
        """List the cache as it was before a file was fetched."""
        real = scans.scan

        def scan(layout: layouts.Layout) -> scans.Scan:
            found = real(layout)
            files = tuple(file for file in found.files if file.name != name)
            return found._replace(files=files)

        return scan

    def test_a_guest_whose_directory_is_renamed_is_one(self) -> None:
        directory = os.path.join(self.top, GUEST)
        os.rename(directory, f'{directory}_resize')
        self.assertEqual((GUEST, OTHER), self.users_of(self.used))

    @ddt.data('link', 'garbage', 'layer')
    def test_what_is_no_plain_disk_is_looked_at_each_time(
        self, what: str
    ) -> None:
        path = os.path.join(self.top, GUEST, 'more')
        if what == 'link':
            os.symlink(self.other, path)
        elif what == 'garbage':
            with open(path, 'wb') as file:
                file.write(b'QFI\xfb' + bytes(4092))
        else:
            nodes.qemu_img(
                'create', '-f', 'qcow2', '-F', 'qcow2', '-b', self.disk, path
            )
        self.node.run()
        self.spy_on_opens()
        self.node.run()
        self.assertNotEqual([], self.opened_of(GUEST))
        self.assertEqual([], self.opened_of(OTHER))

    def test_what_was_changed_a_moment_ago_is_listed_again(self) -> None:
        self.patch(walks, '_GRAIN_NANOSECONDS', 10**15)
        self.add_disk()
        self.node.run()
        self.spy_on_opens()
        self.node.run()
        self.assertNotEqual([], self.opened_of(GUEST))

    def test_after_a_day_all_is_read(self) -> None:
        self.patch(overlays, '_BELIEVED_SECONDS', 0)
        self.spy_on_opens()
        self.node.run()
        self.assertIn(self.disk, self.opened)
        self.assertIn(self.other, self.opened)

    def test_and_where_the_clock_was_set_back(self) -> None:
        now = time.time()
        self.patch(time, 'time', lambda: now - 3600)
        self.spy_on_opens()
        self.node.run()
        self.assertIn(self.disk, self.opened)

    def test_and_where_other_paths_are_ignored(self) -> None:
        self.node.configure(ignore_paths=('nowhere',))
        self.spy_on_opens()
        self.node.run()
        self.assertIn(self.disk, self.opened)

    def test_an_inventory_that_is_damaged_is_not_believed(self) -> None:
        path = inventories.path_of(self.node.layout, self.node.settings.host)
        with open(path, 'w') as file:
            file.write('garbage')
        self.spy_on_opens()
        self.assertEqual((GUEST, OTHER), self.users_of(self.used))
        self.assertIn(self.disk, self.opened)


class RemovalTest(GlanceTestCase):
    """Where a file would go, nothing is believed."""

    def test_all_disks_are_read_before_a_file_goes(self) -> None:
        self.may_remove()
        self.spy_on_opens()
        report = self.node.run()
        self.assertEqual([self.free], [each.name for each in report.removed])
        self.assertIn(self.disk, self.opened)
        self.assertIn(self.other, self.opened)

    def test_a_header_that_was_written_in_place_keeps_its_base(self) -> None:
        """What would have to change unseen for a glance to be wrong."""
        self.rewrite(self.other, self.free)
        self.assertEqual((), self.users_of(self.free))
        self.may_remove()
        report = self.node.run()
        self.assertEqual((), report.removed)
        self.assertIn(self.free, self.node.files())
        # And it is remembered.
        self.assertEqual((OTHER,), self.users_of(self.free))
        self.assertEqual((GUEST,), self.users_of(self.used))

    def test_one_that_turns_out_to_have_no_user_is_asked_for_locks(
        self,
    ) -> None:
        for disk in (self.disk, self.other):
            self.rewrite(disk, self.free)
        fd = os.open(self.node.base_path(self.used), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        # As QEMU does.
        qemu_locks._share(fd, qemu_locks._USES_READ)
        self.may_remove()
        (used,) = [
            file for file in self.node.run().files if file.name == self.used
        ]
        self.assertEqual(
            ('a running QEMU has it open', ()), (used.reason, used.users)
        )
        self.assertTrue(used.used)

    def test_so_it_does_before_it_is_deleted_for_good(self) -> None:
        self.may_remove()
        self.node.run()
        self.assertEqual({self.free}, self.node.trash())
        self.node.run()
        self.rewrite(self.other, self.free)
        self.node.clock.wall += seeing.OLD
        self.node.clock.boottime += seeing.OLD
        self.node.run()
        self.assertIn(self.free, self.node.files() | self.node.trash())

    def test_so_it_does_before_it_is_set_aside(self) -> None:
        self.rewrite(self.other, self.free)
        self.assertIsNotNone(self.node.make_pass().set_aside(self.free))
        self.assertIn(self.free, self.node.files())

    def test_a_preview_says_what_a_pass_would_do(self) -> None:
        self.rewrite(self.other, self.free)
        self.may_remove()
        report = self.node.make_pass().preview()
        self.assertEqual((), report.removed)

    def test_the_last_look_finds_no_base_file_that_was_touched(self) -> None:
        called: list[str] = []
        real = removal.remove

        def remove(*args: Any) -> Any:
            called.append('remove')
            return real(*args)

        look_closely = look.look_closely

        def looking(*args: Any) -> Any:
            called.append('look closely')
            return look_closely(*args)

        self.patch(look, 'look_closely', looking)
        self.patch(removal, 'remove', remove)
        self.patch(removal, 'touch', lambda *args: called.append('touch'))
        self.may_remove()
        self.node.run()
        self.assertEqual(['look closely', 'remove', 'touch'], called)

    def test_where_a_file_is_about_to_go_nothing_is_looked_at_twice(
        self,
    ) -> None:
        listed: list[str] = []
        real = walks.Walk._list

        def list_(walk: walks.Walk, directory: str) -> Any:
            listed.append(directory)
            return real(walk, directory)

        self.patch(walks.Walk, '_list', list_)
        self.may_remove()
        self.patch(foresight, 'removes', lambda *args: True)
        self.assertEqual(
            (self.free,),
            tuple(file.name for file in self.node.run().removed),
        )
        self.assertEqual(1, listed.count(os.path.dirname(self.other)))

    def test_who_looks_again_after_a_glance_reads_all(self) -> None:
        layout, host = self.node.layout, self.node.settings.host
        memory = memories.Memory(inventories.load(layout, host))
        witness = overlays.OverlayWitness(layout, None, memory, glance=True)
        witness.look([self.used, self.free])
        self.rewrite(self.other, self.free)
        again = witness.look_again([self.free])
        self.assertEqual({OTHER}, again.users[self.free])

    def test_what_only_this_host_can_see_is_never_believed(self) -> None:
        """Others go by what it notes of that."""
        self.patch(
            overlays.OverlayWitness,
            '_sharing',
            lambda _self: lambda directory: not directory.endswith(OTHER),
        )
        os.unlink(
            inventories.path_of(self.node.layout, self.node.settings.host)
        )
        self.node.run()
        directories = self.inventory().directories
        self.assertIsNone(directories[os.path.dirname(self.other)])
        self.assertIsNotNone(directories[os.path.dirname(self.disk)])


@ddt.ddt
class ReadAsRawTest(GlanceTestCase):
    """Base files that a close look need not read (decision 0101)."""

    def setUp(self) -> None:
        super().setUp()
        self.read = self.note_headers()

    def look(
        self, *named: str, memory: inventories.Inventory | None = None
    ) -> overlays.OverlayWitness:
        """Look closely.

        :param named: disks that libvirt names
        """
        before = self.inventory() if memory is None else memory
        witness = overlays.OverlayWitness(
            self.node.layout, None, memories.Memory(before)
        )
        disks = tuple(
            testimonies.NamedDisk(THIRD, path, path) for path in named
        )
        self.testimony = witness.look(
            [self.used, self.free], testimonies.Testimony(disks=disks)
        )
        return witness

    def is_read(self, name: str) -> bool:
        return self.node.base_path(name) in self.read

    def chain(self) -> None:
        """Have the base file in use name the other one, by what it holds."""
        made = self.node.add_overlay(THIRD, self.free)
        with open(made, 'rb') as source:
            header = source.read(4096)
        shutil.rmtree(os.path.dirname(made))
        with open(self.node.base_path(self.used), 'r+b') as file:
            file.write(header)

    def test_one_that_all_disks_read_as_raw_is_not(self) -> None:
        self.chain()
        self.look()
        self.assertFalse(self.is_read(self.used))
        self.assertEqual({self.used}, self.testimony.users.keys())
        self.assertIn(self.disk, self.read)
        self.assertIn(self.other, self.read)

    def test_one_that_no_disk_reads_is(self) -> None:
        self.look()
        self.assertTrue(self.is_read(self.free))

    @ddt.data('qcow2', 'options', 'nothing', 'link', 'libvirt', 'itself')
    def test_one_that_a_disk_reads_as_anything_else_is(self, as_: str) -> None:
        self.chain()
        directory = self.node.add_directory(THIRD)
        path = os.path.join(directory, 'disk')
        base_path = self.node.base_path(self.used)
        named = []
        if as_ == 'itself':
            named.append(base_path)
        elif as_ == 'link':
            os.symlink(base_path, path)
        elif as_ == 'options':
            self.stand_on(
                'json:{"driver":"qcow2","file":{"driver":"file",'
                f'"filename":"{base_path}"}}}}',
                THIRD,
            )
        else:
            if as_ == 'libvirt':
                path = self.outside('volume')
                named.append(path)
            nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
            nodes.qemu_img(
                'rebase', '-u', '-b', base_path, '-F', 'qcow2', path
            )
        if as_ == 'nothing':
            with open(path, 'r+b') as file:
                header = file.read(4096)
                file.seek(0)
                file.write(header.replace(_FORMAT, b'none'))
        self.look(*named)
        self.assertTrue(self.is_read(self.used))
        users = self.testimony.users[self.free]
        others = set() if as_ == 'itself' else {THIRD}
        self.assertLessEqual({GUEST, OTHER} | others, {*users})

    def test_one_that_comes_to_light_at_the_last_moment_is(self) -> None:
        self.chain()
        witness = self.look()
        self.node.add_overlay(THIRD, self.used, form='qcow2')
        again = witness.look_again([self.free])
        self.assertIn(THIRD, again.users[self.free])

    def test_the_last_look_reads_it_no_more_than_the_first(self) -> None:
        witness = self.look()
        os.unlink(self.node.base_path(self.free))
        witness.look_again([self.free])
        self.assertFalse(self.is_read(self.used))

    @ddt.data('size', 'inode', 'unknown', 'long ago')
    def test_one_that_is_not_known_to_be_raw_is(self, what: str) -> None:
        before = self.inventory()
        path = self.node.base_path(self.used)
        if what == 'size':
            os.truncate(path, os.path.getsize(path) + 512)
        elif what == 'inode':
            shutil.copyfile(path, path + '.part')
            os.rename(path + '.part', path)
        elif what == 'unknown':
            before = dataclasses.replace(before, bases={})
        else:
            before = dataclasses.replace(
                before, looked=time.time() - 25 * 3600
            )
        self.look(memory=before)
        self.assertTrue(self.is_read(self.used))

    def test_it_does_not_count_as_a_look_at_everything(self) -> None:
        before = self.inventory()
        self.assertEqual(before.looked, self.look().inventory().looked)
        self.assertEqual(before.bases, self.look().inventory().bases)


class UnchangedTestCase(GlanceTestCase):
    """Close looks, with a clock of the storage."""

    def setUp(self) -> None:
        super().setUp()
        self.read = self.note_headers()

    def look(
        self,
        seconds: int = 10,
        jumped: bool = False,
        device: int = 0,
        memory: inventories.Inventory | None = None,
    ) -> overlays.OverlayWitness:
        """Look closely, with a clock of the storage.

        :param seconds: by which it is ahead of that of the host, so that
            what is new is of long ago: nobody can set a ctime
        """
        clock = walks.StorageClock(
            os.stat(self.top).st_dev + device,
            time.time_ns() + seconds * 10**9,
            time.monotonic_ns(),
        )
        before = self.inventory() if memory is None else memory
        witness = overlays.OverlayWitness(
            self.node.layout,
            None,
            memories.Memory(before),
            clock=clock,
            jumped=jumped,
        )
        self.users = witness.look([self.used, self.free]).users
        return witness


@ddt.ddt
class UnchangedTest(UnchangedTestCase):
    """Disks that a close look need not read (decision 0102)."""

    def test_one_that_is_as_it_was_is_not_read(self) -> None:
        self.look()
        self.assertEqual([self.node.base_path(self.free)], self.read)
        self.assertEqual({self.used: {GUEST, OTHER}}, self.users)

    def test_one_that_was_written_in_place_is(self) -> None:
        self.rewrite(self.other, self.free)
        self.look()
        self.assertIn(self.other, self.read)
        self.assertNotIn(self.disk, self.read)
        self.assertEqual({self.used: {GUEST}, self.free: {OTHER}}, self.users)

    def test_one_that_is_another_file_is(self) -> None:
        before = os.stat(self.other)
        shutil.copyfile(self.other, self.other + '.new')
        os.rename(self.other + '.new', self.other)
        os.utime(self.other, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.look()
        self.assertIn(self.other, self.read)

    def test_one_that_has_come_is(self) -> None:
        made = self.node.add_overlay(THIRD, self.free)
        self.look()
        self.assertIn(made, self.read)
        self.assertEqual({THIRD}, self.users[self.free])

    @ddt.data(
        # Changed no two seconds before it was read.
        {'seconds': 0},
        {'jumped': True},
        {'device': 1},
    )
    def test_where_times_do_not_tell_all_are(self, how: Any) -> None:
        self.look(**how)
        self.assertLessEqual({self.disk, self.other}, {*self.read})

    @ddt.data('ctime', 'directory', 'disk', 'looked')
    def test_what_was_not_noted_so_is(self, what: str) -> None:
        before = self.inventory()
        disks, directories = dict(before.disks), dict(before.directories)
        if what == 'ctime':
            # As an earlier release has noted it.
            disks[self.other] = msgspec.structs.replace(
                disks[self.other], changed=0
            )
        elif what == 'disk':
            del disks[self.other]
        elif what == 'directory':
            directories[os.path.dirname(self.other)] = None
        looked = before.looked or 0
        if what == 'looked':
            looked -= 25 * 3600
        self.look(
            memory=dataclasses.replace(
                before, disks=disks, directories=directories, looked=looked
            )
        )
        self.assertIn(self.other, self.read)

    def test_the_last_look_reads_what_is_written_meanwhile(self) -> None:
        witness = self.look()
        self.rewrite(self.other, self.free)
        self.node.add_file(OTHER, 'console.log.1')
        again = witness.look_again([self.free])
        self.assertEqual({OTHER}, again.users[self.free])

    def test_what_is_noted_for_the_next_pass_stays_as_it_is(self) -> None:
        # Whatever base files are taken for.
        before = dataclasses.replace(self.inventory(), bases={})
        after = self.look(memory=before).inventory()
        self.assertNotIn(self.disk, self.read)
        self.assertEqual(
            (before.looked, before.disks), (after.looked, after.disks)
        )

    def test_a_pass_that_removes_a_file_reads_none(self) -> None:
        self.may_remove()
        # Mocked: nothing here is of long ago, as a ctime cannot be set.
        shown = time.time() + 100
        self.patch(publish, 'current_time', lambda _path: shown)
        self.node.run()
        self.assertNotIn(self.free, self.node.files())
        self.assertIn(self.used, self.node.files())
        self.assertNotIn(self.disk, self.read)


class RandomTest(UnchangedTestCase):
    """Whatever happens to disks, who remembers some sees the same."""

    def setUp(self) -> None:
        super().setUp()
        self.headers = [bytes(8192)]
        for name in (self.used, self.free):
            made = self.node.add_overlay(THIRD, name)
            with open(made, 'rb') as file:
                header = file.read()
            os.unlink(made)
            self.headers += [header, header.replace(_FORMAT, b'none')]

    def happen(self, what: str, guest: str, header: bytes) -> None:
        directory = self.node.add_directory(guest)
        path = os.path.join(directory, 'disk')
        if what == 'remove':
            shutil.rmtree(directory)
        elif what == 'rename':
            shutil.rmtree(directory + '_resize', ignore_errors=True)
            os.rename(directory, directory + '_resize')
        else:
            times = os.stat(path) if os.path.exists(path) else None
            written = path + '.new' if what == 'replace' or not times else path
            with open(written, 'r+b' if written == path else 'wb') as file:
                file.write(header)
            os.rename(written, path)
            if times is not None:
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def tick(self) -> None:
        """Wait until the file system dates what is written anew."""
        before = publish.current_time(self.temporary)
        while publish.current_time(self.temporary) <= before:
            pass

    @hypothesis.settings(max_examples=30)
    @hypothesis.given(
        st.lists(
            st.lists(
                st.tuples(
                    st.sampled_from(['write', 'replace', 'remove', 'rename']),
                    st.sampled_from([GUEST, OTHER, THIRD]),
                    st.integers(0, 4),
                ),
                max_size=4,
            ),
            min_size=2,
            max_size=5,
        )
    )
    def test_the_users_are_the_same(self, rounds: Any) -> None:
        memory = self.inventory()
        for events in rounds:
            self.tick()
            for what, guest, number in events:
                self.happen(what, guest, self.headers[number])
            witness = self.look(memory=memory)
            fresh = overlays.OverlayWitness(self.node.layout)
            self.assertEqual(
                fresh.look([self.used, self.free]).users, self.users
            )
            memory = witness.inventory()


@ddt.ddt
class HangingTest(GlanceTestCase):
    """A header whose read does not end."""

    def hang(self, path: str) -> None:
        never = threading.Event()
        self.addCleanup(never.set)
        self.patch(pools, 'PATIENCE_SECONDS', 0.05)
        self.patch(headers, 'read', self._hanging(path, never))

    @staticmethod
    def _hanging(path: str, never: threading.Event) -> Callable[..., Any]:
        real = headers.read

        # Mocked: a device that hangs cannot be had in every place.
        def read(which: str, *args: Any, **kwargs: Any) -> Any:
            if which == path:
                never.wait()
            return real(which, *args, **kwargs)

        return read

    def test_that_of_a_base_file_keeps_no_pass(self) -> None:
        self.node.add_image('another')
        (new,) = self.node.files() - {self.used, self.free}
        self.hang(self.node.base_path(new))
        report = self.node.run()
        self.assertIn('has not answered within', ' '.join(report.notes))
        self.assertEqual((), report.vetoes)

    def test_that_of_a_disk_keeps_what_it_needed_and_no_pass(self) -> None:
        self.may_remove()
        self.hang(self.other)
        report = self.node.run()
        self.assertEqual([self.free], [each.name for each in report.removed])
        self.assertIn(self.used, self.node.files())
