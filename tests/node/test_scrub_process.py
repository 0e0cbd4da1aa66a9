# SPDX-License-Identifier: Apache-2.0

"""The scrub as a process: nova-imagecache scrub."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import psutil

from nova_imagecache.cache import coordination
from nova_imagecache.content import blockmap
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

Verdict = scrubbing.Verdict

WEEK = 7 * base.DAY


class ProcessTestCase(scrubbing.ScrubTestCase):
    """The scrub as a process: nova-imagecache scrub."""

    def setUp(self) -> None:
        super().setUp()
        self.conf = os.path.join(self.temporary, 'nova.conf')
        self.configure()

    def configure(self, **values: Any) -> None:
        values = {
            'checksum_base_images': True,
            'checksum_interval_seconds': 0,
            'scrub_bandwidth_mib_per_second': 0,
            # No libvirt that knows of what tests make.
            'witnesses': 'overlays,locks',
        } | values
        lines = [f'{name} = {value}' for name, value in values.items()]
        with open(self.conf, 'w') as file:
            file.write(
                f'[DEFAULT]\ninstances_path = {self.node.layout.instances}\n'
                '[image_cache]\n' + '\n'.join(lines) + '\n'
            )

    def command(self, *args: str) -> list[str]:
        return [
            sys.executable, '-m', 'nova_imagecache',
            '--config-file', self.conf, *args,
        ]  # fmt: skip

    def start(self, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*args), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            self.addCleanup(stream.close)
        return process

    def run_scrub(self, *args: str) -> tuple[int, list[dict[str, Any]], str]:
        """Scrub; give the exit code, the lines of JSON, and the errors."""
        done = subprocess.run(
            self.command('scrub', '--progress', 'json', *args),
            capture_output=True,
            text=True,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return done.returncode, lines, done.stderr

    def position(self, name: str) -> int:
        ledger = self.known(name).ledger
        return ledger.position if ledger else 0


class ProcessTest(ProcessTestCase):
    def test_it_reads_what_is_due_and_prints_a_line_per_file(self) -> None:
        name = self.node.add_image('x')
        code, lines, stderr = self.run_scrub()
        self.assertEqual((0, ''), (code, stderr))
        file, summary = lines
        self.assertEqual(
            (name, 'digested', 64 * base.KIB),
            (file['name'], file['checksum'], file['bytes']),
        )
        self.assertEqual(1, summary['summary']['files'])
        self.assertEqual('good', self.run_scrub()[1][0]['checksum'])

    def test_corruption_exits_with_3_and_names_bytes_and_guests(self) -> None:
        name = self.node.add_image('x')
        guest = '11111111-aaaa-4aaa-8aaa-000000000001'
        self.node.add_overlay(guest, name)
        self.run_scrub()
        nodes.flip_bit(self.node.base_path(name))
        code, lines, stderr = self.run_scrub()
        self.assertEqual((3, 'corrupt'), (code, lines[0]['checksum']))
        for word in (name, 'bytes 0-65535', guest, 'reads through'):
            self.assertIn(word, stderr)

    def test_nothing_due_says_what_is_next(self) -> None:
        self.configure(checksum_interval_seconds=WEEK)
        name = self.node.add_image('x')
        code, _lines, stderr = self.run_scrub()
        self.assertEqual(0, code)
        self.assertIn(name, stderr)
        self.assertIn('Nothing is due', stderr)

    def test_a_node_without_a_cache_stays_one(self) -> None:
        os.rmdir(self.node.layout.base)
        self.node.add_directory('locks')
        code, lines, stderr = self.run_scrub()
        self.assertEqual((0, 1), (code, len(lines)))
        self.assertIn('no cache', stderr)
        self.assertFalse(os.path.exists(self.node.layout.base))

    def test_a_lock_that_cannot_be_had_could_not_do_it(self) -> None:
        name = self.node.add_image('x')
        self.node.add_file('locks')
        code, _lines, stderr = self.run_scrub()
        self.assertEqual(1, code)
        self.assertIn(name, stderr)

    def test_a_reader_of_the_output_that_has_gone_leaves_no_verdict(
        self,
    ) -> None:
        self.configure(scrub_bandwidth_mib_per_second=8)
        name = self.node.add_image('x', data=os.urandom(24 * base.MIB))
        process = self.start('verify', '--progress', 'json')
        assert process.stdout and process.stderr
        process.stdout.close()
        process.wait()
        self.assertNotIn('Traceback', process.stderr.read())
        self.assertIs(Verdict.UNKNOWN, self.known(name).finding.verdict)

    def test_a_column_that_is_none_is_told_before_anything_is_read(
        self,
    ) -> None:
        name = self.node.add_image('x')
        for command in ('scrub', 'verify'):
            done = subprocess.run(
                self.command(command, '--progress', 'json', '-c', 'nosuch'),
                capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual(1, done.returncode)
            self.assertIn('there is no column nosuch', done.stderr)
        self.assertIsNone(self.known(name).ledger)

    def test_another_one_at_work_is_one_line(self) -> None:
        self.node.add_image('x')
        with coordination.coordinator(self.node.layout).turn():
            code, lines, stderr = self.run_scrub()
        self.assertEqual(1, code)
        self.assertEqual(1, len(stderr.splitlines()))
        self.assertIn('another', stderr)
        self.assertEqual([], lines)

    def test_sigterm_ends_it_and_the_next_one_goes_on(self) -> None:
        self.patch(blockmap, 'BLOCK_SIZE', 4 * base.MIB)
        self.configure(scrub_bandwidth_mib_per_second=2)
        data = random.Random(1).randbytes(24 * base.MIB)
        name = self.node.add_image('x', data=data)
        process = self.start('scrub', '--progress', 'json')
        self.assertTrue(processes.wait_for(self.reading))
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(
            timeout=processes.PATIENCE_SECONDS
        )
        self.assertEqual((0, ''), (process.returncode, stderr))
        self.assertIn('told to stop', stdout)
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertLess(last.read, len(data))
        position = self.position(name)
        self.assertIsNone(self.ledger(name).read)
        self.configure()
        _code, lines, _stderr = self.run_scrub()
        self.assertEqual(
            len(data) - position * 4 * base.MIB, lines[0]['bytes']
        )
        self.assertIsNotNone(self.ledger(name).read)

    def test_closed_streams_keep_it_from_nothing(self) -> None:
        self.configure(checksum_interval_seconds=WEEK)
        for closed in ('<&-', '>&-', '2>&-', '<&- >&- 2>&-'):
            name = self.node.add_image(closed)
            done = subprocess.run(
                ['sh', '-c', f'exec "$@" {closed}', 'sh',
                 *self.command('verify', name, '--progress', 'json')],
                stdin=subprocess.DEVNULL, capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual((0, ''), (done.returncode, done.stderr), closed)
            self.assertEqual('>&-' in closed.split(), not done.stdout)
            self.assertIsNotNone(self.ledger(name).read)

    def test_an_error_is_still_told_without_the_other_streams(self) -> None:
        done = subprocess.run(
            ['sh', '-c', 'exec "$@" <&- >&-', 'sh',
             *self.command('verify', 'nosuch')],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        self.assertEqual(1, done.returncode)
        self.assertIn('there is no file nosuch', done.stderr)

    def test_sigterm_ends_it_though_a_read_hangs(self) -> None:
        name = self.node.add_image('x')
        begun = os.path.join(self.temporary, 'begun')
        # Mocked: a disk that hangs. The read is a real one, of a pipe in
        # which nothing comes.
        code = (
            'import os, sys\n'
            'from nova_imagecache.cli import app\n'
            'end, _other = os.pipe()\n'
            'def hang(*args):\n'
            f'    open({begun!r}, "w").close()\n'
            '    os.read(end, 1)\n'
            'os.preadv = hang\n'
            'sys.exit(app.main(sys.argv[1:]))\n'
        )
        process = subprocess.Popen(
            [sys.executable, '-c', code, *self.command('scrub')[3:]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.kill)
        self.assertTrue(processes.wait_for(lambda: os.path.exists(begun)))
        process.send_signal(signal.SIGTERM)
        _stdout, stderr = process.communicate(
            timeout=processes.PATIENCE_SECONDS
        )
        self.assertEqual((0, b''), (process.returncode, stderr))
        self.assertFalse(coordination.coordinator(self.node.layout).taken())
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertEqual(name, last.current)
        self.assertIsNotNone(last.ended)

    def reading(self) -> bool:
        """Whether it has read some, and said so."""
        last = activities.load(self.node.layout)
        return last is not None and last.read > 0

    def test_it_is_nice_and_idle(self) -> None:
        self.configure(scrub_bandwidth_mib_per_second=1)
        self.node.add_image('x', data=b'x' * 8 * base.MIB)
        process = psutil.Process(self.start('scrub').pid)
        self.assertTrue(processes.wait_for(lambda: process.nice() == 19))
        self.assertTrue(
            processes.wait_for(
                lambda: process.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
            )
        )

    def test_verify_makes_it_give_way(self) -> None:
        self.configure(scrub_bandwidth_mib_per_second=2)
        self.node.add_image('x', data=b'x' * 16 * base.MIB)
        process = self.start('scrub', '--progress', 'json')
        self.assertTrue(
            processes.wait_for(
                lambda: coordination.coordinator(self.node.layout).taken()
            )
        )
        other = self.node.add_image('y')
        done = subprocess.run(
            self.command('verify', other), capture_output=True, text=True
        )
        self.assertEqual(0, done.returncode)
        (line,) = done.stderr.splitlines()
        self.assertIn('[N24] ', line)
        stdout, _stderr = process.communicate(
            timeout=processes.PATIENCE_SECONDS
        )
        self.assertIn('gave way', stdout)

    def test_memory_stays_bounded_whatever_the_size_of_the_image(
        self,
    ) -> None:
        peaks = []
        for size in (base.MIB, 64 * 1024 * base.MIB):
            # Whole-file SHA-1 takes minutes for the larger one.
            name = self.node.add_image(
                str(size), data=b'x' * base.MIB, size=size
            )
            self.begin_ledger(name)
            # Not ru_maxrss, in which the parent's memory counts.
            code = (
                'import sys\n'
                'from nova_imagecache.cli import app\n'
                'app.main(sys.argv[1:])\n'
                "print(open('/proc/self/status').read()"
                ".partition('VmHWM:')[2].split()[0])\n"
            )
            done = subprocess.run(
                [sys.executable, '-c', code, *self.command('scrub')[3:]],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            peaks.append(int(done.stdout.splitlines()[-1]))
            os.unlink(self.node.base_path(name))
        self.assertLess(max(peaks), 64 * 1024)

    def begin_ledger(self, name: str) -> None:
        """Let a reading have begun, so that it needs no SHA-1."""
        self.patch(blockmap, 'BLOCK_SIZE', 4 * base.MIB)
        self.scrub(name, **self.stop_after(1))
        self.go_on()


class KillTest(ProcessTestCase):
    """kill -9 at any instruction."""

    KILLS = 300

    blocks = 0

    def scrub_all_the_time(self) -> None:
        """Scrub until killed: in a child, which never returns."""
        try:
            while True:
                for name in self.names:
                    self.scrub(name, checkpoint_seconds=0.002)
        finally:
            os._exit(1)

    def test_killed_hundreds_of_times_it_loses_nothing(self) -> None:
        generator = random.Random(9)
        data = random.Random(1).randbytes(40 * scrubbing.BLOCK + 99)
        self.names = [
            self.node.add_image('x', data=data),
            self.node.add_image('y', data=data),
        ]
        read = 0
        for _kill in range(self.KILLS):
            child = os.fork()
            if not child:
                self.scrub_all_the_time()
            time.sleep(generator.random() * 0.06)
            os.kill(child, signal.SIGKILL)
            self.assertEqual(-9, os.waitstatus_to_exitcode(
                os.waitpid(child, 0)[1]
            ))  # fmt: skip
            for name in self.names:
                known = self.known(name)
                self.assertFalse(known.lost or known.blind, known.problems)
                self.assertIn(
                    known.finding.verdict, (Verdict.UNKNOWN, Verdict.GOOD)
                )
                self.assertNotIn('rebaselined', known.finding.note)
            if known.ledger is not None and known.ledger.read is not None:
                read += 1
        self.assertGreater(read, 0)
        for name in self.names:
            self.scrub(name)
            self.assertIs(Verdict.GOOD, self.scrub(name).verdict)
            nodes.flip_bit(self.node.base_path(name), 7 * scrubbing.BLOCK)
            self.scrub(name)
            self.assertEqual({7: scrubbing.CORRUPT}, self.bad(name))

    def test_killed_each_time_a_scrub_still_gets_through(self) -> None:
        """Each child gets a block further, and none is told to stop."""
        data = random.Random(1).randbytes(10 * scrubbing.BLOCK)
        name = self.node.add_image('x', data=data)
        for _kill in range(11):
            child = os.fork()
            if not child:
                self.scrub(
                    name, checkpoint_seconds=0, pulse=self.kill_at_the_second
                )
                os._exit(0)
            os.waitpid(child, 0)
        self.assertIsNotNone(self.ledger(name).read)

    def kill_at_the_second(self) -> None:
        self.blocks += 1
        if self.blocks == 2:
            os.kill(os.getpid(), signal.SIGKILL)
