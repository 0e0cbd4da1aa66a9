# SPDX-License-Identifier: Apache-2.0

"""Writing with rights that this process has not: a child that keeps them.

A base file belongs to QEMU's user. Whoever repairs one reads records, runs
qemu-img and ssh, and talks to others, and needs no rights for any of that. So
a process of its own has them, and it does one thing: what it is asked for goes
to :func:`nova_imagecache.heal.writer.rewrite_base_file`.

A request is a line of JSON and the data, the answer a line of JSON.
"""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import time
from typing import Any
from typing import BinaryIO

from nova_imagecache import children
from nova_imagecache import errors
from nova_imagecache.heal import writer

_LINE = 4096
# So that the answer, with its escapes, is no longer than a line.
_MESSAGE = 500

# A write that takes longer is one to a disk that has gone.
_ANSWER_SECONDS = 300

# For which one that was told to end may take to do so.
_END_SECONDS = 10
_POLL_SECONDS = 0.01


class Remote:
    """Asks the process at the other end of a socket to write.

    Called as :func:`nova_imagecache.heal.writer.rewrite`.
    """

    def __init__(
        self, end: socket.socket, reap: Callable[[], object] = lambda: None
    ) -> None:
        """Take the socket over.

        :param reap: has the process at its other end be gone, once the socket
            is closed
        """
        self._end = end
        self._reap = reap
        self._end.settimeout(_ANSWER_SECONDS)
        self._stream = end.makefile('rwb')
        self._broken = False

    def __call__(
        self, path: str, inode: int, offset: int, data: bytes
    ) -> None:
        """Write, as :func:`nova_imagecache.heal.writer.rewrite`.

        Only the name of the file goes there: in which cache, that process
        knows.

        :raises nova_imagecache.heal.writer.Refused: it did not
        """
        refusal, message = self._request(path, inode, offset, data)
        if refusal is not None:
            raise writer.Refused(refusal, message)

    def prepare(self, path: str, inode: int) -> None:
        """See that the other process is there, and can do what it is for.

        Asked to write nothing, it refuses that, but as the one who would.

        :raises nova_imagecache.heal.writer.Refused: it is not, or cannot
        """
        refusal, message = self._request(path, inode, 0, b'')
        if refusal is writer.Refusal.NOT_PERMITTED:
            raise writer.Refused(refusal, message)

    def _request(
        self, path: str, inode: int, offset: int, data: bytes
    ) -> tuple[writer.Refusal | None, str]:
        request = {
            'name': os.path.basename(path),
            'inode': inode,
            'offset': offset,
            'length': len(data),
        }
        try:
            return self._ask(request, data)
        except (OSError, ValueError, LookupError, TypeError) as error:
            # What it says next would be of this request.
            self._broken = True
            raise writer.Refused(
                writer.Refusal.FAILED,
                'the process that may write is gone; see its standard error '
                'output',
            ) from error

    def _ask(
        self, request: dict[str, object], data: bytes
    ) -> tuple[writer.Refusal | None, str]:
        if self._broken:
            raise ValueError('it has failed before')
        self._stream.write(json.dumps(request).encode() + b'\n' + data)
        self._stream.flush()
        answer = json.loads(self._stream.readline(_LINE))
        refusal = answer['refusal']
        return (
            None if refusal is None else writer.Refusal(refusal),
            str(answer['message']),
        )

    def close(self) -> None:
        """Let the other process end, and see that it does."""
        # What it was not sent, as it is gone, it need not be sent now.
        with contextlib.suppress(OSError):
            self._stream.close()
        self._end.close()
        self._reap()


