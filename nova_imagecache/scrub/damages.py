# SPDX-License-Identifier: Apache-2.0

"""Noting damage, and its end, where that is found (decision 0096)."""

import logging

from nova_imagecache.cache import base_file
from nova_imagecache import clocks
from nova_imagecache.content import incidents
from nova_imagecache.content import knowledge
from nova_imagecache import errors

LOG = logging.getLogger(__name__)


def _sight(
    known: knowledge.Knowledge,
    finding: knowledge.Finding,
    before: knowledge.Knowledge,
    image: str | None,
) -> incidents.Sight:
    bad = known.ledger.bad_ranges if known.ledger else ()
    return incidents.Sight(
        str(finding.verdict),
        image or (known.ledger.image if known.ledger else None),
        before.last_good,
        tuple((each.start, each.end) for each in bad),
        key=known.key,
    )


def note(
    file: base_file.BaseFile,
    before: knowledge.Knowledge,
    finding: knowledge.Finding,
    now: clocks.Instant,
    image: str | None = None,
) -> None:
    """Note that a file was found to be bad, or good again, if it was.

    At once, as the next pass may be long in coming, and does not know when it
    was good last. Whom it hits is for whoever looks at guests. A failure is
    logged.

    :param before: what was known of it before
    :param image: that it was made from, where somebody has said so
    """
    is_good = finding.verdict is knowledge.Verdict.GOOD
    # Of nearly all files it is no news.
    was_good = before.finding.verdict is knowledge.Verdict.GOOD
    if finding.skipped or not (finding.harmful or (is_good and not was_good)):
        return
    known = knowledge.recall(file)
    damaged, good = {}, {}
    if is_good:
        good[file.name] = incidents.Good.of(known)
    else:
        damaged[file.name] = _sight(known, finding, before, image)
    try:
        incidents.note(file.layout, damaged, good, None, now.wall)
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[P13] Incidents cannot be noted in %(path)s: %(error)s',
            {'path': file.layout.incidents, 'error': error},
        )
