# SPDX-License-Identifier: Apache-2.0

"""The command ignored."""

import argparse

from nova_imagecache.cli import columns
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing


class Ignored(lines.Lines):
    """List the files of this host that are said to be no disks."""

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        listing.insist(self)
        rows = [
            (each['path'], columns.Seconds(each['ignored_for']), each['holds'])
            for each in listing.ignored(self)
        ]
        return ('path', 'ignored_for', 'holds'), rows
