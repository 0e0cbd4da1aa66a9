# SPDX-License-Identifier: Apache-2.0

"""Directories by handle, so that nothing is led elsewhere (decision 0046)."""

from collections.abc import Iterator
import contextlib
import ctypes
import errno
import os
import stat
from typing import NamedTuple

from nova_imagecache.cache import layouts

# include/uapi/linux/fs.h
_RENAME_NOREPLACE = 1

_libc = ctypes.CDLL(None, use_errno=True)


def intruder(layout: layouts.Layout) -> str | None:
    """Say what is in the place of a directory of ours, if anything is.

    A link there would have us write and remove files somewhere else.
    """
    for path in layout.directories:
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return (
                f'{path} is no directory; move away what is there (a link to '
                'another place will not do)'
            )
    return None


class Unwritable(NamedTuple):
    """A directory of ours in which nothing can be kept.

    :ivar read_only: whether its whole file system is so, to everybody
    """

    path: str
    read_only: bool

    def __str__(self) -> str:
        """Say so in a sentence."""
        if self.read_only:
            why = 'is on a file system that is read-only'
        else:
            why = 'cannot be written to by the user that this runs as'
        return (
            f'{self.path} {why}, so nothing that is found in files can be '
            f'kept{self._way_out}'
        )

    @property
    def _way_out(self) -> str:
        if self.read_only:
            return ''
        return '; run it as root or as the owner of instances_path'


def way_out(error: OSError) -> str:
    """Say what to do about a file of ours that somebody else has taken."""
    if isinstance(error, PermissionError):
        return '; give it back to the owner of instances_path'
    return ''


def unwritable(layout: layouts.Layout) -> Unwritable | None:
    """Find out where nothing can be kept of what is found, if anywhere.

    Changes nothing.
    """
    for path in (layout.base, *layout.directories):
        code = _why_unwritable(path)
        if code in (errno.EROFS, errno.EACCES, errno.EPERM):
            return Unwritable(path, code == errno.EROFS)
    return None


def _why_unwritable(path: str) -> int | None:
    """Try to make a file without a name; give the error, if there is one.

    A file system that went read-only by itself, as ext4 after an error, says
    nothing of that until somebody tries.
    """
    flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return error.errno
        # It cannot be tried here.
        if not os.access(path, os.W_OK, effective_ids=True):
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
            return errno.EROFS if read_only else errno.EACCES
    return None


@contextlib.contextmanager
def opened(
    path: str, dir_fd: int | None = None, follow: bool = False
) -> Iterator[int]:
    """Give a handle of a directory.

    :param dir_fd: of the directory that the path is relative to
    :param follow: whether the last component may be a symbolic link
    :raises OSError: as open(2)
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if not follow:
        flags |= os.O_NOFOLLOW
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_below(fd: int, *parts: str, make: bool = False) -> Iterator[int]:
    """Give a handle of a directory further down; no link is followed.

    :param make: whether to make those that are missing
    :raises OSError: as open(2) and mkdir(2)
    """
    with contextlib.ExitStack() as stack:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
            fd = stack.enter_context(opened(part, fd))
        yield fd


def _renameat2(
    source_fd: int, source: str, target_fd: int, target: str
) -> None:
    done = _libc.renameat2(
        source_fd,
        os.fsencode(source),
        target_fd,
        os.fsencode(target),
        _RENAME_NOREPLACE,
    )
    if done:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source)


def rename_at_once(
    source_fd: int, source: str, target_fd: int, target: str
) -> bool:
    """Rename a file, unless there is one of the new name already.

    :returns: False where that cannot be done in one step, and was not
    :raises FileExistsError: there is one
    :raises OSError: as renameat2(2)
    """
    try:
        _renameat2(source_fd, source, target_fd, target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        return False
    return True


def rename(source_fd: int, source: str, target_fd: int, target: str) -> None:
    """Rename a file, unless there is one of the new name already.

    Not everywhere can this be done in one step (decision 0047): so hold the
    lock of the file.

    :raises FileExistsError: there is one
    :raises OSError: as renameat2(2)
    """
    if rename_at_once(source_fd, source, target_fd, target):
        return
    try:
        os.link(
            source,
            target,
            src_dir_fd=source_fd,
            dst_dir_fd=target_fd,
            follow_symlinks=False,
        )
    except FileExistsError:
        raise
    except OSError:
        try:
            os.lstat(target, dir_fd=target_fd)
        except FileNotFoundError:
            os.rename(
                source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd
            )
            return
        raise FileExistsError(
            errno.EEXIST, os.strerror(errno.EEXIST), target
        ) from None
    os.unlink(source, dir_fd=source_fd)


def sync(fd: int) -> None:
    """Make the names in a directory durable, as far as that can be done.

    :raises OSError: as fsync(2); a file system that cannot sync a directory
        (EINVAL) is not an error, there is nothing more to do there
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
