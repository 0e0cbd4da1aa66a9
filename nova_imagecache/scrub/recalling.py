# SPDX-License-Identifier: Apache-2.0

"""What the schedule is told of a base file.

Apart from the queue, as who looks reads none of it (decision 0084).
"""

from nova_imagecache.cache import base_file
from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache.scrub import schedule


def entry_of(file: base_file.BaseFile, state: states.State) -> schedule.Entry:
    """Recall what is known of the content of a base file."""
    sighting = state.sighting(file)
    return schedule.Entry(
        name=file.name,
        size=file.stat.allocated,
        known=knowledge.recall(file).remembering(sighting),
        seen=sighting.seen if sighting else None,
    )
