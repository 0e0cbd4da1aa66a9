# SPDX-License-Identifier: Apache-2.0

"""Rights to write are those of a process that does nothing else."""

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import ddt
import fixtures

from nova_imagecache.cli import healing as healing_commands
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import rewriters
from nova_imagecache.heal import writer
from tests.node import test_children
from tests.support import healing
from tests.support import nodes
from tests.support import scrubbing

Result = outcomes.Result

# Of QEMU, which base files belong to.
QEMU = 12345


class RightsTestCase(healing.HealTestCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root has rights to keep')

    def give_away(self) -> None:
        """Have the service own the cache, and QEMU the base file."""
        for directory, directories, files in os.walk(self.temporary):
            for name in (*directories, *files):
                os.chown(os.path.join(directory, name), nodes.NOBODY, -1)
        os.chown(self.target, QEMU, QEMU)


class ForkTest(RightsTestCase):
    def fork(self) -> rewriters.Remote:
        remote = rewriters.fork(self.node.layout.base)
        self.addCleanup(remote.close)
        return remote

    def test_the_child_writes_what_this_process_may_not(self) -> None:
        self.damage(1)
        self.give_away()
        remote = self.fork()
        before = self.identity()
        with nodes.unprivileged():
            outcome = self.heal(healing.Given(self.data), rewrite=remote)
        self.assertEqual((), outcome.left, str(outcome))
        self.assert_healed()
        self.assertEqual(before, self.identity())

    def test_it_says_why_it_does_not(self) -> None:
        remote = self.fork()
        error = self.assertRaises(
            writer.Refused, remote, self.target, 1, 0, bytes(4096)
        )
        self.assertIs(writer.Refusal.CHANGED, error.refusal)

    def test_it_writes_to_nothing_but_base_files_of_its_cache(self) -> None:
        remote = self.fork()
        # Elsewhere, under the name of a base file: only the name counts.
        other = os.path.join(self.temporary, self.name)
        with open(other, 'wb') as file:
            file.write(bytes(8192))
        inode = os.stat(other).st_ino
        error = self.assertRaises(
            writer.Refused, remote, other, inode, 0, b'x' * 4096
        )
        self.assertIs(writer.Refusal.CHANGED, error.refusal)
        for name in ('.imagecache', 'passwd', f'{self.name}.sha1', '..'):
            error = self.assertRaises(
                writer.Refused, remote, name, inode, 0, b'x' * 4096
            )
            self.assertIs(writer.Refusal.NOT_PERMITTED, error.refusal)
        with open(other, 'rb') as file:
            self.assertEqual(bytes(8192), file.read())

    def test_a_link_that_is_not_made_by_root_leads_nowhere(self) -> None:
        """Whoever owns the cache may change it for a link at any time."""
        base = self.node.layout.base
        os.rename(base, base + '-there')
        os.symlink(base + '-there', base)
        inode = os.stat(self.target).st_ino
        os.close(writer.open_cache(base))
        self.fork()(self.target, inode, 0, self.data[:4096])
        os.lchown(base, nodes.NOBODY, nodes.NOBODY)
        error = self.assertRaises(writer.Refused, rewriters.fork, base)
        self.assertIs(writer.Refusal.NOT_PERMITTED, error.refusal)
        self.assertIn('chown -h', str(error))

    def test_what_is_forked_keeps_to_the_directory_it_has_begun_with(
        self,
    ) -> None:
        remote = self.fork()
        base = self.node.layout.base
        os.rename(base, base + '-there')
        os.mkdir(base)
        other = os.path.join(base, self.name)
        with open(other, 'wb') as file:
            file.write(bytes(len(self.data)))
        error = self.assertRaises(
            writer.Refused, remote, other, os.stat(other).st_ino, 0,
            self.data[:4096],
        )  # fmt: skip
        self.assertIs(writer.Refusal.CHANGED, error.refusal)

    def test_who_reads_what_this_process_says_does_not_wait_for_it(
        self,
    ) -> None:
        """It may be there for as long as it hangs."""
        remote: Any = self.fork()
        remote.prepare(self.target, os.stat(self.target).st_ino)
        (pid,) = remote._reap.args
        for stream in (0, 1):
            self.assertEqual(
                os.devnull, os.readlink(f'/proc/{pid}/fd/{stream}')
            )

    def test_it_says_before_that_it_could(self) -> None:
        inode = os.stat(self.target).st_ino
        remote = self.fork()
        remote.prepare(self.target, inode)
        remote._end.shutdown(socket.SHUT_RDWR)
        self.assertRaises(writer.Refused, remote.prepare, self.target, inode)
        self.assertEqual(self.data, self.content())

    def test_a_scrub_goes_on_where_nothing_may_be_written(self) -> None:
        base = self.node.layout.base
        os.rename(base, base + '-there')
        os.symlink(base + '-there', base)
        os.lchown(base, nodes.NOBODY, nodes.NOBODY)
        rewrite = healing_commands.keep_rights(self.node.settings)
        error = self.assertRaises(
            writer.Refused, rewrite, self.target, 1, 0, b''
        )
        self.assertIs(writer.Refusal.NOT_PERMITTED, error.refusal)

    def test_one_that_hangs_is_not_waited_for_for_ever(self) -> None:
        self.patch(rewriters, '_END_SECONDS', 0.1)
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
        rewriters._reap(child)
        _pid, status = os.waitpid(child, 0)
        self.assertEqual(signal.SIGKILL, os.WTERMSIG(status))

    def test_once_it_is_gone_that_is_a_clear_error(self) -> None:
        remote = self.fork()
        remote._end.shutdown(socket.SHUT_RDWR)
        error = self.assertRaises(
            writer.Refused, remote, self.target, 1, 0, bytes(4096)
        )
        self.assertIs(writer.Refusal.FAILED, error.refusal)

    def test_the_command_as_root_heals_what_is_qemus(self) -> None:
        self.damage(1)
        self.give_away()
        os.chown(self.node.layout.instances, nodes.NOBODY, -1)
        done = subprocess.run(
            [sys.executable, '-m', 'nova_imagecache', '--config-file',
             self.nova_conf, 'repair', self.name, '--source', self.copy],
            capture_output=True,
            text=True,
        )  # fmt: skip
        self.assertEqual(0, done.returncode, done.stderr)
        self.assert_healed()
        owner = os.stat(self.node.layout.ledger(self.name)).st_uid
        self.assertEqual(nodes.NOBODY, owner)
        self.assertEqual(QEMU, os.stat(self.target).st_uid)


class HungTest(RightsTestCase):
    """A write that hangs, as on a disk that has gone."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(rewriters, '_WRITE_SECONDS', 0.2)
        self.patch(rewriters, '_END_SECONDS', 0.1)
        self.damage(1)
        self.before = self.content()
        # When the other end is closed everywhere, the write goes on.
        self.hung, self.other = os.pipe()
        self.addCleanup(self.let_go_on)
        self.real = writer.rewrite

    def let_go_on(self) -> None:
        if self.other >= 0:
            os.close(self.other)
        self.other = -1

    def fork(self, hangs: bool = True) -> rewriters.Remote:
        def hang(*args: Any) -> None:
            self.let_go_on()
            if args[3] and hangs:
                os.read(self.hung, 1)
            self.real(*args)

        self.patch(writer, 'rewrite', hang)
        remote = rewriters.fork(self.node.layout.base)
        self.patch(writer, 'rewrite', self.real)
        return remote

    def end(self, remote: rewriters.Remote) -> None:
        """Let it go on, and wait until it is gone."""
        self.let_go_on()
        self.patch(rewriters, '_END_SECONDS', 60)
        remote.close()

    def hang(self) -> rewriters.Remote:
        remote = self.fork()
        outcome = self.heal(healing.Given(self.data), rewrite=remote)
        (block,) = outcome.blocks
        self.assertEqual(Result.HUNG, block.result, str(block))
        self.assertIn('is not waited for', outcome.stopped)
        return remote

    def test_the_lock_is_given_up_and_the_block_stays_bad(self) -> None:
        remote = self.hang()
        with self.file(self.name).guard():
            self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        self.assertEqual(self.before, self.content())
        self.end(remote)

    def test_what_is_written_late_is_good_and_is_found_so(self) -> None:
        self.end(self.hang())
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        outcome = self.heal(rewrite=self.fail)
        self.assertEqual([Result.WAS_GOOD], [b.result for b in outcome.blocks])
        self.assert_healed()

    def test_another_file_of_that_name_is_not_written(self) -> None:
        remote = self.hang()
        other = self.target + '.new'
        with open(other, 'wb') as file:
            file.write(bytes(len(self.data)))
        os.rename(other, self.target)
        self.end(remote)
        self.assertEqual(bytes(len(self.data)), self.content())

    def test_meanwhile_no_other_is_begun(self) -> None:
        """Nobody can end one of them, so there are never two."""
        remote = self.hang()
        other = self.fork(hangs=False)
        outcome = self.heal(healing.Given(self.data), rewrite=other)
        (block,) = outcome.blocks
        self.assertEqual(Result.HUNG, block.result)
        self.assertIn('an earlier write', outcome.stopped)
        self.assertEqual(self.before, self.content())
        other.close()
        self.end(remote)
        self.heal(healing.Given(self.data))
        self.assert_healed()

    def test_that_it_does_not_end_is_told(self) -> None:
        logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
        remote = self.hang()
        remote.close()
        self.assertEqual(1, logged.output.count('[P21]'))
        self.let_go_on()
        os.waitpid(self.pid_of(remote), 0)

    def test_it_ends_by_itself_where_the_kernel_lets_it(self) -> None:
        """We may not end what is root's."""
        self.patch(writer, '_LONGEST_SECONDS', 0.4)
        remote = self.hang()
        _pid, status = os.waitpid(self.pid_of(remote), 0)
        self.assertEqual(signal.SIGALRM, os.WTERMSIG(status))
        self.assertEqual(self.before, self.content())
        remote.close()

    def pid_of(self, remote: Any) -> int:
        (pid,) = remote._reap.args
        return int(pid)


@ddt.ddt
class ServeTest(healing.HealTestCase):
    def serve(self, sent: bytes) -> list[Any]:
        """Give what is asked for, by whoever sends this."""
        asked: list[Any] = []
        ours, theirs = socket.socketpair()
        with ours, theirs, theirs.makefile('rwb') as stream:
            thread = threading.Thread(
                target=rewriters.serve,
                args=(stream, lambda *args: asked.append(args)),
            )
            thread.start()
            ours.sendall(sent)
            ours.shutdown(socket.SHUT_WR)
            thread.join()
        return asked

    def test_who_has_answered_nonsense_is_never_believed_again(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        remote = rewriters.Remote(ours)
        self.addCleanup(remote.close)
        good = b'{"refusal": null, "message": ""}\n'
        theirs.sendall(b'x' * 5000 + b'\n' + good + good)
        for _time in range(3):
            self.assertRaises(
                writer.Refused, remote, self.target, 1, 0, b'x' * 4096
            )

    def test_a_long_reason_is_cut_to_a_line(self) -> None:
        def write(*args: Any) -> None:
            raise writer.Refused(writer.Refusal.MEDIUM, '\xe9' * 9000)

        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        stream = self.enterContext(theirs.makefile('rwb'))
        thread = threading.Thread(
            target=rewriters.serve, args=(stream, write), daemon=True
        )
        thread.start()
        remote = rewriters.Remote(ours)
        self.addCleanup(remote.close)
        error = self.assertRaises(
            writer.Refused, remote, self.target, 1, 0, b'x' * 4096
        )
        self.assertIs(writer.Refusal.MEDIUM, error.refusal)

    @ddt.data(
        b'', b'\n', b'garbage\n', b'[]\n', b'{}\n', b'x' * 9000,
        b'{"name": "x", "inode": 1, "offset": 0, "length": -1}\n',
        b'{"name": "x", "inode": 1, "offset": 0, "length": 999999999}\n',
        b'{"name": "x", "inode": 1, "offset": 0, "length": 9}\nshort',
    )  # fmt: skip
    def test_garbage_ends_it_and_nothing_is_written(self, sent: bytes) -> None:
        self.assertEqual([], self.serve(sent))


class LentTest(healing.HealTestCase):
    """What a host lends is a command, which is started when it is needed."""

    _COMMAND = textwrap.dedent("""
        import os, socket, sys
        from nova_imagecache.heal import rewriters, writer
        directory = os.open(sys.argv[1], os.O_RDONLY)
        def write(*args):
            open(sys.argv[2], 'w').close()
            writer.rewrite_base_file(directory, *args)
        with socket.socket(fileno=0) as end, end.makefile('rwb') as stream:
            rewriters.serve(stream, write)
    """)

    def setUp(self) -> None:
        super().setUp()
        self.mark = os.path.join(self.temporary, 'mark')
        base = self.node.layout.base
        self.lent = rewriters.Lent(
            base, [sys.executable, '-c', self._COMMAND, base, self.mark]
        )
        self.addCleanup(self.lent.close)

    def lent_by(self, *command: str) -> rewriters.Lent:
        return rewriters.Lent(self.node.layout.base, command)

    def test_what_we_may_write_ourselves_needs_nobody(self) -> None:
        self.damage(1)
        self.heal(healing.Given(self.data), rewrite=self.lent)
        self.assert_healed()
        self.assertFalse(os.path.exists(self.mark))

    def test_it_is_not_written_by_the_process_that_holds_the_lock(
        self,
    ) -> None:
        """A write to a disk that has gone would never return."""
        self.damage(1)
        written: list[bytes] = []
        real = writer.rewrite

        def rewrite(*args: Any) -> None:
            written.append(args[3])
            real(*args)

        self.patch(writer, 'rewrite', rewrite)
        self.heal(healing.Given(self.data), rewrite=self.lent)
        self.assert_healed()
        self.assertEqual([b''], written)

    def test_what_we_may_not_is_written_by_the_command(self) -> None:
        self.damage(1, 4)

        def refuse(*args: Any) -> None:
            raise writer.Refused(writer.Refusal.NOT_PERMITTED, 'no')

        self.patch(writer, 'rewrite', refuse)
        self.heal(healing.Given(self.data), rewrite=self.lent)
        self.assert_healed()
        self.assertTrue(os.path.exists(self.mark))

    def test_it_is_started_before_the_lock_is_taken(self) -> None:
        """So that starts of guests wait for the write alone."""
        self.damage(1)
        held: list[bool] = []
        file = self.file(self.name)

        def refuse(*args: Any) -> None:
            raise writer.Refused(writer.Refusal.NOT_PERMITTED, 'no')

        real = rewriters._spawn

        def spawn(command: Any) -> rewriters.Remote:
            with file.guard(0):
                # Raises if somebody holds it.
                held.append(False)
            return real(command)

        self.patch(writer, 'rewrite', refuse)
        self.patch(rewriters, '_spawn', spawn)
        self.heal(healing.Given(self.data), rewrite=self.lent)
        self.assert_healed()
        self.assertEqual([False], held)

    def test_one_that_does_not_end_is_ended_with_what_it_has_started(
        self,
    ) -> None:
        self.patch(rewriters, '_END_SECONDS', 0.1)
        pids = os.path.join(self.temporary, 'pids')
        remote = rewriters._spawn(
            ['sh', '-c', f'sleep 99 & echo $! $$ > {pids}.new; '
             f'mv {pids}.new {pids}; wait']
        )  # fmt: skip
        while not os.path.exists(pids):
            pass
        remote.close()
        with open(pids) as file:
            found = [int(pid) for pid in file.read().split()]
        while any(map(test_children.is_there, found)):
            time.sleep(0.01)

    def test_a_command_that_cannot_be_run_is_a_clear_error(self) -> None:
        self.damage(1)

        def refuse(*args: Any) -> None:
            raise writer.Refused(writer.Refusal.NOT_PERMITTED, 'no')

        self.patch(writer, 'rewrite', refuse)
        outcome = self.heal(
            healing.Given(self.data), rewrite=self.lent_by('/nonexistent')
        )
        self.assertIn('cannot be run', outcome.stopped)
