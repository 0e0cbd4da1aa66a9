# SPDX-License-Identifier: Apache-2.0

import json
import os
import pty
import subprocess
import sys
import tempfile
import termios

import ddt
import fixtures

from nova_imagecache.cli import colours
from nova_imagecache.cli import demo
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import shell

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


@ddt.ddt
class CommandTest(shell.ShellTestCase):
    def test_a_row_has_exactly_the_keys_promised(self) -> None:
        name = self.node.add_image('x', size=base.MIB)
        self.node.add_overlay(GUEST, name)
        for argv in (['pass'], ['pass', '--dry-run'], ['list'], ['verify']):
            (row,) = self.rows(*argv)
            keys = shell.READ_KEYS if argv == ['verify'] else shell.KEYS
            self.assertEqual(keys, list(row))
            self.assertEqual(name, row['name'])
            self.assertEqual('original', row['kind'])
            self.assertEqual(base.MIB, row['size'])
            self.assertEqual(64 * base.KIB, row['allocated'])
            self.assertEqual([GUEST], row['users'])
            self.assertIsInstance(row['age_seconds'], int)
            self.assertEqual('keep', row['action'])

    def test_show_has_the_same_keys(self) -> None:
        name = self.node.add_image('x')
        code, stdout, _stderr = self.run_command('show', name, '-f', 'json')
        self.assertEqual(0, code)
        self.assertEqual(shell.KEYS, list(json.loads(stdout)))

    def test_show_takes_a_path(self) -> None:
        path = self.node.add_base('swap_64')
        code, stdout, _stderr = self.run_command('show', path)
        self.assertEqual(0, code)
        self.assertIn('swap_64', stdout)

    def test_a_pass_removes_and_a_dry_run_does_not(self) -> None:
        name = self.node.add_image('old', age=25 * base.HOUR)
        (row,) = self.rows('pass', '--dry-run')
        self.assertEqual('remove', row['action'])
        self.assertEqual({name}, self.node.files())
        (row,) = self.rows('pass')
        self.assertEqual('remove', row['action'])
        self.assertEqual(set(), self.node.files())

    def test_the_states_of_a_checksum(self) -> None:
        path = self.node.add_base(self.node.add_image('x'))
        states = [self.rows('pass')[0]['checksum'] for _pass in range(2)]
        nodes.flip_bit(path)
        states.append(self.rows('pass', code=3)[0]['checksum'])
        states.append(self.rows('list', code=3)[0]['checksum'])
        self.assertEqual(['digested', 'good', 'corrupt', 'corrupt'], states)
        self.write_conf()
        self.assertEqual('off', self.rows('pass')[0]['checksum'])

    def test_corruption_exits_with_3_and_names_the_guests(self) -> None:
        name = self.node.add_image('x')
        self.node.add_overlay(GUEST, name)
        self.run_command('pass')
        nodes.flip_bit(self.node.base_path(name))
        for command in ('pass', 'verify', 'list'):
            code, _stdout, stderr = self.run_command(command)
            self.assertEqual(3, code)
            self.assertIn(name, stderr)
            self.assertIn(GUEST, stderr)
        code, stdout, _stderr = self.run_command('show', name)
        self.assertEqual(3, code)
        self.assertIn('corrupt', stdout)

    def test_verify_reads_only_what_it_is_told_to(self) -> None:
        names = [self.node.add_image('x'), self.node.add_image('y')]
        (row,) = self.rows('verify', names[0])
        self.assertEqual(
            (names[0], 'digested'), (row['name'], row['checksum'])
        )
        self.assertNotIn(names[1] + '.sha1', self.node.files())

    def test_verify_works_with_checksums_off(self) -> None:
        self.write_conf()
        name = self.node.add_image('x')
        self.assertEqual('digested', self.rows('verify')[0]['checksum'])
        self.assertEqual('good', self.rows('verify')[0]['checksum'])
        self.assertEqual('good', self.rows('list')[0]['checksum'])
        nodes.flip_bit(self.node.base_path(name))
        self.assertEqual('corrupt', self.rows('verify', code=3)[0]['checksum'])

    def test_verify_with_checksums_off_writes_for_no_other_file(self) -> None:
        names = [self.node.add_image('x'), self.node.add_image('y')]
        self.rows('verify')
        self.write_conf()
        os.unlink(self.node.base_path(names[1] + '.sha1'))
        self.rows('verify', names[0])
        self.assertNotIn(names[1] + '.sha1', self.node.files())

    def test_verify_removes_nothing(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        (row,) = self.rows('verify')
        self.assertEqual('keep', row['action'])
        self.assertIn(name, self.node.files())

    def test_verify_of_a_locked_file_could_not_do_it(self) -> None:
        name = self.node.add_image('x')
        self.useFixture(processes.NovaProcess(self.node.layout.locks, name))
        code, _stdout, stderr = self.run_command('verify', name)
        self.assertEqual(1, code)
        self.assertIn('lock', stderr)

    @ddt.data('show', 'verify')
    def test_a_name_that_is_not_there_is_one_line(self, command: str) -> None:
        code, _stdout, stderr = self.run_command(command, 'caf\udce9')
        self.assertEqual(1, code)
        self.assertEqual(1, len(stderr.splitlines()))
        self.assertIn('nova-imagecache list', stderr)

    def test_what_was_verified_fits_a_terminal(self) -> None:
        self.node.add_image('y')
        for argv in (['verify'], ['verify', '-c', 'name', '-f', 'value']):
            _code, stdout, _stderr = self.run_command(*argv)
            for line in stdout.splitlines():
                self.assertLessEqual(len(line), 80, line)
        self.assertIn('SIZE/DISK', self.run_command('verify')[1])
        self.assertIn(
            '| age_seconds |', self.run_command('verify', '--long')[1]
        )

    def test_what_was_not_verified_is_told_below(self) -> None:
        name = self.node.add_image('y')
        for _time in range(2):
            self.assertNotIn('not verified', self.run_command('verify')[1])
        self.useFixture(processes.NovaProcess(self.node.layout.locks, name))
        _code, stdout, _stderr = self.run_command('verify')
        self.assertIn(f'\n{name}: not verified: its lock is held', stdout)

    def test_verify_of_a_file_that_may_grow_could_not_do_it(self) -> None:
        name = self.node.add_image('x') + '_20'
        self.node.add_base(name)
        code, _stdout, stderr = self.run_command('verify', name)
        self.assertEqual(1, code)
        self.assertIn('first time', stderr)
        self.assertEqual('digested', self.rows('verify', name)[0]['checksum'])
        self.assertEqual('good', self.rows('verify', name)[0]['checksum'])
        # Where no file was named, it is no failure.
        self.node.add_base(name + '1')
        self.assertEqual(0, self.run_command('verify')[0])

    def test_verify_of_a_name_that_is_no_file_could_not_do_it(self) -> None:
        name = self.node.add_image('x')
        self.node.add_image('y')
        path = self.node.base_path(name)
        os.rename(path, self.node.base_path('elsewhere'))
        os.symlink('elsewhere', path)
        code, _stdout, stderr = self.run_command('verify', name)
        self.assertEqual(1, code)
        self.assertIn(f'{name}: not verified: it is no file', stderr)
        # Where no file was named, it is no failure.
        self.assertEqual(0, self.run_command('verify')[0])

    def test_a_blind_witness_is_no_matter_to_verify(self) -> None:
        self.node.add_image('x')
        self.node.add_file(GUEST, 'disk', data=b'QFI\xfb garbage')
        self.rows('verify')

    def test_only_base_files_are_verified(self) -> None:
        self.node.add_base('README')
        code, _stdout, stderr = self.run_command('verify', 'README')
        self.assertEqual(1, code)
        self.assertIn('no base file', stderr)

    def test_a_blind_witness_could_not_do_it(self) -> None:
        self.node.add_image('old', age=365 * base.DAY)
        self.node.add_file(GUEST, 'disk', data=b'QFI\xfb garbage')
        code, stdout, stderr = self.run_command('pass')
        self.assertEqual(1, code)
        self.assertIn('Nothing is removed', stderr)
        self.assertIn('keep', stdout)

    def test_names_that_are_not_utf8_are_shown(self) -> None:
        self.node.add_base('caf\udce9')
        (row,) = self.rows('list')
        self.assertEqual(r'caf\xe9', row['name'])
        self.node.add_overlay('gu\udce9st', self.node.add_image('x'))
        self.assertIn(r'gu\xe9st', self.run_command('list', '--long')[1])

    def test_instances_path_overrides_nova_conf(self) -> None:
        other = os.path.join(self.temporary, 'other')
        node = nodes.Node(other)
        node.add_base('swap_64')
        _code, stdout, _stderr = self.run_command(
            '--instances-path', other, 'list', '-f', 'json'
        )
        self.assertEqual(
            ['swap_64'], [row['name'] for row in json.loads(stdout)]
        )

    def test_a_dollar_sign_in_a_path_is_one(self) -> None:
        node = nodes.Node(os.path.join(self.temporary, 'x$host'))
        node.add_base('swap_64')
        code, stdout, _stderr = self.run_command(
            '--instances-path', node.layout.instances, 'list', '-f', 'value'
        )
        self.assertEqual(0, code)
        self.assertIn('swap_64', stdout)

    def test_the_later_configuration_file_wins(self) -> None:
        second = os.path.join(self.temporary, 'second.conf')
        with open(second, 'w') as file:
            file.write('[image_cache]\nsubdirectory_name = _other\n')
        self.node.add_image('x')
        code, stdout, _stderr = self.run_command(
            '--config-file', second, 'list', '-f', 'json'
        )
        self.assertEqual((1, '[]'), (code, stdout.strip()))

    @ddt.data('pass', 'verify')
    def test_a_node_without_a_cache_is_fine_and_stays_so(
        self, command: str
    ) -> None:
        os.rmdir(self.node.layout.base)
        self.node.add_directory('locks')
        code, stdout, stderr = self.run_command(command, '-f', 'json')
        self.assertEqual((0, '[]'), (code, stdout.strip()))
        self.assertIn('There is no cache', stderr)
        self.assertFalse(os.path.exists(self.node.layout.base))

    @ddt.data(
        'list', 'trash', 'pass', 'verify', 'scrub', 'status', 'pins', 'hosts',
        'ignored',
    )  # fmt: skip
    def test_json_is_one_document(self, command: str) -> None:
        self.node.add_image('x')
        _code, stdout, stderr = self.run_command(command, '-f', 'json')
        json.loads(stdout)
        self.assertEqual('', stderr)

    def test_a_bare_program_lists_its_commands_a_line_each(self) -> None:
        code, _stdout, stderr = self.shell()
        self.assertEqual(2, code)
        self.assertIn('\n  status ', stderr)
        self.assertIn('\n  explain ', stderr)

    def test_options_without_a_command_do_too(self) -> None:
        code, _stdout, stderr = self.shell('--config-file', self.nova_conf)
        self.assertEqual(2, code)
        self.assertIn('\n  verify  ', stderr)

    def test_the_line_of_a_bad_file_is_red(self) -> None:
        names = [self.node.add_image(f'image-{each}') for each in range(2)]
        self.run_command('verify')
        nodes.flip_bit(self.node.base_path(names[0]))
        self.run_command('verify')
        self.patch(
            colours,
            'on_terminal',
            lambda stream, text, colour: f'{colour}:{text}',
        )
        _code, stdout, _stderr = self.run_command('list')
        (line,) = [
            line for line in stdout.splitlines() if line.startswith('1;31:')
        ]
        self.assertIn(names[0][:8], line)

    def test_the_list_fits_80_columns_and_has_whole_names_in_200(self) -> None:
        names = [self.node.add_image(f'image-{each}') for each in range(12)]
        for number in range(3):
            self.node.add_overlay(f'guest-{number}', names[0])
        code, stdout, _stderr = self.run_command('list', '--max-width', '80')
        lines = stdout.splitlines()
        self.assertEqual((0, 13), (code, len(lines)))
        self.assertLessEqual(max(map(len, lines)), 80)
        (line,) = [line for line in lines if names[0][:8] in line]
        self.assertEqual(
            ['original', '64K/64K', '3', 'now'], line.split()[2:6]
        )
        stdout = self.run_command('list', '--max-width', '200')[1]
        for name in names:
            self.assertIn(name, stdout)

    def test_the_list_can_be_of_those_that_are_bad_or_unused(self) -> None:
        used, bad = self.node.add_image('used'), self.node.add_image('bad')
        self.node.add_overlay('guest', used)
        for _time in range(2):
            self.run_command('verify')
        nodes.flip_bit(self.node.base_path(bad))
        self.run_command('verify')
        for option, wanted in (('--corrupt', bad), ('--unused', bad)):
            rows = self.rows('list', option, code=3)
            self.assertEqual([wanted], [row['name'] for row in rows])

    def test_csv_has_users_and_no_python(self) -> None:
        name = self.node.add_image('x')
        for number in range(2):
            self.node.add_overlay(f'guest-{number}', name)
        stdout = self.run_command('list', '-f', 'csv', '-c', 'users')[1]
        self.assertIn('guest-0 guest-1', stdout)
        self.assertNotIn('[', stdout)

    @ddt.data('verify', 'scrub')
    def test_a_stream_of_json_has_to_be_asked_for(self, command: str) -> None:
        self.node.add_image('x')
        _code, stdout, _stderr = self.run_command(
            command, '--progress', 'json'
        )
        lines = [json.loads(line) for line in stdout.splitlines()]
        self.assertIn('summary', lines[-1])

    @ddt.data('pass', 'list', 'status', 'verify')
    def test_an_empty_mount_point_is_told_and_stays_so(
        self, command: str
    ) -> None:
        os.rmdir(self.node.layout.base)
        argv = ['--register-host'] if command == 'pass' else []
        code, stdout, stderr = self.run_command(command, *argv)
        self.assertEqual(1, code)
        self.assertIn('not mounted', ' '.join((stdout + stderr).split()))
        self.assertEqual([], os.listdir(self.node.layout.instances))


@ddt.ddt
class UsageTest(shell.ShellTestCase):
    @ddt.data(
        [],
        ['nosuch'],
        ['list', '--bogus'],
        ['show'],
        ['-f', 'json'],
        ['--instances-path', '', 'list'],
    )
    def test_wrong_usage_is_2(self, argv: list[str]) -> None:
        code, _stdout, stderr = self.shell(*argv)
        self.assertEqual(2, code)
        self.assertNotIn('Traceback', stderr)

    @ddt.data(
        ['--help'], ['help', 'pass'], ['pass', '--help'],
        ['verify', '--bandwidth', '0', 'NAME', '--help'],
    )  # fmt: skip
    def test_help_is_fine(self, argv: list[str]) -> None:
        code, stdout, _stderr = self.shell(*argv)
        self.assertEqual(0, code)
        self.assertIn('nova-imagecache', stdout)

    def assert_one_line(self, *argv: str) -> str:
        code, _stdout, stderr = self.shell(*argv)
        self.assertEqual(1, code)
        self.assertEqual(1, len(stderr.splitlines()), stderr)
        return stderr

    def test_an_error_of_the_system_is_told_in_words(self) -> None:
        pins = self.node.layout.pins
        os.makedirs(os.path.dirname(pins))
        with open(pins, 'w'):
            pass
        stderr = self.assert_one_line(
            '--instances-path', self.node.layout.instances, 'pins'
        )
        self.assertEqual(f'{pins}: Not a directory\n', stderr)

    def test_a_missing_instances_path_is_one_line(self) -> None:
        self.assertIn(
            '/no/such',
            self.assert_one_line('--instances-path', '/no/such', 'list'),
        )

    def test_a_missing_configuration_file_is_one_line(self) -> None:
        self.assertIn(
            '/no/such',
            self.assert_one_line('--config-file', '/no/such', 'list'),
        )

    def test_a_directory_for_a_configuration_file_is_one_line(self) -> None:
        self.assertIn(
            f'{self.temporary}: Is a directory',
            self.assert_one_line('--config-file', self.temporary, 'list'),
        )

    @ddt.data(
        'remove_unused_original_minimum_age_seconds = -1',
        'checksum_interval_seconds = soon',
        'subdirectory_name = ../x',
        'nonsense',
    )
    def test_a_bad_option_is_one_line(self, line: str) -> None:
        with open(self.nova_conf, 'a') as file:
            file.write(line + '\n')
        error = self.assert_one_line('--config-file', self.nova_conf, 'list')
        self.assertIn(line.split(' ')[0], error)

    def test_debug_shows_where(self) -> None:
        code, _stdout, stderr = self.shell(
            '--debug', '--instances-path', '/no/such', 'list'
        )
        self.assertEqual(1, code)
        self.assertIn('Traceback', stderr)


class ProcessTest(shell.ShellTestCase):
    """The program as a process of its own."""

    def test_the_module_is_the_program(self) -> None:
        done = subprocess.run(
            [sys.executable, '-m', 'nova_imagecache', '--config-file',
             self.nova_conf, 'list', '-f', 'json'],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.assertEqual('[]', done.stdout.strip())
        done = subprocess.run(
            [sys.executable, '-m', 'nova_imagecache', '--version'],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.assertTrue(done.stdout.startswith('nova-imagecache '))

    def test_a_progress_bar_is_shown_on_a_terminal_only(self) -> None:
        self.node.add_image('x')
        try:
            controller, terminal = pty.openpty()
        except OSError as error:
            # A container or chroot may have no devpts.
            self.skipTest(str(error))
        self.addCleanup(os.close, controller)
        os.set_blocking(controller, False)
        termios.tcsetwinsize(terminal, (24, 80))
        command = [
            sys.executable, '-m', 'nova_imagecache', '--config-file',
            self.nova_conf, 'verify',
        ]  # fmt: skip
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=terminal
        )
        shown = os.read(controller, 65536).decode()
        os.close(terminal)
        self.assertIn('Reading base files', shown)
        done = subprocess.run(command, check=True, capture_output=True)
        self.assertNotIn(b'Reading', done.stderr)

    def test_root_becomes_the_owner_of_the_cache_below_its_own(
        self,
    ) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can give up being root')
        self.node.add_image('old', age=365 * base.DAY)
        os.chown(self.node.layout.base, nodes.NOBODY, nodes.NOBODY)
        os.chmod(self.node.layout.instances, 0o777)
        code = (
            'import os, sys\n'
            'from nova_imagecache.cli import owner\n'
            'owner.become_owner(*sys.argv[1:])\n'
            'print(os.getresuid(), os.getresgid(), os.getgroups())\n'
        )
        done = subprocess.run(
            [sys.executable, '-c', code, self.node.layout.instances,
             self.node.layout.base],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        three = (nodes.NOBODY,) * 3
        self.assertEqual(f'{three} {three} [{nodes.NOBODY}]\n', done.stdout)

    def test_root_becomes_the_owner_before_it_creates_anything(self) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can give up being root')
        name = self.node.add_image('x')
        for path in (
            self.node.layout.instances,
            self.node.layout.base,
            self.node.base_path(name),
        ):
            os.chown(path, nodes.NOBODY, nodes.NOBODY)
        os.chown(self.nova_conf, 0, 0)
        os.chmod(self.nova_conf, 0o600)
        for command in (
            ['pass', '--dry-run'], ['pass'], ['verify'], ['list', '-f', 'csv'],
            ['list', '-f', 'yaml'], ['show', name], ['list', '-f', 'value'],
            ['scrub'], ['status'], ['trash'], ['list', '-f', 'table'],
        ):  # fmt: skip
            # Here Python itself may be where only root can read.
            done = subprocess.run(
                [sys.executable, '-m', 'nova_imagecache', '--config-file',
                 self.nova_conf, *command],
                capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual((0, ''), (done.returncode, done.stderr))
        self.assertIn(f'{name}.sha1', self.node.files())
        owners: set[tuple[int, int]] = set()
        for directory, directories, files in os.walk(
            self.node.layout.instances
        ):
            for entry in [*directories, *files]:
                found = os.lstat(os.path.join(directory, entry))
                owners.add((found.st_uid, found.st_gid))
        self.assertEqual({(nodes.NOBODY, nodes.NOBODY)}, owners)


class DemoTest(shell.ShellTestCase):
    def test_the_demo_finds_the_flipped_bit_and_cleans_up(self) -> None:
        self.useFixture(fixtures.NestedTempfile())
        code, stdout, stderr = self.shell('demo')
        self.assertEqual(0, code, stderr)
        self.assertIn('corrupt', stdout)
        self.assertIn('11111111-aaaa', stdout)
        self.assertIn('removed swap_64', stdout)
        self.assertEqual([], os.listdir(tempfile.gettempdir()))

    def test_without_the_flipped_bit_it_finds_nothing(self) -> None:
        code, stdout, _stderr = self.shell('demo', '--no-damage')
        self.assertEqual(0, code)
        self.assertNotIn('corrupt', stdout)
        self.assertIn('Found: nothing', stdout)

    def test_a_demo_that_finds_something_else_says_so(self) -> None:
        def forget(path: str) -> None:
            pass

        self.patch(demo, '_flip_bit', forget)
        code, _stdout, stderr = self.shell('demo')
        self.assertEqual(1, code)
        self.assertIn('should have been found', stderr)

    def test_without_qemu_img_it_says_what_to_install(self) -> None:
        self.patch(os, 'environ', dict(os.environ, PATH='/no/such'))
        code, _stdout, stderr = self.shell('demo')
        self.assertEqual(1, code)
        self.assertIn('qemu-utils', stderr)
