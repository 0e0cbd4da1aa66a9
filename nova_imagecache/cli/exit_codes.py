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
    if report.corrupt:
        return CORRUPTION
    if report.problems or report.unreadable:
        return COULD_NOT
    return FINE
