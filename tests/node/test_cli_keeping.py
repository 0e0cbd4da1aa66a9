# SPDX-License-Identifier: Apache-2.0

"""The commands that keep files, and the passes that heed them."""

import os
import shutil
from typing import Any

import ddt

from nova_imagecache.cache import locks
from nova_imagecache.cache import pins
from nova_imagecache.cache import trash
from nova_imagecache import codes
from nova_imagecache import names
from tests.support import base
from tests.support import processes
from tests.support import shell


class KeepingTestCase(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image', age=365 * base.DAY)
        self.path = self.node.base_path(self.name)

    def out(self, *argv: str, code: int = 0) -> str:
        found, stdout, stderr = self.run_command(*argv)
        self.assertEqual(code, found, stderr)
        return stdout

    def error(self, *argv: str, code: int = 1) -> str:
        found, _stdout, stderr = self.run_command(*argv)
        self.assertEqual(code, found)
        self.assertNotIn('Traceback', stderr)
        return stderr


class UndeleteTest(KeepingTestCase):
    """The trash, as operators see it."""

    def setUp(self) -> None:
        super().setUp()
        self.out('pass')
        self.assertEqual({self.name}, self.node.trash())

    def test_the_trash_is_listed(self) -> None:
        (row,) = self.rows('trash')
        self.assertEqual(shell.KEYS, list(row))
        self.assertEqual(self.name, names.trashed_name(row['name']))
        self.assertEqual('keep', row['action'])
        self.assertIn('of 3600 s', row['reason'])

    def test_a_pass_lists_the_trash_beside_the_cache(self) -> None:
        other = self.node.add_image('other')
        (trashed,) = self.rows('trash')
        self.assertEqual(
            [other, trashed['name']],
            [row['name'] for row in self.rows('pass', '--dry-run')],
        )
        self.assertEqual([other], [row['name'] for row in self.rows('list')])

    def test_a_file_comes_back_by_its_name_and_counts_as_used(self) -> None:
        (row,) = self.rows('undelete', self.name)
        self.assertEqual(self.name, row['name'])
        self.assertEqual({self.name}, self.node.files())
        self.out('pass')
        self.assertIn(self.name, self.node.files())

    def test_a_file_comes_back_by_its_name_in_the_trash(self) -> None:
        (row,) = self.rows('trash')
        self.out('undelete', row['name'])
        self.assertEqual({self.name}, self.node.files())

    def test_what_is_not_there_is_one_clear_line(self) -> None:
        other = names.get_cache_fname('other')
        self.assertIn('nova-imagecache trash', self.error('undelete', other))

    def test_a_path_will_do_and_twice_is_once(self) -> None:
        self.assertEqual(1, len(self.rows('undelete', self.path, self.name)))
        self.assertEqual({self.name}, self.node.files())

    def test_of_two_that_had_one_name_the_second_is_said_to_stay(self) -> None:
        (row,) = self.rows('trash')
        first = row['name']
        second = names.trash_name(self.name, names.trashed_at(first) + 60)
        shutil.copy2(
            os.path.join(self.node.layout.trash, first),
            os.path.join(self.node.layout.trash, second),
        )
        said = self.error('undelete', first, second)
        self.assertIn('another file', said)
        self.assertEqual({self.name}, self.node.files())

    def test_a_trash_that_cannot_be_read_is_said_to_be_so(self) -> None:
        # Mocked: the program may be where only root can read.
        problem = codes.Problem(
            codes.Code.UNLISTED,
            f'{self.node.layout.trash}: Permission denied',
        )
        self.patch(trash, 'scan', lambda _: trash.Scan(problems=(problem,)))
        self.assertIn(problem, self.error('undelete', self.name))

    def test_nothing_is_replaced(self) -> None:
        self.node.add_base(self.name, data=b'new')
        self.assertIn('another file', self.error('undelete', self.name))
        with open(self.path, 'rb') as file:
            self.assertEqual(b'new', file.read())
        self.assertEqual({self.name}, self.node.trash())

    def test_a_lock_that_is_held_is_not_waited_for(self) -> None:
        self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        self.assertIn('lock', self.error('undelete', self.name))
        self.assertEqual({self.name}, self.node.trash())


@ddt.ddt
class PinTest(KeepingTestCase):
    """Pins, and what passes make of them."""

    def test_a_pinned_file_stays_until_it_is_unpinned(self) -> None:
        (row,) = self.rows('pin', self.name)
        self.assertTrue(row['changed'])
        self.out('pass')
        self.assertEqual('unused, but pinned', self.reason())
        (row,) = self.rows('unpin', self.name)
        self.assertTrue(row['changed'])
        self.out('pass')
        self.assertEqual(set(), self.node.files())

    def reason(self) -> str:
        (row,) = self.rows('list')
        text: str = row['reason']
        return text.partition(';')[0]

    def test_a_pinned_file_that_is_used_says_both(self) -> None:
        self.node.add_overlay('a-guest', self.name)
        self.out('pin', self.name)
        self.assertEqual('used by 1 guest, and pinned', self.reason())

    def test_an_image_is_pinned_by_its_id(self) -> None:
        (row,) = self.rows('pin', '--image-id', 'image')
        self.assertEqual((self.name, 'image'), (row['name'], row['image']))
        self.assertEqual({self.name}, pins.load(self.node.layout))
        (row,) = self.rows('pins')
        self.assertEqual('image', row['image'])
        self.assertTrue(row['cached'])

    def test_a_file_is_pinned_before_it_is_there(self) -> None:
        found, _stdout, stderr = self.run_command(
            'pin', '--image-id', '11111111-aaaa-4aaa-8aaa-000000000001'
        )
        self.assertEqual(0, found)
        self.assertIn('not in the cache yet', stderr)
        (row,) = self.rows('pins')
        self.assertFalse(row['cached'])

    def test_pinning_twice_changes_nothing(self) -> None:
        self.out('pin', self.name)
        (row,) = self.rows('pin', self.name)
        self.assertFalse(row['changed'])
        self.out('unpin', self.name)
        (row,) = self.rows('unpin', self.name)
        self.assertFalse(row['changed'])

    @ddt.data('README', '../x', '.', 'caf\udce9', 'x.sha1')
    def test_only_base_files_are_pinned(self, name: str) -> None:
        self.assertIn(
            'not the name of a base file', self.error('pin', name, code=2)
        )
        self.assertEqual(set(), pins.load(self.node.layout))

    def test_nothing_named_is_one_clear_line(self) -> None:
        self.assertIn('--image-id', self.error('pin', code=2))

    @ddt.data('', ' ', 'a\nb', 'caf\udce9', 'ubuntu-24.04')
    def test_what_is_no_id_of_an_image_is_refused(self, text: str) -> None:
        self.assertIn('no ID of an image', self.error(
            'pin', '--image-id', text, code=2
        ))  # fmt: skip
        self.assertEqual(set(), pins.load(self.node.layout))

    def test_a_damaged_pin_holds(self) -> None:
        self.out('pin', self.name)
        with open(os.path.join(self.node.layout.pins, self.name), 'w') as file:
            file.write('garbage')
        self.out('pass')
        self.assertIn(self.name, self.node.files())
        (row,) = self.rows('pins')
        self.assertEqual((self.name, None), (row['name'], row['image']))

    def test_pins_that_cannot_be_listed_hold_everything(self) -> None:
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.node.layout.pins, 'w'):
            pass
        report = self.node.run()
        self.assertIn('pins', report.vetoes[0])
        self.assertIn(self.name, self.node.files())

    def test_a_pin_that_is_set_during_the_pass_holds(self) -> None:
        real = locks.nova_lock

        def nova_lock(*args: Any, **kwargs: Any) -> Any:
            self.node.pin(self.name)
            return real(*args, **kwargs)

        self.patch(locks, 'nova_lock', nova_lock)
        file = self.file_of(self.node.run(), self.name)
        self.assertIn('pinned it meanwhile', file.reason)
        self.assertIn(self.name, self.node.files())
