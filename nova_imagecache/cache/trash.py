# SPDX-License-Identifier: Apache-2.0

"""The trash: base files and leftovers that were removed, until deleted.

A file ``F`` is in there as ``F.<8 hex digits>``, which are the time when it
was moved there, in seconds since the epoch. What is known of the content of a
base file is beside it, as ``F.<8 hex digits>.sha1`` and ``.ledger``.

Whoever changes what is in the trash under a name holds the lock of the base
file of that name.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import logging
import os
import secrets

import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import qemu_locks
from nova_imagecache import codes
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

# What is beside a file in here, by what its name has in addition.
_COMPANIONS = (names.SIDECAR_SUFFIX, '.ledger')

_BELOW_CACHE = (names.OWN_DIRECTORY, 'trash')


@dataclasses.dataclass(frozen=True)
class Scan:
    """Everything in the trash.

    :ivar files: those in it, under their names in the trash
    :ivar strays: what is known of files that are in it no more
    :ivar problems: what could not be looked at, a sentence each
    """

    files: tuple[base_file.BaseFile, ...] = ()
    strays: tuple[str, ...] = ()
    problems: tuple[codes.Problem, ...] = ()


def _unlisted(path: str, error: OSError) -> codes.Problem:
    return codes.Problem(
        codes.Code.UNLISTED, f'{path}: {error.strerror}', path
    )


def moved(file: base_file.BaseFile, now: float) -> base_file.BaseFile:
    """Give a file of the cache as it is once it was moved to the trash.

    :param now: when that was, in seconds since the epoch
    """
    return msgspec.structs.replace(
        file, name=names.trash_name(file.name, now), trashed=True
    )


def scan(
    layout: layouts.Layout, seen: Iterable[base_file.BaseFile] = ()
) -> Scan:
    """List the trash. A missing directory is an empty trash.

    :param seen: files that are known; those that are there still are not
        looked at again, as nobody moves another one to such a name
    """
    try:
        found = os.listdir(layout.trash)
    except FileNotFoundError:
        return Scan()
    except OSError as error:
        return Scan(problems=(_unlisted(layout.trash, error),))
    present = set(found)
    files = [file for file in seen if file.name in present]
    problems = []
    known = {file.name for file in files}
    wanted = [
        name
        for name in sorted(found)
        if name not in known and names.trashed_name(name)
    ]
    for name, file in base_file.BaseFile.all_named(layout, wanted, True):
        if isinstance(file, FileNotFoundError):
            continue
        if isinstance(file, OSError):
            path = layout.file(name, trashed=True)
            problems.append(_unlisted(path, file))
        elif file.stat.regular:
            files.append(file)
    strays = [
        name
        for name in found
        if (base := names.trashed_name(owner := os.path.splitext(name)[0]))
        and names.kind_of(base).is_base
        and name.removeprefix(owner) in _COMPANIONS
        and owner not in present
    ]
    return Scan(tuple(files), tuple(strays), tuple(problems))


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
                '[P12] %(source)s, which tells of a base file, cannot be '
                'moved to '
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
            LOG.warning('[P12] %s cannot be removed: %s', path, error.strerror)


def _names_in(directory: str | int) -> frozenset[str] | None:
    """List a directory; None where nobody can tell what is in there."""
    try:
        return frozenset(os.listdir(directory))
    except FileNotFoundError:
        return frozenset()
    except OSError:
        return None


class Mover:
    """Moves files of a cache to its trash, whose locks the caller holds.

    And took before this was made: none of them comes to the trash by another
    hand then, so one look at what is in there does for all (decision 0047).
    """

    def __init__(self, base_fd: int, fd: int, now: float) -> None:
        """See what is in the trash.

        :param base_fd: handle of the cache directory
        :param fd: handle of the trash
        :param now: seconds since the epoch
        :raises OSError: it cannot be listed
        """
        self._base_fd = base_fd
        self._fd = fd
        self._now = now
        self._taken = frozenset(os.listdir(fd))
        # What is there, by directory.
        self._listed: dict[str, frozenset[str] | None] = {}
        # To ask where that cannot be done is a request for each.
        self._at_once = True

    def list_companions(self, layout: layouts.Layout) -> None:
        """See of which files something is known, under these locks too.

        Without this, that is looked for by name (decision 0044).
        """
        self._listed = {
            layout.base: _names_in(self._base_fd),
            layout.ledgers: _names_in(layout.ledgers),
        }

    def move(self, file: base_file.BaseFile) -> str:
        """Move a file to the trash; the caller has checked that it may go.

        What is known of it has two names for a moment (decision 0044).

        :returns: its name there
        :raises nova_imagecache.errors.NotNow: a QEMU has it open
        :raises FileExistsError: it is there already, moved in the same second
        :raises OSError: it cannot be moved
        """
        there = moved(file, self._now)
        trashed = there.name
        # The companions there would be those of another file.
        if trashed in self._taken:
            raise FileExistsError(
                errno.EEXIST, 'Another one was moved to the trash just now'
            )
        try:
            moves = [
                (source, target, _copy(file.layout, source, target))
                for source, target in zip(
                    file.companions, there.companions, strict=True
                )
                if self._is_there(source)
            ]
            with qemu_locks.fence(file.name, self._base_fd):
                self._rename(file.name, trashed)
        except BaseException:
            _discard(*there.companions)
            raise
        _carry(moves)
        return trashed

    def _is_there(self, path: str) -> bool:
        directory, _slash, name = path.rpartition(os.sep)
        listed = self._listed.get(directory)
        return (listed is None or name in listed) and not identity.gone(path)

    def _rename(self, source: str, target: str) -> None:
        if self._at_once:
            if directories.rename_at_once(
                self._base_fd, source, self._fd, target
            ):
                return
            self._at_once = False
        os.rename(
            source, target, src_dir_fd=self._base_fd, dst_dir_fd=self._fd
        )


def move_out(file: base_file.BaseFile) -> base_file.BaseFile:
    """Move a file from the trash back into the cache; with what is known.

    The caller holds its lock.

    :returns: the file as it is in the cache
    :raises nova_imagecache.errors.Changed: it is not there any more
    :raises FileExistsError: there is another one by now
    :raises OSError: it cannot be moved
    """
    back = msgspec.structs.replace(file, name=file.original, trashed=False)
    with opened(file.layout) as (base_fd, fd):
        file.same(fd)
        # As in Mover.move, but not onto what is known of another file.
        taken = os.path.lexists(back.path)
        moves = [
            (source, target, not taken and _copy(file.layout, source, target))
            for source, target in zip(
                file.companions, back.companions, strict=True
            )
        ]
        directories.rename(fd, file.name, base_fd, back.name)
        _carry(moves)
        # It is back, whatever comes of this.
        try:
            directories.sync(base_fd)
            stat = identity.stat_of(back.name, base_fd)
        except OSError as error:
            LOG.debug('%s cannot be synced: %s', file.layout.base, error)
            return back
    return msgspec.structs.replace(back, stat=stat)


def delete(file: base_file.BaseFile, fd: int | None = None) -> None:
    """Delete a file in the trash, for good.

    The caller holds its lock, and has checked that it may go.

    :param fd: handle of the trash, of whoever deletes many
    :raises nova_imagecache.errors.NotNow: a QEMU has it open, or it is
        another file
    :raises OSError: it cannot be deleted
    """
    with contextlib.ExitStack() as stack:
        if fd is None:
            _base_fd, fd = stack.enter_context(opened(file.layout))
        file.same(fd)
        with qemu_locks.fence(file.name, fd):
            os.unlink(file.name, dir_fd=fd)
    _discard(*file.companions)


@contextlib.contextmanager
def opened(
    layout: layouts.Layout, make: bool = False
) -> Iterator[tuple[int, int]]:
    """Give handles of the cache and of its trash.

    :param make: whether to make the trash where it is missing
    :raises nova_imagecache.errors.Changed: one is missing
    :raises OSError: one cannot be opened
    """
    try:
        with (
            directories.opened(layout.base, follow=True) as base_fd,
            directories.opened_below(base_fd, *_BELOW_CACHE, make=make) as fd,
        ):
            yield base_fd, fd
    except FileNotFoundError:
        raise errors.Changed('it has gone meanwhile') from None


def tidy(layout: layouts.Layout, stray: str) -> None:
    """Remove what is known of a file that is in the trash no more.

    The caller holds the lock of its base file.
    """
    owner = os.path.splitext(stray)[0]
    if identity.gone(layout.file(owner, trashed=True)):
        _discard(os.path.join(layout.trash, stray))
