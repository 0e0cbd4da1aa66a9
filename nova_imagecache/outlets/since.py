# SPDX-License-Identifier: Apache-2.0

"""Damage that was noted since the last pass: pure functions."""

from collections.abc import Iterable
import dataclasses

from nova_imagecache.content import incidents
from nova_imagecache import names
from nova_imagecache.outlets import summaries


def with_incidents(
    summary: summaries.Summary, known: Iterable[incidents.Incident]
) -> summaries.Summary:
    """Give figures with the damage that was found or has ended since.

    Whoever finds it notes it at once, and the next pass may be long in coming
    (decision 0096).
    """
    damage = dict(summary.damage)
    damaged = {each.name: each for each in summary.damaged}
    for each in known:
        name = names.printable(each.name)
        if each.ended is None and each.found > summary.ended:
            if name not in damaged:
                damaged[name] = new = _damaged_since(each)
                _count(damage, new, 1)
        elif each.ended is not None and each.ended > summary.ended:
            old = damaged.get(name)
            if old is not None and old.verdict != summaries.MADE_ANEW:
                del damaged[name]
                _count(damage, old, -1)
    worst = sorted(damaged.values(), key=lambda each: not each.readers)
    return dataclasses.replace(
        summary,
        damage=damage,
        damaged=tuple(worst[: summaries.MOST_NAMED]),
        unnamed=summary.unnamed + max(0, len(worst) - summaries.MOST_NAMED),
    )


def _damaged_since(incident: incidents.Incident) -> summaries.Damaged:
    return summaries.Damaged(
        names.printable(incident.name),
        incident.image,
        incident.verdict,
        'it was found so since the last pass',
        sum(end - start for start, end in incident.ranges),
        len(incident.guests),
        incident.guests[: summaries.MOST_GUESTS],
        incident.image_name,
    )


def _count(
    damage: dict[str, summaries.Amount], file: summaries.Damaged, number: int
) -> None:
    before = damage.get(file.verdict, summaries.Amount())
    damage[file.verdict] = summaries.Amount(
        max(0, before.files + number),
        max(0, before.bytes + number * file.bytes),
    )
