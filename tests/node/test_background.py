# SPDX-License-Identifier: Apache-2.0

"""The manager and the process that it starts: real ones."""

import io
import json
import os
import subprocess
import sys
from typing import Any

import fixtures
import psutil

from nova_imagecache.cache import coordination
from nova_imagecache import hook
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import background
from nova_imagecache.scrub import pipe
from nova_imagecache.scrub import schedule
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

Verdict = scrubbing.Verdict


class BackgroundTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.values: dict[str, Any] = {
            'instances_path': self.node.layout.instances,
            'checksum_base_images': True,
            'checksum_interval_seconds': 0,
            'scrub_bandwidth_mib_per_second': 0,
        }
        self.name = self.node.add_image('image')
        self.started = self.note_scrubs()

    def note_scrubs(self) -> list[list[str]]:
        """Note the commands of the scrubs that are started from now on."""
        commands: list[list[str]] = []

        class Noted(subprocess.Popen[bytes]):
            def __init__(self, command: list[str], **kwargs: Any) -> None:
                if '--parent' in command:
                    commands.append(command)
                super().__init__(command, **kwargs)

        self.patch(subprocess, 'Popen', Noted)
        return commands

    def manager(self, **values: Any) -> hook.ImageCacheManager:
        self.conf = base.make_conf(**(self.values | values))
        manager = hook.ImageCacheManager(self.conf)
        # What it starts must not outlive the test.
        self.addCleanup(self.assert_none_is_left)
        self.addCleanup(manager.stop)
        return manager

    def assert_none_is_left(self) -> None:
        self.assertTrue(processes.wait_for(lambda: not self.scrubs()))

    def scrubs(self) -> list[psutil.Process]:
        """Find the scrubs of this cache: those that have its lock open."""
        lock = os.path.join(self.node.layout.own_locks, 'scrub')
        found = []
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
                if '--parent' in command and any(
                    file.path == lock for file in process.open_files()
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def ended(self) -> bool:
        """Whether the scrub has come up, and gone again."""
        last = activities.load(self.node.layout)
        return bool(last and last.ended) and not self.scrubs()

    def slow(self) -> dict[str, Any]:
        """Let a scrub take longer than the test."""
        path = self.node.base_path(self.name)
        with open(path, 'r+b') as file:
            file.write(os.urandom(64 * base.MIB))
        return {'scrub_bandwidth_mib_per_second': 1}

    def test_a_pass_leaves_the_reading_to_a_scrub(self) -> None:
        manager = self.manager()
        report = manager.update(None, [])
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('not been read yet', file.reason)
        self.assertEqual((), report.problems)
        self.assertTrue(processes.wait_for(self.ended))
        self.assertEqual(1, len(self.started))
        self.assertIn(f'{self.name}.sha1', self.node.files())

    def test_the_next_pass_takes_up_what_was_found(self) -> None:
        manager = self.manager()
        guest = {'uuid': 'a-guest', 'image_ref': 'image', 'name': 'i'}
        manager.update(None, [guest])
        self.assertTrue(processes.wait_for(self.ended))
        nodes.flip_bit(self.node.base_path(self.name))
        manager.update(None, [guest])
        self.assertTrue(processes.wait_for(self.ended_again))
        (file,) = manager.update(None, [guest]).corrupt
        self.assertEqual(('a-guest',), file.users)
        self.assertEqual('image', file.image)
        self.assertEqual(
            [(0, 64 * base.KIB)], [(bad.start, bad.end) for bad in file.bad]
        )
        self.assertIn('bytes 0-65535 are corrupt', self.log.output)

    def ended_again(self) -> bool:
        with open(self.node.layout.ledger(self.name), 'rb') as file:
            body = json.loads(file.readline())['sealed']['body']
        return bool(body['verified']) and not self.scrubs()

    def test_a_pass_never_reads_a_base_file(self) -> None:
        manager = self.manager(**self.slow())
        reads: list[int] = []
        self.useFixture(
            fixtures.MonkeyPatch('os.preadv', lambda *args: reads.append(1))
        )
        manager.update(None, [])
        self.assertTrue(processes.wait_for(self.scrubs))
        # While it reads, a pass neither waits nor starts a second one.
        manager.update(None, [])
        self.assertEqual(1, len(self.started))
        self.assertEqual([], reads)

    def test_with_checksums_off_there_is_no_scrub(self) -> None:
        manager = self.manager(checksum_base_images=False)
        manager.update(None, [])
        self.assertEqual([], self.started)
        self.assertEqual([], os.listdir(self.node.layout.ledgers))

    def test_switched_off_it_ends(self) -> None:
        manager = self.manager(**self.slow())
        manager.update(None, [])
        self.assertTrue(processes.wait_for(self.scrubs))
        self.conf.set_override(
            'checksum_base_images', False, group='image_cache'
        )
        manager.update(None, [])
        self.assertTrue(processes.wait_for(lambda: not self.scrubs()))

    def test_other_options_make_another_one(self) -> None:
        manager = self.manager(**self.slow())
        manager.update(None, [])
        (first,) = processes.wait_for(self.scrubs)
        self.conf.set_override(
            'scrub_bandwidth_mib_per_second', 2, group='image_cache'
        )
        manager.update(None, [])
        first.wait()
        manager.update(None, [])
        (second,) = processes.wait_for(self.scrubs)
        self.assertNotEqual(first.pid, second.pid)

    def test_nothing_due_starts_nothing(self) -> None:
        manager = self.manager(checksum_interval_seconds=7 * base.DAY)
        for _pass in range(2):
            manager.update(None, [])
        self.assertEqual([], self.started)

    def test_one_of_another_host_is_left_at_it(self) -> None:
        self.useFixture(processes.OtherScrub(self.node.layout.instances))
        report = self.manager().update(None, [])
        self.assertEqual((), report.problems)
        self.assertEqual([], self.started)

    def test_it_is_no_child_that_could_be_a_zombie(self) -> None:
        manager = self.manager(**self.slow())
        before = psutil.Process().children()
        manager.update(None, [])
        self.assertTrue(processes.wait_for(self.scrubs))
        self.assertEqual(before, psutil.Process().children())
        manager.stop()
        self.assertTrue(processes.wait_for(lambda: not self.scrubs()))
        self.assertEqual(before, psutil.Process().children())

    def test_it_ends_with_the_process_that_started_it(self) -> None:
        for how in ('os._exit(0)', 'os.kill(os.getpid(), 9)'):
            values = self.values | self.slow()
            subprocess.run(
                [sys.executable, '-c', PARENT.format(end=how),
                 json.dumps(values)],
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self.assertTrue(
                processes.wait_for(lambda: activities.load(self.node.layout))
            )
            self.assertTrue(processes.wait_for(self.ended), how)
            os.unlink(self.node.layout.scrub)

    def test_it_comes_up_though_its_parent_has_closed_streams(self) -> None:
        for closed in ('2>&-', '<&- >&- 2>&-'):
            sidecar = (
                self.node.base_path(self.node.add_image(closed)) + '.sha1'
            )
            end = (
                'assert processes.wait_for('
                f'lambda: os.path.exists({sidecar!r}))'
            )
            done = subprocess.run(
                ['sh', '-c', f'exec "$@" {closed}', 'sh',
                 sys.executable, '-c', PARENT.format(end=end),
                 json.dumps(self.values)],
                stdin=subprocess.DEVNULL, capture_output=True,
            )  # fmt: skip
            self.assertEqual(0, done.returncode, closed)
            self.assertTrue(processes.wait_for(self.ended), closed)
            os.unlink(self.node.layout.scrub)

    def test_it_ends_with_its_manager(self) -> None:
        manager = self.manager(**self.slow())
        scrub = manager._scrub
        manager.update(None, [])
        self.assertTrue(processes.wait_for(self.scrubs))
        scrub.__del__()
        self.assertTrue(processes.wait_for(lambda: not self.scrubs()))

    def test_it_does_not_get_what_systemd_means_for_the_service(self) -> None:
        self.useFixture(
            fixtures.EnvironmentVariable('NOTIFY_SOCKET', '/run/notify')
        )
        manager = self.manager(**self.slow())
        manager.update(None, [])
        (process,) = processes.wait_for(self.scrubs)
        self.assertNotIn('NOTIFY_SOCKET', process.environ())
        self.assertEqual('/', process.cwd())

    def test_no_descriptor_of_the_service_gets_into_it(self) -> None:
        ours = os.path.join(self.temporary, 'ours')
        with open(ours, 'w'):
            manager = self.manager(**self.slow())
            manager.update(None, [])
            (process,) = processes.wait_for(self.scrubs)
            paths = [file.path for file in process.open_files()]
        self.assertNotIn(ours, paths)

    def test_verifying_inline_starts_no_process(self) -> None:
        manager = hook.ImageCacheManager(
            base.make_conf(**self.values), inline=True
        )
        manager.update(None, [])
        self.assertIn(f'{self.name}.sha1', self.node.files())
        self.assertEqual([], self.started)

    def test_the_2012_name_verifies_inline(self) -> None:
        manager = hook.ImageCacheManager(
            base.make_conf(**self.values), get_instances=lambda context: []
        )
        manager.verify_base_images(None)
        self.assertIn(f'{self.name}.sha1', self.node.files())
        self.assertEqual([], self.started)


PARENT = """
import json, os, sys
from nova_imagecache import hook
from tests.support import base
from tests.support import processes
conf = base.make_conf(**json.loads(sys.argv[1]))
manager = hook.ImageCacheManager(conf)
manager.update(None, [])
path = manager.cache_dir + '/.imagecache/scrub'
assert processes.wait_for(lambda: os.path.exists(path))
{end}
"""


class StartTest(nodes.NodeTestCase):
    """What can go wrong with starting one."""

    COVERAGE = schedule.Coverage(files=1, size=1, queue=1, queue_size=1)

    def setUp(self) -> None:
        super().setUp()
        self.scrub = background.Scrub(self.node.clock)
        self.addCleanup(self.scrub.stop)

    def keep(self) -> list[str]:
        return [*self.scrub.keep(self.node.settings, self.COVERAGE)]

    def test_without_setsid_it_is_a_problem_and_nothing_leaks(self) -> None:
        before = len(os.listdir('/proc/self/fd'))
        self.patch(background, '_COMMAND', ('/no/such/setsid',))
        for _pass in range(3):
            (problem,) = self.keep()
            self.assertIn('/no/such/setsid', problem)
        self.assertEqual(before, len(os.listdir('/proc/self/fd')))

    def test_a_setsid_that_fails_is_a_problem_and_nothing_leaks(self) -> None:
        before = len(os.listdir('/proc/self/fd'))
        self.patch(
            background, '_COMMAND', (sys.executable, '-c', 'exit(71)', '--')
        )
        for _pass in range(3):
            (problem,) = self.keep()
            self.assertIn('no scrub can be started', problem)
            self.assertIn('71', problem)
        self.assertEqual(before, len(os.listdir('/proc/self/fd')))

    def test_without_a_python_it_is_a_problem(self) -> None:
        self.patch(sys, 'executable', '')
        self.assertIn('no scrub can be started', self.keep()[0])

    def test_one_that_does_not_come_up_is_a_problem_in_a_later_pass(
        self,
    ) -> None:
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.assertEqual([], self.keep())
        self.node.clock.advance(2400)
        self.assertIn('has not come up', self.keep()[0])

    def test_what_an_earlier_one_noted_does_not_stand_for_one_that_fails(
        self,
    ) -> None:
        now = self.node.clock()
        activities.save(
            self.node.layout,
            activities.Activity('h', now, now, now, problems=('a lock',)),
        )
        self.node.clock.advance(2400)
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.assertEqual([], self.keep())
        # It may still be about to come up.
        self.node.clock.advance(1)
        self.assertEqual([], self.keep())
        self.node.clock.advance(2400)
        (problem,) = self.keep()
        self.assertIn('has not come up', problem)

    def test_one_that_came_up_is_none(self) -> None:
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.keep()
        self.node.clock.advance(1)
        now = self.node.clock()
        activities.save(
            self.node.layout, activities.Activity('h', now, now, now, 'fine')
        )
        self.node.clock.advance(2400)
        self.assertEqual([], self.keep())

    def test_what_it_could_not_do_is_in_the_report_of_the_next_pass(
        self,
    ) -> None:
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.keep()
        now = self.node.clock()
        activities.save(
            self.node.layout,
            activities.Activity('h', now, now, now, problems=('a lock',)),
        )
        self.assertEqual(['a lock'], self.keep())

    def test_the_settings_survive_the_pipe(self) -> None:
        settings = self.node.settings
        end, ours = pipe.open_with(settings)
        os.close(ours)
        with open(end, 'rb') as stream:
            self.assertEqual(settings, pipe.receive(stream))
        for line in (b'', b'{}', b'[]', b'7', b'{"instances_path": "/"}'):
            self.assertRaises(ValueError, pipe.receive, io.BytesIO(line))

    def test_a_scrub_without_settings_is_one_line(self) -> None:
        done = subprocess.run(
            [sys.executable, '-m', 'nova_imagecache', 'scrub', '--parent'],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        self.assertEqual(1, done.returncode)
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)
        self.assertIn('no settings', done.stderr)

    def test_a_lock_is_asked_for_without_being_taken_or_given_up(
        self,
    ) -> None:
        self.assertFalse(coordination.coordinator(self.node.layout).taken())
        with coordination.coordinator(self.node.layout).turn():
            self.assertTrue(coordination.coordinator(self.node.layout).taken())
            # Another process still sees it held.
            done = subprocess.run(
                [sys.executable, '-c', processes.HOLD_TURN,
                 self.node.layout.instances],
                stdin=subprocess.DEVNULL, capture_output=True, text=True,
            )  # fmt: skip
            self.assertIn('Locked', done.stderr)
        self.assertFalse(coordination.coordinator(self.node.layout).taken())

    def test_one_that_is_coming_up_is_not_started_again(self) -> None:
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.keep()
        pipes = [*self.scrub._pipes]
        self.node.clock.advance(5)
        self.assertEqual([], self.keep())
        self.assertEqual(pipes, self.scrub._pipes)

    def test_the_first_process_of_a_container_reaps_its_children(
        self,
    ) -> None:
        # Mocked: the test is no first process.
        self.patch(background, '_adopts_orphans', lambda: True)
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.keep()
        (child,) = self.scrub._children
        self.assertTrue(
            processes.wait_for(
                lambda: psutil.Process(child.pid).status() == 'zombie'
            )
        )
        self.keep()
        self.assertFalse(psutil.pid_exists(child.pid))

    def test_a_process_that_the_host_forks_lets_the_pipe_go(self) -> None:
        self.patch(background, '_PROGRAM', ('-c', 'pass'))
        self.keep()
        child = os.fork()
        if not child:
            os._exit(0 if not self.scrub._pipes else 1)
        _pid, status = os.waitpid(child, 0)
        self.assertEqual(0, os.waitstatus_to_exitcode(status))
        self.assertTrue(self.scrub._pipes)
