# SPDX-License-Identifier: Apache-2.0

"""The witness that asks libvirt; here a real one, with its test driver."""

import socket
from typing import Any
from unittest import mock

import ddt
import libvirt

from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies
from tests.support import libvirt_guests

GUEST = libvirt_guests.GUEST
OTHER = libvirt_guests.OTHER
IMAGE = libvirt_guests.IMAGE
ORIGINAL = libvirt_guests.ORIGINAL
RESIZED = libvirt_guests.RESIZED
SWAP = libvirt_guests.SWAP


@ddt.ddt
class UsersTest(libvirt_guests.DomainsTestCase):
    """What is seen, by a process and through the host's connection."""

    def see(self, lent: bool, *guests: str) -> testimonies.Testimony:
        uri = self.write_node(*guests)
        connect = (lambda: libvirt.open(uri)) if lent else None
        testimony = self.look(uri, connect)
        self.assertEqual((), testimony.vetoes)
        return testimony

    @ddt.data(True, False)
    def test_a_domain_uses_the_files_of_its_disks(self, lent: bool) -> None:
        testimony = self.see(
            lent,
            libvirt_guests.guest_xml(GUEST, f'/elsewhere/_base/{RESIZED}'),
            libvirt_guests.guest_xml(OTHER, '/elsewhere/swap_512'),
        )
        self.assertEqual({RESIZED: {GUEST}, SWAP: {OTHER}}, testimony.users)

    @ddt.data(True, False)
    def test_a_domain_uses_all_that_is_made_from_its_image(
        self, lent: bool
    ) -> None:
        testimony = self.see(
            lent, libvirt_guests.guest_xml(GUEST, '/x/disk', IMAGE)
        )
        self.assertEqual(
            {ORIGINAL: {GUEST}, RESIZED: {GUEST}}, testimony.users
        )
        self.assertEqual({ORIGINAL: IMAGE, RESIZED: IMAGE}, testimony.images)

    def test_guests_are_known_by_the_names_of_their_domains(self) -> None:
        testimony = self.see(False, libvirt_guests.guest_xml(GUEST, '/x/disk'))
        self.assertEqual({f'instance-{GUEST}': GUEST}, testimony.aliases)

    def test_nobody_uses_anything_where_there_are_no_domains(self) -> None:
        self.assertEqual(testimonies.Testimony(expected={}), self.see(False))

    def test_a_domain_that_is_only_defined_counts(self) -> None:
        connection = libvirt.open('test:///default')
        domain = connection.defineXML(
            libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}')
        )
        self.addCleanup(domain.undefine)
        self.assertFalse(domain.isActive())
        testimony = self.look('test:///default', lambda: connection)
        self.assertEqual({ORIGINAL: {GUEST}}, testimony.users)

    def test_what_a_running_domain_is_defined_with_counts_too(self) -> None:
        connection = libvirt.open('test:///default')
        domain = connection.createXML(
            libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}')
        )
        self.addCleanup(domain.destroy)
        defined = connection.defineXML(
            libvirt_guests.guest_xml(GUEST, f'/x/{SWAP}')
        )
        testimony = self.look('test:///default', lambda: connection)
        defined.undefine()
        self.assertEqual({ORIGINAL: {GUEST}, SWAP: {GUEST}}, testimony.users)

    def test_nothing_is_asked_but_through_the_connection(self) -> None:
        # Under eventlet it is a proxy; what it lists is not, and would keep
        # all other green threads waiting.
        connection = mock.Mock(
            wraps=libvirt.open(
                self.write_node(
                    libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}')
                )
            )
        )
        listed = mock.Mock(spec_set=['UUIDString'])
        listed.UUIDString.return_value = GUEST
        connection.listAllDomains.side_effect = [[listed]]
        testimony = self.look('test:///x', lambda: connection)
        self.assertEqual({ORIGINAL: {GUEST}}, testimony.users)

    def test_looking_again_asks_nothing(self) -> None:
        witness = domains.DomainWitness('no:///such', 'compute1')
        self.assertEqual(testimonies.Testimony(), witness.look_again([SWAP]))


