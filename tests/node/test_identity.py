# SPDX-License-Identifier: Apache-2.0

import errno
import os

from nova_imagecache.cache import identity
from tests.support import base
from tests.support import nodes

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


class StatTest(nodes.NodeTestCase):
    def test_it_agrees_with_stat(self) -> None:
        path = self.node.add_base(SHA, size=base.MIB)
        seen = identity.stat_of(path)
        real = os.stat(path)
        self.assertEqual(real.st_size, seen.size)
        self.assertEqual(real.st_blocks * 512, seen.allocated)
        self.assertEqual(real.st_mtime_ns, seen.modified)
        self.assertEqual(real.st_ctime_ns, seen.changed)
        self.assertEqual(real.st_mode, seen.mode)
        self.assertEqual(real.st_ino, seen.incarnation.inode)
        self.assertEqual(real.st_dev, seen.incarnation.device)

    def test_an_open_file_and_its_path_are_one_incarnation(self) -> None:
        path = self.node.add_base(SHA)
        fd = identity.open_regular(path)
        self.addCleanup(os.close, fd)
        self.assertEqual(identity.stat_of(path), identity.stat_of_fd(fd))

    def test_a_file_under_the_same_name_is_another_incarnation(self) -> None:
        seen = set()
        for _attempt in range(20):
            path = self.node.add_base(SHA)
            seen.add(identity.stat_of(path).incarnation)
            os.unlink(path)
        # ext4 hands out one inode number again and again.
        self.assertEqual(20, len(seen))

    def test_writing_and_renaming_keep_the_incarnation(self) -> None:
        path = self.node.add_base(SHA)
        before = identity.stat_of(path)
        nodes.flip_bit(path)
        os.rename(path, path + 'x')
        after = identity.stat_of(path + 'x')
        self.assertEqual(before.incarnation, after.incarnation)
        self.assertFalse(before.same_content_as(after))

    def test_without_birth_times_the_generation_tells(self) -> None:
        # Mocked: the file systems without birth times are on the network.
        self.patch(identity, '_STATX_BTIME', 0)
        path = self.node.add_base(SHA)
        first = identity.stat_of(path).incarnation
        self.assertIsNone(first.born)
        if first.generation is None:
            self.skipTest('no inode generations on this file system')
        os.unlink(path)
        second = identity.stat_of(self.node.add_base(SHA)).incarnation
        self.assertNotEqual(first.key, second.key)

    def test_only_regular_files_are_opened(self) -> None:
        fifo = os.path.join(self.temporary, 'fifo')
        os.mkfifo(fifo)
        link = os.path.join(self.temporary, 'link')
        os.symlink('/etc/passwd', link)
        for path in (fifo, link, self.temporary, '/dev/null'):
            error = self.assertRaises(OSError, identity.open_regular, path)
            self.assertEqual(errno.EINVAL, error.errno)

    def test_a_missing_file_is_an_error(self) -> None:
        self.assertRaises(FileNotFoundError, identity.stat_of, '/no/such')
