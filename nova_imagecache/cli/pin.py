# SPDX-License-Identifier: Apache-2.0

"""The command pin."""

import logging

from oslo_utils import uuidutils

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cli import app
from nova_imagecache.cli import pinning
from nova_imagecache import clocks
from nova_imagecache import names

LOG = logging.getLogger(__name__)


class Pin(pinning.Pinning):
    """Keep base files, used or not, until they are unpinned.

    A file need not be there yet. A resized file has a name of its own, and
    needs a pin of its own.
    """

    def image_id(self, text: str) -> str:
        """Refuse the name of an image: that would pin what never comes.

        :raises nova_imagecache.cli.app.WrongUsage: it is no UUID, and no base
            file is cached for it
        """
        text = super().image_id(text)
        path = layouts.Layout.of(self.settings).file(
            names.get_cache_fname(text)
        )
        if uuidutils.is_uuid_like(text) or not identity.gone(path):
            return text
        raise app.WrongUsage(
            f'{text!r} is no ID of an image, which is a UUID, and no base '
            'file is cached for it'
        )

    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Pin a file."""
        if identity.gone(layout.file(new.name)):
            LOG.warning('[N21] %s is not in the cache yet', new.name)
        return pins.pin(layout, new, clocks.now())
