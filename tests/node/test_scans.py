# SPDX-License-Identifier: Apache-2.0

import errno
import os
from typing import Any

from nova_imagecache.cache import identity
from nova_imagecache.cache import scans
from tests.support import base
from tests.support import nodes

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


class ScanTest(nodes.NodeTestCase):
    def test_a_missing_cache_is_an_empty_one(self) -> None:
        os.rmdir(self.node.layout.base)
        self.assertEqual(scans.Scan(), scans.scan(self.node.layout))

    def test_an_unreadable_cache_is_a_problem(self) -> None:
        os.chmod(self.node.layout.base, 0)
        with nodes.unprivileged():
            (problem,) = scans.scan(self.node.layout).problems
        self.assertIn('Permission denied', problem)

    def test_a_file_that_vanishes_is_no_problem(self) -> None:
        self.node.add_base(SHA)
        real = os.listdir

        def listdir(path: Any) -> list[str]:
            found = real(path)
            os.unlink(self.node.base_path(SHA))
            return found

        self.patch(os, 'listdir', listdir)
        self.assertEqual(scans.Scan(), scans.scan(self.node.layout))

    def test_a_file_that_cannot_be_looked_at_is_a_problem(self) -> None:
        self.node.add_base(SHA)
        self.node.add_base('swap_5')
        # Mocked: ESTALE takes an NFS server.
        real = identity.stat_of

        def stat_of(path: str) -> identity.Stat:
            if path.endswith(SHA):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path)

        self.patch(identity, 'stat_of', stat_of)
        found = scans.scan(self.node.layout)
        self.assertEqual(['swap_5'], [file.name for file in found.files])
        self.assertIn('Stale', found.problems[0])

    def test_a_checksum_is_listed_only_without_its_base_file(self) -> None:
        self.node.add_base(SHA)
        self.node.add_base(SHA + '.sha1')
        self.node.add_base('f' * 40 + '.sha1')
        self.node.add_base('readme.sha1')
        listed = [file.name for file in scans.scan(self.node.layout).files]
        self.assertEqual([SHA, 'f' * 40 + '.sha1', 'readme.sha1'], listed)

    def test_disk_usage_is_what_is_allocated(self) -> None:
        path = self.node.add_base(SHA, size=base.MIB)
        os.symlink(path, self.node.base_path('link'))
        self.assertEqual(
            os.stat(path).st_blocks * 512, scans.disk_usage(self.node.layout)
        )

    def test_a_cache_on_another_disk_uses_none_of_this(self) -> None:
        os.rmdir(self.node.layout.base)
        os.symlink('/proc/self/fd', self.node.layout.base)
        self.assertEqual(0, scans.disk_usage(self.node.layout))

    def test_a_missing_cache_uses_nothing(self) -> None:
        os.rmdir(self.node.layout.base)
        self.assertEqual(0, scans.disk_usage(self.node.layout))
