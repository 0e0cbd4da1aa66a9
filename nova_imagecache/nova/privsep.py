# SPDX-License-Identifier: Apache-2.0

"""What needs more rights than nova-compute has, in Nova's own context.

nova-compute is an unprivileged user, and libvirt gives disks and base files to
QEMU's. The rootwrap filter of Nova starts the daemon of its own context alone,
and that one accepts functions from any module whose name begins with ``nova``
(``PrivContext.entrypoint`` in oslo_privsep/priv_context.py).

They do nothing outside of ``instances_path``, as the daemon knows it from the
configuration files of nova-compute.
"""

from collections.abc import Iterator
import contextlib
import errno
import os

import nova.conf
import nova.privsep

from nova_imagecache.cache import identity
from nova_imagecache.heal import writer
from nova_imagecache import host

CONF = nova.conf.CONF

#: What is said of a file: see :class:`nova_imagecache.host.Listed`.
_Entry = tuple[str, int, int, int, int, int, int]


def _is_below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def _link_targets(root: str, path: str) -> Iterator[str]:
    """Give where links directly in a directory lead, if they may be followed.

    Operators move the directory of an instance to another disk (decision
    0053). Guests cannot make such a link: they own nothing in here.

    :param path: what is asked for; it names the link, unless it is the target
    """
    trusted = (0, os.stat(root).st_uid)
    inside = os.path.abspath(path).removeprefix(
        os.path.abspath(CONF.instances_path) + os.sep
    )
    if os.path.isabs(inside):
        names = os.listdir(root)
    else:
        names = [inside.partition(os.sep)[0]]
    for name in names:
        link = os.path.join(root, name)
        if not os.path.islink(link) or os.lstat(link).st_uid not in trusted:
            continue
        target = os.path.realpath(link)
        if not _is_below(root, target):
            yield target


def _refuse_elsewhere(directory: str, path: str) -> None:
    """Make sure that a directory is one of those that hold instances.

    :param directory: without symbolic links
    :param path: what is asked for
    :raises PermissionError: it is not
    """
    root = os.path.realpath(CONF.instances_path)
    cache = os.path.realpath(
        os.path.join(root, CONF.image_cache.subdirectory_name)
    )
    if _is_below(directory, root) or _is_below(directory, cache):
        return
    for target in _link_targets(root, path):
        if _is_below(directory, target):
            return
    # If the daemon has been given other configuration files, this tells.
    raise PermissionError(
        errno.EACCES,
        f'not below instances_path, which is {root} for the privsep daemon',
    )


@contextlib.contextmanager
def _opened(directory: str, path: str, flags: int) -> Iterator[int]:
    """Open a directory if it is one of those that hold instances.

    Looked at once it is open, as whoever owns a part of the way to it may
    change that in the meantime.

    :raises PermissionError: it is not
    :raises OSError: as open(2)
    """
    fd = os.open(directory, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_elsewhere(os.readlink(f'/proc/self/fd/{fd}'), path)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _parent(path: str) -> Iterator[tuple[int, str]]:
    """Give the directory that a file is in, and its name there."""
    directory, name = os.path.split(path)
    if name in ('', os.curdir, os.pardir):
        raise PermissionError(errno.EACCES, 'not the name of a file')
    with _opened(directory, path, os.O_PATH) as fd:
        yield fd, name


@nova.privsep.sys_admin_pctxt.entrypoint
def touch(path: str) -> None:
    """Renew the timestamp of a file; a symbolic link is not followed.

    :raises PermissionError: it is not below ``instances_path``
    :raises OSError: as utimensat(2)
    """
    with _parent(path) as (fd, name):
        os.utime(name, dir_fd=fd, follow_symlinks=False)


@nova.privsep.sys_admin_pctxt.entrypoint
def read(path: str, offset: int, length: int) -> bytes:
    """Read a part of a regular file; a symbolic link is not followed.

    :param offset: in bytes
    :param length: bytes at most
    :raises PermissionError: it is not below ``instances_path``
    :raises OSError: as open(2) and pread(2); EINVAL when it is no file
    """
    with _parent(path) as (directory, name):
        fd = identity.open_regular(name, directory)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)


@nova.privsep.sys_admin_pctxt.entrypoint
def rewrite(
    name: str, inode: int, offset: int, data: bytes
) -> tuple[str | None, str]:
    """Put data into a base file in place.

    Into nothing else: a regular file with the name of a base file, directly
    in the cache, that has no other name, and within its size. The cache is
    found without a symbolic link that is not root's.

    :param name: of the base file
    :param inode: of the file that is meant
    :param offset: a multiple of 4096
    :param data: whole pages, or up to the end of the file
    :returns: why it is not there, as a stable word or None, and for people
    :raises OSError: there is no cache
    """
    cache = os.path.join(
        CONF.instances_path, CONF.image_cache.subdirectory_name
    )
    try:
        directory = writer.open_cache(cache)
        try:
            # The daemon of whoever repairs, which does nothing else.
            with writer.ending_in_time():
                writer.rewrite_base_file(directory, name, inode, offset, data)
        finally:
            os.close(directory)
    except writer.Refused as error:
        return str(error.refusal), str(error)
    return None, ''


def _describe(name: str, status: os.stat_result) -> _Entry:
    return (
        name,
        status.st_mode,
        status.st_ino,
        status.st_dev,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@nova.privsep.sys_admin_pctxt.entrypoint
def list_directory(path: str) -> list[_Entry]:
    """List a directory; symbolic links in it are described, not followed.

    First itself, as ``.``, as it was before it was read. What goes meanwhile
    is left out.

    :raises PermissionError: it is not below ``instances_path``
    :raises OSError: as open(2), getdents(2) and lstat(2)
    """
    with _opened(path, path, os.O_RDONLY) as fd:
        entries = [_describe(os.curdir, os.fstat(fd))]
        for name in sorted(os.listdir(fd)):
            with contextlib.suppress(FileNotFoundError):
                entries.append(_describe(name, os.lstat(name, dir_fd=fd)))
        return entries


def list_as_root(path: str) -> tuple[host.Listed, ...]:
    """List a directory with the rights of root, as a host lends it.

    :raises PermissionError: it is not below ``instances_path``
    :raises OSError: as :func:`list_directory`
    """
    return tuple(host.Listed(*entry) for entry in list_directory(path))
