# SPDX-License-Identifier: Apache-2.0

"""What needs more rights than nova-compute has, in Nova's own context.

nova-compute is an unprivileged user, and libvirt gives disks and base files to
QEMU's. The rootwrap filter of Nova starts the daemon of its own context alone,
and that one accepts functions from any module whose name begins with ``nova``
(``PrivContext.entrypoint`` in oslo_privsep/priv_context.py).
"""

import os

import nova.privsep

from nova_imagecache.cache import identity


@nova.privsep.sys_admin_pctxt.entrypoint
def touch(path: str) -> None:
    """Renew the timestamp of a file; a symbolic link is not followed.

    :raises OSError: as utimensat(2)
    """
    os.utime(path, follow_symlinks=False)


@nova.privsep.sys_admin_pctxt.entrypoint
def read(path: str, offset: int, length: int) -> bytes:
    """Read a part of a regular file; a symbolic link is not followed.

    :param offset: in bytes
    :param length: bytes at most
    :raises OSError: as open(2) and pread(2); EINVAL when it is no file
    """
    fd = identity.open_regular(path)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)
