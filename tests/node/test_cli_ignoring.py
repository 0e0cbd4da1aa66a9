# SPDX-License-Identifier: Apache-2.0

"""Files that are no disks, on somebody's word; and what vetoes, as told."""

import json
import os
import shutil
from typing import Any

from nova_imagecache.cache import ignored_files
from nova_imagecache import names
from tests.support import nodes
from tests.support import seeing
from tests.support import shell

OTHER = seeing.OTHER


class IgnoringTestCase(shell.ShellTestCase):
    """A node with a file that vetoes, and a base file that may go."""

    def setUp(self) -> None:
        super().setUp()
        self.write_conf()
        self.name = self.node.add_image('image', age=seeing.OLD)
        self.data = b'QFI\xfb' + b'\xff' * 100
        self.file = self.node.add_file('backup', 'old.img', data=self.data)

    def status(self, code: int) -> dict[str, Any]:
        got, stdout, stderr = self.run_command('status', '-f', 'json')
        self.assertEqual(code, got, stderr)
        values: dict[str, Any] = json.loads(stdout)
        return values

    def fails(self, *argv: str) -> str:
        code, _stdout, stderr = self.run_command(*argv)
        self.assertEqual(1, code)
        self.assertNotIn('Traceback', stderr)
        return stderr


class VetoTest(IgnoringTestCase):
    """What keeps files, in the output of each command."""

    def test_each_row_has_it(self) -> None:
        for command in (('list',), ('pass', '--dry-run')):
            for row in self.rows(*command, code=1):
                (veto,) = row['vetoes']
                self.assertIn(self.file, veto)
                self.assertIn('nova-imagecache ignore PATH', veto)

    def test_a_row_that_is_in_use_has_none(self) -> None:
        self.node.add_overlay(OTHER, self.name)
        (row,) = self.rows('list', code=1)
        self.assertEqual([], row['vetoes'])
        self.assertEqual([OTHER], row['readers'])

    def test_status_has_it_in_words_and_by_its_parts(self) -> None:
        values = self.status(1)
        (sentence,) = values['vetoes']
        self.assertIn(self.file, sentence)
        (veto,) = values['vetoed_by']
        self.assertEqual('damaged', veto['reason'])
        self.assertEqual(self.file, veto['subject'])
        self.assertIn('its header is damaged', veto['problem'])
        self.assertIn('nova-imagecache ignore PATH', veto['way_out'])
        self.assertIsNone(veto['keeps'])

    def test_the_table_of_status_does_not_have_each_of_a_thousand(
        self,
    ) -> None:
        for number in range(1000):
            self.node.add_file('backup', str(number), data=self.data)
        code, stdout, stderr = self.run_command('status')
        self.assertEqual(1, code)
        self.assertLess(stdout.count(self.node.layout.instances), 10)
        self.assertLess(stderr.count(self.node.layout.instances), 10)
        self.assertIn('1001 disks have a damaged header', stdout)

    def test_exit_codes_of_those_who_remove_and_of_those_who_do_not(
        self,
    ) -> None:
        for command in ('list', 'status', 'trash', 'pass'):
            code, stdout, stderr = self.run_command(command)
            self.assertEqual(1, code, command)
            told = stdout.count('  V07  ') + stderr.count('[V07] ')
            self.assertEqual(1, told, command)
        self.assertEqual(0, self.run_command('verify')[0])
        os.unlink(self.file)
        for command in ('list', 'status', 'trash', 'pass', 'verify'):
            self.assertEqual(0, self.run_command(command)[0], command)


class UnmountedTest(IgnoringTestCase):
    """Nothing is made where a file system is to be mounted."""

    COMMANDS = (
        ('ignore', __file__),
        ('unignore', __file__),
        ('pin', names.get_cache_fname('image')),
    )

    def test_nothing_is_made_in_an_empty_instances_path(self) -> None:
        shutil.rmtree(self.node.layout.instances)
        os.mkdir(self.node.layout.instances)
        for command in self.COMMANDS:
            said = self.fails(*command)
            self.assertIn(self.node.layout.instances, said)
            self.assertIn('mount it', said)
            self.assertEqual([], os.listdir(self.node.layout.instances))

    def test_nor_in_an_empty_cache_that_guests_need_files_of(self) -> None:
        self.node.add_overlay(OTHER, self.name)
        os.unlink(self.file)
        shutil.rmtree(self.node.layout.base)
        os.mkdir(self.node.layout.base)
        for command in self.COMMANDS:
            said = self.fails(*command)
            self.assertIn(self.node.layout.base, said)
            self.assertEqual([], os.listdir(self.node.layout.base))

    def test_a_new_cache_takes_a_pin(self) -> None:
        os.unlink(self.file)
        shutil.rmtree(self.node.layout.base)
        (row,) = self.rows('pin', names.get_cache_fname('image'))
        self.assertIs(True, row['changed'])


