# SPDX-License-Identifier: Apache-2.0

"""How libvirt is asked, and what may become of the question."""

import concurrent.futures
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any
from unittest import mock

import ddt
import libvirt

from nova_imagecache.witnesses import domain_xml
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies
from tests.support import libvirt_guests

GUEST = libvirt_guests.GUEST
ORIGINAL = libvirt_guests.ORIGINAL
SWAP = libvirt_guests.SWAP
BASE_FILES = libvirt_guests.BASE_FILES


class HostConnectionTest(libvirt_guests.DomainsTestCase):
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
        uri = self.write_node(
            libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}')
        )

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
        uri = self.write_node(
            libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}')
        )
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
class ProcessTest(libvirt_guests.DomainsTestCase):
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
        uri = self.write_node(
            libvirt_guests.guest_xml(GUEST, f'/x/{ORIGINAL}')
        )
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
        started: list[int] = []

        class Noted(subprocess.Popen[bytes]):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                started.append(self.pid)

        self.patch(subprocess, 'Popen', Noted)
        self.replace_program('import signal; signal.pause()')
        self.patch(libvirt_connection, 'DEADLINE_SECONDS', 1)
        self.assert_failure(self.look('x'), 'not answered within 1 s')
        (pid,) = started
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

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
            libvirt_guests.guest_xml(
                f'11111111-aaaa-4aaa-8aaa-{number:012}', '/x/' + SWAP
            )
            for number in range(1000)
        ]
        users = self.look(self.write_node(*guests)).users
        self.assertEqual(1000, len(users[SWAP]))


class VolumeTest(libvirt_guests.DomainsTestCase):
    """Where the volumes of pools are."""

    def setUp(self) -> None:
        super().setUp()
        guest = libvirt_guests.guest_xml(GUEST, '/x').replace(
            "<disk type='file' device='disk'>", "<disk type='volume'>"
        )
        self.uri = self.write_node(
            guest.replace("file='/x'", "pool='pool' volume='v'"),
            "<pool type='dir'><name>pool</name><target><path>/p</path>"
            '</target><volume><name>v</name><capacity>1</capacity></volume>'
            '</pool>',
        )

    def disks(self, connection: Any) -> list[domain_xml.DomainDisk]:
        (domain,) = libvirt_connection.read_domains(connection)
        return list(domain.disks)

    def test_a_process_tells_of_them_as_the_host_does(self) -> None:
        disk = domain_xml.DomainDisk('pool/v', '/p/v', 'raw')
        (domain,) = libvirt_connection.ask(self.uri).domains
        self.assertEqual((disk,), domain.disks)
        # It runs, and is defined: each volume is asked for once.
        connection = mock.Mock(wraps=libvirt.open(self.uri))
        self.assertEqual([disk], self.disks(connection))
        connection.storagePoolLookupByName.assert_called_once_with('pool')

    def test_what_libvirt_does_not_tell_is_not_known(self) -> None:
        connection = libvirt.open(self.uri)
        unknown = [domain_xml.DomainDisk('pool/v', None, 'raw')]
        pool = connection.storagePoolLookupByName('pool')
        pool.storageVolLookupByName('v').delete()
        self.assertEqual(unknown, self.disks(connection))
        pool.destroy()
        self.assertEqual(unknown, self.disks(connection))
        pool.undefine()
        self.assertEqual(unknown, self.disks(connection))


class MainTest(libvirt_guests.DomainsTestCase):
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
        libvirt.registerErrorHandler(libvirt_guests.quiet, None)
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
