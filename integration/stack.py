# SPDX-License-Identifier: Apache-2.0

"""The services of a compute node and its controller."""

from collections.abc import Callable
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import pwd
import signal
import subprocess
import time
from typing import Any

from integration import cloud as clouds
from integration import node as nodes
from integration import system

_DATABASES = ('nova_api', 'nova', 'nova_cell0', 'glance', 'keystone',
              'placement')  # fmt: skip
_MARIADB = ('mariadb', '--no-defaults', '--socket=/run/mysqld/socket')


class Stack:
    """All services of a small cloud."""

    def __init__(self, directory: str) -> None:
        """Start nothing yet.

        :param directory: for everything that is to be on a real disk
        """
        self.node = nodes.Node(pathlib.Path(directory))
        self.logs = self.node.directory / 'log'
        self.cloud = clouds.Cloud()
        self.times: dict[str, float] = {}
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._discovered = False

    def _start(self, name: str, *command: str, **how: Any) -> None:
        environment = nodes.environment() | how.pop('env', {})
        with open(self.logs / f'{name}.log', 'ab') as log:
            self._services[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd='/',
                **how,
            )

    def _start_wsgi(self, name: str, application: str, port: int) -> None:
        self._start(
            name,
            f'{nodes.BIN}/gunicorn',
            env={
                'GUNICORN_CMD_ARGS': f'-c {nodes.HERE}/conf/gunicorn.conf.py',
                'OS_NOVA_CONFIG_FILES': ';'.join(
                    ['api-paste.ini', 'nova.conf', 'nova-controller.conf']
                ),
                'OS_PLACEMENT_CONFIG_DIR': '/etc/placement',
                'PYTHONPATH': str(nodes.HERE / 'services'),
                'STACK_APPLICATION': application,
                'STACK_ADDRESS': f'127.0.0.1:{port}',
            },
        )

    def ready(
        self, name: str, condition: Callable[[], Any], seconds: float = 180
    ) -> None:
        """Wait until a service is up.

        :raises Failed: it has ended, or is not up in time
        """

        def ready_or_over() -> Any:
            if self._services[name].poll() is not None:
                raise system.Failed(
                    f'{name} has ended:\n{self.log(name)[-4000:]}'
                )
            return condition()

        system.wait_for(ready_or_over, seconds, f'{name} is up')

    def log(self, name: str) -> str:
        """Give all that a service has said so far."""
        path = self.logs / f'{name}.log'
        return path.read_text(errors='replace') if path.exists() else ''

    def _manage(self, program: str, *arguments: str) -> None:
        config = []
        if program == 'nova-manage':
            for name in ('nova', 'nova-controller'):
                config += ['--config-file', f'/etc/nova/{name}.conf']
        if program == 'placement-manage':
            config += ['--config-file', '/etc/placement/placement.conf']
        system.run(nodes.BIN / program, *config, *arguments,
                   env=nodes.environment(), cwd='/')  # fmt: skip

    @contextlib.contextmanager
    def _timed(self, what: str) -> Any:
        begin = time.monotonic()
        yield
        self.times[what] = time.monotonic() - begin

    def start(self) -> None:
        """Start everything but nova-compute."""
        with self._timed('prepare'):
            self.logs.mkdir()
            self.node.prepare()
        with self._timed('RabbitMQ, MariaDB, libvirt'):
            self._start_foundations()
        with self._timed('database tables'):
            self._make_tables()
        with self._timed('Keystone'):
            self._start_wsgi('keystone', 'keystone.wsgi.api:application', 5000)
            self._wait_for_answer('keystone', clouds.IDENTITY)
            self.cloud.populate()
        with self._timed('Nova, Glance, Placement'):
            self._start_controller()

    def _start_foundations(self) -> None:
        self._start('rabbitmq', 'rabbitmq-server')
        os.mkdir('/run/mysqld')
        system.run('mariadb-install-db', '--no-defaults', '--user=root',
                   '--datadir=/var/lib/mysql', '--skip-test-db',
                   '--auth-root-authentication-method=normal',
                   env=nodes.environment())  # fmt: skip
        self._start(
            'mariadb', 'mariadbd', '--no-defaults', '--user=root',
            '--datadir=/var/lib/mysql', '--socket=/run/mysqld/socket',
            '--skip-networking', '--innodb-flush-log-at-trx-commit=0',
            '--skip-log-bin',
        )  # fmt: skip
        self._start('libvirt', 'libvirtd')
        self.ready('mariadb', lambda: os.path.exists('/run/mysqld/socket'))
        for name in _DATABASES:
            system.run(*_MARIADB, '-e', f'CREATE DATABASE {name}')
        self.ready(
            'libvirt', lambda: system.listens_at('/run/libvirt/libvirt-sock')
        )
        self.ready('rabbitmq', lambda: system.listens(5672))

    def _make_tables(self) -> None:
        def nova() -> None:
            self._manage('nova-manage', 'api_db', 'sync')
            self._manage('nova-manage', 'cell_v2', 'map_cell0')
            self._manage('nova-manage', 'db', 'sync')
            self._manage('nova-manage', 'cell_v2', 'create_cell')

        def keystone() -> None:
            program = 'keystone-manage'
            self._manage(program, 'db_sync')
            self._manage(program, 'fernet_setup', '--keystone-user=root',
                         '--keystone-group=root')  # fmt: skip
            self._manage(
                program, 'bootstrap', '--bootstrap-region-id=RegionOne',
                f'--bootstrap-password={clouds.PASSWORD}',
                f'--bootstrap-internal-url={clouds.IDENTITY}',
                f'--bootstrap-public-url={clouds.IDENTITY}',
            )  # fmt: skip

        with concurrent.futures.ThreadPoolExecutor() as pool:
            for each in [
                pool.submit(nova),
                pool.submit(keystone),
                pool.submit(self._manage, 'placement-manage', 'db', 'sync'),
                pool.submit(self._manage, 'glance-manage', 'db_sync'),
            ]:
                each.result()

    def _start_controller(self) -> None:
        for path in ('images', 'staging', 'tasks'):
            os.mkdir(f'/var/lib/glance/{path}')
        self._start_wsgi('neutron', 'stack_services:network', 9696)
        self._start_wsgi('placement', 'placement.wsgi.api:application', 8778)
        self._start_wsgi('glance', 'glance.wsgi.api:application', 9292)
        self._start_wsgi('nova-api', 'nova.wsgi.osapi_compute:application',
                         8774)  # fmt: skip
        for name in ('nova-conductor', 'nova-scheduler'):
            self._start(
                name, f'{nodes.BIN}/{name}',
                '--config-file', '/etc/nova/nova.conf',
                '--config-file', '/etc/nova/nova-controller.conf',
            )  # fmt: skip
        for name, port in {
            'neutron': 9696, 'placement': 8778, 'glance': 9292,
            'nova-api': 8774,
        }.items():  # fmt: skip
            self._wait_for_answer(name, f'http://127.0.0.1:{port}/')
        for name in ('nova-conductor', 'nova-scheduler'):
            self.ready(name, functools.partial(self.cloud.is_up, name))

    def _wait_for_answer(self, name: str, url: str) -> None:
        self.ready(name, functools.partial(system.answers, url))

    def start_compute(self, **options: object) -> None:
        """Start nova-compute, and wait until it can be given guests."""
        nodes.configure_compute(**options)
        begin = time.time()
        self._start(
            'nova-compute', f'{nodes.BIN}/nova-compute',
            '--config-file', '/etc/nova/nova.conf',
            user=nodes.USER,
            group=nodes.USER,
            extra_groups=['libvirt'],
            env={'HOME': '/var/lib/nova'},
        )  # fmt: skip
        self.ready(
            'nova-compute',
            functools.partial(self.cloud.is_up, 'nova-compute', begin),
        )
        if not self._discovered:
            self._manage('nova-manage', 'cell_v2', 'discover_hosts')
            self._discovered = True

    @property
    def compute(self) -> subprocess.Popen[bytes]:
        """Give the process of nova-compute."""
        return self._services['nova-compute']

    def has_compute(self) -> bool:
        """Whether nova-compute is running."""
        process = self._services.get('nova-compute')
        return process is not None and process.poll() is None

    def stop_compute(self, number: int = signal.SIGTERM) -> int:
        """Stop nova-compute; give its exit code."""
        self.compute.send_signal(number)
        return self.compute.wait(60)

    def kill(self) -> None:
        """End all at once; their children go with the namespaces."""
        for service in self._services.values():
            service.kill()
            service.wait()

    def run(
        self, user: str, program: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of ours or Nova's as some user, to its end."""
        account = pwd.getpwnam(user)
        return subprocess.run(
            [f'{nodes.BIN}/{program}', *arguments],
            check=False,
            text=True,
            capture_output=True,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(user, account.pw_gid),
            env=nodes.environment() | {'HOME': account.pw_dir},
            cwd='/',
        )
