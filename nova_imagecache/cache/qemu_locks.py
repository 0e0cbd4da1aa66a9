# SPDX-License-Identifier: Apache-2.0

"""The locks that QEMU holds on the images that it has open.

Open file description locks on single bytes, as ``raw_apply_lock_bytes`` and
``raw_check_lock_bytes`` in block/file-posix.c of QEMU have them: a shared lock
on byte 100 + n says "I use permission n", on byte 200 + n "nobody else may use
permission n". Whoever reads an image uses "consistent read", n = 0. So byte
100 tells of every reader, and a lock of ours on byte 200 keeps new ones out.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import struct
import sys
from typing import NamedTuple

from nova_imagecache.cache import identity
from nova_imagecache.cache import mounts
from nova_imagecache import children
from nova_imagecache import errors
from nova_imagecache import names

_USES_READ = 100
_FORBIDS_READ = 200
_MEANS_NOTHING = 400

#: What fcntl(2) answers on a file system without locks.
NO_LOCKS = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
)

# -P: the current directory of the service is no place to find modules in.
_PROGRAM = ('-P', '-m', 'nova_imagecache.cache.qemu_locks')
_DEADLINE_SECONDS = 10
_ANSWERS = {b'seen': True, b'unseen': False}

_REMEDY = 'have the cache on a file system that has locks'

# include/uapi/asm-generic/fcntl.h: type, whence, start, length and process,
# which has to be 0 with these locks.
_FLOCK = struct.Struct('@hhqqi')


class _NoAnswer(Exception):
    """No other process could be asked."""


def _ask(fd: int, byte: int) -> bool:
    # For a write lock: shared ones do not conflict with a shared one.
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _set(fd: int, byte: int, kind: int) -> None:
    wish = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wish)


def _share(fd: int, byte: int) -> None:
    _set(fd, byte, fcntl.F_RDLCK)


def _give_up(fd: int, byte: int) -> None:
    # On FUSE, closing the file is not enough (decision 0075).
    with contextlib.suppress(OSError):
        _set(fd, byte, fcntl.F_UNLCK)


@contextlib.contextmanager
def _shared(fd: int, byte: int) -> Iterator[None]:
    _share(fd, byte)
    try:
        yield
    finally:
        _give_up(fd, byte)


class Seen(NamedTuple):
    """What was seen of an image.

    :ivar in_use: whether a QEMU has it open
    :ivar device: number of the file system that it is on
    """

    in_use: bool
    device: int


def look(path: str) -> Seen:
    """See whether a QEMU has an image open, here or, on NFS, elsewhere.

    Not seen are those with ``locking=off``, and a migration target that is
    still waiting.

    :raises OSError: this cannot be found out
    """
    fd, seen = identity.opened_regular(path)
    try:
        return Seen(_ask(fd, _USES_READ), seen.st_dev)
    finally:
        os.close(fd)


@contextlib.contextmanager
def fence(path: str, dir_fd: int | None = None) -> Iterator[None]:
    """Keep every QEMU from opening an image, provided none has it open.

    This is for the moment in which a file is moved away or deleted, and never
    for reading it (decision 0030).

    Where there are no such locks, QEMU has none either, and none is kept out.

    :param dir_fd: of the directory that the path is relative to
    :raises nova_imagecache.errors.NotNow: one has it open
    :raises OSError: this cannot be found out
    """
    fd = identity.open_regular(path, dir_fd)
    try:
        try:
            _share(fd, _FORBIDS_READ)
            held = _ask(fd, _USES_READ)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = False
        if held:
            raise errors.NotNow('a running QEMU has it open')
        yield
    finally:
        _give_up(fd, _FORBIDS_READ)
        os.close(fd)


def why_untold(path: str) -> str | None:
    """Say why such locks do not tell who has an image open, if so.

    By how its file system is mounted, and by trying one, on a byte that means
    nothing to QEMU: where a server has a say, from another process (decision
    0075).

    :returns: a sentence, with what to do; None where they tell
    :raises OSError: this cannot be found out, or the image has gone
    """
    path = os.path.abspath(path)
    mount = mounts.of(path)
    why = None if mount is None else mounts.why_no_qemu_locks(mount)
    if why is not None:
        return why
    fd = identity.open_regular(path)
    try:
        with _shared(fd, _MEANS_NOTHING):
            if mount is not None and mounts.is_of_this_host(mount):
                seen = _sees(path)
            else:
                seen = _seen_by_another(path)
        if seen:
            return None
        if not os.path.samestat(os.fstat(fd), os.lstat(path)):
            raise FileNotFoundError(errno.ENOENT, 'It has been replaced', path)
        point = path if mount is None else mount.mountpoint
        return f'on {point}, no process sees the locks of another; {_REMEDY}'
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return f'{path} cannot be locked: {error.strerror}; {_REMEDY}'
    except _NoAnswer as error:
        return (
            f'whether they are seen on {path} cannot be told: {error}; have '
            'the service able to start its Python'
        )
    finally:
        os.close(fd)


def _sees(path: str) -> bool:
    """Whether a lock of somebody else, on the byte that is tried, is seen."""
    fd = identity.open_regular(path)
    try:
        return _ask(fd, _MEANS_NOTHING)
    finally:
        os.close(fd)


def _seen_by_another(path: str) -> bool:
    """Whether another process sees the lock of this one.

    :raises _NoAnswer: none could be asked
    """
    if not sys.executable:
        raise _NoAnswer('Python does not know its path, to start another one')
    try:
        done = children.run(
            sys.executable, *_PROGRAM, path, timeout=_DEADLINE_SECONDS
        )
    except children.TimedOut:
        raise _NoAnswer(
            f'a process that asks does not end within {_DEADLINE_SECONDS} s'
        ) from None
    except OSError as error:
        raise _NoAnswer(
            f'{sys.executable} cannot be started: {error.strerror}'
        ) from None
    answer = _ANSWERS.get(done.stdout.strip())
    if answer is not None:
        return answer
    # It cannot have seen what is not there any more.
    os.lstat(path)
    *_lines, last = [b'', *done.stderr.splitlines()]
    raise _NoAnswer(
        f'{sys.executable}, started to ask, ended with status '
        f'{done.returncode}: {names.printable(os.fsdecode(last))}'
    )


def _main(path: str) -> None:
    sys.stdout.write('seen' if _sees(path) else 'unseen')


if __name__ == '__main__':
    _main(sys.argv[1])
