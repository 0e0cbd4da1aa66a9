# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from typing import Any

import ddt
import msgspec

from nova_imagecache.cache import tallies
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.content import incidents
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import names
from nova_imagecache.outlets import families
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import pages
from nova_imagecache.outlets import since
from nova_imagecache.outlets import summaries
from nova_imagecache.outlets import totals
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import vetoing
from tests.support import base

NOW = clocks.Instant(1.7e9, 1000.0, 'boot')
EARLIER = clocks.Instant(1.7e9 - 5, 995.0, 'boot')
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


def file_of(name: str = 'a' * 40, **values: object) -> reports.FileReport:
    defaults: dict[str, object] = {
        'name': name,
        'kind': names.Kind.ORIGINAL,
        'size': 8 * base.MIB,
        'allocated': base.MIB,
        'users': (),
        'image': None,
        'age_seconds': 0,
        'checksum': knowledge.Verdict.GOOD,
        'action': decide.Action.KEEP,
        'reason': '',
    }
    return reports.FileReport(**(defaults | values))  # type: ignore[arg-type]


def bad_file(name: str = 'b' * 40, **values: object) -> reports.FileReport:
    corrupt = ledgers.Damage.CORRUPT
    defaults: dict[str, object] = {
        'checksum': knowledge.Verdict.CORRUPT,
        'answer': soundness.Soundness.BAD,
        'bad': (ledgers.BadRange(0, 4 * base.MIB, corrupt),),
        'readers': (GUEST,),
        'exposures': (
            exposure.Exposure(
                GUEST,
                'disk',
                (exposure.Extent(0, 9, exposure.Effect.READS_THROUGH),),
            ),
        ),
    }
    return file_of(name, **(defaults | values))


def summary_of(
    *files: reports.FileReport, **values: object
) -> summaries.Summary:
    report = reports.Report('/i/_base', files)
    report = dataclasses.replace(report, **values)  # type: ignore[arg-type]
    return totals.summarised(report, 'here', EARLIER, NOW, {}, 1)


def seen_facts(oldest: float | None = 5.0) -> metrics.Facts:
    """Give facts of a cache that is verified."""
    coverage = schedule.Coverage(1, 10, verified=10, oldest=oldest)
    return facts_of(coverage=coverage, checksums=True)


def facts_of(*files: reports.FileReport, **values: object) -> metrics.Facts:
    return metrics.Facts('1.0', summary_of(*files, **values))


def samples(facts: metrics.Facts) -> dict[str, float]:
    found = {}
    for family in metrics.collect(facts):
        for labels, value in family.samples:
            key = ','.join((family.name, *labels))
            assert key not in found, f'{key} is there twice'
            found[key] = value
    return found


@ddt.ddt
class ConventionTest(base.TestCase):
    """What Prometheus recommends."""

    def families(self) -> list[families.Family]:
        activity = activities.Activity('here', NOW, NOW)
        facts = dataclasses.replace(
            facts_of(bad_file(), file_of(image='x')), activity=activity
        )
        assert facts.summary is not None
        summary = dataclasses.replace(
            facts.summary, images=(summaries.Named('a', 'x'),)
        )
        return [*metrics.collect(dataclasses.replace(facts, summary=summary))]

    def test_counters_and_no_others_end_in_total(self) -> None:
        for family in self.families():
            self.assertEqual(
                family.kind is families.Kind.COUNTER,
                family.name.endswith('_total'),
                family.name,
            )

    def test_no_metric_is_there_twice_and_each_has_a_sentence(self) -> None:
        found = [family.name for family in self.families()]
        self.assertEqual(sorted(set(found)), sorted(found))
        for family in self.families():
            self.assertRegex(family.text, r'^[A-Z].*\.$')
            self.assertRegex(family.name, '^[a-z][a-z_]*$')

    def test_no_label_names_the_host_and_none_has_a_space(self) -> None:
        for family in self.families():
            self.assertNotIn('host', family.labels)
            self.assertNotIn('instance', family.labels)
            for labels, _value in family.samples:
                self.assertEqual(len(family.labels), len(labels))
                self.assertIsNone(re.search(r'\s', ''.join(labels)))

    def test_a_host_has_some_hundred_series_whatever_its_cache_is_like(
        self,
    ) -> None:
        many = [bad_file(f'{number:040x}') for number in range(1000)]
        none = len(samples(facts_of()))
        self.assertLess(none, 120)
        # Two for each file that is named.
        self.assertEqual(none + 40, len(samples(facts_of(*many))))

    def test_the_same_series_are_there_before_anything_has_happened(
        self,
    ) -> None:
        before = {*samples(facts_of())}
        veto = vetoing.Veto(vetoing.Reason.OUT_OF_SIGHT, '/x', 'is away')
        after = {*samples(facts_of(file_of(), obstacles=(veto,)))}
        self.assertEqual(before, after)


