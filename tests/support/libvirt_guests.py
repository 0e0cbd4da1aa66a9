# SPDX-License-Identifier: Apache-2.0

"""Guests as libvirt knows them; here a real one, with its test driver.

Or else with QEMU.
"""

from collections.abc import Callable
import os
import shutil
import signal
import socket
import subprocess
from typing import Any

import libvirt

from nova_imagecache import names
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import nodes
from tests.support import processes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
IMAGE = 'fe55c69a-8b2e-4bbc-811a-9ad2023a0426'

ORIGINAL = names.get_cache_fname(IMAGE)
RESIZED = f'{ORIGINAL}_20'
SWAP = 'swap_512'
BASE_FILES = (ORIGINAL, RESIZED, SWAP, f'{ORIGINAL}_20.part', 'golden')

_NOVA = 'http://openstack.org/xmlns/libvirt/nova/1.1'

PATH = os.environ['PATH'] + ':/usr/sbin:/sbin'
_PROGRAMS = ('libvirtd', 'qemu-system-x86_64', 'qemu-img', 'unshare')

# Mounts that nobody else sees, and that end with it. No cgroups: their tree
# is the machine's, where daemons of other tests make the same directories.
_START = r"""
set -e
for directory in /run /etc/libvirt /var/lib/libvirt /var/log/libvirt
do
    mount -t tmpfs tmpfs "$directory"
done
printf '%s = "%s"\n' user root group root security_driver none \
    stdio_handler file > /etc/libvirt/qemu.conf
echo 'cgroup_controllers = []' >> /etc/libvirt/qemu.conf
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


def guest_xml(
    uuid: str, file: str, image: str | None = None, kind: str | None = None
) -> str:
    note = ''
    driver = f"<driver name='qemu' type='{kind}'/>" if kind else ''
    if image:
        note = (
            f"<metadata><nova:instance xmlns:nova='{_NOVA}'>"
            f"<nova:root type='image' uuid='{image}'/>"
            '</nova:instance></metadata>'
        )
    return f"""
<domain type='test'>
  <name>instance-{uuid}</name>
  <uuid>{uuid}</uuid>
  {note}
  <memory>1024</memory>
  <os><type>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      {driver}
      <source file='{file}'/><target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


def quiet(_context: object, _error: object) -> None:
    """Keep libvirt from printing what the tests provoke."""


libvirt.registerErrorHandler(quiet, None)


def missing() -> libvirt.libvirtError:
    """Give the error of a real libvirt about a domain that is not there."""
    try:
        libvirt.open('test:///default').lookupByName('nobody')
    except libvirt.libvirtError as error:
        return error
    raise AssertionError('it is there')


class DomainsTestCase(nodes.FileTestCase):
    def write_node(self, *guests: str) -> str:
        """Make a node for the test driver; give the URI."""
        path = os.path.join(self.temporary, 'node.xml')
        with open(path, 'w') as file:
            file.write('<node>' + ''.join(guests) + '</node>')
        return f'test://{path}'

    def look(
        self,
        uri: str,
        connect: Callable[[], Any] | None = None,
    ) -> testimonies.Testimony:
        connection = None
        if connect is not None:
            connection = libvirt_connection.HostConnection(connect)
        witness = domains.DomainWitness(uri, 'compute1', connection)
        return witness.look(BASE_FILES)

    def assert_failure(
        self, testimony: testimonies.Testimony, *words: str
    ) -> None:
        (veto,) = testimony.vetoes
        self.assertEqual(testimonies.Testimony(vetoes=(veto,)), testimony)
        failure = str(veto)
        self.assertTrue(failure.startswith('libvirt at '), failure)
        self.assertTrue(failure.isprintable(), failure)
        for word in words:
            self.assertIn(word, failure)


def qemu_guest_xml(
    uuid: str,
    disk: str,
    image: str | None = None,
    kind: str = 'qcow2',
    more: str = '',
) -> str:
    """Write a guest that QEMU runs without any help of the processor.

    :param image: that Nova says in its metadata to have made it from
    :param kind: format of its disk
    :param more: devices that it has besides
    """
    xml = guest_xml(uuid, disk, image, kind)
    return (
        xml.replace("type='test'", "type='qemu'")
        .replace('<memory>1024<', "<memory unit='MiB'>32<")
        .replace('<type>', "<type arch='x86_64'>")
        .replace('</devices>', f'{more}</devices>')
    )


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port: int = server.getsockname()[1]
        return port


def listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


class LibvirtTestCase(nodes.NodeTestCase):
    """A libvirt that really runs guests.

    Its sockets are in a temporary directory and its state is nowhere: one
    that the machine has is left alone.
    """

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can start a libvirt of the system')
        for program in _PROGRAMS:
            if shutil.which(program, path=PATH) is None:
                self.skipTest(f'{program} is not installed')
        # Where no witness that reads disks looks.
        self.elsewhere = os.path.join(self.temporary, 'elsewhere')
        os.mkdir(self.elsewhere)
        self.name = self.node.add_image(
            IMAGE, age=365 * base.DAY, size=base.MIB
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
            env={'PATH': PATH},
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

    def start_guest(self, disk: str, uuid: str = GUEST, more: str = '') -> Any:
        """Start a guest that is defined nowhere, and let it do nothing."""
        return self.connection.createXML(
            qemu_guest_xml(uuid, disk, more=more),
            libvirt.VIR_DOMAIN_START_PAUSED,
        )

    def define_guest(
        self,
        disk: str,
        uuid: str = GUEST,
        image: str | None = None,
        kind: str = 'qcow2',
        more: str = '',
    ) -> Any:
        """Define a guest, whether or not there is such a disk."""
        return self.connection.defineXML(
            qemu_guest_xml(uuid, disk, image, kind, more)
        )

    def try_start(self, guest: Any) -> str:
        """Start a defined guest, and let it do nothing.

        :returns: nothing if it has started, or else why not
        """
        try:
            guest.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            return str(error)
        return ''

    def witness(self, uri: str | None = None) -> domains.DomainWitness:
        return domains.DomainWitness(uri or self.uri, 'localhost')

    def look(self, uri: str | None = None) -> testimonies.Testimony:
        return self.witness(uri).look([self.name])

    def assert_users(self, *users: str) -> None:
        testimony = self.look()
        self.assertEqual((), testimony.vetoes)
        self.assertEqual(
            frozenset(users), testimony.users.get(self.name, frozenset())
        )
