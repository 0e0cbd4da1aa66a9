# SPDX-License-Identifier: Apache-2.0

"""Noting damage as an incident, from what a report says (decision 0093)."""

from collections.abc import Iterator
from collections.abc import Mapping
import logging

from nova_imagecache.cache import layouts
from nova_imagecache.content import incidents
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.passes import reports
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import qcow2_map

LOG = logging.getLogger(__name__)


def _copied_up(file: reports.FileReport) -> Iterator[str]:
    for each in file.exposures:
        if any(
            extent.effect is qcow2_map.Effect.COPIED for extent in each.extents
        ):
            yield names.printable(each.guest)


def _last_good(entry: schedule.Entry | None) -> float | None:
    """Say when a file was compared and good, if it was, before the pass."""
    if entry is None or entry.known.ledger is None:
        return None
    verified = entry.known.ledger.verified
    good = entry.known.finding.verdict is knowledge.Verdict.GOOD
    return verified.wall if verified and good else None


def _sight(
    file: reports.FileReport, entry: schedule.Entry | None
) -> incidents.Sight:
    return incidents.Sight(
        str(file.checksum),
        file.image,
        _last_good(entry),
        tuple((each.start, each.end) for each in file.bad),
        tuple(map(names.printable, file.readers)),
        tuple(dict.fromkeys(_copied_up(file))),
    )


def note(
    layout: layouts.Layout,
    report: reports.Report,
    entries: Mapping[str, schedule.Entry],
) -> None:
    """Remember damage, and what became of it; a failure is logged.

    :param report: on all files in the cache
    :param entries: what was known of the files before, by name
    """
    good = knowledge.Verdict.GOOD
    try:
        incidents.note(
            layout,
            {
                file.name: _sight(file, entries.get(file.name))
                for file in report.harmful
            },
            {file.name for file in report.files if file.checksum is good},
            {file.name for file in report.files},
            report.made,
        )
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[P13] Incidents cannot be noted in %(path)s: %(error)s',
            {'path': layout.incidents, 'error': error},
        )
