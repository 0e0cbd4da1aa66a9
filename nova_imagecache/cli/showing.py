# SPDX-License-Identifier: Apache-2.0

"""What the commands that show a screen have in common."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from cliff import show

from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import fitting


class Showing(app.NodeCommand, show.ShowOne, metaclass=abc.ABCMeta):
    """A command that shows a screen to people, and its values to programs."""

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Sequence[Any],
    ) -> int:
        """Print the screen, or what a program has asked for."""
        if parsed_args.formatter != 'table' or parsed_args.columns:
            data = columns.plain(parsed_args.formatter, data)
            code: int = super().produce_output(parsed_args, column_names, data)
            return code
        values = dict(zip(column_names, data, strict=True))
        width = fitting.width(parsed_args)
        lines = self.lines(values, width, parsed_args)
        self.app.stdout.write('\n'.join(lines).rstrip() + '\n')
        return 0

    @abc.abstractmethod
    def lines(
        self, values: dict[str, Any], width: int, args: argparse.Namespace
    ) -> Iterable[str]:
        """Give the lines of the screen.

        :param width: columns of the terminal
        """
