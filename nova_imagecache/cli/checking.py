# SPDX-License-Identifier: Apache-2.0

"""What is to be looked into on a node, and what was damaged before.

Apart from the rest, as a list of files shows neither (decision 0084).
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from nova_imagecache.cache import layouts
from nova_imagecache.cli import app
from nova_imagecache.cli import exit_codes
from nova_imagecache import codes
from nova_imagecache.content import incidents
from nova_imagecache import errors
from nova_imagecache.outlets import health
from nova_imagecache.passes import reports


def checks_of(
    file: reports.FileReport, report: reports.Report
) -> list[health.Check]:
    """Give what is to be looked into about one file."""
    found = health.checks(report.only([file.name]))
    return [each for each in found if each.subject == file.name]


def exit_code_of(checks: Iterable[health.Check]) -> int:
    """Say in a number how a node is; the first word of ``status`` agrees."""
    severities = {each.severity for each in checks}
    if codes.Severity.DAMAGE in severities:
        return exit_codes.CORRUPTION
    if codes.Severity.PROBLEM in severities:
        return exit_codes.COULD_NOT
    return exit_codes.FINE


def remembered(
    command: app.NodeCommand,
) -> tuple[incidents.Incidents, list[codes.Problem]]:
    """Give the incidents, and say so where they cannot be read."""
    layout = layouts.Layout.of(command.settings)
    try:
        return incidents.load(layout), []
    except (errors.Error, OSError) as error:
        return incidents.Incidents(), [
            codes.Problem(
                codes.Code.RECALL,
                f'{layout.incidents}, which has the damage of earlier times, '
                f'cannot be used: {errors.why(error)}',
                layout.incidents,
            )
        ]


def incident(each: incidents.Incident) -> dict[str, Any]:
    """Give an incident as people have it."""
    values: dict[str, Any] = msgspec.to_builtins(each)
    # Numbers of the file system, for us alone.
    del values['key']
    return values
