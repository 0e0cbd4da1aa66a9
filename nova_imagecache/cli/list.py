# SPDX-License-Identifier: Apache-2.0

"""The command list."""

import argparse

from nova_imagecache.cli import filing
from nova_imagecache.cli import listing


class List(filing.Filing):
    """List what is cached, who uses it, and how its checksum is.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
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
            files = tuple(
                file for file in files if file.checksum in filing.HARMFUL
            )
        elif parsed_args.unused:
            files = tuple(file for file in files if not file.used)
        self.files = files
        return listing.table(files, parsed_args)
