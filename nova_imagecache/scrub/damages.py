# SPDX-License-Identifier: Apache-2.0

"""Noting damage where it is found (decision 0096)."""

import logging

from nova_imagecache.cache import base_file
from nova_imagecache import clocks
from nova_imagecache.content import incidents
from nova_imagecache.content import knowledge
from nova_imagecache import errors

LOG = logging.getLogger(__name__)


def note(
    file: base_file.BaseFile,
    before: knowledge.Knowledge,
    finding: knowledge.Finding,
    now: clocks.Instant,
    image: str | None = None,
) -> None:
    """Note that a file was found to be bad, if it was; a failure is logged.

    At once, as the next pass may be long in coming, and does not know when it
    was good last. Whom it hits is for whoever looks at guests.

    :param before: what was known of it before
    :param image: that it was made from, where somebody has said so
    """
    if not finding.harmful or finding.skipped:
        return
    known = knowledge.recall(file)
    bad = known.ledger.bad_ranges if known.ledger else ()
    seen = incidents.Sight(
        str(finding.verdict),
        image or (known.ledger.image if known.ledger else None),
        before.last_good,
        tuple((each.start, each.end) for each in bad),
        key=known.key,
    )
    try:
        incidents.note(file.layout, {file.name: seen}, {}, None, now.wall)
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[P13] Incidents cannot be noted in %(path)s: %(error)s',
            {'path': file.layout.incidents, 'error': error},
        )
