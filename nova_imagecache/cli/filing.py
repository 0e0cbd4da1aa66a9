# SPDX-License-Identifier: Apache-2.0

"""What the commands have in common that print base files for a person."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from nova_imagecache.cli import colours
from nova_imagecache.cli import fitting
from nova_imagecache.cli import lines
from nova_imagecache.cli import tables
from nova_imagecache.content import knowledge
from nova_imagecache import names
from nova_imagecache.passes import reports

#: What is shown in red.
HARMFUL = (
    knowledge.Verdict.CORRUPT,
    knowledge.Verdict.UNREADABLE,
    knowledge.Verdict.DIFFERS,
)


class Filing(lines.Lines, metaclass=abc.ABCMeta):
    """A command that prints base files: in a short table, if in any.

    :ivar files: those that it prints, once it has given its lines
    """

    files: Sequence[reports.FileReport] = ()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the option."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--long',
            action='store_true',
            help='all columns, with whole names and users; wider than a '
            'terminal',
        )
        return parser

    def is_long(self, parsed_args: argparse.Namespace) -> bool:
        """Whether a table may be wider than a terminal."""
        return parsed_args.long or super().is_long(parsed_args)

    def own_lines(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> Iterable[str] | None:
        """Give a short table, unless something else was asked for."""
        if parsed_args.formatter != 'table' or self.is_long(parsed_args):
            return super().own_lines(parsed_args, column_names, data)
        width = fitting.width(parsed_args)
        shown = tables.table([*map(_cells, self.files)], width)
        bad = [file.checksum in HARMFUL for file in self.files]
        table = [
            colours.on_terminal(self.app.stdout, line, colours.RED)
            if is_bad
            else line
            for line, is_bad in zip(shown, [False, *bad], strict=True)
        ]
        # What the table does not say: its verdict is an earlier one.
        unread = [
            names.printable(f'{file.name}: {file.note}')
            for file in self.files
            if knowledge.NOT_VERIFIED in file.note
        ]
        return table + unread


def _cells(file: reports.FileReport) -> dict[str, Any]:
    return {
        'name': file.name,
        'image': file.image,
        'image_name': file.image_name,
        'kind': str(file.kind),
        'size': file.size,
        'allocated': file.allocated,
        'guests': len(file.users),
        'used': file.used,
        'age': file.age_seconds,
        'verdict': file.word,
        'action': str(file.action),
    }
