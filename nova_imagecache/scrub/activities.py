# SPDX-License-Identifier: Apache-2.0

"""What the last scrub of a cache does, or has done."""

import contextlib
import dataclasses
import datetime

from nova_imagecache.cache import layouts
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache import errors
from nova_imagecache import names

# A block takes seconds, however slow the disk is.
_STALLED_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Activity:
    """One scrub.

    :ivar host: on which it runs
    :ivar updated: when this was noted
    :ivar ended: None while it is at work, and when it was killed
    :ivar reason: why it ended
    :ivar rate: bytes per second at which it reads at most, 0 for no limit
    :ivar read: bytes that it has read
    :ivar total: bytes that all scrubs of the cache have read
    :ivar files: that it is through with
    :ivar queue: files that come after the current one
    :ivar current: the file that it is at; once it is no more, the one at which
        it was killed, or at which a read hung
    :ivar problems: what somebody has to look into, a sentence each
    """

    host: str
    started: clocks.Instant
    updated: clocks.Instant
    ended: clocks.Instant | None = None
    reason: str | None = None
    rate: float = 0
    read: int = 0
    files: int = 0
    queue: int = 0
    current: str | None = None
    problems: tuple[str, ...] = ()
    total: int = 0


def stalled(
    activity: Activity | None, taken: bool, now: clocks.Instant
) -> str | None:
    """Say that a scrub holds its turn and gets nowhere, if one does.

    :param taken: whether somebody has the turn to read
    """
    if activity is None or activity.ended is not None or not taken:
        return None
    silent = clocks.elapsed(activity.updated, now)
    if silent < _STALLED_SECONDS:
        return None
    since = datetime.datetime.fromtimestamp(
        activity.updated.wall, datetime.UTC
    ).isoformat(' ', 'minutes')
    at = (
        f', at {names.printable(activity.current)}' if activity.current else ''
    )
    return (
        f'the scrub of host {names.printable(activity.host)} holds its turn '
        f'and has noted no progress for {silent / 60:.0f} min, since '
        f'{since}{at}; nothing is verified until it ends'
    )


def told(activity: Activity | None) -> list[codes.Problem]:
    """Say what a scrub had to leave for somebody to look into."""
    return [
        codes.Problem(codes.Code.NOT_VERIFIED, text, text.partition(': ')[0])
        for text in (activity.problems if activity else ())
    ]


def _from_1(body: records.Values) -> records.Values:
    """Count from the last scrub on."""
    return {**body, 'total': body['read']}


# Noted every few seconds, and guests wait for the disk as well.
_FORMAT = records.Format(
    'scrub',
    2,
    Activity,
    {1: _from_1},
    lasting=False,
    durable=False,
    limit=2**20,
)


def load(layout: layouts.Layout) -> Activity | None:
    """Read what the last scrub noted; None where that is not to be had.

    Nothing depends on it, so a damaged record is as good as none.
    """
    try:
        return _FORMAT.load(layout.scrub)
    except (errors.Damaged, errors.Newer, OSError):
        return None


def save(layout: layouts.Layout, activity: Activity) -> None:
    """Note what a scrub does.

    :raises OSError: it was not noted
    """
    _FORMAT.save(layout, layout.scrub, activity)


def end_dead(layout: layouts.Layout, now: clocks.Instant) -> None:
    """Note that the last scrub is no more, if it could not do so itself.

    The caller has the turn to read, so nobody else is at work.
    """
    last = load(layout)
    if last is not None and last.ended is None:
        # Nothing depends on it.
        with contextlib.suppress(OSError):
            save(
                layout,
                dataclasses.replace(last, ended=now, reason='it was killed'),
            )
