# SPDX-License-Identifier: Apache-2.0

"""The command show."""

import argparse
from collections.abc import Sequence
from typing import Any

from cliff import show

from nova_imagecache.cli import app
from nova_imagecache.cli import checking
from nova_imagecache.cli import columns
from nova_imagecache.cli import fitting
from nova_imagecache.cli import listing
from nova_imagecache import errors
from nova_imagecache import outlets
from nova_imagecache.passes import pipeline


class Show(app.NodeCommand, show.ShowOne):
    """Show one file of the cache, as list does."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument('name', metavar='NAME', help='name of the file')
        return parser

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Sequence[Any],
    ) -> int:
        """Print it as cliff does, no wider than the terminal."""
        if parsed_args.formatter == 'table':
            parsed_args.max_width = fitting.width(parsed_args)
        code: int = super().produce_output(parsed_args, column_names, data)
        return code

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Any]:
        """Give the file's values."""
        (name,) = listing.find(self.settings, [parsed_args.name])
        report = pipeline.Pass(self.settings).preview()
        report = report.only([name])
        if not report.files:
            raise errors.Error(f'{parsed_args.name} has gone meanwhile')
        outlets.tell_findings(report)
        (file,) = report.files
        # Of the file, and not of the node.
        mine = checking.checks_of(file, report)
        self.exit_code = checking.exit_code_of(mine)
        form = parsed_args.formatter
        row = columns.row(file) + columns.more(file)
        if form not in ('json', 'yaml', 'table'):
            row = columns.flat(row)
        return (
            columns.COLUMNS + columns.MORE_COLUMNS,
            columns.filled(form, columns.plain(form, row)),
        )
