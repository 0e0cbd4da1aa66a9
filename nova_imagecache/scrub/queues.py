# SPDX-License-Identifier: Apache-2.0

"""The queue of the scrub: which base files are to be read, and how fast."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import itertools
import logging

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.scrub import jobs
from nova_imagecache.scrub import recalling
from nova_imagecache.scrub import schedule

LOG = logging.getLogger(__name__)

# After which files that have come meanwhile get their turn.
_REQUEUE_SECONDS = 60.0

#: Times as long as what goes through all files took, until it is done again:
#: so a scrub takes as long for a file however many there are (decision 0083).
BOOKS_FACTOR = 20


def job_of(
    file: base_file.BaseFile,
    known: knowledge.Knowledge,
    state: states.State,
    now: clocks.Instant,
    host: str,
) -> jobs.Job:
    """Put together what the scrub of a base file needs to know."""
    sighting = state.sighting(file)
    return jobs.Job(
        file,
        known.remembering(sighting),
        image=sighting.image if sighting else None,
        outlived=sightings.outlived(
            file, sighting, state.other_boots(host), now
        ),
        suspect=bool(sighting and sighting.suspect),
        rebaselined=sighting.rebaselined if sighting else None,
    )


def note_histories(
    layout: layouts.Layout,
    histories: Mapping[base_file.BaseFile, sightings.History],
    state: states.State,
    now: clocks.Instant,
) -> str | None:
    """Note in the state what must not be lost with a ledger.

    :param state: as it was read last; what it remembers is not written again
    :returns: why that could not be done
    """
    if all(
        sightings.remembers(state.sighting(file), history)
        for file, history in histories.items()
    ):
        return None

    def add(state: states.State) -> states.State:
        updated = {
            file.name: sightings.updated(
                file, state.sighting(file), now, history=history
            )
            for file, history in histories.items()
        }
        return dataclasses.replace(state, files={**state.files, **updated})

    try:
        states.amend(layout, add)
    except errors.Error as error:
        return f'{layout.state} cannot be kept: {error}'
    except OSError as error:
        return f'{layout.state} cannot be kept: {error.strerror}'
    return None


class Queue:
    """The base files of a cache that are due, the most urgent first.

    Each comes once (decision 0022).

    :ivar items: those that are left
    :ivar next: the file that is due next, where none is due now
    :ivar last: a file that is to come last, as an earlier scrub got no further
    """

    def __init__(
        self,
        settings: Settings,
        clock: clocks.Clock,
        monotonic: Callable[[], float],
    ) -> None:
        """Look at nothing yet."""
        self.items: collections.deque[schedule.Item] = collections.deque()
        self.next: schedule.Item | None = None
        self.last: str | None = None
        self._settings = settings
        self._layout = layouts.Layout.of(settings)
        self._clock = clock
        self._monotonic = monotonic
        self._done: set[str] = set()
        self._reckoned = self._took = 0.0
        self._files: dict[str, base_file.BaseFile] = {}
        self._state = states.State()

    def sizes(self) -> dict[str, int]:
        """Give the bytes of the files to be read, holes included."""
        return {
            item.name: self._files[item.name].stat.size for item in self.items
        }

    def refresh(self) -> None:
        """See which files there are, and queue those that are due."""
        began = self._monotonic()
        self._files = {
            file.name: file
            for file in scans.scan(self._layout).files
            if file.is_base
        }
        self._state = self._sight()
        now = self._clock()
        items = [
            self._item(recalling.entry_of(file, self._state), now)
            for file in self._files.values()
            # What is seen for the first time has its turn in a later scrub.
            if schedule.complete(file, self._state.sighting(file))
        ]
        later = [item for item in items if item.due > 0]
        self.next = min(later, key=lambda item: item.due, default=None)
        self.items = collections.deque(
            item
            for item in schedule.queue(items, self.last)
            if item.name not in self._done
        )
        self._reckoned = self._monotonic()
        self._took = self._reckoned - began

    def is_old(self) -> bool:
        """Whether it is time to refresh it."""
        pause = max(_REQUEUE_SECONDS, BOOKS_FACTOR * self._took)
        return self._monotonic() - self._reckoned > pause

    def job(self) -> jobs.Job | None:
        """Give the first file; None if somebody has read it meanwhile."""
        file = self._files[self.items[0].name]
        entry = recalling.entry_of(file, self._state)
        now = self._clock()
        if self._item(entry, now).due > 0:
            return None
        return job_of(file, entry.known, self._state, now, self._settings.host)

    def pop(self) -> None:
        """Be through with the first file."""
        self._done.add(self.items.popleft().name)

    def remember(self, histories: Mapping[str, sightings.History]) -> bool:
        """Note in the state what must not be lost with a ledger.

        Where only scrubs run, no pass does.

        :param histories: by name
        :returns: whether that could be done
        """
        found = {
            self._files[name]: history
            for name, history in histories.items()
            if name in self._files
        }
        now = self._clock()
        failure = note_histories(self._layout, found, self._state, now)
        if failure is not None:
            LOG.warning('[P13] %s', failure)
        return failure is None

    def rates(self, read: int) -> tuple[float, float]:
        """Say how fast to read so as to be through in time.

        :param read: bytes that were read of the first file
        :returns: bytes per second at most, 0 for no limit; and those below
            which it does not yield
        """
        first = self.items[0]
        rest = first._replace(size=max(0, first.size - read))
        due = [rest, *itertools.islice(self.items, 1, None)]
        limit = self._settings.scrub_bandwidth
        elapsed = self._monotonic() - self._reckoned
        return (
            schedule.rate(due, limit, elapsed),
            schedule.needed(due, limit, elapsed),
        )

    def _item(
        self, entry: schedule.Entry, now: clocks.Instant
    ) -> schedule.Item:
        interval = self._settings.checksum_interval
        return schedule.due_in(entry, interval, now, self._settings.host)

    def _sight(self) -> states.State:
        try:
            return states.sight(
                self._layout, self._clock(), self._files.values()
            )
        except (errors.Error, OSError) as error:
            # A pass makes it good; what has a ledger is read all the same.
            LOG.warning('[P13] %s: %s', self._layout.state, error)
            return states.State()
