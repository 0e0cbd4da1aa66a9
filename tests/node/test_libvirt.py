# SPDX-License-Identifier: Apache-2.0

"""The guests of a real libvirt, run by a real QEMU.

Takes root. The libvirt is one of its own, with its sockets in a temporary
directory and its state nowhere: one that the machine has is left alone.
"""

import os
import signal
import socket
import threading

import libvirt

from nova_imagecache.cache import qemu_locks
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
        guest = self.define_guest('/no/such/disk', image=libvirt_guests.IMAGE)
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
                    testimony.failures or self.name in testimony.users,
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
            (failure,) = witness.look([self.name]).failures
            self.assertIn(problem, failure)
        self.process.send_signal(signal.SIGCONT)
        # Once it has answered, it is asked again.
        self.assertTrue(
            processes.wait_for(lambda: not witness.look([self.name]).failures)
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
            processes.wait_for(lambda: not qemu_locks.in_use(self.base_path))
        )
        # It counts as used until then.
        self.node.clock.advance(25 * base.HOUR)
        self.node.run()
        self.assertNotIn(self.name, self.node.files())


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
            env={'PATH': libvirt_guests.PATH, 'HOME': home, 'XDG_RUNTIME_DIR': home},
        )  # fmt: skip
        uri = f'qemu:///session?socket={path}'
        self.assertEqual([], libvirt.openReadOnly(uri).listAllDomains(0))
        testimony = self.look(uri)
        self.assertIn('session', testimony.failures[0])
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
        self.assertIn('of host', self.look().failures[0])
