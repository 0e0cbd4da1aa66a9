# SPDX-License-Identifier: Apache-2.0

"""Damage is remembered after its end, with those whom it has hit."""

import json
import os
from typing import Any

from nova_imagecache.cache import locks
from nova_imagecache.content import incidents
from tests.support import nodes
from tests.support import shell

READER = '11111111-aaaa-4aaa-8aaa-000000000001'
NEWER = b'{"kind": "incidents", "version": 99, "sha256": "", "sealed": {}}\n'
COPIER = '22222222-bbbb-4bbb-8bbb-000000000002'


class IncidentsTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image')
        self.node.add_overlay(READER, self.name)
        disk = self.node.add_overlay(COPIER, self.name)
        nodes.qemu_io(disk, 'write 0 512')
        for _time in range(2):
            self.run_command('verify')
        self.assertFalse(os.path.exists(self.node.layout.incidents))

    def damage(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('verify')

    def known(self) -> tuple[incidents.Incident, ...]:
        return incidents.load(self.node.layout).incidents

    def explained(self, what: str) -> Any:
        _code, stdout, stderr = self.run_command('explain', what, '-f', 'json')
        self.assertEqual('', stderr)
        return json.loads(stdout)

    def test_what_was_found_and_when_it_was_good_last(self) -> None:
        self.damage()
        (one,) = self.known()
        self.assertEqual(
            (1, self.name, 'corrupt', ((0, 65536),)),
            (one.number, one.name, one.verdict, one.ranges),
        )
        self.assertEqual((READER, COPIER), one.guests)
        assert one.last_good is not None
        self.assertLessEqual(one.last_good, one.found)
        self.assertIsNone(one.ended)

    def test_who_had_copied_it_stays_listed_when_the_file_is_good(
        self,
    ) -> None:
        self.damage()
        self.damage()
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.GOOD, one.outcome)
        self.assertEqual((COPIER,), one.copied_up)
        self.assertEqual(0, self.run_command('status')[0])
        self.assertEqual(
            [COPIER], self.explained('1')['incident']['copied_up']
        )

    def test_a_repair_that_says_so_is_noted_as_one(self) -> None:
        self.damage()
        incidents.healed(
            self.node.layout, self.name, ((0, 65536),), (COPIER,), 5e9
        )
        (one,) = self.known()
        self.assertEqual(
            (incidents.Outcome.HEALED, 5e9), (one.outcome, one.ended)
        )
        _code, stdout, _stderr = self.run_command('explain', '1')
        self.assertIn('check the guests that had copied it', stdout)

    def test_a_repair_of_what_nobody_has_noted_is_one_as_well(self) -> None:
        incidents.healed(
            self.node.layout, self.name, ((0, 9),), (COPIER,), 5e9
        )
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.HEALED, one.outcome)
        self.assertEqual(((0, 9),), one.ranges)

    def test_one_that_went_is_explained_by_its_name_all_the_same(self) -> None:
        self.damage()
        os.unlink(self.node.base_path(self.name))
        self.run_command('pass', '--no-verify')
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.GONE, one.outcome)
        self.assertEqual(
            1, self.explained(self.name[:8])['incident']['number']
        )

    def test_a_pass_notes_what_a_scrub_has_found(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('scrub', '--bandwidth', '0')
        self.run_command('pass', '--no-verify')
        (one,) = self.known()
        self.assertEqual((READER, COPIER), one.guests)

    def test_to_look_notes_nothing(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('scrub', '--bandwidth', '0')
        before = {*os.listdir(self.node.layout.own)}
        for argv in (['status'], ['list'], ['explain', self.name]):
            self.assertEqual(3, self.run_command(*argv)[0], argv[0])
        self.assertEqual(before, {*os.listdir(self.node.layout.own)})

    def test_a_pass_without_news_writes_nothing(self) -> None:
        self.damage()
        before = os.stat(self.node.layout.incidents)
        self.run_command('pass', '--no-verify')
        after = os.stat(self.node.layout.incidents)
        self.assertEqual(before.st_ino, after.st_ino)

    def test_a_record_that_is_garbage_stops_nothing_and_is_told(self) -> None:
        with open(self.node.layout.incidents, 'wb') as file:
            file.write(b'\xff' * 100)
        nodes.flip_bit(self.node.base_path(self.name))
        code, _stdout, stderr = self.run_command('verify')
        self.assertEqual(3, code)
        self.assertIn('[N10] The record ', stderr)
        self.assertIn('[C01] ', stderr)
        self.assertEqual(1, len(self.known()))

    def test_one_of_a_newer_release_is_left_alone_and_told(self) -> None:
        with open(self.node.layout.incidents, 'wb') as file:
            file.write(NEWER)
        self.damage()
        with open(self.node.layout.incidents, 'rb') as file:
            self.assertIn(b'"version": 99', file.read())
        code, stdout, _stderr = self.run_command('status')
        self.assertEqual(3, code)
        self.assertIn('P16', stdout)

    def test_a_lock_that_is_held_is_no_reason_to_fail(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name))
        with locks.manager_lock(self.node.layout, 'incidents'):
            self.patch(incidents, '_PATIENCE_SECONDS', 0)
            code, _stdout, stderr = self.run_command('verify')
        self.assertEqual(3, code)
        self.assertIn('[P13] Incidents cannot be noted', stderr)
        self.run_command('pass', '--no-verify')
        self.assertEqual(1, len(self.known()))
