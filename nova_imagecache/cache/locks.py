# SPDX-License-Identifier: Apache-2.0

"""The locks of base files, Nova's and ours, and those between managers."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import stat
import struct
import time
from typing import Any

from oslo_concurrency import lockutils

from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import qemu_locks
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
                    '[N15] The lock %(file)s cannot be released: %(error)s',
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
        gotten = lock.acquire() if blocking else _try(lock)
        return lock if gotten else None
    except (OSError, RuntimeError) as error:
        # fasteners makes a RuntimeError of what fcntl(2) answers, such as
        # ENOLCK from an NFS server without lock daemon.
        # Without a prefix it is ours, and need not be that of somebody else.
        raise _broken(file, error, ours=prefix is None) from error
    finally:
        if lock is not None and not gotten:
            _close(lock)


def _try(lock: Any) -> bool:
    """Take a lock unless somebody has it, as its ``acquire`` does.

    That makes the directory each time first: on a network a request for each
    of many locks, and by turns with all that happens beside the directory.

    :raises OSError: it cannot be had at all
    :raises RuntimeError: likewise
    """
    try:
        lock.lockfile = open(lock.path, 'a')
    except FileNotFoundError:
        return bool(lock.acquire(blocking=False))
    try:
        lock.trylock()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        # As it does: of the lock, and not of its file.
        raise RuntimeError(error.strerror) from error
    lock.acquired = True
    return True


def _broken(
    file: str, error: OSError | RuntimeError, ours: bool
) -> errors.LockBroken:
    reason = getattr(error, 'strerror', None) or error
    broken = errors.LockBroken
    code = error.errno if isinstance(error, OSError) else None
    not_for_us = ours and code in (errno.EACCES, errno.EPERM)
    if not_for_us or code == errno.EROFS:
        broken = errors.ReadOnly
    return broken(f'the lock {file} cannot be taken: {reason}')


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


# Decision 0071.
_BASE_FILES = 'base-files'

_HOST_POLL_SECONDS = 0.1

# Longer than anybody fetches an image for. A host that is lost to the storage
# may keep its locks for good.
_HOST_PATIENCE_SECONDS = 3600


def _set(fd: int, kind: int, byte: int, length: int = 1) -> bool:
    """Take or give up locks on bytes; the open file is who has them.

    :param kind: as in fcntl(2)
    :param length: 0 for all from there on
    :returns: False if somebody else has one
    :raises OSError: it cannot be done at all
    """
    wish = _FLOCK.pack(kind, os.SEEK_SET, byte, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wish)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _byte_of(name: str) -> int:
    """Give the byte that stands for a base file: one of 2**62."""
    owner = os.fsencode(names.lock_name(name))
    digest = hashlib.sha1(owner, usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) >> 2


@contextlib.contextmanager
def _base_files(layout: layouts.Layout) -> Iterator[int]:
    """Open the file whose bytes stand for the base files of a cache.

    :raises nova_imagecache.errors.LockBroken: it cannot be opened
    """
    intruder = directories.intruder(layout)
    if intruder is not None:
        raise errors.LockBroken(intruder)
    path = os.path.join(layout.own_locks, _BASE_FILES)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        for directory in (layout.own, layout.own_locks):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
        fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _broken(path, error, ours=True) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            odd = OSError(errno.EINVAL, 'Not a regular file')
            raise _broken(path, odd, ours=True)
        yield fd
    finally:
        # A child that has not come to exec(2) yet has it open too.
        with contextlib.suppress(OSError):
            _set(fd, fcntl.F_UNLCK, 0, 0)
        os.close(fd)


@contextlib.contextmanager
def remover_lock(
    layout: layouts.Layout, wanted: Iterable[str]
) -> Iterator[dict[str, errors.NotNow]]:
    """Keep all hosts from files that are about to go, or to come back.

    Nova's lock may be seen on this host alone (decision 0071). Waits for
    nobody. Where the file system has no locks, nobody is kept away, as with
    Nova.

    :param wanted: names of base files
    :returns: why some of them are not to be touched now
    """
    refused: dict[str, errors.NotNow] = {}
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(_base_files(layout))
        except errors.LockBroken as error:
            refused = dict.fromkeys(wanted, error)
        else:
            for name in wanted:
                reason = _refusal(layout, fd, name)
                if reason is not None:
                    refused[name] = reason
        yield refused


def _refusal(
    layout: layouts.Layout, fd: int, name: str
) -> errors.NotNow | None:
    """Take the lock of who removes a file, or say why it cannot be had."""
    try:
        if _set(fd, fcntl.F_WRLCK, _byte_of(name)):
            return None
        return errors.Locked(
            'it is being fetched or made into a disk, here or on another host'
        )
    except OSError as error:
        if error.errno in qemu_locks.NO_LOCKS:
            return None
        path = os.path.join(layout.own_locks, _BASE_FILES)
        return _broken(path, error, ours=True)


@contextlib.contextmanager
def user_lock(
    layout: layouts.Layout, name: str
) -> Iterator[Callable[[], None]]:
    """Keep all hosts from removing a file that is about to be used.

    And, while it is not there, from fetching it. To be taken before Nova's
    lock, by all who wait for both. Waits for the others; no guest is kept from
    being built for want of it, so what goes wrong is only logged.

    :param name: of the base file
    :returns: to be called when the file is there, so that others may use it
    """
    byte = _byte_of(name)
    with contextlib.ExitStack() as stack:
        fd = None
        try:
            fd = stack.enter_context(_base_files(layout))
            _wait_for_byte(layout, fd, name)
        except (errors.LockBroken, OSError) as error:
            LOG.debug(
                'Base file %(name)s is not locked against other hosts: '
                '%(error)s',
                {'name': name, 'error': error},
            )
        except errors.Locked as error:
            LOG.warning(
                '[N15] Base file %(name)s is used without a lock: %(error)s',
                {'name': name, 'error': error},
            )

        def share() -> None:
            if fd is not None:
                with contextlib.suppress(OSError):
                    _set(fd, fcntl.F_RDLCK, byte)

        yield share


def _is_absent(layout: layouts.Layout, name: str) -> bool:
    # NFS looks at a directory that is opened, and believes its cache less.
    with contextlib.suppress(OSError):
        with directories.opened(layout.base, follow=True):
            pass
    return identity.gone(layout.file(name))


def _wait_for_byte(layout: layouts.Layout, fd: int, name: str) -> None:
    """Have the lock of a file that is there with others, or else alone.

    fcntl(2) could wait, and would stop all green threads.

    :raises nova_imagecache.errors.Locked: it was waited for long enough
    :raises OSError: it cannot be had at all
    """
    byte = _byte_of(name)
    deadline = time.monotonic() + _HOST_PATIENCE_SECONDS
    while True:
        absent = _is_absent(layout, name)
        kind = fcntl.F_WRLCK if absent else fcntl.F_RDLCK
        if _set(fd, kind, byte) and _is_absent(layout, name) == absent:
            return
        # Whoever keeps one while he waits for more may wait for ever.
        _set(fd, fcntl.F_UNLCK, byte)
        if time.monotonic() >= deadline:
            raise errors.Locked(
                'another host has not given it up for '
                f'{_HOST_PATIENCE_SECONDS} s; find out which one hangs'
            )
        time.sleep(_HOST_POLL_SECONDS)
