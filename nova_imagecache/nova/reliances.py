# SPDX-License-Identifier: Apache-2.0

"""Everything of Nova that we rely on, and whether it is there (decision 0072).

Most of it is no interface: Nova may rename it in any release, and then what is
to be called here would not be called, and nothing would say so.
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import enum
import functools
import importlib
import importlib.metadata
import inspect
import os
import sys
import tempfile
from typing import Any

from oslo_log import log as logging

from nova_imagecache import names

LOG = logging.getLogger(__name__)


class Use(enum.Enum):
    """What we do with something of Nova, and so how it may change.

    NAMED: it has to be there, and nothing else matters.

    CALLED: by us, with these parameters; it may have others with defaults.

    REPLACED: Nova calls ours, with these parameters and no others.

    WRAPPED: Nova calls ours, with these parameters first; what else there is
    goes on to Nova's.
    """

    NAMED = enum.auto()
    CALLED = enum.auto()
    REPLACED = enum.auto()
    WRAPPED = enum.auto()


@dataclasses.dataclass(frozen=True)
class Reliance:
    """One thing of Nova that we rely on.

    :ivar module: that it is in; empty for what the driver has once it is made
    :ivar name: in there, with dots
    :ivar lost: what is not so without it, to go on after "without it"
    :ivar vital: whether the driver is not to start without it
    :ivar takes: names of its parameters
    :ivar check: tells whether it is what it has to be
    """

    module: str
    name: str
    lost: str
    vital: bool = False
    use: Use = Use.NAMED
    takes: tuple[str, ...] = ()
    check: Callable[[Any], bool] | None = None

    @property
    def dotted(self) -> str:
        """Give the name that it is looked for by."""
        return f'{self.module or "the driver"}.{self.name}'


@dataclasses.dataclass(frozen=True)
class Drift:
    """Something that is not as we know it, and what is wrong with it."""

    reliance: Reliance
    problem: str

    def __str__(self) -> str:
        """Say so, and what is lost."""
        reliance = self.reliance
        return f'{reliance.dotted} {self.problem}; without it {reliance.lost}'


def _is_like_ours(get_cache_fname: Any) -> bool:
    image_id = '1be6b5b0-6e6c-4d8c-8c5d-6a4f9a1b1b6e'
    return bool(get_cache_fname(image_id) == names.get_cache_fname(image_id))


def _has_prefix(synchronized: Any) -> bool:
    with tempfile.TemporaryDirectory() as path:
        synchronized('reliance', external=True, lock_path=path)(list)()
        return os.listdir(path) == ['nova-reliance']


def _goes_by_its_table(backend: Any) -> bool:
    made = backend(True)
    return all(
        made.backend(name) is made.BACKEND[name]
        for name in ('raw', 'qcow2', 'rbd')
    )


_DRIVER = 'nova.virt.libvirt.driver'
_ANY_DRIVER = 'nova.virt.driver'
_BACKEND = 'nova.virt.libvirt.imagebackend'

_NO_START = 'there is no driver'
_NO_GATE = 'disks are made from base files that are known to be bad'
_NO_KIND = 'it cannot be told which disks are made from base files'
_NOT_RUN = 'no pass over the image cache is made'
_NO_LIST = 'the list of instances says nothing, and so nothing is removed'
_REFUSED = (
    'a guest that was there before is refused the swap, kernel or ramdisk '
    'that Nova makes anew from a bad base file'
)
_UNSHELVED = 'the disk of an unshelved guest is put on a base file that is bad'

#: In the order in which they are needed.
RELIANCES = (
    # nova/driver.py
    Reliance('nova.conf', 'CONF', 'there are no options', vital=True),
    Reliance('nova.exception', 'NovaException', _NO_START, vital=True),
    Reliance(
        'nova.exception',
        'NovaException.msg_fmt',
        'a refused build does not say why',
    ),
    Reliance(
        _DRIVER,
        'LibvirtDriver.__init__',
        _NO_START,
        True,
        Use.REPLACED,
        ('virtapi', 'read_only'),
    ),
    Reliance(
        _ANY_DRIVER,
        'ComputeDriver.manage_image_cache',
        _NOT_RUN,
        True,
        Use.REPLACED,
        ('context', 'all_instances'),
    ),
    Reliance(
        'nova.compute.manager',
        'ComputeManager._run_image_cache_manager_pass',
        _NOT_RUN,
        True,
    ),
    Reliance(
        _ANY_DRIVER,
        'ComputeDriver.init_host',
        'a value in nova.conf that makes no sense is not told at the start',
        False,
        Use.REPLACED,
        ('host',),
    ),
    Reliance(
        _ANY_DRIVER,
        'ComputeDriver.cleanup_host',
        'the scrub is not ended with nova-compute at once',
        False,
        Use.REPLACED,
        ('host',),
    ),
    Reliance(
        _ANY_DRIVER,
        'ComputeDriver.cache_image',
        'precaching takes no lock and looks at no damage',
        False,
        Use.REPLACED,
        ('context', 'image_id'),
    ),
    Reliance(
        _ANY_DRIVER,
        'ComputeDriver.spawn',
        'it is not noted what images are called',
        False,
        Use.WRAPPED,
        ('context', 'instance', 'image_meta'),
    ),
    *(
        Reliance(
            'nova.objects.image_meta',
            f'ImageMeta.{name}',
            'it is not noted what images are called',
        )
        for name in ('id', 'name')
    ),
    Reliance(_ANY_DRIVER, 'ComputeDriver.finish_migration', _REFUSED),
    Reliance(_DRIVER, 'LibvirtDriver._hard_reboot', _REFUSED),
    Reliance(
        _DRIVER,
        'LibvirtDriver._rebase_original_qcow2_image',
        _UNSHELVED,
        False,
        Use.REPLACED,
        ('context', 'instance', 'backend'),
    ),
    Reliance(
        _DRIVER,
        'LibvirtDriver._needs_rebase_original_qcow2_image',
        _UNSHELVED,
        False,
        Use.CALLED,
        ('instance', 'backend'),
    ),
    Reliance(
        _DRIVER,
        'LibvirtDriver._rebase_with_qemu_img',
        _UNSHELVED,
        False,
        Use.CALLED,
        ('source_path', 'rebase_base'),
    ),
    Reliance(
        'nova.virt.libvirt.host',
        'Host.get_connection',
        'libvirt is asked through a connection of our own',
        False,
        Use.CALLED,
    ),
    # nova/gate.py
    Reliance(
        _BACKEND, 'Backend', _NO_GATE, vital=True, check=_goes_by_its_table
    ),
    Reliance(
        _BACKEND,
        'Backend.__init__',
        _NO_GATE,
        True,
        Use.REPLACED,
        ('use_cow',),
    ),
    Reliance(
        _BACKEND,
        'Backend.backend',
        _NO_GATE,
        True,
        Use.CALLED,
        ('image_type',),
    ),
    Reliance(
        _BACKEND,
        'Image.cache',
        _NO_GATE,
        True,
        Use.WRAPPED,
        ('fetch_func', 'filename'),
    ),
    Reliance(
        _BACKEND,
        'Image.exists',
        'it cannot be told whether a disk is there',
        True,
        Use.CALLED,
    ),
    Reliance(_BACKEND, 'Flat', _NO_KIND, vital=True),
    Reliance(_BACKEND, 'Ploop', _NO_KIND, vital=True),
    Reliance(_BACKEND, 'Lvm', _NO_KIND, vital=True),
    # names.py and cache/locks.py
    Reliance(
        'nova.virt.libvirt.imagecache',
        'get_cache_fname',
        'base files have names that we do not know',
        True,
        Use.CALLED,
        ('image_id',),
        _is_like_ours,
    ),
    Reliance(
        'nova.utils',
        'synchronized',
        'the locks of base files are not those of Nova',
        True,
        check=_has_prefix,
    ),
    # nova/manager.py
    Reliance(
        'nova.virt.images',
        'fetch_to_raw',
        'images are not cached before they are needed',
        False,
        Use.CALLED,
        ('context', 'image_href', 'path'),
    ),
    Reliance(
        'nova.objects.block_device',
        'BlockDeviceMappingList.bdms_by_instance_uuid',
        _NO_LIST,
        False,
        Use.CALLED,
        ('context', 'instance_uuids'),
    ),
    *(
        Reliance('nova.objects.instance', f'Instance.{name}', _NO_LIST)
        for name in ('uuid', 'name', 'image_ref', 'kernel_id', 'ramdisk_id')
    ),
    *(
        Reliance(
            'nova.objects.block_device',
            f'BlockDeviceMapping.{name}',
            _NO_LIST,
        )
        for name in (
            'source_type', 'destination_type', 'guest_format', 'volume_size',
        )
    ),
    # cache/registry.py
    Reliance(
        'nova.virt.storage_users',
        'register_storage_use',
        'it is not known which hosts share the instances',
    ),
    # nova/privsep.py
    Reliance(
        'nova.privsep',
        'sys_admin_pctxt',
        'disks and base files of QEMU cannot be read',
        vital=True,
    ),
)  # fmt: skip

#: What the driver of Nova has when it has been made.
OF_THE_DRIVER = (
    Reliance('', 'image_cache_manager', _NOT_RUN, vital=True),
    Reliance('', 'image_backend', _NO_GATE, vital=True),
    Reliance(
        '',
        '_host.get_connection',
        'libvirt is asked through a connection of our own',
    ),
)


def _problem(reliance: Reliance, thing: Any) -> str | None:
    """Say what is wrong with something that is there, if anything is."""
    if reliance.use is not Use.NAMED:
        try:
            parameters = list(inspect.signature(thing).parameters.values())
        except (TypeError, ValueError):
            return 'cannot be called'
        if parameters and parameters[0].name in ('self', 'cls'):
            del parameters[0]
        named = [
            each
            for each in parameters
            if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
        further = named[len(reliance.takes) :]
        if reliance.use is Use.CALLED:
            further = [each for each in further if each.default is each.empty]
        elif reliance.use is Use.WRAPPED:
            further = []
        found = tuple(each.name for each in named)
        if found[: len(reliance.takes)] != reliance.takes or further:
            return (
                f'takes ({", ".join(found)}) and not '
                f'({", ".join(reliance.takes)})'
            )
    # A broad net, as what Nova may do by then is anything.
    try:
        good = reliance.check is None or reliance.check(thing)
    except Exception:
        good = False
    return None if good else 'does something else than it did'


def look(
    reliances: Iterable[Reliance] = RELIANCES, driver: Any = None
) -> list[Drift]:
    """Say what of Nova is not as we know it.

    :param driver: the driver of Nova, for what it has
    """
    drifts = []
    for reliance in reliances:
        # A broad net, as a module may fail in any way when it is imported.
        try:
            start = (
                importlib.import_module(reliance.module)
                if reliance.module
                else driver
            )
            thing = functools.reduce(getattr, reliance.name.split('.'), start)
        except Exception:
            problem: str | None = 'is not there'
        else:
            problem = _problem(reliance, thing)
        if problem is not None:
            drifts.append(Drift(reliance, problem))
    return drifts


def insist(drifts: Iterable[Drift]) -> None:
    """Tell what is not as we know it, and end if it is vital.

    As Nova itself ends where it cannot load a driver (``load_compute_driver``
    in nova/virt/driver.py).

    :raises SystemExit: something that is vital is not there
    """
    drifts = list(drifts)
    for drift in drifts:
        if not drift.reliance.vital:
            LOG.error(
                '[P17] %s. Install a release of nova-imagecache that knows '
                '%s.',
                drift,
                _release(),
            )
    vital = [str(drift) for drift in drifts if drift.reliance.vital]
    if vital:
        message = (
            f'nova-compute does not start, as {_release()} is not what its '
            f'driver for the image cache knows: {". ".join(vital)}. Install a '
            'release of nova-imagecache that knows it, or set compute_driver '
            '= libvirt.LibvirtDriver'
        )
        LOG.critical('[P17] %s', message)
        sys.exit(message)


def _release() -> str:
    try:
        return f'Nova {importlib.metadata.version("nova")}'
    except importlib.metadata.PackageNotFoundError:
        return 'this Nova'
