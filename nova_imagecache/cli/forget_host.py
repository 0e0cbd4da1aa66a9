# SPDX-License-Identifier: Apache-2.0

"""The command forget-host."""

import argparse
from collections.abc import Mapping

from nova_imagecache.cache import hosts
from nova_imagecache.cache import inventories
from nova_imagecache.cache import tallies
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache import names
from nova_imagecache.outlets import summaries


class ForgetHost(lines.Lines):
    """Forget what a host needs, as it is gone for good.

    What its guests need stays otherwise, however long it is away. The next
    pass of a host that is not gone notes it again.
    """

    changes = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'hosts',
            metavar='HOST',
            nargs='+',
            help='name of the host, as "nova-imagecache hosts" has it',
        )
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='say what would be forgotten, and change nothing',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Forget each of them."""
        layout = listing.writable_layout(self.settings)
        known = {
            names.printable(name): name for name in hosts.names_of(layout)
        }
        chosen = {text: self._find(known, text) for text in parsed_args.hosts}
        rows = []
        for text, name in chosen.items():
            try:
                needs = hosts.load(layout, name).needs()
            except (errors.Error, OSError):
                needs = frozenset()
            if not parsed_args.dry_run:
                hosts.forget(layout, name)
                inventories.forget(layout, name)
                tallies.forget(layout, name)
                summaries.forget(layout, name)
                accounts.forget(layout, name)
            rows.append((text, len(needs), not parsed_args.dry_run))
        return ('host', 'files', 'forgotten'), rows

    @staticmethod
    def _find(known: Mapping[str, str], text: str) -> str:
        name = known.get(names.printable(text))
        if name is None:
            raise errors.Error(
                f'no host {names.printable(text)} has noted anything here; '
                'nova-imagecache hosts shows which have'
            )
        return name
