# SPDX-License-Identifier: Apache-2.0

"""The manager as nova-compute has it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from typing import Any
from typing import NamedTuple

import nova.conf
from nova import objects
from nova.virt import images
from oslo_log import log as logging

from nova_imagecache.cache import image_names
from nova_imagecache.cache import locks
from nova_imagecache.cache import tallies
from nova_imagecache.fetch import caching
from nova_imagecache import manager
from nova_imagecache import names
from nova_imagecache.nova import privsep
from nova_imagecache.nova import rewriter
from nova_imagecache.passes import reports

LOG = logging.getLogger(__name__)

CONF = nova.conf.CONF


class Use(NamedTuple):
    """A base file that is kept while a disk is made from it.

    :ivar share: to be called when it is there, so that others may use it
    :ivar restored: whether it came back from the trash
    """

    share: Callable[[], None]
    restored: bool = False


def _listed(
    context: Any, all_instances: Any, mappings: Any
) -> tuple[Any, Any]:
    """Give the instances and their devices, which are asked for in time."""
    if mappings is not None:
        return all_instances, mappings
    found: dict[str, Any] = {}

    def listed() -> Iterator[Any]:
        # What the database raises is raised where a witness that fails is
        # dealt with.
        found.update(
            objects.BlockDeviceMappingList.bdms_by_instance_uuid(
                context, [instance.uuid for instance in all_instances]
            )
        )
        yield from all_instances

    return listed(), found


class NovaImageCacheManager(manager.ImageCacheManager):
    """The manager with what nova-compute lends it.

    In place of ``nova.virt.libvirt.imagecache.ImageCacheManager``.
    """

    def __init__(self, connect: Callable[[], Any] | None) -> None:
        """Make one; the options are read anew in each pass.

        :param connect: gives the driver's connection to libvirt, if it has one
        """
        super().__init__(
            CONF,
            connect=connect,
            read_as_root=privsep.read,
            touch_as_root=privsep.touch,
            list_as_root=privsep.list_as_root,
            # Nova has one thread for all that is done now and then.
            apart=True,
            rewriter=rewriter.command(),
        )

    def update(
        self,
        context: Any,
        all_instances: Any,
        block_device_mappings: Any = None,
    ) -> reports.Report:
        """Make one pass; the devices of all instances take one query.

        :param all_instances: the InstanceList of those who share the storage
        """
        return super().update(
            context, *_listed(context, all_instances, block_device_mappings)
        )

    def begin(
        self,
        context: Any,
        all_instances: Any,
        block_device_mappings: Any = None,
    ) -> bool:
        """Begin one, likewise, and do not wait for it."""
        return super().begin(
            context, *_listed(context, all_instances, block_device_mappings)
        )

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[Use]:
        """Keep a base file while Nova makes a disk from it.

        One that was removed lately comes back from the trash.

        :param name: of the base file, which need not be there
        """
        layout = self._layout
        restored = False
        with locks.user_lock(layout, name) as share:
            try:
                restored = caching.bring_back(layout, name, privsep.touch)
                if restored:
                    share()
            # A broad net, as Nova fetches it then.
            except Exception as error:
                LOG.warning(
                    '[N14] Base file %(name)s is fetched, if it is not there: '
                    'whether it is in the trash cannot be told: %(error)s',
                    {'name': name, 'error': str(error) or repr(error)},
                )
            yield Use(share, restored)

    def count(self, event: tallies.Event) -> None:
        """Count what became of a request for the base file of an image."""
        tallies.count(self._layout, CONF.host, event)

    def note_name(self, image_id: str | None, name: str | None) -> None:
        """Note what an image is called, if it is one."""
        if image_id and name:
            image_names.note(self._layout, image_id, name)

    def precache(self, context: Any, image_id: str) -> bool:
        """Fetch an image before it is needed, under its locks.

        :returns: whether it was fetched; otherwise it was there, or came back
            from the trash
        :raises nova_imagecache.errors.KnownDamage: it is there, and bad
        """
        layout = self._layout
        name = names.get_cache_fname(image_id)
        path = caching.prepare(layout, name)
        with (
            locks.user_lock(layout, name),
            locks.nova_lock(layout, name, blocking=True),
        ):
            refuse = CONF.image_cache.refuse_damaged_base_images
            found = caching.find(layout, name, privsep.touch, refuse)
            if found is tallies.Event.MISS:
                LOG.info('Caching image %s by request', image_id)
                images.fetch_to_raw(context, image_id, path)
            else:
                LOG.info('Image %s is cached already', image_id)
        self.count(found)
        return found is tallies.Event.MISS
