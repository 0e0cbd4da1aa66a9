# SPDX-License-Identifier: Apache-2.0

"""The values of the options, checked when they are read.

Types alone do not do: Nova defines its ages without a minimum, and under Nova
its definitions are the ones in force.
"""

from collections.abc import Callable
import dataclasses
import fnmatch
import math
import os
from typing import Any

from oslo_config import cfg
from oslo_utils import units

from nova_imagecache.conf import host_options
from nova_imagecache.conf import image_cache
from nova_imagecache import errors

#: MiB per second that an option may allow; no disk reads so fast.
MOST_MIB = 10**9
_MOST_SECONDS = 10**12
_WATERMARK_GAP = 5


def _refuse(option: str, value: object, problem: str) -> errors.InvalidOption:
    return errors.InvalidOption(f'[image_cache]/{option}', value, problem)


def _number(
    most: float, factor: int = 1, problem: str = 'it is too large'
) -> Callable[[str, int], int]:
    """Give a check for numbers from 0, that gives them in our own unit."""

    def check(option: str, value: int) -> int:
        if value < 0:
            raise _refuse(option, value, 'it must not be negative')
        if value > most:
            raise _refuse(option, value, problem)
        return value * factor

    return check


_seconds = _number(_MOST_SECONDS)
_percent = _number(100, problem='it must be 0 to 100')
_mib = _number(MOST_MIB, units.Mi, 'no disk reads so fast; 0 is no limit')


def _as_is(option: str, value: Any) -> Any:
    return value


def _names(option: str, value: list[str]) -> tuple[str, ...]:
    if 'overlays' not in value:
        raise _refuse(option, ','.join(value), 'overlays must be among them')
    return tuple(value)


# Of a guest that no pattern can mean.
_ANY_GUEST = '00000000-0000-4000-8000-000000000000'
_OF_ANY_GUEST = ((_ANY_GUEST,), (_ANY_GUEST, 'disk'))


def _patterns(option: str, value: list[str]) -> tuple[str, ...]:
    for pattern in value:
        # Nothing would be looked into then, and so everything unused.
        parts = set(pattern.strip('/').split('/'))
        if not parts - {'', '.', '..', '*', '**'} or '\0' in pattern:
            raise _refuse(
                option,
                pattern,
                'it must be the path of something below instances_path',
            )
    return tuple(value)


def _subdirectory(option: str, value: str) -> str:
    # '..' or an empty name would make the instances themselves the cache.
    parts = (value or '').removesuffix(os.sep).split(os.sep)
    if '\0' in (value or '') or {'', '.', '..'} & set(parts):
        raise _refuse(
            option,
            value,
            'it must be the name of a directory below instances_path',
        )
    return os.path.normpath(value)


def _textfile(option: str, value: str) -> str:
    if not value:
        return ''
    if not os.path.isabs(value) or '\0' in value:
        raise _refuse(option, value, 'it must be an absolute path')
    if not value.endswith('.prom'):
        raise _refuse(
            option, value, 'it must end in .prom, or nobody reads it'
        )
    return os.path.normpath(value)


_HOST_OPTIONS = {opt.name: opt for opt in host_options.OPTS}
_OPTIONS = {opt.name: opt for opt in image_cache.ALL_OPTS}


