# SPDX-License-Identifier: Apache-2.0

"""What passes leave for metrics, and the two mouths that tell them."""

from collections.abc import Callable
import dataclasses
import errno
import functools
import os
import shutil
import stat
import subprocess
import sys
from typing import Any

import ddt
import msgspec
from oslo_config import cfg

from nova_imagecache.cache import records
from nova_imagecache.cache import tallies
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache import hook
from nova_imagecache import manager
from nova_imagecache import names
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import summaries
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import nodes
from tests.support import shell

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
PREFIX = 'nova_imagecache_'

HIT, MISS = tallies.Event.HIT, tallies.Event.MISS


def parse(text: str) -> dict[str, float]:
    """Give the values of metrics by what stands before them."""
    found = {}
    for line in text.splitlines():
        if not line.startswith('#'):
            key, _space, value = line.rpartition(' ')
            found[key.removeprefix(PREFIX)] = float(value)
    return found


class FiguresTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.configure(host='here')
        self.layout = self.node.layout

    def make_pass(self) -> list[codes.Problem]:
        return figures.keep(self.node.settings, self.node.run())

    def metrics(self) -> dict[str, float]:
        facts = exposition.gather(self.layout, 'here')
        return parse(exposition.text(facts).decode())

    def summary(self) -> summaries.Summary:
        summary = summaries.load(self.layout, 'here')
        assert summary is not None
        return summary


