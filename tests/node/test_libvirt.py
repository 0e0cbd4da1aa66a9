# SPDX-License-Identifier: Apache-2.0

"""The guests of a real libvirt, run by a real QEMU.

Takes root. The libvirt is one of its own, with its sockets in a temporary
directory and its state nowhere: one that the machine has is left alone.
"""

import dataclasses
import os
import signal
import socket
import threading
from typing import Any

import libvirt

from nova_imagecache.cache import qemu_locks
from nova_imagecache.witnesses import domain_xml
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from tests.support import base
from tests.support import libvirt_guests
from tests.support import nodes
from tests.support import processes

GUEST = libvirt_guests.GUEST
OTHER = libvirt_guests.OTHER


class GuestTest(libvirt_guests.LibvirtTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_system()

    def test_a_guest_whose_disk_is_elsewhere_uses_its_base(self) -> None:
        guest = self.start_guest(self.overlay('disk', self.base_path))
        self.assert_users(GUEST)
        report = self.node.run(self.witness())
        self.assertEqual((), report.vetoes)
        self.assertEqual((GUEST,), self.file_of(report, self.name).users)
        guest.destroy()
        self.assert_users()

    def test_a_guest_uses_the_base_of_its_whole_chain(self) -> None:
        middle = self.overlay('middle', self.base_path)
        self.start_guest(self.overlay('top', middle, 'qcow2'))
        self.assert_users(GUEST)

    def test_the_connection_of_the_host_shows_the_same(self) -> None:
        self.start_guest(self.overlay('disk', self.base_path))
        connection = libvirt_connection.HostConnection(lambda: self.connection)
        witness = domains.DomainWitness('', 'localhost', connection)
        self.assertEqual({self.name: {GUEST}}, witness.look([self.name]).users)

    def test_a_guest_that_is_only_defined_counts_for_its_image(self) -> None:
        disk = os.path.join(self.temporary, 'disk')
        nodes.qemu_img('create', '-f', 'qcow2', disk, '1M')
        guest = self.define_guest(disk, image=libvirt_guests.IMAGE)
        report = self.node.run(self.witness())
        self.assertEqual((), report.vetoes)
        self.assertEqual((GUEST,), self.file_of(report, self.name).users)
        guest.undefine()
        self.node.clock.advance(25 * base.HOUR)
        self.node.run(self.witness())
        self.assertNotIn(self.name, self.node.files())

    def test_guests_that_come_and_go_break_nothing(self) -> None:
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                self.define_guest('/x', OTHER).undefine()

        self.define_guest(self.base_path)
        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            for _attempt in range(10):
                testimony = self.look()
                self.assertTrue(
                    testimony.vetoes or self.name in testimony.users,
                    'said that nobody uses it',
                )
        finally:
            stop.set()
            thread.join()
        self.assert_users(GUEST)

    def test_a_libvirt_that_hangs_vetoes_removal_and_nothing_else(
        self,
    ) -> None:
        self.patch(libvirt_connection, 'DEADLINE_SECONDS', 1)
        self.node.configure(checksum=True)
        self.process.send_signal(signal.SIGSTOP)
        report = self.node.run(self.witness())
        self.assertIn('not answered within 1 s', ' '.join(report.vetoes))
        self.assertEqual({self.name, f'{self.name}.sha1'}, self.node.files())
        self.process.send_signal(signal.SIGCONT)
        self.assert_users()

    def test_a_libvirt_that_hangs_does_not_hang_the_host(self) -> None:
        self.patch(libvirt_connection, 'DEADLINE_SECONDS', 1)
        connection = libvirt_connection.HostConnection(lambda: self.connection)
        witness = domains.DomainWitness('', 'localhost', connection)
        self.process.send_signal(signal.SIGSTOP)
        for problem in ('within 1 s', 'earlier question'):
            (failure,) = witness.look([self.name]).vetoes
            self.assertIn(problem, str(failure))
        self.process.send_signal(signal.SIGCONT)
        # Once it has answered, it is asked again.
        self.assertTrue(
            processes.wait_for(lambda: not witness.look([self.name]).vetoes)
        )

    def test_a_base_file_that_only_a_running_guest_holds_is_not_removed(
        self,
    ) -> None:
        self.node.configure(witnesses=('instances', 'overlays', 'locks'))
        guest = self.start_guest(self.node.add_overlay(GUEST, self.name))
        directory = os.path.join(self.node.layout.instances, GUEST)
        os.rename(directory, os.path.join(self.elsewhere, GUEST))
        report = self.node.run()
        file = self.file_of(report, self.name)
        self.assertEqual(((), ()), (report.vetoes, file.users))
        self.assertIn('running QEMU', file.reason)
        self.assertIn(self.name, self.node.files())
        guest.destroy()
        self.assertTrue(
            processes.wait_for(
                lambda: not qemu_locks.look(self.base_path).in_use
            )
        )
        # It counts as used until then.
        self.node.clock.advance(25 * base.HOUR)
        self.node.run()
        self.assertNotIn(self.name, self.node.files())


class DisksTest(libvirt_guests.LibvirtTestCase):
    """The disks that libvirt tells of, each with what is known of it."""

    def setUp(self) -> None:
        super().setUp()
        self.start_system()

    def disks(self) -> set[domain_xml.DomainDisk]:
        """Ask a process, and see that the host's connection says the same."""
        connection = libvirt_connection.HostConnection(lambda: self.connection)
        (lent,) = connection.ask().domains
        (domain,) = libvirt_connection.ask(self.uri).domains
        self.assertEqual(lent.disks, domain.disks)
        self.assertEqual(len(domain.disks), len(set(domain.disks)))
        return set(domain.disks)

    def assert_disk(
        self, path: str, layers: tuple[str, ...] | None = None
    ) -> None:
        disk = domain_xml.DomainDisk(path, path, 'qcow2', layers)
        self.assertEqual({disk}, self.disks())

    def add_pool(self) -> Any:
        pool = self.connection.storagePoolDefineXML(
            "<pool type='dir'><name>pool</name>"
            f'<target><path>{self.elsewhere}</path></target></pool>'
        )
        pool.create()
        return pool

    def test_a_guest_that_is_shut_off_shows_its_disk_alone(self) -> None:
        path = self.overlay('disk', self.base_path)
        self.define_guest(path)
        self.assert_disk(path)

    def test_a_disk_that_is_gone_is_still_one(self) -> None:
        guest = self.define_guest('/no/such/disk')
        self.assertIn('/no/such/disk', self.try_start(guest))
        self.assert_disk('/no/such/disk')

    def test_a_guest_that_runs_shows_its_whole_chain(self) -> None:
        middle = self.overlay('middle', self.base_path)
        top = self.overlay('top', middle, 'qcow2')
        guest = self.define_guest(top, image=libvirt_guests.IMAGE)
        self.assert_disk(top)
        self.assertEqual('', self.try_start(guest))
        self.assert_disk(top, (middle, self.base_path))
        guest.destroy()
        self.assert_disk(top)

    def test_a_guest_that_is_defined_nowhere_shows_its_chain(self) -> None:
        path = self.overlay('disk', self.base_path)
        self.start_guest(path)
        self.assert_disk(path, (self.base_path,))

    def test_a_disk_that_the_next_start_takes_is_one(self) -> None:
        old, new = [
            self.overlay(name, self.base_path) for name in ('old', 'new')
        ]
        self.assertEqual('', self.try_start(self.define_guest(old)))
        self.define_guest(new)
        self.assertEqual(
            {
                domain_xml.DomainDisk(old, old, 'qcow2', (self.base_path,)),
                domain_xml.DomainDisk(new, new, 'qcow2'),
            },
            self.disks(),
        )

    def test_what_a_disk_is_copied_to_is_a_disk(self) -> None:
        path = self.overlay('disk', self.base_path)
        copy = os.path.join(self.elsewhere, 'copy')
        # Once all is copied it waits, and copies what is written.
        self.start_guest(path).blockCopy(
            'vda',
            f"<disk type='file'><driver type='qcow2'/><source file='{copy}'/>"
            '</disk>',
            flags=libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB,
        )
        self.assertEqual(
            {(path, (self.base_path,)), (copy, ())},
            {(disk.path, disk.layers) for disk in self.disks()},
        )

    def test_a_cdrom_is_a_disk_unless_it_is_empty(self) -> None:
        cdrom = (
            "<disk type='file' device='cdrom'>{}<target dev='{}' bus='ide'/>"
            '<readonly/></disk>'
        )
        source = f"<source file='{self.base_path}'/>"
        path = self.overlay('disk', self.base_path)
        guest = self.define_guest(
            path,
            more=cdrom.format(source, 'hda') + cdrom.format('', 'hdb'),
        )
        expected = domain_xml.DomainDisk(
            self.base_path, self.base_path, 'raw', removable=True
        )
        self.assertIn(expected, self.disks())
        self.assertEqual('', self.try_start(guest))
        disks = self.disks()
        self.assertIn(dataclasses.replace(expected, layers=()), disks)
        self.assertEqual(2, len(disks))

    def test_a_volume_of_a_pool_has_the_path_of_its_file(self) -> None:
        path = self.overlay('disk', self.base_path)
        volume = self.overlay('volume', self.base_path)
        pool = self.add_pool()
        guest = self.define_guest(
            path,
            more="<disk type='volume'><driver type='qcow2'/>"
            "<source pool='pool' volume='volume'/><target dev='vdb'/></disk>",
        )
        expected = domain_xml.DomainDisk('pool/volume', volume, 'qcow2')
        self.assertIn(expected, self.disks())
        self.assertEqual('', self.try_start(guest))
        shown = dataclasses.replace(expected, layers=(self.base_path,))
        self.assertIn(shown, self.disks())
        self.assertEqual(2, len(self.disks()))
        guest.destroy()
        # One that is not started knows none of its volumes.
        pool.destroy()
        unknown = dataclasses.replace(expected, path=None)
        self.assertIn(unknown, self.disks())
        pool.undefine()
        self.assertIn(unknown, self.disks())


class AddressTest(libvirt_guests.LibvirtTestCase):
    """Which libvirt it is that answers."""

    def test_the_session_of_a_user_is_blind(self) -> None:
        home = os.path.join(self.temporary, 'home')
        os.mkdir(home)
        os.chown(home, nodes.NOBODY, -1)
        path = self.start_libvirt(
            'sh', '-c', 'exec libvirtd -f "$1" -p "$2"', 'sh',
            directory=home,
            user=nodes.NOBODY,
            env={
                'PATH': libvirt_guests.PATH,
                'HOME': home,
                'XDG_RUNTIME_DIR': home,
            },
        )  # fmt: skip
        uri = f'qemu:///session?socket={path}'
        self.assertEqual([], libvirt.openReadOnly(uri).listAllDomains(0))
        testimony = self.look(uri)
        self.assertIn('session', str(testimony.vetoes[0]))
        report = self.node.run(self.witness(uri))
        self.assertIn('session', ' '.join(report.vetoes))
        self.assertIn(self.name, self.node.files())

    def test_one_over_the_network_has_to_be_on_this_host(self) -> None:
        self.start_system(listen=True)
        self.define_guest(self.base_path)
        self.uri = f'qemu+tcp://127.0.0.1:{self.port}/system'
        self.assert_users(GUEST)
        # Mocked: it takes two hosts.
        self.patch(socket, 'gethostname', lambda: 'another')
        self.assertIn('of host', str(self.look().vetoes[0]))
