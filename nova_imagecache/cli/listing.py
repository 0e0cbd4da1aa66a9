# SPDX-License-Identifier: Apache-2.0

"""What the commands that list files have in common."""

import abc
import argparse
from collections.abc import Iterable
import os
from typing import Any

from cliff import lister
from oslo_log import log as logging

from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import progress
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.outlets import log
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports

LOG = logging.getLogger(__name__)

#: Column names, and a line per file.
Table = tuple[tuple[str, ...], Iterable[Any]]


class Listing(app.NodeCommand, lister.Lister, metaclass=abc.ABCMeta):
    """A command that gives a line per file."""

    @abc.abstractmethod
    def make_report(self, parsed_args: argparse.Namespace) -> reports.Report:
        """Do the command's work."""

    def make_pass(self, inline: bool = True) -> pipeline.Pass:
        """Prepare a pass that shows how far its reading has got.

        :param inline: whether it reads at all
        """
        return pipeline.Pass(
            self.settings, inline=inline, progress_bar=progress.progress_bar
        )

    def judge(self, report: reports.Report) -> int:
        """Give the exit code."""
        return exit_codes.of(report)

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Give the lines, and remember how it went."""
        report = self.make_report(parsed_args)
        show_findings(report)
        self.exit_code = self.judge(report)
        rows = [*report.files, *self.more(report)]
        return columns.COLUMNS, [columns.row(file) for file in rows]

    def more(self, report: reports.Report) -> Iterable[reports.FileReport]:
        """Give what is to be listed beside what is in the cache."""
        return ()


def show_findings(report: reports.Report) -> None:
    """Tell the operator what is to be looked into."""
    if not os.path.isdir(report.cache_dir):
        LOG.warning('There is no cache at %s', report.cache_dir)
    log.tell_findings(report)


def find(settings: Settings, wanted: Iterable[str]) -> list[str]:
    """Check that files are in the cache; a path will do for a name."""
    layout = layouts.Layout.of(settings)
    known = {
        names.printable(file.name): file.name
        for file in scans.scan(layout).files
    }
    found = []
    for text in wanted:
        name = known.get(names.printable(os.path.basename(text)))
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