class SummaryTest(base.TestCase):
    def test_files_are_counted_by_kind_and_use(self) -> None:
        found = samples(
            facts_of(
                file_of('a' * 40, used=True),
                file_of('b' * 40, action=decide.Action.REMOVE),
                trash=(
                    file_of('c' * 40),
                    file_of('d' * 40, action=decide.Action.DELETE),
                    file_of('e' * 40, action=decide.Action.PUT_BACK),
                ),
            )
        )
        self.assertEqual(1, found['files,original,used'])
        self.assertEqual(1, found['files,original,unused'])
        self.assertEqual(2, found['files,original,trash'])
        self.assertEqual(2 * base.MIB, found['allocated_bytes,original,trash'])

    def test_of_many_files_an_amount_is_made_for_each_kind_alone(self) -> None:
        """One for each of 10,000 would cost more than all else does."""
        made = []
        real = summaries.Amount

        def amount(*args: Any, **kwargs: Any) -> summaries.Amount:
            made.append(args)
            return real(*args, **kwargs)

        self.patch(summaries, 'Amount', amount)
        files = [file_of(f'{each:040x}', used=each > 9) for each in range(999)]
        usage = summary_of(*files).usage
        self.assertEqual(989, usage['original/used'].files)
        self.assertEqual(10 * base.MIB, usage['original/unused'].bytes)
        self.assertLess(len(made), 20)

    def test_removed_files_are_counted_by_cause_and_added_to_those_before(
        self,
    ) -> None:
        gone = decide.Action.REMOVE
        report = reports.Report(
            '/i/_base',
            (
                file_of('a' * 40, action=gone),
                file_of('b' * 40, action=gone, early=True),
                file_of('c', action=gone, kind=names.Kind.LEFTOVER),
            ),
        )
        before = {'unused': summaries.Amount(3, 7)}
        summary = totals.summarised(report, 'h', EARLIER, NOW, before, 1)
        self.assertEqual(
            {
                'unused': summaries.Amount(4, 7 + base.MIB),
                'space': summaries.Amount(1, base.MIB),
                'leftover': summaries.Amount(1, base.MIB),
                'damaged': summaries.Amount(),
            },
            summary.removed,
        )

    def test_vetoes_are_counted_by_reason_the_narrow_ones_apart(self) -> None:
        wide = vetoing.Veto(vetoing.Reason.OUT_OF_SIGHT, '/x', 'is away')
        narrow = vetoing.Veto(
            vetoing.Reason.DAMAGED, '/y', 'is torn', frozenset({'a'})
        )
        found = samples(
            facts_of(obstacles=(wide, wide, narrow), vetoed_seconds=60)
        )
        self.assertEqual(2, found['removal_vetoed,out_of_sight'])
        self.assertEqual(0, found['removal_vetoed,damaged'])
        self.assertEqual(1, found['removal_withheld,damaged'])
        self.assertEqual(
            NOW.wall - 60, found['removal_vetoed_since_timestamp_seconds']
        )

    def test_damage_is_told_with_the_guests_that_it_hits(self) -> None:
        found = samples(facts_of(bad_file(image='x')))
        name = 'b' * 40
        self.assertEqual(1, found['damaged_files,corrupt'])
        self.assertEqual(4 * base.MIB, found['damaged_bytes,corrupt'])
        self.assertEqual(1, found['exposed_guests,reads_through'])
        self.assertEqual(1, found[f'damaged_file_info,{name},x,corrupt'])
        self.assertEqual(1, found[f'damaged_file_readers,{name}'])

    def test_a_file_that_was_made_anew_under_guests_is_told_as_damage(
        self,
    ) -> None:
        """As ``status`` and its exit code have it."""
        anew = file_of('c' * 40, outdated=(GUEST, 'other'))
        both = bad_file(outdated=(GUEST,))
        found = samples(facts_of(anew, both))
        self.assertEqual(1, found['damaged_files,made_anew'])
        self.assertEqual(1, found['damaged_files,corrupt'])
        self.assertEqual(2, found[f'damaged_file_readers,{anew.name}'])
        self.assertEqual(1, found[f'damaged_file_info,{anew.name},,made_anew'])
        self.assertEqual(1, found[f'damaged_file_info,{both.name},,corrupt'])

    def test_a_guest_counts_once_however_many_disks_it_has(self) -> None:
        one = bad_file()
        two = msgspec.structs.replace(one, exposures=one.exposures * 2)
        found = samples(facts_of(two, bad_file('c' * 40)))
        self.assertEqual(1, found['exposed_guests,reads_through'])

    def test_of_a_reader_without_a_map_it_is_unknown_what_it_reads(
        self,
    ) -> None:
        found = samples(facts_of(bad_file(exposures=(), bad=())))
        self.assertEqual(1, found['exposed_guests,unknown'])
        # Which of its bytes are bad is not known either.
        self.assertEqual(8 * base.MIB, found['damaged_bytes,corrupt'])

    def test_of_many_damaged_files_those_that_are_read_are_named(
        self,
    ) -> None:
        files = [
            bad_file(f'{number:040x}', readers=(), exposures=())
            for number in range(30)
        ]
        read = bad_file('f' * 40)
        found = samples(facts_of(*files, read))
        self.assertEqual(31, found['damaged_files,corrupt'])
        self.assertEqual(11, found['damaged_files_truncated'])
        self.assertEqual(1, found[f'damaged_file_readers,{"f" * 40}'])

    def test_images_are_named_only_where_that_was_asked_for(self) -> None:
        report = reports.Report(
            '/i/_base', (file_of(image='x'), file_of('swap_1'))
        )
        for wanted in (False, True):
            summary = totals.summarised(
                report, 'h', EARLIER, NOW, {}, 1, wanted
            )
            family = metrics.of_each_file(metrics.Facts('1', summary))
            found = [] if family is None else [*family.samples]
            images = [(('a' * 40, 'x'), 1.0)] if wanted else []
            self.assertEqual(images, found)

    def test_a_pass_is_dated_by_its_end_and_takes_what_it_takes(self) -> None:
        found = samples(facts_of())
        self.assertEqual(NOW.wall, found['last_pass_timestamp_seconds'])
        self.assertEqual(5, found['pass_duration_seconds'])


