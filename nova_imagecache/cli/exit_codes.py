# SPDX-License-Identifier: Apache-2.0

"""What the program ends with."""

from nova_imagecache.passes import reports


FINE = 0
COULD_NOT = 1
CORRUPTION = 3


def of(report: reports.Report) -> int:
    """Say in a number how it went.

    A veto counts for nothing here, as not every command would remove.
    """
    return of_files(report) or (COULD_NOT if report.problems else FINE)


def of_files(report: reports.Report) -> int:
    """Say in a number how the files of a report are."""
    if report.corrupt or report.differing or report.outdated:
        return CORRUPTION
    return COULD_NOT if report.unreadable else FINE
