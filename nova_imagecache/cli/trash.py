# SPDX-License-Identifier: Apache-2.0

"""The command trash."""

import argparse

from nova_imagecache.cli import filing
from nova_imagecache.cli import listing


class Trash(filing.Filing):
    """List the files that were removed and are not deleted yet.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        self.files = listing.preview(self).trash
        return listing.table(self.files, parsed_args)
