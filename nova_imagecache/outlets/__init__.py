# SPDX-License-Identifier: Apache-2.0

"""Who is told of a report: the one place from which that is done."""

from nova_imagecache.outlets import log
from nova_imagecache.passes.reports import Report

# Each has functions of the names below.
_OUTLETS = (log,)


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
