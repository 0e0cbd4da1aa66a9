# SPDX-License-Identifier: Apache-2.0

"""Nova's libvirt driver, with our manager in the place of its own."""

from collections.abc import Callable
import inspect
from typing import Any
from typing import TypeVar

from nova.virt.libvirt import driver
from oslo_config import cfg
from oslo_log import log as logging

from nova_imagecache.conf import read_settings
from nova_imagecache import names
from nova_imagecache.nova import gate
from nova_imagecache.nova import manager
from nova_imagecache.nova import reliances

LOG = logging.getLogger(__name__)

_Method = TypeVar('_Method', bound=Callable[..., None])


def _signed_as_in_nova(run: _Method) -> _Method:
    """Have a method be seen with the signature of the one in Nova's driver.

    That is not the same in all releases. Where there is no such method any
    more, nobody calls ours, and the start says so.
    """
    method = getattr(driver.LibvirtDriver, run.__name__, None)
    if method is not None:
        vars(run)['__signature__'] = inspect.signature(method)
    return run


def _with_open_gate(name: str) -> Callable[..., None]:
    """Give a method of Nova's driver, for a guest that was there before."""

    def run(self: 'LibvirtDriver', *args: Any, **kwargs: Any) -> None:
        with self._gate.open():
            getattr(super(LibvirtDriver, self), name)(*args, **kwargs)

    run.__name__ = name
    return _signed_as_in_nova(run)


class LibvirtDriver(driver.LibvirtDriver):
    """The libvirt driver, and nothing else changed."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        """Make the driver as Nova does, and put our manager in.

        :raises SystemExit: Nova's has not got what it is put in place of
        """
        super().__init__(virtapi, read_only)
        reliances.insist(reliances.look(reliances.OF_THE_DRIVER, self))
        host = getattr(self, '_host', None)
        self.image_cache_manager = manager.NovaImageCacheManager(
            getattr(host, 'get_connection', None)
        )
        self._gate = gate.Gate(self.image_cache_manager)
        self.image_backend = gate.Backend(
            self._gate, manager.CONF.use_cow_images
        )

    def init_host(self, host: str) -> None:
        """Begin; values of options that make no sense end this at once.

        :raises oslo_config.cfg.Error: one does
        """
        read_settings(manager.CONF)
        super().init_host(host)

    def cleanup_host(self, host: str) -> None:
        """End, and the scrub and a pass with us."""
        try:
            self.image_cache_manager.stop()
        finally:
            super().cleanup_host(host)

    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        """Begin a pass, as the periodic task of nova-compute asks for one."""
        try:
            self.image_cache_manager.begin(context, all_instances)
        except cfg.Error as error:
            LOG.error('[P03] No pass over the image cache is made: %s', error)

    @_signed_as_in_nova
    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make a guest as Nova does, and note what its image is called.

        Once it runs, so that it does not wait for that.
        """
        super().spawn(context, instance, image_meta, *args, **kwargs)
        self._gate.note_name(image_meta)

    def cache_image(self, context: Any, image_id: str) -> bool:
        """Fetch an image before it is needed.

        :returns: whether it was fetched, and not there already
        :raises DamagedBaseFile: it is there, known to be bad, and stays
        :raises nova_imagecache.errors.KnownDamage: likewise, found to be so
            since the gate was asked
        """
        name = names.get_cache_fname(image_id)
        self._gate.check(name, image_id)
        return self.image_cache_manager.precache(context, image_id)

    # Nova makes swap, kernel and ramdisk anew in these (decision 0037).
    finish_migration = _with_open_gate('finish_migration')
    _hard_reboot = _with_open_gate('_hard_reboot')

    def _rebase_original_qcow2_image(
        self, context: Any, instance: Any, backend: Any
    ) -> None:
        """Have the disk of an unshelved guest read the base of its image.

        The disk is there, and complete with what is below it now. If the base
        file is bad and stays, it becomes complete without, as it does where
        the image is gone.
        """
        needs = getattr(self, '_needs_rebase_original_qcow2_image', None)
        flatten = getattr(self, '_rebase_with_qemu_img', None)
        if needs is None or flatten is None:
            # Neither is ours, and the start has said what is lost.
            super()._rebase_original_qcow2_image(context, instance, backend)
            return
        if not needs(instance, backend):
            return
        image_id = instance.system_metadata.get('image_base_image_ref')
        name = names.get_cache_fname(image_id)
        try:
            self._gate.check(name, image_id)
        except gate.DamagedBaseFile as error:
            LOG.warning(
                '[N17] The disk is flattened: %s', error, instance=instance
            )
            flatten(backend.path, None)
        else:
            self._gate.note_use(name)
            super()._rebase_original_qcow2_image(context, instance, backend)
