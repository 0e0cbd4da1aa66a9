# SPDX-License-Identifier: Apache-2.0

"""Set up a compute node and its controller from nothing.

Only in namespaces of our own, see ``__main__``: it mounts over /etc and /var,
and makes a user.
"""

from collections.abc import Callable
from collections.abc import Mapping
import concurrent.futures
import contextlib
import datetime
import functools
import os
import pathlib
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import Any

import requests

HOST = 'compute1'
USER = 'nova'
INSTANCES = pathlib.Path('/var/lib/nova/instances')
BASE = INSTANCES / '_base'

_HERE = pathlib.Path(__file__).parent
_BIN = pathlib.Path(sys.prefix) / 'bin'
_DATABASES = ('nova_api', 'nova', 'nova_cell0', 'glance', 'placement')
_MARIADB = ('mariadb', '--no-defaults', '--socket=/run/mysqld/socket')

COMPUTE = 'http://127.0.0.1:8774/v2.1'
IMAGE = 'http://127.0.0.1:9292/v2'

#: Options that the configuration of nova-compute has to be given.
OPTIONS: Mapping[str, object] = {
    'concurrency': 'threading',
    'manager_interval': -1,
    'checksums': True,
    'checksum_interval': 604800,
    'bandwidth': 8,
}


class Failed(Exception):
    """Something has not come about."""


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition gives something, and give it.

    :raises Failed: it does not
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise Failed(f'{what}: not within {seconds} s')


