# SPDX-License-Identifier: Apache-2.0

"""Writing with rights that this process has not: a child that keeps them.

A base file belongs to QEMU's user. Whoever repairs one reads records, runs
qemu-img and ssh, and talks to others, and needs no rights for any of that. So
a process of its own has them, and it does one thing: what it is asked for goes
to :func:`nova_imagecache.heal.writer.rewrite_base_file`.

A request is a line of JSON and the data, the answer a line of JSON.
"""

from collections.abc import Sequence
import contextlib
import json
import os
import signal
import socket
import subprocess
from typing import Any
from typing import BinaryIO

from nova_imagecache import errors
from nova_imagecache.heal import writer

_LINE = 4096
# So that the answer, with its escapes, is no longer than a line.
_MESSAGE = 500

# A write that takes longer is one to a disk that has gone.
_ANSWER_SECONDS = 300


class Remote:
    """Asks the process at the other end of a socket to write.

    Called as :func:`nova_imagecache.heal.writer.rewrite`.
    """

    def __init__(self, end: socket.socket, child: int | None = None) -> None:
        """Take the socket over.

        :param child: the process at its other end, if that is to be reaped
        """
        self._end = end
        self._child = child
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
        request = {
            'name': os.path.basename(path),
            'inode': inode,
            'offset': offset,
            'length': len(data),
        }
        try:
            refusal, message = self._ask(request, data)
        except (OSError, ValueError, LookupError, TypeError) as error:
            # What it says next would be of this request.
            self._broken = True
            raise writer.Refused(
                writer.Refusal.FAILED,
                'the process that may write is gone; see its standard error '
                'output',
            ) from error
        if refusal is not None:
            raise writer.Refused(refusal, message)

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
        """Let the other process end, and wait for that."""
        # What it was not sent, as it is gone, it need not be sent now.
        with contextlib.suppress(OSError):
            self._stream.close()
        self._end.close()
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            self._child = None


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
            refused = error.refusal is writer.Refusal.NOT_PERMITTED
            if not refused or not self._command:
                raise
        else:
            return
        if self._remote is None:
            self._remote = _spawn(self._command)
        self._remote(path, inode, offset, data)

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
            )
    except OSError as error:
        ours.close()
        raise writer.Refused(
            writer.Refusal.NOT_PERMITTED,
            f'{command[0]} cannot be run: {error.strerror}',
        ) from error
    return Remote(ours, started.pid)


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
        if not 0 < length <= writer.MOST_BYTES:
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
    """
    try:
        directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
    return Remote(ours, child)
