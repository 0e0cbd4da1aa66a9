# SPDX-License-Identifier: Apache-2.0

"""A summary in the place of a table, for whoever keeps all that is printed."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from nova_imagecache.cli import lines


class Summing(lines.Lines, metaclass=abc.ABCMeta):
    """A command that a timer runs, whose output goes to the journal."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the option."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--summary',
            action='store_true',
            help='print what came of it in a few lines, and no line per file; '
            'for a timer, whose output is kept',
        )
        return parser

    def own_lines(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> Iterable[str] | None:
        """Give the summary, if it was asked for."""
        if not parsed_args.summary:
            return super().own_lines(parsed_args, column_names, data)
        # What makes the lines does the work.
        for _line in data:
            pass
        return self.summary_lines()

    @abc.abstractmethod
    def summary_lines(self) -> Iterable[str]:
        """Say what came of it."""
