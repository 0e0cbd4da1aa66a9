# SPDX-License-Identifier: Apache-2.0

"""Which file is this? What statx(2) says of a file, and its identity.

Python's ``os.stat`` has no birth time on Linux. The structure is the kernel's
(include/uapi/linux/stat.h), which never changes what it once had.
"""

import ctypes
import enum
import errno
import fcntl
import os
import stat
import struct
from typing import NamedTuple

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_BASIC_STATS = 0x7FF
_STATX_BTIME = 0x800
_STATX_MASK = _STATX_BASIC_STATS | _STATX_BTIME
_Statx = ctypes.c_char * 256
# mask, mode, inode, size, blocks, and the four times (a, b, c, m).
_STATX_FIELDS = struct.Struct('=I24xH2xQQQ8x' + 'qI4x' * 4 + '8xII')
# Inode, and the last two of these times.
_STATX_TIMES = struct.Struct('=32xQ56x' + 'qI4x' * 2 + '8xII')

# _IOR('v', 1, long) in include/uapi/linux/fs.h.
_FS_IOC_GETVERSION = 0x80087601

_libc = ctypes.CDLL(None, use_errno=True)


#: Inode, birth time and generation, see :attr:`Incarnation.key`.
Key = tuple[int, int | None, int | None]


class Likeness(enum.Enum):
    """Whether two keys are of one file (decision 0069).

    UNSURE: it cannot be told. One of two hosts sees no birth times, as the
    client of an NFS server; or nobody does, and then the number of an inode is
    given to the next file, and may be another one after the next mount.
    """

    SAME = enum.auto()
    ANOTHER = enum.auto()
    UNSURE = enum.auto()


def compare(one: Key, other: Key) -> Likeness:
    """Say whether two keys are of one file."""
    # The inode alone says nothing: it may change, and is used again.
    for here, there in zip(one[1:], other[1:], strict=True):
        if here is not None and there is not None:
            if here != there:
                return Likeness.ANOTHER
            if one[0] == other[0]:
                return Likeness.SAME
    return Likeness.UNSURE


def merged(old: Key, new: Key) -> Key:
    """Give the key to remember of a file, as the last one who saw it does.

    What only an earlier one could see is kept with its inode, so that hosts
    which see different things do not make each other doubt.
    """
    if old[0] != new[0]:
        return new
    return (
        new[0],
        old[1] if new[1] is None else new[1],
        old[2] if new[2] is None else new[2],
    )


class Incarnation(NamedTuple):
    """One file, from its creation to its end, under whatever name.

    A name says nothing: stock Nova deletes a base file and fetches other
    bytes under the same name, and ext4 and xfs give the inode number of a
    deleted file to the next one.

    :ivar device: the file system, as long as it stays mounted
    :ivar inode: inode number
    :ivar born: birth time in nanoseconds, or None where the file system has
        none (NFS before 4.2)
    :ivar generation: inode generation, asked for where there is no birth
        time; None where there is none either
    """

    device: int
    inode: int
    born: int | None
    generation: int | None

    @property
    def key(self) -> Key:
        """What identifies the file in records that outlive a mount.

        Without the device (decision 0001).
        """
        return (self.inode, self.born, self.generation)


class Stat(NamedTuple):
    """What statx says of a file.

    :ivar mode: type and permissions
    :ivar size: in bytes
    :ivar allocated: bytes that it takes on the disk
    :ivar modified: time of the last write or touch, in nanoseconds
    :ivar changed: time of the last change of the inode, in nanoseconds
    """

    incarnation: Incarnation
    mode: int
    size: int
    allocated: int
    modified: int
    changed: int

    @property
    def regular(self) -> bool:
        """Whether it is a regular file (symbolic links are not)."""
        return stat.S_ISREG(self.mode)

    def same_content_as(self, other: 'Stat') -> bool:
        """Whether nothing suggests a write between the two."""
        return (
            self.incarnation == other.incarnation
            and self.size == other.size
            and self.modified == other.modified
            and self.changed == other.changed
        )


def _generation(fd: int) -> int | None:
    try:
        answer = fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))
    except OSError:
        return None
    return int.from_bytes(answer[:4], 'little')


