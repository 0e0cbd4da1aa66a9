# SPDX-License-Identifier: Apache-2.0

"""Options as they come from files."""

import os
import textwrap

from oslo_config import cfg

from nova_imagecache.cli import config
from nova_imagecache.conf import read_settings
from nova_imagecache import errors
from nova_imagecache import hook
from tests.support import base
from tests.support import nodes


class NovaConfTest(nodes.FileTestCase):
    """What is read of a nova.conf."""

    def read(self, text: str) -> cfg.ConfigOpts:
        """Make a host's options from a nova.conf."""
        path = os.path.join(self.temporary, 'nova.conf')
        with open(path, 'w') as file:
            file.write(textwrap.dedent(text))
        conf = cfg.ConfigOpts()
        hook.register_opts(conf)
        conf([f'--config-file={path}'])
        return conf

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

    def test_a_word_for_a_number_is_refused_by_name(self) -> None:
        path = os.path.join(self.temporary, 'nova.conf')
        with open(path, 'w') as file:
            file.write('[image_cache]\nchecksum_interval_seconds = weekly\n')
        error = self.assertRaises(errors.Error, config.load, [path], '/')
        self.assertIn('checksum_interval_seconds', str(error))
        self.assertNotIn('LocationInfo', str(error))

    def test_an_unknown_witness_is_refused_by_name(self) -> None:
        path = os.path.join(self.temporary, 'nova.conf')
        with open(path, 'w') as file:
            file.write('[image_cache]\nwitnesses = overlays,virsh\n')
        error = self.assertRaises(errors.Error, config.load, [path], '/')
        self.assertIn('witnesses', str(error))
        self.assertIn('virsh', str(error))


class LoadTest(nodes.FileTestCase):
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
