# SPDX-License-Identifier: Apache-2.0

"""Whether a pass is likely to remove files, before it has looked.

A pure function. Then it need not glance before it looks closely (decision
0085); where this is wrong, a pass takes longer and does the same.
"""

from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache import names
from nova_imagecache.passes import decide


def removes(
    state: states.State, now: clocks.Instant, settings: Settings
) -> bool:
    """Whether a file has become old enough to go since the last pass.

    What was old enough before had a reason to stay, and may have it still.

    :param state: as it was left
    """
    last = state.last_passes.get(settings.host)
    if not settings.remove_unused or last is None:
        return False
    used = frozenset[str]().union(*state.used.values())
    return any(
        last.wall < _old_enough(sighting, name, settings) <= now.wall
        for name, sighting in state.files.items()
        if name not in used
    )


def _old_enough(
    sighting: sightings.Sighting, name: str, settings: Settings
) -> float:
    """Say when a file without a user goes, in seconds since the epoch."""
    if sighting.trashed:
        least = max(settings.retention, decide.FLOOR_SECONDS)
        return sighting.trashed.wall + least
    least = decide.minimum_age(names.kind_of(name), settings)
    return max(sighting.seen.wall, sighting.last_used or 0) + least
