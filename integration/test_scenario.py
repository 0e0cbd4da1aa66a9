# SPDX-License-Identifier: Apache-2.0

"""A base file and its guests, from the first boot to the trash.

One story: each test goes on where the one before it has ended, so the first
failure ends it.
"""

from collections.abc import Iterator
import configparser
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import sys
import time
from typing import Any
import unittest

from integration import cloud as clouds
from integration import node as nodes
from integration import stack as stacks
from integration import system
from nova_imagecache.cache import layouts
from nova_imagecache.cache import states
from nova_imagecache import clocks

_UNITS = pathlib.Path(__file__).parent.parent / 'etc' / 'systemd'

_MIB = 2**20
_SIZE = 96 * _MIB
_PASS_SECONDS = 3
_OLD_SECONDS = 700

# Of a line in the log.
_PREFIX = re.compile(r'^\d{4}-\d\d-\d\d \S+ \d+ [A-Z]+ \S+ (?:\[[^]]*\] )*')

# What the log may say, as there is damage.
_EXPECTED = (
    '[C01] Base file ',
    'is corrupt, and stays: ',
    'used all the same',
    'in the trash, and made anew',
    # On a machine that is busy: the interval is of seconds here.
    'verification is overdue: ',
)


def _age(path: pathlib.Path) -> None:
    """Have a base file look as if nobody had used it for long."""
    old = time.time() - _OLD_SECONDS
    os.utime(path, (old, old))