class CollectTest(base.TestCase):
    def test_before_the_first_pass_there_is_nothing_of_it(self) -> None:
        found = samples(metrics.Facts('1.0'))
        self.assertEqual(1, found['build_info,1.0'])
        self.assertNotIn('last_pass_timestamp_seconds', found)
        self.assertNotIn('damaged_files,corrupt', found)

    def test_a_scrub_runs_while_it_has_its_turn_and_has_not_ended(
        self,
    ) -> None:
        at_work = activities.Activity('here', NOW, NOW, total=9)
        ended = dataclasses.replace(at_work, ended=NOW)
        for activity, taken, running in (
            (None, True, 0),
            (at_work, True, 1),
            # It was killed.
            (at_work, False, 0),
            (ended, True, 0),
        ):
            found = samples(
                metrics.Facts('1', activity=activity, running=taken)
            )
            self.assertEqual(running, found['scrub_running'])
            self.assertEqual(
                9 if activity else 0, found['scrub_read_bytes_total']
            )
            self.assertEqual(
                NOW.wall if activity else None,
                found.get('scrub_last_progress_timestamp_seconds'),
            )

    def test_what_cannot_be_read_is_told(self) -> None:
        self.assertEqual(1, samples(metrics.Facts('1'))['records_readable'])
        facts = metrics.Facts('1', unreadable=('x: torn',))
        self.assertEqual(0, samples(facts)['records_readable'])

    def test_events_are_counted_by_what_became_of_the_request(self) -> None:
        counts = {
            tallies.Event.HIT: 4,
            tallies.Event.MISS: 2,
            tallies.Event.REFUSED: 1,
        }
        found = samples(metrics.Facts('1', counts=counts))
        self.assertEqual(4, found['fetch_requests_total,hit'])
        self.assertEqual(0, found['fetch_requests_total,restored'])
        self.assertEqual(2, found['fetch_requests_total,miss'])
        self.assertNotIn('fetch_requests_total,refused', found)
        self.assertEqual(1, found['builds_refused_total'])

    def test_repairs_are_told_by_source_and_result(self) -> None:
        repairs = metrics.Repairs(
            {('page cache', 'repaired'): 2}, {('image', 'no data'): 7}, True
        )
        found = samples(metrics.Facts('1', repairs=repairs))
        self.assertEqual(2, found['repairs_total,page_cache,repaired'])
        self.assertEqual(7, found['repair_fetched_bytes_total,image,no_data'])
        self.assertEqual(1, found['repair_paused'])


