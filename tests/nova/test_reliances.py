# SPDX-License-Identifier: Apache-2.0

"""What a Nova that has renamed something is told: at the start, by name."""

import importlib
import inspect
import subprocess
import sys
import textwrap
from typing import Any
from unittest import mock

import ddt
import fixtures
from nova import utils
from nova.virt import driver
from nova.virt import fake
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import imagebackend
from nova.virt.libvirt import imagecache
from oslo_concurrency import lockutils

from nova_imagecache.nova import driver as ours
from nova_imagecache.nova import reliances
from tests.nova import base

VITAL = [each for each in reliances.RELIANCES if each.vital]
LESSER = [each for each in reliances.RELIANCES if not each.vital]
CONSTRUCTORS = [each for each in VITAL if each.name.endswith('__init__')]
CALLED = [
    each for each in reliances.RELIANCES if each.use is not reliances.Use.NAMED
]

# What Nova is like that has renamed something before our driver is imported.
_RENAMED = textwrap.dedent("""
    import importlib, sys

    from nova import monkey_patch
    if hasattr(monkey_patch, 'patch'):
        monkey_patch.patch()
    import libvirt
    import nova.conf
    from nova.virt import driver

    module, name = sys.argv[1:]
    owner = importlib.import_module(module)
    *path, last = name.split('.')
    for part in path:
        owner = getattr(owner, part)
    delattr(owner, last)
    nova.conf.CONF(['--config-file', '/dev/null'], project='nova')
    driver.load_compute_driver(None, 'imagecache_ext.LibvirtDriver')
""")


