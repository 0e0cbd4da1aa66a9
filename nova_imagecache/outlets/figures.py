# SPDX-License-Identifier: Apache-2.0

"""What a pass leaves for whoever shows metrics."""

import functools

from nova_imagecache.cache import layouts
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import summaries
from nova_imagecache.outlets import textfiles
from nova_imagecache.passes import reports


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
        summaries.save(
            layout, settings.host, report, settings.metrics_base_files
        )
    except (errors.Error, OSError) as error:
        problems.append(
            codes.Problem(
                codes.Code.NOT_KEPT,
                'the figures of this pass cannot be kept in '
                f'{layout.summaries}: {error}',
            )
        )
    return problems + write(settings)


def write(settings: Settings) -> list[codes.Problem]:
    """Write the file for node_exporter, if there is to be one.

    Whoever has changed what it says does: the pass, and a scrub that has found
    damage or is through.

    :returns: what could not be done, a sentence each
    """
    path = settings.metrics_textfile
    if not path:
        return []
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
