# SPDX-License-Identifier: Apache-2.0

"""A whole cache is scrubbed, in this process and in others."""

from collections.abc import Callable
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

from nova_imagecache.cache import coordination
from nova_imagecache.cache import publish as publishing
from nova_imagecache.cache import states
from nova_imagecache.content import blockmap
from nova_imagecache import errors
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import scrubber
from tests import base
from tests import scrubbing

Verdict = scrubbing.Verdict

WEEK = 7 * base.DAY
PATIENCE_SECONDS = 60


def wait_for(what: Callable[[], Any]) -> Any:
    """Wait for another process, which cannot be hurried."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = what()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


class ScrubberTest(scrubbing.ScrubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, checksum_interval=WEEK)
        self.stop = threading.Event()

    def scrubber(self, **kwargs: Any) -> scrubber.Scrubber:
        means = readers.Means(
            limiters.Limiter(wait=self.stop.wait), stop=self.stop, ahead=True
        )
        return scrubber.Scrubber(
            self.node.settings, means, self.node.clock, **kwargs
        )

    def names(self) -> list[str]:
        """Scrub what is due; give the names, in order."""
        return [result.name for result in self.scrubber().run()]

    def test_what_is_seen_for_the_first_time_is_read_an_hour_later(
        self,
    ) -> None:
        name = self.node.add_image('x')
        one = self.scrubber()
        self.assertEqual([], list(one.run()))
        assert one.next is not None
        self.assertEqual(name, one.next.name)
        self.node.clock.advance(base.HOUR)
        self.assertEqual([name], self.names())
        self.assertTrue(os.path.exists(self.node.base_path(name) + '.sha1'))

    def test_each_file_is_read_once_per_interval(self) -> None:
        name = self.node.add_image('x')
        self.names()
        self.node.clock.advance(base.HOUR)
        self.assertEqual([name], self.names())
        for _day in range(7):
            self.assertEqual([], self.names())
            self.node.clock.advance(base.DAY - 1)
        self.node.clock.advance(base.DAY)
        self.assertEqual([name], self.names())
        self.assertIs(Verdict.GOOD, self.known(name).finding.verdict)

    def test_never_verified_comes_first_then_the_oldest(self) -> None:
        self.node.configure(checksum_interval=0)
        old, young = 'swap_1', 'swap_2'
        for name in (young, old):
            self.node.add_base(name)
            self.names()
        self.node.clock.advance(5)
        for name in (old, young):
            self.scrub(name)
            self.node.clock.advance(5)
        new = self.node.add_image('new')
        self.assertEqual([new, old, young], self.names())

    def test_a_resized_file_is_not_read_when_it_is_first_seen(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x') + '_20'
        self.node.add_base(name)
        self.assertNotIn(name, self.names())
        self.assertIn(name, self.names())

    def test_a_file_that_fails_does_not_keep_the_others(self) -> None:
        self.node.configure(checksum_interval=0)
        names = sorted(self.node.add_image(str(i)) for i in range(3))
        os.unlink(self.node.base_path(names[1]))
        os.mkdir(self.node.base_path(names[1]))
        self.node.add_base('f' * 40 + '.part')
        self.assertEqual([names[0], names[2]], self.names())

    def test_a_damaged_state_is_no_reason_to_stop(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.node.layout.state, 'w') as file:
            file.write('garbage')
        self.assertEqual([name], self.names())

    def test_only_one_is_at_work_in_a_cache(self) -> None:
        with coordination.coordinator(self.node.layout).turn():
            self.assertRaises(errors.Locked, self.names)

    def test_told_to_stop_it_ends_and_says_so(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')
        self.stop.set()
        one = self.scrubber()
        self.assertEqual([], list(one.run()))
        self.assertEqual('it was told to stop', one.activity.reason)

    def test_what_it_does_is_noted(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')
        list(self.scrubber().run())
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertEqual(
            (1, 64 * base.KIB, None, 'nothing more is due'),
            (last.files, last.read, last.current, last.reason),
        )
        self.assertIsNotNone(last.ended)

    def test_a_note_that_is_garbage_is_none(self) -> None:
        self.assertIsNone(activities.load(self.node.layout))
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.node.layout.scrub, 'w') as file:
            file.write('garbage')
        self.assertIsNone(activities.load(self.node.layout))

    def test_it_reads_no_faster_than_it_must_to_be_in_time(self) -> None:
        self.node.configure(scrub_bandwidth=8 * base.MIB, checksum_interval=0)
        self.patch(schedule, 'LEAST_RATE', 1)
        self.patch(schedule, '_FIRST_GRACE_SECONDS', 1000)
        self.node.add_image('x', data=b'x' * 640 * base.KIB)
        # A wait ends the test.
        self.patch(self.stop, 'wait', lambda timeout=None: self.stop.set())
        one = self.scrubber()
        list(one.run())
        self.assertAlmostEqual(655.36, one.activity.rate, places=1)

    def test_a_reboot_before_the_first_reading_makes_a_file_suspect(
        self,
    ) -> None:
        name = self.node.add_image('x')
        clock = self.node.clock
        # Made in the boot that is now.
        clock.boottime = 1e9
        self.node.run(inline=False)
        self.names()
        clock.advance(base.HOUR)
        clock.boot_id = 'next boot'
        # The host has been seen in its new boot.
        self.node.run(inline=False)
        self.assertEqual([name], self.names())
        self.assertTrue(self.ledger(name).suspect)

    def test_a_file_read_in_the_boot_it_was_made_in_is_not(self) -> None:
        name = self.node.add_image('x')
        self.node.configure(remove_unused=False)
        self.node.clock.boottime = 1e9
        self.node.run(inline=False)
        self.node.clock.advance(base.HOUR)
        self.names()
        self.node.clock.boot_id = 'next boot'
        self.node.clock.advance(2 * WEEK)
        self.node.run(inline=False)
        self.names()
        self.assertFalse(self.ledger(name).suspect)

    def test_a_file_older_than_the_boot_that_first_saw_it_is_suspect(
        self,
    ) -> None:
        name = self.node.add_image('x')
        self.node.clock.boottime = -base.HOUR
        self.node.run(inline=False)
        self.node.clock.advance(base.HOUR)
        self.names()
        self.assertTrue(self.ledger(name).suspect)

    def test_a_ledger_and_a_checksum_that_are_gone_were_lost(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        self.names()
        self.node.run(inline=False)
        os.unlink(self.node.base_path(name) + '.sha1')
        os.unlink(self.node.layout.ledger(name))
        base.flip_bit(self.node.base_path(name))
        (result,) = self.scrubber().run()
        self.assertIn('rebaselined on', result.finding.note)
        self.assertFalse(
            os.path.exists(self.node.layout.ledger(name) + '.damaged')
        )

    def test_what_cannot_be_read_for_want_of_a_lock_is_noted(self) -> None:
        self.node.configure(checksum_interval=0)
        name = self.node.add_image('x')
        self.node.add_file('locks')
        list(self.scrubber().run())
        last = activities.load(self.node.layout)
        assert last is not None
        self.assertEqual(0, last.files)
        self.assertIn(name, last.problems[0])
        self.assertIn('lock', last.problems[0])

    def test_what_has_come_meanwhile_has_its_turn(self) -> None:
        self.node.configure(checksum_interval=0)
        self.patch(queues, '_REQUEUE_SECONDS', -1)
        first = [self.node.add_image(str(number)) for number in range(3)]
        found = []
        for result in self.scrubber().run():
            found.append(result.name)
            if len(found) == 1:
                new = self.node.add_image('new')
        self.assertEqual(sorted([*first, new]), sorted(found))

    def test_what_could_not_be_kept_is_not_read(self) -> None:
        self.node.configure(checksum_interval=0)
        self.node.add_image('x')

        # Mocked: tests/functional has a file system that is full.
        def publish(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(publishing, 'publish', publish)
        self.before_read(0, lambda: self.fail('it was read'))
        self.assertRaises(OSError, self.names)

    def test_a_file_older_than_the_boot_is_suspect_at_first_sight(
        self,
    ) -> None:
        name = self.node.add_image('x')
        self.node.clock.boottime = -base.HOUR
        self.node.make_pass().verify_now([name])
        self.assertTrue(self.ledger(name).suspect)

    def test_a_sighting_is_not_lost_when_a_scrub_adds_others(self) -> None:
        first = self.node.add_image('x')
        self.names()
        before = states.load(self.node.layout).files[first]
        self.node.clock.advance(5)
        self.node.add_image('y')
        self.names()
        after = states.load(self.node.layout).files
        self.assertEqual(before, after[first])
        self.assertEqual(2, len(after))


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
            self.command('scrub', '-f', 'json', *args),
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
            (name, 'unknown', 64 * base.KIB),
            (file['name'], file['checksum'], file['bytes']),
        )
        self.assertEqual(1, summary['summary']['files'])
        self.assertEqual('good', self.run_scrub()[1][0]['checksum'])

    def test_corruption_exits_with_3_and_names_bytes_and_guests(self) -> None:
        name = self.node.add_image('x')
        guest = '11111111-aaaa-4aaa-8aaa-000000000001'
        self.node.add_overlay(guest, name)
        self.run_scrub()
        base.flip_bit(self.node.base_path(name))
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
        process = self.start('verify', '-f', 'json')
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
                self.command(command, '-f', 'json', '-c', 'nosuch'),
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
        process = self.start('scrub', '-f', 'json')
        self.assertTrue(wait_for(self.reading))
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
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

    def reading(self) -> bool:
        """Whether it has read some, and said so."""
        last = activities.load(self.node.layout)
        return last is not None and last.read > 0

    def test_it_is_nice_and_idle(self) -> None:
        self.configure(scrub_bandwidth_mib_per_second=1)
        self.node.add_image('x', data=b'x' * 8 * base.MIB)
        process = psutil.Process(self.start('scrub').pid)
        self.assertTrue(wait_for(lambda: process.nice() == 19))
        self.assertTrue(
            wait_for(
                lambda: process.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
            )
        )

    def test_verify_makes_it_give_way(self) -> None:
        self.configure(scrub_bandwidth_mib_per_second=2)
        self.node.add_image('x', data=b'x' * 16 * base.MIB)
        process = self.start('scrub', '-f', 'json')
        self.assertTrue(
            wait_for(
                lambda: coordination.coordinator(self.node.layout).taken()
            )
        )
        other = self.node.add_image('y')
        done = subprocess.run(
            self.command('verify', other), capture_output=True, text=True
        )
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        stdout, _stderr = process.communicate(timeout=PATIENCE_SECONDS)
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
            base.flip_bit(self.node.base_path(name), 7 * scrubbing.BLOCK)
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
