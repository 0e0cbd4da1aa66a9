# SPDX-License-Identifier: Apache-2.0

"""What a host remembers of the disks that it has found."""

import dataclasses
import os

import msgspec

from nova_imagecache.cache import inventories
from nova_imagecache import errors
from tests.support import nodes
from tests.support import seeing

GUEST = seeing.GUEST
OTHER = seeing.OTHER

SEEN = inventories.Seen(7, 8192, 10**18, ('base',), True)
FULL = inventories.Inventory(3, '/srv', ('/srv/one',), {'/srv/disk': SEEN})


class RecordTest(nodes.NodeTestCase):
    def save(
        self,
        new: inventories.Inventory = FULL,
        old: inventories.Inventory | None = None,
        host: str = 'host',
    ) -> None:
        os.makedirs(self.node.layout.inventories, exist_ok=True)
        os.makedirs(self.node.layout.temporary, exist_ok=True)
        old = inventories.Inventory() if old is None else old
        inventories.save(self.node.layout, host, new, old)

    def load(self, host: str = 'host') -> inventories.Inventory:
        return inventories.load(self.node.layout, host)

    def test_what_is_saved_is_recalled(self) -> None:
        self.save()
        self.assertEqual(FULL, self.load())

    def test_there_is_none_at_first(self) -> None:
        self.assertEqual(inventories.Inventory(), self.load())

    def test_each_host_has_its_own(self) -> None:
        self.save(host='a/b')
        self.assertEqual(inventories.Inventory(), self.load('a'))
        self.assertEqual(FULL, self.load('a/b'))
        self.assertEqual(1, len(os.listdir(self.node.layout.inventories)))

    def test_what_is_no_news_is_not_written(self) -> None:
        self.save()
        path = inventories.path_of(self.node.layout, 'host')
        before = os.stat(path).st_ino
        self.save(FULL, dataclasses.replace(FULL))
        self.assertEqual(before, os.stat(path).st_ino)

    def test_a_damaged_one_is_not_believed(self) -> None:
        self.save()
        path = inventories.path_of(self.node.layout, 'host')
        nodes.flip_bit(path, offset=os.path.getsize(path) - 10)
        self.assertRaises(errors.Damaged, self.load)

    def test_it_is_forgotten_with_its_host(self) -> None:
        self.save()
        for _time in range(2):
            inventories.forget(self.node.layout, 'host')
            self.assertEqual(inventories.Inventory(), self.load())

    def test_a_disk_has_changed_with_its_inode_size_or_time(self) -> None:
        path = self.node.add_file('x', data=b'x')
        status = os.stat(path)
        seen = inventories.Seen(
            status.st_ino, status.st_size, status.st_mtime_ns, ()
        )
        self.assertTrue(seen.is_unchanged(status))
        os.chmod(path, 0)
        self.assertTrue(seen.is_unchanged(os.stat(path)))
        for name in ('inode', 'size', 'modified'):
            other = msgspec.structs.replace(
                seen, **{name: getattr(seen, name) + 1}
            )
            self.assertFalse(other.is_unchanged(status), name)


class PassTest(seeing.SeeingTestCase):
    """What passes remember."""

    def remembered(self) -> inventories.Inventory:
        return inventories.load(self.node.layout, self.node.settings.host)

    def test_it_has_each_disk_with_what_it_needs(self) -> None:
        raw = self.node.add_file(OTHER, 'disk', data=b'x' * 8192)
        self.run_pass()
        found = self.remembered()
        self.assertEqual({self.disk, raw}, {*found.disks})
        status = os.stat(self.disk)
        self.assertEqual(
            inventories.Seen(
                status.st_ino, status.st_size, status.st_mtime_ns,
                (self.used,), False, status.st_ctime_ns, True,
            ),
            found.disks[self.disk],
        )  # fmt: skip
        self.assertEqual((), found.disks[raw].needs)
        self.assertEqual(os.stat(self.top).st_ino, found.root)

    def test_base_files_are_no_disks(self) -> None:
        self.run_pass()
        self.assertEqual({self.disk}, {*self.remembered().disks})

    def test_a_disk_that_is_gone_is_forgotten(self) -> None:
        self.run_pass()
        os.unlink(self.disk)
        self.run_pass()
        self.assertEqual({}, self.remembered().disks)

    def test_one_in_a_directory_that_cannot_be_listed_is_not(self) -> None:
        self.run_pass()
        before = self.remembered()
        directory = self.make_roots(self.path(GUEST))
        for _time in range(2):
            report = self.run_pass()
            self.assertEqual(directory, self.veto(report).subject)
            self.assertEqual(before.disks, self.remembered().disks)

    def test_one_that_stands_on_what_is_not_seen_is_marked(self) -> None:
        disk = self.stand_on('/elsewhere/layer')
        self.run_pass()
        self.assertTrue(self.remembered().disks[disk].astray)
        self.assertFalse(self.remembered().disks[self.disk].astray)

    def test_to_look_remembers_nothing(self) -> None:
        self.make_pass().preview()
        self.assertFalse(os.path.exists(self.node.layout.inventories))