class Lent:
    """Writes by itself if it may, and else has a command of the host do it.

    Called as :func:`nova_imagecache.heal.writer.rewrite`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start nothing yet.

        :param command: starts a process that calls :func:`serve` on its
            standard input, which is a socket; empty where the host has none
        """
        self._command = (*command,)
        self._remote: Remote | None = None

    def __call__(
        self, path: str, inode: int, offset: int, data: bytes
    ) -> None:
        """Write, as :func:`nova_imagecache.heal.writer.rewrite`."""
        try:
            writer.rewrite(path, inode, offset, data)
        except writer.Refused as error:
            self._lent(error)(path, inode, offset, data)

    def prepare(self, path: str, inode: int) -> None:
        """Start the command, if it is going to be needed."""
        try:
            writer.rewrite(path, inode, 0, b'')
        except writer.Refused as error:
            if error.refusal is writer.Refusal.NOT_PERMITTED:
                self._lent(error).prepare(path, inode)

    def _lent(self, error: writer.Refused) -> Remote:
        """Give who may write, where we may not.

        :param error: why we do not; raised where that is no question of rights
        """
        refused = error.refusal is writer.Refusal.NOT_PERMITTED
        if not refused or not self._command:
            raise error
        if self._remote is None:
            self._remote = _spawn(self._command)
        return self._remote

    def close(self) -> None:
        """Let the other process end, if there is one."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None


def _spawn(command: Sequence[str]) -> Remote:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            started = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd='/',
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        raise writer.Refused(
            writer.Refusal.NOT_PERMITTED,
            f'{command[0]} cannot be run: {error.strerror}',
        ) from error

    def reap() -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(_END_SECONDS)
        children.end(started)

    return Remote(ours, reap)


def serve(stream: Any, write: Any) -> None:
    """Answer requests until the other end is closed.

    :param stream: binary, for reading and writing
    :param write: called with name, inode, offset and data; raises
        :class:`nova_imagecache.heal.writer.Refused`
    """
    while line := stream.readline(_LINE):
        try:
            request = json.loads(line)
            name, inode = str(request['name']), int(request['inode'])
            offset, length = int(request['offset']), int(request['length'])
        except (ValueError, TypeError, KeyError):
            return
        if not 0 <= length <= writer.MOST_BYTES:
            return
        data = _read(stream, length)
        if len(data) != length:
            return
        answer: dict[str, str | None] = {'refusal': None, 'message': ''}
        try:
            write(name, inode, offset, data)
        except writer.Refused as error:
            message = str(error)[:_MESSAGE]
            answer = {'refusal': str(error.refusal), 'message': message}
        stream.write(json.dumps(answer).encode() + b'\n')
        stream.flush()


def _read(stream: BinaryIO, length: int) -> bytes:
    parts = []
    while length and (part := stream.read(length)):
        parts.append(part)
        length -= len(part)
    return b''.join(parts)


def fork(base: str) -> Remote:
    """Keep the rights of this process in a child, to write base files with.

    To be called before they are given up, and before there are threads.

    :param base: the cache
    :raises nova_imagecache.errors.Error: there is none, or no child
    :raises nova_imagecache.heal.writer.Refused: as
        :func:`nova_imagecache.heal.writer.open_cache`
    """
    try:
        directory = writer.open_cache(base)
        ours, theirs = socket.socketpair()
        child = os.fork()
    except OSError as error:
        raise errors.Error(f'{base}: {error.strerror}') from error
    if child == 0:
        status = 1
        # Nothing of the parent's is to be run, such as what it does at exit.
        with contextlib.suppress(BaseException):
            # What a person interrupts is the parent, which closes the socket.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ours.close()

            def write(name: str, inode: int, offset: int, data: bytes) -> None:
                writer.rewrite_base_file(directory, name, inode, offset, data)

            with theirs.makefile('rwb') as stream:
                serve(stream, write)
            status = 0
        os._exit(status)
    theirs.close()
    os.close(directory)
    return Remote(ours, functools.partial(_reap, child))


def _reap(child: int) -> None:
    """Wait for a process that has been told to end, but not for ever.

    One that writes to a disk that has gone cannot be ended by anybody; and it
    is root's still, and we may not be.
    """
    deadline = time.monotonic() + _END_SECONDS
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                with contextlib.suppress(PermissionError):
                    os.kill(child, signal.SIGKILL)
                return
            time.sleep(_POLL_SECONDS)
