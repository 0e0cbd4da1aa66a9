# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable
import os
from typing import Any

import libvirt
from oslo_config import cfg

from nova_imagecache.content import knowledge
from nova_imagecache import hook
from nova_imagecache.passes import decide
from tests.support import base
from tests.support import libvirt_guests
from tests.support import nodes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


class ManagerTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.conf = base.make_conf(
            instances_path=self.node.layout.instances,
            checksum_base_images=True,
            checksum_interval_seconds=0,
        )

    def manager(self, **kwargs: Any) -> hook.ImageCacheManager:
        values: dict[str, Any] = {'clock': self.node.clock, 'inline': True}
        return hook.ImageCacheManager(self.conf, **(values | kwargs))

    def test_it_has_what_drivers_ask_of_novas(self) -> None:
        path = self.node.add_base('f' * 40)
        manager = self.manager()
        self.assertEqual(self.node.layout.base, manager.cache_dir)
        self.assertEqual(
            os.stat(path).st_blocks * 512, manager.get_disk_usage()
        )

    def test_an_image_of_an_instance_stays_and_another_goes(self) -> None:
        used = self.node.add_image('used', age=365 * base.DAY)
        unused = self.node.add_image('unused', age=365 * base.DAY)
        instance = {'uuid': GUEST, 'image_ref': 'used'}
        report = self.manager().update(None, [instance])
        self.assertEqual([unused], [file.name for file in report.removed])
        file = self.file_of(report, used)
        self.assertEqual(
            ((GUEST,), 'used', decide.Action.KEEP),
            (file.users, file.image, file.action),
        )

    def test_block_device_mappings_tell_who_uses_swap(self) -> None:
        used = 'swap_64'
        self.node.add_base(used, age=365 * base.DAY)
        self.node.add_base('swap_128', age=365 * base.DAY)
        mapping = {
            'source_type': 'blank',
            'destination_type': 'local',
            'guest_format': 'swap',
            'volume_size': 64,
        }
        report = self.manager().update(
            None, [{'uuid': GUEST, 'image_ref': ''}], {GUEST: [mapping]}
        )
        self.assertEqual((GUEST,), self.file_of(report, used).users)
        self.assertIn(used, self.node.files())
        self.assertNotIn('swap_128', self.node.files())

    def test_an_unusable_list_of_instances_removes_nothing(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        for instances in (None, [{'uuid': GUEST}], [object()]):
            report = self.manager().update(None, instances)
            self.assertEqual(1, len(report.vetoes))
            self.assertIn(name, self.node.files())
            self.assertIn('Nothing is removed', self.log.output)

    def test_the_hosts_own_libvirt_is_asked_where_it_lends_it(self) -> None:
        used = self.node.add_image('used', age=365 * base.DAY)
        unused = self.node.add_image('unused', age=365 * base.DAY)
        connection = libvirt.open('test:///default')
        self.addCleanup(connection.close)
        connection.defineXML(
            libvirt_guests.guest_xml(GUEST, self.node.base_path(used))
        )
        self.conf.set_override(
            'witnesses', ['overlays', 'libvirt'], group='image_cache'
        )
        report = self.manager(connect=lambda: connection).update(None, None)
        self.assertEqual((), report.vetoes)
        self.assertEqual((GUEST,), self.file_of(report, used).users)
        self.assertEqual([unused], [file.name for file in report.removed])

    def test_a_libvirt_that_cannot_be_had_removes_nothing(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.conf.set_override(
            'witnesses', ['overlays', 'libvirt'], group='image_cache'
        )

        def connect() -> None:
            raise RuntimeError('no libvirt\ntoday')

        report = self.manager(connect=connect).update(None, [])
        self.assertIn('no libvirt today', report.vetoes[0])
        self.assertIn(name, self.node.files())

    def test_a_witness_that_is_not_named_is_not_asked(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.conf.set_override('witnesses', ['overlays'], group='image_cache')
        report = self.manager().update(None, None)
        self.assertEqual((), report.vetoes)
        self.assertEqual([name], [file.name for file in report.removed])

    def test_a_disk_is_read_with_the_hosts_privilege(self) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can have files that it may not read')
        name = self.node.add_image('used', age=365 * base.DAY)
        disk = self.node.add_overlay(GUEST, name)
        os.chmod(disk, 0)

        for path, _directories, files in os.walk(self.node.layout.instances):
            for each in [path, *(os.path.join(path, file) for file in files)]:
                if each != disk:
                    os.chown(each, nodes.NOBODY, nodes.NOBODY)
        with nodes.unprivileged():
            blind = self.manager().update(None, [])
            report = self.manager(read_as_root=nodes.read_as_root).update(
                None, []
            )
        self.assertIn(disk, blind.vetoes[0])
        self.assertEqual((), report.vetoes)
        self.assertEqual((GUEST,), self.file_of(report, name).users)

    def test_the_2012_name_fetches_the_instances_itself(self) -> None:
        name = self.node.add_image('used')
        contexts = []

        def get_instances(context: Any) -> Iterable[Any]:
            contexts.append(context)
            return [{'uuid': GUEST, 'image_ref': 'used'}]

        manager = self.manager(get_instances=get_instances)
        report = manager.verify_base_images('the context')
        self.assertEqual(['the context'], contexts)
        self.assertEqual((GUEST,), self.file_of(report, name).users)

    def test_the_2012_name_fails_safely_when_fetching_does(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)

        def get_instances(context: Any) -> Iterable[Any]:
            raise ConnectionError('no database')

        manager = self.manager(get_instances=get_instances)
        report = manager.verify_base_images(None)
        self.assertIn('no database', report.vetoes[0])
        self.assertIn(name, self.node.files())

    def test_the_2012_name_needs_a_way_to_fetch(self) -> None:
        error = self.assertRaises(
            RuntimeError, self.manager().verify_base_images, None
        )
        self.assertIn('get_instances', str(error))

    def test_options_are_read_anew_in_each_pass(self) -> None:
        name = self.node.add_image('x')
        manager = self.manager()
        manager.update(None, [])
        self.assertIn(f'{name}.sha1', self.node.files())
        self.conf.set_override(
            'checksum_base_images', False, group='image_cache'
        )
        report = manager.update(None, [])
        self.assertIs(
            knowledge.Verdict.OFF, self.file_of(report, name).checksum
        )

    def test_a_bad_option_is_refused_and_nothing_is_done(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.conf.set_override(
            'remove_unused_original_minimum_age_seconds',
            -1,
            group='image_cache',
        )
        error = self.assertRaises(
            hook.InvalidOption, self.manager().update, None, []
        )
        self.assertIsInstance(error, cfg.Error)
        self.assertIn('original_minimum_age', str(error))
        self.assertEqual({name}, self.node.files())

    def test_a_missing_instances_path_is_reported(self) -> None:
        self.conf.set_override('instances_path', '/no/such')
        manager = self.manager()
        report = manager.update(None, [])
        self.assertEqual((), report.files)
        self.assertIn('/no/such', report.vetoes[0])
        self.assertEqual(0, manager.get_disk_usage())

    def test_the_log_says_what_was_done(self) -> None:
        unused = self.node.add_image('unused', age=365 * base.DAY)
        self.node.add_image('used')
        self.manager().update(None, [{'uuid': GUEST, 'image_ref': 'used'}])
        self.assertIn(
            f'Moved to the trash: original file {unused}', self.log.output
        )
        self.assertIn(
            '2 files, 1 in use, 1 moved to the trash', self.log.output
        )

    def test_the_global_options_are_the_default(self) -> None:
        self.assertIs(cfg.CONF, hook.ImageCacheManager()._conf)


class PeriodicTaskTest(nodes.NodeTestCase):
    """The manager in an oslo.service periodic task, as the README has it."""

    def test_the_readme_shows_a_driver_that_works(self) -> None:
        readme = os.path.join(
            os.path.dirname(__file__), '..', '..', 'README.rst'
        )
        with open(readme) as file:
            text = file.read()
        _before, _marker, block = text.partition('.. code-block:: python\n')
        lines = []
        for line in block.splitlines():
            if line and not line.startswith(' '):
                break
            lines.append(line[3:])
        source = '\n'.join(lines)
        self.assertIn('periodic_task', source)
        name = self.node.add_image('image', age=365 * base.DAY)
        conf = base.make_conf(instances_path=self.node.layout.instances)
        spaces: dict[str, Any] = {'CONF': conf}
        exec(compile(source, readme, 'exec'), spaces)
        driver = spaces['ComputeManager']()
        driver.list_instances = lambda context: [
            {'uuid': GUEST, 'image_ref': 'image'}
        ]
        driver.run_periodic_tasks(None, raise_on_error=True)
        self.assertIn(name, self.node.files())
        driver.list_instances = lambda context: []
        os.utime(self.node.base_path(name), (1, 1))
        driver._run_image_cache_manager_pass(None)
        # Its last use is remembered, so it stays for a day.
        self.assertIn(name, self.node.files())