class SummaryTest(FiguresTestCase):
    def test_a_pass_leaves_what_is_told(self) -> None:
        self.node.configure(checksum=True)
        name = self.node.add_image('x')
        self.node.add_overlay(GUEST, name)
        self.make_pass()
        nodes.flip_bit(self.node.base_path(name))
        self.assertEqual([], self.make_pass())
        found = self.metrics()
        self.assertEqual(1, found['damaged_files{verdict="corrupt"}'])
        self.assertEqual(1, found['exposed_guests{effect="reads_through"}'])
        self.assertEqual(1, found['files{kind="original",state="used"}'])
        self.assertEqual(
            self.node.clock.wall, found['last_pass_timestamp_seconds']
        )

    def test_a_pass_that_could_not_be_made_leaves_nothing(self) -> None:
        shutil.rmtree(self.layout.base)
        self.assertEqual([], self.make_pass())
        self.assertFalse(os.path.exists(self.layout.base))

    def test_a_dry_run_leaves_nothing(self) -> None:
        report = self.node.make_pass().preview()
        self.assertEqual([], figures.keep(self.node.settings, report))
        self.assertFalse(os.path.exists(self.layout.summaries))

    def test_what_was_removed_is_counted_over_passes(self) -> None:
        for number in range(3):
            self.node.add_image(str(number), age=2 * base.DAY)
            self.make_pass()
        found = self.metrics()
        self.assertEqual(3, found['removed_files_total{reason="unused"}'])
        size = 3 * 64 * base.KIB
        self.assertEqual(size, found['removed_bytes_total{reason="unused"}'])

    def test_each_host_counts_for_itself(self) -> None:
        self.node.add_image('x', age=2 * base.DAY)
        self.make_pass()
        self.node.configure(host='there')
        self.make_pass()
        there = summaries.load(self.layout, 'there')
        assert there is not None
        self.assertEqual(summaries.Amount(), there.removed['unused'])
        self.assertEqual(1, self.summary().removed['unused'].files)
        self.assertEqual(2, there.hosts)

    def test_what_cannot_be_removed_is_told_in_bytes(self) -> None:
        self.node.configure(max_size=1)
        name = self.node.add_image('x')
        self.node.add_overlay(GUEST, name)
        self.make_pass()
        self.assertEqual(
            64 * base.KIB - 1, self.metrics()['pressure_shortfall_bytes']
        )

    def test_it_is_small_however_many_files_there_are(self) -> None:
        for number in range(300):
            self.node.add_base(names.get_cache_fname(str(number)), b'x')
        self.make_pass()
        path = summaries.path_of(self.layout, 'here')
        self.assertLess(os.path.getsize(path), 4 * base.KIB)

    def test_who_asks_again_decodes_it_only_when_it_is_another(self) -> None:
        self.make_pass()
        loaded: list[str] = []
        real = summaries.load

        def load(layout: Any, host: str) -> Any:
            loaded.append(host)
            return real(layout, host)

        self.patch(summaries, 'load', load)
        reader = summaries.Reader()
        for _time in range(3):
            self.assertEqual(self.node.clock.wall, self.ended(reader, 'here'))
        self.assertEqual(1, len(loaded))
        self.node.clock.advance(60)
        self.make_pass()
        self.assertEqual(self.node.clock.wall, self.ended(reader, 'here'))
        self.assertIsNone(self.ended(reader, 'there'))
        os.unlink(summaries.path_of(self.layout, 'here'))
        self.assertIsNone(self.ended(reader, 'here'))

    def ended(self, reader: summaries.Reader, host: str) -> float | None:
        summary = reader.load(self.layout, host)
        return None if summary is None else summary.ended

    def test_a_damaged_one_is_set_aside_and_begun_anew(self) -> None:
        self.make_pass()
        path = summaries.path_of(self.layout, 'here')
        with open(path, 'w') as file:
            file.write('garbage')
        self.assertEqual(0, self.metrics()['records_readable'])
        self.assertEqual([], self.make_pass())
        self.assertEqual(1, self.metrics()['records_readable'])
        self.assertTrue(os.path.exists(path + records.DAMAGED_SUFFIX))

    def test_no_file_of_the_cache_is_touched_to_tell_metrics(self) -> None:
        self.node.configure(checksum=True)
        self.node.add_image('x')
        self.make_pass()
        opened = self.note_opens()
        self.metrics()
        own = [path for path in opened if path.startswith(self.layout.base)]
        self.assertTrue(own)
        for path in own:
            self.assertTrue(path.startswith(self.layout.own + '/'), path)
            self.assertNotIn('/ledgers/', path)

    def test_a_bad_file_that_is_set_aside_between_passes_is_counted(
        self,
    ) -> None:
        self.node.configure(checksum=True)
        name = self.node.add_image('x', age=base.DAY / 2)
        self.make_pass()
        nodes.flip_bit(self.node.base_path(name))
        self.make_pass()
        one = manager.ImageCacheManager(
            base.make_conf(
                instances_path=self.layout.instances, witnesses=['overlays']
            )
        )
        one._conf.set_override('host', 'here')
        self.assertIsNone(one.set_aside(name))
        found = self.metrics()
        self.assertEqual(1, found['removed_files_total{reason="damaged"}'])
        self.assertEqual(
            64 * base.KIB, found['removed_bytes_total{reason="damaged"}']
        )

    def test_what_all_scrubs_have_read_is_counted(self) -> None:
        now = self.node.clock()
        os.makedirs(self.layout.own, exist_ok=True)
        activities.save(
            self.layout, activities.Activity('here', now, now, total=7)
        )
        self.assertEqual(7, self.metrics()['scrub_read_bytes_total'])


