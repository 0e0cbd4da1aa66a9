# SPDX-License-Identifier: Apache-2.0

"""The file for the textfile collector of node_exporter."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import time

from nova_imagecache.cache import directories
from nova_imagecache.cache import publish
from nova_imagecache import errors
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import metrics

# To read small records and to write one file takes less.
_PATIENCE_SECONDS = 5
_POLL_SECONDS = 0.01

_pause = time.sleep


def write(path: str, gather: exposition.Gather) -> metrics.Facts:
    """Write all metrics to a file that others read, complete or not at all.

    The directory has to be there. What is not complete yet does not end in
    ``.prom``, so node_exporter does not read it. Of some that write it at the
    same time, the one whose facts are the latest is the last.

    :param gather: reads what is known now
    :returns: what was read
    :raises nova_imagecache.errors.Error: ``prometheus_client`` is missing, or
        the directory is
    :raises OSError: it was not written
    """
    directory = os.path.dirname(path)
    # Before anybody is made to wait for it.
    exposition.client()
    if not os.path.isdir(directory):
        raise errors.Error(f'there is no directory {directory}; make it')
    # Of whatever is not in its place yet.
    prefix = f'.{os.path.basename(path)}-'
    with _turn(directory) as alone:
        if alone:
            _clear(directory, prefix)
        facts = gather()
        publish.publish(path, exposition.text(facts), directory, prefix)
    return facts


def _clear(directory: str, prefix: str) -> None:
    """Remove what was left by one that was killed, in a directory of others.

    :raises OSError: it stays
    """
    for name in os.listdir(directory):
        if name.startswith(prefix):
            os.unlink(os.path.join(directory, name))


@contextlib.contextmanager
def _turn(directory: str) -> Iterator[bool]:
    """Have all that write to a directory do so one by one.

    The lock is on the directory itself: it leaves no file there, is that of
    this host alone, and goes with whoever had it. One that was stopped in the
    midst keeps nobody from being told of, and neither does a file system
    without such locks.

    :returns: whether nobody else writes there meanwhile
    """
    alone = False
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = stack.enter_context(
                directories.opened(directory, follow=True)
            )
            alone = _locked(fd)
            if alone:
                # A child that was forked meanwhile has it open too.
                stack.callback(fcntl.flock, fd, fcntl.LOCK_UN)
        yield alone


def _locked(fd: int) -> bool:
    """Take the lock of a directory; give up where it takes too long.

    :raises OSError: it cannot be had at all
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            _pause(_POLL_SECONDS)
        else:
            return True
