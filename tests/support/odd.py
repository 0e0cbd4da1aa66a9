# SPDX-License-Identifier: Apache-2.0

"""What is odd in a cache, and a test that looks whether it is left alone."""

import os
import stat
from typing import Any

from nova_imagecache.cache import trash
from nova_imagecache import names
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import nodes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
SHA = names.get_cache_fname('odd')
TRASHED = f'{SHA}.01234567'

OLD = 365 * base.DAY


def make_odd(kind: str, path: str) -> None:
    """Make something that is no regular file."""
    if kind == 'directory':
        os.mkdir(path)
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'socket':
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == 'link':
        os.symlink('/etc/passwd', path)
    else:
        os.symlink('nowhere', path)


ODD = ('directory', 'fifo', 'socket', 'link', 'dangling link')


class OddTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.elsewhere = os.path.join(self.temporary, 'elsewhere')
        os.mkdir(self.elsewhere)

    def add_elsewhere(self, name: str, age: float = OLD) -> str:
        """Make an old file that is not of the cache."""
        path = os.path.join(self.elsewhere, name)
        with open(path, 'w') as file:
            file.write('not of the cache')
        used = self.node.clock.wall - age
        os.utime(path, (used, used))
        return path

    def snapshot(self, top: str) -> dict[str, tuple[int, ...]]:
        """Say which files and empty directories there are."""
        found: dict[str, tuple[int, ...]] = {}
        for parent, directories, files in os.walk(top):
            for name in [*directories, *files]:
                path = os.path.join(parent, name)
                seen = os.lstat(path)
                found[path] = (seen.st_ino, seen.st_mode)
                if stat.S_ISREG(seen.st_mode):
                    found[path] += (seen.st_size, seen.st_mtime_ns)
        return found

    def assert_as_before(self, before: dict[str, tuple[int, ...]]) -> None:
        """Check that what was there is; there may be more."""
        after: dict[str, Any] = {}
        for path, was in before.items():
            after |= self.snapshot(os.path.dirname(path))
            self.assertEqual(was, after.get(path), f'{path} has changed')

    def pass_days(self, days: int = 4) -> list[reports.Report]:
        """Make passes until whatever may go has gone."""
        found = []
        for _day in range(days):
            found.append(self.node.run())
            self.node.clock.advance(base.DAY)
        return found

    def need(self, name: str) -> None:
        """Have a guest need a base file, wherever it is."""
        there = os.path.lexists(self.node.base_path(name))
        if not there:
            self.node.add_base(name)
        self.node.add_overlay(GUEST, name)
        if not there:
            os.unlink(self.node.base_path(name))

    def read(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            return file.read()

    def in_trash(self) -> str:
        (found,) = trash.scan(self.node.layout).files
        return os.path.join(self.node.layout.trash, found.name)

    def lines(self, report: reports.Report) -> list[str]:
        """Give what the report says is wrong, which has to be lines."""
        found: list[str] = [*report.vetoes, *report.problems]
        self.assertEqual([], [text for text in found if '\n' in text])
        return found
