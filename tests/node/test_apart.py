# SPDX-License-Identifier: Apache-2.0

"""Passes that a process of its own makes for a host: real ones."""

import dataclasses
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import Any

import fixtures
import msgspec
import psutil

from nova_imagecache.apart import parent
from nova_imagecache import children
from nova_imagecache import hook
from nova_imagecache import host
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import nodes
from tests.support import processes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OLD = 365 * base.DAY

# The process says that it is there, and waits until it may go on.
_BLOCKED = """
import os, time
from nova_imagecache.cache import sightings
from nova_imagecache.passes import observers
sightings.birth = lambda file, now: 0.0
real = observers.Observer.look
def look(*args, **kwargs):
    with open({at!r} + '.new', 'w') as file:
        file.write(str(os.getpid()))
    os.rename({at!r} + '.new', {at!r})
    while not os.path.exists({go!r}):
        time.sleep(0.01)
    return real(*args, **kwargs)
observers.Observer.look = look
"""

_PARENT = """
import json, os, signal, sys, time
from nova_imagecache.apart import parent
from nova_imagecache import hook
from tests.support import base
program, at, values = map(json.loads, sys.argv[1:4])
parent._PROGRAM = tuple(program)
manager = hook.ImageCacheManager(base.make_conf(**values), apart=True)
manager.begin(None, [])
while not os.path.exists(at):
    time.sleep(0.01)
{end}
os.kill(os.getpid(), signal.SIGKILL)
"""

_SKEWED = """
from nova_imagecache.cache import publish
real = publish.current_time
publish.current_time = lambda path: real(path) - 10**6
"""

_FORK = """
pid = os.fork()
if pid == 0:
    os.close(1)
    time.sleep(3600)
print(pid, flush=True)
"""


def settled(report: reports.Report) -> reports.Report:
    """Give a report without what time alone changes."""

    def without_ages(file: reports.FileReport) -> reports.FileReport:
        reason = re.sub(r'\d+ s', 'N s', file.reason)
        return msgspec.structs.replace(file, age_seconds=0, reason=reason)

    return dataclasses.replace(
        report,
        files=tuple(map(without_ages, report.files)),
        trash=tuple(map(without_ages, report.trash)),
        vetoed_seconds=None,
        removed_seconds=None,
        made=0.0,
        began=None,
        ended=None,
    )


class ApartTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        # As an operator has it.
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.INFO))
        self.node.clock = base.FakeClock.of_this_machine()
        self.values: dict[str, Any] = {
            'instances_path': self.node.layout.instances,
            'witnesses': ['instances', 'overlays', 'locks'],
        }
        self.at = os.path.join(self.temporary, 'at')
        self.go = os.path.join(self.temporary, 'go')

    def manager(
        self, lent: host.Host | None = None, **values: Any
    ) -> hook.ImageCacheManager:
        lent = host.Host() if lent is None else lent
        self.conf = base.make_conf(**(self.values | values))
        manager = hook.ImageCacheManager(self.conf, apart=True, **vars(lent))
        self.addCleanup(manager.wait)
        self.addCleanup(manager.stop)
        return manager

    def in_child(self, code: str) -> None:
        """Have the processes of passes do something first."""
        self.useFixture(nodes.Child(code))

    def block(self) -> None:
        """Have passes wait until they may go on."""
        self.in_child(_BLOCKED.format(at=self.at, go=self.go))

    def let_go_on(self) -> None:
        with open(self.go, 'w'):
            pass

    def blocked(self) -> psutil.Process:
        """Wait for the process of a pass, and give it."""
        self.assertTrue(processes.wait_for(lambda: os.path.exists(self.at)))
        with open(self.at) as file:
            return psutil.Process(int(file.read()))

    def problem(self, report: reports.Report | None) -> str:
        """Give the only thing that is in a report."""
        assert report is not None
        (problem,) = report.problems
        self.assertEqual(
            reports.Report(self.node.layout.base, problems=(problem,)), report
        )
        self.assertIn(problem, self.log.output)
        self.assertNotIn('Traceback', self.log.output)
        return problem


