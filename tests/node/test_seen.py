# SPDX-License-Identifier: Apache-2.0

"""A real Prometheus scrapes a node, and what is wrong there fires an alert.

The rules are those of the package, but they wait for a moment only, and a
scrub that stands still is not given ten minutes.
"""

import copy
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import Any

import ddt

from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.heal import accounts
from nova_imagecache.heal import automatic
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import textfiles
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import exporters
from tests.support import healing
from tests.support import mixin
from tests.support import nodes
from tests.support import processes
from tests.support import prometheus

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
JOB = 'imagecache'
BLOCK = 64 * base.KIB


def hasty(rules: Any) -> Any:
    """Give the rules as they are, but for how long they wait."""
    rules = copy.deepcopy(rules)
    for group in rules['groups']:
        for rule in group['rules']:
            rule['for'] = '1s'
            if rule['alert'] == 'NovaImageCacheScrubStalled':
                rule['expr'] = rule['expr'].replace('> 600', '> 3')
    return rules


class SeenTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        for program in ('prometheus', 'prometheus-node-exporter'):
            if shutil.which(program, path=processes.PATH) is None:
                self.skipTest(f'{program} is not installed')
        self.node.clock = base.FakeClock.of_this_machine()
        self.node.configure(checksum=True, checksum_interval=7 * base.DAY)
        self.name = self.node.add_image('x')

    def make_pass(self, ago: float = 0, inline: bool = True) -> None:
        now = clocks.now()
        self.node.clock.wall = now.wall - ago
        self.node.clock.boottime = now.boottime - ago
        report = self.node.run(inline=inline)
        self.assertEqual([], figures.keep(self.node.settings, report))

    def start(self) -> None:
        """Have a Prometheus scrape the exporter of the node."""
        self.exporter = self.useFixture(
            exporters.Exporter(self.node.layout.instances)
        )
        self.scrape({JOB: [self.exporter.target]})

    def scrape(self, targets: dict[str, list[str]]) -> None:
        directory = os.path.join(self.temporary, 'prometheus')
        os.mkdir(directory)
        self.prometheus = self.useFixture(
            prometheus.Prometheus(
                directory, hasty(mixin.load(mixin.RULES)), targets
            )
        )

    def facts(self) -> metrics.Facts:
        settings = self.node.settings
        return exposition.gather(self.node.layout, settings.host)

    def fires(self, alert: str, **labels: str) -> None:
        """Wait until an alert fires, and see that its labels are right."""
        name = f'NovaImageCache{alert}'
        expected = {'alertname': name, **labels}

        def fires() -> bool:
            return any(
                expected.items() <= found.items()
                for found in self.prometheus.labels(name)
            )

        self.assertTrue(processes.wait_for(fires), self.prometheus.firing())

    def resolves(self, alert: str) -> None:
        """Wait until an alert fires no more."""
        name = f'NovaImageCache{alert}'
        self.assertTrue(
            processes.wait_for(lambda: not self.prometheus.labels(name)),
            self.prometheus.firing(),
        )

    def quiet(self) -> None:
        """See that figures of the node are there, and that nothing fires."""
        metric = 'nova_imagecache_last_pass_timestamp_seconds'
        self.assertTrue(
            processes.wait_for(lambda: self.prometheus.query(metric))
        )
        self.assertEqual([], self.prometheus.firing())