class SinceTest(base.TestCase):
    """What was noted after the last pass counts as well."""

    def damage(
        self, summary: summaries.Summary, *noted: incidents.Incident
    ) -> dict[str, tuple[int, int]]:
        after = since.with_incidents(summary, noted)
        return {
            verdict: (each.files, each.bytes)
            for verdict, each in after.damage.items()
            if each.files
        }

    def incident(self, name: str, found: float, **values: Any) -> Any:
        seen = incidents.Incident(
            1, name, 'corrupt', 'image', found, None, ((5, 15),), (GUEST,)
        )
        return dataclasses.replace(seen, **values)

    def test_what_was_found_since_counts(self) -> None:
        new = self.incident('c' * 40, NOW.wall + 1)
        self.assertEqual({'corrupt': (1, 10)}, self.damage(summary_of(), new))
        after = since.with_incidents(summary_of(), [new])
        self.assertEqual(0, after.unnamed)
        (damaged,) = after.damaged
        self.assertEqual(
            ('c' * 40, 'image', 'corrupt', 10, 1, (GUEST,)),
            (
                damaged.name, damaged.image, damaged.verdict, damaged.bytes,
                damaged.readers, damaged.guests,
            ),
        )  # fmt: skip

    def test_what_the_pass_has_seen_does_not_count_twice(self) -> None:
        bad = bad_file()
        summary = summary_of(bad)
        for found in (NOW.wall - 1, NOW.wall, NOW.wall + 1):
            self.assertEqual(
                {'corrupt': (1, 4 * base.MIB)},
                self.damage(summary, self.incident(bad.name, found)),
            )

    def test_an_older_one_is_for_the_pass_to_tell(self) -> None:
        for found in (NOW.wall - 9, NOW.wall):
            old = self.incident('c' * 40, found)
            self.assertEqual({}, self.damage(summary_of(), old))

    def test_what_has_come_and_gone_since_counts_never(self) -> None:
        over = self.incident('c' * 40, NOW.wall + 1, ended=NOW.wall + 2)
        self.assertEqual({}, self.damage(summary_of(), over))

    def test_what_has_ended_since_counts_no_more(self) -> None:
        bad = bad_file()
        summary = summary_of(bad)
        for ended, files in ((NOW.wall, 1), (NOW.wall + 1, 0)):
            over = self.incident(bad.name, NOW.wall - 9, ended=ended)
            found = since.with_incidents(summary, [over])
            self.assertEqual(files, found.damage['corrupt'].files)
            self.assertEqual(files, len(found.damaged))
            self.assertEqual(
                files * 4 * base.MIB, found.damage['corrupt'].bytes
            )

    def test_one_that_was_made_anew_under_guests_stays_when_it_is_good(
        self,
    ) -> None:
        anew = file_of(outdated=(GUEST,))
        over = self.incident(anew.name, NOW.wall - 9, ended=NOW.wall + 1)
        self.assertEqual(
            {'made_anew': (1, 8 * base.MIB)},
            self.damage(summary_of(anew), over),
        )

    def test_those_that_guests_read_are_named_first_and_the_rest_counted(
        self,
    ) -> None:
        many = [
            self.incident(f'{number:040x}', NOW.wall + 1, guests=())
            for number in range(30)
        ]
        read = self.incident('f' * 40, NOW.wall + 1)
        after = since.with_incidents(summary_of(), [*many, read])
        self.assertEqual((20, 11), (len(after.damaged), after.unnamed))
        self.assertEqual('f' * 40, after.damaged[0].name)


