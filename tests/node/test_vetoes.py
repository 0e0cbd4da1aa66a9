# SPDX-License-Identifier: Apache-2.0

"""What cannot be looked at keeps what it may need, and no more."""

import os
import stat
from typing import Any

import ddt

from nova_imagecache import host
from nova_imagecache.passes import reports
from nova_imagecache.witnesses import needs
from nova_imagecache.witnesses import testimonies
from tests.support import fake_witnesses
from tests.support import nodes
from tests.support import seeing

GUEST = seeing.GUEST
OTHER = seeing.OTHER
THIRD = seeing.THIRD
Reason = seeing.Reason

_DAMAGED = b'QFI\xfb' + b'\xff' * 100


class VetoTestCase(seeing.SeeingTestCase):
    """A guest with an image of its own, of which a disk is not to be seen.

    :ivar image: the name of its base file, which no disk names
    """

    def setUp(self) -> None:
        super().setUp()
        self.image = self.node.add_image('other', age=seeing.OLD)
        self.resized = f'{self.image}_20'
        self.node.add_base(self.resized, age=seeing.OLD)
        self.witness = self.listed(
            self.instance(),
            self.instance(OTHER, image_ref='other', task_state='rebooting'),
        )

    def assert_narrow(self, report: reports.Report, *keeps: str) -> None:
        """Check that it keeps this, and nothing else."""
        self.assertEqual({*keeps}, self.veto(report).keeps)
        self.assert_removed(report, self.free)
        self.assertEqual((), report.vetoes)
        (sentence,) = report.withheld
        self.assertIn(self.veto(report).subject, sentence)
        self.assertIn('nova-imagecache ignore PATH', sentence)

    def assert_wide(self, report: reports.Report) -> None:
        self.assertIsNone(self.veto(report).keeps)
        self.assert_removed(report)
        (sentence,) = report.vetoes
        self.assertIn(self.veto(report).subject, sentence)
        self.assertIn(
            'nothing is removed now', self.file_of(report, self.free).reason
        )


