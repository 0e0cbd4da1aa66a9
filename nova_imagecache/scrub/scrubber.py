# SPDX-License-Identifier: Apache-2.0

"""Scrubbing a whole cache: what the scrub process does from start to end."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import logging
import os
import time
from typing import Any

from nova_imagecache.cache import coordination
from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import sightings
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import damages
from nova_imagecache.scrub import evidence
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import schedule

LOG = logging.getLogger(__name__)

# To publish what a long reading gave is worth some waiting for a lock.
_PATIENCE_SECONDS = 5

# How often to look whether somebody else wants to read, and to tell status.
_PULSE_SECONDS = 1.0
_REPORT_SECONDS = 10.0

# Enough to see what is wrong.
_MOST_PROBLEMS = 5


@dataclasses.dataclass(frozen=True)
class Result:
    """One file that was read.

    :ivar bytes: that were read of it
    :ivar seconds: that it took
    """

    name: str
    finding: knowledge.Finding
    bytes: int
    seconds: float


class Scrubber:
    """One scrub: reads what is due, the most urgent first, and ends.

    :ivar activity: what it does, or has done
    """

    def __init__(
        self,
        settings: Settings,
        means: readers.Means,
        clock: clocks.Clock = clocks.now,
        monotonic: Callable[[], float] = time.monotonic,
        progress_bar: courses.ProgressBar = courses.no_progress_bar,
    ) -> None:
        """Prepare a scrub.

        :param means: how to read; its limiter and progress are set here
        """
        self._settings = settings
        self._layout = layouts.Layout.of(settings)
        self._coordinator = coordination.coordinator(self._layout)
        self._queue = queues.Queue(settings, clock, monotonic)
        self._means = means
        self._clock = clock
        self._monotonic = monotonic
        self._progress_bar = progress_bar
        #: Who has evidence on a file; may be set until it runs.
        self.asker: evidence.Asker = evidence.Nobody()
        self._pulse = monotonic()
        self._report = -_REPORT_SECONDS
        self._next_rate = self._pulse
        self._read = self._before = 0
        # By all scrubs before.
        self._earlier = 0
        self._histories: dict[str, sightings.History] = {}
        self._hung: str | None = None
        now = clock()
        self.activity = activities.Activity(settings.host, now, now)

    @property
    def next(self) -> schedule.Item | None:
        """The file that is due next, where none was due now."""
        return self._queue.next

    def run(self) -> Iterator[Result]:
        """Read what is due, and give what was found file by file.

        :raises nova_imagecache.errors.Error: it cannot be done, or not now
        :raises OSError: the cache cannot be worked on
        """
        if not os.path.isdir(self._layout.base):
            raise errors.Error(f'there is no cache at {self._layout.base}')
        with self._coordinator.turn():
            last = activities.load(self._layout)
            # A file whose read hangs must not starve the others.
            self._queue.last = last.current if last else None
            self._earlier = last.total if last else 0
            self._update()
            # Before anything is read (decision 0019).
            activities.save(self._layout, self.activity)
            unwritable = directories.unwritable(self._layout)
            if unwritable is not None:
                # Nor is it read for nothing, each time anew.
                self._update(problems=(str(unwritable),))
                self._end(str(unwritable))
                raise errors.Error(str(unwritable))
            try:
                yield from self._scrub()
            except BaseException as error:
                self._remember()
                self._end(str(error) or 'killed')
                raise
            self._end(self.activity.reason or 'nothing more is due')

    def _end(self, reason: str) -> None:
        current = self.activity.current or self._hung
        self._update(ended=self._clock(), reason=reason, current=current)
        self._save()

    def _scrub(self) -> Iterator[Result]:
        queue = self._queue
        self._refresh()
        sizes = queue.sizes()
        with self._progress_bar(sum(sizes.values())) as progress:

            def count(length: int) -> None:
                self._read += length
                self.look_around()

            course = courses.Course(progress)
            means = dataclasses.replace(
                self._means, progress=count, passed=course.passed
            )
            method = one_file.Method(
                self._settings.checksum_algorithm,
                means,
                self._clock,
                _PATIENCE_SECONDS,
                monotonic=self._monotonic,
                pulse=self.look_around,
                asker=self.asker,
            )
            while queue.items and not means.stop.is_set():
                name = queue.items[0].name
                self._before = self._read
                self._update(current=name, queue=len(queue.items) - 1)
                # So that a read that hangs is seen, and where.
                self._report_at_times()
                # One that came later is not in the total.
                with course.through(sizes.get(name, 0)):
                    result = self._scrub_file(name, method)
                queue.pop()
                if means.hung.is_set():
                    self._hung = name
                    means.hung.clear()
                self._update(current=None)
                if result is not None:
                    self._note(result)
                    if result.finding.damaged:
                        # Whoever takes it may repair the file, and note that.
                        self._remember()
                    yield result
                if queue.is_old():
                    self._remember()
                    self._refresh()
        self._remember()
        if means.stop.is_set() and self.activity.reason is None:
            self._update(reason='it was told to stop')

    def _scrub_file(self, name: str, method: one_file.Method) -> Result | None:
        """Scrub a file, unless somebody else has done so meanwhile."""
        began = self._monotonic()
        job = self._queue.job()
        if job is None:
            return None
        finding = one_file.scrub(job, method)
        damages.note(job.file, job.known, finding, self._clock(), job.image)
        return Result(
            name,
            finding,
            self._read - self._before,
            self._monotonic() - began,
        )

    def _refresh(self) -> None:
        self._queue.refresh()
        self._before = self._read
        if self._queue.items:
            self._set_rate()

    def _set_rate(self) -> None:
        """Read as fast as it takes now to be in time (decision 0022).

        Not for each file: that goes through all of the queue.
        """
        began = self._monotonic()
        rate, needed = self._queue.rates(self._read - self._before)
        self._means.limiter.rate = rate
        self._means.limiter.needed = needed
        self._update(rate=rate)
        now = self._monotonic()
        self._next_rate = now + queues.BOOKS_FACTOR * (now - began)

    def _note(self, result: Result) -> None:
        """Remember what the manager has to tell, as nobody else hears it."""
        finding = result.finding
        if not finding.skipped:
            self._update(files=self.activity.files + 1)
        if finding.history is not None:
            self._histories[result.name] = finding.history
        if finding.problem and len(self.activity.problems) < _MOST_PROBLEMS:
            problem = f'{result.name}: {finding.note}'
            self._update(problems=(*self.activity.problems, problem))

    def _remember(self) -> None:
        # What cannot be noted now is tried again.
        if self._queue.remember(self._histories):
            self._histories.clear()

    def look_around(self) -> None:
        """Give way, and say how far it has got.

        To be called all the time, also by whoever does something with a
        result before asking for the next one.
        """
        now = self._monotonic()
        if now - self._pulse < _PULSE_SECONDS:
            return
        self._pulse = now
        if self._coordinator.wanted():
            self._update(reason='it gave way to a verification')
            self._means.stop.set()
        if now >= self._next_rate and self._queue.items:
            self._set_rate()
        self._report_at_times()

    def _report_at_times(self) -> None:
        now = self._monotonic()
        if now - self._report >= _REPORT_SECONDS:
            self._report = now
            self._save()

    def _update(self, **changes: Any) -> None:
        self.activity = dataclasses.replace(
            self.activity,
            updated=self._clock(),
            read=self._read,
            total=self._earlier + self._read,
            **changes,
        )

    def _save(self) -> None:
        """Note what it does. That this fails is no reason to stop."""
        try:
            activities.save(self._layout, self.activity)
        except OSError as error:
            LOG.warning('[P13] %s: %s', self._layout.scrub, error.strerror)