class PageTest(base.TestCase):
    def head(self, facts: metrics.Facts, later: float = 0) -> pages.Headline:
        found = pages.headline(facts, NOW.wall + later)
        shown = pages.page(facts, NOW.wall + later)
        for text in (found.word, found.text, found.action):
            self.assertIn(text, shown)
        return found

    def assert_head(
        self, *expected: str, of: metrics.Facts, later: float = 0
    ) -> None:
        found = self.head(of, later)
        self.assertEqual(
            expected, (found.level, found.word, found.text, found.action)
        )

    def test_it_begins_with_whether_all_is_well(self) -> None:
        self.assert_head('well', 'OK', 'All is well.', '', of=seen_facts())
        self.assert_head(
            'well',
            'OK',
            'All is well; base files are not verified.',
            '',
            of=facts_of(checksums=False),
        )
        self.assert_head(
            'well',
            'OK, NOT CHECKED YET',
            'Nothing has been verified so far.',
            '',
            of=seen_facts(oldest=None),
        )

    def test_the_worst_comes_first_with_what_to_do(self) -> None:
        veto = vetoing.Veto(vetoing.Reason.UNREADABLE, '/x', 'no')
        told: dict[str, Any] = {
            'obstacles': (veto,),
            'vetoes': (codes.Problem(codes.Code.UNREADABLE_DISK, 'v'),),
            'problems': (codes.Problem(codes.Code.NOT_MOVED, 'p'),),
        }
        self.assert_head(
            'harm',
            'DAMAGED',
            '1 base file is damaged; 1 guest reads it.',
            'nova-imagecache explain bbbbbbbbbbbb',
            of=facts_of(bad_file(), **told),
            later=base.DAY,
        )
        self.assert_head(
            'warn',
            'DEGRADED',
            'A disk or directory cannot be looked at, and 1 more.',
            'nova-imagecache explain V04',
            of=facts_of(**told),
        )
        late = self.head(facts_of(**told), base.DAY)
        self.assertIn('The last pass was 1 d ago', late.text)
        self.assertEqual('nova-imagecache explain P03', late.action)
        cannot_start = codes.Problem(codes.Code.MISSING_BASE, 'g')
        told['problems'] = (*told['problems'], cannot_start)
        self.assertEqual(
            'nova-imagecache explain G01', self.head(facts_of(**told)).action
        )

    def test_what_is_behind_is_told_where_nothing_else_is(self) -> None:
        self.assert_head(
            'warn',
            'DEGRADED',
            '2.0 MiB too much is in the cache.',
            'nova-imagecache explain P10',
            of=facts_of(shortfall=2 * base.MIB),
        )
        coverage = schedule.Coverage(2, 10, oldest=5.0, overdue=2)
        self.assert_head(
            'warn',
            'DEGRADED',
            '2 files wait to be verified.',
            'nova-imagecache explain P07',
            of=facts_of(coverage=coverage, checksums=True),
        )

    def test_a_scrub_that_hangs_is_told_and_one_that_ended_is_not(
        self,
    ) -> None:
        begun = activities.Activity('here', NOW, NOW)
        facts = dataclasses.replace(seen_facts(), activity=begun, running=True)
        self.assertEqual('OK', self.head(facts, 599).word)
        self.assert_head(
            'warn',
            'DEGRADED',
            'The scrub makes no progress.',
            'nova-imagecache explain P05',
            of=facts,
            later=600,
        )
        for changed in (
            dataclasses.replace(facts, running=False),
            dataclasses.replace(
                facts, activity=dataclasses.replace(begun, ended=NOW)
            ),
        ):
            self.assertEqual('OK', self.head(changed, 600).word)

    def test_what_an_earlier_release_has_left_without_a_code_is_told(
        self,
    ) -> None:
        facts = facts_of()
        assert facts.summary is not None
        summary = dataclasses.replace(facts.summary, problems=('[x it is',))
        self.assert_head(
            'warn',
            'DEGRADED',
            '[x it is.',
            'nova-imagecache status',
            of=dataclasses.replace(facts, summary=summary),
        )

    def test_a_node_of_which_nothing_is_known_is_not_well(self) -> None:
        self.assertEqual('UNKNOWN', self.head(metrics.Facts('1')).word)
        facts = metrics.Facts('1', unreadable=('x: torn',))
        self.assertEqual('UNKNOWN', self.head(facts).word)
        self.assertIn('x: torn', pages.page(facts, NOW.wall))

    def test_a_name_on_the_disk_is_no_markup(self) -> None:
        evil = '<script>alert(1)</script>'
        page = pages.page(
            facts_of(
                bad_file(readers=(evil,), note='<b>'),
                problems=(codes.Problem(codes.Code.NOT_MOVED, '<img src=x>'),),
                host=evil,
                titles={evil: evil},
            ),
            NOW.wall,
        )
        self.assertNotIn('<script>', page)
        self.assertNotIn('<img', page)
        self.assertNotIn('<b>', page)
        self.assertIn('&lt;script&gt;', page)

    def test_whom_damage_hits_is_named_and_what_to_do(self) -> None:
        bad = bad_file(image='x', image_name='ubuntu', note='bytes 0-9')
        page = pages.page(facts_of(bad, titles={GUEST: 'web-3'}), NOW.wall)
        for text in (
            f'1 guest<br>{GUEST} web-3',
            'x (ubuntu)',
            'corrupt, 4.0 MiB: bytes 0-9',
            f'<code>nova-imagecache explain {bad.name}</code>',
        ):  # fmt: skip
            self.assertIn(text, page)

    def test_since_when_it_is_damaged_and_what_is_over_are_told(self) -> None:
        bad = bad_file()
        open_ = incidents.Incident(
            2, bad.name, 'corrupt', None, NOW.wall - 3600
        )
        over = [
            incidents.Incident(
                1,
                f'{number:040x}',
                'corrupt',
                None,
                NOW.wall - 2 * base.DAY,
                copied_up=(GUEST,),
                ended=NOW.wall - base.DAY,
                outcome=incidents.Outcome.HEALED,
                image_name=f'image-{number}',
            )
            for number in range(5)
        ]
        facts = dataclasses.replace(facts_of(bad), history=(*over, open_))
        page = pages.page(facts, NOW.wall)
        self.assertIn('<th>Found</th><td>1 h ago', page)
        self.assertIn(
            '(image-4) corrupt; healed 13 Nov 22:13 UTC; 1 guest had copied '
            'it',
            page,
        )
        self.assertIn('image-2', page)
        self.assertNotIn('image-1', page)
