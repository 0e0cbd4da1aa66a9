# SPDX-License-Identifier: Apache-2.0

import os

from nova_imagecache.cache import directories
from tests.support import nodes


class DirectoryTest(nodes.FileTestCase):
    """Directories by handle."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(os.path.join(self.temporary, 'real'))
        os.symlink('real', os.path.join(self.temporary, 'link'))

    def test_a_link_is_not_followed_on_the_way(self) -> None:
        with directories.opened(self.temporary) as fd:
            with self.assertRaises(OSError):  # noqa: H202 ELOOP or ENOTDIR
                with directories.opened_below(fd, 'link', 'more', make=True):
                    self.fail('it was followed')
        self.assertEqual([], os.listdir(os.path.join(self.temporary, 'real')))

    def test_a_link_is_followed_where_that_is_allowed(self) -> None:
        link = os.path.join(self.temporary, 'link')
        with directories.opened(link, follow=True) as fd:
            self.assertEqual([], os.listdir(fd))

    def test_a_file_is_renamed_unless_there_is_one(self) -> None:
        for name in ('a', 'b'):
            with open(os.path.join(self.temporary, name), 'w') as file:
                file.write(name)
        with directories.opened(self.temporary) as fd:
            self.assertRaises(
                FileExistsError, directories.rename, fd, 'a', fd, 'b'
            )
            directories.rename(fd, 'a', fd, 'c')
        with open(os.path.join(self.temporary, 'c')) as file:
            self.assertEqual('a', file.read())
        with open(os.path.join(self.temporary, 'b')) as file:
            self.assertEqual('b', file.read())
