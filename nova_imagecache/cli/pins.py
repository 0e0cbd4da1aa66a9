# SPDX-License-Identifier: Apache-2.0

"""The command pins."""

import argparse
import time

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cli import columns
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing


class Pins(lines.Lines):
    """List the pins, also of base files that are not there yet."""

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Look."""
        listing.insist(self)
        layout = layouts.Layout.of(self.settings)
        now = time.time()
        rows = [
            (
                pin.name,
                pin.image,
                pin.since and columns.Seconds(max(0.0, now - pin.since)),
                not identity.gone(layout.file(pin.name)),
            )
            for pin in pins.describe(layout)
        ]
        return ('name', 'image', 'pinned_for', 'cached'), rows
