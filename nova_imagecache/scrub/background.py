# SPDX-License-Identifier: Apache-2.0

"""The reading process, as the manager starts and ends it.

Files are read in a process, and nothing here waits for that (decision 0016).
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import ctypes
import dataclasses
import json
import logging
import os
import subprocess
import sys
import weakref

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import pipe
from nova_imagecache.scrub import schedule

LOG = logging.getLogger(__name__)

# setsid(1) of util-linux forks; its child is init's to reap (decision 0017).
# -P: the current directory of the service is no place to find modules in.
_COMMAND = ('setsid', '--fork')
_PROGRAM = ('-P', '-m', 'nova_imagecache', 'scrub', '--parent')

# For which a scrub may take to come up: slow disks, busy processors.
_STARTUP_SECONDS = 60

# What systemd means for the service, and for nobody else.
_SERVICES_OWN = ('NOTIFY_SOCKET', 'WATCHDOG_PID', 'WATCHDOG_USEC',
                 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PID')  # fmt: skip


_PR_GET_CHILD_SUBREAPER = 37  # include/uapi/linux/prctl.h

_scrubs: 'weakref.WeakSet[Scrub]' = weakref.WeakSet()


def _let_go() -> None:
    """Close the pipes in a process that the host forked (decision 0018)."""
    for scrub in list(_scrubs):
        scrub.stop()


os.register_at_fork(after_in_child=_let_go)


def _adopts_orphans() -> bool:
    """Whether this process gets the children of its children to reap.

    There is no point in setsid then (decision 0017).
    """
    answer = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    return os.getpid() == 1 or bool(answer.value)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def environment() -> Mapping[str, str]:
    """Give what is in that of the service, but for what is its own."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _SERVICES_OWN
    }


def errors_to() -> int | None:
    """Say where a process of ours writes what nobody else is told.

    To the standard error output of the service, where it has one.
    """
    return None if _is_open(2) else subprocess.DEVNULL


def be_modest() -> None:
    """Let everybody else go first, where the kernel knows how.

    For the reading process itself.
    """
    import psutil  # here, as nobody else needs it

    this = psutil.Process()
    with contextlib.suppress(OSError, psutil.Error):
        this.nice(19)
    with contextlib.suppress(OSError, psutil.Error):
        # The scheduler "none" ignores it; the limit is what counts.
        this.ionice(psutil.IOPRIO_CLASS_IDLE)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What there is to see of the scrub of a cache.

    :ivar taken: whether somebody reads base files
    :ivar last: what the last scrub noted
    """

    taken: bool
    last: activities.Activity | None


def see(layout: layouts.Layout) -> Seen:
    """See how far the scrub of a cache is."""
    # In this order: who takes the turn says so at once.
    taken = coordination.coordinator(layout).taken()
    return Seen(taken, activities.load(layout))


def _not_started(why: object) -> codes.Problem:
    return codes.Problem(
        codes.Code.NO_SCRUB, f'no scrub can be started: {why}'
    )


class Scrub:
    """At most one scrub, which ends when this process does.

    It is told apart by the lock that it holds, not by a process ID: it may be
    in another container. It has the settings from a pipe, and ends when that
    is closed.
    """

    def __init__(
        self,
        clock: clocks.Clock = clocks.now,
        rewriter: Sequence[str] = (),
        config_files: Sequence[str] = (),
    ) -> None:
        """Start nothing yet.

        :param rewriter: the host's command that writes to base files
        :param config_files: of the host, which say how to ask the image
            service
        """
        self._clock = clock
        self._lent = [f'--host-config={path}' for path in config_files]
        if rewriter:
            self._lent += ['--rewriter', json.dumps([*rewriter])]
        # At most one; to take it out is atomic, whoever else stops this.
        self._pipes: list[int] = []
        self._settings: Settings | None = None
        self._started: clocks.Instant | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        _scrubs.add(self)

    def __del__(self) -> None:
        """End it with the manager that it belongs to."""
        self.stop()

    def keep(
        self,
        settings: Settings,
        coverage: schedule.Coverage | None,
        seen: Seen | None = None,
        wanted: bool = False,
    ) -> list[codes.Problem]:
        """Start a scrub if one is needed, end one that no longer is.

        :param coverage: None while checksums are off
        :param seen: just now; without it, this looks at the cache itself
        :param wanted: whether there is something to do beside reading
        :returns: what somebody has to look into, a sentence each
        """
        self._children = [
            child for child in self._children if child.poll() is None
        ]
        if coverage is None or settings != self._settings:
            # One with other settings comes in the next pass at the latest.
            self.stop()
        if coverage is None:
            return []
        if seen is None:
            seen = see(layouts.Layout.of(settings))
        if self._is_coming_up(seen):
            return []
        problems = self._explain(seen)
        if not (coverage.queue or wanted) or seen.taken:
            return problems
        return problems + self._start(settings)

    def stop(self) -> None:
        """Tell it to end, and do not wait for it."""
        with contextlib.suppress(IndexError):
            os.close(self._pipes.pop())
        self._settings = self._started = None

    def _is_coming_up(self, seen: Seen) -> bool:
        """Whether one was started a moment ago, and has not begun yet."""
        if self._started is None:
            return False
        since = clocks.elapsed(self._started, self._clock())
        return since < _STARTUP_SECONDS and not self._has_begun(seen)

    def _has_begun(self, seen: Seen) -> bool:
        return (
            self._started is not None
            and seen.last is not None
            and clocks.elapsed(self._started, seen.last.started) >= 0
        )

    def _explain(self, seen: Seen) -> list[codes.Problem]:
        """Say what became of one that we started before."""
        if self._started is None or seen.taken:
            return []
        if self._has_begun(seen):
            return activities.told(seen.last)
        self._started = None
        return [
            codes.Problem(
                codes.Code.NO_SCRUB,
                'the scrub that the last pass started has not come up; what '
                'it says is in the standard error output of this service',
            )
        ]

    def _start(self, settings: Settings) -> list[codes.Problem]:
        self.stop()
        if not sys.executable:
            return [_not_started('Python does not know its path')]
        try:
            end, ours = pipe.open_with(settings)
        except OSError as error:
            return [_not_started(error)]
        try:
            command = [sys.executable, *_PROGRAM, *self._lent]
            self._run(command, end)
        except (OSError, subprocess.SubprocessError) as error:
            os.close(ours)
            return [_not_started(error)]
        finally:
            os.close(end)
        self._pipes.append(ours)
        self._settings = settings
        self._started = self._clock()
        LOG.info('A scrub of the image cache is started')
        return []

    def _run(self, command: list[str], stdin: int) -> None:
        adopts = _adopts_orphans()
        child = subprocess.Popen(
            command if adopts else [*_COMMAND, *command],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=errors_to(),
            env=environment(),
            cwd='/',
            start_new_session=adopts,
        )
        if adopts:
            # To be reaped in the next pass.
            self._children.append(child)
        elif child.wait():
            raise subprocess.CalledProcessError(child.returncode, _COMMAND)
