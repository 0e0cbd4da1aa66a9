# SPDX-License-Identifier: Apache-2.0

"""What the commands that list files have in common."""

from collections.abc import Iterable
import os
from typing import Any

from oslo_log import log as logging

from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import outlets
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports

LOG = logging.getLogger(__name__)

#: Column names, and a line per file.
Table = tuple[tuple[str, ...], Iterable[Any]]


def table(files: Iterable[reports.FileReport]) -> Table:
    """Give a line per file."""
    return columns.COLUMNS, [columns.row(file) for file in files]


def preview(command: app.NodeCommand) -> reports.Report:
    """See what a pass would do, for a command that changes nothing.

    What is to be looked into is told, and makes the exit code.
    """
    report = pipeline.Pass(command.settings).preview()
    show_findings(report)
    command.exit_code = exit_codes.of(report)
    return report


def show_findings(report: reports.Report) -> None:
    """Tell the operator what is to be looked into."""
    if not os.path.isdir(report.cache_dir):
        LOG.warning('There is no cache at %s', report.cache_dir)
    outlets.tell_findings(report)


def name_of(text: str) -> str:
    """Take the name of a file from what was typed; a path will do."""
    return text.rpartition('/')[2]


def find(settings: Settings, wanted: Iterable[str]) -> list[str]:
    """Check that files are in the cache, and give their names."""
    layout = layouts.Layout.of(settings)
    known = {
        names.printable(file.name): file.name
        for file in scans.scan(layout).files
    }
    found = []
    for text in wanted:
        name = known.get(names.printable(name_of(text)))
        if name is None:
            raise errors.Error(
                f'there is no file {names.printable(text)} in {layout.base}; '
                'nova-imagecache list shows what there is'
            )
        found.append(name)
    return found


def writable_layout(settings: Settings) -> layouts.Layout:
    """Give the layout of a cache that can be written to.

    :raises nova_imagecache.errors.Error: it cannot
    """
    layout = layouts.Layout.of(settings)
    intruder = directories.intruder(layout)
    if intruder is not None:
        raise errors.Error(intruder)
    return layout
