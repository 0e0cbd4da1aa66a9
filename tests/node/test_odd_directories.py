# SPDX-License-Identifier: Apache-2.0

"""Directories of the cache as they come: links, mounts, and what is none."""

import contextlib
import errno
import os
import subprocess
from typing import Any

import ddt

from nova_imagecache.cache import pins
from nova_imagecache import clocks
from tests.support import base
from tests.support import nodes
from tests.support import odd

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
SHA = odd.SHA
_OLD = 365 * base.DAY


class DirectoryTestCase(odd.OddTestCase):
    def mount(self, path: str) -> None:
        """Mount a file system of its own; takes root."""
        command = ['mount', '-t', 'tmpfs', '-o', 'mode=755', 'none', path]
        if os.geteuid() != 0 or subprocess.call(command, stderr=-3) != 0:
            self.skipTest('only root can mount file systems, where it may')
        self.addCleanup(subprocess.call, ['umount', '-l', path])

    def there_and_back(self) -> None:
        """Have a file removed, put back, removed again and deleted."""
        self.node.configure(checksum=True, checksum_interval=_OLD)
        self.node.add_base(SHA)
        self.node.run()
        data = self.read(self.node.base_path(SHA))
        self.node.clock.advance(2 * base.DAY)
        self.assertEqual([], self.lines(self.node.run()))
        self.assertEqual(
            ({SHA}, set()), (self.node.trash(), self.node.files())
        )
        self.need(SHA)
        self.assertEqual([], self.lines(self.node.run()))
        self.assertEqual({SHA, f'{SHA}.sha1'}, self.node.files())
        self.assertEqual(data, self.read(self.node.base_path(SHA)))
        os.unlink(os.path.join(self.node.layout.instances, GUEST, 'disk'))
        for report in self.pass_days():
            self.assertEqual([], self.lines(report))
        self.assertEqual(
            (set(), set()), (self.node.trash(), self.node.files())
        )


@ddt.ddt
class BaseTest(DirectoryTestCase):
    """What ``_base`` may be."""

    def test_a_link_to_a_directory(self) -> None:
        os.rmdir(self.node.layout.base)
        os.symlink(self.elsewhere, self.node.layout.base)
        self.there_and_back()
        self.assertIn('.imagecache', os.listdir(self.elsewhere))
        self.assertTrue(os.path.islink(self.node.layout.base))

    def test_a_mount_point(self) -> None:
        self.mount(self.node.layout.base)
        self.there_and_back()

    @ddt.data('file', *odd.ODD)
    def test_what_is_no_directory_is_a_line(self, kind: str) -> None:
        os.rmdir(self.node.layout.base)
        if kind == 'file':
            self.node.add_file('_base')
        else:
            odd.make_odd(kind, self.node.layout.base)
        lines = self.lines(self.node.run())
        if kind == 'directory':
            self.assertEqual([], lines)
        else:
            self.assertIn(f'{self.node.layout.base}: ', ' '.join(lines))

    def test_one_that_is_mounted_read_only_is_a_line_for_each_file(
        self,
    ) -> None:
        self.mount(self.node.layout.base)
        self.node.configure(checksum=True)
        gone = self.node.add_image('gone', age=_OLD)
        self.node.run()
        self.node.clock.advance(2 * base.DAY)
        used = self.node.add_image('used', age=_OLD)
        old = self.node.add_image('old', age=_OLD)
        self.node.add_overlay(GUEST, used)
        before = self.snapshot(self.node.layout.base)
        command = ['mount', '-o', 'remount,ro', self.node.layout.base]
        subprocess.check_call(command)
        report = self.node.run()
        lines = self.lines(report)
        for name in (old, gone, 'state'):
            found = [line for line in lines if name in line]
            self.assertEqual(1, len(found), f'{name}: {lines}')
            self.assertIn('Read-only file system', found[0])
        self.assertEqual(before, self.snapshot(self.node.layout.base))

    def test_the_trash_on_another_disk_is_a_line_and_nothing_goes(
        self,
    ) -> None:
        os.makedirs(self.node.layout.trash)
        self.mount(self.node.layout.trash)
        self.node.configure(checksum=True, remove_unused=False)
        self.node.add_base(SHA, age=_OLD)
        self.node.run()
        self.node.configure(remove_unused=True)
        before = self.snapshot(self.node.layout.base)
        (line,) = self.lines(self.node.run())
        self.assertIn('Invalid cross-device link', line)
        self.assertEqual({SHA, f'{SHA}.sha1'}, self.node.files())
        self.assertEqual([], os.listdir(self.node.layout.trash))
        layout = self.node.layout
        noted = (
            layout.state, layout.passes, layout.hosts, layout.heard,
            layout.inventories,
        )  # fmt: skip
        self.assert_as_before(
            {
                path: was
                for path, was in before.items()
                if not path.startswith(noted)
            }
        )


