# SPDX-License-Identifier: Apache-2.0

"""What a pass leaves for whoever shows metrics."""

import dataclasses
import functools

from nova_imagecache.cache import hosts
from nova_imagecache.cache import layouts
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.outlets import summaries
from nova_imagecache.outlets import totals
from nova_imagecache.passes import reports


def kept(settings: Settings, report: reports.Report) -> reports.Report:
    """Leave the figures of a pass; give its report, with what went wrong."""
    problems = keep(settings, report)
    if not problems:
        return report
    return dataclasses.replace(report, problems=(*report.problems, *problems))


def keep(settings: Settings, report: reports.Report) -> list[codes.Problem]:
    """Leave the figures of a pass, and write the file for node_exporter.

    Nothing is written where the pass could not be made: what the last one has
    left is old then, and looks so.

    :returns: what could not be done, a sentence each
    """
    if report.began is None or report.dry_run:
        return []
    layout = layouts.Layout.of(settings)
    problems = []
    try:
        _save(layout, settings.host, report, settings.metrics_base_files)
    except (errors.Error, OSError) as error:
        problems.append(
            codes.Problem(
                codes.Code.NOT_KEPT,
                'the figures of this pass cannot be kept in '
                f'{layout.summaries}: {error}',
            )
        )
    return problems + write(settings)


def _save(
    layout: layouts.Layout,
    host: str,
    report: reports.Report,
    with_names: bool,
) -> None:
    """Leave the figures of a pass, and add to what was removed in all.

    :param report: of a pass that was made
    :raises nova_imagecache.errors.NotNow: the lock cannot be had
    :raises OSError: they were not saved
    """
    if report.began is None or report.ended is None:
        return
    with summaries.locked(layout):
        before = summaries.load_or_begin(layout, host)
        after = totals.summarised(
            report,
            host,
            report.began,
            report.ended,
            before.removed if before else {},
            _sharing(layout),
            with_names,
        )
        summaries.put(layout, host, after)


def _sharing(layout: layouts.Layout) -> int:
    """Count the hosts that share the cache, this one included."""
    try:
        return max(1, len(hosts.names_of(layout)))
    except OSError:
        return 1


def write(settings: Settings) -> list[codes.Problem]:
    """Write the file for node_exporter, if there is to be one.

    Whoever has changed what it says does: the pass, and a scrub that has found
    damage or is through.

    :returns: what could not be done, a sentence each
    """
    path = settings.metrics_textfile
    if not path:
        return []
    # Most commands write none, and should start without it (decision 0084).
    from nova_imagecache.outlets import exposition
    from nova_imagecache.outlets import textfiles

    layout = layouts.Layout.of(settings)
    try:
        textfiles.write(
            path,
            functools.partial(exposition.gather, layout, settings.host),
        )
    except (errors.Error, OSError) as error:
        return [
            codes.Problem(
                codes.Code.NOT_KEPT,
                f'metrics cannot be written to {path}: {error}',
            )
        ]
    return []
