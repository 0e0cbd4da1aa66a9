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
    'multiprocessing.synchronize',
    'secrets',
    'traceback',
    'wcwidth',
    'yaml',
)


def become_owner(path: str) -> None:
    """Give up root, for good, in favour of the owner of a directory.

    One lock file that root owns below ``instances_path`` makes every later
    start of a guest fail, as the compute service cannot open it.

    :raises OSError: the directory is not there, or the change is refused
    """
    status = os.stat(path)
    if os.geteuid() != 0 or status.st_uid == 0:
        return
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
