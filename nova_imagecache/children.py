# SPDX-License-Identifier: Apache-2.0

"""Processes that do not outlive their deadline, nor who waits for them.

``processutils.execute(timeout=)`` leaves the process running that it no longer
waits for; ``subprocess.run(timeout=)`` ends it alone, and not what that has
started, and waits for it then, be it for ever.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import errno
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import IO
from typing import NamedTuple

from oslo_utils import units

LOG = logging.getLogger(__name__)

#: As :class:`subprocess.TimeoutExpired`, which is what is raised.
TimedOut = subprocess.TimeoutExpired

# How often to look whether it is still wanted.
_POLL_SECONDS = 0.2

# Longer than any but one that hangs in the kernel takes to be gone.
_GONE_SECONDS = 5

_PIECE = 64 * units.Ki

# More than what libvirt says of ten thousand guests.
_MOST_BYTES = 256 * units.Mi

# Of what goes wrong the last lines tell.
_MOST_ERRORS = 64 * units.Ki

# Those that hang in the kernel, by what they are.
_hanging: 'dict[str, subprocess.Popen[bytes]]' = {}


class TooMuch(OSError):
    """It says more than it may, and was ended."""


def run(
    *command: str,
    timeout: float,
    look: Callable[[], object] | None = None,
    limits: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    most: int = _MOST_BYTES,
) -> 'subprocess.CompletedProcess[bytes]':
    """Run a command to its end, and no longer.

    Away from any terminal, in the root directory, with nothing to read. None
    is started while an earlier one of its kind hangs in the kernel, so that
    there is one of them, and not one for each try.

    :param timeout: seconds
    :param look: called several times a second meanwhile; what it raises ends
        the command, and is raised here
    :param limits: what it may use, as ``ProcessLimits.prlimit_args`` of
        oslo_concurrency.processutils
    :param most: bytes of its standard output
    :returns: its status, its output, and the end of its standard error
        output; a status other than 0 is no error
    :raises TimedOut: it was ended, with all that it has started
    :raises TooMuch: likewise
    :raises OSError: it cannot be started
    """
    kind = _kind(command)
    _refuse_another(kind)
    if limits:
        command = (
            sys.executable, '-m', 'oslo_concurrency.prlimit',
            *limits, '--', *command,
        )  # fmt: skip
    deadline = time.monotonic() + timeout
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd='/',
        env=env,
        start_new_session=True,
    )
    try:
        patience = _Patience(child, timeout, deadline, look)
        stdout, stderr = bytearray(), bytearray()
        for stream, piece in patience.said():
            if stream is child.stdout:
                stdout += piece
                if len(stdout) > most:
                    raise TooMuch(
                        errno.EFBIG, f'{kind} says more than {most} bytes'
                    )
            else:
                stderr += piece
                del stderr[:-_MOST_ERRORS]
        patience.wait()
        return subprocess.CompletedProcess(
            command, child.returncode, bytes(stdout), bytes(stderr)
        )
    finally:
        end(child)
        if child.returncode is None:
            _hanging[kind] = child


def _kind(command: Sequence[str]) -> str:
    """Say what a command is: its program, and the module that Python runs."""
    first, *rest = command or ['?']
    if first == sys.executable and '-m' in rest:
        return rest[rest.index('-m') + 1]
    return first


def _refuse_another(kind: str) -> None:
    hanging = _hanging.get(kind)
    if hanging is None:
        return
    if hanging.poll() is None:
        raise OSError(
            errno.EBUSY, f'an earlier {kind}, process {hanging.pid}, hangs'
        )
    del _hanging[kind]


class _Patience(NamedTuple):
    """How long who has started a process waits for it."""

    child: 'subprocess.Popen[bytes]'
    timeout: float
    deadline: float
    look: Callable[[], object] | None

    def left(self) -> float:
        """Say for how many seconds to wait until the next look.

        :raises TimedOut: no longer
        """
        if self.look is not None:
            self.look()
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(self.child.args, self.timeout)
        return left if self.look is None else min(left, _POLL_SECONDS)

    def said(self) -> Iterator[tuple[IO[bytes], bytes]]:
        """Give what is written to its outputs, until nobody has them open."""
        with selectors.DefaultSelector() as selector:
            for stream in (self.child.stdout, self.child.stderr):
                assert stream is not None  # noqa: S101 for mypy: pipes
                selector.register(stream, selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _events in selector.select(self.left()):
                    piece = os.read(key.fd, _PIECE)
                    if not piece:
                        selector.unregister(key.fileobj)
                    yield key.data, piece

    def wait(self) -> None:
        """Wait until it has ended."""
        while self.child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(self.left())


def end(child: 'subprocess.Popen[bytes]') -> None:
    """End a process, if it has not ended, and all that it has started.

    One that hangs in the kernel goes as soon as it can, and is not waited for.

    :param child: the first of a session of its own
    """
    if child.returncode is None:
        # Until it is reaped, no other process can have its ID.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        try:
            child.wait(_GONE_SECONDS)
        except subprocess.TimeoutExpired:
            command = (
                child.args if isinstance(child.args, list | tuple) else ()
            )
            tell_of(child.pid, _kind([str(part) for part in command]))
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def tell_of(pid: int, kind: str) -> None:
    """Say in the log that a process cannot be ended."""
    LOG.warning(
        '[P21] Process %(pid)d, %(kind)s, does not end, and no other one is '
        'started in its place until it does; look at the log of the kernel '
        'and at the disk',
        {'pid': pid, 'kind': kind},
    )
