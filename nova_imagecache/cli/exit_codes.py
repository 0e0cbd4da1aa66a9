# SPDX-License-Identifier: Apache-2.0

"""What the program ends with."""

from nova_imagecache.passes import reports
from nova_imagecache.witnesses import vetoing


FINE = 0
COULD_NOT = 1
CORRUPTION = 3


def of(report: reports.Report, removing: bool = False) -> int:
    """Say in a number how it went.

    :param removing: whether it matters that something may not be removed, as
        for whoever removes, or shows what would be
    """
    vetoed = any(
        removing or each.reason is vetoing.Reason.MISSING_MOUNT
        for each in report.obstacles
    )
    failed = COULD_NOT if report.problems or vetoed else FINE
    return of_files(report) or failed


def of_files(report: reports.Report) -> int:
    """Say in a number how the files of a report are."""
    damaged = report.corrupt or report.unreadable or report.differing
    return CORRUPTION if damaged or report.outdated else FINE
