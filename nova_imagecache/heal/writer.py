# SPDX-License-Identifier: Apache-2.0

"""Writing good data in the place of bad, in a file that guests are reading.

The data is got and compared before, so it may be written twice: whoever is
killed in between leaves each byte as it was, or good (decision 0089).
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import enum
import errno
import fcntl
import mmap
import os
import signal
import stat

from nova_imagecache.heal import pages
from nova_imagecache import names
from nova_imagecache.scrub import readers

#: No block of a ledger of ours is larger.
MOST_BYTES = 64 * 1024 * 1024

# After which who writes ends, wherever the kernel lets it.
_LONGEST_SECONDS = 60

# As MAXSYMLINKS in include/linux/namei.h.
_MOST_LINKS = 40


class Refusal(enum.StrEnum):
    """Why data was not written, or is not there although it was.

    The values are stable: they are kept in records and in metrics.

    MEDIUM: it takes no data, or gives back something else
    HUNG: whoever writes does not answer; it may be there later, or never
    """

    CHANGED = 'changed'
    LINKED = 'linked'
    IMMUTABLE = 'immutable'
    READ_ONLY = 'read-only'
    NOT_PERMITTED = 'not-permitted'
    NO_SPACE = 'no-space'
    MEDIUM = 'medium'
    HUNG = 'hung'
    FAILED = 'failed'


class Refused(Exception):
    """The data is not there.

    :ivar refusal: why
    """

    def __init__(self, refusal: Refusal, message: str) -> None:
        """Say why, in one line that an operator can act on."""
        super().__init__(message)
        self.refusal = refusal


#: Writes bytes of a base file: its path, its inode, an offset and the data.
#: As :func:`rewrite`. What takes time before the first write may be done by a
#: method ``prepare``, which takes path and inode and raises the same.
Rewrite = Callable[[str, int, int, bytes], None]

_REFUSALS = {
    errno.EACCES: (
        Refusal.NOT_PERMITTED,
        'it may not be written to; run the command as root',
    ),
    errno.EPERM: (
        Refusal.IMMUTABLE,
        'it is immutable, or nobody may write to it; see lsattr and chattr',
    ),
    errno.EROFS: (
        Refusal.READ_ONLY,
        'the file system is mounted read-only; look at the log of the kernel',
    ),
    errno.ENOENT: (Refusal.CHANGED, 'it has gone meanwhile'),
    errno.ELOOP: (Refusal.CHANGED, 'it is a symbolic link by now'),
    errno.ENXIO: (Refusal.CHANGED, 'it is no regular file by now'),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT),
        (
            Refusal.NO_SPACE,
            'there is no space for it: this file system writes to another '
            'place than before, or there was a hole',
        ),
    ),
}  # fmt: skip


def refused(error: OSError) -> Refused:
    """Say what an error means for a file that is to be written."""
    if error.errno in readers.MEDIUM_ERRORS:
        return Refused(
            Refusal.MEDIUM,
            f'the medium does not take what is written: {error.strerror}; '
            'replace the disk',
        )
    refusal, message = _REFUSALS.get(
        error.errno or 0, (Refusal.FAILED, error.strerror or str(error))
    )
    return Refused(refusal, message)


def prepare(rewrite: Rewrite, path: str, inode: int) -> None:
    """Have a write take no longer than it takes.

    To be called before a lock is taken.

    :raises Refused: it would not be made
    """
    ready = getattr(rewrite, 'prepare', None)
    if ready is not None:
        ready(path, inode)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refused(error) from error


def rewrite(
    path: str,
    inode: int,
    offset: int,
    data: bytes,
    dir_fd: int | None = None,
) -> None:
    """Put data into a file in place, and see that the medium has it.

    The file does not grow, keeps its times, and nobody else's file changes.

    :param path: of the file; a symbolic link is not followed
    :param inode: of the file that is meant
    :param offset: a multiple of the page size
    :param data: whole pages, or up to the end of the file
    :param dir_fd: of the directory that the path is relative to
    :raises Refused: it is not there: none of it, or some of its pages
    """
    with _refusing():
        seen = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        if not stat.S_ISREG(seen.st_mode):
            raise Refused(Refusal.CHANGED, 'it is no regular file by now')
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        with _refusing():
            _check(fd, inode, offset, len(data))
            with _keeping_times(fd):
                _write(fd, offset, data)
        _read_back(fd, offset, data)
    finally:
        os.close(fd)


def _check(fd: int, inode: int, offset: int, length: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_ino != inode:
        raise Refused(
            Refusal.CHANGED, 'another file has taken its place meanwhile'
        )
    if found.st_nlink != 1:
        raise Refused(
            Refusal.LINKED,
            f'it has {found.st_nlink} names, so whose file it is is not '
            'clear; remove the other hard links',
        )
    end = offset + length
    if (
        offset < 0
        or offset % pages.PAGE
        or not 0 < length <= MOST_BYTES
        or end > found.st_size
        or (end % pages.PAGE and end != found.st_size)
    ):
        raise Refused(
            Refusal.CHANGED,
            f'bytes {offset}-{end - 1} are no pages of a file of '
            f'{found.st_size} bytes',
        )


@contextlib.contextmanager
def _keeping_times(fd: int) -> Iterator[None]:
    """Put back the time of the last use, which is what mtime stands for.

    Unless somebody uses the file just now.
    """
    before = os.fstat(fd)
    written = None
    try:
        yield
        written = os.fstat(fd)
    finally:
        after = os.fstat(fd)
        # What failed in between has written some of it, or nothing.
        if written is None or written.st_mtime_ns == after.st_mtime_ns:
            with contextlib.suppress(PermissionError):
                os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _write(fd: int, offset: int, data: bytes) -> None:
    """Write, and have it on the disk."""
    whole = len(data) - len(data) % pages.PAGE
    done = 0
    if whole and pages.set_direct(fd, True):
        done = _write_direct(fd, offset, data[:whole])
        pages.set_direct(fd, False)
    if done == len(data):
        os.fdatasync(fd)
        return
    # The last page: with O_DIRECT a file can only grow there. And all of
    # it, where the file system knows no O_DIRECT.
    try:
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)
        os.fdatasync(fd)
    finally:
        # What could not be written is not to be read from memory either.
        os.posix_fadvise(fd, offset, len(data), os.POSIX_FADV_DONTNEED)


def _write_direct(fd: int, offset: int, data: bytes) -> int:
    """Write whole pages past the page cache; give how much was taken."""
    done = 0
    with mmap.mmap(-1, len(data)) as buffer:
        buffer.write(data)
        view = memoryview(buffer)
        try:
            while done < len(data) and not done % pages.PAGE:
                with view[done:] as rest:
                    done += os.pwrite(fd, rest, offset + done)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            view.release()
    return done - done % pages.PAGE


def _read_back(fd: int, offset: int, data: bytes) -> None:
    """See that the medium gives back what was written.

    :raises Refused: it does not
    """
    with _refusing(), pages.Medium(fd) as medium:
        if not medium.direct:
            os.posix_fadvise(fd, offset, len(data), os.POSIX_FADV_DONTNEED)
        found = medium.read(offset, len(data))
    if None in found:
        raise Refused(
            Refusal.MEDIUM,
            'the medium cannot read what it has just taken; replace the disk',
        )
    if pages.join(found) != data:
        raise Refused(
            Refusal.MEDIUM,
            'the medium gives back something else than it has just taken; '
            'replace the disk',
        )


def open_cache(path: str) -> int:
    """Open the directory of a cache for :func:`rewrite_base_file`.

    Whoever owns ``instances_path`` may put a symbolic link in the place of a
    part of it at any time. So links count only where root has made them:
    others would have who may write anywhere write somewhere else.

    :returns: its handle, to be closed
    :raises Refused: there is such a link on the way
    :raises OSError: as open(2)
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open('/', os.O_PATH | os.O_DIRECTORY | flags)
    todo = [*reversed(os.path.abspath(path).split(os.sep))]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name in ('', os.curdir):
                continue
            there = os.open(name, os.O_PATH | flags, dir_fd=here)
            found = os.fstat(there)
            if not stat.S_ISLNK(found.st_mode):
                os.close(here)
                here = there
                continue
            try:
                links += 1
                if found.st_uid != 0 or links > _MOST_LINKS:
                    raise Refused(
                        Refusal.NOT_PERMITTED,
                        f'{names.printable(name)} on the way to '
                        f'{names.printable(path)} is a symbolic link that is '
                        'not made by root, so nothing is written behind it '
                        'with the rights of root; see chown -h',
                    )
                target = os.readlink('', dir_fd=there)
            finally:
                os.close(there)
            if os.path.isabs(target):
                os.close(here)
                here = os.open('/', os.O_PATH | os.O_DIRECTORY | flags)
            todo += reversed(target.split(os.sep))
        return os.open('.', os.O_RDONLY | os.O_DIRECTORY | flags, dir_fd=here)
    finally:
        os.close(here)


