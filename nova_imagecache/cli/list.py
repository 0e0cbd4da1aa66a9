# SPDX-License-Identifier: Apache-2.0

"""The command list."""

import argparse

from cliff import lister

from nova_imagecache.cli import app
from nova_imagecache.cli import listing


class List(app.NodeCommand, lister.Lister):
    """List what is cached, who uses it, and the state of its checksum.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        return listing.table(listing.preview(self).files, parsed_args)
