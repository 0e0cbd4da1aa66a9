# SPDX-License-Identifier: Apache-2.0

"""The command trash."""

import argparse

from nova_imagecache.cli import lines
from nova_imagecache.cli import listing


class Trash(lines.Lines):
    """List the files that were removed and are not deleted yet.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        return listing.table(listing.preview(self).trash, parsed_args)
