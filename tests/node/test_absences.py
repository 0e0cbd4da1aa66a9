# SPDX-License-Identifier: Apache-2.0

"""What should be below instances_path, and is not."""

import os
import shutil
import subprocess

import ddt

from nova_imagecache.passes import reports
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import fake_witnesses
from tests.support import seeing
from tests.support import shell

GUEST = seeing.GUEST
OTHER = seeing.OTHER
THIRD = seeing.THIRD
Reason = seeing.Reason


class AbsenceTestCase(seeing.SeeingTestCase):
    def hide(self, *parts: str) -> None:
        """Have a directory gone, as with a disk that is not mounted."""
        os.rename(self.path(*parts), self.outside(*parts))

    def everything(self) -> set[str]:
        """Name all that is below instances_path."""
        return {
            os.path.join(parent, name)
            for parent, directories, files in os.walk(self.top)
            for name in [*directories, *files]
        }

    def mount(self, path: str, *options: str) -> None:
        """Mount a file system of its own; takes root."""
        command = ['mount', *(options or ('-t', 'tmpfs', 'none')), path]
        os.makedirs(path, exist_ok=True)
        if os.geteuid() != 0 or subprocess.call(command, stderr=-3) != 0:
            self.skipTest('only root can mount file systems, where it may')
        self.addCleanup(subprocess.call, ['umount', '-lq', path], stderr=-3)

    def unmount(self, path: str) -> None:
        subprocess.check_call(['umount', path])

    def assert_missing(self, report: reports.Report, what: str) -> None:
        """Check that nothing goes, as this is missing."""
        self.assert_removed(report)
        self.assertIn(
            (Reason.MISSING_MOUNT, what, None),
            [(each.reason, each.subject, each.keeps) for each in
             report.obstacles],
        )  # fmt: skip
        self.assertIn(f'{what}: ', ' '.join(report.vetoes))


@ddt.ddt
class GuestTest(AbsenceTestCase):
    """Guests of this host, as its list has them."""

    def test_one_that_is_there_is_not_missing(self) -> None:
        report = self.run_pass(self.listed(self.instance()))
        self.assert_clean(report)
        self.assert_removed(report, self.free)

    def test_one_without_a_directory_is_a_veto_for_its_image(self) -> None:
        other = self.node.add_image('other', age=seeing.OLD)
        guests = (self.instance(), self.instance(OTHER, image_ref='other'))
        report = self.run_pass(self.listed(*guests))
        veto = self.veto(report)
        self.assertIs(Reason.MISSING_DISK, veto.reason)
        self.assertIn(self.path(OTHER), str(veto))
        self.assertEqual({other}, veto.keeps)
        self.assert_removed(report, self.free)
        (sentence,) = report.withheld
        self.assertIn('mount or restore what is missing', sentence)

    def test_it_keeps_what_its_disks_needed_when_they_were_read_last(
        self,
    ) -> None:
        self.node.add_overlay(OTHER, self.free)
        self.run_pass(self.listed(self.instance()))
        self.hide(OTHER)
        guests = (self.instance(), self.instance(OTHER))
        report = self.run_pass(self.listed(*guests))
        self.assertEqual({self.used, self.free}, self.veto(report).keeps)
        self.assert_removed(report)
        # And it goes on being remembered.
        self.assert_removed(self.run_pass(self.listed(*guests)))

    def test_one_without_any_of_its_disks_is_missing_too(self) -> None:
        """As where an empty file system is mounted over its directory."""
        path = self.node.add_overlay(OTHER, self.free)
        guests = (self.instance(), self.instance(OTHER))
        self.run_pass(self.listed(*guests))
        os.rename(path, os.path.join(self.temporary, 'below'))
        for _pass in range(2):
            report = self.run_pass(self.listed(*guests))
            veto = self.veto(report)
            self.assertIn('none is now', veto.problem)
            self.assertEqual(self.path(OTHER), veto.subject)
            self.assertEqual({self.used, self.free}, veto.keeps)
            self.assert_removed(report)
        os.rename(os.path.join(self.temporary, 'below'), path)
        self.assert_clean(self.run_pass(self.listed(*guests)))

    def test_one_that_is_deleted_is_not(self) -> None:
        path = self.node.add_overlay(OTHER, self.free)
        guests = (self.instance(), self.instance(OTHER))
        self.run_pass(self.listed(*guests))
        os.unlink(path)
        report = self.run_pass(self.listed(self.instance()))
        self.assert_clean(report)

    def test_it_keeps_everything_where_they_stood_on_what_was_not_seen(
        self,
    ) -> None:
        self.stand_on(self.layer(self.outside('layer'), self.free))
        guests = (self.instance(), self.instance(OTHER))
        self.run_pass(self.listed(*guests))
        self.hide(OTHER)
        report = self.run_pass(self.listed(*guests))
        self.assertIsNone(self.veto(report).keeps)
        self.assert_removed(report)

    def test_one_that_is_rescued_keeps_everything(self) -> None:
        """It stands on an image that the list does not tell."""
        guests = (
            self.instance(),
            self.instance(OTHER, vm_state='rescued'),
        )
        self.assert_removed(self.run_pass(self.listed(*guests)))

    @ddt.data(
        {'task_state': 'spawning'},
        {'vm_state': 'building'},
        {'vm_state': 'shelved_offloaded', 'host': None},
        {'vm_state': 'error'},
        {'host': 'another'},
        {'vm_state': None},
    )
    def test_one_that_need_not_be_there_is_not_missing(
        self, fields: dict[str, str | None]
    ) -> None:
        guests = (self.instance(), self.instance(OTHER, **fields))
        report = self.run_pass(self.listed(*guests))
        self.assert_clean(report)
        self.assert_removed(report, self.free)

    @ddt.data(f'{OTHER}_resize', f'{OTHER}_del', 'instance-22222222')
    def test_one_under_another_name_is_not_missing(self, name: str) -> None:
        self.node.add_directory(name)
        guests = (self.instance(), self.instance(OTHER))
        self.assert_clean(self.run_pass(self.listed(*guests)))

    def test_one_whose_directory_is_not_looked_into_is_not_missing(
        self,
    ) -> None:
        self.node.configure(ignore_paths=(OTHER,))
        self.node.add_directory(OTHER)
        guests = (self.instance(), self.instance(OTHER))
        self.assert_clean(self.run_pass(self.listed(*guests)))

    def test_one_whose_directory_cannot_be_listed_is_not_missing(
        self,
    ) -> None:
        self.make_roots(self.node.add_directory(OTHER))
        guests = (self.instance(), self.instance(OTHER))
        veto = self.veto(self.run_pass(self.listed(*guests)))
        self.assertIs(Reason.UNREADABLE, veto.reason)

    def test_where_all_are_missing_it_is_the_place(self) -> None:
        self.hide(GUEST)
        before = self.everything()
        guests = (self.instance(), self.instance(OTHER))
        report = self.run_pass(self.listed(*guests))
        self.assert_missing(report, self.top)
        (sentence,) = report.vetoes
        for guest in (GUEST, OTHER):
            self.assertIn(guest, sentence)
        self.assertEqual(before, self.everything())

    def test_what_lies_beside_the_directories_is_no_guest(self) -> None:
        self.hide(GUEST)
        self.node.add_file('compute_nodes', data=b'{}')
        report = self.run_pass(self.listed(self.instance()))
        self.assert_missing(report, self.top)


