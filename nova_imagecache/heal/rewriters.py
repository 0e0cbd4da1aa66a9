# SPDX-License-Identifier: Apache-2.0

"""Writing with rights that this process has not: a child that keeps them.

A base file belongs to QEMU's user. Whoever repairs one reads records, runs
qemu-img and ssh, and talks to others, and needs no rights for any of that. So
a process of its own has them, and it does one thing: what it is asked for goes
to :func:`nova_imagecache.heal.writer.rewrite_base_file`.

Who may write does so in a process of its own as well, which this module is as
a program: Nova's lock is held meanwhile, and a write to a disk that has gone
never returns (decision 0098).

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
import sys
import time
from typing import Any
from typing import BinaryIO

from nova_imagecache import children
from nova_imagecache import errors
from nova_imagecache.heal import writer

_LINE = 4096
# So that the answer, with its escapes, is no longer than a line.
_MESSAGE = 500

# For which Nova's lock is held at most for one write of a MiB: longer than any
# disk takes that works, and shorter than one that tries a bad sector again and
# again. What comes later than that is found good by the next repair.
_WRITE_SECONDS = 5

# For which a process may take to come up, with the daemon behind it.
_READY_SECONDS = 60

# For which one that was told to end may take to do so.
_END_SECONDS = 10
_POLL_SECONDS = 0.01

_PROGRAM = ('-P', '-m', 'nova_imagecache.heal.rewriters')


class Remote:
    """Asks the process at the other end of a socket to write.

    Called as :func:`nova_imagecache.heal.writer.rewrite`. One that does not
    answer in time is asked no more. What it was asked to write may be there
    later: the same bytes that are to be there, in the file that was meant,
    whatever has its name by then (decision 0098).
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
        self._stream = end.makefile('rwb')
        # Why it is asked no more.
        self._over: writer.Refused | None = None

    def __call__(
        self, path: str, inode: int, offset: int, data: bytes
    ) -> None:
        """Write, as :func:`nova_imagecache.heal.writer.rewrite`.

        Only the name of the file goes there: in which cache, that process
        knows.

        :raises nova_imagecache.heal.writer.Refused: it did not
        """
        refusal, message = self._request(
            path, inode, offset, data, _WRITE_SECONDS
        )
        if refusal is not None:
            raise writer.Refused(refusal, message)

    def prepare(self, path: str, inode: int) -> None:
        """See that the other process is there, and can do what it is for.

        Asked to write nothing, it refuses that, but as the one who would.

        :raises nova_imagecache.heal.writer.Refused: it is not, or cannot
        """
        refusal, message = self._request(path, inode, 0, b'', _READY_SECONDS)
        if refusal in (writer.Refusal.NOT_PERMITTED, writer.Refusal.HUNG):
            raise writer.Refused(refusal, message)

    def _request(
        self, path: str, inode: int, offset: int, data: bytes, seconds: float
    ) -> tuple[writer.Refusal | None, str]:
        request = {
            'name': os.path.basename(path),
            'inode': inode,
            'offset': offset,
            'length': len(data),
        }
        if self._over is not None:
            raise writer.Refused(self._over.refusal, str(self._over))
        try:
            return self._ask(request, data, seconds)
        except TimeoutError as error:
            # What it says next would be of this request.
            self._over = writer.Refused(
                writer.Refusal.HUNG,
                f'the process that writes has not answered in {seconds} s, '
                'and is not waited for; look at the log of the kernel and at '
                'the disk',
            )
            raise self._over from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            self._over = writer.Refused(
                writer.Refusal.FAILED,
                'the process that may write is gone; see its standard error '
                'output',
            )
            raise self._over from error

    def _ask(
        self, request: dict[str, object], data: bytes, seconds: float
    ) -> tuple[writer.Refusal | None, str]:
        until = time.monotonic() + seconds
        self._end.settimeout(seconds)
        self._stream.write(json.dumps(request).encode() + b'\n' + data)
        self._stream.flush()
        # For both together.
        self._end.settimeout(max(_POLL_SECONDS, until - time.monotonic()))
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
    """Writes with our own rights, or else has a command of the host do it.

    Called as :func:`nova_imagecache.heal.writer.rewrite`.
    """

    def __init__(self, base: str, command: Sequence[str] = ()) -> None:
        """Start nothing yet.

        :param base: the cache
        :param command: starts a process that calls :func:`serve` on its
            standard input, which is a socket; empty where the host has none
        """
        self._base = base
        self._command = (*command,)
        # By what has started them.
        self._started: dict[tuple[str, ...], Remote] = {}
        # By the path of what they write.
        self._chosen: dict[str, Remote] = {}

    def __call__(
        self, path: str, inode: int, offset: int, data: bytes
    ) -> None:
        """Write, as :func:`nova_imagecache.heal.writer.rewrite`."""
        if path not in self._chosen:
            self.prepare(path, inode)
        self._chosen[path](path, inode, offset, data)

    def prepare(self, path: str, inode: int) -> None:
        """Choose who writes a file, and start that process."""
        command: Sequence[str] = (sys.executable, *_PROGRAM, self._base)
        try:
            # It is opened, and nothing is written.
            writer.rewrite(path, inode, 0, b'')
        except writer.Refused as error:
            if error.refusal is writer.Refusal.NOT_PERMITTED:
                if not self._command:
                    raise
                command = self._command
        self._chosen[path] = self._start(*command)
        self._chosen[path].prepare(path, inode)

    def _start(self, *command: str) -> Remote:
        if command not in self._started:
            self._started[command] = _spawn(command)
        return self._started[command]

    def close(self) -> None:
        """Let the other processes end, if there are any."""
        self._chosen.clear()
        while self._started:
            self._started.popitem()[1].close()


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


def _serve_files(end: socket.socket, directory: int) -> None:
    """Write base files of a cache, until the other end is closed.

    :param directory: handle of the cache
    """

    def write(name: str, inode: int, offset: int, data: bytes) -> None:
        with writer.ending_in_time():
            writer.rewrite_base_file(directory, name, inode, offset, data)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with end.makefile('rwb') as stream:
        serve(stream, write)


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
            # Whoever reads what the parent says waits for no other one.
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for stream in (0, 1):
                os.dup2(nothing, stream)
            _serve_files(theirs, directory)
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
                children.tell_of(child, 'which writes to base files')
                return
            time.sleep(_POLL_SECONDS)


def _main(base: str) -> None:
    directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(BrokenPipeError), socket.socket(fileno=0) as end:
        _serve_files(end, directory)


if __name__ == '__main__':
    _main(sys.argv[1])
