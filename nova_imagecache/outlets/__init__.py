# SPDX-License-Identifier: Apache-2.0

"""Who is told of a report: the one place from which that is done."""

import dataclasses

from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import log
from nova_imagecache.outlets import summaries
from nova_imagecache.passes.reports import Report

# Each has functions of the names below.
_OUTLETS = (log,)


note_damaged = summaries.note_damaged


def write_metrics(settings: Settings) -> list[codes.Problem]:
    """Write what is known now to the file for node_exporter, if it is asked.

    :returns: what could not be done, a sentence each
    """
    return figures.write(settings)


def kept(settings: Settings, report: Report) -> Report:
    """Leave the figures of a pass; give its report, with what went wrong."""
    problems = figures.keep(settings, report)
    if not problems:
        return report
    return dataclasses.replace(report, problems=(*report.problems, *problems))


def tell(report: Report) -> None:
    """Tell everybody of a pass."""
    for outlet in _OUTLETS:
        outlet.tell(report)


def tell_findings(report: Report) -> None:
    """Tell everybody only what somebody has to look into."""
    for outlet in _OUTLETS:
        outlet.tell_findings(report)


def tell_damage(report: Report) -> None:
    """Tell everybody only which files are bad, and whom that hits."""
    for outlet in _OUTLETS:
        outlet.tell_damage(report)