class DiskTest(AbsenceTestCase):
    """Disks that were there in the last pass, and are gone."""

    def setUp(self) -> None:
        super().setUp()
        for guest in (OTHER, THIRD):
            self.node.add_overlay(guest, self.used)

    def lose(self, *guests: str) -> None:
        for guest in guests:
            os.unlink(self.path(guest, 'disk'))

    def test_all_of_them_at_once_and_nobody_says_why(self) -> None:
        self.node.add_file('compute_nodes', data=b'{}')
        # The second one writes what a pass writes to which nothing is news.
        for _time in range(2):
            self.assert_clean(self.run_pass())
        self.lose(GUEST, OTHER, THIRD)
        fresh = self.node.add_image('fresh', age=seeing.OLD)
        before = self.everything()
        for _time in range(2):
            report = self.run_pass()
            self.assert_missing(report, self.top)
            self.assertIn('3 disks in the last pass', report.vetoes[0])
        self.assertIn(fresh, self.node.files())
        self.assertEqual(before, self.everything())

    def test_all_that_need_a_base_file(self) -> None:
        self.run_pass()
        self.lose(GUEST, OTHER, THIRD)
        self.node.add_file(GUEST, 'disk.config', data=b'x' * 8192)
        self.assert_missing(self.run_pass(), self.top)

    def test_two_of_them_may_have_been_deleted(self) -> None:
        self.lose(THIRD)
        self.run_pass()
        self.lose(GUEST, OTHER)
        self.node.clock.advance(2 * base.DAY)
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report, self.used)

    def test_not_where_one_is_left(self) -> None:
        self.run_pass()
        self.lose(GUEST, OTHER)
        self.assert_clean(self.run_pass())

    def test_not_where_the_list_has_none_of_their_guests(self) -> None:
        self.run_pass()
        for guest in (GUEST, OTHER, THIRD):
            self.hide(guest)
        self.node.clock.advance(2 * base.DAY)
        report = self.run_pass(self.listed())
        self.assert_clean(report)
        self.assert_removed(report, self.used)

    def test_but_where_it_has_them(self) -> None:
        """Their directories are there, as below a mount point."""
        guests = [self.instance(each) for each in (GUEST, OTHER, THIRD)]
        self.run_pass(self.listed(*guests))
        self.lose(GUEST, OTHER, THIRD)
        self.assert_missing(self.run_pass(self.listed(*guests)), self.top)

    def test_not_where_libvirt_says_that_there_are_none(self) -> None:
        self.run_pass()
        self.lose(GUEST, OTHER, THIRD)
        self.node.clock.advance(2 * base.DAY)
        witness = fake_witnesses.Looks(expected={})
        self.assert_removed(self.run_pass(witness), self.used)


