# SPDX-License-Identifier: Apache-2.0

"""What a host lends to the manager: what only the host can do."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
from typing import Any

#: Gives the host's own open connection to libvirt, as ``Host.get_connection``
#: of nova/virt/libvirt/host.py, or raises anything.
Connect = Callable[[], Any]

#: Reads a part of a file with the rights of root: its path, an offset and a
#: length, in bytes (decision 0052). May raise anything. A guest's owner may
#: have put something else in the place of a disk, so it has to open with
#: O_NOFOLLOW, and to refuse what is no regular file.
ReadAsRoot = Callable[[str, int, int], bytes]

#: Renews the timestamp of the file at a path with the rights of root, without
#: following a symbolic link. May raise anything.
TouchAsRoot = Callable[[str], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a directory; a symbolic link is described itself.

    :ivar name: as os.listdir gives it; ``.`` for the directory itself
    :ivar mode: type and permissions
    :ivar inode: inode number
    :ivar device: the file system
    :ivar size: in bytes
    :ivar mtime_ns: time of the last write or touch, in nanoseconds
    :ivar ctime_ns: time of the last change of the inode, in nanoseconds
    """

    name: str
    mode: int
    inode: int
    device: int
    size: int
    mtime_ns: int
    ctime_ns: int


#: Lists the directory at a path with the rights of root: first itself, as
#: ``.``, described before it is read, then what is in it. May raise anything.
ListAsRoot = Callable[[str], Iterable[Listed]]


@dataclasses.dataclass(frozen=True)
class Host:
    """What a host lends; what is None we do with our own means, or not.

    :ivar connect: gives its connection to libvirt
    :ivar read_as_root: reads disks that this process may not read
    :ivar touch_as_root: renews timestamps that this process may not renew
    :ivar list_as_root: lists directories that this process may not list
    """

    connect: Connect | None = None
    read_as_root: ReadAsRoot | None = None
    touch_as_root: TouchAsRoot | None = None
    list_as_root: ListAsRoot | None = None