@ddt.ddt
class KnownGuestTest(VetoTestCase):
    """A disk of a guest that the list or libvirt knows."""

    @ddt.data(OTHER, 'instance-22222222', f'{OTHER}_resize', f'{OTHER}_del')
    def test_a_damaged_one_keeps_its_image_in_all_forms(
        self, directory: str
    ) -> None:
        self.node.add_file(directory, 'disk', data=_DAMAGED)
        self.assert_narrow(self.run_pass(self.witness), self.image)

    def test_an_unreadable_one(self) -> None:
        self.make_roots(self.node.add_file(OTHER, 'disk', data=b'x' * 8192))
        self.assert_narrow(self.run_pass(self.witness), self.image)

    def test_a_directory_that_cannot_be_listed(self) -> None:
        self.make_roots(self.node.add_directory(OTHER))
        self.assert_narrow(self.run_pass(self.witness), self.image)

    def test_a_directory_in_it(self) -> None:
        self.make_roots(self.node.add_directory(OTHER, 'deep'))
        self.assert_narrow(self.run_pass(self.witness), self.image)

    def test_a_link_to_nothing(self) -> None:
        os.symlink(
            '/no/such', os.path.join(self.node.add_directory(OTHER), 'disk')
        )
        report = self.run_pass(self.witness)
        self.assertEqual({self.image}, self.veto(report).keeps)
        self.assert_removed(report, self.free)

    def test_swap_and_ephemeral_by_their_sizes(self) -> None:
        for name in (
            'swap_512', 'swap_64', 'ephemeral_5_abcdef0',
            'ephemeral_6_abcdef0',
        ):  # fmt: skip
            self.node.add_base(name, age=seeing.OLD)
        self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        blank = {'source_type': 'blank', 'destination_type': 'local'}
        witness = self.listed(
            self.instance(),
            self.instance(OTHER, image_ref='other'),
            mappings={
                OTHER: [
                    {**blank, 'guest_format': 'swap', 'volume_size': 512},
                    {**blank, 'guest_format': None, 'volume_size': 5},
                ]
            },
        )
        report = self.run_pass(witness)
        self.assert_removed(
            report, self.free, 'swap_64', 'ephemeral_6_abcdef0'
        )

    def test_all_of_them_where_devices_are_not_told(self) -> None:
        self.node.add_base('swap_64', age=seeing.OLD)
        self.node.add_base('ephemeral_6_abcdef0', age=seeing.OLD)
        self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        told = fake_witnesses.Looks(
            known={OTHER: frozenset({self.image}) | needs.ANY_DEVICE}
        )
        self.assert_narrow(self.run_pass(told), self.image, *needs.ANY_DEVICE)

    def test_each_file_says_what_keeps_it(self) -> None:
        disk = self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        told = fake_witnesses.Looks(known={OTHER: frozenset({self.image})})
        report = self.run_pass(told)
        for name in (self.image, self.resized):
            row = self.file_of(report, name)
            self.assertIn(f'but may be needed: {disk}: ', row.reason)
            self.assertEqual(report.withheld, row.vetoes)
        self.assertEqual((), self.file_of(report, self.free).vetoes)

    def test_by_the_name_of_its_domain(self) -> None:
        self.node.add_file('instance-0000002a', 'disk', data=_DAMAGED)
        told = fake_witnesses.Looks(
            known={OTHER: frozenset({self.image})},
            aliases={'instance-0000002a': OTHER},
        )
        self.assert_narrow(self.run_pass(told), self.image)

    def test_what_its_disks_needed_when_they_were_read_last(self) -> None:
        spare = self.node.add_image('spare', age=seeing.OLD)
        disk = self.node.add_overlay(OTHER, spare)
        self.run_pass(self.witness)
        fresh = self.node.add_image('fresh', age=seeing.OLD)
        # Another disk than that, or one that is not what it was.
        with open(disk, 'wb') as file:
            file.write(_DAMAGED)
        report = self.run_pass(self.witness)
        self.assertEqual({self.image, spare}, self.veto(report).keeps)
        self.assert_removed(report, fresh)
        self.assertEqual((OTHER,), self.file_of(report, spare).users)
        # And in the pass after that.
        report = self.run_pass(self.witness)
        self.assertEqual({self.image, spare}, self.veto(report).keeps)

    def test_a_guest_of_another_host_is_known_as_well(self) -> None:
        self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        witness = self.listed(
            self.instance(),
            self.instance(OTHER, image_ref='other', host='another'),
        )
        self.assert_narrow(self.run_pass(witness), self.image)