def run(*command: str | os.PathLike[str], **how: Any) -> str:
    """Run a program to its end; give what it prints.

    :raises Failed: it fails
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            check=True,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            **how,
        )
    except subprocess.CalledProcessError as error:
        raise Failed(
            f'{error}\n{error.stdout[-2000:]}\n{error.stderr[-4000:]}'
        ) from error
    return done.stdout


def request(method: str, url: str, **how: Any) -> requests.Response:
    """Ask a service, as the administrator.

    :raises Failed: it refuses
    """
    answer = requests.request(
        method,
        url,
        headers={
            'X-Auth-Token': 'any',
            # Of Nova; 2.37 is the first that has "networks: none".
            'OpenStack-API-Version': 'compute 2.81',
        }
        | how.pop('headers', {}),
        timeout=120,
        **how,
    )
    if not answer.ok:
        raise Failed(f'{method} {url}: {answer.status_code} {answer.text}')
    return answer


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(('127.0.0.1', port)) == 0


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(url, timeout=60).status_code < 500
    return False


class Stack:
    """All services of a small cloud, and the files that they have."""

    def __init__(self, directory: str) -> None:
        """Start nothing yet.

        :param directory: for everything that is to be on a real disk
        """
        self.directory = pathlib.Path(directory)
        self.logs = self.directory / 'log'
        self.times: dict[str, float] = {}
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._privates: list[str] = []
        self._discovered = False

    # What is there before anything runs.

    def _private(self, path: str, mode: int = 0o755) -> None:
        """Let changes below a directory be seen in here only."""
        layer = self.directory / 'layers' / path.strip('/').replace('/', '-')
        upper, work = layer / 'upper', layer / 'work'
        for each in (upper, work):
            each.mkdir(parents=True)
        upper.chmod(mode)
        run('mount', '-t', 'overlay', 'overlay', '-o',
            f'lowerdir={path},upperdir={upper},workdir={work}',
            path)  # fmt: skip
        self._privates.append(path)

    def _bind(self, path: str) -> None:
        """Put a directory on the disk, where it is not an overlay."""
        source = self.directory / 'data' / path.strip('/').replace('/', '-')
        source.mkdir(parents=True)
        os.makedirs(path, exist_ok=True)
        run('mount', '--bind', source, path)

    def _open_way(self, path: str) -> None:
        """Let everybody go through the directories above one."""
        for each in reversed(pathlib.Path(path).resolve().parents):
            mode = each.stat().st_mode
            if mode & stat.S_IXOTH:
                continue
            if any(each.is_relative_to(private) for private in self._privates):
                each.chmod(mode | stat.S_IXOTH)
            else:
                self._private(str(each), 0o711)

    def prepare(self) -> None:
        """Make the files that a node has."""
        self.logs.mkdir()
        layers = self.directory / 'layers'
        layers.mkdir()
        run('mount', '-t', 'tmpfs', 'tmpfs', layers)
        for path in ('/etc', '/var'):
            self._private(path)
        for path in ('/run', '/etc/libvirt', '/var/lib/libvirt'):
            run('mount', '-t', 'tmpfs', 'tmpfs', path)
        for path in (sys.prefix, sys.base_prefix):
            self._open_way(path)
        run('ip', 'link', 'set', 'lo', 'up')
        socket.sethostname(HOST)
        hosts = f'127.0.0.1 localhost {HOST}\n'
        pathlib.Path('/etc/hosts').write_text(hosts)
        self._let_qemu_have_kvm()
        run('useradd', '--system', '--no-create-home', '--user-group',
            '--home-dir', '/var/lib/nova', '--groups', 'libvirt',
            USER)  # fmt: skip
        for path in ('/var/lib/nova', '/var/lib/nova/instances'):
            self._bind(path)
            shutil.chown(path, USER, USER)
        # The database stays in memory.
        self._bind('/var/lib/glance')
        self._configure()

    def _let_qemu_have_kvm(self) -> None:
        """Spare libvirt asking QEMU again and again why it cannot."""
        if os.path.exists('/dev/kvm'):
            device = os.stat('/dev/kvm').st_rdev
            os.mknod('/run/kvm', 0o666 | stat.S_IFCHR, device)
            os.chmod('/run/kvm', 0o666)
            run('mount', '--bind', '/run/kvm', '/dev/kvm')

    def _configure(self) -> None:
        for project in ('nova', 'glance'):
            # Those that come with it, but for who asks who one is.
            shutil.copytree(_BIN.parent / 'etc' / project, f'/etc/{project}')
        for paste in ('/etc/nova/api-paste.ini',
                      '/etc/glance/glance-api-paste.ini'):  # fmt: skip
            self._replace(
                paste,
                'keystonemiddleware.auth_token:filter_factory',
                'stack_services:identity_filter',
            )
        self._replace('/etc/nova/rootwrap.conf', 'exec_dirs=',
                      f'exec_dirs={_BIN},')  # fmt: skip
        for name, path in {
            'glance-api.conf': '/etc/glance/glance-api.conf',
            'nova-controller.conf': '/etc/nova/nova-controller.conf',
            'placement.conf': '/etc/placement/placement.conf',
            'libvirtd.conf': '/etc/libvirt/libvirtd.conf',
            'qemu.conf': '/etc/libvirt/qemu.conf',
            'rabbitmq.conf': '/etc/rabbitmq/rabbitmq.conf',
        }.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy(_HERE / 'conf' / name, path)
        self.configure_compute()
        # As the packages of distributions have it.
        sudoers = pathlib.Path('/etc/sudoers.d/nova')
        sudoers.write_text(
            f'Defaults:{USER} secure_path={_BIN}:/usr/sbin:/usr/bin\n'
            f'{USER} ALL=(root) NOPASSWD: {_BIN}/nova-rootwrap '
            '/etc/nova/rootwrap.conf *\n'
        )
        sudoers.chmod(0o440)

    @staticmethod
    def _replace(path: str, old: str, new: str) -> None:
        file = pathlib.Path(path)
        text = file.read_text()
        if old not in text:
            raise Failed(f'{path} has no {old}')
        file.write_text(text.replace(old, new))

    def configure_compute(self, **options: object) -> None:
        """Write the configuration anew; it is read by those who start."""
        text = (_HERE / 'conf' / 'nova.conf').read_text()
        pathlib.Path('/etc/nova/nova.conf').write_text(
            text.format_map({**OPTIONS, **options})
        )

    # What runs.

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment of all services."""
        return {
            'PATH': f'{_BIN}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
            'LC_ALL': 'C.UTF-8',
            'HOME': '/root',
            'TMPDIR': os.environ['TMPDIR'],
            'PYTHONDONTWRITEBYTECODE': '1',
        }

    def _start(self, name: str, *command: str, **how: Any) -> None:
        environment = self.environment | how.pop('env', {})
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
            f'{_BIN}/gunicorn',
            env={
                'GUNICORN_CMD_ARGS': f'-c {_HERE}/conf/gunicorn.conf.py',
                'OS_NOVA_CONFIG_FILES': ';'.join(
                    ['api-paste.ini', 'nova.conf', 'nova-controller.conf']
                ),
                'OS_PLACEMENT_CONFIG_DIR': '/etc/placement',
                'PYTHONPATH': str(_HERE / 'services'),
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
                raise Failed(f'{name} has ended:\n{self.log(name)[-4000:]}')
            return condition()

        wait_for(ready_or_over, seconds, f'{name} is up')

    def log(self, name: str) -> str:
        """Give all that a service has said."""
        path = self.logs / f'{name}.log'
        return path.read_text(errors='replace')

    def _manage(self, program: str, *arguments: str) -> None:
        config = []
        if program == 'nova-manage':
            for name in ('nova', 'nova-controller'):
                config += ['--config-file', f'/etc/nova/{name}.conf']
        if program == 'placement-manage':
            config += ['--config-file', '/etc/placement/placement.conf']
        run(_BIN / program, *config, *arguments,
            env=self.environment, cwd='/')  # fmt: skip

    @contextlib.contextmanager
    def _timed(self, what: str) -> Any:
        begin = time.monotonic()
        yield
        self.times[what] = time.monotonic() - begin

    def start(self) -> None:
        """Start everything but nova-compute."""
        with self._timed('prepare'):
            self.prepare()
        with self._timed('RabbitMQ, MariaDB, libvirt'):
            self._start_foundations()
        with self._timed('database tables'):
            self._make_tables()
        with self._timed('Nova, Glance, Placement'):
            self._start_controller()

    def _start_foundations(self) -> None:
        self._start('rabbitmq', 'rabbitmq-server')
        os.mkdir('/run/mysqld')
        run('mariadb-install-db', '--no-defaults', '--user=root',
            '--datadir=/var/lib/mysql', '--skip-test-db',
            '--auth-root-authentication-method=normal',
            env=self.environment)  # fmt: skip
        self._start(
            'mariadb', 'mariadbd', '--no-defaults', '--user=root',
            '--datadir=/var/lib/mysql', '--socket=/run/mysqld/socket',
            '--skip-networking', '--innodb-flush-log-at-trx-commit=0',
            '--skip-log-bin',
        )  # fmt: skip
        self._start('libvirt', 'libvirtd')
        self.ready('mariadb', lambda: os.path.exists('/run/mysqld/socket'))
        for name in _DATABASES:
            run(*_MARIADB, '-e', f'CREATE DATABASE {name}')
        self.ready('libvirt', lambda: listens_at('/run/libvirt/libvirt-sock'))
        self.ready('rabbitmq', lambda: listens(5672))

    def _make_tables(self) -> None:
        def nova() -> None:
            self._manage('nova-manage', 'api_db', 'sync')
            self._manage('nova-manage', 'cell_v2', 'map_cell0')
            self._manage('nova-manage', 'db', 'sync')
            self._manage('nova-manage', 'cell_v2', 'create_cell')

        with concurrent.futures.ThreadPoolExecutor() as pool:
            for each in [
                pool.submit(nova),
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
                name, f'{_BIN}/{name}',
                '--config-file', '/etc/nova/nova.conf',
                '--config-file', '/etc/nova/nova-controller.conf',
            )  # fmt: skip
        for name, port in {
            'neutron': 9696, 'placement': 8778, 'glance': 9292,
            'nova-api': 8774,
        }.items():  # fmt: skip
            url = f'http://127.0.0.1:{port}/'
            self.ready(name, functools.partial(_answers, url))
        for name in ('nova-conductor', 'nova-scheduler'):
            self.ready(name, functools.partial(_is_up, name))

    def start_compute(self, **options: object) -> None:
        """Start nova-compute, and wait until it can be given guests."""
        self.configure_compute(**options)
        begin = time.time()
        self._start(
            'nova-compute', f'{_BIN}/nova-compute',
            '--config-file', '/etc/nova/nova.conf',
            user=USER,
            group=USER,
            extra_groups=['libvirt'],
            env={'HOME': '/var/lib/nova'},
        )  # fmt: skip
        self.ready(
            'nova-compute',
            functools.partial(_is_up, 'nova-compute', begin),
        )
        if not self._discovered:
            self._manage('nova-manage', 'cell_v2', 'discover_hosts')
            self._discovered = True

    @property
    def compute(self) -> subprocess.Popen[bytes]:
        """Give the process of nova-compute."""
        return self._services['nova-compute']

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
            [f'{_BIN}/{program}', *arguments],
            check=False,
            text=True,
            capture_output=True,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(user, account.pw_gid),
            env=self.environment | {'HOME': account.pw_dir},
            cwd='/',
        )


def listens_at(path: str) -> bool:
    """Whether somebody listens at a socket in the file system."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def _is_up(name: str, since: float = 0) -> bool:
    """Whether a service of Nova has said that it is up, since some time."""
    try:
        listed = request('GET', f'{COMPUTE}/os-services').json()['services']
    except Failed:
        return False
    for each in listed:
        if each['binary'] == name and each['updated_at']:
            said = datetime.datetime.fromisoformat(each['updated_at'])
            said = said.replace(tzinfo=datetime.UTC)
            return each['state'] == 'up' and said.timestamp() >= since
    return False