class TallyTest(FiguresTestCase):
    def counts(self) -> dict[tallies.Event, int]:
        return tallies.load(self.layout, 'here')

    def path(self, event: tallies.Event = HIT) -> str:
        return tallies.path_of(self.layout, 'here', event)

    def test_an_event_is_one_byte(self) -> None:
        self.node.run()
        for _event in range(3):
            tallies.count(self.layout, 'here', HIT)
        self.assertEqual(3, self.counts()[HIT])
        self.assertEqual(3, os.path.getsize(self.path()))
        self.assertEqual(0, self.counts()[MISS])

    def test_nothing_is_counted_before_the_first_pass(self) -> None:
        tallies.count(self.layout, 'here', HIT)
        self.assertEqual(0, self.counts()[HIT])
        self.assertEqual(set(), self.node.files())

    def test_what_is_in_its_place_is_left_alone_and_stops_nothing(
        self,
    ) -> None:
        self.node.run()
        victim = self.node.add_file('victim', data=b'x')
        makers: list[Callable[[str], None]] = [
            os.mkfifo,
            os.mkdir,
            functools.partial(os.symlink, victim),
        ]
        for make in makers:
            make(self.path())
            tallies.count(self.layout, 'here', HIT)
            self.assertEqual(0, self.counts()[HIT])
            self.assertEqual(1, os.path.getsize(victim))
            if os.path.isdir(self.path()):
                os.rmdir(self.path())
            else:
                os.unlink(self.path())

    def test_a_full_disk_stops_nothing(self) -> None:
        self.node.run()

        # Mocked; what matters is that the error goes no further.
        def full(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, 'write', full)
        tallies.count(self.layout, 'here', HIT)
        self.assertEqual(0, self.counts()[HIT])

    def test_hosts_of_any_name_are_told_apart(self) -> None:
        self.node.run()
        for host in ('a/b', '../x', 'a b', 'y' * 60):
            tallies.count(self.layout, host, MISS)
            self.assertEqual(1, tallies.load(self.layout, host)[MISS])
        self.assertEqual(0, self.counts()[MISS])

    def test_a_host_is_forgotten_with_its_figures(self) -> None:
        self.make_pass()
        tallies.count(self.layout, 'here', HIT)
        tallies.forget(self.layout, 'here')
        summaries.forget(self.layout, 'here')
        self.assertEqual(0, self.counts()[HIT])
        self.assertIsNone(summaries.load(self.layout, 'here'))

    def test_the_fetch_path_counts_what_became_of_each_request(self) -> None:
        self.node.run()
        conf = base.make_conf(instances_path=self.layout.instances)
        conf.set_override('host', 'here')
        data = b'\1' * base.MIB

        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                file.write(data)

        name = names.get_cache_fname('x')
        for _request in range(3):
            hook.cache_image(fetch, name, conf)
        self.assertEqual(1, self.counts()[MISS])
        self.assertEqual(2, self.counts()[HIT])
        self.node.set_age(name, 2 * base.DAY)
        self.node.run()
        self.assertEqual({name}, self.node.trash())
        hook.cache_image(fetch, name, conf)
        self.assertEqual(1, self.counts()[tallies.Event.RESTORED])

    def test_a_disk_that_is_refused_is_counted(self) -> None:
        self.node.configure(checksum=True)
        name = self.node.add_image('x')
        self.node.add_overlay(GUEST, name)
        self.node.run()
        nodes.flip_bit(self.node.base_path(name))
        self.node.run()
        conf = base.make_conf(
            instances_path=self.layout.instances, checksum_base_images=True
        )
        conf.set_override('host', 'here')
        overlay = os.path.join(self.node.add_directory('new'), 'disk')
        self.assertRaises(
            errors.KnownDamage, hook.cache_image, lambda path: None, name,
            conf, overlay=overlay,
        )  # fmt: skip
        self.assertEqual(1, self.counts()[tallies.Event.REFUSED])


