# SPDX-License-Identifier: Apache-2.0

from typing import Any

import ddt
from oslo_config import cfg

from nova_imagecache.conf import read_settings
from nova_imagecache import hook
from tests.support import base


class OptionsTest(base.TestCase):
    def test_the_defaults_are_novas_and_checksums_are_off(self) -> None:
        group = base.make_conf().image_cache
        self.assertEqual(2400, group.manager_interval)
        self.assertEqual('_base', group.subdirectory_name)
        self.assertIs(True, group.remove_unused_base_images)
        self.assertEqual(
            86400, group.remove_unused_original_minimum_age_seconds
        )
        self.assertEqual(3600, group.remove_unused_resized_minimum_age_seconds)
        self.assertIs(False, group.checksum_base_images)
        self.assertEqual(7 * base.DAY, group.checksum_interval_seconds)

    def test_registering_twice_is_harmless(self) -> None:
        conf = base.make_conf()
        hook.register_opts(conf)
        self.assertEqual(2400, conf.image_cache.manager_interval)

    def test_the_hosts_own_definition_wins(self) -> None:
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.StrOpt('instances_path', default='/host'))
        conf.register_group(cfg.OptGroup('image_cache', help='The host.'))
        conf.register_opt(
            cfg.IntOpt('manager_interval', default=99, help='The host.'),
            group='image_cache',
        )
        hook.register_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        self.assertEqual('/host', conf.instances_path)
        self.assertEqual(99, conf.image_cache.manager_interval)
        self.assertIs(False, conf.image_cache.checksum_base_images)


@ddt.ddt
class SettingsTest(base.TestCase):
    def assert_refused(self, conf: cfg.ConfigOpts, option: str) -> None:
        error = self.assertRaises(cfg.Error, read_settings, conf)
        self.assertIn(option, str(error))
        self.assertNotIn('\n', str(error))

    @ddt.data(
        ('remove_unused_original_minimum_age_seconds', -1),
        ('remove_unused_resized_minimum_age_seconds', -3600),
        ('checksum_interval_seconds', -1),
        ('removed_image_retention_seconds', -1),
        ('disk_high_watermark_percent', -1),
        ('disk_high_watermark_percent', 101),
        ('disk_low_watermark_percent', 101),
        ('cache_max_size', -1),
        ('witnesses', []),
        ('witnesses', ['libvirt', 'locks']),
        ('subdirectory_name', ''),
        ('subdirectory_name', '.'),
        ('subdirectory_name', '..'),
        ('subdirectory_name', '../_base'),
        ('subdirectory_name', '_base/../..'),
        ('subdirectory_name', '/_base'),
        ('subdirectory_name', '_ba\0se'),
    )
    @ddt.unpack
    def test_nonsense_is_refused_by_name(
        self, option: str, value: Any
    ) -> None:
        conf = base.make_conf(instances_path='/i', **{option: value})
        self.assert_refused(conf, option)

    @ddt.data(
        ('manager_interval', -1, None),
        ('remove_unused_original_minimum_age_seconds', 10**12, 10**12 + 1),
        ('checksum_interval_seconds', 0, -1),
        ('scrub_bandwidth_mib_per_second', 10**9, 10**9 + 1),
        ('disk_high_watermark_percent', 100, 101),
    )
    @ddt.unpack
    def test_a_range_ends_where_it_should(
        self, option: str, last: int, beyond: int | None
    ) -> None:
        conf = base.make_conf(instances_path='/i', **{option: last})
        self.assertEqual('/i', read_settings(conf).instances_path)
        # Without a number oslo.config itself refuses it.
        if beyond is not None:
            conf.set_override(option, beyond, group='image_cache')
            self.assert_refused(conf, option)

    def test_nonsense_is_refused_under_the_hosts_definition_too(self) -> None:
        for option in (
            'manager_interval',
            'remove_unused_original_minimum_age_seconds',
            'remove_unused_resized_minimum_age_seconds',
        ):
            conf = cfg.ConfigOpts()
            conf.register_opt(
                cfg.IntOpt(option, default=-5), group='image_cache'
            )
            hook.register_opts(conf)
            conf([], default_config_files=[], default_config_dirs=[])
            self.assert_refused(conf, option)

    @ddt.data('', 'relative/path', '$nowhere/x')
    def test_an_instances_path_that_is_none_is_refused(
        self, path: str
    ) -> None:
        conf = base.make_conf()
        conf.set_override('instances_path', path)
        self.assert_refused(conf, 'instances_path')

    def test_a_low_mark_above_the_high_one_is_refused(self) -> None:
        conf = base.make_conf(
            instances_path='/i',
            disk_high_watermark_percent=80,
            disk_low_watermark_percent=81,
        )
        self.assert_refused(conf, 'disk_low_watermark_percent')

    @ddt.data(
        (0, 0, (0, 0)), (0, 50, (0, 0)), (80, 0, (80, 75)), (3, 0, (3, 1)),
        (80, 80, (80, 80)), (90, 60, (90, 60)),
    )  # fmt: skip
    @ddt.unpack
    def test_without_a_low_mark_it_is_five_less_than_the_high_one(
        self, high: int, low: int, expected: tuple[int, int]
    ) -> None:
        settings = read_settings(
            base.make_conf(
                instances_path='/i',
                disk_high_watermark_percent=high,
                disk_low_watermark_percent=low,
            )
        )
        self.assertEqual(
            expected, (settings.high_watermark, settings.low_watermark)
        )

    @ddt.data(
        ('kvm', '', 'qemu:///system'), ('lxc', '', 'lxc:///'),
        ('parallels', '', 'parallels:///system'),
        ('qemu', 'qemu+tcp://127.0.0.1/system', 'qemu+tcp://127.0.0.1/system'),
    )  # fmt: skip
    @ddt.unpack
    def test_the_uri_of_libvirt_is_the_one_that_nova_would_take(
        self, virt_type: str, uri: str, expected: str
    ) -> None:
        conf = base.make_conf(instances_path='/i')
        conf.set_override('virt_type', virt_type, group='libvirt')
        conf.set_override('connection_uri', uri, group='libvirt')
        self.assertEqual(expected, read_settings(conf).libvirt_uri)

    def test_all_witnesses_are_asked_unless_some_are_named(self) -> None:
        conf = cfg.ConfigOpts()
        hook.register_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override('instances_path', '/i')
        self.assertEqual(
            ('instances', 'overlays', 'libvirt', 'locks'),
            read_settings(conf).witnesses,
        )

    def test_a_name_of_several_directories_is_accepted(self) -> None:
        conf = base.make_conf(instances_path='/i/', subdirectory_name='a/b/')
        settings = read_settings(conf)
        self.assertEqual('/i', settings.instances_path)
        self.assertEqual('a/b', settings.subdirectory_name)