@ddt.ddt
class UnknownTest(VetoTestCase):
    """Where it is not known what may be needed, that is anything."""

    def test_a_guest_that_nobody_knows(self) -> None:
        self.node.add_file(THIRD, 'disk', data=_DAMAGED)
        self.assert_wide(self.run_pass(self.witness))

    def test_without_a_list(self) -> None:
        self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        self.assert_wide(self.run_pass())

    @ddt.data((), ('_base',), ('snapshots',))
    def test_a_file_in_no_guests_directory(
        self, parts: tuple[str, ...]
    ) -> None:
        self.node.add_file(*parts, 'some.qcow2', data=_DAMAGED)
        self.assert_wide(self.run_pass(self.witness))

    def test_a_disk_that_stands_on_what_is_not_to_be_seen(self) -> None:
        self.stand_on('/elsewhere/layer')
        report = self.run_pass(self.witness)
        self.assertIs(Reason.OUT_OF_SIGHT, self.veto(report).reason)
        self.assert_wide(report)

    def test_one_that_stood_there_when_it_was_read_last(self) -> None:
        disk = self.stand_on('/elsewhere/layer')
        self.run_pass(self.witness)
        with open(disk, 'wb') as file:
            file.write(_DAMAGED)
        for _time in range(2):
            self.assert_wide(self.run_pass(self.witness))

    def test_nor_is_it_excused_by_not_having_changed(self) -> None:
        disk = self.stand_on('/elsewhere/layer')
        self.run_pass(self.witness)
        self.make_roots(disk)
        for _time in range(2):
            report = self.run_pass(self.witness)
            self.assertIs(Reason.UNREADABLE, self.veto(report).reason)
            self.assert_wide(report)

    def test_a_disk_of_a_guest_that_is_rescued(self) -> None:
        self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        witness = self.listed(
            self.instance(),
            self.instance(OTHER, image_ref='other', vm_state='rescued'),
        )
        self.assert_wide(self.run_pass(witness))

    def test_a_rescue_disk(self) -> None:
        self.node.add_file(OTHER, 'disk.rescue', data=_DAMAGED)
        self.assert_wide(self.run_pass(self.witness))

    def test_a_disk_in_a_known_directory_that_is_of_another(self) -> None:
        path = self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        disk = testimonies.NamedDisk(THIRD, path, path)
        told = fake_witnesses.Looks(disks=(disk,))
        self.assert_wide(self.run_pass(self.witness, told))

    def test_a_layer_in_a_known_directory_below_the_disk_of_another(
        self,
    ) -> None:
        layer = self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        self.stand_on(layer, guest=THIRD)
        self.assert_wide(self.run_pass(self.witness))

    def test_such_a_layer_keeps_what_either_may_need_if_both_are_known(
        self,
    ) -> None:
        layer = self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        self.stand_on(layer, guest=GUEST, disk='clone')
        report = self.run_pass(self.witness)
        self.assertEqual({self.image, self.used}, self.veto(report).keeps)
        self.assert_removed(report, self.free)

    def test_a_disk_elsewhere_that_libvirt_names(self) -> None:
        for source, path, reason in (
            ('/no/such/disk', '/no/such/disk', Reason.MISSING_DISK),
            ('rbd:pool/image', None, Reason.OUT_OF_SIGHT),
        ):
            named = testimonies.NamedDisk(OTHER, source, path)
            told = fake_witnesses.Looks(
                known={OTHER: frozenset({self.image})}, disks=(named,)
            )
            report = self.run_pass(told)
            self.assertIs(reason, self.veto(report).reason)
            self.assert_wide(report)

    def test_one_that_libvirt_has_all_layers_of_is_believed(self) -> None:
        base_file = self.node.base_path(self.free)
        named = testimonies.NamedDisk(
            OTHER, '/no/such/disk', '/no/such/disk', (base_file,)
        )
        report = self.run_pass(fake_witnesses.Looks(disks=(named,)))
        self.assertEqual((), report.obstacles)
        self.assertEqual((OTHER,), self.file_of(report, self.free).users)


