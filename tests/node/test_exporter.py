# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import gzip
import http.client
import os
import shutil
import socket
import threading
from typing import Any
import urllib.error
import urllib.request

import fixtures
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser
import psutil

from nova_imagecache import clocks
from nova_imagecache.content import incidents
from nova_imagecache import errors
from nova_imagecache.outlets import exporter
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import summaries
from nova_imagecache.outlets import totals
from nova_imagecache.passes import reports
from tests.support import exporters
from tests.support import nodes
from tests.support import processes
from tests.support import shell

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


CRUEL = 'a"b\\c\nd'


def nothing() -> metrics.Facts:
    return metrics.Facts('1.0')


def with_images() -> metrics.Facts:
    now = clocks.now()
    summary = totals.summarised(reports.Report('/c'), 'h', now, now, {}, 1)
    images = (summaries.Named('a', CRUEL),)
    return metrics.Facts('1', dataclasses.replace(summary, images=images))


class ProcessTest(nodes.NodeTestCase):
    """The exporter as systemd starts it."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True)
        self.name = self.node.add_image('x')
        self.node.add_overlay(GUEST, self.name)
        self.make_pass()

    def make_pass(self) -> None:
        report = self.node.run()
        self.assertEqual([], figures.keep(self.node.settings, report))

    def start(self, *arguments: str) -> exporters.Exporter:
        return self.useFixture(
            exporters.Exporter(self.node.layout.instances, arguments)
        )

    def page(self, started: exporters.Exporter) -> str:
        return exporters.fetch(started.url.removesuffix('metrics'))

    def test_it_tells_what_the_last_pass_has_left_whenever_asked(
        self,
    ) -> None:
        started = self.start()
        bad = 'damaged_files{verdict="corrupt"} '
        self.assertIn(f'{bad}0.0', exporters.fetch(started.url))
        self.assertIn('OK, NOT CHECKED YET', self.page(started))
        nodes.flip_bit(self.node.base_path(self.name))
        self.make_pass()
        self.assertIn(f'{bad}1.0', exporters.fetch(started.url))
        page = self.page(started)
        self.assertIn('1 base file is damaged; 1 guest reads it.', page)
        self.assertIn(GUEST, page)

    def test_what_was_noted_since_the_last_pass_counts_at_once(self) -> None:
        started = self.start()
        bad = 'damaged_files{verdict="corrupt"} '
        seen = incidents.Sight('corrupt', ranges=((0, 4096),), guests=(GUEST,))
        now = clocks.now().wall
        incidents.note(self.node.layout, {self.name: seen}, {}, None, now)
        found = exporters.fetch(started.url)
        self.assertIn(f'{bad}1.0', found)
        self.assertIn('damaged_bytes{verdict="corrupt"} 4096.0', found)
        self.assertIn(f'file_readers{{name="{self.name}"}} 1.0', found)
        incidents.healed(self.node.layout, self.name, (), (), now + 1)
        self.assertIn(f'{bad}0.0', exporters.fetch(started.url))

    def test_it_listens_to_this_machine_alone(self) -> None:
        started = self.start()
        listening = [
            each.laddr.ip
            for each in psutil.Process(started.process.pid).net_connections()
        ]
        self.assertEqual(['127.0.0.1'], listening)

    def test_a_signal_ends_it(self) -> None:
        started = self.start()
        self.assertEqual(0, started.end())
        self.assertRaises(OSError, exporters.fetch, started.url)

    def test_it_writes_nothing_and_becomes_the_owner_of_the_cache(
        self,
    ) -> None:
        for path in (self.node.layout.instances, self.node.layout.base):
            os.chown(path, nodes.NOBODY, nodes.NOBODY)
        before = self.everything()
        started = self.start()
        exporters.fetch(started.url)
        self.page(started)
        self.assertEqual(before, self.everything())
        uids = psutil.Process(started.process.pid).uids()
        self.assertEqual({nodes.NOBODY}, {*uids})

    def everything(self) -> dict[str, int]:
        return {
            os.path.join(directory, name): os.lstat(
                os.path.join(directory, name)
            ).st_mtime_ns
            for directory, directories, files in os.walk(self.temporary)
            for name in (*directories, *files)
        }

    def test_it_opens_no_base_file_and_no_disk(self) -> None:
        # All may be gone, and the records alone be there.
        shutil.rmtree(os.path.join(self.node.layout.instances, GUEST))
        os.unlink(self.node.base_path(self.name))
        found = exporters.fetch(self.start().url)
        self.assertIn('files{kind="original",state="used"} 1.0', found)

    def test_it_encrypts(self) -> None:
        if shutil.which('openssl') is None:
            self.skipTest('openssl is not installed')
        certificate, key = exporters.certificate(self.temporary)
        started = self.start('--certfile', certificate, '--keyfile', key)
        self.assertTrue(started.url.startswith('https://'))
        self.assertIn(
            'nova_imagecache_build_info',
            exporters.fetch(started.url, certificate),
        )
        # Somebody who says nothing keeps nobody waiting.
        host, _colon, port = started.target.partition(':')
        with socket.create_connection((host, int(port))):
            exporters.fetch(started.url, certificate)

    def test_a_record_that_is_garbage_is_told_and_ends_nothing(self) -> None:
        (name,) = os.listdir(self.node.layout.summaries)
        path = os.path.join(self.node.layout.summaries, name)
        started = self.start()
        os.unlink(path)
        os.mkfifo(path)
        readable = 'nova_imagecache_records_readable '
        self.assertIn(f'{readable}0.0', exporters.fetch(started.url))
        self.assertIn('cannot be read', self.page(started))
        os.unlink(path)
        self.make_pass()
        self.assertIn(f'{readable}1.0', exporters.fetch(started.url))


class ServerTest(nodes.FileTestCase):
    def serve(self, gather: Any = nothing) -> str:
        server = exporter.Server(
            exporter.Application(gather), ('127.0.0.1', 0)
        )
        stack = contextlib.ExitStack()
        stack.enter_context(exporter.served(server))
        self.addCleanup(stack.close)
        return f'http://127.0.0.1:{server.server_port}'

    def status(self, url: str, **request: Any) -> int:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, **request), timeout=60
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def test_what_is_not_there_is_not_found(self) -> None:
        url = self.serve()
        self.assertEqual(404, self.status(f'{url}/etc/passwd'))
        self.assertEqual(404, self.status(f'{url}/../etc/passwd'))
        self.assertEqual(200, self.status(f'{url}/'))
        self.assertEqual(200, self.status(f'{url}/metrics'))

    def test_who_asks_for_some_metrics_gets_these(self) -> None:
        url = f'{self.serve(with_images)}/metrics?name[]=nova_imagecache_'
        for name in ('files', 'removed_files_total', 'base_file_info'):
            lines = [
                line
                for line in exporters.fetch(f'{url}{name}').splitlines()
                if not line.startswith('#')
            ]
            self.assertTrue(lines, name)
            self.assertEqual(
                [], [line for line in lines if f'_{name}' not in line]
            )
        self.assertEqual('', exporters.fetch(f'{url}none'))

    def test_what_has_a_line_per_file_is_as_the_library_has_it(self) -> None:
        url = f'{self.serve(with_images)}/metrics'
        for accept, parse in (
            ('text/plain', parser.text_string_to_metric_families),
            (
                'application/openmetrics-text; version=1.0.0',
                openmetrics.text_string_to_metric_families,
            ),
        ):
            request = urllib.request.Request(url, headers={'Accept': accept})
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
            found = {each.name: each for each in parse(text)}
            self.assertIn('nova_imagecache_files', found)
            (sample,) = found['nova_imagecache_base_file_info'].samples
            self.assertEqual(
                ({'name': 'a', 'image_id': CRUEL}, 1.0),
                (sample.labels, sample.value),
            )

    def test_it_is_compressed_for_who_takes_that(self) -> None:
        url = self.serve(with_images)
        request = urllib.request.Request(
            f'{url}/metrics', headers={'Accept-Encoding': 'gzip'}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = gzip.decompress(answer.read()).decode()
        self.assertIn('nova_imagecache_base_file_info', text)

    def test_who_asks_for_the_head_gets_no_more(self) -> None:
        url = self.serve()
        for path in ('/metrics', '/', '/none'):
            with contextlib.closing(
                http.client.HTTPConnection(url.removeprefix('http://'))
            ) as connection:
                answers = []
                for method in ('HEAD', 'GET'):
                    connection.request(method, path)
                    answer = connection.getresponse()
                    answers.append((answer, answer.read()))
            (head, nothing_), (whole, body) = answers
            self.assertEqual(whole.status, head.status)
            self.assertEqual(b'', nothing_)
            self.assertEqual(
                str(len(body)), whole.headers['Content-Length'], path
            )
            self.assertEqual(
                whole.headers['Content-Type'], head.headers['Content-Type']
            )

    def test_nothing_can_be_sent_to_it(self) -> None:
        url = self.serve()
        for method in ('POST', 'PUT', 'DELETE'):
            self.assertEqual(
                405, self.status(f'{url}/metrics', method=method, data=b'x')
            )

    def test_while_storage_hangs_no_requests_pile_up(self) -> None:
        self.patch(exporter, '_PATIENCE_SECONDS', 0)
        logger = self.useFixture(fixtures.FakeLogger())
        begun, over = threading.Event(), threading.Event()
        self.addCleanup(over.set)

        def hang() -> metrics.Facts:
            begun.set()
            over.wait(processes.PATIENCE_SECONDS)
            return nothing()

        url = self.serve(hang)
        first: list[int] = []
        thread = threading.Thread(
            target=lambda: first.append(self.status(url))
        )
        thread.start()
        begun.wait(processes.PATIENCE_SECONDS)
        self.assertEqual(503, self.status(f'{url}/metrics'))
        self.assertEqual(503, self.status(url))
        # Nobody has to look into that.
        self.assertNotIn('[P', logger.output)
        over.set()
        thread.join()
        self.assertEqual([200], first)

    def test_a_certificate_that_is_none_is_refused(self) -> None:
        path = os.path.join(self.temporary, 'cert')
        with open(path, 'w') as file:
            file.write('garbage')
        self.assertRaises(errors.Error, exporter.tls, path, path)
        self.assertRaises(errors.Error, exporter.tls, '/none', '/none')


class UsageTest(shell.ShellTestCase):
    def refused(self, *arguments: str) -> str:
        code, _stdout, stderr = self.run_command('exporter', *arguments)
        self.assertIn(code, (1, 2))
        self.assertNotIn('Traceback', stderr)
        return stderr

    def test_a_port_that_is_taken_is_told_with_what_to_do(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = str(server.getsockname()[1])
            error = self.refused('--port', port)
        self.assertIn(f'port {port}', error)
        self.assertIn('choose others with --host and --port', error)

    def test_a_host_that_is_not_ours_is_told(self) -> None:
        self.assertIn('cannot listen', self.refused('--host', '192.0.2.1'))

    def test_a_key_takes_a_certificate(self) -> None:
        self.assertIn('go together', self.refused('--keyfile', '/x'))

    def test_a_port_is_a_number_that_there_is(self) -> None:
        for port in ('x', '-1', '65536'):
            self.assertIn('--port', self.refused('--port', port))
