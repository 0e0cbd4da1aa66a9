# SPDX-License-Identifier: Apache-2.0

"""The command list."""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import shutil
from typing import Any

from nova_imagecache.cli import colours
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing
from nova_imagecache.cli import tables
from nova_imagecache.content import knowledge
from nova_imagecache.passes import reports

_HARMFUL = (
    knowledge.Verdict.CORRUPT,
    knowledge.Verdict.UNREADABLE,
    knowledge.Verdict.DIFFERS,
)


class List(lines.Lines):
    """List what is cached, who uses it, and the state of its checksum.

    The actions are those that a pass would take now. Nothing is changed.
    """

    _files: tuple[reports.FileReport, ...] = ()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--long',
            action='store_true',
            help='all columns, with whole names and users; wider than a '
            'terminal',
        )
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            '--corrupt',
            action='store_true',
            help='only the files that are corrupt, unreadable, or differ',
        )
        which.add_argument(
            '--unused',
            action='store_true',
            help='only the files that nobody is seen to use',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        files = listing.preview(self).files
        if parsed_args.corrupt:
            files = tuple(file for file in files if file.checksum in _HARMFUL)
        elif parsed_args.unused:
            files = tuple(file for file in files if not file.used)
        self._files = files
        return listing.table(files, parsed_args)

    def own_lines(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Any],
    ) -> Iterable[str] | None:
        """Give a short table, unless something else was asked for."""
        asked = parsed_args.long or parsed_args.columns
        if parsed_args.formatter != 'table' or asked:
            return super().own_lines(parsed_args, column_names, data)
        width = parsed_args.max_width or shutil.get_terminal_size().columns
        shown = tables.table([*map(_cells, self._files)], width)
        bad = [file.checksum in _HARMFUL for file in self._files]
        return [
            colours.on_terminal(self.app.stdout, line, colours.RED)
            if is_bad
            else line
            for line, is_bad in zip(shown, [False, *bad], strict=True)
        ]


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
