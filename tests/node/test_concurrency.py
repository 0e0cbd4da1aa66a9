# SPDX-License-Identifier: Apache-2.0

"""Many processes on one cache, some of which are killed at any moment."""

import collections
import contextlib
import fcntl
import multiprocessing.process
import os
import random
import shutil
import time

from nova_imagecache.cache import registry
from nova_imagecache.cache import trash
from nova_imagecache import clocks
from nova_imagecache.passes import pipeline
from nova_imagecache.witnesses import instances
from tests.support import base
from tests.support import busy_cache
from tests.support import nodes

#: Seconds for which they are busy.
DURATION = float(os.environ.get('NOVA_IMAGECACHE_TEST_SECONDS', '60'))

# By what they do; managers are two hosts.
_SLOTS = (
    'manage-first', 'manage-second', 'spawn-fast', 'spawn-qemu-img', 'mount',
    'run', 'scrub',
)  # fmt: skip

_DEADLINE = 120.0
_KILL_SECONDS = 1.5

# Each a fork of a process that has imported everything and done nothing:
# importing takes longer than many of them live.
_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload([busy_cache.__name__])


class ConcurrencyTest(nodes.FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.place = busy_cache.Place(
            os.path.join(self.temporary, 'place'), clocks.now().boottime
        )
        self.layout = self.place.layout
        for path in (
            self.layout.base, self.place.guests, self.place.notes,
        ):  # fmt: skip
            os.makedirs(path)
        # They share all disks, as Nova has it.
        for slot in _SLOTS:
            registry.register(self.layout, slot, self.place.clock().wall)
        self.prepare_overlays()
        self.random = random.Random(4)
        self.started = 0
        self.workers: dict[str, multiprocessing.process.BaseProcess] = {}
        self.addCleanup(self.kill_all)

    def prepare_overlays(self) -> None:
        for name, data in busy_cache.CONTENT.items():
            path = os.path.join(self.temporary, name)
            with open(path, 'wb') as file:
                file.write(data)
            disk = os.path.join(self.place.path, name)
            backing = self.layout.file(name)
            for command in (
                ('create', '-f', 'qcow2', '-b', path, '-F', 'raw', disk),
                ('rebase', '-u', '-b', backing, '-F', 'raw', disk),
            ):
                nodes.qemu_img(*command)

    def start(self, slot: str) -> None:
        self.started += 1
        process = _context.Process(
            target=busy_cache.work, args=(self.place, slot, self.started)
        )
        process.start()
        self.workers[slot] = process

    def kill_all(self) -> None:
        for process in self.workers.values():
            process.kill()
            process.join()

    def notes(self) -> collections.Counter[str]:
        """Count what all of them have done."""
        counts: collections.Counter[str] = collections.Counter()
        for name in os.listdir(self.place.notes):
            with open(os.path.join(self.place.notes, name)) as file:
                counts.update(file.read().splitlines())
        return counts

    def check_guests(self) -> int:
        """Make sure that each guest there is has what it needs."""
        checked = 0
        for guest in os.listdir(self.place.guests):
            path = os.path.join(self.place.guests, guest)
            with contextlib.suppress(FileNotFoundError):
                if guest.endswith('.new'):
                    continue
                name = busy_cache.read(path).decode()
                try:
                    busy_cache.check_base(self.layout, name)
                except busy_cache.Fault:
                    # Unless it was deleted just now.
                    os.stat(path)
                    raise
                checked += 1
        return checked

    def check_workers(self) -> None:
        for slot, process in self.workers.items():
            self.assertIsNone(process.exitcode, self.faults(slot))

    def faults(self, slot: str = '') -> str:
        return '\n'.join(
            f'{slot} {note}' for note in self.notes() if 'fault:' in note
        )

    def kill_one(self) -> None:
        """Kill a process at whatever it is, and start another."""
        slot = self.random.choice(_SLOTS)
        process = self.workers[slot]
        process.kill()
        process.join()
        self.start(slot)

    def assert_locks_free(self) -> None:
        for directory in (self.layout.locks, self.layout.own_locks):
            for name in os.listdir(directory):
                with open(os.path.join(directory, name), 'a') as file:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def make_pass(self, host: str, later: float = 0) -> None:
        report = pipeline.Pass(
            self.place.settings(host),
            [instances.InstanceWitness([], host=host)],
            lambda: self.place.clock(later),
        ).run()
        self.assertEqual(((), ()), (report.problems, report.vetoes))

    def test_nothing_is_lost_and_nobody_waits_for_ever(self) -> None:
        for slot in _SLOTS:
            self.start(slot)
        end = time.monotonic() + DURATION
        kill = time.monotonic() + 5
        checked = kills = 0
        while time.monotonic() < end:
            checked += self.check_guests()
            self.check_workers()
            if time.monotonic() > kill:
                self.kill_one()
                kills += 1
                kill = time.monotonic() + _KILL_SECONDS
            time.sleep(0.05)
        with open(self.place.stop, 'w'):
            pass
        deadline = time.monotonic() + _DEADLINE
        for slot, process in self.workers.items():
            process.join(max(0.0, deadline - time.monotonic()))
            self.assertEqual(0, process.exitcode, f'{slot} {self.faults()}')
        self.assertGreater(kills, 0)
        self.assert_nothing_wrong(checked)
        self.assert_locks_free()
        self.assert_it_converges()

    def assert_nothing_wrong(self, checked: int) -> None:
        notes = self.notes()
        self.assertEqual('', self.faults())
        # Of a pass that removes nothing, as it was held up all the time.
        too_fast = ': it changes faster than it is read'
        self.assertEqual(
            [],
            [
                note
                for note in notes
                if 'problem:' in note and not note.endswith(too_fast)
            ],
        )
        self.assertGreater(checked, 0)
        for what in (
            'passed', 'removed', 'deleted', 'put back', 'put back by a pass',
            'fetched', 'recovered', 'spawned', 'ran', 'scrubbed',
        ):  # fmt: skip
            self.assertGreater(notes[what], 0, what)

    def assert_it_converges(self) -> None:
        """Make the passes after; what is left is what guests need."""
        for host in ('manage-first', 'manage-second'):
            self.make_pass(host)
        self.check_guests()
        for name in os.listdir(self.place.instances):
            if name.startswith(('spawn', 'mount')):
                shutil.rmtree(os.path.join(self.place.instances, name))
        # To the trash, and then away; what is known of one that went without
        # it is kept for a day.
        for hours in (1, 2, 3, 27, 54):
            for host in ('manage-first', 'manage-second'):
                self.make_pass(host, hours * base.HOUR)
        self.assertEqual((), trash.scan(self.layout).strays)
        for path in (
            self.layout.trash, self.layout.ledgers, self.layout.temporary,
        ):  # fmt: skip
            self.assertEqual([], os.listdir(path), path)
        self.assertEqual(['.imagecache'], os.listdir(self.layout.base))