@ddt.ddt
class UnchangedTest(VetoTestCase):
    """A disk that could be read in an earlier pass, and cannot now."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.node.add_overlay(OTHER, self.free)
        self.assert_clean(self.run_pass())

    def assert_remembered(self) -> None:
        report = self.run_pass()
        self.assertEqual(
            ((), (), ()), (report.vetoes, report.withheld, report.problems)
        )
        (note,) = report.notes
        self.assertIn(self.other, note)
        self.assertIn('have not changed since they were', note)
        self.assertEqual((OTHER,), self.file_of(report, self.free).users)
        self.assertIn(self.image, self.node.trash())

    def test_it_keeps_what_it_needed_and_is_noted_once(self) -> None:
        self.make_roots(self.other)
        self.assert_remembered()
        self.assert_remembered()

    def test_it_keeps_what_layers_needed_that_libvirt_had_told_of(
        self,
    ) -> None:
        layer = self.layer(self.outside('layer'), self.free)
        nodes.qemu_img('rebase', '-u', '-b', layer, '-F', 'qcow2', self.other)
        runs = testimonies.NamedDisk(OTHER, self.other, self.other, (layer,))
        self.assert_clean(self.run_pass(fake_witnesses.Looks(disks=(runs,))))
        self.make_roots(self.other)
        self.assert_remembered()

    def test_with_others_only_one_line_is_said(self) -> None:
        third = self.node.add_overlay(THIRD, self.free)
        self.run_pass()
        self.make_roots(self.other)
        self.make_roots(third)
        (note,) = self.run_pass().notes
        self.assertIn('keep what they needed: 2, such as', note)

    @ddt.data('size', 'time', 'inode')
    def test_one_that_has_changed_is_a_veto(self, what: str) -> None:
        status = os.stat(self.other)
        if what == 'size':
            with open(self.other, 'ab') as file:
                file.write(b'x')
        elif what == 'inode':
            os.rename(self.other, self.outside('old'))
            with open(self.outside('old'), 'rb') as old:
                self.node.add_file(OTHER, 'disk', data=old.read())
        times = (status.st_atime_ns, status.st_mtime_ns + (what == 'time'))
        os.utime(self.other, ns=times)
        self.make_roots(self.other)
        veto = self.veto(self.run_pass())
        self.assertEqual(self.other, veto.subject)
        self.assertIsNone(veto.keeps)

    def test_a_record_that_is_damaged_is_told_and_remembers_nothing(
        self,
    ) -> None:
        (record,) = os.listdir(self.node.layout.inventories)
        path = os.path.join(self.node.layout.inventories, record)
        nodes.flip_bit(path, offset=os.path.getsize(path) - 10)
        self.make_roots(self.other)
        report = self.run_pass()
        self.assertIn(path, ' '.join(report.problems))
        self.assertIs(Reason.UNREADABLE, self.veto(report).reason)
        self.assertIn(self.free, self.node.files())


class PrivilegeTest(VetoTestCase):
    """Directories that only root may list, where the host lends that."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.node.add_overlay(OTHER, self.free)
        self.asked: list[str] = []
        self.lent = host.Host(
            read_as_root=nodes.read_as_root, list_as_root=self.list_as_root
        )
        self.directory = self.make_roots(self.path(OTHER))

    def list_as_root(self, path: str) -> list[host.Listed]:
        self.asked.append(path)
        os.seteuid(0)
        try:
            found = []
            # As privsep has it: first the directory itself.
            for name in ('.', *sorted(os.listdir(path))):
                status = os.lstat(os.path.join(path, name))
                found.append(
                    host.Listed(
                        name, status.st_mode, status.st_ino,
                        status.st_dev, status.st_size, status.st_mtime_ns,
                        status.st_ctime_ns,
                    )
                )  # fmt: skip
            return found
        finally:
            os.seteuid(nodes.NOBODY)

    def test_disks_in_them_are_read_as_root(self) -> None:
        report = self.run_pass()
        self.assert_clean(report)
        self.assertEqual((OTHER,), self.file_of(report, self.free).users)
        self.assert_removed(report, self.image, self.resized)
        self.assertEqual({self.directory}, {*self.asked})

    def test_it_is_not_asked_for_what_can_be_listed(self) -> None:
        os.chmod(self.directory, 0o755)
        self.roots.clear()
        self.run_pass()
        self.assertEqual([], self.asked)

    def test_a_link_in_them_cannot_be_followed_and_is_a_veto(self) -> None:
        os.symlink(self.disk, self.path(OTHER, 'link'))
        report = self.run_pass()
        self.assertEqual(self.path(OTHER, 'link'), self.veto(report).subject)
        self.assert_removed(report)

    def test_a_link_in_them_is_followed_to_its_file(self) -> None:
        elsewhere = self.layer(self.outside('linked'), self.image)
        os.symlink(elsewhere, self.path(OTHER, 'link'))
        self.make_roots(self.directory, 0o711)
        report = self.run_pass()
        self.assert_clean(report)
        self.assertEqual((OTHER,), self.file_of(report, self.image).users)

    def test_a_link_in_them_to_a_directory_elsewhere_is_a_veto(self) -> None:
        elsewhere = self.layer(self.outside('far', 'disk'), self.image)
        os.symlink(os.path.dirname(elsewhere), self.path(OTHER, 'link'))
        self.make_roots(self.directory, 0o711)
        report = self.run_pass()
        self.assertEqual(self.path(OTHER, 'link'), self.veto(report).subject)
        self.assert_removed(report)

    def test_whatever_the_host_raises_is_in_the_veto(self) -> None:
        def fail(path: str) -> Any:
            raise RuntimeError('its daemon is gone')

        self.lent = host.Host(list_as_root=fail)
        veto = self.veto(self.run_pass())
        self.assertEqual(self.directory, veto.subject)
        self.assertIn('its daemon is gone', veto.problem)

    def test_a_disk_made_in_them_meanwhile_is_seen(self) -> None:
        """Their times are looked at, though they cannot be opened."""
        spare = self.node.add_image('spare', age=seeing.OLD)

        def make() -> None:
            os.seteuid(0)
            try:
                self.node.add_overlay(OTHER, spare, disk='later')
            finally:
                os.seteuid(nodes.NOBODY)

        report = self.run_pass(fake_witnesses.Meddles(make))
        self.assertNotIn(spare, {file.name for file in report.removed})
        self.assertTrue(stat.S_ISDIR(os.stat(self.directory).st_mode))


