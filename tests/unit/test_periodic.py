# SPDX-License-Identifier: Apache-2.0

"""What a timer runs where nova-compute makes no passes of its own."""

import configparser
import glob
import json
import multiprocessing
import os
import shlex
from typing import Any

import ddt

from nova_imagecache.cache import coordination
from nova_imagecache.cache import registry
from nova_imagecache.cli import app
from tests import base
from tests.unit import test_cache
from tests.unit import test_cli

UNITS = os.path.join(os.path.dirname(__file__), '../../etc/systemd')


def _register(args: tuple[Any, str]) -> None:
    layout, host = args
    registry.register(layout, host, 1.0)


@ddt.ddt
class RegistryTest(base.NodeTestCase):
    """The file of those who share the storage, which is Nova's."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.node.layout.instances, 'compute_nodes')

    def nodes(self) -> Any:
        with open(self.path) as file:
            return json.load(file)

    def write(self, text: str) -> None:
        with open(self.path, 'w') as file:
            file.write(text)

    def test_a_host_is_noted_beside_those_that_are_there(self) -> None:
        self.write('{"other": 5.5}')
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'other': 5.5, 'here': 7.0}, self.nodes())

    def test_the_first_host_makes_the_file(self) -> None:
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'here': 7.0}, self.nodes())

    @ddt.data('', '{"cut', '[1]', 'null', '[' * 100000)
    def test_what_is_no_list_of_hosts_is_begun_anew_as_nova_does(
        self, text: str
    ) -> None:
        self.write(text)
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'here': 7.0}, self.nodes())
        self.assertIn('no list of hosts', self.log.output)

    def test_a_time_that_is_none_is_dropped(self) -> None:
        # Nova would fail to subtract it, on all hosts.
        self.write('{"a": "x", "b": null, "c": NaN, "d": true, "e": 1}')
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'e': 1, 'here': 7.0}, self.nodes())

    def test_a_symbolic_link_is_not_followed(self) -> None:
        target = os.path.join(self.temporary, 'target')
        with open(target, 'w') as file:
            file.write('{}')
        os.symlink(target, self.path)
        self.assertRaises(
            OSError, registry.register, self.node.layout, 'here', 7.0
        )
        with open(target) as file:
            self.assertEqual('{}', file.read())

    def test_many_at_once_lose_nobody(self) -> None:
        hosts = [f'host-{number}' for number in range(20)]
        context = multiprocessing.get_context('spawn')
        with context.Pool(4) as pool:
            pool.map(_register, [(self.node.layout, host) for host in hosts])
        self.assertEqual(set(hosts), set(self.nodes()))

    def test_it_waits_for_novas_lock(self) -> None:
        nova = test_cache.NovaProcess(
            self.node.layout.locks, 'storage-registry-lock'
        )
        context = multiprocessing.get_context('spawn')
        process = context.Process(
            target=_register, args=((self.node.layout, 'here'),)
        )
        with nova:
            process.start()
            process.join(1)
            self.assertTrue(process.is_alive())
            self.assertFalse(os.path.exists(self.path))
        process.join()
        self.assertEqual({'here': 1.0}, self.nodes())


class PassTest(test_cli.ShellTestCase):
    """The options of the commands that are for a timer."""

    def test_a_pass_notes_the_host_only_if_it_is_asked_to(self) -> None:
        path = os.path.join(self.node.layout.instances, 'compute_nodes')
        self.node.add_image('x')
        self.rows('pass')
        self.assertFalse(os.path.exists(path))
        self.rows('pass', '--dry-run', '--register-host')
        self.assertFalse(os.path.exists(path))
        self.rows('pass', '--register-host')
        with open(path) as file:
            self.assertEqual(1, len(json.load(file)))

    def test_a_host_that_cannot_be_noted_is_a_problem_and_no_end(
        self,
    ) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        os.mkdir(os.path.join(self.node.layout.instances, 'compute_nodes'))
        code, _stdout, stderr = self.run_command('pass', '--register-host')
        self.assertEqual(1, code)
        self.assertIn('compute_nodes', stderr)
        self.assertNotIn('Traceback', stderr)
        self.assertNotIn(name, self.node.files())

    def test_a_pass_reads_nothing_when_it_is_told_so(self) -> None:
        name = self.node.add_image('x')
        (row,) = self.rows('pass', '--no-verify')
        self.assertEqual('unknown', row['checksum'])
        self.assertEqual({name}, self.node.files())

    def test_a_scrub_reads_nothing_when_checksums_are_off(self) -> None:
        name = self.node.add_image('x')
        self.write_conf(checksum_base_images='false')
        _code, stdout, _stderr = self.run_command(
            'scrub', '--if-enabled', '-f', 'json'
        )
        self.assertIn('checksum_base_images is off', stdout)
        self.assertEqual({name}, self.node.files())
        self.run_command('scrub')
        self.assertEqual({name, f'{name}.sha1'}, self.node.files())

    def test_a_scrub_beside_another_is_no_failure_of_a_timer(self) -> None:
        name = self.node.add_image('x')
        with coordination.coordinator(self.node.layout).turn():
            code, _stdout, stderr = self.run_command('scrub', '--if-enabled')
            self.assertEqual(0, code)
            self.assertIn('another manager is at it', stderr)
            self.assertEqual({name}, self.node.files())


class UnitsTest(base.TestCase):
    """The units for systemd."""

    def read(self, path: str) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        # The case of keys counts.
        parser.optionxform = str  # type: ignore[assignment]  # as documented
        parser.read(path)
        return parser

    def test_each_timer_has_its_service_and_each_service_its_command(
        self,
    ) -> None:
        timers = glob.glob(os.path.join(UNITS, '*.timer'))
        self.assertEqual(2, len(timers))
        for timer in timers:
            service = self.read(timer.removesuffix('timer') + 'service')
            program, *arguments = shlex.split(service['Service']['ExecStart'])
            self.assertEqual('nova-imagecache', program)
            self.assertEqual('nova', service['Service']['User'])
            shell = app.Shell()
            factory, name, rest = shell.command_manager.find_command(arguments)
            factory(shell, None).get_parser(name).parse_args(rest)
