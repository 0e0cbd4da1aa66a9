# SPDX-License-Identifier: Apache-2.0

"""Each option as operators know it, and what becomes of it.

A change of a name, a default, a type or a former home changes what running
nodes do, so it has to be made here as well, and in a release note.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import ddt
from oslo_config import cfg

from nova_imagecache.conf import host_options
from nova_imagecache.conf import image_cache
from nova_imagecache.conf import list_opts
from nova_imagecache.conf import read_settings
from nova_imagecache.conf import Settings
from nova_imagecache import hook
from tests.support import base

DAY = 86400

#: Where Nova, or Nova of 2012, has had an option: group and name.
LIBVIRT, DEFAULT = 'libvirt', 'DEFAULT'

#: By name: the type, the default, and the former homes, group and name.
IMAGE_CACHE: dict[str, tuple[str, Any, list[tuple[str, str | None]]]] = {
    'manager_interval': (
        'integer value',
        2400,
        [(DEFAULT, 'image_cache_manager_interval')],
    ),
    'subdirectory_name': (
        'string value',
        '_base',
        [(DEFAULT, 'image_cache_subdirectory_name')],
    ),
    'remove_unused_base_images': ('boolean value', True, [(DEFAULT, None)]),
    'remove_unused_original_minimum_age_seconds': (
        'integer value',
        DAY,
        [(DEFAULT, None)],
    ),
    'remove_unused_resized_minimum_age_seconds': (
        'integer value',
        3600,
        [(LIBVIRT, None)],
    ),
    'checksum_base_images': (
        'boolean value',
        False,
        [
            (LIBVIRT, 'checksum_base_images'),
            (DEFAULT, 'checksum_base_images'),
        ],
    ),
    'checksum_interval_seconds': (
        'integer value',
        7 * DAY,
        [
            (LIBVIRT, 'checksum_interval_seconds'),
            (DEFAULT, 'checksum_interval_seconds'),
        ],
    ),
    'checksum_algorithm': ('string value', 'xxh3_128', []),
    'corruption_action': ('string value', 'report', []),
    'scrub_bandwidth_mib_per_second': ('integer value', 8, []),
    'witnesses': (
        'list value',
        ['instances', 'overlays', 'libvirt', 'locks'],
        [],
    ),
    'ignore_paths': ('list value', [], []),
    'removed_image_retention_seconds': ('integer value', 3600, []),
    'disk_high_watermark_percent': ('integer value', 0, []),
    'disk_low_watermark_percent': ('integer value', 0, []),
    'cache_max_size': ('integer value', 0, []),
    'refuse_damaged_base_images': ('boolean value', True, []),
    'metrics_textfile': ('string value', '', []),
    'metrics_base_files': ('boolean value', False, []),
}

#: What else an option takes, or refuses by itself.
LEAST = {'manager_interval': -1}
CHOICES = {
    'checksum_algorithm': ['xxh3_128', 'blake2b', 'sha256'],
    'corruption_action': ['report', 'set_aside', 'repair'],
    'virt_type': ['kvm', 'lxc', 'qemu', 'parallels'],
}

#: Options of the host, by group. Of some the default is the machine's.
HOST: dict[str, dict[str, str | None]] = {
    'DEFAULT': {
        'pybasedir': None,
        'state_path': '$pybasedir',
        'instances_path': '$state_path/instances',
        'my_ip': None,
        'host': None,
    },
    'libvirt': {'virt_type': 'kvm', 'connection_uri': ''},
}

#: A value of each option that is not the default, and that makes sense.
OTHER = {
    'manager_interval': 60,
    'subdirectory_name': '_other',
    'remove_unused_base_images': False,
    'remove_unused_original_minimum_age_seconds': 7000,
    'remove_unused_resized_minimum_age_seconds': 7000,
    'checksum_base_images': True,
    'checksum_interval_seconds': 7000,
    'checksum_algorithm': 'sha256',
    'corruption_action': 'repair',
    'scrub_bandwidth_mib_per_second': 5,
    'witnesses': ['overlays'],
    'ignore_paths': ['backup'],
    'removed_image_retention_seconds': 7000,
    'disk_high_watermark_percent': 90,
    # Without a high one it says nothing.
    'disk_low_watermark_percent': 50,
    'cache_max_size': 7000,
    'refuse_damaged_base_images': False,
    'metrics_textfile': '/metrics/x.prom',
    'metrics_base_files': True,
}

#: Options that are read into no field, and why.
IN_NO_FIELD = {
    'manager_interval': 'the service goes by it; here it is only checked',
}


def field_of(option: str) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(Settings)
        if field.metadata.get('option') == option
    ]


@ddt.ddt
class DeclarationTest(base.TestCase):
    def test_there_are_these_and_no_others(self) -> None:
        found = {
            group: [opt.name for opt in opts] for group, opts in list_opts()
        }
        expected = {group: list(opts) for group, opts in HOST.items()}
        self.assertEqual(expected | {'image_cache': list(IMAGE_CACHE)}, found)

    @ddt.data(*image_cache.ALL_OPTS)
    def test_an_option_is_what_it_was(self, opt: cfg.Opt) -> None:
        kind, default, homes = IMAGE_CACHE[opt.name]
        self.assertEqual(kind, cfg_type(opt))
        self.assertEqual(default, opt.default)
        self.assertEqual(type(default), type(opt.default))
        self.assertEqual(
            homes, [(old.group, old.name) for old in opt.deprecated_opts]
        )
        self.assertEqual(LEAST.get(opt.name), getattr(opt.type, 'min', None))
        self.assertIsNone(getattr(opt.type, 'max', None))
        choices = getattr(opt.type, 'choices', None)
        self.assertEqual(
            CHOICES.get(opt.name), list(choices) if choices else None
        )

    def test_what_the_host_has_is_what_nova_has(self) -> None:
        for group, opts in (
            ('DEFAULT', host_options.OPTS),
            ('libvirt', host_options.LIBVIRT_OPTS),
        ):
            for opt in opts:
                self.assertEqual('string value', cfg_type(opt))
                self.assertEqual([], opt.deprecated_opts)
                default = HOST[group][opt.name]
                if default is None:
                    self.assertIsNotNone(opt.sample_default, opt.name)
                else:
                    self.assertEqual(default, opt.default)

    def test_what_only_we_have_may_change_while_the_service_runs(
        self,
    ) -> None:
        base.make_conf()
        self.assertEqual(
            set(IMAGE_CACHE) - {opt.name for opt in image_cache.NOVA_OPTS},
            {opt.name for opt in image_cache.ALL_OPTS if opt.mutable},
        )


def cfg_type(opt: cfg.Opt) -> str:
    """Name the type of an option as the sample configuration does."""
    names = {
        cfg.StrOpt: 'string value',
        cfg.IntOpt: 'integer value',
        cfg.BoolOpt: 'boolean value',
        cfg.ListOpt: 'list value',
    }
    return names[type(opt)]


def options() -> Iterator[str]:
    return (opt.name for opt in image_cache.ALL_OPTS)


@ddt.ddt
class FieldTest(base.TestCase):
    """What is read of the options."""

    def read(self, **values: Any) -> Settings:
        conf = base.make_conf(instances_path='/i', **values)
        return read_settings(conf)

    @ddt.data(*options())
    def test_an_option_is_read_into_one_field(self, option: str) -> None:
        expected = 0 if option in IN_NO_FIELD else 1
        self.assertEqual(expected, len(field_of(option)), option)

    @ddt.data(*options())
    def test_another_value_is_another_setting(self, option: str) -> None:
        also: dict[str, Any] = {}
        if option == 'disk_low_watermark_percent':
            also = {'disk_high_watermark_percent': 90}
        before = vars(self.read(**also))
        after = vars(self.read(**also, **{option: OTHER[option]}))
        changed = [name for name in before if before[name] != after[name]]
        expected = field_of(option)
        if option == 'disk_high_watermark_percent':
            # Five less, where there is none.
            expected = ['high_watermark', 'low_watermark']
        self.assertEqual(expected, changed)

    def test_no_field_is_of_an_option_that_is_not_there(self) -> None:
        read = {
            field.metadata['option']
            for field in dataclasses.fields(Settings)
            if 'option' in field.metadata
        }
        self.assertEqual(set(IMAGE_CACHE) - set(IN_NO_FIELD), read)

    def test_without_any_file_the_settings_are_the_defaults(self) -> None:
        conf = cfg.ConfigOpts()
        hook.register_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override('instances_path', '/i')
        self.assertEqual(Settings('/i'), read_settings(conf))
