# SPDX-License-Identifier: Apache-2.0

"""Removing files from the cache, and the traces of files that are gone.

Nothing goes but under its lock, after it was asked once more whether somebody
needs it, and as the very file that was judged.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import logging
import os
import time

from nova_imagecache.cache import base_file
from nova_imagecache.cache import batches
from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import trash
from nova_imagecache import errors
from nova_imagecache import host
from nova_imagecache import names

LOG = logging.getLogger(__name__)

_TEMPORARY = (names.OWN_DIRECTORY, 'tmp')

# Nothing of ours stays unpublished for so long.
_STALE_SECONDS = 3600

# Where listings take longer, what is known of a file is looked for by name.
_LISTING_SECONDS = 0.05

# For which what was known of a file outlives it: a restore takes its time, and
# so does whoever looks for a file that has gone.
_OUTLIVES_SECONDS = 24 * 3600


def remove(
    layout: layouts.Layout,
    files: Sequence[base_file.BaseFile],
    objections: batches.Objections,
    now: float,
    meanwhile: Callable[[], object] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, batches.Outcome]:
    """Move files to the trash if nothing speaks against it now.

    :param now: seconds since the epoch
    :param meanwhile: see :func:`nova_imagecache.cache.batches.work`
    :param monotonic: seconds since any moment
    :returns: what became of each
    """

    lists = True

    @contextlib.contextmanager
    def prepared() -> Iterator[batches.Act]:
        nonlocal lists
        with trash.opened(layout, make=True) as (base_fd, fd):
            began = monotonic()
            mover = trash.Mover(base_fd, fd, now)
            lists = lists and monotonic() - began < _LISTING_SECONDS
            if lists:
                mover.list_companions(layout)
                lists = monotonic() - began < _LISTING_SECONDS

            def act(file: base_file.BaseFile) -> None:
                _check(base_fd, file)
                # Decision 0042; of leftovers, decision 0074.
                mover.move(file)

            yield act

    if not files:
        return {}
    try:
        return batches.work(
            layout, files, objections, prepared, monotonic, meanwhile
        )
    finally:
        _sync(layout)


def empty(
    layout: layouts.Layout,
    files: Sequence[base_file.BaseFile],
    objections: batches.Objections,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, batches.Outcome]:
    """Delete files in the trash for good, if nothing speaks against it now.

    :param monotonic: seconds since any moment
    :returns: what became of each
    """

    @contextlib.contextmanager
    def prepared() -> Iterator[batches.Act]:
        with trash.opened(layout) as (_base_fd, fd):
            yield lambda file: trash.delete(file, fd)

    return batches.work(layout, files, objections, prepared, monotonic)


def put_back(file: base_file.BaseFile) -> base_file.BaseFile:
    """Move a file from the trash back into the cache.

    :returns: the file as it is in the cache
    :raises nova_imagecache.errors.NotNow: its lock is held, or it has gone
    :raises FileExistsError: there is another one by now
    :raises OSError: it cannot be moved
    """
    name = file.original
    with (
        locks.nova_lock(file.layout, name, blocking=False),
        locks.remover_lock(file.layout, [name]) as refused,
    ):
        if name in refused:
            raise refused[name]
        return trash.move_out(file)


def _check(base_fd: int, file: base_file.BaseFile) -> None:
    """Make sure that this is the file that was judged, and untouched.

    The last thing that is looked at (decision 0031).

    :raises nova_imagecache.errors.NotNow: it is not
    """
    base = names.sidecar_of(file.name)
    if base:
        with contextlib.suppress(FileNotFoundError):
            identity.stat_of(base, base_fd)
            raise errors.Changed('its base file is there again')
    if file.same(base_fd).modified != file.stat.modified:
        raise errors.NotNow('somebody has touched it meanwhile')


def _sync(layout: layouts.Layout) -> None:
    try:
        with directories.opened(layout.base, follow=True) as fd:
            directories.sync(fd)
    except OSError as error:
        LOG.debug('%s cannot be synced: %s', layout.base, error)


def touch(path: str, as_root: host.TouchAsRoot | None = None) -> bool:
    """Note the use of a file where Nova notes it: in its mtime.

    Refused on a file that belongs to QEMU's user, and on NFS with root
    squashed; the state remembers the use in any case.

    :param as_root: what the host lends for this
    :returns: whether that could be done
    """
    try:
        os.utime(path, follow_symlinks=False)
    except OSError as error:
        if as_root is None or not isinstance(error, PermissionError):
            return False
        # A broad net, as the function and what it raises are the host's.
        try:
            as_root(path)
        except Exception as failure:
            LOG.debug('%s is not touched: %s', path, failure)
            return False
    return True


def tidy(
    layout: layouts.Layout,
    present: Iterable[str],
    strays: Iterable[str],
    now: float | None,
    may_go: Callable[[str], bool],
    outlive: Callable[[layouts.Layout, str], None],
) -> None:
    """Remove our own traces of base files that are gone.

    A ledger stays for a day after its file was missed, and for as long as
    there is a checksum that may be of the same file.

    :param present: names of the files in the cache
    :param strays: names of what is in the trash without its file
    :param now: seconds since the epoch; None where clocks are not to be
        believed
    :param may_go: tells the ledgers that are ours to remove, by their paths;
        may raise OSError
    :param outlive: notes in a ledger that stays that its file has gone
    """
    for name in set(_list(layout.ledgers)) - set(present):
        try:
            if may_go(os.path.join(layout.ledgers, name)):
                _tidy_ledger(layout, name, now, outlive)
        except OSError as error:
            LOG.debug('%s stays: %s', layout.ledger(name), error)
    for stray in strays:
        base = names.original(os.path.splitext(stray)[0])
        with contextlib.suppress(errors.NotNow):
            with locks.nova_lock(layout, base, blocking=False):
                trash.tidy(layout, stray)
    if now is None:
        return
    try:
        with (
            directories.opened(layout.base, follow=True) as base_fd,
            directories.opened_below(base_fd, *_TEMPORARY) as fd,
        ):
            _sweep(fd, now)
    except OSError as error:
        LOG.debug('%s is not tidied: %s', layout.temporary, error)


def _sweep(fd: int, now: float) -> None:
    """Remove what was never published from a directory."""
    for name in os.listdir(fd):
        with contextlib.suppress(OSError):
            # Not the mtime, which a second name of an old file shares.
            status = os.lstat(name, dir_fd=fd)
            if now - status.st_ctime > _STALE_SECONDS:
                os.unlink(name, dir_fd=fd)


def _tidy_ledger(
    layout: layouts.Layout,
    name: str,
    now: float | None,
    outlive: Callable[[layouts.Layout, str], None],
) -> None:
    base = name.removesuffix(records.DAMAGED_SUFFIX)
    if not names.kind_of(base).is_base:
        return
    try:
        with locks.nova_lock(layout, base, blocking=False):
            path = layout.file(base)
            if not identity.gone(path):
                return
            if name == base:
                # Written anew by the first pass that misses the file.
                outlive(layout, name)
            ledger = os.path.join(layout.ledgers, name)
            since = os.lstat(ledger).st_mtime
            old = now is not None and now - since > _OUTLIVES_SECONDS
            if old and identity.gone(names.sidecar_name(path)):
                os.unlink(ledger)
    except (errors.NotNow, OSError) as error:
        LOG.debug('%s stays: %s', layout.ledger(name), error)


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
