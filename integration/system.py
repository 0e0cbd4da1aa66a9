# SPDX-License-Identifier: Apache-2.0

"""What is asked of the system: programs, processes, files."""

from collections.abc import Callable
import os
import pathlib
import pwd
import re
import socket
import subprocess
import time
from typing import Any
import urllib.error
import urllib.request


class Failed(Exception):
    """Something has not come about."""


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition gives something, and give it.

    :raises Failed: it does not
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise Failed(f'{what}: not within {seconds} s')


def run(*command: str | os.PathLike[str], **how: Any) -> str:
    """Run a program to its end; give what it prints.

    :raises Failed: it fails
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            check=True,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            **how,
        )
    except subprocess.CalledProcessError as error:
        raise Failed(
            f'{error}\n{error.stdout[-2000:]}\n{error.stderr[-4000:]}'
        ) from error
    return done.stdout


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(('127.0.0.1', port)) == 0


def listens_at(path: str) -> bool:
    """Whether somebody listens at a socket in the file system."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def answers(url: str) -> bool:
    """Whether an HTTP service answers, be it that it wants something else."""
    try:
        with urllib.request.urlopen(url, timeout=60):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def processes(*words: str) -> list[int]:
    """Find processes by words that are in their command lines."""
    found = []
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            line = pathlib.Path('/proc', entry, 'cmdline').read_bytes()
        except OSError:
            continue
        if all(word in line.decode(errors='replace') for word in words):
            found.append(int(entry))
    return found


def user_of(process: int) -> str:
    return pwd.getpwuid(os.stat(f'/proc/{process}').st_uid).pw_name


def bytes_read(process: int) -> int:
    """Count what a process and its children that ended read from files.

    What comes from sockets is received, and does not count.
    """
    text = pathlib.Path('/proc', str(process), 'io').read_text()
    return int(re.findall(r'^rchar: (\d+)', text, re.MULTILINE)[0])


def owner(path: pathlib.Path) -> str:
    return pwd.getpwuid(path.stat().st_uid).pw_name
