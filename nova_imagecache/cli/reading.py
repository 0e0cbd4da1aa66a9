# SPDX-License-Identifier: Apache-2.0

"""What the commands that read base files have in common."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from oslo_utils import units

from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import lines
from nova_imagecache.cli import measuring
from nova_imagecache.cli import progress
from nova_imagecache.conf import Settings
from nova_imagecache.conf import settings
from nova_imagecache import errors
from nova_imagecache.scrub import courses


def _bandwidth(text: str) -> int:
    try:
        value = float(text) * units.Mi
    except ValueError:
        value = -1
    if value != 0 and not 1 <= value <= settings.MOST_MIB * units.Mi:
        raise argparse.ArgumentTypeError(
            f'{text} is no number of MiB per second'
        )
    return int(value)


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add the option for how far it is."""
    parser.add_argument(
        '--progress',
        choices=('bar', 'json', 'none'),
        default='bar',
        help='how to show how far it is: a bar on a terminal, or lines of '
        'JSON with what was read and a summary, instead of the output',
    )


class Reading(lines.Lines, metaclass=abc.ABCMeta):
    """A command that reads base files, and takes its time.

    With ``--progress json`` it prints an object per line: ``{"progress":
    {...}}`` once a second, a file that was read, and ``{"summary": {...}}`` at
    the end. Without it, the output is one document, as of any other command.
    """

    changes = True
    interrupted = (
        'What was found in files that were read to their end is kept; run it '
        'again for the others.'
    )

    columns: tuple[str, ...]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--bandwidth',
            metavar='MIB',
            type=_bandwidth,
            help='read so many MiB per second at most, and 0 for no limit, '
            'whatever scrub_bandwidth_mib_per_second says',
        )
        add_progress(parser)
        return parser

    def load_settings(self, parsed_args: argparse.Namespace) -> Settings:
        """Find out which node, and become who may act on it."""
        assert isinstance(self.app, app.Shell)  # noqa: S101 for mypy
        return measuring.load_settings(self.app)

    def adjust(self, parsed_args: argparse.Namespace) -> None:
        """Let the options of the command override the configuration.

        :raises nova_imagecache.errors.Error: there is no such column; better
            said before reading for hours
        """
        unknown = set(parsed_args.columns) - set(self.columns)
        if unknown:
            raise errors.Error(
                f'there is no column {min(unknown)}; there are '
                f'{", ".join(self.columns)}'
            )
        if parsed_args.bandwidth is not None:
            self.settings = dataclasses.replace(
                self.settings, scrub_bandwidth=parsed_args.bandwidth
            )

    def progress_bar(
        self, parsed_args: argparse.Namespace
    ) -> courses.ProgressBar:
        """Choose how to show progress."""
        if parsed_args.progress == 'json':
            return progress.json_progress(self.app.stdout)
        if parsed_args.progress == 'none':
            return courses.no_progress_bar
        return progress.progress_bar

    def own_lines(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> Iterable[str] | None:
        """Give a line of JSON per file and a summary, if asked for."""
        if parsed_args.progress != 'json':
            return super().own_lines(parsed_args, column_names, data)
        return self._json_lines(parsed_args.columns, column_names, data)

    def _json_lines(
        self,
        shown: Sequence[str],
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> Iterator[str]:
        for line in data:
            values = columns.machine_readable(column_names, line)
            yield json.dumps(
                {name: values[name] for name in shown or column_names}
            )
        yield json.dumps({'summary': self.summary()})

    @abc.abstractmethod
    def summary(self) -> dict[str, Any]:
        """Say in a few numbers how it went."""
