# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import stat
import subprocess
from typing import Any

import ddt

from nova_imagecache.cache import pins
from nova_imagecache.cache import removal
from nova_imagecache.cache import trash
from nova_imagecache import names
from nova_imagecache import pools
from tests.support import base
from tests.support import odd

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


@contextlib.contextmanager
def _at_once(work: Callable[[], object]) -> Iterator[None]:
    work()
    yield


@ddt.ddt
class FileTest(odd.OddTestCase):
    @ddt.data(*odd.ODD)
    def test_what_is_no_file_in_the_cache_is_left_alone(
        self, kind: str
    ) -> None:
        for name in (odd.SHA, f'{odd.SHA}_20', 'swap_64', f'{"f" * 40}.part'):
            odd.make_odd(kind, self.node.base_path(name))
        other = self.node.add_image('other', age=odd.OLD)
        self.node.configure(checksum=True)
        before = self.snapshot(self.node.layout.base)
        removed = self.pass_days()[0].removed
        self.assertEqual([other], [file.name for file in removed])
        layout = self.node.layout
        for path in (
            self.node.base_path(other), layout.state, layout.passes,
        ):  # fmt: skip
            del before[path]
        self.assert_as_before(before)

    def test_a_device_in_the_cache_is_not_even_opened(self) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can make devices')
        path = self.node.base_path(odd.SHA)
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        opened = self.note_opens()
        self.node.configure(checksum=True)
        self.pass_days()
        self.assertIn(odd.SHA, self.node.files())
        self.assertNotIn(path, opened)

    @ddt.data(*odd.ODD)
    def test_what_is_no_file_in_the_trash_is_left_alone(
        self, kind: str
    ) -> None:
        os.makedirs(self.node.layout.trash)
        path = os.path.join(self.node.layout.trash, odd.TRASHED)
        odd.make_odd(kind, path)
        self.node.add_image('other', age=odd.OLD)
        self.need(odd.SHA)
        self.pass_days()
        self.assertTrue(os.path.lexists(path))
        self.assertEqual([odd.TRASHED], os.listdir(self.node.layout.trash))
        self.assertEqual(set(), self.node.files())

    @ddt.data(*odd.ODD)
    def test_what_is_no_file_among_the_pins_is_a_pin(self, kind: str) -> None:
        # The name is the pin, and to lose one is worse.
        self.node.add_base(odd.SHA, age=odd.OLD)
        os.makedirs(self.node.layout.pins)
        odd.make_odd(kind, os.path.join(self.node.layout.pins, odd.SHA))
        self.pass_days()
        self.assertEqual({odd.SHA}, self.node.files())
        self.assertEqual([pins.Pin(odd.SHA)], pins.describe(self.node.layout))

    def test_names_that_are_not_utf8_are_left_alone_wherever_they_are(
        self,
    ) -> None:
        name = f'{odd.SHA}\udce9\n'
        other = self.node.add_image('other', age=odd.OLD)
        for directory in (
            self.node.layout.base, self.node.layout.trash,
            self.node.layout.pins, self.node.layout.ledgers,
        ):  # fmt: skip
            os.makedirs(directory, exist_ok=True)
            for form in (name, f'{name}.01234567', f'{name}.sha1'):
                with open(os.path.join(directory, form), 'w'):
                    pass
        self.node.configure(checksum=True)
        before = self.snapshot(self.node.layout.base)
        for report in self.pass_days():
            self.assertEqual([], self.lines(report))
            self.node.make_pass().preview()
        layout = self.node.layout
        for path in (
            self.node.base_path(other), layout.state, layout.passes,
        ):  # fmt: skip
            del before[path]
        self.assert_as_before(before)
        self.assertEqual([], pins.describe(self.node.layout))

    def test_a_second_name_elsewhere_keeps_its_file(self) -> None:
        path = self.node.add_base(odd.SHA, age=odd.OLD)
        other = os.path.join(self.elsewhere, 'second')
        os.link(path, other)
        data = self.read(path)
        self.node.configure(checksum=True, checksum_interval=odd.OLD)
        self.node.run()
        self.assertEqual({odd.SHA}, self.node.trash())
        self.assertEqual(2, os.stat(other).st_nlink)
        self.node.clock.advance(base.DAY)
        self.node.run()
        self.assertEqual(set(), self.node.trash())
        self.assertEqual(1, os.stat(other).st_nlink)
        self.assertEqual(data, self.read(other))

    def test_two_base_files_that_are_one_go_and_come_back_alone(self) -> None:
        path = self.node.add_base(odd.SHA, age=odd.OLD)
        used = self.node.add_image('used', age=odd.OLD)
        os.unlink(self.node.base_path(used))
        os.link(path, self.node.base_path(used))
        self.node.add_overlay(GUEST, used)
        data = self.read(path)
        # What is used is touched last, and then it is no other's touch: also
        # where it would be touched before the first one goes.
        self.patch(pools, '_SLOW_SECONDS', -1)
        self.patch(pools, 'beside', _at_once)
        self.node.run()
        self.assertEqual({used}, self.node.files())
        self.pass_days()
        self.assertEqual({used}, self.node.files())
        self.assertEqual(data, self.read(self.node.base_path(used)))

    def test_a_sparse_tebibyte_comes_and_goes_unread(self) -> None:
        path = self.node.add_base(odd.SHA, age=odd.OLD, size=2**40)
        self.node.set_age(odd.SHA, odd.OLD)
        before = os.stat(path)
        read = []
        real = os.preadv

        def preadv(*args: Any) -> int:
            read.append(args)
            return real(*args)

        self.patch(os, 'preadv', preadv)
        self.node.run()
        self.assertEqual(2**40, os.stat(self.in_trash()).st_size)
        self.need(odd.SHA)
        self.node.run()
        after = os.stat(path)
        self.assertEqual(
            (before.st_ino, before.st_size, before.st_blocks),
            (after.st_ino, after.st_size, after.st_blocks),
        )
        self.assertEqual([], read)

    def make_immutable(self, path: str) -> None:
        if subprocess.call(['chattr', '+i', path], stderr=-3) != 0:
            self.skipTest('needs root, and chattr +i on this file system')
        self.addCleanup(subprocess.call, ['chattr', '-i', path], stderr=-3)

    def test_an_immutable_file_in_the_trash_is_one_line_a_pass(self) -> None:
        for image in ('one', 'stuck', 'two'):
            self.node.add_image(image, age=odd.OLD)
        self.node.run()
        name = names.get_cache_fname('stuck')
        (stuck,) = [
            os.path.join(self.node.layout.trash, found)
            for found in os.listdir(self.node.layout.trash)
            if found.startswith(name)
        ]
        self.make_immutable(stuck)
        for _pass in range(2):
            self.node.clock.advance(base.DAY)
            (line,) = self.lines(self.node.run())
            self.assertIn(name, line)
            self.assertIn('Operation not permitted', line)
        self.assertEqual({name}, self.node.trash())
        subprocess.check_call(['chattr', '-i', stuck])
        self.node.run()
        self.assertEqual(set(), self.node.trash())

    def test_an_immutable_file_that_is_needed_waits_in_the_trash(
        self,
    ) -> None:
        self.node.add_base(odd.SHA, age=odd.OLD)
        self.node.run()
        self.make_immutable(self.in_trash())
        self.need(odd.SHA)
        for report in self.pass_days():
            (line,) = self.lines(report)
            self.assertIn('cannot be put back', line)
        subprocess.check_call(['chattr', '-i', self.in_trash()])
        self.assertEqual([], self.lines(self.node.run()))
        self.assertEqual({odd.SHA}, self.node.files())

    @ddt.data('sha1', 'ledger')
    def test_what_tells_of_a_file_may_be_a_link_out_of_here(
        self, which: str
    ) -> None:
        self.node.add_base(odd.SHA, age=odd.OLD)
        other = self.add_elsewhere('other')
        before = self.snapshot(self.elsewhere)
        os.makedirs(self.node.layout.ledgers)
        link = self.node.base_path(f'{odd.SHA}.sha1')
        if which == 'ledger':
            link = self.node.layout.ledger(odd.SHA)
        os.symlink(other, link)
        self.node.run()
        self.assertEqual({odd.SHA}, self.node.trash())
        self.need(odd.SHA)
        self.node.run()
        self.assertEqual(set(), self.node.trash())
        os.unlink(os.path.join(self.node.layout.instances, GUEST, 'disk'))
        self.pass_days()
        self.assertEqual(set(), self.node.files())
        self.assertEqual(set(), self.node.trash())
        self.assert_as_before(before)
        self.assertEqual(b'not of the cache', self.read(other))


