# SPDX-License-Identifier: Apache-2.0

"""What is known of a node as metrics: pure functions.

The one collector, whoever shows them. Names, units and labels are those that
Prometheus recommends; no label has more values than are listed here, but for
the names of damaged files, which are few.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses

from nova_imagecache.cache import tallies
from nova_imagecache.content import incidents
from nova_imagecache.content import knowledge
from nova_imagecache import names
from nova_imagecache.outlets import families
from nova_imagecache.outlets import summaries
from nova_imagecache.scrub import activities
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import vetoing

#: Of the name of every metric.
PREFIX = 'nova_imagecache_'

#: What has a line per base file.
EACH_FILE = 'base_file_info'

#: What guests may be hit by.
VERDICTS = (
    knowledge.Verdict.CORRUPT,
    knowledge.Verdict.UNREADABLE,
    knowledge.Verdict.DIFFERS,
    summaries.MADE_ANEW,
)


@dataclasses.dataclass(frozen=True)
class Repairs:
    """What was repaired in all.

    :ivar totals: blocks by source and result
    :ivar fetched: bytes by source and result
    :ivar paused: whether nothing more is repaired for now
    """

    totals: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=dict
    )
    fetched: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=dict
    )
    paused: bool = False


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a node.

    :ivar version: of this package
    :ivar summary: what the last pass has left; None before the first one
    :ivar counts: of events, see :mod:`nova_imagecache.cache.tallies`
    :ivar activity: what the last scrub of the cache has noted
    :ivar running: whether somebody reads base files
    :ivar unreadable: why a record cannot be read, a sentence each
    :ivar read: when the records were read, in seconds since the epoch
    :ivar history: incidents that are remembered, the oldest first
    """

    version: str
    summary: summaries.Summary | None = None
    counts: Mapping[tallies.Event, int] = dataclasses.field(
        default_factory=dict
    )
    activity: activities.Activity | None = None
    running: bool = False
    repairs: Repairs = dataclasses.field(default_factory=Repairs)
    unreadable: tuple[str, ...] = ()
    read: float | None = None
    history: tuple[incidents.Incident, ...] = ()


def collect(facts: Facts) -> Iterator[families.Family]:
    """Give all metrics, always in the same order.

    But for that of :func:`of_each_file`.
    """
    yield families.Family(
        'build_info',
        families.Kind.GAUGE,
        'Version of nova_imagecache; always 1.',
        ('version',),
        (((facts.version,), 1.0),),
    )
    yield families.gauge(
        'records_readable',
        'Whether all records that metrics are made of could be read.',
        not facts.unreadable,
    )
    yield families.gauge(
        'records_read_timestamp_seconds',
        'When these records were read.',
        facts.read,
    )
    if facts.summary is not None:
        yield from _of_pass(facts.summary)
        yield from _of_space(facts.summary)
        yield from _of_removal(facts.summary)
        yield from _of_verification(facts.summary)
        yield from _of_damage(facts.summary)
    yield from _of_scrub(facts)
    yield from _of_repairs(facts.repairs)
    yield from _of_builds(facts.counts)


def of_each_file(facts: Facts) -> families.Family | None:
    """Give the metric that has a line per base file, if it was asked for."""
    if facts.summary is None or not facts.summary.images:
        return None
    return families.Family(
        EACH_FILE,
        families.Kind.GAUGE,
        'A base file, and the image it was made from; always 1.',
        ('name', 'image_id'),
        [((each.name, each.image), 1.0) for each in facts.summary.images],
    )


def _of_pass(summary: summaries.Summary) -> Iterator[families.Family]:
    yield families.gauge(
        'last_pass_timestamp_seconds',
        'When the last pass of this host was through.',
        summary.ended,
    )
    yield families.gauge(
        'pass_duration_seconds',
        'How long the last pass of this host took.',
        summary.seconds,
    )
    yield families.gauge(
        'problems',
        'Problems in the last pass, ten at most.',
        len(summary.problems),
    )
    yield families.gauge(
        'sharing_hosts',
        'Hosts that share the cache, this one included.',
        summary.hosts,
    )


def _of_space(summary: summaries.Summary) -> Iterator[families.Family]:
    keys = [(kind, use) for kind in names.Kind for use in summaries.Use]
    amounts: dict[families.Labels, summaries.Amount] = {
        (str(kind), str(use)): summary.usage.get(
            f'{kind}/{use}', summaries.Amount()
        )
        for kind, use in keys
    }
    yield from families.pair(
        families.Kind.GAUGE,
        ('files', 'Files in the cache and in its trash.'),
        ('allocated_bytes', 'Bytes that these files take on the disk.'),
        ('kind', 'state'),
        amounts,
    )
    yield families.gauge(
        'pressure_shortfall_bytes',
        'Bytes that should go to make room, and cannot.',
        summary.shortfall,
    )


