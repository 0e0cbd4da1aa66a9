# SPDX-License-Identifier: Apache-2.0

"""The file in which the hosts that share ``instances_path`` say so.

As nova/virt/storage_users.py: ``instances_path/compute_nodes`` is JSON, and
has the time of the last pass by host name. Nova takes the guests of a host
that has not said so for 24 hours for gone, on all hosts.
"""

import json
import logging
import math
import os

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import publish

LOG = logging.getLogger(__name__)

_LOCK = 'storage-registry-lock'
_FILE = 'compute_nodes'
_SIZE_LIMIT = 16 * 1024 * 1024


def _is_time(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(float(str(value)))


def load(layout: layouts.Layout) -> dict[str, float]:
    """Say when each host was last heard of, in seconds since the epoch.

    What is no such file counts as empty, as it does for Nova.

    :raises OSError: it cannot be read
    """
    path = os.path.join(layout.instances, _FILE)
    try:
        fd = identity.open_regular(path)
    except FileNotFoundError:
        return {}
    with os.fdopen(fd, 'rb') as file:
        data = file.read(_SIZE_LIMIT)
    try:
        nodes = json.loads(data)
    except (ValueError, RecursionError):
        nodes = None
    if not isinstance(nodes, dict):
        LOG.warning(
            '[N10] %s is no list of hosts, so a new one is begun', path
        )
        return {}
    return {host: when for host, when in nodes.items() if _is_time(when)}


def register(layout: layouts.Layout, host: str, now: float) -> None:
    """Say that a host uses this storage.

    :param host: as the compute service calls it
    :param now: seconds since the epoch
    :raises nova_imagecache.errors.NotNow: Nova's lock on the file cannot be
        had
    :raises OSError: the file cannot be read or written
    """
    with locks.nova_lock(layout, _LOCK, blocking=True):
        nodes = load(layout) | {host: now}
        # Beside the locks, as the cache may be on another file system.
        publish.publish(
            os.path.join(layout.instances, _FILE),
            json.dumps(nodes).encode(),
            layout.locks,
        )
