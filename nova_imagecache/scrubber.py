# SPDX-License-Identifier: Apache-2.0

"""Scrubbing a whole cache: what the scrub process does from start to end."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import os
import time
from typing import Any

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import state as states
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import activity as activities
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import reader
from nova_imagecache.integrity import schedule
from nova_imagecache.integrity import scrub
from nova_imagecache import look

LOG = logging.getLogger(__name__)

# To publish what a long reading gave is worth some waiting for a lock.
_PATIENCE_SECONDS = 5

# How often to look whether somebody else wants to read, and to tell status.
_PULSE_SECONDS = 1.0
_REPORT_SECONDS = 10.0

# After which files that have come meanwhile get their turn.
_REQUEUE_SECONDS = 60.0

# Enough to see what is wrong.
_MOST_PROBLEMS = 5


@dataclasses.dataclass(frozen=True)
class Result:
    """One file that was read.

    :ivar bytes: that were read of it
    :ivar seconds: that it took
    """

    name: str
    finding: knowledges.Finding
    bytes: int
    seconds: float


class Scrubber:
    """One scrub: reads what is due, the most urgent first, and ends.

    :ivar activity: what it does, or has done
    """

    def __init__(
        self,
        settings: confs.Settings,
        means: reader.Means,
        clock: clocks.Clock = clocks.now,
        monotonic: Callable[[], float] = time.monotonic,
        progress_bar: checksum.ProgressBar = checksum.no_progress_bar,
    ) -> None:
        """Prepare a scrub.

        :param means: how to read; its limiter and progress are set here
        """
        self._settings = settings
        self._layout = layouts.Layout.of(settings)
        self._means = means
        self._clock = clock
        self._monotonic = monotonic
        self._progress_bar = progress_bar
        self._pulse = monotonic()
        self._report = -_REPORT_SECONDS
        self._read = self._before = 0
        self._left: list[schedule.Item] = []
        self._reckoned = 0.0
        # Each file once: with an interval of 0, all are due all the time.
        self._done: set[str] = set()
        #: The file that is due next, where none is due now.
        self.next: schedule.Item | None = None
        now = clock()
        self.activity = activities.Activity(settings.host, now, now)

    def run(self) -> Iterator[Result]:
        """Read what is due, and give what was found file by file.

        :raises nova_imagecache.errors.Error: it cannot be done, or not now
        :raises OSError: the cache cannot be worked on
        """
        if not os.path.isdir(self._layout.base):
            raise errors.Error(f'there is no cache at {self._layout.base}')
        with locks.scrub_lock(self._layout):
            # What is read and cannot be kept is read for nothing.
            activities.save(self._layout, self.activity)
            try:
                yield from self._scrub()
            except BaseException as error:
                self._update(
                    ended=self._clock(), reason=str(error) or 'killed'
                )
                self._save()
                raise
            reason = self.activity.reason or 'nothing more is due'
            self._update(ended=self._clock(), reason=reason)
            self._save()

    def _scrub(self) -> Iterator[Result]:
        files, state = self._look()
        total = sum(item.size for item in self._left)
        with self._progress_bar(total) as progress:

            def count(length: int) -> None:
                # In the thread that reads ahead, and in no other.
                self._read += length
                progress(length)

            means = dataclasses.replace(self._means, progress=count)
            method = scrub.Method(
                self._settings.checksum_algorithm,
                means,
                self._clock,
                _PATIENCE_SECONDS,
                monotonic=self._monotonic,
                pulse=self._look_around,
            )
            while self._left and not means.stop.is_set():
                item = self._left[0]
                self._before = self._read
                self._set_rate()
                self._update(current=item.name, queue=len(self._left) - 1)
                result = self._scrub_file(files[item.name], state, method)
                self._left.pop(0)
                self._done.add(item.name)
                self._update(current=None)
                if result is not None:
                    self._note(result)
                    yield result
                if self._monotonic() - self._reckoned > _REQUEUE_SECONDS:
                    files, state = self._look()
        if means.stop.is_set() and self.activity.reason is None:
            self._update(reason='it was told to stop')

    def _look(
        self,
    ) -> tuple[dict[str, scans.CachedFile], states.State]:
        """See which files there are, and queue those that are due."""
        files = {
            file.name: file
            for file in scans.scan(self._layout).files
            if file.kind.is_base and file.status.regular
        }
        state = self._sight(files.values())
        self._left = [
            item
            for item in self._queue(files.values(), state)
            if item.name not in self._done
        ]
        self._reckoned = self._monotonic()
        return files, state

    def _set_rate(self) -> None:
        """Read as fast as it takes now to be through in time."""
        item = self._left[0]
        rest = max(0, item.size - (self._read - self._before))
        rate = schedule.rate(
            [dataclasses.replace(item, size=rest), *self._left[1:]],
            self._settings.scrub_bandwidth,
            self._monotonic() - self._reckoned,
        )
        self._means.limiter.rate = rate
        self._update(rate=rate)

    def _note(self, result: Result) -> None:
        """Remember what the manager has to tell, as nobody else hears it."""
        finding = result.finding
        if not finding.skipped:
            self._update(files=self.activity.files + 1)
        if finding.problem and len(self.activity.problems) < _MOST_PROBLEMS:
            problem = f'{result.name}: {finding.note}'
            self._update(problems=(*self.activity.problems, problem))

    def _sight(self, files: Collection[scans.CachedFile]) -> states.State:
        try:
            return states.sight(self._layout, self._clock(), files)
        except (errors.Error, OSError) as error:
            # A pass makes it good; what has a ledger is read all the same.
            LOG.warning('%s: %s', self._layout.state, error)
            return states.State()

    def _queue(
        self, files: Iterable[scans.CachedFile], state: states.State
    ) -> list[schedule.Item]:
        now = self._clock()
        items = [
            self._item(look.entry_of(self._layout, file, state), now)
            for file in files
            # What is seen for the first time has its turn in a later scrub.
            if decide.settled(file, state.sighting(file))
        ]
        later = [item for item in items if item.due > 0]
        self.next = min(later, key=lambda item: item.due, default=None)
        return schedule.queue(items)

    def _item(
        self, entry: schedule.Entry, now: clocks.Instant
    ) -> schedule.Item:
        interval = self._settings.checksum_interval
        return schedule.due_in(entry, interval, now, self._settings.host)

    def _scrub_file(
        self,
        file: scans.CachedFile,
        state: states.State,
        method: scrub.Method,
    ) -> Result | None:
        """Scrub a file, unless somebody else has done so meanwhile."""
        began = self._monotonic()
        now = self._clock()
        entry = look.entry_of(self._layout, file, state)
        if self._item(entry, now).due > 0:
            return None
        job = look.job_of(file, entry.known, state, now, self._settings.host)
        finding = scrub.scrub(self._layout, job, method)
        return Result(
            file.name,
            finding,
            self._read - self._before,
            self._monotonic() - began,
        )

    def _look_around(self) -> None:
        """Called all the time: give way, and say how far it has got."""
        now = self._monotonic()
        if now - self._pulse < _PULSE_SECONDS:
            return
        self._pulse = now
        if locks.scrub_wanted(self._layout):
            self._update(reason='it gave way to a verification')
            self._means.stop.set()
        self._set_rate()
        if now - self._report >= _REPORT_SECONDS:
            self._report = now
            self._save()

    def _update(self, **changes: Any) -> None:
        self.activity = dataclasses.replace(
            self.activity, updated=self._clock(), read=self._read, **changes
        )

    def _save(self) -> None:
        """Note what it does. That this fails is no reason to stop."""
        try:
            activities.save(self._layout, self.activity)
        except OSError as error:
            LOG.warning('%s: %s', self._layout.scrub, error.strerror)
