# SPDX-License-Identifier: Apache-2.0

"""Becoming the owner of ``instances_path``."""

import contextlib
import importlib
import os
import pwd

# What the libraries import only when they need it: codecs, tqdm's lock, and
# the formatters of cliff. Python may be installed where root alone can read,
# and then none of them could be had any more.
_LATE_IMPORTS = (
    'encodings.ascii',
    'encodings.idna',
    'encodings.latin_1',
    'encodings.unicode_escape',
    'multiprocessing.synchronize',
    'secrets',
    'traceback',
    'wcwidth',
    'yaml',
)


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
    for module in _LATE_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
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
