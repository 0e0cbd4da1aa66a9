# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import json
import os
import types
from typing import Any

import psutil

from nova_imagecache import clocks
from nova_imagecache.passes import pipeline
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import limiters
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import shell

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'

FIELDS = [
    'health', 'host', 'cache_dir', 'checks', 'checksums', 'files', 'bytes',
    'bytes_digested', 'bytes_verified', 'percent_verified',
    'oldest_verification', 'interval', 'overdue_files', 'overdue_bytes',
    'queue_files', 'queue_bytes', 'next', 'rate_needed', 'rate_limit',
    'rate_sufficient', 'scrub', 'reading', 'space', 'vetoes', 'vetoed_for',
    'last_removal_ago', 'vetoed_by', 'problems', 'hosts', 'ignored',
    'suspect', 'outdated', 'damaged', 'incidents', 'names',
]  # fmt: skip


class StatusTest(shell.ShellTestCase):
    def status(self, code: int = 0) -> dict[str, Any]:
        got, stdout, stderr = self.run_command('status', '-f', 'json')
        self.assertEqual(code, got, stderr)
        values: dict[str, Any] = json.loads(stdout)
        return values

    def text(self) -> str:
        return self.run_command('status')[1]

    def test_it_has_exactly_these_fields(self) -> None:
        self.assertEqual(FIELDS, list(self.status()))

    def test_its_table_fits_80_columns_but_for_a_path(self) -> None:
        self.node.add_image('x')
        for _verify in range(2):
            self.run_command('verify')
        file = os.path.join(self.node.layout.instances, 'file')
        self.node.add_file('file', data=b'QFI\xfb' + b'\xff' * 100)
        code, stdout, _stderr = self.run_command('status')
        self.assertEqual(1, code)
        self.assertIn(file, stdout)
        longest = max(map(len, stdout.splitlines()))
        self.assertLessEqual(longest, max(80, len(f'       {file}:')))

    def test_what_could_not_be_done_is_among_them(self) -> None:
        name = self.node.add_image('x')
        self.node.add_overlay(GUEST, name)
        self.node.add_image('y')
        os.unlink(self.node.base_path(name))
        (problem,) = self.status(1)['problems']
        self.assertIn(f'base file {name} is missing', problem)

    def test_it_counts_what_is_verified_and_what_is_to_be_read(self) -> None:
        self.write_conf(checksum_base_images='true', checksum_interval_seconds=
                        7 * base.DAY)  # fmt: skip
        self.node.add_image('x')
        for _verify in range(2):
            self.run_command('verify')
        values = self.status()
        size = 64 * base.KIB
        self.assertEqual(
            (1, size, size, size, 100.0, 0),
            (
                values['files'],
                values['bytes'],
                values['bytes_digested'],
                values['bytes_verified'],
                values['percent_verified'],
                values['queue_files'],
            ),
        )
        self.assertLess(values['oldest_verification'], base.HOUR)
        self.assertIn(str(self.node.layout.base), self.text())
        self.assertEqual([], values['damaged'])

    def test_a_mount_whose_locks_stay_on_the_host_is_told(self) -> None:
        # Mocked: NFS takes a server. The cache is found through a link.
        path = os.path.realpath(self.node.layout.instances)
        partition = types.SimpleNamespace(
            mountpoint=path, fstype='nfs', opts='rw,nolock'
        )
        self.patch(psutil, 'disk_partitions', lambda all: [partition])
        link = os.path.join(self.temporary, 'link')
        os.symlink(self.node.layout.instances, link)
        _code, stdout, _stderr = self.run_command(
            '--instances-path', link, 'status', '-f', 'json'
        )
        (check,) = json.loads(stdout)['checks']
        self.assertEqual(('N03', 'note'), (check['code'], check['severity']))
        self.assertIn(f'{path} is mounted with nolock', check['text'])

    def test_a_host_without_proc_is_no_reason_to_stop(self) -> None:
        # Mocked: a container that hides it.
        def partitions(all: bool) -> Any:
            raise PermissionError

        self.patch(psutil, 'disk_partitions', partitions)
        self.status()

    def test_damage_is_shown_with_ranges_and_guests(self) -> None:
        name = self.node.add_image('x')
        self.node.add_overlay(GUEST, name)
        self.run_command('verify')
        nodes.flip_bit(self.node.base_path(name))
        self.run_command('verify')
        (file,) = self.status(3)['damaged']
        size = 64 * base.KIB
        self.assertEqual(
            (name, 'corrupt', [GUEST]),
            (file['name'], file['checksum'], file['users']),
        )
        self.assertEqual(
            [{'start': 0, 'end': size, 'damage': 'corrupt'}], file['ranges']
        )
        self.assertEqual(
            [
                {
                    'guest': GUEST,
                    'disk': 'disk',
                    'start': 0,
                    'end': size,
                    'effect': 'reads through',
                }
            ],
            file['exposures'],
        )
        text = self.text()
        for words in (
            'HEALTH: DAMAGED  next: nova-imagecache explain ' + name[:8],
            'C01  a base file is corrupt: 1 guest, since ',
            'bytes 0-65535 are corrupt',
            GUEST,
        ):
            self.assertIn(words, text)

    def test_of_many_guests_some_are_shown_and_json_has_all(self) -> None:
        name = self.node.add_image('x')
        for number in range(13):
            self.node.add_overlay(f'guest-{number:02}', name)
        self.run_command('verify')
        nodes.flip_bit(self.node.base_path(name))
        self.run_command('verify')
        (file,) = self.status(3)['damaged']
        self.assertEqual(13, len(file['users']))
        text = self.text()
        self.assertIn('guest-02', text)
        self.assertNotIn('guest-03', text)
        self.assertIn('and 10 more guests', text)

    def test_verification_that_is_overdue_makes_the_exit_code_1(self) -> None:
        self.write_conf(
            checksum_base_images='true', checksum_interval_seconds=100
        )
        self.node.add_image('x')
        self.run_command('verify')
        self.assertEqual(0, self.status(0)['overdue_files'])
        real = clocks.now

        def later() -> clocks.Instant:
            now = real()
            return dataclasses.replace(
                now, wall=now.wall + 121, boottime=now.boottime + 121
            )

        one_pass = functools.partial(pipeline.Pass, clock=later)
        self.patch(pipeline, 'Pass', one_pass)
        for command in ('status', 'list'):
            code, stdout, stderr = self.run_command(command)
            self.assertEqual(1, code)
            told = ' '.join((stdout + stderr).split())
            self.assertIn('verification is overdue: 1 file, ', told)

    def test_what_the_last_scrub_could_not_do_makes_the_exit_code_1(
        self,
    ) -> None:
        self.node.add_image('x')
        self.run_command('scrub')
        self.status(0)
        last = activities.load(self.node.layout)
        assert last is not None
        activities.save(
            self.node.layout,
            dataclasses.replace(last, problems=('x: it cannot be kept',)),
        )
        for command in ('status', 'list'):
            code, stdout, stderr = self.run_command(command)
            self.assertEqual(1, code)
            self.assertIn(
                'the last scrub: x: it cannot be kept', stdout + stderr
            )

    def test_a_rate_that_is_too_low_is_told_with_figures(self) -> None:
        self.write_conf(
            checksum_base_images='true',
            checksum_interval_seconds=1,
            scrub_bandwidth_mib_per_second=1,
        )
        self.node.add_image('x', data=os.urandom(4 * base.MIB))
        values = self.status()
        self.assertFalse(values['rate_sufficient'])
        (check,) = values['checks']
        self.assertEqual('N01', check['code'])
        self.assertIn('takes 4.0 MiB/s', check['text'])
        self.assertIn('allows 1.0', check['text'])

    def test_it_says_what_the_last_scrub_did(self) -> None:
        self.assertIsNone(self.status()['scrub'])
        self.assertIn('none yet', self.text())
        self.node.add_image('x')
        self.run_command('scrub')
        self.assertFalse(self.status()['scrub']['running'])
        self.assertIn('nothing more is due', self.text())

    def test_it_says_what_a_scrub_is_at(self) -> None:
        now = self.node.clock()
        activities.save(
            self.node.layout,
            activities.Activity('a-host', now, now, current='a-file', queue=3),
        )
        self.assertIn('it was killed', self.text())
        self.useFixture(processes.OtherScrub(self.node.layout.instances))
        self.assertIn('at work', self.text())
        self.assertIn('a-file', self.text())

    def test_with_checksums_off_it_says_so_and_still_shows_damage(
        self,
    ) -> None:
        name = self.node.add_image('x')
        self.run_command('verify')
        nodes.flip_bit(self.node.base_path(name))
        self.run_command('verify')
        self.write_conf()
        values = self.status(3)
        self.assertEqual(('off', 1), (values['checksums'], values['files']))
        self.assertEqual(name, values['damaged'][0]['name'])

    def test_a_file_older_than_the_boot_is_named_as_suspect(self) -> None:
        name = self.node.add_image('x')
        self.node.clock.boottime = -base.HOUR
        self.node.run(inline=False)
        self.run_command('verify')
        self.assertEqual([name], self.status()['suspect'])

    def test_it_changes_nothing(self) -> None:
        self.node.add_image('x')
        self.status()
        self.assertFalse(os.path.exists(self.node.layout.own))


class BandwidthTest(shell.ShellTestCase):
    def test_it_overrides_the_configuration(self) -> None:
        self.write_conf(scrub_bandwidth_mib_per_second=1)
        name = self.node.add_image('x')
        rates: list[float] = []

        class Noted(limiters.Limiter):
            def before(self, length: int) -> None:
                rates.append(self.rate)
                super().before(length)

        self.patch(limiters, 'Limiter', Noted)
        self.rows('verify', name)
        for text in ('0', '2.5'):
            self.rows('verify', name, '--bandwidth', text)
        self.assertEqual([base.MIB, 0, 2.5 * base.MIB], rates)

    def test_nonsense_is_wrong_usage(self) -> None:
        for text in ('-1', 'fast', 'inf', 'nan'):
            for command in ('verify', 'scrub'):
                code, _stdout, stderr = self.run_command(
                    command, f'--bandwidth={text}'
                )
                self.assertEqual(2, code)
                self.assertNotIn('Traceback', stderr)