@ddt.ddt
class RenamedTest(AbsenceTestCase):
    """A disk that libvirt names, in a directory that Nova has renamed."""

    @ddt.data('_del', '_resize')
    def test_it_is_seen_there(self, suffix: str) -> None:
        self.node.add_overlay(OTHER + suffix, self.used)
        path = self.path(OTHER, 'disk')
        named = testimonies.NamedDisk(OTHER, path, path)
        report = self.run_pass(fake_witnesses.Looks(disks=(named,)))
        self.assert_clean(report)
        self.assert_removed(report, self.free)

    def test_one_that_is_nowhere_is_missing(self) -> None:
        self.node.add_overlay(f'{OTHER}_del', self.used, disk='another')
        path = self.path(OTHER, 'disk')
        named = testimonies.NamedDisk(OTHER, path, path)
        report = self.run_pass(fake_witnesses.Looks(disks=(named,)))
        self.assertIs(Reason.MISSING_DISK, self.veto(report).reason)
        self.assert_removed(report)


class MountTest(AbsenceTestCase):
    """Mounts that were there in the last pass; takes root."""

    def test_one_of_a_guest(self) -> None:
        self.mount(self.path(OTHER))
        self.node.add_overlay(OTHER, self.used)
        self.assert_removed(self.run_pass(), self.free)
        self.unmount(self.path(OTHER))
        fresh = self.node.add_image('fresh', age=seeing.OLD)
        for _time in range(2):
            report = self.run_pass()
            self.assert_missing(report, self.path(OTHER))
            # What was on it is still needed.
            row = self.file_of(report, self.used)
            self.assertEqual((GUEST, OTHER), row.users)
        self.assertEqual([], os.listdir(self.path(OTHER)))
        self.mount(self.path(OTHER))
        self.node.add_overlay(OTHER, self.used)
        self.assert_removed(self.run_pass(), fresh)

    def test_one_of_the_same_file_system(self) -> None:
        elsewhere = self.outside(OTHER)
        self.node.add_overlay(OTHER, self.used)
        os.rename(self.path(OTHER), elsewhere)
        self.mount(self.path(OTHER), '--bind', elsewhere)
        self.assert_removed(self.run_pass(), self.free)
        self.unmount(self.path(OTHER))
        self.assert_missing(self.run_pass(), self.path(OTHER))

    def test_one_without_a_disk_may_go(self) -> None:
        self.mount(self.path('iso'))
        self.assert_removed(self.run_pass(), self.free)
        self.unmount(self.path('iso'))
        self.assert_clean(self.run_pass())

    def test_one_that_is_gone_with_its_directory_may_be(self) -> None:
        self.mount(self.path(OTHER))
        self.node.add_overlay(OTHER, self.used)
        self.run_pass()
        self.unmount(self.path(OTHER))
        os.rmdir(self.path(OTHER))
        self.assert_clean(self.run_pass())

    def test_one_that_a_guests_directory_is_linked_to(self) -> None:
        second = os.path.join(self.temporary, 'second')
        self.mount(second)
        self.node.add_overlay(OTHER, self.used)
        os.rename(self.path(OTHER), self.path('moving'))
        subprocess.check_call(['mv', self.path('moving'), f'{second}/{OTHER}'])
        os.symlink(f'{second}/{OTHER}', self.path(OTHER))
        self.assert_removed(self.run_pass(), self.free)
        # That is below the mount point, and no mount point itself.
        self.assert_clean(self.run_pass())
        self.unmount(second)
        os.makedirs(f'{second}/{OTHER}')
        report = self.run_pass()
        self.assert_missing(report, second)
        self.assertIn(OTHER, self.file_of(report, self.used).users)

    def test_one_of_the_instances_beside_their_cache(self) -> None:
        cache = self.outside('cache')
        os.rename(self.node.layout.base, cache)
        os.rename(self.path(GUEST), self.outside(GUEST))
        # As it is below the mount point.
        stale = os.path.join(self.temporary, 'stale')
        os.rename(self.top, stale)
        os.symlink(cache, os.path.join(stale, '_base'))
        os.mkdir(self.top)
        os.symlink(cache, self.node.layout.base)
        self.mount(self.top)
        os.symlink(cache, self.node.layout.base)
        subprocess.check_call(['mv', self.outside(GUEST), self.path(GUEST)])
        self.assert_removed(self.run_pass(), self.free)
        self.unmount(self.top)
        fresh = self.node.add_image('fresh', age=seeing.OLD)
        before = self.everything()
        for _time in range(2):
            report = self.run_pass()
            self.assert_missing(report, self.top)
        self.assertEqual(before, self.everything())
        self.assertIn(fresh, self.node.files())

    def test_none_where_a_container_shows_it_elsewhere(self) -> None:
        """The same directory is seen; only the list of mounts differs."""
        self.mount(self.top, '--bind', self.top)
        self.assert_removed(self.run_pass(), self.free)
        self.unmount(self.top)
        self.assert_clean(self.run_pass())

    def test_our_cache_at_another_place_is_no_other_cache(self) -> None:
        """What is in the trash comes back, though no stat finds it."""
        self.assert_removed(self.run_pass(), self.free)
        again = self.path('_base_192.0.2.7')
        self.mount(again, '--bind', self.node.layout.base)
        self.stand_on(os.path.join(again, self.free))
        self.assert_clean(self.run_pass())
        self.assertIn(self.free, self.node.files())


