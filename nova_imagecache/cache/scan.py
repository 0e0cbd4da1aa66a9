# SPDX-License-Identifier: Apache-2.0

"""What is in the cache directory."""

import dataclasses
import os
import stat

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import status as statuses
from nova_imagecache import names


@dataclasses.dataclass(frozen=True)
class CachedFile:
    """One file in the cache, as the scan found it."""

    name: str
    kind: names.Kind
    status: statuses.Status


@dataclasses.dataclass(frozen=True)
class Scan:
    """Everything in the cache.

    :ivar files: sorted by name; without the sidecars of files that are there
    :ivar problems: what could not be looked at, a sentence each
    """

    files: tuple[CachedFile, ...] = ()
    problems: tuple[str, ...] = ()


def scan(layout: layouts.Layout) -> Scan:
    """List the cache. A missing directory is an empty cache."""
    try:
        found = set(os.listdir(layout.base))
    except FileNotFoundError:
        return Scan()
    except OSError as error:
        return Scan(problems=(f'{layout.base}: {error.strerror}',))
    files = []
    problems = []
    for name in sorted(found - {names.OWN_DIRECTORY}):
        if names.sidecar_of(name) in found:
            continue
        path = os.path.join(layout.base, name)
        try:
            status = statuses.status_of(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f'{names.printable(path)}: {error.strerror}')
            continue
        files.append(CachedFile(name, names.kind_of(name), status))
    return Scan(tuple(files), tuple(problems))


def disk_usage(layout: layouts.Layout) -> int:
    """Sum up the bytes that the cache takes of the instances' disk.

    As ``get_disk_usage`` of nova/virt/libvirt/imagecache.py: 0 when the
    cache is on another file system. A file that vanishes meanwhile counts
    nothing, where Nova's gives up on the rest.
    """
    try:
        here = os.stat(layout.base)
        if os.stat(layout.instances).st_dev != here.st_dev:
            return 0
    except OSError:
        return 0
    total = 0
    for directory, _directories, files in os.walk(layout.base):
        for name in files:
            try:
                # A bare lstat: to open a lock file of ours, and close it,
                # would give up the lock.
                status = os.lstat(os.path.join(directory, name))
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                total += status.st_blocks * 512
    return total
