# SPDX-License-Identifier: Apache-2.0

"""Reading the headers of disks, with the rights of root where those fail."""

import errno
import functools
import json
import os
import stat
from typing import Any

from nova_imagecache.cache import identity
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache.witnesses import disk_header

_DISK_INFO = 'disk.info'
_DISK_INFO_LIMIT = 1024 * 1024

# Without waiting for who writes to a pipe.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def declared_raw(directory: str, name: str) -> bool:
    """Whether Nova has noted that it opens this disk as a raw one.

    See ``write_to_disk_info_file`` in nova/virt/libvirt/imagebackend.py.
    """
    try:
        fd = identity.open_regular(os.path.join(directory, _DISK_INFO))
        with os.fdopen(fd, 'rb') as file:
            formats = json.loads(file.read(_DISK_INFO_LIMIT))
        return any(
            os.path.basename(path) == name and form == 'raw'
            for path, form in formats.items()
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _read_as_root(
    path: str, read: host.ReadAsRoot, status: Any
) -> disk_header.DiskHeader:
    def pread(length: int, offset: int) -> bytes:
        data = read(path, offset, length)
        # What is cut short would pass for a raw disk (decision 0052).
        if len(data) < min(length, status.st_size - offset):
            raise ValueError('it got less than is there')
        return data

    return disk_header.read_header_from(pread, status.st_size, costly=True)


def read(
    path: str,
    read_as_root: host.ReadAsRoot | None,
    listed: os.stat_result | None = None,
    devices: bool = False,
) -> tuple[os.stat_result, disk_header.DiskHeader]:
    """Read the header of a disk.

    :param read_as_root: what the host lends for what this process may not
        read; without it, that is an error
    :param listed: what is known of the file, where it cannot be asked
    :param devices: whether it may be a block device
    :raises nova_imagecache.witnesses.disk_header.MalformedHeader: it has the
        magic of a format, and cannot be one
    :raises OSError: it cannot be read
    """
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except PermissionError:
        if read_as_root is None:
            raise
        status = listed or os.stat(path)
        try:
            return status, _read_as_root(path, read_as_root, status)
        except disk_header.MalformedHeader:
            raise
        # A broad net, as the function and what it raises are the host's.
        except Exception as error:
            # Gone is what is gone for us: root may be in another container.
            if listed is None:
                os.stat(path)
            raise PermissionError(
                errno.EACCES,
                f'{os.strerror(errno.EACCES)}, and reading it as root failed: '
                f'{names.printable(str(error) or repr(error))}',
            ) from error
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            size = status.st_size
        elif devices and stat.S_ISBLK(status.st_mode):
            size = os.lseek(fd, 0, os.SEEK_END)
        else:
            return status, disk_header.NEEDS_NOTHING
        pread = functools.partial(os.pread, fd)
        return status, disk_header.read_header_from(pread, size)
    finally:
        os.close(fd)