class ReportTest(ApartTestCase):
    def test_the_report_is_that_of_a_pass_made_here(self) -> None:
        used = self.node.add_image('used', age=OLD)
        self.node.add_overlay(GUEST, used)
        self.node.add_overlay(os.fsdecode(b'guest-\xff'), used)
        self.node.add_base('swap_64', age=OLD)
        self.node.add_file('guest-bad', 'disk', data=b'QFI\xfb' + b'\xff' * 99)
        guests = [{'uuid': GUEST, 'image_ref': 'used'}, {'uuid': None}]
        here = hook.ImageCacheManager(base.make_conf(**self.values))
        here.update(None, guests)
        expected = settled(here.update(None, guests))
        found = settled(self.manager().update(None, guests))
        self.assertEqual(expected, found)
        self.assertIn(os.fsdecode(b'guest-\xff'), found.files[0].users)
        self.assertNotEqual((), found.vetoes)

    def test_what_is_unused_goes_and_what_is_used_stays(self) -> None:
        used = self.node.add_image('used', age=OLD)
        unused = self.node.add_image('unused', age=OLD)
        report = self.manager().update(
            None, [{'uuid': GUEST, 'image_ref': 'used'}]
        )
        self.assertEqual([unused], [file.name for file in report.removed])
        self.assertEqual((GUEST,), self.file_of(report, used).users)
        self.assertEqual({used}, self.node.files())
        self.assertIn('1 moved to the trash', self.log.output)

    def test_devices_of_instances_are_handed_over(self) -> None:
        self.node.add_base('swap_64', age=OLD)
        mapping = {
            'source_type': 'blank',
            'destination_type': 'local',
            'guest_format': 'swap',
            'volume_size': 64,
        }
        report = self.manager().update(
            None, [{'uuid': GUEST, 'image_ref': ''}], {GUEST: [mapping]}
        )
        self.assertEqual((GUEST,), self.file_of(report, 'swap_64').users)

    def test_a_list_that_cannot_be_had_is_a_veto(self) -> None:
        name = self.node.add_image('old', age=OLD)
        for given in (None, self.failing()):
            report = self.manager().update(None, given)
            self.assertIn('the instances', report.vetoes[0])
            self.assertIn(name, self.node.files())

    @staticmethod
    def failing() -> Any:
        yield {'uuid': GUEST, 'image_ref': 'used'}
        raise RuntimeError('the database is away')

    def test_what_the_pass_logs_is_in_the_log_of_the_host(self) -> None:
        self.in_child(
            'import logging\n'
            'from nova_imagecache.passes import pipeline\n'
            'real = pipeline.Pass.run\n'
            'def run(one):\n'
            "    logging.getLogger('nova_imagecache.x').warning('%s', 'odd')\n"
            "    logging.getLogger('nova_imagecache.x').debug('never')\n"
            "    logging.getLogger('elsewhere').info('nor this')\n"
            '    return real(one)\n'
            'pipeline.Pass.run = run\n'
        )
        records: list[logging.LogRecord] = []
        handler = logging.Handler()
        self.patch(handler, 'emit', records.append)
        logging.getLogger('nova_imagecache').addHandler(handler)
        self.addCleanup(
            logging.getLogger('nova_imagecache').removeHandler, handler
        )
        self.manager().update(None, [])
        found = [each for each in records if each.name.endswith('.x')]
        self.assertEqual(
            [('nova_imagecache.x', logging.WARNING, 'odd')],
            [
                (each.name, each.levelno, each.getMessage())
                for each in found
                if each.levelno > logging.DEBUG
            ],
        )
        self.assertEqual([], [e for e in records if e.name == 'elsewhere'])

    def test_a_scrub_is_started_when_the_pass_is_over(self) -> None:
        name = self.node.add_image('image')
        manager = self.manager(
            checksum_base_images=True,
            checksum_interval_seconds=0,
            scrub_bandwidth_mib_per_second=0,
        )
        manager.update(None, [])

        def ended() -> bool:
            last = activities.load(self.node.layout)
            return bool(last and last.ended)

        self.assertTrue(processes.wait_for(ended))
        self.assertIn(f'{name}.sha1', self.node.files())

    def test_a_pass_apart_reads_no_base_file(self) -> None:
        self.assertRaises(
            ValueError, hook.ImageCacheManager, self.conf_of(), inline=True,
            apart=True,
        )  # fmt: skip

    def conf_of(self) -> Any:
        return base.make_conf(**self.values)

    def test_without_it_to_begin_is_to_make_it(self) -> None:
        unused = self.node.add_image('unused', age=OLD)
        manager = hook.ImageCacheManager(self.conf_of())
        self.assertTrue(manager.begin(None, []))
        self.assertNotIn(unused, self.node.files())
        self.assertIsNone(manager.wait())