def _flip_bit(path: pathlib.Path) -> None:
    """Damage a base file as a disk does that decays: it leaves no time."""
    before = path.stat()
    with open(path, 'r+b') as file:
        file.seek(5 * _MIB)
        (byte,) = file.read(1)
        file.seek(5 * _MIB)
        file.write(bytes([byte ^ 1]))
        file.flush()
        os.fsync(file.fileno())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _tracebacks(text: str) -> Iterator[tuple[str, str]]:
    """Give the frames and the exception of each traceback in a log."""
    lines = [_PREFIX.sub('', line) for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if 'Traceback (most recent call last)' in line:
            frames = list(
                itertools.takewhile(
                    lambda each: each.startswith('  '), lines[number:]
                )
            )
            yield '\n'.join(frames), lines[number + len(frames)]


class ScenarioTest(unittest.TestCase):
    stack: stacks.Stack
    cloud: clouds.Cloud
    image: str
    content: bytes
    flavor: str
    guest: str
    base: pathlib.Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.stack = stacks.Stack(os.environ['STACK_DIRECTORY'])
        cls.addClassCleanup(cls.stack.kill)
        cls.cloud = cls.stack.cloud
        cls.stack.start()
        for what, seconds in cls.stack.times.items():
            print(f'{what}: {seconds:.1f} s', file=sys.stderr)

    def setUp(self) -> None:
        self.begin = time.monotonic()

    def tearDown(self) -> None:
        seconds = time.monotonic() - self.begin
        print(f'({seconds:.1f} s)', end=' ', file=sys.stderr)

    # Asking.

    def boot(self, name: str, flavor: str | None = None) -> str:
        return self.cloud.boot(name, self.image, flavor or self.flavor)

    def wait_for_status(self, uuid: str, status: str) -> Any:
        try:
            return self.cloud.wait_for_status(uuid, status)
        except system.Failed as error:
            self.fail(f'{error}\n{self.errors()}')

    def log(self) -> str:
        return self.stack.log('nova-compute')

    def errors(self) -> str:
        return '\n'.join(re.findall(r'.* ERROR .*', self.log())[-40:])

    def wait_for_log(self, text: str, since: int = 0) -> None:
        system.wait_for(
            lambda: text in self.log()[since:], 120, f'the log says: {text}'
        )

    def wait_for_pass(self) -> None:
        """Wait for a pass that begins from now on."""
        since = len(self.log())
        line = f'Image cache {nodes.BASE}: .* in the trash'
        # A pass says it in the end, so the first one may have begun already.
        system.wait_for(
            lambda: len(re.findall(line, self.log()[since:])) > 1,
            120,
            'a pass is made',
        )

    def ours(self, *arguments: str, user: str = nodes.USER) -> tuple[int, Any]:
        """Run our program as the operator does; give code and JSON."""
        done = self.stack.run(
            user, 'nova-imagecache', *arguments, '-f', 'json'
        )
        self.assertNotIn('Traceback', done.stderr)
        return done.returncode, json.loads(done.stdout or 'null')

    def run_unit(self, name: str, user: str) -> None:
        """Run what a unit of systemd runs."""
        unit = configparser.ConfigParser(interpolation=None)
        unit.read(_UNITS / f'{name}.service')
        program, *arguments = shlex.split(unit['Service']['ExecStart'])
        done = self.stack.run(user, os.path.basename(program), *arguments)
        self.assertEqual(0, done.returncode, done.stderr)

    def restart(self, **options: object) -> None:
        self.stop_compute()
        self.stack.start_compute(
            **{'manager_interval': _PASS_SECONDS, 'bandwidth': 0, **options}
        )

    def stop_compute(self) -> None:
        if self.stack.compute.poll() is None:
            self.assertEqual(0, self.stack.stop_compute())

    def forget(self) -> None:
        """Have passes forget when they saw a user."""
        self.stop_compute()
        os.unlink(self.own / 'state')

    def grow_old(self, stop: bool = True) -> None:
        """Have passes take the base file for one of long ago."""
        if stop:
            self.stop_compute()
        _age(self.base)
        now = clocks.now()
        before = dataclasses.replace(
            now,
            wall=now.wall - _OLD_SECONDS,
            boottime=now.boottime - _OLD_SECONDS,
        )
        layout = layouts.Layout.at(str(nodes.INSTANCES), '_base')

        def age(state: states.State) -> states.State:
            name = self.base.name
            old = dataclasses.replace(
                state.files[name], seen=before, last_used=None
            )
            return dataclasses.replace(state, files={**state.files, name: old})

        states.amend(layout, age)
        shutil.chown(layout.state, nodes.USER, nodes.USER)

    def users(self) -> dict[str, set[str]]:
        """Give the users of each file in the cache."""
        return {
            file['name']: set(file['users']) for file in self.ours('list')[1]
        }

    @property
    def own(self) -> pathlib.Path:
        return nodes.BASE / '.imagecache'

    @property
    def sidecar(self) -> pathlib.Path:
        return self.base.with_name(f'{self.base.name}.sha1')

    # The story.

    def test_01_a_node_is_set_up(self) -> None:
        cls = type(self)
        cls.content = os.urandom(_SIZE)
        cls.image = self.cloud.upload(self.content)
        digest = hashlib.sha1(self.image.encode(), usedforsecurity=False)
        cls.base = nodes.BASE / digest.hexdigest()
        cls.flavor = self.cloud.make_flavor('small')
        self.stack.start_compute()
        self.assertEqual(nodes.USER, system.user_of(self.stack.compute.pid))

    def test_02_a_guest_boots_without_a_checksum(self) -> None:
        before = system.bytes_read(self.stack.compute.pid)
        type(self).guest = self.boot('first')
        self.wait_for_status(self.guest, 'ACTIVE')
        # Python reads its modules from files, too.
        read = system.bytes_read(self.stack.compute.pid) - before
        self.assertLess(read, _SIZE // 2, 'the base file was read back')
        self.assertEqual([self.base.name], os.listdir(nodes.BASE))
        self.assertEqual(self.content, self.base.read_bytes())
        self.assertEqual('libvirt-qemu', system.owner(self.base))
        (qemu,) = system.processes('qemu-system-x86_64', self.guest)
        self.assertEqual('libvirt-qemu', system.user_of(qemu))
        helpers = system.processes(
            'privsep-helper', 'nova.privsep.sys_admin_pctxt'
        )
        self.assertIn('root', map(system.user_of, helpers))

    def test_03_passes_keep_a_checksum_and_see_the_guest(self) -> None:
        _age(self.base)
        self.restart(checksum_interval=20)
        system.wait_for(self.sidecar.exists, 120, 'a checksum is there')
        digest = hashlib.sha1(self.content, usedforsecurity=False).hexdigest()
        self.assertIn(digest, self.sidecar.read_text())
        self.assertEqual(nodes.USER, system.owner(self.sidecar))
        self.assertTrue((self.own / 'ledgers' / self.base.name).exists())
        # It is libvirt-qemu's, so Nova's own context has touched it.
        self.assertGreater(self.base.stat().st_mtime, time.time() - 60)
        self.assertEqual({self.base.name: {self.guest}}, self.users())

    def test_04_a_flipped_bit_is_found(self) -> None:
        code, status = self.ours('status')
        self.assertEqual((0, []), (code, status['damaged']))
        since = len(self.log())
        _flip_bit(self.base)
        (damage,) = system.wait_for(
            lambda: self.ours('status')[1]['damaged'],
            120,
            'the damage is found',
        )
        self.assertEqual(self.base.name, damage['name'])
        self.assertEqual(self.image, damage['image'])
        self.assertEqual('corrupt', damage['checksum'])
        self.assertEqual([self.guest], damage['users'])
        self.assertEqual(
            [{'start': 4 * _MIB, 'end': 8 * _MIB, 'damage': 'corrupt'}],
            damage['ranges'],
        )
        (exposure,) = damage['exposures']
        self.assertEqual(self.guest, exposure['guest'])
        text = f'Base file {self.base} (image {self.image}) is corrupt'
        self.wait_for_log(text, since)
        line = self.log()[since:].partition(text)[2].partition('\n')[0]
        self.assertIn(f'Guests that read it: {self.guest}', line)
        self.assertEqual(3, self.ours('verify', self.base.name)[0])

    def test_05_no_new_disk_is_made_of_it(self) -> None:
        before = os.listdir(nodes.INSTANCES)
        second = self.boot('second')
        fault = self.wait_for_status(second, 'ERROR').fault
        self.assertIn('Exhausted all hosts', fault['message'])
        self.wait_for_log(
            f'Base file {self.base.name} of image {self.image} is corrupt, '
            'and stays: used by 1 guest'
        )
        self.assertFalse((nodes.INSTANCES / second / 'disk').exists())
        self.cloud.delete(second)
        self.assertEqual(set(before), set(os.listdir(nodes.INSTANCES)))

    def test_06_the_guest_that_has_it_is_started_again(self) -> None:
        (before,) = system.processes('qemu-system-x86_64', self.guest)
        since = len(self.log())
        self.cloud.reboot_hard(self.guest)
        self.wait_for_status(self.guest, 'ACTIVE')
        (after,) = system.processes('qemu-system-x86_64', self.guest)
        self.assertNotEqual(before, after)
        self.wait_for_log('used all the same', since)

    def test_07_the_base_goes_with_its_last_guest(self) -> None:
        self.cloud.delete(self.guest)
        self.wait_for_pass()
        self.assertTrue(self.base.exists(), 'it is not old enough')
        self.grow_old()
        self.restart()
        system.wait_for(
            lambda: not self.base.exists(), 120, 'the base file goes'
        )
        trash = self.own / 'trash'
        (trashed,) = (
            each
            for each in os.listdir(trash)
            if not each.endswith(('.sha1', '.ledger'))
        )
        self.assertEqual(self.base.name, trashed.partition('.')[0])
        self.wait_for_pass()
        self.assertTrue((trash / trashed).exists(), 'it is not old enough')
        self.assertFalse(self.sidecar.exists())
        self.forget()
        # The name tells since when it is there.
        older = f'{self.base.name}.{int(time.time() - _OLD_SECONDS):08x}'
        for each in os.listdir(trash):
            (trash / each).rename(trash / each.replace(trashed, older))
        self.restart()
        system.wait_for(
            lambda: not os.listdir(trash), 120, 'the trash is emptied'
        )

    def test_08_images_are_fetched_before_they_are_needed(self) -> None:
        aggregate = self.cloud.make_aggregate(nodes.HOST)
        for text in (f'Caching image {self.image} by request',
                     f'Image {self.image} is cached already'):  # fmt: skip
            since = len(self.log())
            self.cloud.precache(aggregate, self.image)
            self.wait_for_log(text, since)
            system.wait_for(self.base.exists, 120, 'it is in the cache')
        self.assertEqual(self.content, self.base.read_bytes())
        self.assertEqual(nodes.USER, system.owner(self.base))

    def test_09_a_bad_base_that_nobody_uses_is_fetched_anew(self) -> None:
        self.restart(manager_interval=-1)
        self.assertEqual(0, self.ours('verify')[0])
        _flip_bit(self.base)
        self.assertEqual(3, self.ours('verify')[0])
        os.unlink(self.own / 'state')
        _age(self.base)
        type(self).guest = self.boot('third')
        self.wait_for_status(self.guest, 'ACTIVE')
        self.wait_for_log('in the trash, and made anew')
        self.assertEqual(self.content, self.base.read_bytes())
        self.assertEqual({self.base.name: {self.guest}}, self.users())

    def test_10_the_scrub_ends_with_nova_compute(self) -> None:
        self.restart(checksum_interval=0, bandwidth=1)
        words = ('nova_imagecache', 'scrub', '--parent')
        scrub = system.wait_for(
            lambda: system.processes(*words), 120, 'a scrub is at work'
        )
        self.assertEqual(
            [nodes.USER], [system.user_of(each) for each in scrub]
        )
        self.stop_compute()
        system.wait_for(
            lambda: not system.processes(*words), 10, 'the scrub has ended'
        )

    def test_11_under_eventlet_it_is_the_same(self) -> None:
        self.restart(concurrency='eventlet')
        large = self.cloud.make_flavor('large', swap=64, ephemeral=1)
        fourth = self.boot('fourth', large)
        self.wait_for_status(fourth, 'ACTIVE')
        self.wait_for_pass()
        users = self.users()
        self.assertEqual({self.guest, fourth}, users.pop(self.base.name))
        self.assertEqual({fourth}, users.pop('swap_64'))
        ((ephemeral, found),) = users.items()
        self.assertEqual('ephemeral_1', ephemeral.rpartition('_')[0])
        self.assertEqual({fourth}, found)
        system.wait_for(self.sidecar.exists, 120, 'a checksum is there')
        self.cloud.delete(fourth)
        self.wait_for_pass()
        self.assertEqual(
            {
                self.base.name: {self.guest},
                'swap_64': set(),
                ephemeral: set(),
            },
            self.users(),
        )
        self.stop_compute()

    def test_12_a_timer_does_it_without_nova_compute(self) -> None:
        self.restart(external_tasks=False)
        since = len(self.log())
        hosts = nodes.INSTANCES / 'compute_nodes'
        hosts.unlink()
        fifth = self.boot('fifth')
        self.wait_for_status(fifth, 'ACTIVE')
        for user in ('root', nodes.USER):
            self.run_unit('nova-imagecache-pass', user)
            self.run_unit('nova-imagecache-scrub', user)
            self.assertEqual({self.guest, fifth}, self.users()[self.base.name])
            self.assertEqual([nodes.HOST], list(json.loads(hosts.read_text())))
        # As root it leaves nothing that nova-compute cannot open.
        for directory, _names, files in os.walk(self.own):
            for each in files:
                path = pathlib.Path(directory, each)
                self.assertEqual(nodes.USER, system.owner(path), path)
        for uuid in (self.guest, fifth):
            self.cloud.delete(uuid)

        self.grow_old(stop=False)
        self.run_unit('nova-imagecache-pass', nodes.USER)
        self.assertFalse(self.base.exists())
        self.assertNotIn('Image cache', self.log()[since:])

    def test_13_nothing_of_ours_went_wrong(self) -> None:
        text = self.log()
        for frames, exception in _tracebacks(text):
            if 'nova_imagecache' in frames:
                self.assertIn('DamagedBaseFile', exception, frames)
        unexpected = [
            line
            for line in text.splitlines()
            if re.search(r' (WARNING|ERROR|CRITICAL) nova_imagecache', line)
            and not any(each in line for each in _EXPECTED)
        ]
        self.assertEqual([], unexpected)
