# SPDX-License-Identifier: Apache-2.0

"""The files of a compute node and its controller, made from nothing.

Only in namespaces of our own, see ``__main__``: this mounts over /etc and
/var, and makes a user.
"""

from collections.abc import Mapping
import os
import pathlib
import shutil
import socket
import stat
import sys

from integration import system

HOST = 'compute1'
USER = 'nova'
INSTANCES = pathlib.Path('/var/lib/nova/instances')
BASE = INSTANCES / '_base'

HERE = pathlib.Path(__file__).parent
BIN = pathlib.Path(sys.prefix) / 'bin'

#: Of Glance, as the documentation has it.
POLICY = HERE.parent / 'doc' / 'source' / 'admin' / 'glance-policy.yaml'

# Sparse, and more than the flavors of all guests need.
_DISK_SIZE = 64 * 2**30

#: Options that the configuration of nova-compute has to be given.
OPTIONS: Mapping[str, object] = {
    'concurrency': 'threading',
    'external_tasks': True,
    'manager_interval': -1,
    'checksums': True,
    'checksum_interval': 604800,
    'bandwidth': 8,
    'action': 'report',
}


def environment() -> dict[str, str]:
    """Give the environment of all services."""
    return {
        'PATH': f'{BIN}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'LC_ALL': 'C.UTF-8',
        'HOME': '/root',
        'TMPDIR': os.environ['TMPDIR'],
        'PYTHONDONTWRITEBYTECODE': '1',
    }


def configure_compute(**options: object) -> None:
    """Write nova.conf anew; it is read by those who start."""
    text = (HERE / 'conf' / 'nova.conf').read_text()
    pathlib.Path('/etc/nova/nova.conf').write_text(
        text.format_map({**OPTIONS, **options})
    )


def _replace(path: str, old: str, new: str) -> None:
    file = pathlib.Path(path)
    text = file.read_text()
    if old not in text:
        raise system.Failed(f'{path} has no {old}')
    file.write_text(text.replace(old, new))


class Node:
    """Directories that are seen in here only, and what is in them."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Make nothing yet.

        :param directory: for everything that is to be on a real disk
        """
        self.directory = directory
        self._privates: list[str] = []

    def _private(self, path: str, mode: int = 0o755) -> None:
        """Let changes below a directory be seen in here only."""
        layer = self.directory / 'layers' / path.strip('/').replace('/', '-')
        upper, work = layer / 'upper', layer / 'work'
        for each in (upper, work):
            each.mkdir(parents=True)
        upper.chmod(mode)
        system.run('mount', '-t', 'overlay', 'overlay', '-o',
                   f'lowerdir={path},upperdir={upper},workdir={work}',
                   path)  # fmt: skip
        self._privates.append(path)

    def _bind(self, path: str) -> None:
        """Put a directory on the disk, where it is not an overlay."""
        source = self.directory / 'data' / path.strip('/').replace('/', '-')
        source.mkdir(parents=True)
        os.makedirs(path, exist_ok=True)
        system.run('mount', '--bind', source, path)

    def _mount_timeless(self, path: str) -> None:
        """Mount a file system that does not say when a file was made.

        What is made there now can be made to look old.
        """
        image = self.directory / 'data' / 'instances.img'
        image.touch()
        os.truncate(image, _DISK_SIZE)
        # No room for the birth time in an inode of 128 bytes (ext4(5)).
        system.run('mkfs.ext4', '-q', '-I', '128', image)
        os.makedirs(path, exist_ok=True)
        system.run('mount', '-o', 'loop', image, path)

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
        layers = self.directory / 'layers'
        layers.mkdir()
        system.run('mount', '-t', 'tmpfs', 'tmpfs', layers)
        for path in ('/etc', '/var'):
            self._private(path)
        for path in ('/run', '/etc/libvirt', '/var/lib/libvirt'):
            system.run('mount', '-t', 'tmpfs', 'tmpfs', path)
        for path in (sys.prefix, sys.base_prefix):
            self._open_way(path)
        system.run('ip', 'link', 'set', 'lo', 'up')
        socket.sethostname(HOST)
        hosts = f'127.0.0.1 localhost {HOST}\n'
        pathlib.Path('/etc/hosts').write_text(hosts)
        self._let_qemu_have_kvm()
        system.run('useradd', '--system', '--no-create-home', '--user-group',
                   '--home-dir', '/var/lib/nova', '--groups', 'libvirt',
                   USER)  # fmt: skip
        self._bind('/var/lib/nova')
        self._mount_timeless(str(INSTANCES))
        for path in ('/var/lib/nova', str(INSTANCES)):
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
            system.run('mount', '--bind', '/run/kvm', '/dev/kvm')

    def _configure(self) -> None:
        for project in ('nova', 'glance'):
            # Those that come with it.
            shutil.copytree(BIN.parent / 'etc' / project, f'/etc/{project}')
        _replace('/etc/nova/rootwrap.conf', 'exec_dirs=', f'exec_dirs={BIN},')
        for name, path in {
            'glance-api.conf': '/etc/glance/glance-api.conf',
            'keystone.conf': '/etc/keystone/keystone.conf',
            'nova-controller.conf': '/etc/nova/nova-controller.conf',
            'placement.conf': '/etc/placement/placement.conf',
            'libvirtd.conf': '/etc/libvirt/libvirtd.conf',
            'qemu.conf': '/etc/libvirt/qemu.conf',
            'rabbitmq.conf': '/etc/rabbitmq/rabbitmq.conf',
        }.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy(HERE / 'conf' / name, path)
        shutil.copy(POLICY, '/etc/glance/policy.yaml')
        configure_compute()
        # As the packages of distributions have it.
        sudoers = pathlib.Path('/etc/sudoers.d/nova')
        sudoers.write_text(
            f'Defaults:{USER} secure_path={BIN}:/usr/sbin:/usr/bin\n'
            f'{USER} ALL=(root) NOPASSWD: {BIN}/nova-rootwrap '
            '/etc/nova/rootwrap.conf *\n'
        )
        sudoers.chmod(0o440)
