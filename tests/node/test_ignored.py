# SPDX-License-Identifier: Apache-2.0

"""What is below instances_path and is not looked into."""

import os

import ddt
from oslo_config import cfg

from nova_imagecache.conf import read_settings
from tests.support import base
from tests.support import nodes
from tests.support import seeing

GUEST = seeing.GUEST
OTHER = seeing.OTHER


class IgnoredTestCase(seeing.SeeingTestCase):
    def assert_not_looked_into(self, *paths: str) -> None:
        """Check that a pass neither opens nor lists these, nor minds."""
        seen = self.spy()
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report, self.free)
        for path in paths:
            self.assertEqual(
                [], [each for each in seen if each.startswith(path)]
            )
        # Something was looked at.
        self.assertIn(self.disk, seen)

    def assert_vetoed(self, path: str) -> None:
        report = self.run_pass()
        self.assert_removed(report)
        self.assertEqual(path, self.veto(report).subject)


@ddt.ddt
class DirectoryTest(IgnoredTestCase):
    """What file systems, filers and file managers have."""

    NAMES = (
        '.snapshot', '.snapshots', '.zfs', '.glusterfs', '.Trash-0',
        '.Trash-1000', '.Trash', '.ckpt',
    )  # fmt: skip

    @ddt.data(*((name, where) for name in NAMES for where in ('', OTHER)))
    @ddt.unpack
    def test_it_is_not_looked_into(self, name: str, where: str) -> None:
        directory = self.node.add_directory(*filter(None, (where, name)))
        self.layer(os.path.join(directory, 'disk'), self.free)
        self.assert_not_looked_into(directory)

    @ddt.data(*((name, where) for name in NAMES for where in ('', OTHER)))
    @ddt.unpack
    def test_whoever_may_list_it(self, name: str, where: str) -> None:
        directory = self.node.add_directory(*filter(None, (where, name)))
        self.assert_not_looked_into(self.make_roots(directory))

    @ddt.data('.snapshot', '.zfs', '.Trash-0')
    def test_a_file_of_that_name_is_looked_at(self, name: str) -> None:
        path = self.node.add_file(OTHER, name, data=b'x' * 8192)
        self.assert_vetoed(self.make_roots(path))

    @ddt.data('.Trash-x', '.snapshots2', 'snapshot', '.git', 'backup')
    def test_others_are_looked_into(self, name: str) -> None:
        self.assert_vetoed(self.make_roots(self.node.add_directory(name)))

    @ddt.data((), ('_base',), (OTHER,))
    def test_what_fsck_found(self, where: tuple[str, ...]) -> None:
        directory = self.node.add_directory(*where, 'lost+found')
        self.assert_not_looked_into(self.make_roots(directory))

    def test_what_fsck_found_is_roots(self) -> None:
        """Whatever else has its name, but for at the very top."""
        directory = self.node.add_directory(OTHER, 'lost+found')
        self.layer(os.path.join(directory, 'disk'), self.free)
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report)


@ddt.ddt
class FileTest(IgnoredTestCase):
    @ddt.data(
        'quota.user', 'aquota.user', 'aquota.group', 'quota.group',
        'aquota.project',
    )  # fmt: skip
    def test_quota_files_are_not_opened(self, name: str) -> None:
        path = self.node.add_file(name, data=b'x' * 8192)
        self.assert_not_looked_into(self.make_roots(path))

    @ddt.data('quota.users', 'aquota', 'swapfile', 'core.4711')
    def test_others_of_roots_are_a_veto(self, name: str) -> None:
        path = self.node.add_file(name, data=b'x' * 8192)
        self.assert_vetoed(self.make_roots(path))

    @ddt.data((), (OTHER,))
    def test_the_lock_of_an_editor_is_no_link_to_a_disk(
        self, where: tuple[str, ...]
    ) -> None:
        directory = self.node.add_directory(*where)
        os.symlink('root@host.1:2', os.path.join(directory, '.#notes'))
        self.assert_not_looked_into()

    def test_a_link_of_that_name_to_a_disk_counts(self) -> None:
        layer = self.layer(self.outside('layer'), self.free)
        os.symlink(layer, os.path.join(self.node.add_directory(OTHER), '.#x'))
        report = self.run_pass()
        self.assertEqual((OTHER,), self.file_of(report, self.free).users)

    def test_other_links_to_nothing_are_a_veto(self) -> None:
        link = os.path.join(self.node.add_directory(OTHER), '#x')
        os.symlink('root@host.1:2', link)
        self.assert_vetoed(link)


@ddt.ddt
class OptionTest(IgnoredTestCase):
    """What an operator lists in ignore_paths."""

    def setUp(self) -> None:
        super().setUp()
        self.backup = self.node.add_directory('backup')
        self.layer(os.path.join(self.backup, 'disk'), self.free)

    @ddt.data(
        'backup', './backup/', 'backup*', 'b?ckup', '{top}/backup',
        '{top}/*up', 'back[tu]p',
    )  # fmt: skip
    def test_it_is_not_looked_into(self, pattern: str) -> None:
        self.configure(pattern)
        self.assert_not_looked_into(self.make_roots(self.backup))

    @ddt.data('backup/disk', '*.old', 'other', '/backup', 'ackup')
    def test_what_is_not_meant_is(self, pattern: str) -> None:
        self.configure(pattern)
        self.assert_vetoed(self.make_roots(self.backup))

    def test_one_file(self) -> None:
        self.configure('backup/disk')
        disk = self.make_roots(os.path.join(self.backup, 'disk'))
        self.assert_not_looked_into(disk)

    def test_one_of_several(self) -> None:
        self.configure('other', 'backup')
        self.assert_not_looked_into(self.make_roots(self.backup))

    @ddt.data(
        '/', '.', '..', '*', '**', '*/*', '', '../..', '{top}', '{top}/',
        '{top}/*', '/*', '*-*', '????????-*', '*/disk', '[0-9a-f]*', 'a\0b',
        '{top}/../*', 'x/..',
    )  # fmt: skip
    def test_what_would_leave_out_all_guests_is_refused(
        self, pattern: str
    ) -> None:
        error = self.assertRaises(cfg.Error, self.configure, pattern)
        self.assertIn('ignore_paths', str(error))

    def configure(self, *patterns: str) -> None:
        conf = base.make_conf(
            instances_path=self.top,
            ignore_paths=[each.format(top=self.top) for each in patterns],
        )
        self.node.configure(ignore_paths=read_settings(conf).ignore_paths)


class SymlinkedTest(nodes.NodeTestCase):
    def test_a_brick_of_gluster_is_no_guests(self) -> None:
        """Its hard links have the names of what they are of."""
        free = self.node.add_image('free', age=seeing.OLD)
        brick = self.node.add_directory('.glusterfs', 'aa', 'bb')
        disk = self.node.add_overlay(GUEST, free)
        os.link(disk, os.path.join(brick, 'aabb'))
        report = self.node.run()
        self.assertEqual((GUEST,), self.file_of(report, free).users)
