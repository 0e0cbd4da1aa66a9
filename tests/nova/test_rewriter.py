# SPDX-License-Identifier: Apache-2.0

"""Repairing what belongs to QEMU's user, with the rights of Nova's context."""

import os
import random
import signal
import sys
import time

from nova_imagecache.heal import rewriters
from nova_imagecache.heal import writer
from nova_imagecache.nova import privsep
from nova_imagecache.nova import rewriter
from tests.nova import base

DATA = random.Random(1).randbytes(3 * 4096 - 9)


class RewriterTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('x', data=bytes(len(DATA)))
        self.path = self.node.base_path(self.name)
        self.inode = os.stat(self.path).st_ino

    def content(self) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read()

    def test_a_base_file_is_written_in_place(self) -> None:
        before = os.stat(self.path)
        self.assertEqual(
            (None, ''), privsep.rewrite(self.name, self.inode, 0, DATA)
        )
        self.assertEqual(DATA, self.content())
        self.assertEqual(before.st_mtime, os.stat(self.path).st_mtime)

    def test_it_ends_by_itself_where_it_hangs(self) -> None:
        """It is root's, and nobody else may end it."""
        self.stub_out('nova_imagecache.heal.writer._LONGEST_SECONDS', 0.1)

        def hang(*args: object) -> None:
            time.sleep(60)

        self.stub_out('nova_imagecache.heal.writer.rewrite', hang)
        child = os.fork()
        if not child:
            # Not what a test does that takes too long.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            try:
                privsep.rewrite(self.name, self.inode, 0, DATA)
            finally:
                os._exit(0)
        _pid, status = os.waitpid(child, 0)
        self.assertEqual(signal.SIGALRM, os.WTERMSIG(status))

    def test_nothing_else_is(self) -> None:
        disk = self.node.add_file('guest', 'disk', data=bytes(4096))
        inode = os.stat(disk).st_ino
        link = self.node.base_path('swap_1')
        os.symlink(disk, link)
        for name in (disk, '../guest/disk', 'swap_1', 'x', '', 'swap_2'):
            refusal, _message = privsep.rewrite(name, inode, 0, b'x' * 4096)
            self.assertIsNotNone(refusal, name)
        with open(disk, 'rb') as file:
            self.assertEqual(bytes(4096), file.read())

    def test_nothing_behind_a_link_that_is_not_made_by_root(self) -> None:
        base = os.path.dirname(self.path)
        os.rename(base, base + '-there')
        os.symlink(base + '-there', base)
        data = bytes(len(DATA))
        self.assertEqual(
            (None, ''), privsep.rewrite(self.name, self.inode, 0, data)
        )
        if os.geteuid() != 0:
            self.skipTest('only root can give a link away')
        os.lchown(base, 12345, 12345)
        refusal, message = privsep.rewrite(self.name, self.inode, 0, DATA)
        self.assertEqual('not-permitted', refusal)
        self.assertIn('chown -h', message)
        self.assertEqual(bytes(len(DATA)), self.content())

    def test_the_manager_knows_the_command(self) -> None:
        found = rewriter.command()
        self.assertEqual(
            [sys.executable, '-P', '-m', 'nova_imagecache.nova.rewriter'],
            found[:4],
        )

    def test_the_command_writes_through_the_daemon(self) -> None:
        """A real one, started as Nova starts it, but without sudo."""
        conf = os.path.join(os.path.dirname(self.path), '..', 'nova.conf')
        helper = os.path.join(sys.prefix, 'bin', 'privsep-helper')
        with open(conf, 'w') as file:
            file.write(
                f'[DEFAULT]\ninstances_path = {self.node.layout.instances}\n'
                f'[nova_sys_admin]\n'
                f'helper_command = {helper} --config-file {conf}\n'
            )
        lent = rewriters.Lent(
            os.path.dirname(self.path),
            [*rewriter.command()[:4], f'--config-file={conf}'],
        )
        self.addCleanup(lent.close)
        calls = []

        def refuse(*args: object) -> None:
            calls.append(args)
            raise writer.Refused(writer.Refusal.NOT_PERMITTED, 'no')

        self.stub_out('nova_imagecache.heal.writer.rewrite', refuse)
        lent.prepare(self.path, self.inode)
        lent(self.path, self.inode, 0, DATA)
        # To see who may.
        self.assertEqual(1, len(calls))
        self.assertEqual(DATA, self.content())
        error = self.assertRaises(
            writer.Refused, lent, self.path, self.inode + 1, 0, DATA
        )
        self.assertIs(writer.Refusal.CHANGED, error.refusal, str(error))