@ddt.ddt
class TextfileTest(FiguresTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = os.path.join(self.temporary, 'textfiles')
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, 'imagecache.prom')
        self.node.configure(metrics_textfile=self.path)

    def test_each_pass_writes_it_for_all_to_read(self) -> None:
        self.node.add_image('x')
        self.assertEqual([], self.make_pass())
        status = os.stat(self.path)
        self.assertEqual(0o644, stat.S_IMODE(status.st_mode))
        with open(self.path) as file:
            written = parse(file.read())
        read = 'records_read_timestamp_seconds'
        # When that was is all that differs.
        self.assertLessEqual(written[read], self.metrics()[read])
        self.assertEqual({**self.metrics(), read: 0}, {**written, read: 0})
        self.assertEqual(['imagecache.prom'], os.listdir(self.directory))

    def test_nobody_ever_sees_half_of_it(self) -> None:
        self.make_pass()
        before = os.stat(self.path).st_ino
        self.node.clock.advance(60)
        self.make_pass()
        self.assertNotEqual(before, os.stat(self.path).st_ino)

    def test_that_it_cannot_be_written_is_a_problem_and_no_more(
        self,
    ) -> None:
        shutil.rmtree(self.directory)
        (problem,) = self.make_pass()
        self.assertIn(f'there is no directory {self.directory}', problem)
        self.assertFalse(os.path.exists(self.directory))
        self.assertEqual(self.node.clock.wall, self.summary().ended)

    def test_without_the_client_the_pass_says_what_to_install(self) -> None:
        # Mocked; the tests have it.
        self.patch(sys, 'modules', {**sys.modules, 'prometheus_client': None})
        (problem,) = self.make_pass()
        self.assertIn('pip install nova-imagecache[metrics]', problem)

    def test_the_report_of_the_manager_has_the_problem(self) -> None:
        shutil.rmtree(self.directory)
        conf = base.make_conf(
            instances_path=self.layout.instances, metrics_textfile=self.path
        )
        report = manager.ImageCacheManager(conf).update(None, [])
        self.assertIn(self.directory, '; '.join(report.problems))

    @ddt.data('x.prom', '/x/y.txt', '/x/y\0.prom')
    def test_a_path_that_nobody_would_read_is_refused(
        self, value: str
    ) -> None:
        conf = base.make_conf(
            instances_path=self.layout.instances, metrics_textfile=value
        )
        error = self.assertRaises(
            cfg.Error, manager.ImageCacheManager(conf).update, None, []
        )
        self.assertIn('metrics_textfile', str(error))


class CommandTest(shell.ShellTestCase):
    def test_it_prints_what_the_last_pass_has_left(self) -> None:
        self.node.add_image('x')
        self.run_command('pass')
        code, stdout, stderr = self.run_command('metrics')
        self.assertEqual((0, ''), (code, stderr))
        found = parse(stdout)
        self.assertEqual(1, found['files{kind="original",state="unused"}'])

    def test_it_writes_a_file_if_asked_to(self) -> None:
        self.run_command('pass')
        path = os.path.join(self.temporary, 'x.prom')
        code, stdout, _stderr = self.run_command('metrics', '--output', path)
        self.assertEqual((0, ''), (code, stdout))
        with open(path) as file:
            self.assertIn('last_pass_timestamp_seconds', parse(file.read()))

    def test_who_finds_or_ends_damage_writes_the_file_of_passes_too(
        self,
    ) -> None:
        name = self.node.add_image('x')
        path = self.node.base_path(name)
        with open(path, 'rb') as file:
            good = file.read()
        copy = os.path.join(self.temporary, 'copy')
        with open(copy, 'wb') as file:
            file.write(good)
        textfile = os.path.join(self.temporary, 'x.prom')
        self.write_conf(checksum_base_images='true', metrics_textfile=textfile)
        self.run_command('pass')
        damaged = 'damaged_files{verdict="corrupt"}'
        for argv, number in (
            (['verify'], 1),
            (['repair', name, '--source', copy], 0),
            (['verify', name], 1),
            (['confirm', name, '--file', copy], 0),
        ):
            if number:
                nodes.flip_bit(path)
            elif argv[0] == 'confirm':
                nodes.flip_bit(path)
            self.run_command(*argv)
            with open(textfile) as file:
                found = parse(file.read())
            self.assertEqual((argv, number), (argv, found[damaged]))

    def test_before_the_first_pass_it_says_so_by_leaving_it_out(self) -> None:
        code, stdout, _stderr = self.run_command('metrics')
        self.assertEqual(0, code)
        self.assertNotIn('last_pass_timestamp_seconds', parse(stdout))
        self.assertEqual(set(), self.node.files())

    def test_a_record_that_cannot_be_read_is_told(self) -> None:
        self.run_command('pass')
        (name,) = os.listdir(self.node.layout.summaries)
        with open(os.path.join(self.node.layout.summaries, name), 'w'):
            pass
        code, stdout, stderr = self.run_command('metrics')
        self.assertEqual(1, code)
        self.assertIn(name, stderr)
        self.assertEqual(0, parse(stdout)['records_readable'])

    def test_without_the_client_it_says_what_to_install(self) -> None:
        self.patch(sys, 'modules', {**sys.modules, 'prometheus_client': None})
        for command in ('metrics', 'exporter'):
            code, _stdout, stderr = self.run_command(command)
            self.assertEqual(1, code)
            self.assertIn('pip install nova-imagecache[metrics]', stderr)
            self.assertNotIn('Traceback', stderr)

    def test_prometheus_finds_no_fault_with_it(self) -> None:
        if shutil.which('promtool') is None:
            self.skipTest('promtool is not installed')
        self.run_command('pass')
        done = subprocess.run(
            ['promtool', 'check', 'metrics'],
            input=self.run_command('metrics')[1],
            capture_output=True,
            text=True,
        )
        self.assertEqual((0, ''), (done.returncode, done.stderr))


