# SPDX-License-Identifier: Apache-2.0

"""The log of the service, which is the standard error output of the shell."""

from collections.abc import Iterable
import logging
import time

from nova_imagecache.outlets import messages
from nova_imagecache.passes.reports import Report

LOG = logging.getLogger(__name__)

_AT_ONCE = 100


def _write(lines: Iterable[messages.Message]) -> None:
    for number, line in enumerate(lines, 1):
        LOG.log(line.level, '%s', line.line)
        if number % _AT_ONCE == 0:
            # Under eventlet, others have their turn.
            time.sleep(0)


def tell(report: Report) -> None:
    """Tell the log all that operators want to know of a pass."""
    debug = LOG.isEnabledFor(logging.DEBUG)
    _write(messages.of_pass(report, each_file=debug))


def tell_findings(report: Report) -> None:
    """Tell the log only what somebody has to look into."""
    _write(messages.of_findings(report))


def tell_damage(report: Report) -> None:
    """Tell the log only which files are bad, and whom that hits."""
    _write(messages.of_damage(report))