def _of_removal(summary: summaries.Summary) -> Iterator[families.Family]:
    for name, text, things in (
        (
            'removal_vetoed',
            'Things that keep all unused files.',
            summary.vetoed,
        ),
        (
            'removal_withheld',
            'Things that keep some unused files.',
            summary.withheld,
        ),
    ):
        counts: dict[str, float] = {
            each: things.get(each, 0) for each in vetoing.Reason
        }
        yield families.by(families.Kind.GAUGE, name, text, 'reason', counts)
    yield families.gauge(
        'removal_vetoed_since_timestamp_seconds',
        'Since when something keeps unused files in each pass.',
        summary.vetoed_since,
    )
    yield families.gauge(
        'last_removal_timestamp_seconds',
        'When a file was last removed or deleted by any host.',
        summary.last_removal,
    )
    yield from families.pair(
        families.Kind.COUNTER,
        ('removed_files_total', 'Base files that were removed by this host.'),
        ('removed_bytes_total', 'Bytes that these took on the disk.'),
        ('reason',),
        {
            (str(each),): summary.removed.get(each, summaries.Amount())
            for each in summaries.Cause
        },
    )


def _of_verification(summary: summaries.Summary) -> Iterator[families.Family]:
    yield families.gauge(
        'verification_enabled',
        'Whether base files are to be verified (checksum_base_images).',
        summary.checksums,
    )
    yield families.gauge(
        'verifiable_bytes',
        'Bytes that base files take on the disk; 0 if none are verified.',
        summary.size,
    )
    yield families.gauge(
        'verified_bytes',
        'Bytes of base files that were verified in time.',
        summary.verified,
    )
    yield families.gauge(
        'oldest_verification_timestamp_seconds',
        'When the file was verified whose verification is the oldest.',
        summary.oldest,
    )
    yield from families.pair(
        families.Kind.GAUGE,
        (
            'verification_overdue_files',
            'Base files that should have been read long since.',
        ),
        (
            'verification_overdue_bytes',
            'Bytes that these take on the disk.',
        ),
        (),
        {(): summary.overdue},
    )
    yield families.gauge(
        'scrub_needed_bytes_per_second',
        'Rate at which all base files can be verified in time.',
        summary.needed,
    )
    yield families.gauge(
        'scrub_limit_bytes_per_second',
        'Rate that is allowed at most; 0 is no limit.',
        summary.limit,
    )


def _of_damage(summary: summaries.Summary) -> Iterator[families.Family]:
    yield from families.pair(
        families.Kind.GAUGE,
        ('damaged_files', 'Base files that guests may be hit by.'),
        ('damaged_bytes', 'Bytes in them that are bad.'),
        ('verdict',),
        {
            (str(each),): summary.damage.get(each, summaries.Amount())
            for each in VERDICTS
        },
    )
    yield families.by(
        families.Kind.GAUGE,
        'exposed_guests',
        'Guests over these files, by what becomes of bad bytes in them.',
        'effect',
        {each: summary.exposed.get(each, 0) for each in exposure.Effect},
    )
    yield families.Family(
        'damaged_file_info',
        families.Kind.GAUGE,
        'One of these files; always 1.',
        ('name', 'image_id', 'verdict'),
        [
            ((each.name, each.image or '', each.verdict), 1.0)
            for each in summary.damaged
        ],
    )
    yield families.Family(
        'damaged_file_readers',
        families.Kind.GAUGE,
        'Guests that are seen to read it.',
        ('name',),
        [((each.name,), float(each.readers)) for each in summary.damaged],
    )
    yield families.gauge(
        'damaged_files_truncated',
        'Damaged files that are not listed by name.',
        summary.unnamed,
    )


def _of_scrub(facts: Facts) -> Iterator[families.Family]:
    activity = facts.activity
    at_work = activity is not None and activity.ended is None
    yield families.gauge(
        'scrub_running',
        'Whether a scrub of the cache is at work, on whatever host.',
        at_work and facts.running,
    )
    yield families.gauge(
        'scrub_last_progress_timestamp_seconds',
        'When the last scrub of the cache last noted what it does.',
        activity.updated.wall if activity else None,
    )
    yield families.counter(
        'scrub_read_bytes_total',
        'Bytes that scrubs of the cache have read, on whatever host.',
        activity.total if activity else 0,
    )


def _of_repairs(repairs: Repairs) -> Iterator[families.Family]:
    for name, text, totals in (
        ('repairs_total', 'Blocks that were to be repaired.', repairs.totals),
        (
            'repair_fetched_bytes_total',
            'Bytes that were fetched for that.',
            repairs.fetched,
        ),
    ):
        yield families.Family(
            name,
            families.Kind.COUNTER,
            text,
            ('source', 'result'),
            [
                (
                    (families.label_of(source), families.label_of(result)),
                    float(count),
                )
                for (source, result), count in sorted(totals.items())
            ],
        )
    yield families.gauge(
        'repair_paused',
        'Whether nothing more is repaired for now.',
        repairs.paused,
    )


def _of_builds(
    counts: Mapping[tallies.Event, int],
) -> Iterator[families.Family]:
    refused = tallies.Event.REFUSED
    yield families.by(
        families.Kind.COUNTER,
        'fetch_requests_total',
        'Requests for the base file of an image on this host.',
        'result',
        {
            each: counts.get(each, 0)
            for each in tallies.Event
            if each is not refused
        },
    )
    yield families.counter(
        'builds_refused_total',
        'Disks that were not made, as their base file is known to be bad.',
        counts.get(refused, 0),
    )
