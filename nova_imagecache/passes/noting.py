# SPDX-License-Identifier: Apache-2.0

"""Noting damage as an incident, from what a report says (decision 0093)."""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import logging

from nova_imagecache.cache import identity
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


def _key(entry: schedule.Entry | None) -> identity.Key | None:
    return entry.known.key if entry else None


def _good(entry: schedule.Entry | None) -> incidents.Good:
    return incidents.Good.of(entry.known) if entry else incidents.Good()


def _sight(
    file: reports.FileReport,
    before: schedule.Entry | None,
    after: schedule.Entry | None,
) -> incidents.Sight:
    return incidents.Sight(
        str(file.checksum),
        file.image,
        before.known.last_good if before else None,
        tuple((each.start, each.end) for each in file.bad),
        tuple(map(names.printable, file.readers)),
        tuple(dict.fromkeys(_copied_up(file))),
        file.image_name or None,
        _key(after),
    )


def note(
    layout: layouts.Layout,
    report: reports.Report,
    before: Mapping[str, schedule.Entry],
    after: Mapping[str, schedule.Entry],
) -> None:
    """Remember damage, and what became of it; a failure is logged.

    :param report: on all files in the cache
    :param before: what was known of the files when the pass began, by name
    :param after: and what is now
    """
    good = knowledge.Verdict.GOOD
    _note(
        layout,
        {
            file.name: _sight(
                file, before.get(file.name), after.get(file.name)
            )
            for file in report.harmful
        },
        {
            file.name: _good(after.get(file.name))
            for file in report.files
            if file.checksum is good
        },
        {file.name for file in report.files},
        report.made,
    )


def note_guests(layout: layouts.Layout, report: reports.Report) -> None:
    """Remember whom damage hits that is noted already, likewise.

    :param report: on some of the files
    """
    damaged = {file.name: _sight(file, None, None) for file in report.harmful}
    _note(layout, damaged, {}, None, report.made)


def _note(
    layout: layouts.Layout,
    damaged: Mapping[str, incidents.Sight],
    good: Mapping[str, incidents.Good],
    present: Collection[str] | None,
    now: float,
) -> None:
    try:
        incidents.note(layout, damaged, good, present, now)
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[P13] Incidents cannot be noted in %(path)s: %(error)s',
            {'path': layout.incidents, 'error': error},
        )
