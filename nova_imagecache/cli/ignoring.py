# SPDX-License-Identifier: Apache-2.0

"""What the commands ignore and unignore have in common."""

import abc
import argparse
import os

from nova_imagecache.cache import ignored_files
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing
from nova_imagecache import names

Marks = ignored_files.Marks


class Ignoring(lines.Lines, metaclass=abc.ABCMeta):
    """A command on files that are no disks of guests."""

    changes = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'paths',
            metavar='PATH',
            nargs='+',
            help='path of the file, as a veto names it',
        )
        return parser

    @abc.abstractmethod
    def change(self, path: str, marks: dict[str, ignored_files.Mark]) -> bool:
        """Change what is said of a file; say whether that is news.

        :param marks: to be changed
        :raises nova_imagecache.errors.Error: there is no such file
        """

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Do so for all of them."""
        layout = listing.writable_layout(self.settings)
        os.makedirs(layout.ignored, exist_ok=True)
        rows: list[tuple[str, bool]] = []

        def change(marks: Marks) -> Marks:
            changed = dict(marks)
            for text in parsed_args.paths:
                path = os.path.abspath(text)
                rows.append(
                    (names.printable(path), self.change(path, changed))
                )
            return changed

        ignored_files.amend(layout, self.settings.host, change)
        return ('path', 'changed'), rows