class LentTest(ApartTestCase):
    """The process has lost the rights that its host has."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can have files that it may not read')
        self.in_child(
            'import encodings.ascii, os, psutil\n'
            'from nova_imagecache.cache import sightings\n'
            'sightings.birth = lambda file, now: 0.0\n'
            'os.setgroups([])\n'
            f'os.setresgid(*[{nodes.NOBODY}] * 3)\n'
            f'os.setresuid(*[{nodes.NOBODY}] * 3)\n'
        )
        self.name = self.node.add_image('used', age=OLD)
        self.disk = self.node.add_overlay(GUEST, self.name)
        for path, _directories, files in os.walk(self.node.layout.instances):
            for each in [path, *(os.path.join(path, file) for file in files)]:
                os.chown(each, nodes.NOBODY, nodes.NOBODY)
        # As they are on a node: of QEMU, of root and of QEMU.
        for each, mode in (
            (self.disk, 0o600),
            (os.path.dirname(self.disk), 0o700),
            (self.node.base_path(self.name), 0o644),
        ):
            os.chown(each, 0, 0)
            os.chmod(each, mode)
        self.asked: list[str] = []

    def read(self, path: str, offset: int, length: int) -> bytes:
        self.asked.append('read')
        with open(path, 'rb') as file:
            return os.pread(file.fileno(), length, offset)

    def touch(self, path: str) -> None:
        self.asked.append('touch')
        os.utime(path, follow_symlinks=False)

    def list(self, path: str) -> Any:
        self.asked.append('list')
        for name in (os.curdir, *os.listdir(path)):
            found = os.lstat(os.path.join(path, name))
            yield host.Listed(
                name,
                found.st_mode,
                found.st_ino,
                found.st_dev,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )

    def list_eagerly(self, path: str) -> tuple[host.Listed, ...]:
        return tuple(self.list(path))

    def lent(self, **changes: Any) -> host.Host:
        values = {
            'read_as_root': self.read,
            'touch_as_root': self.touch,
            'list_as_root': self.list_eagerly,
        }
        return host.Host(**(values | changes))

    def test_the_host_does_what_the_process_may_not(self) -> None:
        before = os.stat(self.node.base_path(self.name)).st_mtime
        report = self.manager(self.lent()).update(None, [])
        self.assertEqual((), report.vetoes)
        self.assertEqual((GUEST,), self.file_of(report, self.name).users)
        self.assertEqual({'read', 'touch', 'list'}, {*self.asked})
        after = os.stat(self.node.base_path(self.name))
        self.assertLess(before, after.st_mtime)
        self.assertEqual(0, after.st_uid)

    def test_any_iterable_does_for_a_list(self) -> None:
        report = self.manager(self.lent(list_as_root=self.list)).update(
            None, []
        )
        self.assertEqual((GUEST,), self.file_of(report, self.name).users)

    def test_a_host_that_lends_nothing_is_not_asked(self) -> None:
        report = self.manager().update(None, [])
        self.assertIn('Permission denied', report.vetoes[0])
        self.assertNotIn('as root', report.vetoes[0])
        self.assertIn(self.name, self.node.files())

    def test_what_fails_in_the_host_is_told_in_its_words(self) -> None:
        def read(path: str, offset: int, length: int) -> bytes:
            raise RuntimeError('no daemon today')

        report = self.manager(self.lent(read_as_root=read)).update(None, [])
        self.assertIn('no daemon today', report.vetoes[0])
        self.assertIn(self.name, self.node.files())

    def test_what_hangs_in_the_host_keeps_no_pass(self) -> None:
        over = threading.Event()
        self.addCleanup(over.set)

        def read(path: str, offset: int, length: int) -> bytes:
            over.wait()
            return b''

        self.in_child(
            parent._PROGRAM[2].replace('child.main()', '')
            + 'child._PATIENCE_SECONDS = 0.2\n'
        )
        self.node.add_overlay('other', self.name)
        report = self.manager(self.lent(read_as_root=read)).update(None, [])
        self.assertIn('has not answered', report.vetoes[0])
        self.assertIn('other', self.file_of(report, self.name).users)

    def test_what_hangs_there_takes_one_thread_and_not_one_for_each_pass(
        self,
    ) -> None:
        over = threading.Event()
        self.addCleanup(over.set)

        def read(path: str, offset: int, length: int) -> bytes:
            found = self.read(path, offset, length)
            over.wait()
            return found

        self.in_child(
            parent._PROGRAM[2].replace('child.main()', '')
            + 'child._PATIENCE_SECONDS = 0.2\n'
        )
        manager = self.manager(self.lent(read_as_root=read))
        for _pass in range(2):
            report = manager.update(None, [])
            self.assertIn('has not answered', report.vetoes[0])
        self.assertEqual(1, self.asked.count('read'))
        over.set()
        assert manager._apart is not None
        calls = manager._apart._calls
        self.assertTrue(processes.wait_for(lambda: not calls._open))
        report = manager.update(None, [])
        self.assertEqual((), report.vetoes)


class LibvirtTest(ApartTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.values['witnesses'] = ['overlays', 'libvirt']
        self.name = self.node.add_image('old', age=OLD)

    def test_a_libvirt_that_fails_is_a_veto_in_its_words(self) -> None:
        def connect() -> None:
            raise RuntimeError('no libvirt\ntoday')

        report = self.manager(host.Host(connect=connect)).update(None, None)
        self.assertIn('no libvirt today', report.vetoes[0])
        self.assertIn(self.name, self.node.files())


class BadTest(ApartTestCase):
    """What is bad is set aside by a process of its own, too."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image', age=OLD)
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.run()
        then = time.time() - OLD
        os.utime(self.node.base_path(self.name), (then, then))

    def test_it_goes_to_the_trash(self) -> None:
        self.assertIsNone(self.manager().set_aside(self.name))
        self.assertEqual({self.name}, self.node.trash())

    def test_what_somebody_uses_stays_and_it_is_said_why(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        reason = self.manager().set_aside(self.name)
        self.assertIn('used by 1 guest', str(reason))
        self.assertIn(self.name, self.node.files())

    def test_no_disk_is_looked_at_in_the_host(self) -> None:
        self.patch(pipeline.Pass, 'set_aside', lambda *args: self.fail('here'))
        self.assertIsNone(self.manager().set_aside(self.name))

    def test_it_stays_where_the_process_fails(self) -> None:
        self.in_child('import os\nos._exit(3)')
        reason = self.manager().set_aside(self.name)
        self.assertIn('status 3', str(reason))
        self.assertIn(self.name, self.node.files())

    def test_a_problem_is_a_reason_like_any_other(self) -> None:
        os.unlink(self.node.base_path(self.name))
        self.in_child(_SKEWED)
        reason = self.manager().set_aside(self.name)
        self.assertIn('storage', str(reason))

    def test_stopped_with_the_service_it_ends(self) -> None:
        self.block()
        manager = self.manager()
        reasons: list[str | None] = []
        thread = threading.Thread(
            target=lambda: reasons.append(manager.set_aside(self.name))
        )
        thread.start()
        self.blocked()
        manager.stop()
        thread.join()
        self.assertIn('with this service', str(reasons[0]))
        self.assertIn(self.name, self.node.files())

    def test_it_takes_no_longer_than_a_build_may_wait(self) -> None:
        self.patch(parent, '_ASIDE_SECONDS', 0.5)
        self.block()
        reason = self.manager().set_aside(self.name)
        self.assertIn('longer than 0.5 s', str(reason))
        self.assertIn(self.name, self.node.files())

    def test_there_is_one_at_a_time(self) -> None:
        manager = self.manager()
        self.block()
        thread = threading.Thread(target=manager.set_aside, args=[self.name])
        thread.start()
        self.blocked()
        self.patch(parent, '_ASIDE_SECONDS', 0.1)
        reason = manager.set_aside(self.name)
        self.assertIn('another file is being set aside', str(reason))
        # One process of this one, and it is blocked.
        self.blocked()
        manager.stop()
        thread.join()
        self.patch(parent, '_ASIDE_SECONDS', 60)
        self.let_go_on()
        self.assertIsNone(manager.set_aside(self.name))

    def test_while_its_process_cannot_be_ended_there_is_no_other(self) -> None:
        self.patch(parent, '_ASIDE_SECONDS', 0.5)
        self.patch(parent, '_END_SECONDS', 0.1)
        self.patch(children, '_GONE_SECONDS', 0.1)
        manager = self.manager()
        self.in_child('import time\ntime.sleep(100)')
        # As one that hangs in the kernel, and does not see that it is to end.
        with base.patched(os, 'killpg', lambda pid, number: None):
            manager.set_aside(self.name)
            reason = manager.set_aside(self.name)
        self.assertIn('hangs', str(reason))
        (child,) = psutil.Process().children()
        child.kill()
        child.wait()
        self.patch(parent, '_ASIDE_SECONDS', 60)
        self.in_child('')
        self.assertIsNone(manager.set_aside(self.name))

    def test_a_pass_that_is_at_work_does_not_keep_it(self) -> None:
        manager = self.manager()
        assert manager._apart is not None
        with manager._apart._turn:
            self.assertIsNone(manager.set_aside(self.name))


class ProcessTest(ApartTestCase):
    def test_nothing_of_the_pass_happens_in_the_host(self) -> None:
        used = self.node.add_image('used', age=OLD)
        self.node.add_image('unused', age=OLD)
        self.node.add_overlay(GUEST, used)
        manager = self.manager(checksum_base_images=True)
        touched: list[Any] = []
        listening = threading.Event()
        inside = self.node.layout.instances

        def hook_(event: str, arguments: tuple[Any, ...]) -> None:
            if listening.is_set() and any(
                isinstance(each, str) and each.startswith(inside)
                for each in arguments
            ):
                touched.append((event, arguments))

        sys.addaudithook(hook_)
        listening.set()
        try:
            report = manager.update(None, [])
        finally:
            listening.clear()
        self.assertEqual(1, len(report.removed))
        self.assertEqual([], touched)

    def test_to_begin_waits_for_nothing_of_the_pass(self) -> None:
        self.block()
        unused = self.node.add_image('unused', age=OLD)
        manager = self.manager()
        self.assertTrue(manager.begin(None, []))
        self.blocked()
        self.assertIsNone(manager.wait(0))
        self.assertIn(unused, self.node.files())
        self.let_go_on()
        report = manager.wait()
        assert report is not None
        self.assertEqual([unused], [file.name for file in report.removed])

    def test_while_one_is_at_work_no_other_one_is_begun(self) -> None:
        self.block()
        manager = self.manager()
        manager.begin(None, [])
        process = self.blocked()

        def never() -> Any:
            self.fail('the instances are asked for')
            yield

        self.assertFalse(manager.begin(None, never()))
        self.assertIn('still at work', self.problem(manager.update(None, [])))
        self.assertTrue(process.is_running())
        self.let_go_on()
        report = manager.wait()
        assert report is not None
        self.assertEqual((), report.problems)
        self.assertTrue(manager.begin(None, []))

    def test_one_that_is_killed_is_a_problem_and_the_next_is_well(
        self,
    ) -> None:
        self.block()
        unused = self.node.add_image('unused', age=OLD)
        manager = self.manager()
        manager.begin(None, [])
        self.blocked().kill()
        problem = self.problem(manager.wait())
        self.assertIn('ended by SIGKILL', problem)
        self.assertIn('no memory', problem)
        self.assertIn(unused, self.node.files())
        self.let_go_on()
        report = manager.update(None, [])
        self.assertEqual((), report.problems)
        self.assertEqual([unused], [file.name for file in report.removed])

    def test_stopped_it_ends_and_leaves_no_zombie(self) -> None:
        self.block()
        manager = self.manager()
        manager.begin(None, [])
        process = self.blocked()
        manager.stop()
        self.assertIn('with this service', self.problem(manager.wait()))
        self.assertFalse(psutil.pid_exists(process.pid))

    def parent(self, end: str = '') -> tuple[psutil.Process, str]:
        """Have a host begin a pass and be killed."""
        self.block()
        done = subprocess.run(
            [
                *(sys.executable, '-c', _PARENT.format(end=end)),
                *map(json.dumps, (parent._PROGRAM, self.at, self.values)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(-signal.SIGKILL, done.returncode)
        with open(self.at) as file:
            pid = int(file.read())
        try:
            return psutil.Process(pid), done.stdout
        except psutil.NoSuchProcess:
            return psutil.Process(), done.stdout

    def assert_ends(self, process: psutil.Process) -> None:
        if process.pid != os.getpid():
            self.assertTrue(
                processes.wait_for(
                    lambda: (
                        not process.is_running()
                        or process.status() == psutil.STATUS_ZOMBIE
                    )
                )
            )

    def test_it_ends_with_its_host_however_that_ends(self) -> None:
        process, _output = self.parent()
        self.assert_ends(process)

    def test_what_the_host_has_forked_keeps_it_from_nothing(self) -> None:
        process, output = self.parent(_FORK)
        forked = psutil.Process(int(output))
        self.addCleanup(forked.kill)
        self.assert_ends(process)
        self.assertTrue(forked.is_running())

    def test_a_pass_that_fails_is_a_line_in_the_log(self) -> None:
        self.in_child(
            'from nova_imagecache.passes import pipeline\n'
            'pipeline.Pass.run = lambda one: 1 / 0\n'
        )
        problem = self.problem(self.manager().update(None, []))
        self.assertIn('ZeroDivisionError: division by zero', problem)

    def test_one_that_does_not_come_up_is_a_line_in_the_log(self) -> None:
        self.patch(parent, '_PROGRAM', ('-c', 'raise SystemExit(3)'))
        problem = self.problem(self.manager().update(None, []))
        self.assertIn('status 3', problem)

    def test_what_is_no_pass_at_all_is_a_line_in_the_log(self) -> None:
        for said in (r'\0\0\0\2{}', r'\xff\xff\xff\xff', r'\0\0\1\0cut'):
            self.patch(
                parent,
                '_PROGRAM',
                ('-c', f"import os; os.write(0, b'{said}')"),
            )
            problem = self.problem(self.manager().update(None, []))
            self.assertIn('cannot be understood', problem)

    def test_one_of_another_release_says_to_restart_the_service(self) -> None:
        self.in_child(
            'import dataclasses\n'
            'from nova_imagecache.scrub import pipe\n'
            'pipe.Settings = dataclasses.make_dataclass(\n'
            "    'Settings', ['something_new'])\n"
        )
        problem = self.problem(self.manager().update(None, []))
        self.assertIn('restart this service', problem)

    def test_without_a_python_it_is_a_line_in_the_log(self) -> None:
        self.patch(sys, 'executable', '')
        self.assertIn(
            'does not know its path',
            self.problem(self.manager().update(None, [])),
        )

    def test_without_memory_for_it_it_is_a_line_in_the_log(self) -> None:
        def fail(*_args: Any, **_kwargs: Any) -> Any:
            raise OSError(12, os.strerror(12))

        self.patch(subprocess, 'Popen', fail)
        before = len(os.listdir('/proc/self/fd'))
        for _pass in range(3):
            self.assertIn(
                'Cannot allocate memory',
                self.problem(self.manager().update(None, [])),
            )
        self.assertEqual(before, len(os.listdir('/proc/self/fd')))

    def test_no_descriptor_is_left_when_passes_are_over(self) -> None:
        manager = self.manager()
        manager.update(None, [])
        before = len(os.listdir('/proc/self/fd'))
        for _pass in range(2):
            manager.update(None, [])
        self.assertEqual(before, len(os.listdir('/proc/self/fd')))

    def test_the_process_has_nothing_of_the_service(self) -> None:
        self.block()
        ours = os.path.join(self.temporary, 'ours')
        os.environ['NOTIFY_SOCKET'] = '/run/notify'
        self.addCleanup(os.environ.pop, 'NOTIFY_SOCKET')
        with open(ours, 'w'):
            self.manager().begin(None, [])
            process = self.blocked()
            paths = [file.path for file in process.open_files()]
            self.assertNotIn(ours, paths)
            self.assertNotIn('NOTIFY_SOCKET', process.environ())
            self.assertEqual('/', process.cwd())
            self.assertTrue(
                stat.S_ISCHR(os.stat(f'/proc/{process.pid}/fd/0').st_mode)
            )
        self.let_go_on()
