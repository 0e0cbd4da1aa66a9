# SPDX-License-Identifier: Apache-2.0

import os
import textwrap
from typing import Any

import ddt
from oslo_config import cfg

from nova_imagecache.cli import config
from nova_imagecache.conf import read_settings
from nova_imagecache import errors
from nova_imagecache import hook
from tests import base


class OptionsTest(base.TestCase):
    def read(self, text: str) -> cfg.ConfigOpts:
        """Make a host's options from a nova.conf."""
        path = os.path.join(self.temporary, 'nova.conf')
        with open(path, 'w') as file:
            file.write(textwrap.dedent(text))
        conf = cfg.ConfigOpts()
        hook.register_opts(conf)
        conf([f'--config-file={path}'])
        return conf

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

    def test_novas_options_are_found_where_nova_finds_them(self) -> None:
        group = self.read(
            """
            [DEFAULT]
            image_cache_manager_interval = 1
            image_cache_subdirectory_name = _cache
            remove_unused_base_images = false
            remove_unused_original_minimum_age_seconds = 2
            remove_unused_resized_minimum_age_seconds = 77
            [libvirt]
            remove_unused_resized_minimum_age_seconds = 3
            remove_unused_original_minimum_age_seconds = 88
            """
        ).image_cache
        self.assertEqual(1, group.manager_interval)
        self.assertEqual('_cache', group.subdirectory_name)
        self.assertIs(False, group.remove_unused_base_images)
        self.assertEqual(2, group.remove_unused_original_minimum_age_seconds)
        self.assertEqual(3, group.remove_unused_resized_minimum_age_seconds)

    def test_checksum_options_are_found_in_both_former_homes(self) -> None:
        for home in ('DEFAULT', 'libvirt', 'image_cache'):
            group = self.read(
                f"""
                [{home}]
                checksum_base_images = true
                checksum_interval_seconds = 5
                """
            ).image_cache
            self.assertIs(True, group.checksum_base_images)
            self.assertEqual(5, group.checksum_interval_seconds)

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

    def test_values_may_refer_to_what_novas_defaults_refer_to(self) -> None:
        conf = self.read(
            """
            [DEFAULT]
            state_path = /srv/nova
            my_ip = 192.0.2.7
            [image_cache]
            subdirectory_name = _base_$my_ip
            """
        )
        settings = read_settings(conf)
        self.assertEqual('/srv/nova/instances', settings.instances_path)
        self.assertEqual('_base_192.0.2.7', settings.subdirectory_name)

    def test_the_state_path_is_by_default_where_nova_is_installed(
        self,
    ) -> None:
        conf = base.make_conf()
        self.assertEqual(
            os.path.join(conf.pybasedir, 'instances'), conf.instances_path
        )
        self.assertTrue(os.path.isdir(conf.pybasedir))


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

    def test_a_word_for_a_number_is_refused_by_name(self) -> None:
        path = os.path.join(self.temporary, 'nova.conf')
        with open(path, 'w') as file:
            file.write('[image_cache]\nchecksum_interval_seconds = weekly\n')
        error = self.assertRaises(cfg.Error, config.load, [path], '/')
        self.assertIn('checksum_interval_seconds', str(error))

    def test_an_unknown_witness_is_refused_by_name(self) -> None:
        path = os.path.join(self.temporary, 'nova.conf')
        with open(path, 'w') as file:
            file.write('[image_cache]\nwitnesses = overlays,virsh\n')
        error = self.assertRaises(cfg.Error, config.load, [path], '/')
        self.assertIn('witnesses', str(error))
        self.assertIn('virsh', str(error))

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


class LoadTest(base.TestCase):
    def test_nova_conf_is_found_as_nova_finds_it(self) -> None:
        os.mkdir(os.path.join(self.temporary, '.nova'))
        os.mkdir(os.path.join(self.temporary, '.nova', 'nova.conf.d'))
        path = os.path.join(self.temporary, '.nova', 'nova.conf')
        with open(path, 'w') as file:
            file.write(
                '[DEFAULT]\n'
                f'instances_path = {self.temporary}\n'
                '[image_cache]\nchecksum_interval_seconds = 7\n'
            )
        path = os.path.join(
            self.temporary, '.nova', 'nova.conf.d', 'more.conf'
        )
        with open(path, 'w') as file:
            file.write('[image_cache]\nchecksum_base_images = true\n')
        self.patch(os, 'environ', dict(os.environ, HOME=self.temporary))
        settings = config.load()
        self.assertEqual(self.temporary, settings.instances_path)
        self.assertEqual(7, settings.checksum_interval)
        self.assertTrue(settings.checksum)

    def test_the_file_of_the_distribution_comes_before_nova_conf(
        self,
    ) -> None:
        dist = os.path.join(self.temporary, 'nova-dist.conf')
        with open(dist, 'w') as file:
            file.write(
                f'[DEFAULT]\nstate_path = {self.temporary}\n'
                '[image_cache]\nsubdirectory_name = _dist\n'
                'checksum_interval_seconds = 7\n'
            )
        os.mkdir(os.path.join(self.temporary, '.nova'))
        os.mkdir(os.path.join(self.temporary, 'instances'))
        path = os.path.join(self.temporary, '.nova', 'nova.conf')
        with open(path, 'w') as file:
            file.write('[image_cache]\nchecksum_interval_seconds = 8\n')
        self.patch(os, 'environ', dict(os.environ, HOME=self.temporary))
        self.patch(config, '_DIST_FILE', dist)
        settings = config.load()
        self.assertEqual('_dist', settings.subdirectory_name)
        self.assertEqual(8, settings.checksum_interval)

    def test_a_missing_directory_is_an_error_that_says_what_to_do(
        self,
    ) -> None:
        error = self.assertRaises(
            errors.Error, config.load, [os.devnull], '/no/such'
        )
        self.assertIn('--instances-path', str(error))