class CacheTest(AbsenceTestCase):
    """A cache, or an instances_path, that is empty."""

    def empty_cache(self) -> None:
        shutil.rmtree(self.node.layout.base)
        os.mkdir(self.node.layout.base)

    def test_a_cache_that_is_empty_while_disks_need_files_in_it(self) -> None:
        self.empty_cache()
        report = self.run_pass()
        self.assert_missing(report, self.node.layout.base)
        self.assertIn(self.used, report.problems[0])
        self.assertEqual([], os.listdir(self.node.layout.base))
        self.assertNotIn(self.node.layout.locks, self.everything())

    def test_a_preview_says_so_too(self) -> None:
        self.empty_cache()
        self.assert_missing(self.make_pass().preview(), self.node.layout.base)

    def test_an_empty_cache_that_nobody_needs_is_fine(self) -> None:
        self.empty_cache()
        self.hide(GUEST)
        self.assert_clean(self.run_pass())

    def test_an_empty_instances_path(self) -> None:
        self.hide(GUEST)
        self.hide('_base')
        report = self.run_pass()
        self.assert_missing(report, self.top)
        self.assertEqual(set(), self.everything())


class BesideTest(AbsenceTestCase):
    """A cache that is there, below an instances_path that is not mounted."""

    def setUp(self) -> None:
        super().setUp()
        self.hide('_base')
        self.hide(GUEST)
        os.symlink(self.outside('_base'), self.node.layout.base)
        self.witness = self.listed(self.instance())

    def assert_untouched(self) -> None:
        self.assertEqual({self.node.layout.base}, self.everything())

    def test_to_verify_makes_nothing(self) -> None:
        one = self.make_pass(self.witness)
        report = one.verify_now([self.used])
        self.assert_missing(report, self.top)
        self.assert_untouched()

    def test_nor_does_it_to_set_aside_what_is_bad(self) -> None:
        reason = self.make_pass(self.witness).set_aside(self.free)
        self.assertIn('is not mounted', str(reason))
        self.assert_untouched()


class ShellTest(shell.ShellTestCase):
    """The program, where something is missing."""

    def setUp(self) -> None:
        super().setUp()
        name = self.node.add_image('used')
        self.node.add_overlay(GUEST, name)
        os.unlink(self.node.base_path(name))

    def test_it_registers_no_host_below_a_mount_point(self) -> None:
        before = os.listdir(self.node.layout.instances)
        code, _stdout, stderr = self.run_command('pass', '--register-host')
        self.assertEqual(1, code)
        self.assertIn(f'{self.node.layout.base}: it is empty', stderr)
        self.assertEqual(before, os.listdir(self.node.layout.instances))
        self.assertEqual([], os.listdir(self.node.layout.base))

    def test_each_command_says_so(self) -> None:
        for command in ('list', 'status', 'trash', 'verify', 'scrub'):
            code, stdout, stderr = self.run_command(command)
            self.assertEqual(1, code, command)
            self.assertIn('it is empty', stdout + stderr, command)
        self.assertEqual([], os.listdir(self.node.layout.base))
