# SPDX-License-Identifier: Apache-2.0

"""The alert rules: what each says, where it leads, and when it fires."""

import glob
import os
import re
import shutil
import subprocess

import ddt

from nova_imagecache import clocks
from nova_imagecache.outlets import families
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import summaries
from nova_imagecache.outlets import totals
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import mixin

ROOT = os.path.join(os.path.dirname(__file__), '../..')
PREFIX = 'NovaImageCache'

ALERTS = {
    f'{PREFIX}{name}'
    for name in (
        'BaseFileDamaged', 'ScrubStalled', 'VerificationOverdue',
        'PassMissing', 'RemovalVetoed', 'SpaceShortfall', 'RepairPaused',
        'MetricsStale', 'ImageDamagedOnManyHosts',
    )
}  # fmt: skip

RULES = [
    (f'{rule["alert"]}_{rule["labels"]["severity"]}', rule)
    for rule in mixin.rules()
]


def told() -> list[families.Family]:
    now = clocks.Instant(1.0, 1.0, 'boot')
    summary = totals.summarised(reports.Report('/c'), 'h', now, now, {}, 1)
    summary_with_images = summaries.Summary(
        **{**vars(summary), 'images': (summaries.Named('a', 'b'),)}
    )
    facts = metrics.Facts('1', summary_with_images)
    each_file = metrics.of_each_file(facts)
    assert each_file is not None
    return [*metrics.collect(facts), each_file]


def known_metrics() -> set[str]:
    return {metrics.PREFIX + family.name for family in told()}


@ddt.ddt
class RulesTest(base.TestCase):
    def test_there_is_a_rule_for_each_of_these_and_no_other(self) -> None:
        self.assertEqual(ALERTS, {rule['alert'] for rule in mixin.rules()})

    @ddt.data(*RULES)
    @ddt.unpack
    def test_it_says_its_threshold_and_what_is_normal(
        self, name: str, rule: dict[str, dict[str, str]]
    ) -> None:
        text = rule['annotations']['description']
        self.assertRegex(text, r'Threshold: .+\. Normal: .+\.$')
        self.assertTrue(rule['annotations']['summary'])
        self.assertIn(rule['labels']['severity'], ('critical', 'warning'))

    @ddt.data(*RULES)
    @ddt.unpack
    def test_it_waits_before_it_fires(
        self, name: str, rule: dict[str, str]
    ) -> None:
        self.assertRegex(rule['for'], '^[1-9][0-9]*[mh]$')

    @ddt.data(*RULES)
    @ddt.unpack
    def test_it_leads_to_its_place_in_the_runbook(
        self, name: str, rule: dict[str, dict[str, str]]
    ) -> None:
        url, _sharp, anchor = rule['annotations']['runbook_url'].partition('#')
        self.assertTrue(url.endswith('/admin/runbook.html'), url)
        self.assertEqual(f'alert-{str(rule["alert"]).lower()}', anchor)

    def test_each_place_in_the_runbook_is_there(self) -> None:
        pages = [
            path
            for place in ('nova_imagecache', 'doc/source')
            for path in glob.glob(
                os.path.join(ROOT, place, '**/*.rst'), recursive=True
            )
        ]
        if not any(path.endswith('/runbook.rst') for path in pages):
            self.skipTest('there is no runbook here')
        text = ''
        for path in pages:
            with open(path, encoding='utf-8') as file:
                text += file.read()
        anchors = set(re.findall(r'^\.\. _(alert-\w+):$', text, re.MULTILINE))
        self.assertEqual({f'alert-{name.lower()}' for name in ALERTS}, anchors)

    @ddt.data(*RULES)
    @ddt.unpack
    def test_it_goes_by_metrics_that_there_are(
        self, name: str, rule: dict[str, str]
    ) -> None:
        used = mixin.metrics_in(rule['expr'])
        self.assertTrue(used)
        self.assertEqual(set(), used - known_metrics())

    def test_each_is_seen_to_fire_and_to_resolve(self) -> None:
        with open(mixin.TESTS) as file:
            text = file.read()
        for name in ALERTS:
            self.assertIn(f'alertname="{name}"', text)


class PageTest(base.TestCase):
    def test_the_page_has_each_metric_as_it_is(self) -> None:
        page = os.path.join(ROOT, 'doc/source/admin/metrics.rst')
        with open(page, encoding='utf-8') as file:
            text = file.read()
        rows = re.findall(
            r'   \* - ``(\w+)``\n     - (\w+)\n     - (.+)\n     - '
            r'(.+(?:\n       .+)*)',
            text,
        )
        self.assertEqual(
            [
                (
                    family.name,
                    family.kind,
                    ', '.join(f'``{each}``' for each in family.labels)
                    or 'none',
                    family.text,
                )
                for family in told()
            ],
            [(*most, ' '.join(what.split())) for *most, what in rows],
        )


class PromtoolTest(base.TestCase):
    def promtool(self, *arguments: str) -> None:
        if shutil.which('promtool') is None:
            self.skipTest('promtool is not installed')
        done = subprocess.run(
            ['promtool', *arguments], capture_output=True, text=True
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_prometheus_finds_no_fault_with_the_rules(self) -> None:
        self.promtool('check', 'rules', mixin.RULES)

    def test_each_fires_when_it_should_and_resolves(self) -> None:
        self.promtool('test', 'rules', mixin.TESTS)
