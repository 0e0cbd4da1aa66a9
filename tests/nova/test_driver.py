# SPDX-License-Identifier: Apache-2.0

"""Our driver in Nova: how it is found, and the passes that it makes."""

import importlib
import inspect
import os
import sys
import threading
from typing import Any
from unittest import mock

import libvirt
from nova.compute import manager as compute_manager
from nova.virt import driver
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import host
from oslo_concurrency import lockutils
from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_utils.fixture import uuidsentinel
import sqlalchemy

from nova_imagecache.nova import driver as ours
from nova_imagecache.nova import manager
from nova_imagecache.witnesses import libvirt_connection
from tests.nova import base
from tests.support import base as plain
from tests.support import libvirt_guests

OTHER = uuidsentinel.other
OLD = 365 * plain.DAY


class DriverTest(base.NodeTestCase):
    def test_nova_finds_the_driver_by_the_name_in_nova_conf(self) -> None:
        self.assertIs(ours.LibvirtDriver, type(self.driver))
        self.assertIsInstance(self.driver, stock.LibvirtDriver)
        self.assertIsInstance(self.driver, driver.ComputeDriver)
        self.assertTrue(self.driver.capabilities['has_imagecache'])

    def test_the_manager_is_in_the_place_of_novas(self) -> None:
        self.assertIsInstance(
            self.driver.image_cache_manager, manager.NovaImageCacheManager
        )
        self.assertEqual(
            self.node.layout.base, self.driver.image_cache_manager.cache_dir
        )

    def test_each_method_has_the_signature_of_novas(self) -> None:
        # Nova's own tests insist on that, of all of its drivers.
        methods = {
            name: method
            for name, method in vars(ours.LibvirtDriver).items()
            if inspect.isfunction(method)
            and hasattr(stock.LibvirtDriver, name)
        }
        self.assertIn('spawn', methods)
        self.assertIn('finish_migration', methods)
        for name, method in methods.items():
            self.assertEqual(
                inspect.getfullargspec(
                    getattr(stock.LibvirtDriver, name)
                ).args,
                inspect.getfullargspec(method).args,
                name,
            )

    def test_disk_usage_counts_our_directory(self) -> None:
        self.flags(
            reserve_disk_resource_for_image_cache=True, group='workarounds'
        )
        path = self.node.add_base('f' * 40)
        own = self.node.add_file(
            '_base', '.imagecache', 'trash', 'x', data=b'x' * plain.MIB
        )
        expected = sum(os.stat(each).st_blocks * 512 for each in (path, own))
        self.assertEqual(
            expected, self.driver.image_cache_manager.get_disk_usage()
        )
        self.assertEqual(
            1, self.driver._get_disk_size_reserved_for_image_cache()
        )
        # Nothing but these two options matters to where the cache is.
        self.options(checksum_interval_seconds=-1)
        self.assertEqual(
            expected, self.driver.image_cache_manager.get_disk_usage()
        )

    def test_disk_usage_of_no_cache_is_none(self) -> None:
        os.rmdir(self.node.layout.base)
        self.assertEqual(0, self.driver.image_cache_manager.get_disk_usage())

    def test_values_that_make_no_sense_end_init_host_at_once(self) -> None:
        self.options(checksum_interval_seconds=-1)
        with mock.patch.object(
            stock.LibvirtDriver, 'init_host', autospec=True
        ) as init:
            error = self.assertRaises(cfg.Error, self.driver.init_host, 'here')
        self.assertIn('checksum_interval_seconds', str(error))
        init.assert_not_called()

    def test_good_values_let_novas_init_host_run(self) -> None:
        with mock.patch.object(
            stock.LibvirtDriver, 'init_host', autospec=True
        ) as init:
            self.driver.init_host('here')
        init.assert_called_once_with('here')

    def test_values_that_make_no_sense_later_are_one_line_in_the_log(
        self,
    ) -> None:
        name = self.node.add_image(OTHER, age=OLD)
        self.options(checksum_interval_seconds=-1)
        self.driver.manage_image_cache(self.context, self.instances())
        self.assertIn('No pass over the image cache is made', self.output)
        self.assertNotIn('Traceback', self.output)
        self.assertIn(name, self.node.files())

    def test_cleanup_host_ends_the_scrub_and_goes_on_to_novas(self) -> None:
        with (
            mock.patch.object(
                stock.LibvirtDriver, 'cleanup_host', autospec=True
            ) as cleanup,
            mock.patch.object(
                self.driver.image_cache_manager, 'stop', autospec=True
            ) as stop,
        ):
            self.driver.cleanup_host('here')
        stop.assert_called_once_with()
        cleanup.assert_called_once_with('here')


