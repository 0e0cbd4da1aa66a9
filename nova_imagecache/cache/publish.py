# SPDX-License-Identifier: Apache-2.0

"""Putting a file in place so that no crash leaves half of it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import os
import tempfile

from nova_imagecache.cache import directories

_MODE = 0o644


def sync_directory(path: str) -> None:
    """Make the names in a directory durable.

    :raises OSError: as fsync(2)
    """
    with directories.opened(path, follow=True) as fd:
        directories.sync(fd)


def rename(source: str, target: str) -> None:
    """Rename a complete file into place, durably.

    Write, fsync, rename, fsync of the directory: without the first sync a
    crash can leave the new name with old or no data, without the second the
    old name.

    :raises OSError: nothing was renamed, or it may not be durable
    """
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    place(source, target)


def place(source: str, target: str) -> None:
    """Rename a file into place, durably, that is on the disk already.

    :raises OSError: nothing was renamed, or it may not be durable
    """
    os.rename(source, target)
    sync_directory(os.path.dirname(target))


@contextlib.contextmanager
def prepared(
    data: bytes,
    temporary: str,
    durable: bool = True,
    prefix: str | None = None,
) -> Iterator[Callable[[str], None]]:
    """Write a small file that is yet to get its place.

    It is on the disk by then, so that no lock has to be held for that.

    :param temporary: a directory on the same file system, made when missing
    :param durable: else it need not be on the disk, and if the host crashes
        soon it may be lost, or be there with half of its data
    :param prefix: of its name until then
    :returns: puts it in the place of a path: complete, or not at all
    :raises OSError: it was not published; what was there before, if
        anything, still is
    """
    os.makedirs(temporary, exist_ok=True)
    # Not beside what it becomes (decision 0058).
    fd, scratch = tempfile.mkstemp(prefix=prefix, dir=temporary)
    try:
        with os.fdopen(fd, 'wb') as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, _MODE)
            if durable:
                # Here, and not while a lock is held.
                os.fsync(fd)
        yield functools.partial(place if durable else os.rename, scratch)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)


def publish(
    path: str, data: bytes, temporary: str, prefix: str | None = None
) -> None:
    """Write a small file, and put it in its place.

    :raises OSError: as :func:`prepared`
    """
    with prepared(data, temporary, prefix=prefix) as put:
        put(path)


def current_time(path: str) -> float:
    """Ask a file system what time it is, in seconds since the epoch.

    :param path: a directory, where a file is made for that; it takes no block
    :raises OSError: it cannot be made
    """
    with tempfile.TemporaryFile(dir=path) as file:
        # On NFS this asks the server to fill in its own time.
        os.utime(file.fileno())
        return os.fstat(file.fileno()).st_mtime
