# SPDX-License-Identifier: Apache-2.0

"""The screens of ``status`` in the documentation are those of real nodes.

With NOVA_IMAGECACHE_SCREENS=write they are written anew.
"""

import datetime
import json
import os
import random
import shutil
from typing import Any
import uuid

import ddt

from nova_imagecache.cache import image_names
from nova_imagecache.cli import screens
from nova_imagecache.cli import status
from nova_imagecache import clocks
from nova_imagecache.passes import pipeline
from nova_imagecache.witnesses import vetoing
from tests.support import base
from tests.support import fake_witnesses
from tests.support import nodes
from tests.support import shell

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
PAGES = os.path.join(ROOT, 'doc/source/cli/screens')

NOW = datetime.datetime(2026, 11, 28, 3, 12, tzinfo=datetime.UTC).timestamp()
INSTANCES = '/var/lib/nova/instances'
WIDTHS = (80, 200)

REAL = pipeline.Pass


def identifier(what: str) -> str:
    """Give a UUID that is the same in each run."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, what))


@ddt.ddt
class ScreensTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.clock.wall = NOW
        self.titles: dict[str, str] = {}
        self.images: dict[str, str] = {}
        self.vetoes: tuple[vetoing.Veto, ...] = ()
        self.patch(clocks, 'now', self.node.clock)
        self.patch(pipeline, 'Pass', self.make_pass)
        self.configure()

    def make_pass(
        self, settings: Any, _witnesses: Any = (), *args: Any, **kwargs: Any
    ) -> Any:
        witness = fake_witnesses.Looks(
            titles=self.titles, images=self.images, vetoes=self.vetoes
        )
        if not args:
            kwargs = {'clock': self.node.clock, **kwargs}
        return REAL(settings, [witness], *args, **kwargs)

    def configure(self, **values: Any) -> None:
        self.write_conf(
            checksum_base_images='true',
            **{'checksum_interval_seconds': 7 * base.DAY, **values},
        )
        with open(self.nova_conf) as file:
            text = file.read()
        with open(self.nova_conf, 'w') as file:
            file.write(text.replace('[DEFAULT]', '[DEFAULT]\nhost = node-17'))

    def add(self, number: int, guests: int = 0, mib: int = 0) -> str:
        image = identifier(f'image-{number}')
        data = random.Random(number).randbytes(mib * base.MIB) or None
        name = self.node.add_image(image, data=data)
        os.makedirs(self.node.layout.images, exist_ok=True)
        image_names.note(self.node.layout, image, f'debian-13-{number}')
        self.images[name] = image
        for each in range(guests):
            self.add_guest(f'web-{number}-{each}', name)
        return name

    def add_guest(self, title: str, name: str) -> str:
        guest = identifier(title)
        self.node.add_overlay(guest, name)
        self.titles[guest] = title
        return guest

    def verify(self, *wanted: str) -> None:
        for _time in range(2):
            self.run_command('verify', '--bandwidth', '0', *wanted)

    def damage(self, *wanted: str) -> None:
        for name in wanted:
            nodes.flip_bit(self.node.base_path(name))
        self.verify(*wanted)

    def healthy(self) -> None:
        for number in range(3):
            self.add(number, guests=2)
        self.verify()
        self.node.clock.advance(3 * base.HOUR)

    def damaged(self) -> None:
        bad, other = self.add(0, guests=5), self.add(1, guests=1)
        self.add(2, guests=1)
        copied = self.add_guest('db-1', bad)
        path = os.path.join(self.node.layout.instances, copied, 'disk')
        nodes.qemu_io(path, 'write 0 512')
        self.verify()
        self.node.clock.advance(2 * base.HOUR)
        self.damage(bad, other)
        self.node.clock.advance(base.HOUR)
        # One is put right again, and stays remembered.
        nodes.flip_bit(self.node.base_path(other))
        self.verify(other)
        self.node.clock.advance(base.HOUR)

    def full(self) -> None:
        for number in range(4):
            self.add(number, guests=1, mib=4)
        self.verify()
        self.node.clock.advance(base.HOUR)
        self.configure(cache_max_size=10 * base.MIB)

    def blind(self) -> None:
        for number in range(3):
            self.add(number, guests=number % 2)
        self.verify()
        self.node.add_file(
            'backup', 'disk.bad', data=b'QFI\xfb' + b'\xff' * 100
        )
        missing = self.add(3, guests=1)
        os.unlink(self.node.base_path(missing))
        self.vetoes = (
            vetoing.Veto(
                vetoing.Reason.UNANSWERED,
                'libvirt at qemu:///system',
                'no answer within 10 s',
            ),
        )
        self.run_command('pass', '--no-verify')
        self.node.clock.advance(5 * base.HOUR)

    def many(self) -> None:
        found = [self.add(number) for number in range(200)]
        for number in range(0, 200, 4):
            self.add_guest(f'app-{number}', found[number])
        self.verify()
        self.node.clock.advance(base.HOUR)
        self.damage(*found[:50])

    def values(self) -> Any:
        _code, stdout, stderr = self.run_command('status', '-f', 'json')
        self.assertEqual('', stderr)
        return json.loads(
            stdout.replace(self.node.layout.instances, INSTANCES)
        )

    @ddt.data('healthy', 'damaged', 'full', 'blind', 'many')
    def test_the_documentation_has_what_the_program_prints(
        self, kind: str
    ) -> None:
        getattr(self, kind)()
        values = self.values()
        for width in WIDTHS:
            lines = screens.screen(values, width)
            self.assertLessEqual(max(map(len, lines)), width)
            # 3 a.m.: what does not fit on a screen is not seen.
            self.assertLessEqual(len(lines), 50)
            text = '\n'.join(lines) + '\n'
            path = os.path.join(PAGES, f'{kind}-{width}.txt')
            if os.environ.get('NOVA_IMAGECACHE_SCREENS') == 'write':
                os.makedirs(PAGES, exist_ok=True)
                with open(path, 'w') as file:
                    file.write(text)
            with open(path) as file:
                self.assertEqual(file.read(), text, path)

    def test_the_program_prints_that_screen(self) -> None:
        self.damaged()
        _code, stdout, _stderr = self.run_command(
            'status', '--max-width', '100'
        )
        _code, document, _stderr = self.run_command('status', '-f', 'json')
        self.assertEqual(
            screens.screen(json.loads(document), 100), stdout.splitlines()
        )

    def test_the_first_word_and_the_exit_code_agree(self) -> None:
        words = {'healthy': 'OK', 'damaged': 'DAMAGED', 'blind': 'DEGRADED'}
        codes = {'OK': 0, 'DEGRADED': 1, 'DAMAGED': 3}
        for kind, word in words.items():
            shutil.rmtree(self.node.layout.instances)
            os.makedirs(self.node.layout.base)
            self.vetoes = ()
            getattr(self, kind)()
            code, stdout, _stderr = self.run_command('status')
            self.assertTrue(stdout.startswith(f'HEALTH: {word}  '), stdout)
            self.assertEqual(codes[word], code)

    def test_before_anything_was_read_it_does_not_say_that_all_is_well(
        self,
    ) -> None:
        self.add(0)
        code, stdout, _stderr = self.run_command('status')
        self.assertEqual(0, code)
        self.assertTrue(
            stdout.startswith('HEALTH: OK, NOT CHECKED YET  '), stdout
        )

    def test_a_directory_without_a_cache_is_not_well(self) -> None:
        self.add(0)
        code, stdout, _stderr = self.run_command(
            '--instances-path', self.temporary, 'status'
        )
        self.assertEqual(1, code)
        self.assertIn('HEALTH: DEGRADED', stdout)
        self.assertIn('P18', stdout)
        self.assertIn(f'{self.temporary}/_base', stdout)

    def test_each_problem_has_the_page_that_explains_it(self) -> None:
        self.blind()
        _code, stdout, _stderr = self.run_command('status')
        found = [
            each
            for each in self.values()['checks']
            if each['severity'] != 'note'
        ]
        self.assertGreater(len(found), 2)
        lines = [line.strip() for line in stdout.splitlines()]
        for each in found:
            self.assertEqual(1, lines.count(each['doc']), stdout)

    def test_an_action_that_it_names_can_be_typed(self) -> None:
        self.damaged()
        for check in self.values()['checks']:
            program, *argv = check['action'].split()
            self.assertEqual('nova-imagecache', program)
            code, stdout, stderr = self.run_command(*argv)
            self.assertIn(code, (0, 3), stderr)
            self.assertIn('Do: ', stdout)

    def test_it_is_shown_anew_until_it_is_interrupted(self) -> None:
        self.add(0)
        waits = []

        def wait(_stream: Any, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                raise KeyboardInterrupt

        self.patch(status.Status, 'wait', staticmethod(wait))
        code, stdout, _stderr = self.run_command('status', '--watch', '2')
        self.assertEqual((0, [2.0] * 3), (code, waits))
        self.assertEqual(3, stdout.count('HEALTH: '))
