# SPDX-License-Identifier: Apache-2.0

"""Damage is remembered after its end, with those whom it has hit."""

import dataclasses
import json
import os
from typing import Any

import ddt
import fixtures
import msgspec

from nova_imagecache.cache import identity
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cli import config
from nova_imagecache.cli import telling
from nova_imagecache.content import incidents
from nova_imagecache import names
from tests.support import nodes
from tests.support import shell

READER = '11111111-aaaa-4aaa-8aaa-000000000001'
NEWER = b'{"kind": "incidents", "version": 99, "sha256": "", "sealed": {}}\n'
COPIER = '22222222-bbbb-4bbb-8bbb-000000000002'


@ddt.ddt
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

    def scrub(self) -> str:
        """Find damage without any pass; give what was logged."""
        nodes.flip_bit(self.node.base_path(self.name))
        _code, _stdout, stderr = self.run_command('scrub', '--bandwidth', '0')
        return stderr

    def test_a_scrub_notes_what_it_finds_at_once(self) -> None:
        self.scrub()
        (one,) = self.known()
        self.assertEqual(('corrupt', ((0, 65536),)), (one.verdict, one.ranges))
        self.assertEqual((READER, COPIER), one.guests)
        self.assertEqual((COPIER,), one.copied_up)
        assert one.last_good is not None
        self.assertLessEqual(one.last_good, one.found)

    def test_who_compares_with_evidence_notes_it_too(self) -> None:
        path = self.node.base_path(self.name)
        with open(f'{path}.sha1') as file:
            sha1 = file.read()
        nodes.flip_bit(path)
        self.assertEqual(
            3, self.run_command('confirm', self.name, '--sha1', sha1)[0]
        )
        (one,) = self.known()
        self.assertEqual('corrupt', one.verdict)
        self.assertEqual((READER, COPIER), one.guests)
        self.assertIsNotNone(one.last_good)

    def test_the_pass_after_it_finds_nothing_new(self) -> None:
        self.scrub()
        before = self.known()
        self.run_command('pass', '--no-verify')
        self.assertEqual(before, self.known())

    def test_a_scrub_says_whom_damage_hits_while_it_is_at_work(self) -> None:
        """Others are told in a minute, or when it ends."""
        now = [0.0]
        told = telling.Telling(
            config.load([self.nova_conf]), monotonic=lambda: now[0]
        )
        self.node.add_overlay(READER, self.node.add_image('other'), 'disk2')
        other = names.get_cache_fname('other')
        self.run_command('verify')
        for name in (self.name, other):
            nodes.flip_bit(self.node.base_path(name))
        self.run_command('pass', '--no-verify')
        for name in (self.name, other):
            self.shell('--config-file', self.nova_conf, 'verify', name)
        logger = self.useFixture(fixtures.FakeLogger())
        told.add(self.name)
        self.assertIn(READER, logger.output)
        self.assertNotIn(other, logger.output)
        told.add(other)
        self.assertNotIn(other, logger.output)
        now[0] = 61.0
        told.add(self.name)
        self.assertIn(other, logger.output)

    def fetch_anew(self) -> None:
        path = self.node.base_path(self.name)
        with open(path, 'rb') as file:
            good = file.read()
        self.damage()
        with open(f'{path}.part', 'wb') as file:
            file.write(good)
        os.rename(f'{path}.part', path)
        self.run_command('pass', '--no-verify')
        self.assertIsNone(self.known()[0].ended)

    def without_birth_times(self) -> None:
        # Mocked: such a file system takes a server.
        self.patch(identity, '_STATX_BTIME', 0)
        self.patch(identity, '_generation', lambda fd: None)

    @ddt.data('verify', 'scrub')
    def test_a_file_that_was_fetched_anew_and_is_good_ends_it(
        self, command: str
    ) -> None:
        if identity.stat_of(self.temporary).incarnation.key[1] is None:
            self.skipTest('this file system has no birth times')
        self.fetch_anew()
        self.run_command(command)
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.REPLACED, one.outcome)

    @ddt.data('verify', 'scrub')
    def test_where_there_are_no_birth_times_it_is_replaced_all_the_same(
        self, command: str
    ) -> None:
        self.without_birth_times()
        self.fetch_anew()
        self.run_command(command)
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.REPLACED, one.outcome)

    def test_one_that_got_better_by_itself_is_not_said_to_be_another(
        self,
    ) -> None:
        self.without_birth_times()
        self.damage()
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('scrub')
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.GOOD_OR_REPLACED, one.outcome)

    def test_without_birth_times_an_inode_that_is_used_again_tells_nothing(
        self,
    ) -> None:
        self.without_birth_times()
        path = self.node.base_path(self.name)
        with open(path, 'rb') as file:
            good = file.read()
        self.damage()
        # The next file with the number of this one looks the same.
        with open(path, 'wb') as file:
            file.write(good)
        self.run_command('verify')
        (one,) = self.known()
        self.assertEqual(incidents.Outcome.GOOD_OR_REPLACED, one.outcome)
        code, stdout, _stderr = self.run_command('status')
        self.assertEqual(0, code)
        self.assertIn('good-or-replaced', stdout)

    def test_one_of_an_earlier_release_is_still_known(self) -> None:
        self.damage()
        (one,) = self.known()
        fields = msgspec.to_builtins(one)
        old = {
            key: value
            for key, value in fields.items()
            if key not in ('image_name', 'key')
        }
        earlier = records.Format('incidents', 1, dict)
        os.unlink(self.node.layout.incidents)
        earlier.save(
            self.node.layout,
            self.node.layout.incidents,
            {'last': 1, 'incidents': [old]},
        )
        self.assertEqual((dataclasses.replace(one, key=None),), self.known())

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
