# SPDX-License-Identifier: Apache-2.0

"""The log of the service, which is the standard error output of the shell."""

from collections.abc import Iterable
import logging

from nova_imagecache.outlets import messages
from nova_imagecache.passes.reports import Report

LOG = logging.getLogger(__name__)


def _write(lines: Iterable[messages.Message]) -> None:
    for line in lines:
        LOG.log(line.level, '%s', line.line)


def tell(report: Report) -> None:
    """Tell the log all that operators want to know of a pass."""
    _write(messages.of_pass(report))


def tell_findings(report: Report) -> None:
    """Tell the log only what somebody has to look into."""
    _write(messages.of_findings(report))


def tell_damage(report: Report) -> None:
    """Tell the log only which files are bad, and whom that hits."""
    _write(messages.of_damage(report))
