# SPDX-License-Identifier: Apache-2.0

"""The witness that asks libvirt; here a real one, with its test driver."""

from collections.abc import Callable
import concurrent.futures
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any
from unittest import mock

import ddt
import libvirt

from nova_imagecache import names
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies
from tests import base

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
IMAGE = 'fe55c69a-8b2e-4bbc-811a-9ad2023a0426'

ORIGINAL = names.get_cache_fname(IMAGE)
RESIZED = f'{ORIGINAL}_20'
SWAP = 'swap_512'
BASE_FILES = (ORIGINAL, RESIZED, SWAP, f'{ORIGINAL}_20.part', 'golden')

_NOVA = 'http://openstack.org/xmlns/libvirt/nova/1.1'


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


class DomainsTestCase(base.TestCase):
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
        (failure,) = testimony.failures
        self.assertEqual(testimonies.Testimony(failures=(failure,)), testimony)
        self.assertTrue(failure.startswith('libvirt at '), failure)
        self.assertTrue(failure.isprintable(), failure)
        for word in words:
            self.assertIn(word, failure)


@ddt.ddt
class UsersTest(DomainsTestCase):
    """What is seen, by a process and through the host's connection."""

    def see(self, lent: bool, *guests: str) -> testimonies.Testimony:
        uri = self.write_node(*guests)
        connect = (lambda: libvirt.open(uri)) if lent else None
        testimony = self.look(uri, connect)
        self.assertEqual((), testimony.failures)
        return testimony

    @ddt.data(True, False)
    def test_a_domain_uses_the_files_of_its_disks(self, lent: bool) -> None:
        testimony = self.see(
            lent,
            guest_xml(GUEST, f'/elsewhere/_base/{RESIZED}'),
            guest_xml(OTHER, '/elsewhere/swap_512'),
        )
        self.assertEqual({RESIZED: {GUEST}, SWAP: {OTHER}}, testimony.users)

    @ddt.data(True, False)
    def test_a_domain_uses_all_that_is_made_from_its_image(
        self, lent: bool
    ) -> None:
        testimony = self.see(lent, guest_xml(GUEST, '/x/disk', IMAGE))
        self.assertEqual(
            {ORIGINAL: {GUEST}, RESIZED: {GUEST}}, testimony.users
        )
        self.assertEqual({ORIGINAL: IMAGE, RESIZED: IMAGE}, testimony.images)

    def test_guests_are_known_by_the_names_of_their_domains(self) -> None:
        testimony = self.see(False, guest_xml(GUEST, '/x/disk'))
        self.assertEqual({f'instance-{GUEST}': GUEST}, testimony.aliases)

    def test_nobody_uses_anything_where_there_are_no_domains(self) -> None:
        self.assertEqual(testimonies.Testimony(), self.see(False))

    def test_a_domain_that_is_only_defined_counts(self) -> None:
        connection = libvirt.open('test:///default')
        domain = connection.defineXML(guest_xml(GUEST, f'/x/{ORIGINAL}'))
        self.addCleanup(domain.undefine)
        self.assertFalse(domain.isActive())
        testimony = self.look('test:///default', lambda: connection)
        self.assertEqual({ORIGINAL: {GUEST}}, testimony.users)

    def test_what_a_running_domain_is_defined_with_counts_too(self) -> None:
        connection = libvirt.open('test:///default')
        domain = connection.createXML(guest_xml(GUEST, f'/x/{ORIGINAL}'))
        self.addCleanup(domain.destroy)
        defined = connection.defineXML(guest_xml(GUEST, f'/x/{SWAP}'))
        testimony = self.look('test:///default', lambda: connection)
        defined.undefine()
        self.assertEqual({ORIGINAL: {GUEST}, SWAP: {GUEST}}, testimony.users)

    def test_nothing_is_asked_but_through_the_connection(self) -> None:
        # Under eventlet it is a proxy; what it lists is not, and would keep
        # all other green threads waiting.
        connection = mock.Mock(
            wraps=libvirt.open(
                self.write_node(guest_xml(GUEST, f'/x/{ORIGINAL}'))
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


class ChangingTest(DomainsTestCase):
    """Domains that come and go while they are read."""

    def setUp(self) -> None:
        super().setUp()
        uri = self.write_node(
            guest_xml(GUEST, f'/x/{ORIGINAL}'), guest_xml(OTHER, f'/x/{SWAP}')
        )
        self.real = libvirt.open(uri)
        # Mocked: nothing can be made to vanish between two calls.
        self.connection = mock.Mock(wraps=self.real)

    def let_vanish(self, *outcomes: Any) -> None:
        self.connection.lookupByUUIDString.side_effect = outcomes

    def test_when_one_vanishes_all_are_listed_again(self) -> None:
        self.let_vanish(missing(), *[mock.DEFAULT] * 3)
        testimony = self.look('test:///x', lambda: self.connection)
        self.assertEqual((), testimony.failures)
        self.assertEqual({ORIGINAL: {GUEST}, SWAP: {OTHER}}, testimony.users)
        self.assertEqual(2, self.connection.listAllDomains.call_count)

    def test_when_they_vanish_all_the_time_it_is_a_failure(self) -> None:
        self.connection.lookupByUUIDString.side_effect = missing()
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
class WrongHostTest(DomainsTestCase):
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


class HostConnectionTest(DomainsTestCase):
    def test_whatever_the_host_raises_is_a_failure(self) -> None:
        def connect() -> Any:
            raise SystemExit('the hypervisor\nis broken')

        self.assert_failure(
            self.look('qemu:///system', connect),
            'libvirt at qemu:///system: the hypervisor is broken',
        )

    def test_an_error_without_words_is_still_told(self) -> None:
        def connect() -> Any:
            raise ZeroDivisionError

        self.assert_failure(self.look('x', connect), 'ZeroDivisionError')

    def test_a_question_that_hangs_is_given_up_and_not_asked_again(
        self,
    ) -> None:
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        calls: list[bool] = []
        uri = self.write_node(guest_xml(GUEST, f'/x/{ORIGINAL}'))

        def connect() -> Any:
            calls.append(True)
            let_go.wait()
            return libvirt.open(uri)

        self.patch(libvirt_connection, 'DEADLINE_SECONDS', 0.01)
        connection = libvirt_connection.HostConnection(connect)

        def look() -> testimonies.Testimony:
            # Made anew for each pass.
            witness = domains.DomainWitness('x', 'compute1', connection)
            return witness.look(BASE_FILES)

        self.assert_failure(look(), 'not answered within 0.01 s')
        self.assert_failure(look(), 'earlier question')
        self.assertEqual(1, len(calls))
        self.patch(libvirt_connection, 'DEADLINE_SECONDS', 60)
        (hanging,) = [
            thread
            for thread in threading.enumerate()
            if thread.name == 'imagecache-libvirt'
        ]
        self.assertTrue(hanging.daemon)
        let_go.set()
        hanging.join()
        self.assertEqual({ORIGINAL: {GUEST}}, look().users)

    def test_questions_are_asked_one_at_a_time_and_all_answered(
        self,
    ) -> None:
        uri = self.write_node(guest_xml(GUEST, f'/x/{ORIGINAL}'))
        asking = threading.Lock()

        def connect() -> Any:
            self.assertTrue(asking.acquire(blocking=False))
            try:
                return libvirt.open(uri)
            finally:
                asking.release()

        connection = libvirt_connection.HostConnection(connect)
        begin = threading.Barrier(8)

        def look() -> Any:
            begin.wait()
            witness = domains.DomainWitness('x', 'compute1', connection)
            return witness.look(BASE_FILES).users

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            looks = [pool.submit(look) for _caller in range(8)]
        for each in looks:
            self.assertEqual({ORIGINAL: {GUEST}}, each.result())


@ddt.ddt
class ProcessTest(DomainsTestCase):
    """A process that asks, and what may become of it."""

    def replace_program(self, code: str) -> None:
        self.patch(libvirt_connection, '_PROGRAM', ('-c', code))

    def test_it_runs_in_any_directory_and_imports_nothing_from_there(
        self,
    ) -> None:
        for name in ('libvirt', 'json', 'nova_imagecache'):
            path = os.path.join(self.temporary, f'{name}.py')
            with open(path, 'w') as file:
                file.write('raise RuntimeError\n')
        here = os.getcwd()
        os.chdir(self.temporary)
        self.addCleanup(os.chdir, here)
        uri = self.write_node(guest_xml(GUEST, f'/x/{ORIGINAL}'))
        self.assertEqual({ORIGINAL: {GUEST}}, self.look(uri).users)

    def test_a_libvirt_that_cannot_be_reached_is_a_failure(self) -> None:
        uri = 'qemu+unix:///system?socket=/no/such/socket'
        self.assert_failure(self.look(uri), uri, '/no/such/socket')

    def test_it_says_nothing_on_its_own(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                *libvirt_connection._PROGRAM,
                'qemu+unix:///system?socket=/no/such/socket',
            ],
            capture_output=True,
            check=True,
        )
        self.assertEqual(b'', done.stderr)
        self.assertEqual({'error'}, json.loads(done.stdout).keys())

    def test_without_the_module_it_says_what_to_install(self) -> None:
        code = (
            'import sys; sys.modules["libvirt"] = None\n'
            'from nova_imagecache.witnesses import libvirt_connection\n'
            'libvirt_connection._main(sys.argv[1])'
        )
        self.replace_program(code)
        self.assert_failure(
            self.look('qemu:///system'),
            'there is no Python module libvirt; install python3-libvirt, or '
            'leave libvirt out of [image_cache]/witnesses',
        )

    def test_one_that_hangs_is_ended(self) -> None:
        pid = os.path.join(self.temporary, 'pid')
        self.replace_program(
            'import os, signal\n'
            f'with open({pid!r}, "w") as file: file.write(str(os.getpid()))\n'
            'signal.pause()'
        )
        self.patch(libvirt_connection, 'DEADLINE_SECONDS', 1)
        self.assert_failure(self.look('x'), 'not answered within 1 s')
        with contextlib.suppress(FileNotFoundError), open(pid) as file:
            number = int(file.read())
            self.assertRaises(ProcessLookupError, os.kill, number, 0)

    def test_one_that_nobody_waits_for_ends_by_itself(self) -> None:
        code = (
            'import signal\n'
            'from nova_imagecache.witnesses import libvirt_connection as it\n'
            'it.DEADLINE_SECONDS = 0.5\n'
            'it.signal.alarm = lambda s: signal.setitimer(0, s)\n'
            'it._open = lambda uri: signal.pause()\n'
            'it._main("x")'
        )
        done = subprocess.run([sys.executable, '-c', code])
        self.assertEqual(-signal.SIGALRM, done.returncode)

    @ddt.data(
        'raise RuntimeError("no such thing")',
        'print("[]"); raise RuntimeError("no such thing")',
        'print("1"); raise RuntimeError("no such thing")',
        'print("{}"); raise RuntimeError("no such thing")',
    )
    def test_one_that_falls_over_is_a_failure(self, code: str) -> None:
        self.replace_program(code)
        self.assert_failure(
            self.look('x'), 'status 1', 'RuntimeError: no such thing'
        )

    def test_one_that_cannot_be_started_is_a_failure(self) -> None:
        self.patch(sys, 'executable', '/no/such/python')
        self.assert_failure(self.look('x'), '/no/such/python')

    def test_a_python_that_does_not_know_itself_is_a_failure(self) -> None:
        self.patch(sys, 'executable', '')
        self.assert_failure(self.look('x'), 'does not know its path')

    def test_a_long_answer_gets_through(self) -> None:
        guests = [
            guest_xml(f'11111111-aaaa-4aaa-8aaa-{number:012}', '/x/' + SWAP)
            for number in range(1000)
        ]
        users = self.look(self.write_node(*guests)).users
        self.assertEqual(1000, len(users[SWAP]))


class MainTest(DomainsTestCase):
    """The program, in this process where it can be watched."""

    def run_main(self, uri: str) -> Any:
        output = io.StringIO()
        with (
            mock.patch.object(os, '_exit', autospec=True),
            mock.patch.object(signal, 'alarm', autospec=True),
            mock.patch.object(threading, 'Thread', autospec=True),
            contextlib.redirect_stdout(output),
        ):
            libvirt_connection._main(uri)
        libvirt.registerErrorHandler(quiet, None)
        return json.loads(output.getvalue())

    def test_it_can_only_read(self) -> None:
        opened = mock.Mock(wraps=libvirt.openAuth)
        self.patch(libvirt, 'openAuth', opened)
        values = self.run_main(self.write_node())
        self.assertEqual([], values['domains'])
        (_uri, (kinds, callback, _opaque), flags) = opened.call_args.args
        self.assertEqual(libvirt.VIR_CONNECT_RO, flags)
        self.assertIn(libvirt.VIR_CRED_PASSPHRASE, kinds)
        # It is never asked for what is in auth.conf.
        self.assertEqual(0, callback([], None))
        self.assertEqual(-1, callback([['password']], None))

    def test_a_connection_that_dies_is_noticed(self) -> None:
        connection = mock.Mock(wraps=libvirt.open('test:///default'))
        connection.setKeepAlive.side_effect = [0]
        self.patch(libvirt, 'openAuth', lambda *args: connection)
        self.assertIn('domains', self.run_main('test:///default'))
        (interval, count) = connection.setKeepAlive.call_args.args
        self.assertLess(
            interval * (count + 1), libvirt_connection.DEADLINE_SECONDS
        )

    def test_what_keepalive_raises_is_told(self) -> None:
        connection = mock.Mock()
        # Or it would say what went wrong last in this process.
        libvirt.virResetLastError()
        connection.setKeepAlive.side_effect = libvirt.libvirtError('broken')
        self.patch(libvirt, 'openAuth', lambda *args: connection)
        values = self.run_main('test:///default')
        self.assertEqual({'error': 'broken'}, values)
