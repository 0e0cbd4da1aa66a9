# SPDX-License-Identifier: Apache-2.0

"""The values of the options, checked when they are read.

Types alone do not do: Nova defines its ages without a minimum, and under Nova
its definitions are the ones in force.
"""

import dataclasses
import json
import os

from oslo_config import cfg
from oslo_utils import units

from nova_imagecache.conf import image_cache
from nova_imagecache import errors


_MOST_MIB = 10**9
_MOST_SECONDS = 10**12
_WATERMARK_GAP = 5


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an operator has asked for.

    :ivar instances_path: absolute path of the instances' directories
    :ivar subdirectory_name: directory of the base files, below it
    :ivar host: name of this host
    :ivar remove_unused: whether unused base files are removed at all
    :ivar original_minimum_age: in seconds, see the option
    :ivar resized_minimum_age: in seconds, see the option
    :ivar checksum: whether base files are checksummed and verified
    :ivar checksum_interval: seconds between two verifications of a file
    :ivar checksum_algorithm: of the digests of blocks
    :ivar scrub_bandwidth: bytes per second to read at most, 0 for no limit
    :ivar witnesses: names of those that are asked
    :ivar libvirt_uri: of the libvirt of this host
    :ivar retention: seconds for which removed files stay in the trash
    :ivar high_watermark: percentage of the disk, 0 for none
    :ivar low_watermark: likewise; below the other
    :ivar max_size: bytes that the cache may take, 0 for any number
    """

    instances_path: str
    subdirectory_name: str = '_base'
    host: str = 'localhost'
    remove_unused: bool = True
    original_minimum_age: int = 24 * 3600
    resized_minimum_age: int = 3600
    checksum: bool = False
    checksum_interval: int = 7 * 24 * 3600
    checksum_algorithm: str = image_cache.CHECKSUM_ALGORITHMS[0]
    scrub_bandwidth: int = 8 * units.Mi
    witnesses: tuple[str, ...] = image_cache.WITNESSES
    libvirt_uri: str = 'qemu:///system'
    retention: int = 3600
    high_watermark: int = 0
    low_watermark: int = 0
    max_size: int = 0


def encode(settings: Settings) -> str:
    """Write settings on one line, for a process that has no CONF."""
    return json.dumps(dataclasses.asdict(settings))


def decode(line: str) -> Settings:
    """Read what :func:`encode` has written.

    :raises ValueError: it is not that
    """
    values = json.loads(line)
    fields = {field.name for field in dataclasses.fields(Settings)}
    if not isinstance(values, dict) or values.keys() != fields:
        raise ValueError('these are no settings')
    return Settings(**values | {'witnesses': tuple(values['witnesses'])})


def _not_negative(conf: cfg.ConfigOpts, name: str) -> int:
    value: int = conf.image_cache[name]
    if value < 0:
        raise errors.InvalidOption(
            f'[image_cache]/{name}', value, 'it must not be negative'
        )
    if value > _MOST_SECONDS:
        raise errors.InvalidOption(
            f'[image_cache]/{name}', value, 'it is too large'
        )
    return value


def _size(conf: cfg.ConfigOpts, name: str) -> int:
    value: int = conf.image_cache[name]
    if value < 0:
        raise errors.InvalidOption(
            f'[image_cache]/{name}', value, 'it must not be negative'
        )
    return value


def _percent(conf: cfg.ConfigOpts, name: str) -> int:
    value = _not_negative(conf, name)
    if value > 100:
        raise errors.InvalidOption(
            f'[image_cache]/{name}', value, 'it must be 0 to 100'
        )
    return value


def _watermarks(conf: cfg.ConfigOpts) -> tuple[int, int]:
    """Read the high and the low one."""
    high = _percent(conf, 'disk_high_watermark_percent')
    name = 'disk_low_watermark_percent'
    low = _percent(conf, name)
    if not high:
        return 0, 0
    if low > high:
        raise errors.InvalidOption(
            f'[image_cache]/{name}',
            low,
            f'it must not be above disk_high_watermark_percent, {high}',
        )
    return high, low or max(high - _WATERMARK_GAP, 1)


def _witnesses(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    names: list[str] = conf.image_cache.witnesses
    if 'overlays' not in names:
        raise errors.InvalidOption(
            '[image_cache]/witnesses',
            ','.join(names),
            'overlays must be among them',
        )
    return tuple(names)


def _libvirt_uri(conf: cfg.ConfigOpts) -> str:
    """Give the URI as ``_uri`` of nova/virt/libvirt/driver.py does."""
    uri: str = conf.libvirt.connection_uri
    defaults = {'lxc': 'lxc:///', 'parallels': 'parallels:///system'}
    return uri or defaults.get(conf.libvirt.virt_type, 'qemu:///system')


def _scrub_bandwidth(conf: cfg.ConfigOpts) -> int:
    name = 'scrub_bandwidth_mib_per_second'
    value = _not_negative(conf, name)
    if value > _MOST_MIB:
        raise errors.InvalidOption(
            f'[image_cache]/{name}',
            value,
            'no disk reads so fast; 0 is no limit',
        )
    return value * units.Mi


def _instances_path(conf: cfg.ConfigOpts) -> str:
    path: str = conf.instances_path
    if not os.path.isabs(path or '') or '\0' in path:
        raise errors.InvalidOption(
            '[DEFAULT]/instances_path', path, 'it must be an absolute path'
        )
    return os.path.normpath(path)


def _subdirectory_name(conf: cfg.ConfigOpts) -> str:
    name: str = conf.image_cache.subdirectory_name
    # '..' or an empty name would make the instances themselves the cache.
    parts = (name or '').removesuffix(os.sep).split(os.sep)
    if '\0' in (name or '') or {'', '.', '..'} & set(parts):
        raise errors.InvalidOption(
            '[image_cache]/subdirectory_name',
            name,
            'it must be the name of a directory below instances_path',
        )
    return os.path.normpath(name)


def read_paths(conf: cfg.ConfigOpts) -> tuple[str, str]:
    """Read instances_path, and the subdirectory of the base files.

    :raises oslo_config.cfg.Error: as :func:`read_settings`, for these two
    """
    return _instances_path(conf), _subdirectory_name(conf)


def read_settings(conf: cfg.ConfigOpts) -> Settings:
    """Read and check the options.

    :raises oslo_config.cfg.Error: a value is missing or makes no sense; the
        message names the option
    """
    manager_interval: int = conf.image_cache.manager_interval
    if manager_interval < -1:
        raise errors.InvalidOption(
            '[image_cache]/manager_interval',
            manager_interval,
            'it must be -1, 0 or a number of seconds',
        )
    group = conf.image_cache
    high, low = _watermarks(conf)
    instances_path, subdirectory_name = read_paths(conf)
    return Settings(
        instances_path=instances_path,
        subdirectory_name=subdirectory_name,
        host=conf.host,
        remove_unused=group.remove_unused_base_images,
        original_minimum_age=_not_negative(
            conf, 'remove_unused_original_minimum_age_seconds'
        ),
        resized_minimum_age=_not_negative(
            conf, 'remove_unused_resized_minimum_age_seconds'
        ),
        checksum=group.checksum_base_images,
        checksum_interval=_not_negative(conf, 'checksum_interval_seconds'),
        checksum_algorithm=group.checksum_algorithm,
        scrub_bandwidth=_scrub_bandwidth(conf),
        witnesses=_witnesses(conf),
        libvirt_uri=_libvirt_uri(conf),
        retention=_not_negative(conf, 'removed_image_retention_seconds'),
        high_watermark=high,
        low_watermark=low,
        max_size=_size(conf, 'cache_max_size'),
    )
