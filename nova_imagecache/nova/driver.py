# SPDX-License-Identifier: Apache-2.0

"""Nova's libvirt driver, with our manager in the place of its own."""

from typing import Any

from nova.virt.libvirt import driver
from oslo_config import cfg
from oslo_log import log as logging

from nova_imagecache import conf as confs
from nova_imagecache.nova import manager

LOG = logging.getLogger(__name__)


class LibvirtDriver(driver.LibvirtDriver):
    """The libvirt driver, and nothing else changed."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        """Make the driver as Nova does, and put our manager in."""
        super().__init__(virtapi, read_only)
        self.image_cache_manager = manager.NovaImageCacheManager(
            self._host.get_connection
        )

    def init_host(self, host: str) -> None:
        """Begin; values of options that make no sense end this at once.

        :raises oslo_config.cfg.Error: one does
        """
        confs.read_settings(manager.CONF)
        super().init_host(host)

    def cleanup_host(self, host: str) -> None:
        """End, and the scrub with us."""
        self.image_cache_manager.stop()
        super().cleanup_host(host)

    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        """Make a pass, as the periodic task of nova-compute asks for it."""
        try:
            self.image_cache_manager.update(context, all_instances)
        except cfg.Error as error:
            LOG.error('No pass over the image cache is made: %s', error)

    def cache_image(self, context: Any, image_id: str) -> bool:
        """Fetch an image before it is needed.

        :returns: whether it was fetched, and not there already
        """
        return self.image_cache_manager.cache_image(context, image_id)

    def _try_fetch_image_cache(
        self,
        image: Any,
        fetch_func: Any,
        context: Any,
        filename: str,
        image_id: str,
        instance: Any,
        size: int | None,
        fallback_from_host: str | None = None,
    ) -> None:
        """Make a disk from a base file, unless that is known to be bad."""
        self.image_cache_manager.check_sound(filename, image_id, image.exists)
        super()._try_fetch_image_cache(
            image,
            fetch_func,
            context,
            filename,
            image_id,
            instance,
            size,
            fallback_from_host,
        )