class LastMomentTest(VetoTestCase):
    """What cannot be looked at when a file is about to go."""

    def spoil(self, directory: str) -> fake_witnesses.Meddles:
        """Give a witness that damages a disk between look and act."""

        return fake_witnesses.Meddles(
            lambda: self.node.add_file(directory, 'disk', data=_DAMAGED),
            known={OTHER: frozenset({self.image})},
        )

    def test_one_of_a_known_guest_keeps_what_it_may_need(self) -> None:
        report = self.run_pass(self.spoil(OTHER))
        self.assert_removed(report, self.free)
        for name in (self.image, self.resized):
            self.assertIn('damaged', self.file_of(report, name).reason)

    def test_one_of_nobody_keeps_everything(self) -> None:
        report = self.run_pass(self.spoil(THIRD))
        self.assert_removed(report)
        for name in (self.image, self.free):
            self.assertIn('damaged', self.file_of(report, name).reason)

    def test_beside_a_new_disk_elsewhere_nothing_is_looked_into(self) -> None:
        path = self.outside('images', 'new')
        nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        with open(self.outside('images', 'other'), 'wb') as file:
            file.write(_DAMAGED)
        named = testimonies.NamedDisk(THIRD, path, path)
        report = self.run_pass(fake_witnesses.Looks(disks=(named,)))
        self.assert_clean(report)
        self.assertIn(self.free, {file.name for file in report.removed})

    def test_a_new_disk_elsewhere_is_read_again(self) -> None:
        path = self.outside('images', 'new')
        nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        named = testimonies.NamedDisk(THIRD, path, path)
        one = self.make_pass(fake_witnesses.Looks(disks=(named,)))
        real = one._actor

        def rebase(facts: Any) -> Any:
            base_path = self.node.base_path(self.free)
            nodes.qemu_img('rebase', '-u', '-b', base_path, '-F', 'raw', path)
            return real(facts)

        self.patch(one, '_actor', rebase)
        report = one.run()
        self.assertNotIn(self.free, {file.name for file in report.removed})

    def test_nothing_is_deleted_from_the_trash_either(self) -> None:
        self.run_pass()
        trashed = self.node.trash()
        self.assertIn(self.free, trashed)
        self.node.clock.advance(2 * 86400)
        self.run_pass(self.spoil(THIRD))
        self.assertEqual(trashed, self.node.trash())


class ManyTest(VetoTestCase):
    """What vetoes is told once, whatever there is of it."""

    def test_a_thousand_are_one_line_with_three_examples(self) -> None:
        for number in range(1000):
            self.node.add_file('backup', f'{number:03}', data=_DAMAGED)
        report = self.run_pass()
        (sentence,) = report.vetoes
        self.assertIn('1000 disks have a damaged header', sentence)
        self.assertEqual(3, sentence.count(self.path('backup')))
        self.assertIn('and 997 more', sentence)
        self.assertEqual(1, sentence.count('nova-imagecache ignore PATH'))
        self.assertEqual(1000, len(report.obstacles))
        for name in (self.free, self.image):
            row = self.file_of(report, name)
            self.assertEqual((sentence,), row.vetoes)
            self.assertIn('and 999 more', row.reason)
        self.assertEqual((), self.file_of(report, self.used).vetoes)

    def test_those_that_keep_all_and_some_are_told_apart(self) -> None:
        self.node.add_file('backup', 'disk', data=_DAMAGED)
        self.node.add_file(OTHER, 'disk', data=_DAMAGED)
        report = self.run_pass(self.witness)
        (wide,), (narrow,) = report.vetoes, report.withheld
        self.assertIn('backup', wide)
        self.assertIn(OTHER, narrow)
        self.assert_removed(report)
