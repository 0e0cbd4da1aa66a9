# SPDX-License-Identifier: Apache-2.0

"""The command undelete."""

import argparse
import logging

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.cache import removal
from nova_imagecache.cache import trash
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing
from nova_imagecache import errors
from nova_imagecache.fetch import caching
from nova_imagecache import names

LOG = logging.getLogger(__name__)


class Undelete(lines.Lines):
    """Bring removed files back from the trash, with their checksums.

    They count as used now, so a pass does not remove them again before they
    are old enough.
    """

    changes = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'names',
            metavar='NAME',
            nargs='+',
            help='name of the file, of which the newest comes back, or '
            'the name that nova-imagecache trash shows',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Bring all of them back, or say which one cannot be."""
        layout = listing.writable_layout(self.settings)
        chosen = {
            file.name: file
            for file in (_find(layout, name) for name in parsed_args.names)
        }
        rows = []
        for file in chosen.values():
            name = file.original
            try:
                found = removal.put_back(file)
            except FileExistsError:
                LOG.error('[P12] There is another file called %s by now', name)
                self.exit_code = exit_codes.COULD_NOT
            except (errors.NotNow, OSError) as error:
                LOG.error('[P12] %s stays in the trash: %s', file.name, error)
                self.exit_code = exit_codes.COULD_NOT
            else:
                caching.use(layout, name)
                rows.append(
                    (name, str(found.kind), columns.Bytes(found.stat.size))
                )
        return ('name', 'kind', 'size'), rows


def _names(file: base_file.BaseFile) -> tuple[str, str]:
    return file.name, file.original


def _find(layout: layouts.Layout, text: str) -> base_file.BaseFile:
    scan = trash.scan(layout)
    if scan.problems:
        raise errors.Error(scan.problems[0])
    name = listing.name_of(text)
    called = listing.one_of(
        name, (each for file in scan.files for each in _names(file))
    )
    found = [file for file in scan.files if {name, called} & {*_names(file)}]
    if not found:
        raise errors.Error(
            f'there is no {names.printable(text)} in the trash; '
            'nova-imagecache trash shows what there is'
        )
    return max(found, key=lambda file: names.trashed_at(file.name))