@ddt.ddt
class ReliancesTest(base.NodeTestCase):
    def load(self) -> Any:
        return driver.load_compute_driver(fake.FakeVirtAPI())

    def rename(self, reliance: reliances.Reliance) -> None:
        """Have Nova be without something, which it calls otherwise now."""
        importlib.import_module(reliance.module)
        self.useFixture(
            fixtures.MonkeyPatch(reliance.dotted, fixtures.MonkeyPatch.delete)
        )

    def refused(self) -> str:
        """Start, and give what is said of why that is not done."""
        error = self.assertRaises(SystemExit, self.load)
        self.assertIn('nova-compute does not start', str(error))
        self.assertIn('set compute_driver', str(error))
        self.assertIn(str(error), self.output)
        self.assertNotIn('Traceback', self.output)
        return str(error)

    def test_this_nova_is_as_it_is_to_be(self) -> None:
        self.assertEqual([], reliances.look())
        self.assertEqual(
            [],
            reliances.look(
                reliances.OF_THE_DRIVER,
                stock.LibvirtDriver(fake.FakeVirtAPI()),
            ),
        )
        self.assertNotIn('without it', self.output)

    @ddt.data(*[each for each in VITAL if each not in CONSTRUCTORS])
    def test_without_what_is_vital_nothing_starts(self, one: Any) -> None:
        self.rename(one)
        said = self.refused()
        self.assertIn(f'{one.dotted} is not there', said)
        self.assertIn(one.lost, said)

    @ddt.data(*LESSER)
    def test_without_the_rest_it_starts_and_says_what_is_lost(
        self, one: Any
    ) -> None:
        self.rename(one)
        self.assertIn(one, [each.reliance for each in reliances.look()])
        with mock.patch.object(
            ours.LibvirtDriver, '__init__', autospec=True
        ) as init:
            init.return_value = None
            self.load()
        self.assertIn(f'{one.dotted} is not there', self.output)
        self.assertIn(one.lost, self.output)
        self.assertIn('ERROR', self.output)

    @ddt.data(*CALLED)
    def test_other_parameters_are_told(self, one: Any) -> None:
        owner = importlib.import_module(one.module)
        *path, name = one.name.split('.')
        for part in path:
            owner = getattr(owner, part)

        def other(self: Any, more: Any) -> None:
            pass

        with mock.patch.object(owner, name, other):
            (drift,) = reliances.look([one])
        self.assertIn('takes (more) and not', str(drift))

    def test_a_parameter_more_is_told_where_nova_calls_ours(self) -> None:
        def finish(
            self: Any, context: Any, all_instances: Any, x: Any = 0
        ) -> None:
            pass

        with mock.patch.object(
            driver.ComputeDriver, 'manage_image_cache', finish
        ):
            self.assertIn('takes (context, all_instances, x)', self.refused())

    def test_a_parameter_more_is_none_of_ours_where_it_goes_on_to_nova(
        self,
    ) -> None:
        def cache(
            self: Any, fetch_func: Any, filename: Any, more: Any, **_x: Any
        ) -> None:
            pass

        with mock.patch.object(imagebackend.Image, 'cache', cache):
            self.assertEqual([], reliances.look())

    def test_other_names_of_base_files_are_told(self) -> None:
        with mock.patch.object(
            imagecache, 'get_cache_fname', lambda image_id: f'x{image_id}'
        ):
            self.assertIn('something else than it did', self.refused())

    def test_other_locks_are_told(self) -> None:
        with mock.patch.object(
            utils, 'synchronized', lockutils.synchronized_with_prefix('x-')
        ):
            self.assertIn('something else than it did', self.refused())

    @ddt.data('image_cache_manager', 'image_backend')
    def test_a_driver_without_what_is_put_in_does_not_start(
        self, name: str
    ) -> None:
        self.assertIn(f'the driver.{name}', self.refused_without(name))

    def refused_without(self, name: str) -> str:
        real = stock.LibvirtDriver.__init__

        def init(self: Any, virtapi: Any, read_only: bool = False) -> None:
            real(self, virtapi, read_only)
            delattr(self, name)

        with mock.patch.object(stock.LibvirtDriver, '__init__', init):
            return self.refused()

    def test_backends_that_are_chosen_otherwise_are_told(self) -> None:
        def backend(self: Any, image_type: Any = None) -> Any:
            return imagebackend.Qcow2

        with mock.patch.object(imagebackend.Backend, 'backend', backend):
            self.assertIn('something else than it did', self.refused())

    def test_without_novas_connection_we_have_our_own(self) -> None:
        real = stock.LibvirtDriver.__init__

        def init(self: Any, virtapi: Any, read_only: bool = False) -> None:
            real(self, virtapi, read_only)
            del self._host

        with mock.patch.object(stock.LibvirtDriver, '__init__', init):
            made = self.load()
        self.assertIn('the driver._host.get_connection', self.output)
        self.assertIsNone(made.image_cache_manager._assembly.host.connect)

    @ddt.data('_needs_rebase_original_qcow2_image', '_rebase_with_qemu_img')
    def test_an_unshelved_guest_starts_where_we_cannot_look(
        self, name: str
    ) -> None:
        with (
            fixtures.MonkeyPatch(
                f'nova.virt.libvirt.driver.LibvirtDriver.{name}',
                fixtures.MonkeyPatch.delete,
            ),
            mock.patch.object(
                stock.LibvirtDriver,
                '_rebase_original_qcow2_image',
                autospec=True,
            ) as rebase,
        ):
            self.driver._rebase_original_qcow2_image(1, 2, 3)
        rebase.assert_called_once()
        self.assertEqual((1, 2, 3), rebase.call_args.args[-3:])

    def test_all_that_we_replace_takes_what_is_listed(self) -> None:
        """The list is of use only if it says what ours take."""
        for one in reliances.RELIANCES:
            owner, _dot, name = one.name.rpartition('.')
            replaced = one.use is reliances.Use.REPLACED
            if replaced and owner in ('ComputeDriver', 'LibvirtDriver'):
                method = vars(ours.LibvirtDriver)[name]
                self.assertEqual(
                    one.takes, tuple(inspect.signature(method).parameters)[1:]
                )

    @ddt.data(
        ('nova.virt.libvirt.driver', 'LibvirtDriver'),
        ('nova.virt.libvirt.imagebackend', 'Backend'),
        ('nova.privsep', 'sys_admin_pctxt'),
        ('nova.exception', 'NovaException'),
        ('nova.virt.libvirt.imagebackend', 'Image.cache'),
    )
    @ddt.unpack
    def test_what_is_gone_before_our_driver_is_imported_is_told(
        self, module: str, name: str
    ) -> None:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', _RENAMED, module, name],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn(f'{module}.{name}', done.stderr)
        self.assertIn('nova-compute does not start', done.stderr)
        self.assertNotIn('Traceback', done.stderr)
