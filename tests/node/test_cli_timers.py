# SPDX-License-Identifier: Apache-2.0

"""What a timer runs where nova-compute makes no passes of its own."""

import configparser
import glob
import json
import os
import shlex
import shutil
import subprocess

from nova_imagecache.cache import coordination
from nova_imagecache.cli import app
from tests.support import base
from tests.support import nodes
from tests.support import shell

UNITS = os.path.join(os.path.dirname(__file__), '../../etc/systemd')


class PassTest(shell.ShellTestCase):
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
            'scrub', '--if-enabled', '--progress', 'json'
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


class SummaryTest(shell.ShellTestCase):
    """What is printed goes to the journal, and there it stays."""

    def test_a_pass_says_what_it_did_and_how_the_cache_is(self) -> None:
        gone = self.node.add_image('old', age=365 * base.DAY)
        for number in range(20):
            name = self.node.add_image(str(number))
            self.node.add_overlay('guest', name, disk=f'disk{number}')
        _code, stdout, _stderr = self.run_command(
            'pass', '--no-verify', '--summary'
        )
        moved, summary, coverage = stdout.splitlines()
        self.assertIn(f'Moved to the trash: original file {gone}', moved)
        self.assertIn(': 21 files, 20 in use, 1 moved', summary)
        self.assertIn(' MiB verified', coverage)

    def test_a_scrub_says_how_much_it_has_read_and_why_it_ended(self) -> None:
        self.node.add_image('x')
        _code, stdout, stderr = self.run_command('scrub', '--summary')
        self.assertEqual(
            '64.0 KiB read in 1 file; it ended, as nothing more is due\n',
            stdout,
            stderr,
        )

    def test_the_units_ask_for_it(self) -> None:
        for name in ('pass', 'scrub'):
            path = os.path.join(UNITS, f'nova-imagecache-{name}.service')
            with open(path) as file:
                self.assertRegex(file.read(), 'ExecStart=.* --summary\n')


class UnitsTest(nodes.FileTestCase):
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

    def test_none_starts_without_the_file_system_of_the_instances(
        self,
    ) -> None:
        services = glob.glob(os.path.join(UNITS, '*.service'))
        self.assertEqual(3, len(services))
        for path in services:
            self.assertEqual(
                '/var/lib/nova/instances',
                self.read(path)['Unit']['RequiresMountsFor'],
            )

    def test_systemd_finds_no_fault_with_any(self) -> None:
        if shutil.which('systemd-analyze') is None:
            self.skipTest('systemd-analyze is not installed')
        for path in glob.glob(os.path.join(UNITS, '*')):
            with open(path) as file:
                # It looks for the program, which need not be installed here.
                unit = file.read().replace('=nova-imagecache ', '=/bin/true ')
            copy = os.path.join(self.temporary, os.path.basename(path))
            with open(copy, 'w') as file:
                file.write(unit)
        done = subprocess.run(
            ['systemd-analyze', 'verify', *glob.glob(f'{self.temporary}/*')],
            capture_output=True,
            text=True,
        )
        # Units of the host are looked at too.
        ours = [line for line in done.stderr.splitlines() if 'nova' in line]
        self.assertEqual([], ours)

    def test_one_that_hangs_is_ended_so_that_the_next_one_can_start(
        self,
    ) -> None:
        for path in glob.glob(os.path.join(UNITS, '*.service')):
            service = self.read(path)['Service']
            for limit in ('TimeoutStartSec', 'TimeoutStopSec'):
                self.assertRegex(service[limit], '^[1-9][0-9]*(s|min|h)$')
            # SIGTERM to the process itself, and then SIGKILL to all.
            self.assertEqual('mixed', service['KillMode'])