class CostTest(FiguresTestCase):
    def test_a_pass_writes_one_small_file_for_it(self) -> None:
        self.node.configure(checksum=True)
        self.node.add_image('x')
        report = self.node.run()
        synced = self.note_syncs()
        figures.keep(self.node.settings, report)
        # The record, and the directory that it is in.
        self.assertEqual(2, len(synced))

    def test_the_package_does_without_the_client_until_it_is_asked(
        self,
    ) -> None:
        code = (
            'import sys\n'
            'from nova_imagecache.cli import exporter, metrics, pass_\n'
            'from nova_imagecache import hook, outlets\n'
            "print('prometheus_client' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True
        )
        self.assertEqual('False\n', done.stdout, done.stderr)


class EarlierTest(FiguresTestCase):
    def test_figures_of_an_earlier_release_count_on(self) -> None:
        """Of version 1, which knows no names of images."""
        self.make_pass()
        summary = self.summary()
        damaged = summaries.Damaged('x', 'i', 'corrupt', 'why', 1, 1, (GUEST,))
        earlier = msgspec.to_builtins(
            dataclasses.replace(summary, damaged=(damaged,))
        )
        del earlier['damaged'][0]['image_name']
        path = summaries.path_of(self.layout, 'here')
        os.unlink(path)
        records.Format('summary', 1, dict).save(self.layout, path, earlier)
        self.assertEqual((damaged,), self.summary().damaged)


class RepairsTest(FiguresTestCase):
    def test_what_the_host_has_repaired_is_told_by_source(self) -> None:
        account = accounts.Account(
            spent=30.0,
            noted=clocks.now(),
            repaired={'image-service': 3},
            results={'repaired': 3, 'no-space': 2},
            fetched={'image-service': {'repaired': 4096}},
        )
        self.make_pass()
        accounts.save(self.layout, 'here', account)
        found = self.metrics()
        for name, value in (
            ('repairs_total{result="repaired",source="image-service"}', 3),
            ('repairs_total{result="no-space",source="none"}', 2),
            (
                'repair_fetched_bytes_total'
                '{result="repaired",source="image-service"}',
                4096,
            ),
            ('repair_paused', 1),
        ):
            self.assertEqual(value, found[name], name)

    def test_before_the_first_repair_nothing_is_paused(self) -> None:
        self.make_pass()
        self.assertEqual(0, self.metrics()['repair_paused'])
