# SPDX-License-Identifier: Apache-2.0

"""The command hosts."""

import argparse

from nova_imagecache.cli import columns
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing


class Hosts(lines.Lines):
    """List the hosts that share the cache, and how much each needs."""

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        listing.insist(self)
        rows = [
            (
                each['host'],
                columns.Seconds(each['passed_ago']),
                columns.Seconds(each['complete_ago']),
                each['files'],
                each['away'],
            )
            for each in listing.hosts_of(self)
        ]
        return ('host', 'passed_ago', 'complete_ago', 'files', 'away'), rows
