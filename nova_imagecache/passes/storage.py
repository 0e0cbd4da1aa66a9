# SPDX-License-Identifier: Apache-2.0

"""How late it is for the storage, and what that tells of times there."""

import contextlib
import os
import time
from typing import NamedTuple

from nova_imagecache.cache import directories
from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import mounts
from nova_imagecache.cache import publish
from nova_imagecache.witnesses import walks


class Storage(NamedTuple):
    """What can be told of the times of files (decision 0032).

    :ivar clock: the one that dates all of them, where there is one
    :ivar settled: whether what this host noted last was noted long enough ago
        for the times of directories to tell what was changed since
    """

    clock: walks.StorageClock | None = None
    settled: bool = False


def ask(layout: layouts.Layout, host: str) -> Storage:
    """Ask for the time where there is a place of ours to write already."""
    with contextlib.suppress(OSError):
        if directories.intruder(layout) is None and os.path.isdir(
            layout.temporary
        ):
            return tell(layout, host, publish.current_time(layout.temporary))
    return Storage()


def tell(layout: layouts.Layout, host: str, shown: float) -> Storage:
    """Say what follows from the time that the storage has shown just now.

    :param shown: in seconds since the epoch
    """
    read = time.monotonic_ns()
    clock, settled = None, False
    with contextlib.suppress(OSError):
        # By what dates the files of this host, whatever dates the others.
        noted = os.stat(inventories.path_of(layout, host)).st_mtime
        settled = shown - noted >= walks.GRAIN_SECONDS
    with contextlib.suppress(OSError):
        if mounts.has_one_clock(layout.temporary):
            device = os.stat(layout.temporary).st_dev
            clock = walks.StorageClock(device, int(shown * 10**9), read)
    return Storage(clock, settled)