class IgnoreTest(IgnoringTestCase):
    def test_it_is_no_veto_any_more(self) -> None:
        self.run_command('pass')
        self.assertEqual({self.name}, self.node.files())
        (row,) = self.rows('ignore', self.file)
        self.assertEqual({'path': self.file, 'changed': True}, row)
        code, _stdout, stderr = self.run_command('pass')
        self.assertEqual(0, code)
        self.assertEqual({self.name}, self.node.trash())
        # And it is said as long as it holds.
        self.assertIn('ignored on somebody\'s word', stderr)
        self.assertIn(self.file, stderr)
        self.assertIn('nova-imagecache unignore PATH', stderr)

    def test_it_holds_for_this_file_and_no_other_at_its_path(self) -> None:
        self.rows('ignore', self.file)
        self.assertEqual(0, self.run_command('list')[0])
        # Kept, or the file system might give its inode to the other.
        old = os.path.join(self.temporary, 'old')
        os.rename(self.file, old)
        nodes.write_after(self.file, self.data, old)
        (row,) = self.rows('list', code=1)
        self.assertIn(self.file, row['vetoes'][0])
        (row,) = self.rows('ignored')
        self.assertIs(False, row['holds'])
        self.assertIn('another file by now', self.run_command('status')[1])

    def test_one_that_only_root_may_read(self) -> None:
        self.rows('ignore', self.file)
        os.chmod(self.file, 0)
        self.assertEqual(0, self.run_command('pass')[0])

    def test_it_is_shown_until_it_is_taken_back(self) -> None:
        self.rows('ignore', self.file)
        (row,) = self.rows('ignored')
        self.assertEqual(
            {'path': self.file, 'holds': True},
            {key: row[key] for key in ('path', 'holds')},
        )
        (shown,) = self.status(0)['ignored']
        self.assertEqual(row, shown)
        self.assertIn(self.file, self.run_command('status')[1])
        (row,) = self.rows('unignore', self.file)
        self.assertEqual({'path': self.file, 'changed': True}, row)
        self.assertEqual([], self.rows('ignored'))
        self.assertEqual([], self.status(1)['ignored'])
        self.run_command('pass')
        self.assertEqual({self.name}, self.node.files())

    def test_twice_is_once(self) -> None:
        self.rows('ignore', self.file)
        for command, changed in (
            ('ignore', False), ('unignore', True), ('unignore', False)
        ):  # fmt: skip
            (row,) = self.rows(command, self.file)
            self.assertIs(changed, row['changed'])

    def test_a_path_from_where_one_is(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(os.path.dirname(self.file))
        (row,) = self.rows('ignore', 'old.img')
        self.assertEqual(self.file, row['path'])

    def test_several_at_once(self) -> None:
        other = self.node.add_file('backup', 'b.img', data=self.data)
        self.assertEqual(2, len(self.rows('ignore', self.file, other)))
        self.assertEqual(0, self.run_command('list')[0])

    def test_what_is_not_there_is_refused_and_nothing_is_marked(self) -> None:
        said = self.fails('ignore', self.file, '/no/such')
        self.assertIn('/no/such', said)
        self.assertEqual([], self.rows('ignored'))

    def test_a_directory_is_refused(self) -> None:
        directory = os.path.dirname(self.file)
        said = self.fails('ignore', directory)
        self.assertIn('[image_cache]/ignore_paths', said)
        self.assertEqual([], self.rows('ignored'))

    def test_what_the_file_needs_is_kept_all_the_same(self) -> None:
        """Its layer is ignored, and not what its header says."""
        other = self.node.add_image('other', age=seeing.OLD)
        layer = os.path.join(self.temporary, 'layer')
        nodes.qemu_img('create', '-f', 'qcow2', layer, '1M')
        disk = self.node.add_overlay(OTHER, layer, form='qcow2')
        also = self.node.add_overlay(OTHER, other, disk='also')
        os.unlink(self.file)
        self.assertEqual(1, self.run_command('pass')[0])
        self.rows('ignore', disk, also)
        self.run_command('pass')
        self.assertEqual({other}, self.node.files())

    def test_marks_that_are_damaged_hold_nothing_and_are_told(self) -> None:
        self.rows('ignore', self.file)
        (record,) = os.listdir(self.node.layout.ignored)
        path = os.path.join(self.node.layout.ignored, record)
        nodes.flip_bit(path, offset=os.path.getsize(path) - 10)
        code, _stdout, stderr = self.run_command('pass')
        self.assertEqual(1, code)
        self.assertIn('which files are to be ignored is not known', stderr)
        self.assertIn('Nothing is removed', stderr)
        self.assertEqual({self.name}, self.node.files())
        self.fails('ignore', self.file)
        self.assertIn('cannot be read', self.fails('ignored'))

    def test_each_host_has_its_own(self) -> None:
        self.rows('ignore', self.file)
        other = ignored_files.load(self.node.layout, 'another')
        self.assertEqual({}, other)

    def test_a_name_that_is_no_text(self) -> None:
        path = self.node.add_file('caf\udce9', data=self.data)
        os.unlink(self.file)
        (row,) = self.rows('ignore', path)
        self.assertEqual(names.printable(path), row['path'])
        self.assertEqual(0, self.run_command('list')[0])