@contextlib.contextmanager
def ending_in_time() -> Iterator[None]:
    """Have this process end by itself if what it does takes too long.

    With the rights of root nobody else may end it. One that hangs in the
    kernel does so once it comes out of there. For a process that does nothing
    else, with SIGALRM as it is by default.
    """
    signal.setitimer(signal.ITIMER_REAL, _LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def rewrite_base_file(
    directory: int, name: str, inode: int, offset: int, data: bytes
) -> None:
    """Do as :func:`rewrite` to a base file, with rights for more than that.

    :param directory: handle of the cache
    :param name: of the base file in it
    :raises Refused: also where no base file has such a name
    """
    if not names.kind_of(name).is_base:
        raise Refused(Refusal.NOT_PERMITTED, 'no base file has such a name')
    with _alone(directory):
        rewrite(name, inode, offset, data, directory)


@contextlib.contextmanager
def _alone(directory: int) -> Iterator[None]:
    """Begin nothing while an earlier write is still on its way.

    Nobody can end a process that waits in the kernel for a disk that has gone,
    and whoever has asked it waits no longer (decision 0098). So there is one
    of them, and not one for each try.

    :raises Refused: there is
    """
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(
            Refusal.HUNG,
            'an earlier write to a file of this cache has not come to its '
            'end: it has flock(2) on the directory, see lslocks; look at the '
            'log of the kernel and at the disk',
        ) from None
    except OSError:
        # NFS locks no directory; there one that hangs can be ended.
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_UN)
