# SPDX-License-Identifier: Apache-2.0

"""A base file that goes, while its stored checksum stays behind.

What is fetched under its name later is another file; also where the file
system has no birth times to tell, as NFS before 4.2.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
from typing import Any

from nova_imagecache.cache import identity
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import soundness
from nova_imagecache import hook
from tests.support import base
from tests.support import nodes


class ReplacedTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        # What decays has a block in common with what it was.
        self.patch(blockmap, 'BLOCK_SIZE', 16 * base.KIB)
        # Mocked: such a file system takes a server.
        self.patch(identity, '_STATX_BTIME', 0)
        self.patch(identity, '_generation', lambda fd: None)
        self.name = self.node.add_image('image', age=365 * base.DAY)
        # So that each pass has something to do.
        self.node.add_image('other')
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        self.node.configure(remove_unused=True)

    def assert_not_taken_for_the_old_one(self) -> None:
        self.assertNotIn(self.name, self.node.files())
        self.node.add_base(self.name, data=b'other bytes')
        for _pass in range(2):
            verdict = self.file_of(self.node.run(), self.name).checksum
            self.assertIsNot(knowledge.Verdict.CORRUPT, verdict)

    @contextlib.contextmanager
    def unlinking_the_checksum_raises(
        self, error: BaseException
    ) -> Iterator[None]:
        real = os.unlink

        def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
            if path == self.node.base_path(f'{self.name}.sha1'):
                raise error
            real(path, *args, **kwargs)

        with base.patched(os, 'unlink', unlink):
            yield

    def remove_as_nova_does(self) -> None:
        # Not unlinked, as its inode would be the next file's at once.
        os.rename(self.node.base_path(self.name), f'{self.temporary}/gone')

    def test_before_the_next_pass(self) -> None:
        self.remove_as_nova_does()
        self.assert_not_taken_for_the_old_one()

    def assert_accuses_nobody(self) -> None:
        self.node.add_base(self.name)
        layout = self.node.layout
        answer = soundness.ask(layout, self.name)
        self.assertIsNot(soundness.Soundness.BAD, answer.soundness)
        verdict = self.file_of(self.node.run(), self.name).checksum
        self.assertIs(knowledge.Verdict.GOOD, verdict)

    def damage(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.configure(remove_unused=False)
        report = self.node.run()
        self.assertIs(
            knowledge.Verdict.CORRUPT, self.file_of(report, self.name).checksum
        )
        self.remove_as_nova_does()

    def test_one_that_was_bad_and_is_fetched_by_nova_accuses_nobody(
        self,
    ) -> None:
        self.damage()
        conf = base.make_conf(instances_path=self.node.layout.instances)
        hook.ImageCacheManager(conf).expect(self.name)
        self.assert_accuses_nobody()

    def test_one_that_was_bad_and_comes_after_a_pass_accuses_nobody(
        self,
    ) -> None:
        self.damage()
        self.node.run()
        self.assert_accuses_nobody()

    def test_after_a_pass(self) -> None:
        self.remove_as_nova_does()
        self.node.run()
        self.assert_not_taken_for_the_old_one()

    def test_after_a_pass_that_was_killed_and_another(self) -> None:
        with self.unlinking_the_checksum_raises(KeyboardInterrupt()):
            self.assertRaises(KeyboardInterrupt, self.node.run)
        self.node.run()
        self.assert_not_taken_for_the_old_one()

    def test_after_a_pass_that_could_not_remove_the_checksum(self) -> None:
        # Mocked: a disk that fails to order needs root and a block device.
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        with self.unlinking_the_checksum_raises(error):
            self.node.run()
        self.assert_not_taken_for_the_old_one()
