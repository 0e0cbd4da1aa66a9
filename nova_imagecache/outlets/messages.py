# SPDX-License-Identifier: Apache-2.0

"""A report in words: pure functions, and the one place with its wording."""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import enum

from oslo_utils import units

from nova_imagecache.content import knowledge
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from nova_imagecache.scrub import schedule


class Level(enum.IntEnum):
    """How urgent a message is; with the numbers of Python's logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclasses.dataclass(frozen=True)
class Message:
    """One line.

    :ivar text: with ``%(name)s`` for each of the details
    """

    level: Level
    text: str
    details: Mapping[str, object]


def _allocated(files: tuple[reports.FileReport, ...]) -> int:
    return sum(file.allocated for file in files)


def shortfall(coverage: schedule.Coverage) -> str | None:
    """Say why a cache cannot be verified in time, if it cannot."""
    if coverage.sufficient:
        return None
    return (
        f'to read {coverage.size / units.Gi:.1f} GiB once in '
        'checksum_interval_seconds takes '
        f'{coverage.needed / units.Mi:.1f} MiB/s, and '
        'scrub_bandwidth_mib_per_second allows '
        f'{coverage.limit / units.Mi:.1f}; raise one of them'
    )


def _fare(file: reports.FileReport) -> str:
    """Name the guests of a file, and how each fares with its damage."""
    effects: dict[str, dict[str, int]] = {}
    for each in file.exposures:
        totals = effects.setdefault(each.guest, {})
        for extent in each.extents:
            length = extent.end - extent.start
            totals[extent.effect] = totals.get(extent.effect, 0) + length
    texts = []
    for user in file.readers:
        totals = effects.get(user, {})
        parts = ', '.join(f'{effect} {n} B' for effect, n in totals.items())
        texts.append(names.printable(user) + (f' ({parts})' if parts else ''))
    return ', '.join(texts) or 'none'


def _keepers(file: reports.FileReport) -> str:
    """Name those of which no disk shows that they read a file."""
    others = [user for user in file.users if user not in file.readers]
    if not others:
        return ''
    shown = ', '.join(map(names.printable, others))
    return f' Of the same image, and not seen to read it: {shown}.'


def of_findings(report: reports.Report) -> Iterator[Message]:
    """Say what somebody has to look into."""
    for veto in report.vetoes:
        yield Message(
            Level.WARNING,
            'Nothing is removed from the image cache: %(veto)s',
            {'veto': veto},
        )
    for veto in report.withheld:
        yield Message(
            Level.WARNING,
            'Some unused files stay in the image cache: %(veto)s',
            {'veto': veto},
        )
    late = shortfall(report.coverage) if report.checksums else None
    for text in (*report.problems, *report.notes, *([late] if late else [])):
        yield Message(Level.WARNING, 'Image cache: %(text)s', {'text': text})
    yield from of_damage(report)


_VERBS = {
    knowledge.Verdict.CORRUPT: 'is corrupt',
    knowledge.Verdict.UNREADABLE: 'is unreadable',
    knowledge.Verdict.DIFFERS: 'differs from an earlier file of it',
}


def _outdated(report: reports.Report) -> Iterator[Message]:
    for file in report.outdated:
        yield Message(
            Level.ERROR,
            'Base file %(path)s was made anew with other bytes under guests '
            'whose disks are older: %(guests)s. What they read of the file '
            'has changed; see "When a file differs" on the operators\' page.',
            {
                'path': f'{report.cache_dir}/{file.name}',
                'guests': ', '.join(map(names.printable, file.outdated)),
            },
        )


def of_damage(report: reports.Report) -> Iterator[Message]:
    """Say which files are bad, and whom that hits."""
    yield from _outdated(report)
    for file in report.harmful:
        yield Message(
            Level.ERROR,
            'Base file %(path)s (image %(image)s) %(verdict)s: '
            '%(reason)s. Guests that read it: %(guests)s.%(keepers)s',
            {
                'path': f'{report.cache_dir}/{file.name}',
                'image': file.image or 'unknown',
                'verdict': _VERBS[file.checksum],
                'reason': file.reason,
                'guests': _fare(file),
                'keepers': _keepers(file),
            },
        )


def of_pass(report: reports.Report) -> Iterator[Message]:
    """Say all that operators want to know of a pass."""
    yield from of_findings(report)
    yield from _what_was_done(report)
    for file in report.files + report.trash:
        yield Message(
            Level.DEBUG,
            '%(name)s (%(kind)s, image %(image)s): %(action)s, %(reason)s; '
            'checksum %(checksum)s; users: %(users)s',
            {
                'name': names.printable(file.name),
                'kind': file.kind,
                'image': file.image,
                'action': file.action,
                'reason': file.reason,
                'checksum': file.checksum,
                'users': ', '.join(map(names.printable, file.users)),
            },
        )
    yield _summary(report)
    if report.checksums:
        yield _coverage(report)


def _what_was_done(report: reports.Report) -> Iterator[Message]:
    would = 'Would have ' if report.dry_run else ''
    for done, files in (
        ('removed', report.removed),
        ('put back', report.restored),
        ('deleted', report.deleted),
    ):
        for file in files:
            yield Message(
                Level.INFO,
                '%(done)s %(kind)s file %(name)s: %(reason)s',
                {
                    'done': f'{would}{done}'.capitalize(),
                    'kind': file.kind,
                    'name': file.name,
                    'reason': file.reason,
                },
            )


def _summary(report: reports.Report) -> Message:
    removed = () if report.dry_run else report.removed
    deleted = () if report.dry_run else report.deleted
    return Message(
        Level.INFO,
        'Image cache %(path)s: %(files)d files, %(used)d in use, '
        '%(removed)d removed (%(moved).0f MiB), %(corrupt)d corrupt; '
        '%(trash)d in the trash, %(deleted)d deleted (%(freed).0f MiB)',
        {
            'path': report.cache_dir,
            'files': len(report.files),
            'used': sum(file.used for file in report.files),
            'removed': len(removed),
            'moved': _allocated(removed) / units.Mi,
            'trash': sum(
                file.action is decide.Action.KEEP for file in report.trash
            ),
            'deleted': len(deleted),
            'freed': _allocated(deleted) / units.Mi,
            'corrupt': len(report.corrupt),
        },
    )


def _coverage(report: reports.Report) -> Message:
    return Message(
        Level.INFO,
        'Image cache %(path)s: %(verified).1f of %(size).1f GiB verified, '
        '%(digested).1f GiB digested; %(queue)d files (%(queued).1f GiB) '
        'to be read now',
        {
            'path': report.cache_dir,
            'verified': report.coverage.verified / units.Gi,
            'size': report.coverage.size / units.Gi,
            'digested': report.coverage.digested / units.Gi,
            'queue': report.coverage.queue,
            'queued': report.coverage.queue_size / units.Gi,
        },
    )
