# SPDX-License-Identifier: Apache-2.0

"""How the file system of a cache is mounted."""

from collections.abc import Iterable
import os
from typing import Protocol

import psutil

# With which the locks that we take, those of fcntl(2), are not the server's
# (nfs(5), mount.cifs(8)).
_LOCAL_LOCKS = {
    'nfs': {'nolock', 'local_lock=all', 'local_lock=posix'},
    'nfs4': {'nolock', 'local_lock=all', 'local_lock=posix'},
    'cifs': {'nobrl'},
    'smb3': {'nobrl'},
}


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


def find_local_locks(partitions: Iterable[Mount], path: str) -> str | None:
    """Say that locks below a path are not seen by other hosts, if so.

    :param partitions: all mounts, in the order in which they were made
    :param path: without symbolic links
    :returns: a sentence, with what to do
    """
    around = [
        each
        for each in partitions
        if f'{path}/'.startswith(f'{each.mountpoint.rstrip("/")}/')
    ]
    if not around:
        return None
    # Of those in one place, the last one covers the others.
    mount = max(reversed(around), key=lambda each: len(each.mountpoint))
    local = _LOCAL_LOCKS.get(mount.fstype, set())
    for option in mount.opts.split(','):
        if option in local:
            return (
                f'{mount.mountpoint} is mounted with {option}, so hosts that '
                'share the cache do not see each other\'s locks: one may '
                'remove what another one fetches, and several scrub at once; '
                'mount it without that, unless no other host has it'
            )
    return None


def local_locks(path: str) -> str | None:
    """Say that locks on the file system of a path are not shared, if so.

    :returns: a sentence, with what to do
    """
    try:
        partitions = psutil.disk_partitions(all=True)
    except (OSError, psutil.Error):
        # A host that does not say how it is mounted.
        return None
    return find_local_locks(partitions, os.path.realpath(path))