def _from(option: str, check: Callable[[str, Any], Any] = _as_is) -> Any:
    """Declare a field that has the value of an option, and its default.

    :param check: refuses values, or gives them in our own unit
    """
    return dataclasses.field(
        # Decision 0065.
        default=check(option, _OPTIONS[option].default),
        metadata={'option': option, 'check': check},
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an operator has asked for; defaults are those of the options.

    :ivar instances_path: absolute path of the instances' directories
    :ivar host: name of this host
    :ivar libvirt_uri: of the libvirt of this host
    :ivar subdirectory_name: directory of the base files, below it
    :ivar remove_unused: whether unused base files are removed at all
    :ivar original_minimum_age: in seconds, see the option
    :ivar resized_minimum_age: in seconds, see the option
    :ivar checksum: whether base files are checksummed and verified
    :ivar checksum_interval: seconds between two verifications of a file
    :ivar checksum_algorithm: of the digests of blocks
    :ivar scrub_bandwidth: bytes per second to read at most, 0 for no limit
    :ivar corruption_action: ``report``, ``set_aside`` or ``repair``
    :ivar witnesses: names of those that are asked
    :ivar ignore_paths: of what is below instances_path and is no guest's
    :ivar retention: seconds for which removed files stay in the trash
    :ivar high_watermark: percentage of the disk, 0 for none
    :ivar low_watermark: likewise; below the other
    :ivar max_size: bytes that the cache may take, 0 for any number
    :ivar refuse_damaged: whether no new disk is made from a bad base file
    :ivar metrics_textfile: path that passes write metrics to, empty for none
    :ivar metrics_base_files: whether there is a metric for each base file
    """

    instances_path: str
    host: str = _HOST_OPTIONS['host'].default
    libvirt_uri: str = host_options.DEFAULT_URI
    subdirectory_name: str = _from('subdirectory_name', _subdirectory)
    remove_unused: bool = _from('remove_unused_base_images')
    original_minimum_age: int = _from(
        'remove_unused_original_minimum_age_seconds', _seconds
    )
    resized_minimum_age: int = _from(
        'remove_unused_resized_minimum_age_seconds', _seconds
    )
    checksum: bool = _from('checksum_base_images')
    checksum_interval: int = _from('checksum_interval_seconds', _seconds)
    checksum_algorithm: str = _from('checksum_algorithm')
    scrub_bandwidth: int = _from('scrub_bandwidth_mib_per_second', _mib)
    corruption_action: str = _from('corruption_action')
    witnesses: tuple[str, ...] = _from('witnesses', _names)
    ignore_paths: tuple[str, ...] = _from('ignore_paths', _patterns)
    retention: int = _from('removed_image_retention_seconds', _seconds)
    high_watermark: int = _from('disk_high_watermark_percent', _percent)
    low_watermark: int = _from('disk_low_watermark_percent', _percent)
    max_size: int = _from('cache_max_size', _number(math.inf))
    refuse_damaged: bool = _from('refuse_damaged_base_images')
    metrics_textfile: str = _from('metrics_textfile', _textfile)
    metrics_base_files: bool = _from('metrics_base_files')


def _watermarks(settings: Settings) -> Settings:
    """See that the low one is below the high one; 0 is five less."""
    high, low = settings.high_watermark, settings.low_watermark
    if high and low > high:
        raise _refuse(
            'disk_low_watermark_percent',
            low,
            f'it must not be above disk_high_watermark_percent, {high}',
        )
    low = (low or max(high - _WATERMARK_GAP, 1)) if high else 0
    return dataclasses.replace(settings, low_watermark=low)


def _ignoring(settings: Settings) -> Settings:
    """See that no pattern leaves out the disks of any guest there may be."""
    top = settings.instances_path
    paths = [top, *(os.path.join(top, *parts) for parts in _OF_ANY_GUEST)]
    for pattern in settings.ignore_paths:
        whole = os.path.normpath(os.path.join(top, pattern))
        if any(fnmatch.fnmatchcase(path, whole) for path in paths):
            raise _refuse(
                'ignore_paths', pattern, 'the disks of all guests are there'
            )
    return settings


def _libvirt_uri(conf: cfg.ConfigOpts) -> str:
    """Give the URI as ``_uri`` of nova/virt/libvirt/driver.py does."""
    uri: str = conf.libvirt.connection_uri
    defaults = {'lxc': 'lxc:///', 'parallels': 'parallels:///system'}
    return uri or defaults.get(
        conf.libvirt.virt_type, host_options.DEFAULT_URI
    )


def _instances_path(conf: cfg.ConfigOpts) -> str:
    path: str = conf.instances_path
    if not os.path.isabs(path or '') or '\0' in path:
        raise errors.InvalidOption(
            '[DEFAULT]/instances_path', path, 'it must be an absolute path'
        )
    return os.path.normpath(path)


def read_paths(conf: cfg.ConfigOpts) -> tuple[str, str]:
    """Read instances_path, and the subdirectory of the base files.

    :raises oslo_config.cfg.Error: as :func:`read_settings`, for these two
    """
    name = 'subdirectory_name'
    return _instances_path(conf), _subdirectory(name, conf.image_cache[name])


def read_settings(conf: cfg.ConfigOpts) -> Settings:
    """Read and check the options.

    :raises oslo_config.cfg.Error: a value is missing or makes no sense; the
        message names the option
    """
    manager_interval: int = conf.image_cache.manager_interval
    if manager_interval < -1:
        raise _refuse(
            'manager_interval',
            manager_interval,
            'it must be -1, 0 or a number of seconds',
        )
    values = {}
    for field in dataclasses.fields(Settings):
        option = field.metadata.get('option')
        if option is not None:
            value = conf.image_cache[option]
            values[field.name] = field.metadata['check'](option, value)
    settings = Settings(
        instances_path=_instances_path(conf),
        host=conf.host,
        libvirt_uri=_libvirt_uri(conf),
        **values,
    )
    return _ignoring(_watermarks(settings))
