# SPDX-License-Identifier: Apache-2.0

"""What a host lends to the manager: what only the host can do."""

from collections.abc import Callable
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


@dataclasses.dataclass(frozen=True)
class Host:
    """What a host lends; what is None we do with our own means, or not.

    :ivar connect: gives its connection to libvirt
    :ivar read_as_root: reads disks that this process may not read
    :ivar touch_as_root: renews timestamps that this process may not renew
    """

    connect: Connect | None = None
    read_as_root: ReadAsRoot | None = None
    touch_as_root: TouchAsRoot | None = None