@ddt.ddt
class OwnTest(DirectoryTestCase):
    """What may be in the place of a directory of ours."""

    def setUp(self) -> None:
        super().setUp()
        # No pass has been here, so it goes on the second day at the earliest.
        self.node.add_base(SHA)
        os.utime(self.node.base_path(SHA), (0, 0))
        os.makedirs(self.node.layout.own)
        # Old enough for whatever clears away husks.
        for name in (SHA, f'{SHA}.01234567', 'f' * 40, 'any'):
            self.add_elsewhere(name)
            self.add_elsewhere(f'{name}.sha1')
        self.add_elsewhere(f'{"f" * 40}.01234567.sha1')
        self.before = self.snapshot(self.elsewhere)

    def replace(self, part: str, kind: str) -> str:
        """Put something else in the place of a directory of ours."""
        path = os.path.join(self.node.layout.own, part).rstrip('/')
        if not part:
            os.rmdir(path)
        if kind == 'file':
            with open(path, 'w'):
                pass
        elif kind == 'link':
            os.symlink(self.elsewhere, path)
        else:
            odd.make_odd(kind, path)
        return path

    def assert_nothing_is_lost(self) -> None:
        self.assertEqual({SHA}, self.node.files())
        self.assert_nothing_elsewhere()

    def assert_nothing_elsewhere(self) -> None:
        """Check that nothing went, changed or came there."""
        after = self.snapshot(self.elsewhere)
        changed = dict(self.before.items() ^ after.items())
        self.assertEqual([], sorted(map(os.path.basename, changed)))

    @ddt.data('file', 'fifo', 'socket', 'dangling link')
    def test_an_own_directory_that_is_none(self, kind: str) -> None:
        self.replace('', kind)
        for report in self.pass_days():
            lines = self.lines(report)
            self.assertTrue(lines)
            self.assert_nothing_is_lost()

    @ddt.data('file', 'fifo', 'socket', 'dangling link')
    def test_a_trash_that_is_no_directory(self, kind: str) -> None:
        self.replace('trash', kind)
        for report in self.pass_days():
            self.assertIn('trash', ' '.join(self.lines(report)))
            self.assert_nothing_is_lost()

    @ddt.data('file', 'fifo', 'socket')
    def test_pins_that_are_no_directory_keep_everything(
        self, kind: str
    ) -> None:
        path = self.replace('pins', kind)
        for report in self.pass_days():
            self.assertIn(
                f'{path} is no directory', ' '.join(self.lines(report))
            )
            self.assert_nothing_is_lost()

    @ddt.data('', 'trash', 'pins', 'ledgers', 'tmp', 'locks')
    def test_nothing_happens_behind_a_link_out_of_the_cache(
        self, part: str
    ) -> None:
        self.replace(part, 'link')
        self.node.configure(checksum=True)
        with contextlib.suppress(OSError):
            pins.pin(self.node.layout, pins.Pin('f' * 40), clocks.now())
        with contextlib.suppress(OSError):
            pins.unpin(self.node.layout, SHA)
        self.lines(self.node.run())
        self.assertIn(SHA, self.node.files() | self.node.trash())
        for report in self.pass_days():
            self.lines(report)
        self.assert_nothing_elsewhere()

    @ddt.data('', 'trash', 'pins')
    def test_one_that_cannot_be_read_is_a_line_and_nothing_goes(
        self, part: str
    ) -> None:
        path = os.path.join(self.node.layout.own, part).rstrip('/')
        os.makedirs(path, exist_ok=True)
        for parent, _directories, files in os.walk(self.temporary):
            for found in [parent, *(f'{parent}/{name}' for name in files)]:
                os.chown(found, nodes.NOBODY, nodes.NOBODY)
        os.chmod(path, 0)
        with nodes.unprivileged():
            report = self.node.run()
        lines = self.lines(report)
        self.assertTrue(
            any(path in line for line in lines), f'{path}: {lines}'
        )
        self.assertIn('Permission denied', ' '.join(lines))
        self.assertEqual({SHA}, self.node.files())


@ddt.ddt
class GoneTest(DirectoryTestCase):
    """A name that was listed, and that the kernel then does not know.

    It was renamed, as Nova does for a resize, and the times of its directory
    need not tell: those of many file systems go on in steps of milliseconds.
    """

    @ddt.data('', 'disk')
    def test_what_cannot_be_found_where_it_was_listed_is_not_gone(
        self, part: str
    ) -> None:
        self.node.add_base(SHA, age=_OLD)
        path = self.node.add_overlay(GUEST, SHA)
        lost = os.path.join(os.path.dirname(path), part).rstrip('/')
        real = os.open
        tried: list[str] = []

        # Mocked: the clock of the file system cannot be stopped.
        def open_late(name: Any, *args: Any, **kwargs: Any) -> int:
            if name == lost:
                tried.append(name)
                raise FileNotFoundError(errno.ENOENT, 'renamed', name)
            return real(name, *args, **kwargs)

        self.patch(os, 'open', open_late)
        self.node.run()
        self.assertIn(lost, tried)
        self.assertEqual({SHA}, self.node.files())
