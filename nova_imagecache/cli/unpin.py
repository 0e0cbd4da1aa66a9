# SPDX-License-Identifier: Apache-2.0

"""The command unpin."""

from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cli import pinning


class Unpin(pinning.Pinning):
    """Let base files go again when nobody uses them."""

    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Unpin a file."""
        return pins.unpin(layout, new.name)
