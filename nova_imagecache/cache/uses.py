# SPDX-License-Identifier: Apache-2.0

"""Uses of base files that are noted between two passes."""

from collections.abc import Collection
import dataclasses

from oslo_log import log as logging

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache import errors

LOG = logging.getLogger(__name__)


def _last_used(state: states.State, file: base_file.BaseFile) -> float | None:
    sighting = state.sighting(file)
    return sighting.last_used if sighting else None


def used_since(
    layout: layouts.Layout,
    files: Collection[base_file.BaseFile],
    state: states.State,
) -> frozenset[str]:
    """Tell which files had a use noted after a state was read.

    Cheap, as it is asked before each removal: usually nothing was written.
    Times are not compared, as they may be those of another host.

    :returns: their names; all of them where this cannot be told
    :raises OSError: the state cannot be read
    """
    if states.version_of(layout) == state.version:
        return frozenset()
    try:
        current = states.load(layout)
    except errors.Damaged:
        return frozenset(file.name for file in files)
    return frozenset(
        file.name
        for file in files
        if _last_used(current, file) not in (None, _last_used(state, file))
    )


def note_use(layout: layouts.Layout, name: str, now: clocks.Instant) -> None:
    """Remember that a file is used now, where touching it is refused.

    Best effort, as touching is: what cannot be written is not remembered.
    """
    try:
        file = base_file.BaseFile.named(layout, name)

        def add(state: states.State) -> states.State:
            old = state.sighting(file)
            sighting = sightings.updated(file, old, now, used=True)
            return dataclasses.replace(
                state, files={**state.files, name: sighting}
            )

        states.amend(layout, add)
    except (errors.Error, OSError) as error:
        LOG.warning(
            'The use of base file %(name)s can be noted neither in its '
            'timestamp nor in %(state)s: %(error)s',
            {'name': name, 'state': layout.state, 'error': error},
        )
