# SPDX-License-Identifier: Apache-2.0

"""Hosts that share a cache: what one needs, no other removes."""

from collections.abc import Collection
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import subprocess
import threading
from typing import Any

import ddt

from nova_imagecache.cache import hosts
from nova_imagecache.cache import layouts
from nova_imagecache.cache import registry
from nova_imagecache import errors
from nova_imagecache import manager
from nova_imagecache import names
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing
from tests.node import test_crash_points
from tests.support import base
from tests.support import fake_witnesses
from tests.support import mounts
from tests.support import nodes
from tests.support import processes
from tests.support import sharing

GUEST = sharing.GUEST
OTHER = sharing.OTHER


class AwayTest(sharing.TwoHostsTestCase):
    """A host with disks of its own makes a pass, and is off then."""

    def setUp(self) -> None:
        super().setUp()
        self.first_pass(self.two)

    def test_a_host_that_is_away_for_days_keeps_what_its_guests_need(
        self,
    ) -> None:
        for _times in range(4):
            *_reports, last = self.run_passes(self.one, days=40)
            self.assert_kept(self.used)
        self.assert_removed(self.free)
        self.assertEqual(
            'needed by guests of two', self.reason(last, self.used)
        )

    def test_its_next_complete_pass_frees_that(self) -> None:
        self.end_guest()
        self.run_passes(self.one)
        self.assert_kept(self.used)
        self.run_passes(self.two, self.one)
        # It counted as used until then.
        self.run_passes(self.one)
        self.assert_removed(self.used)

    def test_its_pass_that_could_not_see_everything_does_not(self) -> None:
        self.end_guest()
        self.clock.advance(3 * base.DAY)
        self.two.run(fake_witnesses.Sees(vetoes=(fake_witnesses.blind(),)))
        self.clock.advance(30 * base.DAY)
        self.assertEqual(
            'needed by guests of two', self.reason(self.one.run(), self.used)
        )

    def test_one_after_its_clock_has_jumped_does(self) -> None:
        """Ages are uncertain then, and what was seen is not."""
        self.end_guest()
        self.clock.jump(3 * base.DAY)
        self.two.run()
        self.assertNotIn(self.used, self.recall('two').below)

    def test_what_it_could_not_see_holds_back_the_others_too(self) -> None:
        blind = fake_witnesses.Sees(vetoes=(fake_witnesses.blind(),))
        self.two.run(blind)
        self.clock.advance(40 * base.DAY)
        (veto,) = self.one.run().vetoes
        self.assertIn('host two: it could not look at everything', veto)
        self.assertIn('forget-host', veto)
        self.assert_kept(self.free)
        # What one of them could not see is no blindness of the other's.
        self.assertFalse(self.recall('one').blind)
        self.run_passes(self.two, self.one)
        self.run_passes(self.one)
        self.assert_removed(self.free)

    def test_what_its_list_says_is_noted_below_a_missing_mount(self) -> None:
        self.end_guest()
        unmounted = vetoing.Veto(
            vetoing.Reason.MISSING_MOUNT, self.two.layout.instances, 'x'
        )
        self.two.run(
            fake_witnesses.Looks(
                said={self.free: frozenset({GUEST})}, vetoes=(unmounted,)
            )
        )
        self.assertIn(self.free, self.recall('two').beyond)
        self.assertTrue(self.recall('two').blind)

    def test_nor_does_a_pass_of_another_host(self) -> None:
        before = self.recall('two')
        third = self.add_host('three')
        self.run_passes(third, self.one, third, days=30)
        self.assert_kept(self.used)
        self.assertEqual(before, self.recall('two'))

    def test_nor_does_one_that_only_looks(self) -> None:
        self.end_guest()
        before = self.read_tree()
        self.clock.advance(3 * base.DAY)
        self.two.make_pass().preview()
        self.assertEqual(before, self.read_tree())

    def read_tree(self) -> dict[str, bytes]:
        """Read all that is in the directory of our own."""
        found = {}
        for directory, _directories, files in os.walk(self.one.layout.own):
            for name in files:
                path = os.path.join(directory, name)
                with open(path, 'rb') as file:
                    found[path] = file.read()
        return found

    def test_where_its_disks_are_not_mounted_it_needs_what_it_did(
        self,
    ) -> None:
        disk = os.path.dirname(self.disk)
        self.two.run()
        os.rename(disk, f'{disk}.away')
        os.rename(f'{disk}.away', os.path.join(self.temporary, 'away'))
        guests = fake_witnesses.Looks(
            expected={GUEST: frozenset({GUEST})},
            known={GUEST: frozenset({self.used})},
        )
        self.clock.advance(3 * base.DAY)
        report = self.two.run(guests)
        self.assertEqual(1, len(report.obstacles))
        self.clock.advance(3 * base.DAY)
        found = self.one.run()
        self.assertEqual(
            'needed by guests of two', self.reason(found, self.used)
        )

    def test_to_forget_it_frees_that(self) -> None:
        self.assertTrue(hosts.forget(self.one.layout, 'two'))
        self.assertFalse(hosts.forget(self.one.layout, 'two'))
        self.run_passes(self.one)
        self.assert_removed(self.used)

    def test_one_that_was_forgotten_notes_it_again(self) -> None:
        hosts.forget(self.one.layout, 'two')
        self.run_passes(self.two, self.one)
        self.assert_kept(self.used)

    def test_what_it_needs_comes_back_from_the_trash(self) -> None:
        before = self.record('two')
        os.rename(before, f'{self.temporary}/record')
        self.run_passes(self.one)
        self.assertEqual({self.used, self.free}, self.one.trash())
        os.rename(f'{self.temporary}/record', before)
        report = self.one.run()
        self.assert_kept(self.used)
        self.assertEqual({self.free}, self.one.trash())
        self.assertIn('needed by guests of two', str(report.trash))

    def test_a_bad_file_that_it_needs_is_not_set_aside(self) -> None:
        self.one.configure(checksum=True)
        self.one.run()
        nodes.flip_bit(self.one.base_path(self.used))
        self.clock.advance(3 * base.DAY)
        (bad,) = self.one.run().corrupt
        self.assertEqual(self.used, bad.name)
        kept = self.one.make_pass().set_aside(self.used)
        self.assertEqual('needed by guests of two', kept)
        self.assert_kept(self.used)

    def test_where_the_state_cannot_be_kept_the_hosts_still_note(
        self,
    ) -> None:
        with open(self.one.layout.state, 'w') as file:
            file.write('{"kind": "state", "version": 999}\n')
        new = self.two.add_image('new', age=sharing.LONG)
        self.two.add_overlay(OTHER, new)
        self.two.run()
        self.assertIn(new, self.recall('two').below)


