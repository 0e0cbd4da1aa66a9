# SPDX-License-Identifier: Apache-2.0

"""What is in the cache directory."""

import os
import stat
from typing import NamedTuple

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache import codes
from nova_imagecache import names


class Scan(NamedTuple):
    """Everything in the cache.

    :ivar files: sorted by name; without the sidecars of files that are there
    :ivar problems: what could not be looked at, a sentence each
    """

    files: tuple[base_file.BaseFile, ...] = ()
    problems: tuple[codes.Problem, ...] = ()


def scan(layout: layouts.Layout) -> Scan:
    """List the cache. A missing directory is an empty cache."""
    try:
        found = set(os.listdir(layout.base))
    except FileNotFoundError:
        return Scan()
    except OSError as error:
        return Scan(
            problems=(
                codes.Problem(
                    codes.Code.UNLISTED,
                    f'{layout.base}: {error.strerror}',
                    layout.base,
                ),
            )
        )
    wanted = [
        name
        for name in sorted(found - {names.OWN_DIRECTORY})
        if names.sidecar_of(name) not in found
    ]
    files = []
    problems = []
    for name, file in base_file.BaseFile.all_named(layout, wanted, False):
        if isinstance(file, base_file.BaseFile):
            files.append(file)
        elif not isinstance(file, FileNotFoundError):
            path = names.printable(os.path.join(layout.base, name))
            problems.append(
                codes.Problem(
                    codes.Code.UNLISTED, f'{path}: {file.strerror}', name
                )
            )
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