class AlertTest(SeenTestCase):
    def test_a_flipped_bit_is_critical_once_a_guest_reads_it(self) -> None:
        self.make_pass()
        self.start()
        self.quiet()
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.configure(checksum_interval=0)
        self.make_pass()
        labels = {
            'name': self.name, 'verdict': 'corrupt', 'job': JOB,
            'instance': self.exporter.target,
        }  # fmt: skip
        self.fires('BaseFileDamaged', severity='warning', **labels)
        self.node.add_overlay(GUEST, self.name)
        self.make_pass()
        self.fires('BaseFileDamaged', severity='critical', **labels)
        # Bit by bit as it was.
        nodes.flip_bit(self.node.base_path(self.name))
        self.make_pass()
        self.resolves('BaseFileDamaged')

    def test_a_scrub_that_is_stopped_is_stalled_until_it_goes_on(
        self,
    ) -> None:
        # Of some minutes at the rate that is allowed.
        self.node.add_image('large', data=os.urandom(64 * base.MIB))
        # First readings may be put off for an hour.
        self.make_pass(ago=2 * base.HOUR, inline=False)
        self.start()
        scrub = subprocess.Popen(
            [
                sys.executable, '-m', 'nova_imagecache', '--instances-path',
                self.node.layout.instances, 'scrub', '--bandwidth', '1',
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(scrub.wait)
        self.addCleanup(scrub.kill)
        running = 'nova_imagecache_scrub_running == 1'
        self.assertTrue(
            processes.wait_for(lambda: self.prometheus.query(running))
        )
        scrub.send_signal(signal.SIGSTOP)
        self.fires('ScrubStalled', severity='warning')
        scrub.send_signal(signal.SIGCONT)
        scrub.send_signal(signal.SIGTERM)
        self.resolves('ScrubStalled')
        activity = activities.load(self.node.layout)
        assert activity is not None
        self.assertIsNotNone(activity.ended)

    def test_files_that_nobody_verifies_become_overdue(self) -> None:
        self.make_pass()
        self.node.configure(checksum_interval=1)
        self.start()
        self.quiet()

        # A scrub has not been for some seconds, which is many intervals.
        def overdue() -> bool:
            self.make_pass(inline=False)
            summary = self.facts().summary
            return summary is not None and summary.overdue.files > 0

        self.assertTrue(processes.wait_for(overdue))
        self.fires('VerificationOverdue', severity='warning')
        self.node.configure(checksum_interval=7 * base.DAY)
        self.make_pass()
        self.resolves('VerificationOverdue')

    def test_a_host_that_makes_no_passes_is_missed(self) -> None:
        self.make_pass(ago=3 * base.HOUR)
        self.start()
        self.fires('PassMissing', severity='warning')
        self.make_pass()
        self.resolves('PassMissing')

    def test_a_witness_that_is_blind_is_told_with_its_reason(self) -> None:
        self.make_pass()
        self.start()
        self.quiet()
        # Anybody's disk, of which nobody can tell what it stands on.
        path = self.node.add_file(
            'some', 'disk', data=b'QFI\xfb' + b'\xff' * 100
        )
        self.make_pass()
        self.fires('RemovalVetoed', severity='warning', reason='damaged')
        os.unlink(path)
        self.make_pass()
        self.resolves('RemovalVetoed')

    def test_a_full_disk_that_cannot_be_relieved_is_told(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.make_pass()
        self.start()
        self.quiet()
        # Whatever is on it, that is too much.
        self.node.configure(high_watermark=1)
        self.make_pass()
        self.fires('SpaceShortfall', severity='warning')
        self.node.configure(high_watermark=0)
        self.make_pass()
        self.resolves('SpaceShortfall')

    def test_an_exporter_that_is_gone_is_told(self) -> None:
        self.make_pass()
        self.start()
        self.quiet()
        self.exporter.end()
        self.fires(
            'MetricsStale', severity='warning', instance=self.exporter.target
        )

    def test_records_that_are_torn_are_told(self) -> None:
        self.make_pass()
        self.start()
        self.quiet()
        (name,) = os.listdir(self.node.layout.summaries)
        with open(os.path.join(self.node.layout.summaries, name), 'w'):
            pass
        self.fires('MetricsStale', severity='warning')
        self.make_pass()
        self.resolves('MetricsStale')


class TextfileTest(SeenTestCase):
    """What node_exporter reads."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = os.path.join(self.temporary, 'textfiles')
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, 'imagecache.prom')
        self.node.configure(metrics_textfile=self.path)

    def start_textfile(self) -> None:
        served = self.useFixture(prometheus.NodeExporter(self.directory))
        self.scrape({'node': [served.target]})

    def test_the_file_of_a_pass_is_read(self) -> None:
        self.make_pass()
        self.start_textfile()
        self.quiet()
        errors_found = 'node_textfile_scrape_error'
        (sample,) = self.prometheus.query(errors_found)
        self.assertEqual('0', sample['value'][1])
        (sample,) = self.prometheus.query(
            'nova_imagecache_files{kind="original",state="unused"}'
        )
        self.assertEqual('1', sample['value'][1])

    def test_a_file_that_nobody_writes_any_more_is_stale(self) -> None:
        self.make_pass()
        now = self.facts()
        assert now.read is not None
        frozen = dataclasses.replace(now, read=now.read - 3 * base.HOUR)
        textfiles.write(self.path, lambda: frozen)
        self.start_textfile()
        self.fires('MetricsStale', severity='warning', job='node')
        self.make_pass()
        self.resolves('MetricsStale')

    def test_a_budget_that_is_spent_is_told_until_it_refills(self) -> None:
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        data = os.urandom(60 * BLOCK)
        name = self.node.add_image('large', data=data)
        for _time in range(2):
            self.make_pass()
        self.node.configure(checksum_interval=0)
        for number in range(20):
            nodes.flip_bit(self.node.base_path(name), number * BLOCK)
        self.make_pass()
        healer = automatic.Healer(
            self.node.settings,
            sources_of=lambda settings: [healing.Given(data)],
        )
        outcome = healer.heal(name)
        assert outcome is not None
        self.assertEqual(20, outcome.repaired)
        self.make_pass()
        self.start_textfile()
        self.fires('RepairPaused', severity='warning')
        layout, host = self.node.layout, self.node.settings.host
        account = accounts.load(layout, host)
        assert account.noted is not None
        then = dataclasses.replace(
            account.noted,
            wall=account.noted.wall - base.HOUR,
            boottime=account.noted.boottime - base.HOUR,
        )
        accounts.save(layout, host, dataclasses.replace(account, noted=then))
        self.make_pass()
        self.resolves('RepairPaused')


class FleetTest(SeenTestCase):
    def test_an_image_that_is_bad_on_many_hosts_is_critical(self) -> None:
        self.make_pass()
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.configure(checksum_interval=0)
        self.make_pass()
        served = []
        for number in range(3):
            directory = os.path.join(self.temporary, f'host-{number}')
            os.mkdir(directory)
            self.write(directory, 'image')
            served.append(self.useFixture(prometheus.NodeExporter(directory)))
        self.scrape({'node': [each.target for each in served]})
        self.fires(
            'ImageDamagedOnManyHosts', severity='critical', image_id='image'
        )
        self.write(os.path.join(self.temporary, 'host-1'), None)
        self.resolves('ImageDamagedOnManyHosts')

    def write(self, directory: str, image: str | None) -> None:
        facts = self.facts()
        assert facts.summary is not None
        (file,) = facts.summary.damaged
        damaged = (dataclasses.replace(file, image=image),) if image else ()
        summary = dataclasses.replace(facts.summary, damaged=damaged)
        changed = dataclasses.replace(facts, summary=summary)
        textfiles.write(
            os.path.join(directory, 'imagecache.prom'), lambda: changed
        )


@ddt.ddt
class DashboardTest(SeenTestCase):
    @ddt.data(*map(os.path.basename, mixin.DASHBOARDS))
    def test_each_panel_shows_something(self, name: str) -> None:
        path = os.path.join(mixin.ETC, 'grafana', name)
        self.make_pass()
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.configure(checksum_interval=0)
        self.make_pass()
        self.start()
        self.quiet()
        found = [*mixin.expressions(path)]
        self.assertGreater(len(found), 10)
        for title, expression in found:
            asked = expression.replace('$__rate_interval', '10s').replace(
                '$instance', re.escape(self.exporter.target)
            )
            asked = asked.replace('\\', '\\\\')
            self.assertTrue(
                processes.wait_for(functools.partial(self.shows, asked)),
                f'{title}: {asked}',
            )

    def shows(self, expression: str) -> bool:
        return bool(self.prometheus.query(expression))

    @ddt.data(*map(os.path.basename, mixin.DASHBOARDS))
    def test_it_is_small_and_its_panels_are_told_apart(
        self, name: str
    ) -> None:
        with open(os.path.join(mixin.ETC, 'grafana', name)) as file:
            panels = json.load(file)['panels']
        self.assertLess(len(panels), 20)
        for key in ('id', 'title'):
            self.assertEqual(
                len(panels), len({panel[key] for panel in panels})
            )