def _statx(dirfd: int, path: bytes, flags: int) -> bytes:
    buffer = _Statx()
    if _libc.statx(dirfd, path, flags, _STATX_MASK, buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(path))
    return buffer.raw


def _stat(buffer: bytes, generation: int | None) -> Stat:
    (
        mask, mode, inode, size, blocks, _a_seconds, _a_rest, b_seconds,
        b_rest, c_seconds, c_rest, m_seconds, m_rest, major, minor,
    ) = _STATX_FIELDS.unpack_from(buffer)  # fmt: skip
    born = b_seconds * 10**9 + b_rest if mask & _STATX_BTIME else None
    # Names of arguments take their time, with very many files.
    return Stat(
        Incarnation(os.makedev(major, minor), inode, born, generation),
        mode,
        size,
        blocks * 512,
        m_seconds * 10**9 + m_rest,
        c_seconds * 10**9 + c_rest,
    )


def stat_of_fd(fd: int) -> Stat:
    """Describe an open file.

    :raises OSError: as statx(2)
    """
    buffer = _statx(fd, b'', _AT_EMPTY_PATH)
    seen = _stat(buffer, None)
    if seen.incarnation.born is not None or not seen.regular:
        return seen
    return _stat(buffer, _generation(fd))


def stat_of(path: str, dir_fd: int | None = None, fresh: bool = False) -> Stat:
    """Describe the file at a path; a symbolic link is not followed.

    :param dir_fd: of the directory that the path is relative to
    :param fresh: whether a server is to be asked, and no cache of it believed
    :raises OSError: as statx(2)
    """
    start = _AT_FDCWD if dir_fd is None else dir_fd
    # Decision 0035.
    flags = _AT_SYMLINK_NOFOLLOW | (_AT_STATX_FORCE_SYNC if fresh else 0)
    buffer = _statx(start, os.fsencode(path), flags)
    seen = _stat(buffer, None)
    if seen.incarnation.born is not None or not seen.regular:
        return seen
    try:
        fd = _open(path, dir_fd)
    except PermissionError:
        return seen
    try:
        opened = stat_of_fd(fd)
    finally:
        os.close(fd)
    if not opened.regular:
        raise _not_regular(path)
    return opened


def times_of(path: str) -> tuple[int, int, int, int]:
    """Say what is at a path, or what it links to, and how it was changed.

    A server is asked, and no cache of it believed.

    :returns: device, inode, and the times of the last write and of the last
        change of the inode, in nanoseconds
    :raises OSError: as statx(2)
    """
    flags = _AT_STATX_FORCE_SYNC
    buffer = _statx(_AT_FDCWD, os.fsencode(path), flags)
    inode, c_seconds, c_rest, m_seconds, m_rest, major, minor = (
        _STATX_TIMES.unpack_from(buffer)
    )
    return (
        os.makedev(major, minor),
        inode,
        m_seconds * 10**9 + m_rest,
        c_seconds * 10**9 + c_rest,
    )


def gone(path: str) -> bool:
    """Whether there is no such file: not, whether it cannot be looked at."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def open_regular(path: str, dir_fd: int | None = None) -> int:
    """Open a regular file for reading, and nothing else.

    Does not follow a symbolic link, nor wait for a FIFO's writer.

    :param dir_fd: of the directory that the path is relative to
    :raises OSError: as open(2); EINVAL when it is not a regular file
    """
    return opened_regular(path, dir_fd)[0]


def opened_regular(
    path: str, dir_fd: int | None = None
) -> tuple[int, os.stat_result]:
    """Open a regular file, likewise; say what it is, too."""
    # To open a device may do something, such as start a watchdog.
    seen = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    if not stat.S_ISREG(seen.st_mode):
        raise _not_regular(path)
    fd = _open(path, dir_fd)
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise _not_regular(path)
    except BaseException:
        os.close(fd)
        raise
    return fd, seen


def _open(path: str, dir_fd: int | None) -> int:
    """Open what has just been a regular file, for reading."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        # A symbolic link and a socket, as open(2) reports them.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_regular(path) from None
        raise


def _not_regular(path: str) -> OSError:
    return OSError(errno.EINVAL, 'Not a regular file', path)
