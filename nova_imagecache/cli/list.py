# SPDX-License-Identifier: Apache-2.0

"""The command list."""

import argparse

from nova_imagecache.cli import listing
from nova_imagecache.passes import reports


class List(listing.Listing):
    """List what is cached, who uses it, and the state of its checksum.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def make_report(self, parsed_args: argparse.Namespace) -> reports.Report:
        """Look."""
        return self.make_pass().preview()
