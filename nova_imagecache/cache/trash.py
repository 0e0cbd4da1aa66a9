# SPDX-License-Identifier: Apache-2.0

"""The trash: base files that were removed, until they are deleted.

A base file ``F`` is in there as ``F.<8 hex digits>``, which are the time when
it was moved there, in seconds since the epoch. What is known of its content is
beside it, as ``F.<8 hex digits>.sha1`` and ``.ledger``. Nothing has to be
written first, so a full disk keeps nothing from being removed.

Whoever changes what is in the trash under a name holds the lock of the base
file of that name.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import os
import secrets

from oslo_log import log as logging

from nova_imagecache.cache import directory
from nova_imagecache.cache import image_locks
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

_BELOW_CACHE = (names.OWN_DIRECTORY, 'trash')


@dataclasses.dataclass(frozen=True)
class Scan:
    """Everything in the trash.

    :ivar files: the base files in it, under their names in the trash
    :ivar strays: what is known of files that are in it no more
    :ivar problems: what could not be looked at, a sentence each
    """

    files: tuple[scans.CachedFile, ...] = ()
    strays: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def original(name: str) -> str:
    """Give the name that a file in the trash had as a base file.

    :raises ValueError: no file in the trash has such a name
    """
    base = names.trashed_name(name)
    if base is None:
        raise ValueError(name)
    return base


def scan(layout: layouts.Layout) -> Scan:
    """List the trash. A missing directory is an empty trash."""
    try:
        found = os.listdir(layout.trash)
    except FileNotFoundError:
        return Scan()
    except OSError as error:
        return Scan(problems=(f'{layout.trash}: {error.strerror}',))
    files = []
    problems = []
    for name in sorted(filter(names.trashed_name, found)):
        try:
            status = statuses.status_of(layout.file(name))
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f'{layout.file(name)}: {error.strerror}')
            continue
        if status.regular:
            kind = names.kind_of(original(name))
            files.append(scans.CachedFile(name, kind, status))
    present = set(found)
    strays = [
        name
        for name in found
        if names.trashed_name(owner := os.path.splitext(name)[0])
        and os.path.join(layout.trash, name) in _records(layout, owner)
        and owner not in present
    ]
    return Scan(tuple(files), tuple(strays), tuple(problems))


def _records(layout: layouts.Layout, name: str) -> tuple[str, str]:
    """Say where what is known of a base file is: checksum and ledger."""
    return names.sidecar_name(layout.file(name)), layout.ledger(name)


def _copy(layout: layouts.Layout, source: str, target: str) -> bool:
    """Give a small file a second name, so that no crash can lose it.

    :returns: whether it has one; if not, :func:`_carry` moves it
    """
    if not os.path.isfile(source) or os.path.islink(source):
        return False
    scratch = os.path.join(layout.temporary, secrets.token_hex(8))
    try:
        os.makedirs(layout.temporary, exist_ok=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(source, scratch, follow_symlinks=False)
        except OSError:
            # Not every file system has hard links.
            with open(source, 'rb') as file:
                publish.publish(target, file.read(), layout.temporary)
        else:
            os.rename(scratch, target)
        return True
    except OSError as error:
        LOG.debug('%s is not copied to %s: %s', source, target, error)
        return False
    finally:
        # Still there if both were names of the same file.
        with contextlib.suppress(OSError):
            os.unlink(scratch)


def _carry(moves: Iterable[tuple[str, str, bool]]) -> None:
    """Take away the first names of what has been copied, or move it now.

    The first one that cannot be ends it: a checksum without the ledger that
    knows it would be compared with the next file of this name.

    :param moves: first name, second name, and whether it has that already
    """
    for source, target, copied in moves:
        try:
            if os.path.isdir(source) and not os.path.islink(source):
                raise IsADirectoryError(
                    errno.EISDIR, os.strerror(errno.EISDIR)
                )
            if copied:
                os.unlink(source)
            else:
                os.replace(source, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            LOG.warning(
                '%(source)s, which tells of a base file, cannot be moved to '
                '%(target)s: %(error)s',
                {'source': source, 'target': target, 'error': error.strerror},
            )
            return


def _discard(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            LOG.warning('%s cannot be removed: %s', path, error.strerror)


def move_in(
    layout: layouts.Layout, base_fd: int, name: str, now: float
) -> str:
    """Move a base file to the trash.

    The caller holds its lock, and has checked that it may go. What is known
    of it gets a second name first and loses the first one last, so a crash in
    between loses nothing.

    :param base_fd: handle of the cache directory
    :param now: seconds since the epoch
    :returns: its name there
    :raises nova_imagecache.errors.NotNow: a QEMU has it open
    :raises FileExistsError: it is there already, moved in the same second
    :raises OSError: it cannot be moved
    """
    trashed = names.trash_name(name, now)
    records = _records(layout, name)
    companions = _records(layout, trashed)
    with directory.opened_below(base_fd, *_BELOW_CACHE, make=True) as fd:
        # The companions there would be those of another file.
        with contextlib.suppress(FileNotFoundError):
            statuses.status_of(trashed, fd)
            raise FileExistsError(
                errno.EEXIST, 'Another one was moved to the trash just now'
            )
        try:
            moves = [
                (source, target, _copy(layout, source, target))
                for source, target in zip(records, companions, strict=True)
            ]
            with image_locks.fence(name, base_fd):
                directory.rename(base_fd, name, fd, trashed)
        except BaseException:
            _discard(*companions)
            raise
        _carry(moves)
    return trashed


def move_out(
    layout: layouts.Layout, file: scans.CachedFile
) -> scans.CachedFile:
    """Move a file from the trash back into the cache; with what is known.

    The caller holds its lock.

    :returns: the file as it is in the cache
    :raises nova_imagecache.errors.Changed: it is not there any more
    :raises FileExistsError: there is another one by now
    :raises OSError: it cannot be moved
    """
    name = original(file.name)
    with (
        directory.opened(layout.base, follow=True) as base_fd,
        _opened_trash(base_fd) as fd,
    ):
        _check(fd, file)
        records = _records(layout, name)
        companions = _records(layout, file.name)
        # What is known is of no use without the file, but does no harm; the
        # file without it would count as one that has lost it.
        there = os.path.lexists(layout.file(name))
        moves = [
            (source, target, not there and _copy(layout, source, target))
            for source, target in zip(companions, records, strict=True)
        ]
        directory.rename(fd, file.name, base_fd, name)
        _carry(moves)
        # It is back, whatever comes of this.
        try:
            directory.sync(base_fd)
            status = statuses.status_of(name, base_fd)
        except OSError as error:
            LOG.debug('%s cannot be synced: %s', layout.base, error)
            status = file.status
    return scans.CachedFile(name, file.kind, status)


def delete(layout: layouts.Layout, file: scans.CachedFile) -> None:
    """Delete a file in the trash, for good.

    The caller holds its lock, and has checked that it may go.

    :raises nova_imagecache.errors.NotNow: a QEMU has it open, or it is
        another file
    :raises OSError: it cannot be deleted
    """
    with (
        directory.opened(layout.base, follow=True) as base_fd,
        _opened_trash(base_fd) as fd,
    ):
        _check(fd, file)
        with image_locks.fence(file.name, fd):
            os.unlink(file.name, dir_fd=fd)
    _discard(*_records(layout, file.name))


@contextlib.contextmanager
def _opened_trash(base_fd: int) -> Iterator[int]:
    try:
        with directory.opened_below(base_fd, *_BELOW_CACHE) as fd:
            yield fd
    except FileNotFoundError:
        raise errors.Changed('it has gone meanwhile') from None


def _check(fd: int, file: scans.CachedFile) -> None:
    status = statuses.status_of(file.name, fd, fresh=True)
    if status.incarnation != file.status.incarnation:
        raise errors.Changed('another file has taken its place meanwhile')


def tidy(layout: layouts.Layout, stray: str) -> None:
    """Remove what is known of a file that is in the trash no more.

    The caller holds the lock of its base file.
    """
    owner = os.path.splitext(stray)[0]
    if statuses.gone(layout.file(owner)):
        _discard(os.path.join(layout.trash, stray))
