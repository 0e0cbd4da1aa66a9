# SPDX-License-Identifier: Apache-2.0

"""Other processes, which hold a lock or take their time."""

from collections.abc import Callable
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import fixtures

from nova_imagecache.cache import layouts

PATIENCE_SECONDS = 60
PATH = os.environ['PATH'] + ':/usr/sbin:/sbin'

_HOLD_LOCK = """
import sys
from oslo_concurrency import lockutils
with lockutils.lock(
    sys.argv[2], lock_file_prefix='nova-', external=True, lock_path=sys.argv[1]
):
    print('held', flush=True)
    sys.stdin.read()
"""

#: Scrubs nothing in the cache below a path, for as long as its input lasts.
HOLD_TURN = """
import sys
from nova_imagecache.cache import coordination, layouts
where = layouts.Layout(sys.argv[1], sys.argv[1] + '/_base')
with coordination.coordinator(where).turn():
    print('held', flush=True)
    sys.stdin.read()
"""

# Another host, with locks of Nova of its own: argument 1 is its instances.
_HOLD_FILE = """
import sys
from nova_imagecache.cache import layouts, locks
instances, base, kind, name = sys.argv[1:]
where = layouts.Layout(instances, base)
wanted = [name] if kind == 'remover_lock' else name
with getattr(locks, kind)(where, wanted) as refused:
    assert not refused or callable(refused), refused
    print('held', flush=True)
    sys.stdin.read()
"""


class _Holder(fixtures.Fixture):
    """Another process, which holds something until it is killed."""

    def __init__(self, code: str, *arguments: str) -> None:
        super().__init__()
        self._command = [sys.executable, '-c', code, *arguments]

    def _setUp(self) -> None:
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == 'held\n'

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class NovaProcess(_Holder):
    """Another process, which holds a lock as Nova does."""

    def __init__(self, lock_path: str, name: str) -> None:
        super().__init__(_HOLD_LOCK, lock_path, name)


class OtherHost(_Holder):
    """A process of another host, which is at a file of a shared cache."""

    def __init__(self, layout: layouts.Layout, kind: str, name: str) -> None:
        """Begin.

        :param layout: the cache as that host sees it
        :param kind: the name of what it holds in ``cache.locks``
        """
        super().__init__(_HOLD_FILE, layout.instances, layout.base, kind, name)


class OtherScrub(_Holder):
    """Another process, whose turn it is to read the files of a cache."""

    def __init__(self, instances_path: str) -> None:
        super().__init__(HOLD_TURN, instances_path)


class Waiting(fixtures.Fixture):
    """Tells when this process has come to wait for a lock of another one.

    :ivar event: set by then
    """

    def _setUp(self) -> None:
        self.event = threading.Event()
        self._real = fcntl.lockf
        self.useFixture(fixtures.MonkeyPatch('fcntl.lockf', self._lockf))

    def _lockf(self, *args: Any) -> None:
        try:
            self._real(*args)
        except OSError:
            self.event.set()
            raise

    def wait(self) -> bool:
        """Wait until then; say whether it came to that."""
        return self.event.wait(PATIENCE_SECONDS)


def wait_for(what: Callable[[], Any]) -> Any:
    """Wait for another process, which cannot be hurried."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = what()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def run(*command: str) -> str:
    """Run a program of the administrator's; give what it prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={'PATH': PATH}
    )
    if done.returncode:
        raise RuntimeError(f'{command}: {done.stderr}')
    return done.stdout.strip()
