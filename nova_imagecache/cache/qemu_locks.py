# SPDX-License-Identifier: Apache-2.0

"""The locks that QEMU holds on the images that it has open.

Open file description locks on single bytes, as ``raw_apply_lock_bytes`` and
``raw_check_lock_bytes`` in block/file-posix.c of QEMU have them: a shared lock
on byte 100 + n says "I use permission n", on byte 200 + n "nobody else may use
permission n". Whoever reads an image uses "consistent read", n = 0. So byte
100 tells of every reader, and a lock of ours on byte 200 keeps new ones out.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import struct

from nova_imagecache.cache import identity
from nova_imagecache import errors

_USES_READ = 100
_FORBIDS_READ = 200
_MEANS_NOTHING = 400

#: What fcntl(2) answers on a file system without locks.
NO_LOCKS = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
)

# include/uapi/asm-generic/fcntl.h: type, whence, start, length and process,
# which has to be 0 with these locks.
_FLOCK = struct.Struct('@hhqqi')


def _ask(fd: int, byte: int) -> bool:
    # For a write lock: shared ones do not conflict with a shared one.
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _share(fd: int, byte: int) -> None:
    wish = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wish)


def in_use(path: str) -> bool:
    """Whether a QEMU has an image open, on this host or, on NFS, on another.

    Not seen are those with ``locking=off``, and a migration target that is
    still waiting.

    :raises OSError: this cannot be found out
    """
    fd = identity.open_regular(path)
    try:
        return _ask(fd, _USES_READ)
    finally:
        os.close(fd)


@contextlib.contextmanager
def fence(path: str, dir_fd: int | None = None) -> Iterator[None]:
    """Keep every QEMU from opening an image, provided none has it open.

    This is for the moment in which a file is moved away or deleted, and never
    for reading it (decision 0030).

    Where there are no such locks, QEMU has none either, and none is kept out.

    :param dir_fd: of the directory that the path is relative to
    :raises nova_imagecache.errors.NotNow: one has it open
    :raises OSError: this cannot be found out
    """
    fd = identity.open_regular(path, dir_fd)
    try:
        try:
            _share(fd, _FORBIDS_READ)
            held = _ask(fd, _USES_READ)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = False
        if held:
            raise errors.NotNow('a running QEMU has it open')
        yield
    finally:
        os.close(fd)


def work_on(path: str) -> bool:
    """Whether such locks are seen at all on the file system of an image.

    They are not where it is mounted with ``nolock``, and on some that are
    made with FUSE. Tried on a byte that means nothing to QEMU.

    :raises OSError: this cannot be found out
    """
    mine = identity.open_regular(path)
    try:
        other = identity.open_regular(path)
        try:
            _share(mine, _MEANS_NOTHING)
            return _ask(other, _MEANS_NOTHING)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        finally:
            os.close(other)
    finally:
        os.close(mine)
