# SPDX-License-Identifier: Apache-2.0

"""Disks that a real libvirt names: none of them is overlooked.

Takes root. As in ``test_libvirt``, it is a libvirt of its own.
"""

import os
from typing import Any

import ddt

from nova_imagecache.passes import reports
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from tests.support import base
from tests.support import libvirt_guests
from tests.support import nodes

GUEST = libvirt_guests.GUEST
OTHER = libvirt_guests.OTHER

_NETWORK = (
    "<disk type='network'><driver type='{}'/>"
    "<source protocol='rbd' name='pool/image'><host name='127.0.0.1'/>"
    "</source><target dev='vdb'/></disk>"
)
_CDROM = (
    "<disk type='file' device='cdrom'><driver type='qcow2'/>"
    "<source file='{}'/><target dev='hda' bus='ide'/><readonly/></disk>"
)
_VOLUME = (
    "<disk type='volume'><driver type='qcow2'/>"
    "<source pool='pool' volume='volume'/><target dev='vdb'/></disk>"
)


class DisksTestCase(libvirt_guests.LibvirtTestCase):
    """A base file in use, and others that may go, one for each pass."""

    def setUp(self) -> None:
        super().setUp()
        self.start_system()
        self.passes = 0

    def run_pass(self) -> tuple[reports.Report, bool]:
        """Make a pass; say whether it has removed what nobody needs."""
        self.passes += 1
        self.node.clock.advance(30 * base.DAY)
        free = self.node.add_image(f'free {self.passes}', age=30 * base.DAY)
        report = self.node.run(self.witness())
        return report, free not in self.node.files()

    def assert_kept(self) -> None:
        """Check that the base file stays, though others go."""
        report, removed = self.run_pass()
        self.assertEqual(((), ()), (report.vetoes, report.withheld))
        self.assertTrue(removed)
        self.assertIn(self.name, self.node.files())

    def assert_freed(self) -> None:
        report, removed = self.run_pass()
        self.assertEqual(((), ()), (report.vetoes, report.withheld))
        self.assertTrue(removed)
        self.assertNotIn(self.name, self.node.files())

    def assert_veto(self, *words: str) -> None:
        """Check that nothing goes, and that one disk is named for it."""
        report, removed = self.run_pass()
        (veto,) = report.obstacles
        self.assertFalse(removed)
        self.assertIn(self.name, self.node.files())
        for word in words:
            self.assertIn(word, str(veto))
        self.assertNotEqual('', veto.way_out)


@ddt.ddt
class ShutOffTest(DisksTestCase):
    """Domains that are defined, and do not run."""

    def test_its_base_stays_and_it_starts_again(self) -> None:
        guest = self.define_guest(self.overlay('disk', self.base_path))
        self.assert_kept()
        self.assertEqual('', self.try_start(guest))
        guest.destroy()
        guest.undefine()
        self.assert_freed()

    def test_so_does_what_its_whole_chain_stands_on(self) -> None:
        middle = self.overlay('middle', self.base_path)
        guest = self.define_guest(self.overlay('top', middle, 'qcow2'))
        # It stands on a layer of which nobody has said where it is.
        self.assert_veto(os.path.join(self.elsewhere, 'top'))
        self.assertEqual('', self.try_start(guest))
        self.assert_kept()
        guest.destroy()
        self.assertEqual('', self.try_start(guest))

    def test_a_disk_that_is_missing_is_named_until_its_guest_goes(
        self,
    ) -> None:
        path = os.path.join(self.elsewhere, 'missing')
        guest = self.define_guest(path)
        other = self.node.add_overlay(OTHER, self.name)
        self.assert_veto(path, GUEST, 'it is not there')
        nodes.backing_chain(other)
        os.unlink(other)
        guest.undefine()
        self.assert_freed()

    def test_one_that_comes_back_is_read(self) -> None:
        path = self.overlay('disk', self.base_path)
        os.rename(path, f'{path}.away')
        guest = self.define_guest(path)
        self.assert_veto(path)
        os.rename(f'{path}.away', path)
        self.assert_kept()
        self.assertEqual('', self.try_start(guest))

    def test_one_with_a_damaged_header_is_named(self) -> None:
        path = self.overlay('disk', self.base_path)
        os.truncate(path, 100)
        self.define_guest(path)
        self.assert_veto(path, GUEST, 'header is damaged')

    def test_a_disk_below_instances_path_is_read_once(self) -> None:
        path = self.node.add_overlay(GUEST, self.name)
        self.define_guest(path)
        self.assert_kept()

    @ddt.data('raw', 'cdrom', 'network')
    def test_what_has_no_header_is_nobodys_veto(self, what: str) -> None:
        raw = os.path.join(self.elsewhere, 'raw')
        with open(raw, 'wb') as file:
            file.truncate(base.MIB)
        more = {
            'raw': '',
            'cdrom': _CDROM.format('/no/such/disc'),
            'network': _NETWORK.format('raw'),
        }
        self.define_guest(raw, kind='raw', more=more[what])
        self.assert_freed()

    def test_a_qcow2_that_is_no_file_of_this_host_is_named(self) -> None:
        guest = self.define_guest(
            self.overlay('disk', self.base_path),
            more=_NETWORK.format('qcow2'),
        )
        self.assert_veto('rbd:pool/image', GUEST, 'no file of this host')
        guest.undefine()
        self.assert_freed()

    def test_a_volume_is_read_and_named_while_its_pool_is_stopped(
        self,
    ) -> None:
        self.overlay('volume', self.base_path)
        pool = self.connection.storagePoolDefineXML(
            "<pool type='dir'><name>pool</name>"
            f'<target><path>{self.elsewhere}</path></target></pool>'
        )
        pool.create()
        other = os.path.join(self.elsewhere, 'other')
        nodes.qemu_img('create', '-f', 'qcow2', other, '1M')
        self.define_guest(other, more=_VOLUME)
        self.assert_kept()
        pool.destroy()
        self.assert_veto('pool/volume', GUEST)
        pool.create()
        self.assert_kept()


class UnreadableTest(DisksTestCase):
    """Disks that the service may not read, and nobody reads for it."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.overlay('disk', self.base_path)

    def witness(self, uri: str | None = None) -> domains.DomainWitness:
        """Ask through a connection that is there, as nova-compute does."""
        connection = libvirt_connection.HostConnection(lambda: self.connection)
        return domains.DomainWitness('', 'localhost', connection)

    def run_pass(self) -> tuple[reports.Report, bool]:
        """Make the pass as the owner of instances_path."""
        top = self.node.layout.instances
        self.node.clock.advance(30 * base.DAY)
        free = self.node.add_image(
            f'free {self.node.clock.wall}', age=30 * base.DAY
        )
        for parent, directories, files in os.walk(top):
            for name in ['.', *directories, *files]:
                os.chown(os.path.join(parent, name), nodes.NOBODY, -1)
        os.chmod(self.path, 0o600)
        with nodes.unprivileged():
            report = self.node.run(self.witness())
        return report, free not in self.node.files()

    def test_one_of_a_guest_that_is_shut_off_is_named(self) -> None:
        guest = self.define_guest(self.path)
        self.assert_veto(self.path, GUEST, 'Permission denied')
        guest.undefine()
        self.assert_freed()

    def test_of_one_that_runs_libvirt_shows_all_of_it(self) -> None:
        middle = self.overlay('middle', self.base_path)
        self.path = self.overlay('top', middle, 'qcow2')
        guest: Any = self.start_guest(self.path)
        os.chmod(middle, 0o600)
        self.assert_kept()
        guest.destroy()
        self.assert_freed()