class ChangingTest(libvirt_guests.DomainsTestCase):
    """Domains that come and go while they are read."""

    def setUp(self) -> None:
        super().setUp()
        uri = self.write_node(
            libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}'),
            libvirt_guests.guest_xml(OTHER, f'/x/{SWAP}'),
        )
        self.real = libvirt.open(uri)
        # Mocked: nothing can be made to vanish between two calls.
        self.connection = mock.Mock(wraps=self.real)

    def let_vanish(self, *outcomes: Any) -> None:
        self.connection.lookupByUUIDString.side_effect = outcomes

    def test_when_one_vanishes_all_are_listed_again(self) -> None:
        self.let_vanish(libvirt_guests.missing(), *[mock.DEFAULT] * 3)
        testimony = self.look('test:///x', lambda: self.connection)
        self.assertEqual((), testimony.vetoes)
        self.assertEqual({ORIGINAL: {GUEST}, SWAP: {OTHER}}, testimony.users)
        self.assertEqual(2, self.connection.listAllDomains.call_count)

    def test_when_they_vanish_all_the_time_it_is_a_failure(self) -> None:
        self.connection.lookupByUUIDString.side_effect = (
            libvirt_guests.missing()
        )
        self.assert_failure(
            self.look('test:///x', lambda: self.connection), 'come and go'
        )

    def test_any_other_error_is_a_failure(self) -> None:
        error = libvirt.libvirtError('Cannot read\nfrom the socket')
        self.let_vanish(mock.DEFAULT, error)
        self.assert_failure(
            self.look('test:///x', lambda: self.connection),
            'Cannot read from the socket',
        )

    def test_a_domain_that_makes_no_sense_is_named(self) -> None:
        domain = mock.Mock()
        domain.XMLDesc.return_value = '<!DOCTYPE x><domain/>'
        domain.ID.return_value = -1
        self.connection.lookupByUUIDString.return_value = domain
        self.assert_failure(
            self.look('test:///x', lambda: self.connection), 'document type'
        )


@ddt.ddt
class WrongHostTest(libvirt_guests.DomainsTestCase):
    """A libvirt that is not the one with the guests of this host."""

    def check(self, uri: str, hostname: str | None = None) -> None:
        # Mocked: a session needs a user, and another host another host.
        connection = mock.Mock()
        connection.getURI.return_value = uri
        connection.getHostname.return_value = hostname
        connection.listAllDomains.return_value = []
        answer = libvirt_connection.read_answer(connection)
        libvirt_connection.check_host(answer, 'compute1.example.org')

    @ddt.data(
        'qemu:///session',
        'qemu+unix:///session?socket=/run/user/1000/libvirt/libvirt-sock',
        'qemu+ssh://compute1/session',
    )
    def test_the_session_of_a_user_is_blind(self, uri: str) -> None:
        with self.assertRaisesRegex(libvirt_connection.NoAnswer, 'session'):
            self.check(uri, 'compute1')

    @ddt.data(
        'qemu:///system', 'qemu:///system?socket=/x/session', 'test:///x'
    )
    def test_one_behind_a_local_socket_is_not_asked_its_name(
        self, uri: str
    ) -> None:
        self.check(uri, 'another')

    @ddt.data('compute1', 'COMPUTE1.example.net', socket.gethostname())
    def test_this_host_may_be_reached_over_the_network(
        self, hostname: str
    ) -> None:
        self.check('qemu+tcp://10.0.0.1/system', hostname)

    def test_the_libvirt_of_another_host_is_blind(self) -> None:
        with self.assertRaisesRegex(libvirt_connection.NoAnswer, 'compute2'):
            self.check('qemu+tcp://compute1/system', 'compute2')

    def test_it_is_a_failure_whatever_the_options_say(self) -> None:
        connection = mock.Mock()
        connection.getURI.return_value = 'qemu:///session'
        connection.listAllDomains.return_value = []
        self.assert_failure(
            self.look('qemu:///system', lambda: connection), 'session'
        )
