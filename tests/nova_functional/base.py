# SPDX-License-Identifier: Apache-2.0

"""Compute hosts of Nova's functional fixtures, on real files.

Real are Nova's API, scheduler, conductor and compute services, all in one
process, with their databases and Placement; the libvirt driver, ours, with
Nova's own Qcow2 image backend; all files below ``instances_path``, which are
made by qemu-img; and all that is ours, with all four witnesses.

Fake are the messaging (in memory), Glance (what it gives out are real bytes),
Neutron and Cinder, libvirt and the guests: it keeps the XML that Nova defines,
and nothing runs, so that no file is locked and none is written to. Privileged
functions run in this process. Where two hosts have disks of their own, copies
between them are local, and no ssh.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import io
import os
import random
import shutil
import sys
import threading
from typing import Any
from unittest import mock
import uuid

import fixtures
from nova import context
from nova.scheduler import weights
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional.libvirt import base as functional
from nova import thread_pool_factory
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import imagebackend
from nova.virt.libvirt import utils as libvirt_utils
from oslo_config import cfg

from nova_imagecache.apart import parent
from nova_imagecache.conf import register_opts
from nova_imagecache import names
from nova_imagecache.passes import reports
from nova_imagecache.witnesses import panel
from tests.support import base
from tests.support import nodes

DRIVER = 'imagecache_ext.LibvirtDriver'

#: Long enough for anything that nobody uses to be removed.
LONG = 30 * base.DAY

# What Nova's fixtures put mocks in the place of, and we put back; static
# methods as such.
_REAL: dict[str, Any] = {
    'nova.virt.libvirt.imagebackend.Backend.backend': (
        imagebackend.Backend.backend
    ),
    'nova.virt.libvirt.utils.fetch_image': libvirt_utils.fetch_image,
    'nova.virt.libvirt.utils.fetch_raw_image': libvirt_utils.fetch_raw_image,
    'nova.virt.libvirt.utils.file_open': libvirt_utils.file_open,
    'nova.virt.libvirt.driver.LibvirtDriver._create_image': (
        stock.LibvirtDriver._create_image
    ),
    'nova.virt.libvirt.driver.LibvirtDriver._create_ephemeral': vars(
        stock.LibvirtDriver
    )['_create_ephemeral'],
    'nova.virt.libvirt.driver.LibvirtDriver._create_swap': vars(
        stock.LibvirtDriver
    )['_create_swap'],
}


class Hosts(fixtures.Fixture):
    """Tells which host a thread works for.

    All services of these tests are in one process, with one configuration.
    Here the options that are a host's own have the values of that host.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._values: dict[str, dict[str, str]] = {}

    def setUp(self) -> None:
        super().setUp()
        for name in ('host', 'instances_path'):
            self.useFixture(
                fixtures.MonkeyPatch(
                    f'oslo_config.cfg.ConfigOpts.{name}', self._option(name)
                )
            )
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.thread_pool_factory.spawn_on',
                self._spawn_on(thread_pool_factory.spawn_on),
            )
        )
        # Here a host could see the files of another.
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.virt.libvirt.driver.LibvirtDriver.'
                'check_instance_shared_storage_remote',
                self._sees,
            )
        )

    def _option(self, name: str) -> property:
        def get(conf: cfg.ConfigOpts) -> Any:
            values = self._values.get(self.here or '', {})
            return values[name] if name in values else conf._get(name)

        return property(get)

    def _spawn_on(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def spawn_on(
            pool: Any, func: Callable[..., Any], *args: Any, **kwargs: Any
        ) -> Any:
            return real(pool, self.bind(self.here, func), *args, **kwargs)

        return spawn_on

    def _sees(self, _driver: Any, _context: Any, data: Any) -> bool:
        """Tell whether a host has a file that another one has made."""
        name = os.path.basename(data['filename'])
        parent = os.path.basename(os.path.dirname(data['filename']))
        path = os.path.join(self.path(self.here or ''), parent, name)
        return os.path.exists(path)

    def add(self, host: str, instances_path: str) -> None:
        """Say what the options of a host are."""
        self._values[host] = {'host': host, 'instances_path': instances_path}

    def path(self, host: str) -> str:
        """Give the instances_path of a host."""
        return self._values[host]['instances_path']

    @property
    def here(self) -> str | None:
        """The host that this thread works for."""
        host: str | None = getattr(self._local, 'host', None)
        return host

    @contextlib.contextmanager
    def on(self, host: str | None) -> Iterator[None]:
        """Let this thread work for a host meanwhile."""
        before = self.here
        self._local.host = host
        try:
            yield
        finally:
            self._local.host = before

    def bind(
        self, host: str | None, func: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Let a function run on a host, whatever the thread."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.on(host):
                return func(*args, **kwargs)

        return run


class Copies:
    """Copies between hosts, and no ssh: Nova's driver of remote files.

    A path is the same on all hosts, in truth. Here the directory of the other
    host takes the place of this one's, in names of backing files too.
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def _there(self, host: str, path: str) -> str:
        here = self._hosts.path(self._hosts.here or '')
        there = self._hosts.path(host)
        if not path.startswith(f'{here}/'):
            raise AssertionError(f'{path} is of no use to {host}')
        return there + path.removeprefix(here)

    def create_file(self, host: str, path: str, **_kwargs: Any) -> None:
        with open(self._there(host, path), 'wb'):
            pass

    def remove_file(self, host: str, path: str, **_kwargs: Any) -> None:
        os.unlink(self._there(host, path))

    def create_dir(self, host: str, path: str, **_kwargs: Any) -> None:
        os.makedirs(self._there(host, path), exist_ok=True)

    def remove_dir(self, host: str, path: str, **_kwargs: Any) -> None:
        shutil.rmtree(self._there(host, path))

    def copy_file(self, source: str, target: str, **_kwargs: Any) -> None:
        host, _colon, path = target.partition(':')
        path = self._there(host, path)
        shutil.copyfile(source, path)
        disk, *chain = nodes.backing_chain(source)
        if chain:
            backing = self._there(host, disk['backing-filename'])
            nodes.qemu_img(
                *('rebase', '-u', '-F', 'raw', '-b', backing, path),
            )


class AlphabeticalWeigher(weights.BaseHostWeigher):
    """Has the scheduler try hosts in the order of their names."""

    def _weigh_object(self, host_state: Any, _properties: Any) -> float:
        return -float(ord(host_state.host[0]))


class ServersTestCase(functional.ServersTestBase):
    """Servers on compute hosts with real files; see above."""

    ADMIN_API = True
    REQUIRES_LOCKING = False
    microversion = '2.95'

    #: Whether passes are made by processes of their own, as on a node.
    apart = False

    def setUp(self) -> None:
        self.hosts = Hosts()
        super().setUp()
        for name, real in _REAL.items():
            self.useFixture(fixtures.MockPatch(name, real))
        self.useFixture(nova_fixtures.PrivsepFixture())
        # Libvirt has it, and the fake one has not.
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.tests.fixtures.libvirt.Connection.getURI',
                lambda connection: connection._uri,
            )
        )
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.virt.libvirt.volume.remotefs.SshDriver',
                functools.partial(Copies, self.hosts),
            )
        )
        self.useFixture(self.hosts)
        self.temporary = self.useFixture(fixtures.TempDir()).path
        os.chmod(self.temporary, 0o755)
        self.nodes: dict[str, nodes.Node] = {}
        self.downloads: list[str] = []
        self._improve_glance()
        register_opts(cfg.CONF)
        # What was removed can be looked at.
        self.options(removed_image_retention_seconds=100 * LONG)
        self.clock: Any = base.FakeClock()
        self.context = context.get_admin_context()
        self.small = self._create_flavor(disk=1, ephemeral=0)
        self.large = self._create_flavor(disk=2, ephemeral=0)

    def _setup_compute_service(self) -> None:
        self.flags(compute_driver=DRIVER)
        # Its name is where a host is found, for copies.
        self.flags(migration_inbound_addr='%s', group='libvirt')
        # Where a wheel of Nova has it; the fixtures look beside the source.
        self.flags(
            api_paste_config=os.path.join(
                sys.prefix, 'etc/nova/api-paste.ini'
            ),
            group='wsgi',
        )

    def _setup_scheduler_service(self) -> Any:
        self.flags(
            weight_classes=[f'{__name__}.AlphabeticalWeigher'],
            group='filter_scheduler',
        )
        return super()._setup_scheduler_service()

    def _improve_glance(self) -> None:
        """Note what is downloaded, and keep what snapshots upload."""
        download, update = self.glance.download, self.glance.update

        def count(context: Any, image_id: str, *args: Any, **kw: Any) -> Any:
            self.downloads.append(image_id)
            return download(context, image_id, *args, **kw)

        def keep(
            context: Any,
            image_id: str,
            metadata: Any,
            data: Any = None,
            purge_props: bool = False,
        ) -> Any:
            if data is not None:
                self.glance._imagedata[image_id] = data.read()
            return update(context, image_id, metadata, None, purge_props)

        self.glance.download, self.glance.update = count, keep

    @property
    def output(self) -> str:
        """What is logged."""
        return str(self.stdlog.logger.output)

    def options(self, **values: Any) -> None:
        """Set options of [image_cache]."""
        self.flags(group='image_cache', **values)

    def add_host(self, host: str, share: str | None = None) -> nodes.Node:
        """Start a compute host; give its files.

        :param share: the host whose instances_path this one has as well
        """
        if share is None:
            node = nodes.Node(os.path.join(self.temporary, host, 'instances'))
            path = node.layout.instances
        else:
            path = self.hosts.path(share)
            node = self.nodes[share]
        self.nodes[host] = node
        self.hosts.add(host, path)
        with self.hosts.on(host):
            self.start_compute(host)
        self._adopt(host)
        return node

    def _adopt(self, host: str) -> None:
        """Have what a compute service does be done on its host."""
        service = self.computes[host]
        for server in (service.rpcserver, service.rpcserver_alt):
            server.dispatcher.dispatch = self.hosts.bind(
                host, server.dispatcher.dispatch
            )
        ours = service.driver.image_cache_manager
        self.addCleanup(ours.stop)
        ours._clock = self.clock
        # The fixture gives each host a connection of its own when the driver
        # has been made, and so after our manager has got the one for all.
        ours._assembly = panel.Assembly(
            dataclasses.replace(
                ours._assembly.host,
                connect=service.driver._host.get_connection,
            )
        )
        # In a process of its own it is on no host of ours, and has no clock
        # of ours.
        ours._apart = parent.Apart(ours._assembly) if self.apart else None

    def stop(self, host: str) -> None:
        """Let the compute service of a host be gone."""
        service = self.computes[host]
        service.stop()
        self._force_down(host, True)

    def start_again(self, host: str) -> None:
        """Let a compute service that was stopped come back."""
        with self.hosts.on(host):
            self.restart_compute_service(host)
        self._adopt(host)
        self._force_down(host, False)

    def _force_down(self, host: str, down: bool) -> None:
        (found,) = self.api.get_services(host=host, binary='nova-compute')
        self.api.put_service(found['id'], {'forced_down': down})

    def add_image(self, data: bytes | None = None, **values: Any) -> str:
        """Have Glance give out an image; give its id."""
        image_id = str(uuid.uuid4())
        if data is None:
            data = random.Random(image_id).randbytes(64 * base.KIB)
        self.glance.create(
            self.context,
            {
                'id': image_id,
                'name': image_id,
                'status': 'active',
                'container_format': 'bare',
                'disk_format': 'raw',
                'visibility': 'public',
                'size': len(data),
                'min_ram': 0,
                'min_disk': 0,
                'properties': {},
            }
            | values,
            io.BytesIO(data),
        )
        return image_id

    def create(
        self, image_id: str, host: str | None = None, **kwargs: Any
    ) -> Any:
        """Create a server; give it as the API has it."""
        kwargs.setdefault('flavor_id', self.small)
        return self._create_server(
            image_uuid=image_id, host=host, networks='none', **kwargs
        )

    def disk(self, host: str, server: Any, name: str = 'disk') -> str:
        """Give the path of a disk of a server."""
        return os.path.join(self.hosts.path(host), server['id'], name)

    def backing_file(self, path: str) -> str:
        """Give the name of the base file of a disk, which has to be there."""
        _disk, backing = nodes.backing_chain(path)
        return os.path.basename(str(backing['filename']))

    def run_pass(self, host: str) -> reports.Report:
        """Have the periodic task of a host run now; give our report.

        It has to have been able to decide on everything.
        """
        compute = self.computes[host]
        ours = compute.driver.image_cache_manager
        found: list[Any] = []
        real = ours.update

        def update(*args: Any) -> Any:
            found.append(real(*args))
            return found[-1]

        with self.hosts.on(host), mock.patch.object(ours, 'update', update):
            compute.manager._run_image_cache_manager_pass(self.context)
        if self.apart:
            found.append(ours.wait())
        report: reports.Report
        (report,) = found
        self.assertEqual((), report.vetoes)
        return report

    def run_passes_long_after(self, *hosts: str) -> list[reports.Report]:
        """Let much more than the minimum age pass, with passes in it."""
        made = []
        for _round in range(2):
            self.clock.advance(LONG)
            made += [self.run_pass(host) for host in hosts]
        return made

    def assert_kept(self, host: str, *images: str) -> None:
        """See that base files are there, and what Glance has given out."""
        for image_id in images:
            path = self.nodes[host].base_path(names.get_cache_fname(image_id))
            with open(path, 'rb') as file:
                self.assertEqual(self.glance._imagedata[image_id], file.read())

    def assert_removed(self, host: str, *images: str) -> None:
        """See that base files are in the trash, and nowhere else."""
        node = self.nodes[host]
        for image_id in images:
            name = names.get_cache_fname(image_id)
            self.assertNotIn(name, node.files())
            self.assertIn(name, node.trash())

    def spoil(self, host: str, image_id: str) -> None:
        """Flip a bit of a base file, and let that be found."""
        self.options(checksum_base_images=True, checksum_interval_seconds=0)
        ours = self.computes[host].driver.image_cache_manager
        name = names.get_cache_fname(image_id)
        # The pass reads the file itself, and leaves it to no process.
        with mock.patch.object(ours, '_inline', True):
            self.clock.advance(base.HOUR)
            self.run_pass(host)
            nodes.flip_bit(self.nodes[host].base_path(name))
            self.clock.advance(base.HOUR)
            (bad,) = self.run_pass(host).corrupt
        self.assertEqual(name, bad.name)
        self.options(checksum_base_images=False)
        # Nobody has come to use it in the last minutes.
        self.clock.advance(base.HOUR)
