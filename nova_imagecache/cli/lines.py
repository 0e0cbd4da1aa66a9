# SPDX-License-Identifier: Apache-2.0

"""What the commands that print lines have in common."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from cliff import lister

from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import fitting


class Lines(app.NodeCommand, lister.Lister, metaclass=abc.ABCMeta):
    """A command that prints a line for each of some things."""

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> int:
        """Print what the command says, or as cliff does."""
        own = self.own_lines(parsed_args, column_names, data)
        if own is not None:
            for line in own:
                self.app.stdout.write(f'{line}\n')
                # Somebody may wait for each.
                self.app.stdout.flush()
            return 0
        # What there is not has one form.
        form = parsed_args.formatter
        data = (columns.filled(form, line) for line in data)
        if form == 'table' and not self.is_long(parsed_args):
            data = fitting.fitted(column_names, [*data], parsed_args)
        code: int = super().produce_output(parsed_args, column_names, data)
        return code

    def is_long(self, parsed_args: argparse.Namespace) -> bool:
        """Whether a table may be wider than a terminal."""
        return bool(parsed_args.columns)

    def own_lines(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> Iterable[str] | None:
        """Give what is printed in the place of what cliff would, if anything.

        :param data: what makes it may do the work
        """
        return None
