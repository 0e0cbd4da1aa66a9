# SPDX-License-Identifier: Apache-2.0

"""What a pass has seen and done, in figures: pure functions."""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools

from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache import names
from nova_imagecache.outlets import summaries
from nova_imagecache.passes import reports

# Sentences of a kind.
_MOST_SENTENCES = 10

_ANEW = 'it was made anew with other bytes under guests whose disks are older'


def bad_bytes(file: reports.FileReport) -> int:
    """Say how much of a file is bad: all, where only that is known."""
    return sum(each.end - each.start for each in file.bad) or file.size


def _damaged(
    file: reports.FileReport, titles: Mapping[str, str]
) -> summaries.Damaged:
    readers = file.readers if file.code else file.outdated
    return summaries.Damaged(
        names.printable(file.name),
        file.image,
        _verdict(file),
        names.printable(file.note or file.reason) if file.code else _ANEW,
        bad_bytes(file),
        len(readers),
        tuple(
            names.printable(f'{each} {titles.get(each, "")}'.strip())
            for each in readers[: summaries.MOST_GUESTS]
        ),
        file.image_name or None,
    )


def _verdict(file: reports.FileReport) -> str:
    return str(file.checksum) if file.code else summaries.MADE_ANEW


def _worst(
    harmful: Iterable[reports.FileReport],
    outdated: Iterable[reports.FileReport],
) -> list[reports.FileReport]:
    """Give the files that guests may be hit by, those first that they read."""
    anew = [file for file in outdated if file.code is None]
    return [*sorted(harmful, key=lambda file: not file.readers), *anew]


def _sentences(found: Iterable[codes.Problem]) -> tuple[str, ...]:
    return tuple(
        f'[{each.code}] {names.printable(each)}'
        for each in itertools.islice(found, _MOST_SENTENCES)
    )


def _exposed(files: Iterable[reports.FileReport]) -> dict[str, int]:
    """Count the guests by what becomes of bad bytes in them."""
    guests: dict[str, set[str]] = {}
    for file in files:
        told = set()
        for each in file.exposures:
            for extent in each.extents:
                told.add(each.guest)
                guests.setdefault(str(extent.effect), set()).add(each.guest)
        # Who reads it, and has no map that tells what of it.
        unknown = {*file.readers} - told
        if unknown and not file.exposures:
            guests.setdefault('unknown', set()).update(unknown)
    return {effect: len(found) for effect, found in guests.items()}


def _cause(file: reports.FileReport) -> summaries.Cause:
    if file.kind is names.Kind.LEFTOVER:
        return summaries.Cause.LEFTOVER
    return summaries.Cause.SPACE if file.early else summaries.Cause.UNUSED


def _usage(report: reports.Report) -> dict[str, summaries.Amount]:
    gone = {file.name for file in report.removed}
    emptied = {file.name for file in (*report.deleted, *report.restored)}
    Use = summaries.Use
    # Of many files it takes longest, so it makes no object for each.
    sizes: dict[tuple[names.Kind, summaries.Use], list[int]] = (
        collections.defaultdict(list)
    )
    for file in report.files:
        if file.name not in gone:
            use = Use.USED if file.used else Use.UNUSED
            sizes[file.kind, use].append(file.allocated)
    # What was moved takes its space there, and what came back here.
    for file in report.removed:
        sizes[file.kind, Use.TRASHED].append(file.allocated)
    for file in report.restored:
        sizes[file.kind, Use.UNUSED].append(file.allocated)
    for file in report.trash:
        if file.name not in emptied:
            sizes[file.kind, Use.TRASHED].append(file.allocated)
    return {
        f'{kind}/{use}': summaries.Amount(len(found), sum(found))
        for (kind, use), found in sizes.items()
    }


def _removed(
    before: Mapping[str, summaries.Amount], report: reports.Report
) -> dict[str, summaries.Amount]:
    none = {str(cause): summaries.Amount() for cause in summaries.Cause}
    after = none | {**before}
    for file in report.removed:
        after[_cause(file)] += summaries.Amount(1, file.allocated)
    return after


def _images(report: reports.Report) -> Iterator[summaries.Named]:
    for file in report.files:
        if file.kind.is_image and file.image:
            yield summaries.Named(file.name, file.image)


def summarised(
    report: reports.Report,
    host: str,
    began: clocks.Instant,
    ended: clocks.Instant,
    removed: Mapping[str, summaries.Amount],
    sharing: int,
    with_names: bool = False,
) -> summaries.Summary:
    """Put a report in figures.

    :param removed: in all passes before
    :param sharing: how many hosts share the cache
    :param with_names: whether each base file of an image is named
    """

    def ago(seconds: float | None) -> float | None:
        return None if seconds is None else round(ended.wall - seconds)

    vetoed: dict[str, int] = {}
    withheld: dict[str, int] = {}
    for each in report.obstacles:
        counts = withheld if each.is_narrow else vetoed
        reason = str(each.reason)
        counts[reason] = counts.get(reason, 0) + 1
    damage: dict[str, summaries.Amount] = {}
    harmful = report.harmful
    worst = _worst(harmful, report.outdated)
    for file in worst:
        verdict = _verdict(file)
        known = damage.get(verdict, summaries.Amount())
        damage[verdict] = known + summaries.Amount(1, bad_bytes(file))
    coverage = report.coverage
    return summaries.Summary(
        host=names.printable(host),
        ended=ended.wall,
        seconds=max(0.0, clocks.elapsed(began, ended)),
        usage=_usage(report),
        vetoed=vetoed,
        withheld=withheld,
        vetoed_since=ago(report.vetoed_seconds),
        last_removal=ago(report.removed_seconds),
        removed=_removed(removed, report),
        shortfall=report.shortfall,
        checksums=report.checksums,
        size=coverage.size,
        verified=coverage.verified,
        oldest=ago(coverage.oldest),
        overdue=summaries.Amount(coverage.overdue, coverage.overdue_size),
        needed=coverage.needed,
        limit=coverage.limit,
        damage=damage,
        exposed=_exposed(harmful),
        damaged=tuple(
            _damaged(file, report.titles)
            for file in worst[: summaries.MOST_NAMED]
        ),
        unnamed=max(0, len(worst) - summaries.MOST_NAMED),
        hosts=sharing,
        vetoes=_sentences((*report.vetoes, *report.withheld)),
        problems=_sentences(report.problems),
        images=tuple(_images(report) if with_names else ()),
    )
