# SPDX-License-Identifier: Apache-2.0

"""Where file systems are mounted, and how that of a cache is."""

from collections.abc import Iterable
from collections.abc import Sequence
import os
from typing import Protocol

# With which the locks that we take, those of fcntl(2), are not the server's
# (nfs(5), mount.cifs(8), mount.lustre(8)).
_LOCAL_LOCKS = {
    'nfs': {'nolock', 'local_lock=all', 'local_lock=posix'},
    'nfs4': {'nolock', 'local_lock=all', 'local_lock=posix'},
    'cifs': {'nobrl'},
    'smb3': {'nobrl'},
    'lustre': {'localflock'},
}

# So do these (decision 0075): hw/9pfs/9p.c of QEMU grants each lock, and diod
# makes one on the whole file of it; virtiofsd(1) has no_posix_lock by default.
_LOCAL_TYPES = {
    '9p': 'whose servers do not keep such locks',
    'virtiofs': 'which keeps locks to this machine',
}

# fuse_file_lock in fs/fuse/file.c of Linux, for a server that does not ask for
# FUSE_POSIX_LOCKS. Not fuseblk, whose disk nobody reaches in another way.
_FUSE = 'fuse'
_FUSE_REASON = 'with which the kernel keeps locks to the mount'

# Those that ask for it, and keep locks for all clients: fuse-bridge.c of
# GlusterFS, fuse_ll.cc of Ceph, and JuiceFS ("POSIX Compatibility").
_FUSE_WITH_LOCKS = frozenset(
    {'fuse.ceph', 'fuse.ceph-fuse', 'fuse.glusterfs', 'fuse.juicefs'}
)

# QEMU's are those of open file descriptions. The same page of JuiceFS says
# that it has none.
_WITHOUT_QEMUS_LOCKS = {
    'fuse.juicefs': 'which has no locks of open file descriptions'
}

# On a disk, or in the memory, of this host: the kernel keeps all locks.
_OF_THIS_HOST = frozenset(
    {
        'bcachefs', 'btrfs', 'ext2', 'ext3', 'ext4', 'f2fs', 'fuseblk',
        'overlay', 'ramfs', 'tmpfs', 'xfs', 'zfs',
    }
)  # fmt: skip


class Mount(Protocol):
    """What psutil says of one, as far as it matters here."""

    @property
    def mountpoint(self) -> str:
        """Where it is."""
        ...

    @property
    def fstype(self) -> str:
        """Give the name of the file system."""
        ...

    @property
    def opts(self) -> str:
        """Give the options, with commas between them."""
        ...


def _is_below(path: str, directory: str) -> bool:
    """Whether a path is in a directory, or is that directory."""
    return f'{path}/'.startswith(f'{directory.rstrip("/")}/')


def innermost(partitions: Iterable[Mount], path: str) -> Mount | None:
    """Find the mount that a path is on; None if it is on none of these.

    :param partitions: all mounts, in the order in which they were made
    :param path: without symbolic links
    """
    around = [each for each in partitions if _is_below(path, each.mountpoint)]
    if not around:
        return None
    # Of those in one place, the last one covers the others.
    return max(reversed(around), key=lambda each: len(each.mountpoint))


def find_below(partitions: Iterable[Mount], path: str) -> tuple[str, ...]:
    """Find the mount points strictly below a path, each once.

    :param path: without symbolic links
    """
    found = dict.fromkeys(each.mountpoint for each in partitions)
    return tuple(
        point
        for point in found
        if _is_below(point, path) and point.rstrip('/') != path.rstrip('/')
    )


def _local(mount: Mount) -> tuple[str, str] | None:
    """Say why locks are kept to a mount or host, and what to do, if so."""
    local = _LOCAL_LOCKS.get(mount.fstype, set())
    for option in mount.opts.split(','):
        if option in local:
            return f'is mounted with {option}', 'mount it without that'
    reason = _LOCAL_TYPES.get(mount.fstype)
    is_fuse = mount.fstype.partition('.')[0] == _FUSE
    if is_fuse and mount.fstype not in _FUSE_WITH_LOCKS:
        reason = _FUSE_REASON
    return None if reason is None else _of_type(mount, reason)


def _of_type(mount: Mount, reason: str) -> tuple[str, str]:
    return (
        f'is of the type {mount.fstype}, {reason}',
        'have the cache on a file system that keeps locks for all who use it',
    )


def find_local_locks(partitions: Iterable[Mount], path: str) -> str | None:
    """Say that locks below a path are not seen by other hosts, if so.

    :param partitions: all mounts, in the order in which they were made
    :param path: without symbolic links
    :returns: a sentence, with what to do
    """
    mount = innermost(partitions, path)
    local = None if mount is None else _local(mount)
    if mount is None or local is None:
        return None
    why, remedy = local
    return (
        f'{mount.mountpoint} {why}, so hosts that share the cache do not see '
        'each other\'s locks: one may remove what another one fetches, and '
        f'several scrub at once; {remedy}, unless no other host has it'
    )


def why_no_qemu_locks(mount: Mount) -> str | None:
    """Say why not all locks that QEMUs hold are seen on a mount, if so.

    :returns: a sentence, with what to do; None where nothing is known that
        speaks against them
    """
    found = _local(mount)
    if found is None:
        reason = _WITHOUT_QEMUS_LOCKS.get(mount.fstype)
        found = None if reason is None else _of_type(mount, reason)
    if found is None:
        return None
    why, remedy = found
    return f'{mount.mountpoint} {why}; {remedy}'


# What dates files by a clock of its own, the same for all who write to it: a
# local disk, and a server of NFS. Where each client dates what it writes, the
# clock of one tells nothing of the others.
_WITH_ONE_CLOCK = frozenset(
    {'btrfs', 'ext2', 'ext3', 'ext4', 'f2fs', 'nfs', 'nfs4', 'overlay',
     'tmpfs', 'xfs', 'zfs'}
)  # fmt: skip


def has_one_clock(path: str) -> bool:
    """Whether all files of a file system are dated by one clock."""
    mount = of(path)
    return mount is not None and mount.fstype in _WITH_ONE_CLOCK


def is_of_this_host(mount: Mount) -> bool:
    """Whether nobody but the kernel of this host keeps the locks."""
    return mount.fstype in _OF_THIS_HOST


def _partitions() -> Sequence[Mount]:
    # Not with the module: it takes long, and a driver may never ask.
    import psutil

    try:
        return psutil.disk_partitions(all=True)
    except (OSError, psutil.Error):
        # A host that does not say how it is mounted.
        return ()


def of(path: str) -> Mount | None:
    """Find the mount that a path is on; symbolic links are followed.

    :returns: None where the host does not say
    """
    return innermost(_partitions(), os.path.realpath(path))


def mount_point(path: str) -> str | None:
    """Give the mount point that a path is below, or that it is.

    Symbolic links are followed.

    :returns: None where the host does not say
    """
    mount = of(path)
    return None if mount is None else mount.mountpoint


def below(path: str) -> tuple[str, ...]:
    """Give all mount points strictly below a path.

    Symbolic links in the path are followed. Nothing, where the host does not
    say.
    """
    return find_below(_partitions(), os.path.realpath(path))


def local_locks(path: str) -> str | None:
    """Say that locks on the file system of a path are not shared, if so.

    :returns: a sentence, with what to do
    """
    return find_local_locks(_partitions(), os.path.realpath(path))
