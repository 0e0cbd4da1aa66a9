# SPDX-License-Identifier: Apache-2.0

"""What the last scrub of a cache does, or has done."""

import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import records
from nova_imagecache import clock as clocks
from nova_imagecache import errors

_KIND = 'scrub'
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Activity:
    """One scrub.

    :ivar host: on which it runs
    :ivar updated: when this was noted
    :ivar ended: None while it is at work, and when it was killed
    :ivar reason: why it ended
    :ivar rate: bytes per second at which it reads at most, 0 for no limit
    :ivar read: bytes that it has read
    :ivar files: that it is through with
    :ivar queue: files that come after the current one
    :ivar current: the file that it is at
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


def load(layout: layouts.Layout) -> Activity | None:
    """Read what the last scrub noted; None where that is not to be had.

    Nothing depends on it, so a damaged record is as good as none.
    """
    try:
        body = records.load(layout.scrub, _KIND, _VERSION)
        if body is None:
            return None
        ended, reason = body['ended'], body['reason']
        current = body['current']
        return Activity(
            host=str(body['host']),
            started=clocks.decode_instant(body['started']),
            updated=clocks.decode_instant(body['updated']),
            ended=None if ended is None else clocks.decode_instant(ended),
            reason=None if reason is None else str(reason),
            rate=float(body['rate']),
            read=int(body['read']),
            files=int(body['files']),
            queue=int(body['queue']),
            current=None if current is None else str(current),
            problems=tuple(map(str, body['problems'])),
        )
    except (errors.Damaged, OSError, KeyError, TypeError, ValueError):
        return None


def save(layout: layouts.Layout, activity: Activity) -> None:
    """Note what a scrub does.

    :raises OSError: it was not noted
    """
    records.save(
        layout, layout.scrub, _KIND, _VERSION, dataclasses.asdict(activity)
    )
