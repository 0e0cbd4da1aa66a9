# SPDX-License-Identifier: Apache-2.0

"""What the last scrub of a cache does, or has done."""

import dataclasses

from nova_imagecache.cache import layouts
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache import errors


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


_FORMAT = records.Format('scrub', 1, Activity, lasting=False)


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
