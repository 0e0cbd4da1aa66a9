# SPDX-License-Identifier: Apache-2.0

"""Who is told of a report: the one place from which that is done."""

from nova_imagecache.outlets import log
from nova_imagecache.passes.reports import Report

# Each is told by its function of this name.
_OUTLETS = (log,)


def tell(report: Report) -> None:
    """Tell everybody of a pass."""
    for outlet in _OUTLETS:
        outlet.tell(report)
