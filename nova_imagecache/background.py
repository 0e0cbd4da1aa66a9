# SPDX-License-Identifier: Apache-2.0

"""The scrub as a process of its own, as the manager starts it.

All periodic tasks of a compute service share one thread, and under eventlet
everything does, so nothing here waits for anything.
"""

import os
import subprocess
import sys

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache.integrity import activity
from nova_imagecache.integrity import schedule

LOG = logging.getLogger(__name__)

# setsid(1) of util-linux forks, and its child is init's to reap: a process
# that ends between two passes is no zombie until the next. -P: the current
# directory of the service is no place to find modules in.
_COMMAND = ('setsid', '--fork')
_PROGRAM = ('-P', '-m', 'nova_imagecache', 'scrub', '--parent')

# For which a scrub may take to come up: slow disks, busy processors.
_STARTUP_SECONDS = 60

# What systemd means for the service, and for nobody else.
_SERVICES_OWN = ('NOTIFY_SOCKET', 'WATCHDOG_PID', 'WATCHDOG_USEC',
                 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PID')  # fmt: skip


class Scrub:
    """At most one scrub, which ends when this process does.

    It is told apart by the lock that it holds, not by a process ID: it may be
    in another container. It has the settings from a pipe, and ends when that
    is closed. However this process ends, even by ``os._exit`` as nova-compute
    does, the kernel closes it.
    """

    def __init__(self, clock: clocks.Clock = clocks.now) -> None:
        """Start nothing yet."""
        self._clock = clock
        self._pipe: int | None = None
        self._settings: confs.Settings | None = None
        self._started: clocks.Instant | None = None

    def __del__(self) -> None:
        """End it with the manager that it belongs to."""
        self.stop()

    def keep(
        self, settings: confs.Settings, coverage: schedule.Coverage | None
    ) -> list[str]:
        """Start a scrub if one is needed, end one that no longer is.

        :param coverage: None while checksums are off
        :returns: what somebody has to look into, a sentence each
        """
        layout = layouts.Layout.of(settings)
        if coverage is None or settings != self._settings:
            # One with other settings comes in the next pass at the latest.
            self.stop()
        if coverage is None:
            return []
        problems = self._explain(layout)
        if not coverage.queue or locks.scrub_held(layout):
            return problems
        return problems + self._start(settings)

    def stop(self) -> None:
        """Tell it to end, and do not wait for it."""
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe = self._settings = self._started = None

    def _explain(self, layout: layouts.Layout) -> list[str]:
        """Say what became of one that we started before."""
        if self._started is None:
            return []
        since = clocks.elapsed(self._started, self._clock())
        last = activity.load(layout)
        if last is not None and (
            clocks.elapsed(self._started, last.started) >= 0
        ):
            return list(last.problems)
        if since < _STARTUP_SECONDS or locks.scrub_held(layout):
            return []
        return [
            'the scrub that the last pass started has not come up; what it '
            'says is in the standard error output of this service'
        ]

    def _start(self, settings: confs.Settings) -> list[str]:
        self.stop()
        if not sys.executable:
            return ['no scrub can be started: Python does not know its path']
        end, pipe = os.pipe()
        try:
            # It fits into the pipe, so this does not wait for the reader.
            os.write(pipe, confs.encode(settings).encode() + b'\n')
            environment = {
                name: value
                for name, value in os.environ.items()
                if name not in _SERVICES_OWN
            }
            subprocess.run(
                [*_COMMAND, sys.executable, *_PROGRAM],
                stdin=end,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd='/',
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            os.close(pipe)
            return [f'no scrub can be started: {error}']
        finally:
            os.close(end)
        self._pipe, self._settings = pipe, settings
        self._started = self._clock()
        LOG.info('A scrub of the image cache is started')
        return []
