# SPDX-License-Identifier: Apache-2.0

"""The locks of base files, which are Nova's, and the guard made of them."""

from collections.abc import Iterator
import contextlib
import errno
import functools
import os

from oslo_concurrency import lockutils

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache import names

#: As ``synchronized`` in nova/utils.py.
_NOVA_PREFIX = 'nova-'


@contextlib.contextmanager
def _lock(
    name: str,
    path: str,
    held: str,
    prefix: str | None = None,
    semaphores: lockutils.Semaphores | None = None,
    blocking: bool = False,
) -> Iterator[None]:
    file = os.path.join(path, (prefix or '') + name)
    with contextlib.ExitStack() as stack:
        try:
            # To open a FIFO would wait for somebody to read from it.
            if os.path.lexists(file) and not os.path.isfile(file):
                raise OSError(errno.EINVAL, 'Not a regular file')
            stack.enter_context(
                lockutils.lock(
                    name,
                    lock_file_prefix=prefix,
                    external=True,
                    lock_path=path,
                    do_log=False,
                    semaphores=semaphores,
                    blocking=blocking,
                )
            )
        except lockutils.AcquireLockFailedException:
            raise errors.Locked(held) from None
        except OSError as error:
            raise errors.LockBroken(
                f'the lock {file} cannot be taken: {error.strerror}'
            ) from error
        yield


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


@functools.cache
def _semaphores(path: str) -> lockutils.Semaphores:
    # Those that lockutils shares go by name alone: two caches in one process
    # would exclude each other.
    return lockutils.Semaphores()


def manager_lock(
    layout: layouts.Layout, name: str
) -> contextlib.AbstractContextManager[None]:
    """Hold a lock that only managers of this cache know, without waiting.

    :raises nova_imagecache.errors.Locked: another manager holds it
    :raises nova_imagecache.errors.LockBroken: it cannot be had at all
    """
    return _lock(
        name,
        layout.own_locks,
        'another manager is at it',
        semaphores=_semaphores(layout.own),
    )


def check_unreplaced(
    layout: layouts.Layout,
    name: str,
    incarnation: statuses.Incarnation,
) -> statuses.Status:
    """Give the status of a file, provided it is still the same file.

    :raises nova_imagecache.errors.Changed: it is not
    :raises OSError: it cannot be looked at
    """
    try:
        status = statuses.status_of(layout.file(name))
    except FileNotFoundError:
        raise errors.Changed('it has gone meanwhile') from None
    if status.incarnation != incarnation:
        raise errors.Changed('another file has taken its place meanwhile')
    return status


@contextlib.contextmanager
def guard(
    layout: layouts.Layout,
    name: str,
    incarnation: statuses.Incarnation,
) -> Iterator[statuses.Status]:
    """Hold one incarnation of a file: it, and no other, under its lock.

    Everything that changes a file, or says something of it that lasts,
    happens in here.

    :raises nova_imagecache.errors.NotNow: the lock is held, or the file at
        that name is another one now
    :raises OSError: the file cannot be looked at
    """
    with nova_lock(layout, name, blocking=False):
        yield check_unreplaced(layout, name, incarnation)