@ddt.ddt
class RaceTest(odd.OddTestCase):
    """Something else takes a place between look and act."""

    def before(self, function: str, act: Callable[[], Any]) -> None:
        real = getattr(removal, function)

        def late(*args: Any) -> Any:
            act()
            return real(*args)

        self.patch(removal, function, late)

    def redirect(self) -> None:
        """Have the cache be another directory."""
        os.rename(self.node.layout.base, self.node.layout.base + '.old')
        os.symlink(self.elsewhere, self.node.layout.base)

    def test_a_cache_that_becomes_a_link_before_files_are_removed(
        self,
    ) -> None:
        self.node.add_base(odd.SHA, age=odd.OLD)
        self.node.add_base(f'{odd.SHA}.part', age=odd.OLD)
        others = [
            self.add_elsewhere(odd.SHA),
            self.add_elsewhere(f'{odd.SHA}.part'),
        ]
        self.before('remove', self.redirect)
        report = self.node.run()
        for name in (odd.SHA, f'{odd.SHA}.part'):
            reason = self.file_of(report, name).reason
            self.assertIn('another file', reason)
        for path in others:
            self.assertEqual(b'not of the cache', self.read(path))
        self.assertIn(odd.SHA, os.listdir(f'{self.node.layout.base}.old'))

    @ddt.data('empty', 'put_back')
    def test_a_cache_that_becomes_a_link_before_the_trash_is_emptied(
        self, function: str
    ) -> None:
        self.node.add_base(odd.SHA, age=odd.OLD)
        self.node.run()
        name = os.path.basename(self.in_trash())
        os.makedirs(f'{self.elsewhere}/.imagecache/trash')
        other = self.add_elsewhere(f'.imagecache/trash/{name}')
        self.add_elsewhere(f'.imagecache/trash/{name}.sha1')
        self.node.clock.advance(base.DAY)
        if function == 'put_back':
            self.need(odd.SHA)
        self.before(function, self.redirect)
        self.node.run()
        self.assertEqual(b'not of the cache', self.read(other))
        self.assertEqual(b'not of the cache', self.read(f'{other}.sha1'))
        os.unlink(self.node.layout.base)
        os.rename(self.node.layout.base + '.old', self.node.layout.base)
        self.assertEqual({odd.SHA}, self.node.trash())

    @ddt.data('remove', 'touch')
    def test_a_file_that_becomes_a_link(self, function: str) -> None:
        path = self.node.add_base(odd.SHA, age=odd.OLD)
        other = self.add_elsewhere('other')
        before = os.stat(other)
        if function == 'touch':
            self.need(odd.SHA)

        def redirect() -> None:
            os.unlink(path)
            os.symlink(other, path)

        self.before(function, redirect)
        self.node.run()
        self.assertEqual({odd.SHA}, self.node.files())
        after = os.stat(other)
        self.assertEqual(
            (before.st_ino, before.st_mtime_ns, before.st_ctime_ns),
            (after.st_ino, after.st_mtime_ns, after.st_ctime_ns),
        )

    def test_a_file_that_becomes_a_link_after_its_last_check(self) -> None:
        path = self.node.add_base(odd.SHA, age=odd.OLD)
        other = self.add_elsewhere('other')
        before = self.snapshot(self.elsewhere)
        real = trash.Mover.move

        def move(*args: Any) -> Any:
            os.unlink(path)
            os.symlink(other, path)
            return real(*args)

        self.patch(trash.Mover, 'move', move)
        (line,) = self.lines(self.node.run())
        self.assertIn('Not a regular file', line)
        self.assert_as_before(before)
        self.assertEqual({odd.SHA}, self.node.files())
