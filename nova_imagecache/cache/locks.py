# SPDX-License-Identifier: Apache-2.0

"""The locks of base files, which are Nova's, and those between managers."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import struct
import time
from typing import Any

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

_POLL_SECONDS = 0.01

#: As ``synchronized`` in nova/utils.py.
_NOVA_PREFIX = 'nova-'


@contextlib.contextmanager
def _lock(
    name: str,
    path: str,
    held: str,
    prefix: str | None = None,
    own: bool = False,
    blocking: bool = False,
) -> Iterator[None]:
    file = os.path.join(path, (prefix or '') + name)
    with contextlib.ExitStack() as stack:
        try:
            # The two halves of lockutils.lock(), one by one (decision 0033).
            stack.enter_context(
                lockutils.internal_lock(
                    os.path.realpath(file) if own else name,
                    _SEMAPHORES if own else None,
                    blocking=blocking,
                )
            )
        except lockutils.AcquireLockFailedException:
            raise errors.Locked(held) from None
        lock = _acquire(name, path, file, prefix, blocking)
        if lock is None:
            raise errors.Locked(held)
        try:
            yield
        finally:
            try:
                lock.release()
            except (OSError, RuntimeError) as error:
                LOG.warning(
                    'The lock %(file)s cannot be released: %(error)s',
                    {'file': file, 'error': error},
                )
                # That drops it in any case.
                _close(lock)


def _acquire(
    name: str, path: str, file: str, prefix: str | None, blocking: bool
) -> Any:
    """Take the half of a lock that other processes see.

    The caller holds the other half. fasteners leaves the file open when it
    does not get the lock, so it is closed here.

    :returns: None if somebody else has it
    """
    lock = None
    gotten = False
    try:
        # To open a FIFO would wait for somebody to read from it.
        if os.path.lexists(file) and not os.path.isfile(file):
            raise OSError(errno.EINVAL, 'Not a regular file')
        lock = lockutils.external_lock(name, prefix, path)
        gotten = lock.acquire(blocking=blocking)
        return lock if gotten else None
    except (OSError, RuntimeError) as error:
        # fasteners makes a RuntimeError of what fcntl(2) answers, such as
        # ENOLCK from an NFS server without lock daemon.
        reason = getattr(error, 'strerror', None) or error
        broken = errors.LockBroken
        code = error.errno if isinstance(error, OSError) else None
        # Without a prefix it is ours, and need not be that of somebody else.
        ours = prefix is None and code in (errno.EACCES, errno.EPERM)
        if ours or code == errno.EROFS:
            broken = errors.ReadOnly
        raise broken(f'the lock {file} cannot be taken: {reason}') from error
    finally:
        if lock is not None and not gotten:
            _close(lock)


def _close(lock: Any) -> None:
    with contextlib.suppress(OSError):
        if lock.lockfile is not None:
            lock.lockfile.close()


def nova_lock(
    layout: layouts.Layout, name: str, blocking: bool
) -> contextlib.AbstractContextManager[None]:
    """Hold the lock that Nova takes to fetch, copy or remove a file.

    Exactly Nova's, with the half of it that works within the process. The
    lock file stays: unlinking it, even under the lock, hands two processes
    "the same" lock.

    :param name: a file in the cache; leftovers share their base file's lock
    :param blocking: whether to wait. Nova holds the lock for a whole
        download, so a pass never does.
    :raises nova_imagecache.errors.Locked: it is held
    :raises nova_imagecache.errors.LockBroken: it cannot be had at all
    """
    return _lock(
        names.lock_name(name),
        layout.locks,
        'its lock is held, so it is in use',
        prefix=_NOVA_PREFIX,
        blocking=blocking,
    )


# By path: those that lockutils shares go by name alone, so two caches in one
# process would exclude each other.
_SEMAPHORES = lockutils.Semaphores()


@contextlib.contextmanager
def manager_lock(
    layout: layouts.Layout, name: str, patience: float = 0
) -> Iterator[None]:
    """Hold a lock that only managers of this cache know.

    :param patience: for how many seconds to wait for it. Some are held for
        milliseconds only, and then giving up at once loses more.
    :raises nova_imagecache.errors.Locked: another manager holds it
    :raises nova_imagecache.errors.LockBroken: it cannot be had at all
    """
    intruder = directories.intruder(layout)
    if intruder is not None:
        raise errors.LockBroken(intruder)
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(
                    _lock(
                        name,
                        layout.own_locks,
                        'another manager is at it',
                        own=True,
                    )
                )
                break
            except errors.Locked:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        yield


# include/uapi/asm-generic/fcntl.h: type, whence, start, length and process.
_FLOCK = struct.Struct('@hhqqi')


def manager_lock_held(layout: layouts.Layout, name: str) -> bool:
    """Ask for a lock between managers without taking it.

    Taking it would make others fail (decision 0021), and closing the file
    would give up a lock that this process holds.
    """
    with contextlib.ExitStack() as stack:
        # In this process somebody may hold it. Then it is not to be opened.
        path = os.path.join(layout.own_locks, name)
        semaphore = _SEMAPHORES.get(os.path.realpath(path))
        if not semaphore.acquire(blocking=False):
            return True
        stack.callback(semaphore.release)
        return _held_elsewhere(path)


def _held_elsewhere(path: str) -> bool:
    try:
        fd = identity.open_regular(path)
    except OSError:
        return False
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, question)
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
