# SPDX-License-Identifier: Apache-2.0

"""The turn to read for whom a person waits, and who has it now."""

from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import os

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.scrub import activities

LOG = logging.getLogger(__name__)

# For which a person waits while a scrub finishes the block it is at. One that
# reads slowly takes four seconds for it.
_PATIENCE_SECONDS = 30

# How often what it does is noted, so that status has it.
_NOTE_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Reading:
    """What somebody reads for whom a person waits.

    :ivar command: which asked for it
    :ivar host: on which it runs
    :ivar updated: when this was noted
    :ivar current: the file that it is at
    :ivar passed: bytes that are behind it, holes included
    :ivar size: bytes of all files that it is to go through; 0 where that is
        not known
    """

    command: str
    host: str
    started: clocks.Instant
    updated: clocks.Instant
    current: str | None = None
    passed: int = 0
    size: int = 0


_FORMAT = records.Format('reading', 1, Reading, lasting=False, durable=False)


class Turn:
    """A turn that somebody has, and what is noted of it."""

    def __init__(
        self, layout: layouts.Layout, reading: Reading, clock: clocks.Clock
    ) -> None:
        """Note it."""
        self._layout = layout
        self._reading = reading
        self._clock = clock
        self._note()

    def expect(self, size: int) -> None:
        """Say how many bytes there are to go through."""
        self._reading = dataclasses.replace(self._reading, size=size)

    def at(self, name: str) -> None:
        """Say which file comes now."""
        self._reading = dataclasses.replace(self._reading, current=name)
        self._note_at_times()

    def passed(self, length: int) -> None:
        """Say that so many bytes more are behind it."""
        passed = self._reading.passed + length
        self._reading = dataclasses.replace(self._reading, passed=passed)
        self._note_at_times()

    def end(self) -> None:
        """Forget it."""
        with contextlib.suppress(OSError):
            os.unlink(self._layout.reading)

    def _note_at_times(self) -> None:
        silent = clocks.elapsed(self._reading.updated, self._clock())
        if silent >= _NOTE_SECONDS:
            self._note()

    def _note(self) -> None:
        self._reading = dataclasses.replace(
            self._reading, updated=self._clock()
        )
        # Nothing depends on it, and the cache may be read-only.
        with contextlib.suppress(OSError):
            _FORMAT.save(self._layout, self._layout.reading, self._reading)


def load(layout: layouts.Layout) -> Reading | None:
    """Say what is read now for whom a person waits; None for nothing.

    It may be dead, so this counts where somebody has the turn to read.
    """
    try:
        found = _FORMAT.load(layout.reading)
    except (errors.Damaged, errors.Newer, OSError):
        return None
    scrub = activities.load(layout)
    if found is None or scrub is None:
        return found
    # What was killed has left its note, and a scrub came after it.
    later = clocks.elapsed(found.started, scrub.started) > 0
    return None if later and scrub.ended is None else found


@contextlib.contextmanager
def urgent(
    settings: Settings,
    command: str,
    name: str | None = None,
    clock: clocks.Clock = clocks.now,
) -> Iterator[Turn]:
    """Be the only one who reads; who is at it gives way, or is named.

    :param command: that a person waits for
    :param name: the file that it is about, if it is about one
    :raises nova_imagecache.errors.NotNow: somebody does not give way
    """
    layout = layouts.Layout.of(settings)
    coordinator = coordination.coordinator(layout)
    with contextlib.ExitStack() as stack:
        if coordinator.taken():
            LOG.warning(
                '[N24] Another one reads base files (%(who)s); it is waited '
                'for, for %(patience)d s at most',
                {
                    'who': _who(layout, clock()) or 'nobody knows who',
                    'patience': _PATIENCE_SECONDS,
                },
            )
        try:
            stack.enter_context(coordinator.urgent_turn(_PATIENCE_SECONDS))
        except errors.Locked as error:
            who = _who(layout, clock())
            if who is None:
                raise
            raise errors.Locked(f'{error}: {who}') from None
        now = clock()
        activities.end_dead(layout, now)
        reading = Reading(command, settings.host, now, now, name)
        turn = Turn(layout, reading, clock)
        stack.callback(turn.end)
        yield turn


def _who(layout: layouts.Layout, now: clocks.Instant) -> str | None:
    """Say who reads, what it is at, and since when nothing was heard of it."""
    reading = load(layout)
    scrub = activities.load(layout)
    if reading is not None:
        what, last = reading.command, reading.updated
        host, current = reading.host, reading.current
    elif scrub is not None and scrub.ended is None:
        what, last = 'the scrub', scrub.updated
        host, current = scrub.host, scrub.current
    else:
        return None
    at = f' is at {names.printable(current)} and' if current else ''
    return (
        f'{names.printable(what)} of host {names.printable(host)}{at} has '
        f'noted progress {clocks.elapsed(last, now):.0f} s ago'
    )