class PassTest(base.DatabaseTestCase):
    """Passes over real files, with instances in a real database."""

    def setUp(self) -> None:
        super().setUp()
        self.options(witnesses=['instances', 'overlays', 'libvirt', 'locks'])
        self.statements: list[str] = []
        engine = sqlalchemy.engine.Engine
        sqlalchemy.event.listen(engine, 'before_cursor_execute', self.note)
        self.addCleanup(
            sqlalchemy.event.remove,
            engine,
            'before_cursor_execute',
            self.note,
        )

    def note(self, _conn: Any, _cursor: Any, text: str, *_args: Any) -> None:
        self.statements.append(text)

    def run_pass(self, *instances: Any) -> Any:
        """Make a pass through the driver; give the report."""
        self.driver.manage_image_cache(
            self.context, self.instances(*instances)
        )
        return self.driver.image_cache_manager.wait()

    def users(self, report: Any, name: str) -> Any:
        (file,) = [file for file in report.files if file.name == name]
        return file.users

    def test_every_device_of_every_instance_counts_in_one_query(self) -> None:
        instances = [
            self.create_instance(image_ref=base.IMAGE) for _each in range(3)
        ]
        names = {}
        for number, instance in enumerate(instances):
            for size in (1 + 2 * number, 2 + 2 * number):
                self.create_device(
                    instance, guest_format='swap', volume_size=size
                )
                self.create_device(instance, volume_size=size)
                for name in (f'swap_{size}', f'ephemeral_{size}_40d1d2c'):
                    names[name] = instance.uuid
                    self.node.add_base(name, age=OLD)
        used = self.node.add_image(base.IMAGE, age=OLD)
        unused = self.node.add_image(OTHER, age=OLD)
        self.node.add_base('swap_1000', age=OLD)
        self.statements.clear()
        report = self.run_pass(*instances)
        queries = [
            text
            for text in self.statements
            if 'FROM block_device_mapping' in text
        ]
        self.assertEqual(1, len(queries), self.statements)
        self.assertEqual((), report.vetoes)
        self.assertEqual(
            {unused, 'swap_1000'}, {file.name for file in report.removed}
        )
        for name, uuid in names.items():
            self.assertEqual((uuid,), self.users(report, name))
        self.assertEqual(
            {each.uuid for each in instances}, set(self.users(report, used))
        )

    def test_a_database_that_fails_is_a_veto_and_no_traceback(self) -> None:
        name = self.node.add_image(OTHER, age=OLD)
        instance = self.create_instance(image_ref=base.IMAGE)
        with mock.patch(
            'nova.db.main.api.block_device_mapping_get_all_by_instance_uuids',
            autospec=True,
            side_effect=db_exception.DBConnectionError('gone for lunch'),
        ):
            report = self.run_pass(instance)
        self.assertIn('gone for lunch', report.vetoes[0])
        self.assertIn(name, self.node.files())
        self.assertNotIn('Traceback', self.output)

    def test_the_connection_of_nova_says_what_libvirt_has(self) -> None:
        used = self.node.add_image(base.IMAGE, age=OLD)
        connection = libvirt.open('test:///default')
        self.addCleanup(connection.close)
        guest = '11111111-aaaa-4aaa-8aaa-000000000001'
        domain = connection.defineXML(
            libvirt_guests.guest_xml(guest, self.node.base_path(used))
        )
        self.addCleanup(domain.undefine)
        report = self.run_pass()
        self.assertEqual((), report.vetoes)
        self.assertEqual((guest,), self.users(report, used))

    def test_a_libvirt_that_is_away_is_a_veto_and_no_traceback(self) -> None:
        name = self.node.add_image(OTHER, age=OLD)
        with mock.patch.object(
            host.Host,
            '_get_connection',
            autospec=True,
            side_effect=libvirt.libvirtError('away'),
        ):
            report = self.run_pass()
        self.assertEqual(1, len(report.vetoes))
        self.assertIn(name, self.node.files())

    def test_options_that_change_in_nova_conf_count_in_the_next_pass(
        self,
    ) -> None:
        path = self.node.add_file('nova.conf')

        def write(witnesses: str) -> None:
            with open(path, 'w') as file:
                file.write(
                    '[DEFAULT]\n'
                    f'instances_path = {self.node.layout.instances}\n'
                    f'[image_cache]\nwitnesses = {witnesses}\n'
                )

        self.node.add_image(OTHER)
        base.CONF.clear_override('witnesses', group='image_cache')
        write('instances,overlays,libvirt')
        base.CONF(['--config-file', path], project='nova')
        with mock.patch.object(
            host.Host,
            '_get_connection',
            autospec=True,
            side_effect=RuntimeError('away'),
        ):
            before = self.run_pass()
            write('instances,overlays')
            base.CONF.mutate_config_files()
            after = self.run_pass()
        self.assertIn('away', before.vetoes[0])
        self.assertEqual((), after.vetoes)

    def test_the_periodic_task_of_nova_makes_a_pass(self) -> None:
        compute = compute_manager.ComputeManager()
        self.addCleanup(compute.driver.image_cache_manager.stop)
        self.create_instance(image_ref=base.IMAGE)
        self.create_instance(image_ref=OTHER, host='another')
        used = self.node.add_image(base.IMAGE, age=OLD)
        self.node.add_image(OTHER, age=OLD)
        compute._run_image_cache_manager_pass(self.context)
        compute.driver.image_cache_manager.wait()
        self.assertEqual({used}, self.node.files())
        self.assertIn('compute_nodes', os.listdir(self.node.layout.instances))

    def test_a_pass_takes_no_lock_in_the_process_of_nova(self) -> None:
        # Under eventlet a thread of ours is a green one, and libvirt is asked
        # in one of them.
        idents = set()
        real = lockutils.internal_lock
        read = libvirt_connection.read_answer
        asked = []

        def lock(*args: Any, **kwargs: Any) -> Any:
            idents.add(native_ident())
            return real(*args, **kwargs)

        def read_answer(connection: Any) -> Any:
            asked.append(native_ident())
            return read(connection)

        self.node.add_image(OTHER, age=OLD)
        with (
            mock.patch.object(lockutils, 'internal_lock', lock),
            mock.patch.object(libvirt_connection, 'read_answer', read_answer),
        ):
            report = self.run_pass()
        self.assertEqual(1, len(report.removed))
        self.assertEqual(set(), idents)
        self.assertEqual(
            base.THREADING,
            set(asked) != {native_ident()},
        )

    def test_nothing_of_ours_imports_eventlet(self) -> None:
        if 'eventlet' in sys.modules:
            self.skipTest('Nova has it')
        self.run_pass()
        self.assertNotIn('eventlet', sys.modules)


def native_ident() -> int:
    """Which thread of the kernel this is."""
    if base.THREADING:
        return threading.get_native_id()
    patcher = importlib.import_module('eventlet.patcher')
    original = patcher.original('threading')
    ident: int = original.get_native_id()
    return ident