class Uses:
    """A witness at whose last look another host begins to use a file."""

    def __init__(self, node: nodes.Node, base_file: str) -> None:
        self._node = node
        self._base_file = base_file

    def look(
        self, base_files: Collection[str], others: Any = None
    ) -> testimonies.Testimony:
        return testimonies.Testimony()

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        hosts.note_use(
            self._node.layout,
            self._node.settings.host,
            self._base_file,
            self._node.clock.wall,
        )
        return testimonies.Testimony()


class NotedUseTest(sharing.TwoHostsTestCase):
    """Who makes a disk says so at once, and may be gone in a moment."""

    def setUp(self) -> None:
        super().setUp()
        self.first_pass(self.one)

    def note(self, name: str, when: float | None = None) -> None:
        wall = self.clock.wall if when is None else when
        hosts.note_use(self.one.layout, 'two', name, wall)

    def test_a_host_that_is_gone_before_its_first_pass_keeps_it(self) -> None:
        self.note(self.used)
        self.run_passes(self.one, days=40)
        self.assert_kept(self.used)
        self.assert_removed(self.free)

    def test_one_that_begins_at_the_last_moment_keeps_it(self) -> None:
        self.clock.advance(3 * base.DAY)
        report = self.one.run(Uses(self.two, self.used))
        self.assertEqual(
            'not removed: another host has begun to use it',
            self.reason(report, self.used),
        )
        self.assert_kept(self.used)
        self.assert_removed(self.free)

    def test_a_pass_that_sees_no_disk_yet_does_not_take_it_back(self) -> None:
        self.note(self.free)
        self.clock.advance(base.HOUR - 1)
        self.two.run()
        self.assertIn(self.free, self.recall('two').below)
        self.clock.advance(2)
        self.two.run()
        self.assertEqual({self.used}, {*self.recall('two').below})

    def test_a_clock_that_was_ahead_does_not_keep_it_for_ever(self) -> None:
        self.note(self.free, self.clock.wall + 1000 * base.DAY)
        self.two.run()
        self.assertIn(self.free, self.recall('two').below)
        self.run_passes(self.two)
        self.assertEqual({self.used}, {*self.recall('two').below})

    def test_within_ten_minutes_nothing_is_written_again(self) -> None:
        self.note(self.used)
        before = os.stat(self.record('two')).st_ino
        synced = self.note_syncs()
        self.clock.advance(599)
        self.note(self.used)
        self.assertEqual([], synced)
        self.assertEqual(before, os.stat(self.record('two')).st_ino)
        self.clock.advance(2)
        self.note(self.used)
        self.assertEqual(self.clock.wall, self.recall('two').below[self.used])

    def test_uses_that_come_at_once_are_all_noted(self) -> None:
        files = [names.get_cache_fname(f'{count}') for count in range(20)]
        threads = [
            threading.Thread(target=self.note, args=(name,)) for name in files
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({*files}, {*self.recall('two').below})

    def test_before_any_pass_there_is_nothing_of_ours(self) -> None:
        other = nodes.Node(os.path.join(self.temporary, 'other'))
        hosts.note_use(other.layout, 'two', self.used, self.clock.wall)
        self.assertEqual([], os.listdir(other.layout.base))

    def test_what_goes_wrong_stops_nobody(self) -> None:
        for path in (self.record('two'), self.one.layout.own_locks):
            with contextlib.suppress(OSError):
                os.rename(path, f'{path}.away')
            with open(path, 'w') as file:
                file.write('garbage')
            self.note(self.used)
            self.assertIn('is not noted', self.log.output)

    def test_to_make_a_disk_through_the_fetch_path_notes_it(self) -> None:
        conf = base.make_conf(instances_path=self.two.layout.instances)
        conf.set_override('host', 'two')
        ours = manager.ImageCacheManager(conf)
        disk = os.path.join(self.two.add_directory(OTHER), 'disk')
        seen: list[Collection[str]] = []

        def fetch(path: str) -> None:
            seen.append(self.recall('two').below.keys())
            with open(path, 'wb') as file:
                file.write(b'\0' * base.MIB)

        for name, resize_to in (('new', None), ('grown', 2 * base.MIB)):
            path = ours.cache_image(
                fetch,
                names.get_cache_fname(name),
                resize_to=resize_to,
                overlay=f'{disk}.{name}',
            )
            self.assertIn(os.path.basename(path), self.recall('two').below)
        # What was copied is read by no disk.
        self.assertEqual(2, len(self.recall('two').below))

    def test_the_manager_notes_it_for_a_driver(self) -> None:
        conf = base.make_conf(instances_path=self.two.layout.instances)
        conf.set_override('host', 'two')
        ours = manager.ImageCacheManager(conf, clock=self.clock)
        ours.note_use(self.free)
        self.assertEqual(
            {self.free: self.clock.wall}, self.recall('two').below
        )


class SameDisksTest(sharing.TwoHostsTestCase):
    """Hosts with one ``instances_path``: each sees the disks of the other."""

    def setUp(self) -> None:
        super().setUp()
        instances = os.path.join(self.temporary, 'same', 'instances')
        self.one = self.host_at('one', instances)
        self.two = self.host_at('two', instances)
        self.used = self.one.add_image('used', age=sharing.LONG)
        self.disk = self.two.add_overlay(GUEST, self.used)
        for host in ('one', 'two'):
            registry.register(self.one.layout, host, self.clock.wall)

    def test_an_inode_alone_may_be_the_same_by_chance(self) -> None:
        # As of two subvolumes of btrfs that a server gives out as one.
        self.two.run()
        os.unlink(os.path.join(self.one.layout.instances, 'compute_nodes'))
        registry.register(self.one.layout, 'one', self.clock.wall)
        self.end_guest()
        self.run_passes(self.one)
        self.assert_kept(self.used)

    def test_nor_is_a_list_of_hosts_believed_without_it(self) -> None:
        self.two.run()
        hosts._save(
            self.one.layout, dataclasses.replace(self.recall('two'), root=1)
        )
        self.end_guest()
        self.run_passes(self.one)
        self.assert_kept(self.used)

    def test_a_deleted_guest_of_one_keeps_nothing_on_the_other(self) -> None:
        said = {self.used: frozenset({GUEST})}
        listed = fake_witnesses.Looks(users=said, said=said, by_list=True)
        self.two.run(listed)
        self.run_passes(self.one)
        self.assert_kept(self.used)
        self.end_guest()
        self.run_passes(self.one)
        self.assert_removed(self.used)

    def test_a_disk_that_is_mounted_there_by_one_alone_does(self) -> None:
        """What is elsewhere in the same file system, and bound to there."""
        directory = os.path.dirname(self.disk)
        elsewhere = os.path.join(self.temporary, 'elsewhere')
        os.rename(directory, elsewhere)
        os.mkdir(directory)
        bind = ['mount', '--bind', elsewhere, directory]
        if os.geteuid() != 0 or subprocess.call(bind, stderr=-3) != 0:
            self.skipTest('only root can mount file systems, where it may')
        try:
            self.two.run()
        finally:
            subprocess.check_call(['umount', directory])
        self.run_passes(self.one)
        self.assert_kept(self.used)

    def test_a_guest_of_which_no_disk_is_seen_does(self) -> None:
        self.end_guest()
        said = {self.used: frozenset({GUEST})}
        self.two.run(fake_witnesses.Looks(users=said, said=said, by_list=True))
        self.run_passes(self.one)
        self.assert_kept(self.used)

    def test_nor_do_the_disks_of_another_guest_tell_of_its_own(self) -> None:
        said = {self.used: frozenset({OTHER})}
        self.two.run(fake_witnesses.Looks(users=said, said=said, by_list=True))
        self.end_guest()
        self.run_passes(self.one)
        self.assert_kept(self.used)

    def test_a_disk_elsewhere_that_libvirt_names_does(self) -> None:
        elsewhere = os.path.join(self.temporary, 'elsewhere')
        os.rename(self.disk, elsewhere)
        self.two.run(
            fake_witnesses.Looks(
                disks=(testimonies.NamedDisk(GUEST, elsewhere, elsewhere),)
            )
        )
        self.run_passes(self.one, days=40)
        self.assert_kept(self.used)
        self.assertEqual({self.used}, {*self.recall('two').beyond})

    def test_a_second_disk_elsewhere_of_one_guest_does(self) -> None:
        elsewhere = os.path.join(self.temporary, 'elsewhere')
        shutil.copy(self.disk, elsewhere)
        said = {self.used: frozenset({GUEST})}
        self.two.run(
            fake_witnesses.Looks(
                users=said,
                said=said,
                disks=(testimonies.NamedDisk(GUEST, elsewhere, elsewhere),),
            )
        )
        self.end_guest()
        self.run_passes(self.one)
        self.assert_kept(self.used)

    def test_what_is_kept_for_a_disk_that_cannot_be_read_does(self) -> None:
        self.two.run(
            fake_witnesses.Looks(
                vetoes=(
                    vetoing.Veto(
                        vetoing.Reason.UNREADABLE,
                        '/x',
                        'it cannot be read',
                        frozenset({self.used}),
                    ),
                )
            )
        )
        self.assertIn(self.used, self.recall('two').beyond)

    def test_each_is_itself_and_no_other(self) -> None:
        other = self.add_host('other')
        self.assertEqual(
            hosts.root_of(self.one.layout), hosts.root_of(self.two.layout)
        )
        self.assertNotEqual(
            hosts.root_of(self.one.layout), hosts.root_of(other.layout)
        )


class MountedTest(mounts.MountingTestCase):
    """What is mounted on one host alone, below what both share."""

    def test_a_disk_there_is_seen_by_nobody_else(self) -> None:
        node = nodes.Node(os.path.join(self.temporary, 'instances'))
        name = node.add_image('used', age=sharing.LONG)
        point = self.mount_new('local', 'mkfs.ext4', '-q')
        mounted = node.add_directory('local')
        processes.run('mount', '--bind', point, mounted)
        self.stack.callback(processes.run, 'umount', mounted)
        node.add_overlay(f'local/{GUEST}', name)
        node.configure(host='two')
        node.run()
        noted = hosts.load(node.layout, 'two')
        self.assertEqual(({}, {name}), (noted.below, {*noted.beyond}))

    def test_a_cache_on_another_file_system_says_nothing_of_the_disks(
        self,
    ) -> None:
        point = self.mount_new('cache', 'mkfs.ext4', '-q')
        instances = os.path.join(self.temporary, 'instances')
        os.mkdir(instances)
        self.assertIsNone(hosts.root_of(layouts.Layout(instances, point)))


@ddt.ddt
class RecordTest(sharing.TwoHostsTestCase):
    """Records that are not what was written, and names of any kind."""

    def setUp(self) -> None:
        super().setUp()
        self.first_pass(self.two)
        self.clock.advance(3 * base.DAY)

    def spoil(self, how: str) -> None:
        path = self.record('two')
        with open(path) as file:
            record = json.load(file)
        if how == 'newer':
            record['version'] = 99
        elif how == 'altered':
            record['sealed']['body']['below'] = {}
        with open(path, 'w') as file:
            file.write('x' if how == 'garbage' else json.dumps(record) + '\n')

    @ddt.data('newer', 'altered', 'garbage')
    def test_what_cannot_be_read_vetoes_and_there_is_a_way_out(
        self, how: str
    ) -> None:
        self.spoil(how)
        report = self.one.run()
        (veto,) = report.vetoes
        self.assertIn('what host two needs', veto)
        self.assertIn('nova-imagecache forget-host', veto)
        self.assert_kept(self.used, self.free)
        hosts.forget(self.one.layout, 'two')
        self.run_passes(self.one)
        self.assert_removed(self.used, self.free)

    def test_what_is_no_file_vetoes(self) -> None:
        os.unlink(self.record('two'))
        os.mkdir(self.record('two'))
        (veto,) = self.one.run().vetoes
        self.assertIn('what host two needs', veto)
        self.assert_kept(self.used, self.free)

    def test_what_may_not_be_read_vetoes(self) -> None:
        self.patch(hosts, 'load', self.refuse)
        (veto,) = self.one.run().vetoes
        self.assertIn('Permission denied', veto)
        self.assertIn('forget-host', veto)
        self.assert_kept(self.used, self.free)

    def refuse(self, _layout: Any, _name: str) -> Any:
        raise PermissionError(13, 'Permission denied')

    def test_hosts_that_cannot_be_listed_veto(self) -> None:
        os.rename(self.one.layout.hosts, f'{self.temporary}/hosts')
        with open(self.one.layout.hosts, 'w'):
            pass
        report = self.one.run()
        self.assertIn(self.one.layout.hosts, ' '.join(report.vetoes))
        self.assert_kept(self.used, self.free)

    @ddt.data('altered', 'garbage')
    def test_a_complete_pass_of_its_host_mends_it(self, how: str) -> None:
        self.spoil(how)
        self.two.run()
        self.assertEqual({self.used}, {*self.recall('two').below})
        self.run_passes(self.one)
        self.assert_kept(self.used)
        self.assert_removed(self.free)

    def test_one_that_could_not_see_everything_leaves_it(self) -> None:
        self.spoil('garbage')
        blind = fake_witnesses.Sees(vetoes=(fake_witnesses.blind(),))
        report = self.two.run(blind)
        self.assertIn(
            'what guests of this host need cannot be noted',
            ' '.join(report.problems),
        )
        self.assertRaises(errors.Damaged, self.recall, 'two')
        self.assertNotEqual((), self.one.run().vetoes)

    def test_what_a_newer_release_has_written_is_left_alone(self) -> None:
        self.spoil('newer')
        report = self.two.run()
        self.assertIn('newer release', ' '.join(report.problems))
        self.assertRaises(errors.Newer, self.recall, 'two')

    @ddt.data(
        'a/b', '../../x', '..', '.', 'caf\xe9', '\u65e5\u672c', 'a b\n',
        'x.damaged', '_', '%41', '~', 'h' * 250,
    )  # fmt: skip
    def test_a_host_may_have_any_name(self, name: str) -> None:
        three = self.add_host('three')
        three.configure(host=name)
        three.add_overlay(OTHER, self.free)
        before = {*os.listdir(self.one.layout.hosts)}
        self.assertEqual((), three.run().problems)
        self.assertEqual(1, len({*os.listdir(self.one.layout.hosts)} - before))
        self.assertEqual({name, 'two'}, {*hosts.names_of(self.one.layout)})
        self.run_passes(self.one)
        self.assert_kept(self.free)
        self.assertTrue(hosts.forget(self.one.layout, name))
        self.run_passes(self.one)
        self.assert_removed(self.free)

    def test_a_name_that_is_too_long_for_a_file_is_said(self) -> None:
        self.one.configure(host='\u65e5' * 200)
        report = self.one.run()
        self.assertIn('File name too long', ' '.join(report.problems))

    @ddt.data('stray', '_%ff%', '_%zz', '_caf\udce9', '_two.damaged', '_%2')
    def test_what_no_host_has_written_is_left_alone(self, file: str) -> None:
        path = os.path.join(self.one.layout.hosts, file)
        with open(path, 'w') as stream:
            stream.write('garbage')
        self.run_passes(self.one)
        self.assert_removed(self.free)
        self.assertTrue(os.path.exists(path))


class SaidTest(sharing.TwoHostsTestCase):
    """Hosts that are on one cache are said, where somebody has to know."""

    def setUp(self) -> None:
        super().setUp()
        self.first_pass(self.two)

    def notes(self, *days: int) -> tuple[str, ...]:
        self.clock.advance(sum(days) * base.DAY)
        return self.one.run().notes

    def test_a_host_that_is_away_and_keeps_files_is_said(self) -> None:
        self.assertEqual((), self.notes())
        (note,) = self.notes(2)
        self.assertEqual(
            'hosts that are away keep base files until a pass of theirs: two '
            '(base files: 1, last heard of: 2.0 days ago); if one is gone for '
            'good, say "nova-imagecache forget-host HOST"',
            note,
        )
        self.two.run()
        self.assertEqual((), self.notes())

    def test_one_that_keeps_nothing_is_not(self) -> None:
        self.end_guest()
        self.clock.advance(2 * base.HOUR)
        self.two.run()
        self.assertEqual((), self.notes(2))

    def test_one_that_was_heard_of_only_as_it_made_a_disk_is(self) -> None:
        hosts.note_use(self.one.layout, 'new', self.free, self.clock.wall)
        (note,) = self.notes(2)
        self.assertIn('new (base files: 1, last heard of: 2.0 days ago)', note)

    def test_one_that_shares_instances_and_notes_nothing_is_said(self) -> None:
        for name in ('one', 'two', 'stock'):
            registry.register(self.one.layout, name, self.clock.wall)
        (note,) = self.notes()
        self.assertIn('stock: by compute_nodes', note)
        # Nova takes it for gone after a day.
        self.two.run()
        self.assertNotIn('stock', ' '.join(self.notes(2)))

    def test_one_that_has_a_cache_of_its_own_is_not(self) -> None:
        stock = self.host_at('stock', self.one.layout.instances)
        stock.configure(subdirectory_name='_base_10.0.0.1')
        stock.layout = layouts.Layout.of(stock.settings)
        os.makedirs(stock.layout.base)
        stock.run()
        registry.register(self.one.layout, 'stock', self.clock.wall)
        self.assertEqual((), self.notes())

    def test_a_list_that_cannot_be_read_is_said(self) -> None:
        os.mkdir(os.path.join(self.one.layout.instances, 'compute_nodes'))
        (note,) = self.notes()
        self.assertIn('which hosts share', note)


class KilledTest(test_crash_points.CrashPointsTestCase):
    """Killed at any call, a record is what it was or what it is to be."""

    def setUp(self) -> None:
        super().setUp()
        self.layout = self.node.layout
        self.needed = names.get_cache_fname('needed')
        self.node.run()

    def remember(self, when: float, *below: str) -> list[str]:
        hosts.remember(
            self.layout, 'two', when, frozenset(below), frozenset(), True
        )
        return []

    def note(self) -> list[str]:
        hosts.note_use(self.layout, 'two', 'new', 2e9)
        return []

    def forget(self) -> list[str]:
        hosts.forget(self.layout, 'two')
        return []

    def check_all(self, run: test_crash_points.Run) -> None:
        outcomes = []
        self.remember(1e9, self.needed)
        before = hosts.load(self.layout, 'two')
        self.assertEqual(0, self.strace(run))
        after = hosts.load(self.layout, 'two')
        self.assertNotEqual(before, after)
        log = self.read(self.path)
        for point in test_crash_points.parse(log, self.layout.instances):
            if self.said in point.line:
                continue
            self.remember(1e9 - 7200)
            self.remember(1e9, self.needed)
            self.strace(run, '-e', point.inject('signal=KILL'))
            outcomes.append(hosts.load(self.layout, 'two'))
        self.assertEqual(
            {'before', 'after'},
            {
                'before' if each == before else 'after' if each == after
                else f'{each}' for each in outcomes
            },
        )  # fmt: skip

    def test_a_pass_that_notes_what_it_saw(self) -> None:
        self.check_all(functools.partial(self.remember, 2e9, 'other'))

    def test_a_pass_to_which_nothing_is_news(self) -> None:
        self.check_all(functools.partial(self.remember, 1e9 + 60, self.needed))

    def test_who_makes_a_disk(self) -> None:
        self.check_all(self.note)

    def test_somebody_who_forgets_a_host(self) -> None:
        self.check_all(self.forget)
