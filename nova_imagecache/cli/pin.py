# SPDX-License-Identifier: Apache-2.0

"""The command pin."""

import logging

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cli import pinning
from nova_imagecache import clocks

LOG = logging.getLogger(__name__)


class Pin(pinning.Pinning):
    """Keep base files, used or not, until they are unpinned.

    A file need not be there yet. A resized file has a name of its own, and
    needs a pin of its own.
    """

    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Pin a file."""
        if identity.gone(layout.file(new.name)):
            LOG.warning('[N21] %s is not in the cache yet', new.name)
        return pins.pin(layout, new, clocks.now())
