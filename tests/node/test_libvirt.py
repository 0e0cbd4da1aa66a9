# SPDX-License-Identifier: Apache-2.0

"""The guests of a real libvirt, run by a real QEMU.

Takes root. The libvirt is one of its own, with its sockets in a temporary
directory and its state nowhere: one that the machine has is left alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
from typing import Any

import libvirt

from nova_imagecache.cache import qemu_locks
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import libvirt_guests
from tests.support import nodes
from tests.support import processes

GUEST = libvirt_guests.GUEST
OTHER = libvirt_guests.OTHER

_PATH = os.environ['PATH'] + ':/usr/sbin:/sbin'
_PROGRAMS = ('libvirtd', 'qemu-system-x86_64', 'qemu-img', 'unshare')

# Mounts that nobody else sees, and that end with it.
_START = r"""
set -e
for directory in /run /etc/libvirt /var/lib/libvirt /var/log/libvirt
do
    mount -t tmpfs tmpfs "$directory"
done
printf '%s = "%s"\n' user root group root security_driver none \
    stdio_handler file > /etc/libvirt/qemu.conf
exec libvirtd -f "$1" -p "$2" $3
"""

_CONF = """
unix_sock_dir = "{directory}"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0777"
auth_unix_ro = "none"
auth_unix_rw = "none"
auth_tcp = "none"
listen_tls = 0
listen_tcp = {listen_tcp}
listen_addr = "127.0.0.1"
tcp_port = "{port}"
"""


def guest_xml(uuid: str, disk: str, image: str | None = None) -> str:
    """Write a guest that QEMU runs without any help of the processor."""
    xml = libvirt_guests.guest_xml(uuid, disk, image)
    return (
        xml.replace("type='test'", "type='qemu'")
        .replace('<memory>1024<', "<memory unit='MiB'>32<")
        .replace('<type>', "<type arch='x86_64'>")
        .replace('<source', "<driver name='qemu' type='qcow2'/><source")
    )


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port: int = server.getsockname()[1]
        return port


def listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


class LibvirtTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can start a libvirt of the system')
        for program in _PROGRAMS:
            if shutil.which(program, path=_PATH) is None:
                self.skipTest(f'{program} is not installed')
        # Where no witness that reads disks looks.
        self.elsewhere = os.path.join(self.temporary, 'elsewhere')
        os.mkdir(self.elsewhere)
        self.name = self.node.add_image(
            libvirt_guests.IMAGE, age=365 * base.DAY, size=base.MIB
        )
        self.base_path = self.node.base_path(self.name)

    def start_libvirt(
        self, *command: str, directory: str, listen: bool = False, **how: Any
    ) -> str:
        """Start a libvirt; give the address of its socket."""
        if not os.path.isdir(directory):
            os.mkdir(directory)
        self.port = free_port()
        conf = os.path.join(directory, 'conf')
        with open(conf, 'w') as file:
            file.write(
                _CONF.format(
                    directory=directory, listen_tcp=int(listen), port=self.port
                )
            )
        log = os.path.join(directory, 'log')
        with open(log, 'wb') as output:
            self.process = subprocess.Popen(
                [*command, conf, os.path.join(directory, 'pid'),
                 *(['-l'] if listen else [])],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **how,
            )  # fmt: skip
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.terminate)
        self.addCleanup(self.process.send_signal, signal.SIGCONT)
        path = os.path.join(directory, 'libvirt-sock')
        processes.wait_for(
            lambda: listens(path) or self.process.poll() is not None
        )
        if self.process.poll() is not None:
            with open(log) as file:
                self.skipTest(f'libvirt does not start: {file.read()}')
        return path

    def start_system(self, listen: bool = False) -> None:
        path = self.start_libvirt(
            'unshare', '--mount', 'sh', '-c', _START, 'sh',
            directory=os.path.join(self.temporary, 'libvirt'),
            listen=listen,
            env={'PATH': _PATH},
        )  # fmt: skip
        self.uri = f'qemu:///system?socket={path}-ro'
        self.connection = libvirt.open(f'qemu:///system?socket={path}')
        self.addCleanup(self.end_guests)

    def end_guests(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        for domain in self.connection.listAllDomains(0):
            if domain.isActive():
                domain.destroy()
        self.connection.close()

    def overlay(self, name: str, backing: str, form: str = 'raw') -> str:
        path = os.path.join(self.elsewhere, name)
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', backing, '-F', form, path
        )
        return path

    def start_guest(self, disk: str, uuid: str = GUEST) -> Any:
        return self.connection.createXML(
            guest_xml(uuid, disk), libvirt.VIR_DOMAIN_START_PAUSED
        )

    def witness(self, uri: str | None = None) -> domains.DomainWitness:
        return domains.DomainWitness(uri or self.uri, 'localhost')

    def look(self, uri: str | None = None) -> testimonies.Testimony:
        return self.witness(uri).look([self.name])

    def assert_users(self, *users: str) -> None:
        testimony = self.look()
        self.assertEqual((), testimony.failures)
        self.assertEqual(
            frozenset(users), testimony.users.get(self.name, frozenset())
        )


class GuestTest(LibvirtTestCase):
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
        guest = self.connection.defineXML(
            guest_xml(GUEST, '/no/such/disk', libvirt_guests.IMAGE)
        )
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
                self.connection.defineXML(guest_xml(OTHER, '/x')).undefine()

        self.connection.defineXML(guest_xml(GUEST, self.base_path))
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


class AddressTest(LibvirtTestCase):
    """Which libvirt it is that answers."""

    def test_the_session_of_a_user_is_blind(self) -> None:
        home = os.path.join(self.temporary, 'home')
        os.mkdir(home)
        os.chown(home, nodes.NOBODY, -1)
        path = self.start_libvirt(
            'sh', '-c', 'exec libvirtd -f "$1" -p "$2"', 'sh',
            directory=home,
            user=nodes.NOBODY,
            env={'PATH': _PATH, 'HOME': home, 'XDG_RUNTIME_DIR': home},
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
        self.connection.defineXML(guest_xml(GUEST, self.base_path))
        self.uri = f'qemu+tcp://127.0.0.1:{self.port}/system'
        self.assert_users(GUEST)
        # Mocked: it takes two hosts.
        self.patch(socket, 'gethostname', lambda: 'another')
        self.assertIn('of host', self.look().failures[0])
