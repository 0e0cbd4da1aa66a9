# SPDX-License-Identifier: Apache-2.0

"""Becoming the owner of ``instances_path``."""

import contextlib
import importlib
import os
import pwd
import sys

from nova_imagecache import errors

# What is imported only when it is needed, by the module that needs it: codecs,
# tqdm's lock, and what we import late ourselves. Python may be installed where
# root alone can read, and then none of them could be had any more.
_LATE_IMPORTS = {
    'sys': (
        'encodings.ascii',
        'encodings.idna',
        'encodings.latin_1',
        'encodings.unicode_escape',
        'secrets',
        'traceback',
    ),
    'tqdm': ('multiprocessing.synchronize',),
    'nova_imagecache.cache.mounts': ('psutil',),
    'nova_imagecache.scrub.background': ('psutil',),
    'nova_imagecache.heal.automatic': ('nova_imagecache.heal.assembly',),
    'nova_imagecache.outlets.figures': (
        'nova_imagecache.outlets.exposition',
        'nova_imagecache.outlets.textfiles',
    ),
    'nova_imagecache.witnesses.panel': ('nova_imagecache.witnesses.domains',),
    'nova_imagecache.passes.pipeline': ('nova_imagecache.scrub.verification',),
}

# Likewise by the formatter of cliff.
_FORMATS = {'table': 'wcwidth', 'yaml': 'yaml'}


def import_format(name: str | None) -> None:
    """Import what a formatter of cliff imports when it formats."""
    if name in _FORMATS:
        with contextlib.suppress(ImportError):
            importlib.import_module(_FORMATS[name])


def _import_all() -> None:
    for needing, modules in _LATE_IMPORTS.items():
        if needing in sys.modules:
            for module in modules:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)


def become_owner(instances: str, base: str) -> None:
    """Give up root, for good, in favour of the owner of ``instances_path``.

    One lock file that root owns below ``instances_path`` makes every later
    start of a guest fail, as the compute service cannot open it.

    :param base: the cache, whose owner counts where root owns the other
    :raises OSError: the change is refused
    """
    if os.geteuid() != 0:
        return
    found = [
        os.stat(path) for path in (instances, base) if os.path.isdir(path)
    ]
    owned = [status for status in found if status.st_uid != 0]
    if not owned:
        return
    status = owned[0]
    _import_all()
    try:
        user = pwd.getpwuid(status.st_uid)
    except KeyError:
        gid = status.st_gid
        os.setgroups([gid])
    else:
        # QEMU's group, for one, may be needed to read the disks.
        gid = user.pw_gid
        os.initgroups(user.pw_name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(status.st_uid, status.st_uid, status.st_uid)


def insist(instances: str, base: str) -> None:
    """See that this may change a cache, before each part of it says so.

    :raises nova_imagecache.errors.Error: it runs as somebody else
    """
    for path in filter(os.path.isdir, (instances, base)):
        status = os.stat(path)
        if os.geteuid() in (0, status.st_uid):
            continue
        may = os.access(path, os.W_OK, effective_ids=True)
        # What is so to everybody can still be verified.
        if not may and not os.statvfs(path).f_flag & os.ST_RDONLY:
            raise errors.Error(
                f'run this as root or as the owner of {path}, '
                f'{_name(status.st_uid)}'
            )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f'user {uid}'
