# SPDX-License-Identifier: Apache-2.0

"""A report in words: pure functions, and the one place with its wording."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import enum
from typing import NamedTuple

from nova_imagecache import codes
from nova_imagecache.content import knowledge
from nova_imagecache import measures
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


class Message(NamedTuple):
    """One line.

    :ivar text: with ``%(name)s`` for each of the details
    :ivar code: of what somebody has to look into
    :ivar subject: what ``explain`` is asked for, if not the code
    """

    level: Level
    text: str
    details: Mapping[str, object]
    code: codes.Code | None = None
    subject: str = ''

    @property
    def line(self) -> str:
        """The line, cut to what a log takes if somebody is to see it."""
        text = self.text % self.details
        if self.code is None:
            return text
        text = f'[{self.code}] {text}'
        more = f'nova-imagecache explain {self.subject or self.code}'
        if self.subject:
            return codes.clipped(text, end=f' See: {more}')
        whole = codes.clipped(text)
        if whole == ' '.join(text.split()):
            return whole
        return codes.clipped(text, end=f' ({more})')


def _allocated(files: tuple[reports.FileReport, ...]) -> int:
    return sum(file.allocated for file in files)


def shortfall(coverage: schedule.Coverage) -> str | None:
    """Say why a cache cannot be verified in time, if it cannot."""
    if coverage.sufficient:
        return None
    return (
        f'to read {measures.size(coverage.size)} once in '
        'checksum_interval_seconds takes '
        f'{measures.rate(coverage.needed)}, and '
        'scrub_bandwidth_mib_per_second allows '
        f'{measures.rate(coverage.limit)}; raise one of them'
    )


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' + ('' if number == 1 else 's')


def _fare(file: reports.FileReport) -> Iterator[str]:
    """Name the guests of a file, and how each fares with its damage."""
    effects: dict[str, dict[str, int]] = {}
    for each in file.exposures:
        totals = effects.setdefault(each.guest, {})
        for extent in each.extents:
            length = extent.end - extent.start
            totals[extent.effect] = totals.get(extent.effect, 0) + length
    for user in file.readers:
        totals = effects.get(user, {})
        parts = ', '.join(f'{effect} {n} B' for effect, n in totals.items())
        yield names.printable(user) + (f' ({parts})' if parts else '')


def _some(texts: Sequence[str], room: int) -> str:
    """Name as many as there is room for, and count the others."""
    if not texts:
        return 'none'
    shown = ''
    for number, text in enumerate(texts):
        left = len(texts) - number - 1
        more = f' and {left} more' if left else ''
        longer = f'{shown}, {text}' if shown else text
        if _size(f'{longer}{more}') > room:
            left = len(texts) - number
            return f'{shown} and {left} more' if shown else str(left)
        shown = longer
    return shown


def _keepers(file: reports.FileReport) -> str:
    """Count those of which no disk shows that they read a file."""
    others = len([user for user in file.users if user not in file.readers])
    if not others:
        return ''
    return f' Kept for {others} more.'


def _warning(text: str, name: str, problem: codes.Problem) -> Message:
    return Message(Level.WARNING, text, {name: problem}, problem.code)


def problems(report: reports.Report) -> tuple[codes.Problem, ...]:
    """Give what makes the exit code, what does not, and what is advised."""
    late = shortfall(report.coverage) if report.checksums else None
    advice = [] if late is None else [codes.Problem(codes.Code.RATE, late)]
    return (*report.problems, *report.notes, *advice)


def of_findings(report: reports.Report) -> Iterator[Message]:
    """Say what somebody has to look into."""
    for veto in report.vetoes:
        yield _warning(
            'Nothing is removed from the image cache: %(veto)s', 'veto', veto
        )
    for veto in report.withheld:
        yield _warning(
            'Some unused files stay in the image cache: %(veto)s', 'veto', veto
        )
    for text in problems(report):
        yield _warning('Image cache: %(text)s', 'text', text)
    yield from of_damage(report)


_VERBS = {
    knowledge.Verdict.CORRUPT: 'is corrupt',
    knowledge.Verdict.UNREADABLE: 'is unreadable',
    knowledge.Verdict.DIFFERS: 'differs from an earlier file of it',
}

# Of what is wrong with a file, in a log line; less says nothing.
_NOTE_BYTES = 90
_LEAST_NOTE_BYTES = 20
# What it is worth to name the file, or its image, in less.
_FEW_NOTE_BYTES = 60
# Of what people call an image.
_NAME_BYTES = 24
# One guest with its name, and the number of the others.
_GUESTS_BYTES = 60


def _size(text: str) -> int:
    return len(text.encode(errors='replace'))


def _room(
    text: str, details: Mapping[str, object], code: codes.Code, subject: str
) -> tuple[Message, int]:
    """Give an error without what is cut, and the bytes for that."""
    fixed = {**details, 'note': '', 'guests': ''}
    empty = Message(Level.ERROR, text, fixed, code, subject)
    room = codes.LINE_BYTES - _size(empty.line)
    return empty, room


def _told_in_full(
    text: str,
    details: Sequence[Mapping[str, object]],
    guests: Sequence[str],
    bare: Sequence[str],
    code: codes.Code,
    name: str,
    note: str = '',
) -> Message:
    """Give an error that says as much as its line has room for.

    :param details: with all that names the file, and with less and less
    :param guests: with how each fares
    :param bare: without
    """
    subject = names.printable(names.abbreviated(name))
    wanted = min(_FEW_NOTE_BYTES, _size(note))
    # And the colon before the note.
    reserved = min(_GUESTS_BYTES, _size(', '.join(bare))) + 2
    for each in details:
        # What is wrong counts more; "explain" has the rest.
        empty, room = _room(text, each, code, subject)
        if room >= wanted + reserved:
            break
    left = min(_NOTE_BYTES, room - reserved)
    says = note and left > _LEAST_NOTE_BYTES
    note = f': {codes.clipped(note, left)}' if says else ''
    room -= _size(note)
    if _size(', '.join(guests)) > room:
        # Who it is counts more than how each fares.
        guests = bare
    return empty._replace(
        details={**empty.details, 'note': note, 'guests': _some(guests, room)},
    )


def _outdated(report: reports.Report) -> Iterator[Message]:
    for file in report.outdated:
        yield _told_in_full(
            'Base file %(path)s was made anew with other bytes under guests '
            'whose disks are older: %(guests)s.',
            [{'path': names.printable(f'{report.cache_dir}/{file.name}')}],
            [*map(names.printable, file.outdated)],
            [*map(names.printable, file.outdated)],
            codes.Code.ANEW,
            file.name,
        )


def _names(
    report: reports.Report, file: reports.FileReport
) -> Iterator[Mapping[str, object]]:
    """Name a file and its image, with less and less."""
    called = codes.clipped(file.image_name, _NAME_BYTES)
    image = file.image or 'unknown'
    for path, whole in (
        (f'{report.cache_dir}/{file.name}', True),
        (f'{report.cache_dir}/{file.name}', False),
        (file.name, False),
    ):
        yield {
            'path': names.printable(path),
            'image': f'{image} "{called}"' if whole and called else image,
            'verdict': _VERBS[file.checksum],
            'keepers': _keepers(file),
        }


def of_damage(report: reports.Report) -> Iterator[Message]:
    """Say which files are bad, and whom that hits."""
    yield from _outdated(report)
    for file in report.harmful:
        yield _told_in_full(
            'Base file %(path)s (image %(image)s) %(verdict)s'
            '%(note)s. Guests that read it: %(guests)s.%(keepers)s',
            [*_names(report, file)],
            [*_fare(file)],
            [*map(names.printable, file.readers)],
            file.code or codes.Code.CORRUPT,
            file.name,
            file.note,
        )


def of_pass(
    report: reports.Report, each_file: bool = True
) -> Iterator[Message]:
    """Say all that operators want to know of a pass.

    :param each_file: whether to say of each file what became of it
    """
    yield from of_findings(report)
    yield from _what_was_done(report)
    for file in report.files + report.trash if each_file else ():
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
    yield from _how_it_is(report)


def of_work(report: reports.Report) -> Iterator[Message]:
    """Say what a pass has done, and how the cache is."""
    yield from _what_was_done(report)
    yield from _how_it_is(report)


def _how_it_is(report: reports.Report) -> Iterator[Message]:
    yield _summary(report)
    if report.checksums:
        yield _coverage(report)


def _what_was_done(report: reports.Report) -> Iterator[Message]:
    would = 'Would have ' if report.dry_run else ''
    for done, files in (
        ('moved to the trash:', report.removed),
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
        'Image cache %(path)s: %(files)s, %(used)d in use, %(removed)d moved '
        'to the trash (%(moved)s), %(corrupt)d corrupt; %(trash)d in the '
        'trash, %(deleted)d deleted (%(freed)s)',
        {
            'path': report.cache_dir,
            'files': _count(len(report.files), 'file'),
            'used': sum(file.used for file in report.files),
            'removed': len(removed),
            'moved': measures.size(_allocated(removed)),
            'trash': sum(
                file.action is decide.Action.KEEP for file in report.trash
            ),
            'deleted': len(deleted),
            'freed': measures.size(_allocated(deleted)),
            'corrupt': len(report.corrupt),
        },
    )


def _coverage(report: reports.Report) -> Message:
    return Message(
        Level.INFO,
        'Image cache %(path)s: %(verified)s of %(size)s verified, '
        '%(digested)s digested; %(queue)s (%(queued)s) to be read now',
        {
            'path': report.cache_dir,
            'verified': measures.size(report.coverage.verified),
            'size': measures.size(report.coverage.size),
            'digested': measures.size(report.coverage.digested),
            'queue': _count(report.coverage.queue, 'file'),
            'queued': measures.size(report.coverage.queue_size),
        },
    )
