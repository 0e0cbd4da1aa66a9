# SPDX-License-Identifier: Apache-2.0

"""How a node is, in the order of harm: pure functions over a report."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import enum

from nova_imagecache import codes
from nova_imagecache import names
from nova_imagecache.outlets import messages
from nova_imagecache.passes import reports


class Health(enum.StrEnum):
    """How a node is, in a word; the exit codes follow it."""

    OK = 'OK'
    NOT_CHECKED = 'OK, NOT CHECKED YET'
    DEGRADED = 'DEGRADED'
    DAMAGED = 'DAMAGED'


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that somebody may have to look into.

    :ivar text: a sentence
    :ivar subject: the name of a file, a path or a host; empty for the node
    :ivar image: ID of the image of the file, where it is known
    :ivar guests: UUIDs of the guests that it hits
    :ivar since: seconds since the epoch; None where that is not known
    :ivar action: the command that helps, or says what does
    :ivar size: bytes that are bad
    :ivar image_name: what people call the image, where that is known
    """

    code: codes.Code
    text: str
    subject: str = ''
    image: str | None = None
    guests: tuple[str, ...] = ()
    since: float | None = None
    action: str = ''
    size: int = 0
    image_name: str = ''

    @property
    def severity(self) -> codes.Severity:
        """How bad it is."""
        return self.code.severity


def _explain(what: object) -> str:
    return f'nova-imagecache explain {what}'


def _of_files(
    report: reports.Report, since: Mapping[str, float]
) -> Iterator[Check]:
    for file in report.outdated:
        yield Check(
            codes.Code.ANEW,
            'it was made anew with other bytes under guests whose disks are '
            'older',
            file.name,
            file.image,
            file.outdated,
            since.get(file.name),
            _explain(names.printable(file.name)),
            image_name=file.image_name,
        )
    for file in report.harmful:
        yield Check(
            file.code or codes.Code.CORRUPT,
            file.note,
            file.name,
            file.image,
            file.readers,
            since.get(file.name),
            _explain(names.printable(file.name)),
            sum(each.end - each.start for each in file.bad),
            file.image_name,
        )


def _of_problem(problem: codes.Problem, since: float | None = None) -> Check:
    return Check(
        problem.code,
        str(problem),
        problem.subject,
        guests=problem.guests,
        since=since,
        action=_explain(problem.code),
    )


def checks(
    report: reports.Report, since: Mapping[str, float] | None = None
) -> tuple[Check, ...]:
    """Give all that somebody may have to look into, the worst first.

    :param since: when files were found to be damaged, by name
    """
    vetoed = None
    if report.vetoed_seconds is not None:
        vetoed = report.made - report.vetoed_seconds
    found = [
        *_of_files(report, since or {}),
        *(
            _of_problem(veto, vetoed)
            for veto in (*report.vetoes, *report.withheld)
        ),
        *map(_of_problem, messages.problems(report)),
    ]
    return tuple(
        sorted(
            found,
            key=lambda each: (
                each.code.rank,
                -len(each.guests),
                -each.size,
                each.subject,
            ),
        )
    )


def health(report: reports.Report, found: Iterable[Check]) -> Health:
    """Say how a node is, in a word."""
    severities = {each.severity for each in found}
    if codes.Severity.DAMAGE in severities:
        return Health.DAMAGED
    if codes.Severity.PROBLEM in severities:
        return Health.DEGRADED
    coverage = report.coverage
    if report.checksums and coverage.files and coverage.oldest is None:
        return Health.NOT_CHECKED
    return Health.OK
