# SPDX-License-Identifier: Apache-2.0

"""The command metrics."""

import argparse
import functools
import logging
import os
import sys

from nova_imagecache.cache import layouts
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import measuring
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import textfiles

LOG = logging.getLogger(__name__)


class Metrics(measuring.Measuring):
    """Print what is known of the cache as metrics for Prometheus.

    They are what the last pass of this host has left, what the scrub does, and
    what is counted between passes. Only records are read: no disk, and no base
    file. It takes prometheus_client (pip install nova-imagecache[metrics]).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the option."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--output',
            metavar='FILE.prom',
            help='write them to this file, as a whole, and not to the '
            'standard output; for the textfile collector of node_exporter',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Read the records, and print."""
        layout = layouts.Layout.of(self.settings)
        gather = functools.partial(
            exposition.gather, layout, self.settings.host
        )
        if parsed_args.output is None:
            facts = gather()
        else:
            path = os.path.abspath(parsed_args.output)
            facts = textfiles.write(path, gather)
        for each in facts.unreadable:
            LOG.warning('[P13] %s', each)
            self.exit_code = exit_codes.COULD_NOT
        if parsed_args.output is None:
            sys.stdout.write(exposition.text(facts).decode())
