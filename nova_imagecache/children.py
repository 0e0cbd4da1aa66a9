# SPDX-License-Identifier: Apache-2.0

"""Processes that do not outlive their deadline, nor who waits for them.

``processutils.execute(timeout=)`` leaves the process running that it no longer
waits for; ``subprocess.run(timeout=)`` ends it alone, and not what that has
started, and waits for it then, be it for ever.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import signal
import subprocess
import sys
import time

#: As :class:`subprocess.TimeoutExpired`, which is what is raised.
TimedOut = subprocess.TimeoutExpired

# How often to look whether it is still wanted.
_POLL_SECONDS = 0.2

# Longer than any but one that hangs in the kernel takes to be gone.
_GONE_SECONDS = 5


def run(
    *command: str,
    timeout: float,
    look: Callable[[], object] | None = None,
    limits: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> 'subprocess.CompletedProcess[bytes]':
    """Run a command to its end, and no longer.

    Away from any terminal, in the root directory, with nothing to read.

    :param timeout: seconds
    :param look: called several times a second meanwhile; what it raises ends
        the command, and is raised here
    :param limits: what it may use, as ``ProcessLimits.prlimit_args`` of
        oslo_concurrency.processutils
    :returns: its status and its output; a status other than 0 is no error
    :raises TimedOut: it was ended, with all that it has started
    :raises OSError: it cannot be started
    """
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
        while True:
            left = max(0.0, deadline - time.monotonic())
            if look is not None:
                look()
                left = min(left, _POLL_SECONDS)
            try:
                stdout, stderr = child.communicate(timeout=left)
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired(command, timeout) from None
            else:
                return subprocess.CompletedProcess(
                    command, child.returncode, stdout, stderr
                )
    finally:
        end(child)


def end(child: 'subprocess.Popen[bytes]') -> None:
    """End a process, if it has not ended, and all that it has started.

    One that hangs in the kernel goes as soon as it can, and is not waited for.

    :param child: the first of a session of its own
    """
    if child.returncode is None:
        # Until it is reaped, no other process can have its ID.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GONE_SECONDS)
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
