# SPDX-License-Identifier: Apache-2.0

"""Removing files from the cache, and the traces of files that are gone."""

from collections.abc import Callable
from collections.abc import Iterable
import contextlib
import os

from oslo_log import log as logging

from nova_imagecache.cache import image_locks
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

# Nothing of ours stays unpublished for so long.
_STALE_SECONDS = 3600


def _forget(layout: layouts.Layout, name: str) -> None:
    """Remove what belongs to a base file that is gone, under its lock."""
    path = layout.file(name)
    for trace in (names.sidecar_name(path), layout.ledger(name)):
        try:
            os.unlink(trace)
        except FileNotFoundError:
            continue
        except OSError as error:
            LOG.warning(
                'Base file %(path)s is removed, but not %(trace)s: %(error)s',
                {'path': path, 'trace': trace, 'error': error.strerror},
            )


def remove(
    layout: layouts.Layout,
    file: scan.CachedFile,
    objection: Callable[[], str | None],
) -> None:
    """Remove one file, with its checksum, if nothing speaks against it now.

    The base file goes first: a crash in between leaves a checksum without a
    file, which is a leftover, and never the other way round.

    :param objection: asked under the lock for a reason to keep the file
    :raises nova_imagecache.errors.NotNow: it stays, and why
    :raises OSError: it cannot be removed
    """
    incarnation = file.status.incarnation
    with locks.guard(layout, file.name, incarnation):
        reason = objection()
        if reason is not None:
            raise errors.NotNow(reason)
        path = layout.file(file.name)
        if names.sidecar_of(file.name) and not statuses.gone(
            layout.file(names.lock_name(file.name))
        ):
            raise errors.Changed('its base file is there again')
        # Asking takes time, in which Nova may have touched the file.
        status = locks.check_unreplaced(layout, file.name, incarnation)
        if status.modified != file.status.modified:
            raise errors.NotNow('somebody has touched it meanwhile')
        if not file.kind.is_base:
            os.unlink(path)
            return
        with image_locks.fence(path):
            os.unlink(path)
        _forget(layout, file.name)


def touch(layout: layouts.Layout, file: scan.CachedFile) -> None:
    """Note the use of a file where Nova notes it: in its mtime.

    Refused on a file that belongs to QEMU's user, and on NFS with root
    squashed; the state remembers the use in any case.
    """
    with contextlib.suppress(OSError):
        os.utime(layout.file(file.name), follow_symlinks=False)


def tidy(layout: layouts.Layout, present: Iterable[str], now: float) -> None:
    """Remove our own traces of base files that others have removed.

    :param present: names of the files in the cache
    :param now: seconds since the epoch
    """
    for name in set(_list(layout.ledgers)) - set(present):
        _tidy_ledger(layout, name)
    for name in _list(layout.temporary):
        path = os.path.join(layout.temporary, name)
        try:
            if now - os.lstat(path).st_mtime > _STALE_SECONDS:
                os.unlink(path)
        except OSError as error:
            LOG.debug('%s stays: %s', path, error)


def _tidy_ledger(layout: layouts.Layout, name: str) -> None:
    base = name.removesuffix(records.DAMAGED_SUFFIX)
    if not names.kind_of(base).is_base:
        return
    try:
        with locks.nova_lock(layout, base, blocking=False):
            if statuses.gone(layout.file(base)):
                os.unlink(layout.ledger(name))
    except (errors.NotNow, OSError) as error:
        LOG.debug('%s stays: %s', layout.ledger(name), error)


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
