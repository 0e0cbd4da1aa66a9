# SPDX-License-Identifier: Apache-2.0

"""A person who waits hears for whom, and others see what is read."""

import json
import os
from typing import Any

from nova_imagecache.cli import config
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import turns
from tests.support import base
from tests.support import processes
from tests.support import shell


class TurnsTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = self.node.layout
        self.name = self.node.add_image('image')
        self.run_command('pass', '--no-verify')
        self.settings = config.load([self.nova_conf])

    def status(self) -> tuple[Any, str]:
        """Give what JSON has of a reading, and what the screen has."""
        _code, stdout, _stderr = self.run_command('status', '-f', 'json')
        _code, screen, _stderr = self.run_command('status')
        return json.loads(stdout)['reading'], screen

    def test_verify_says_at_once_for_whom_it_waits(self) -> None:
        now = self.node.clock()
        activities.save(
            self.layout,
            activities.Activity('node-18', now, now, current=self.name),
        )
        self.useFixture(processes.OtherScrub(self.layout.instances))
        self.patch(turns, '_PATIENCE_SECONDS', 0)
        code, _stdout, stderr = self.run_command('verify')
        self.assertEqual(1, code)
        first = stderr.splitlines()[0]
        self.assertIn('[N24] ', first)
        self.assertIn('the scrub of host node-18', first)
        self.assertIn(self.name, first)

    def test_who_waits_for_nobody_says_nothing(self) -> None:
        code, _stdout, stderr = self.run_command('verify')
        self.assertEqual((0, ''), (code, stderr))

    def test_status_has_what_is_read_now(self) -> None:
        with turns.urgent(self.settings, 'verify') as turn:
            turn.expect(2**30)
            turn.at(self.name)
            self.patch(turns, '_NOTE_SECONDS', 0)
            turn.passed(2**29)
            found, screen = self.status()
        self.assertEqual(
            ('verify', self.settings.host, self.name, 2**29, 2**30),
            tuple(
                found[key]
                for key in ('command', 'host', 'current', 'passed', 'size')
            ),
        )
        self.assertIn(f'verify on {self.settings.host} for 0 s, at ', screen)
        self.assertIn('512.0 MiB of 1.0 GiB', ' '.join(screen.split()))

    def test_afterwards_there_is_nothing(self) -> None:
        with turns.urgent(self.settings, 'verify'):
            pass
        found, screen = self.status()
        self.assertIsNone(found)
        self.assertNotIn('Reading', screen)
        self.assertFalse(os.path.exists(self.layout.reading))

    def test_one_that_was_killed_is_not_taken_for_a_later_scrub(self) -> None:
        now = self.node.clock()
        reading = turns.Reading('verify', 'a-host', now, now)
        turns.Turn(self.layout, reading, self.node.clock)
        self.assertIsNone(self.status()[0])
        self.useFixture(processes.OtherScrub(self.layout.instances))
        self.assertIsNotNone(self.status()[0])
        self.node.clock.advance(base.HOUR)
        later = self.node.clock()
        activities.save(
            self.layout, activities.Activity('a-host', later, later)
        )
        self.assertIsNone(self.status()[0])

    def test_a_verification_of_another_host_is_named_too(self) -> None:
        now = self.node.clock()
        reading = turns.Reading('repair', 'node-18', now, now, self.name)
        turns.Turn(self.layout, reading, self.node.clock)
        self.useFixture(processes.OtherScrub(self.layout.instances))
        self.patch(turns, '_PATIENCE_SECONDS', 0)
        _code, _stdout, stderr = self.run_command('verify')
        self.assertIn('repair of host node-18 is at', stderr)
