# SPDX-License-Identifier: Apache-2.0

"""What a disk that could not be looked at may need, and no more.

Known is what its guest may need, and what each disk needed when it was read
last (decision 0079).
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import os

from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import inventories
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import needs
from nova_imagecache.witnesses import owners
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing

Reason = vetoing.Reason

# It stands on the image that the guest is rescued with.
_RESCUE = '.rescue'


@dataclasses.dataclass
class Narrowed:
    """What is left of what could not be looked at.

    :ivar vetoes: as narrow as they can be
    :ivar ignored: paths that are no disks, on somebody's word
    :ivar unchanged: paths of which is known what they need
    :ivar recalled: disks as they were when they were read last, by path
    """

    vetoes: list[vetoing.Veto] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    unchanged: list[str] = dataclasses.field(default_factory=list)
    recalled: dict[str, inventories.Seen] = dataclasses.field(
        default_factory=dict
    )


def _is_unchanged(path: str, seen: inventories.Seen) -> bool:
    try:
        return seen.is_unchanged(os.stat(path))
    except OSError:
        return False


def narrow(
    failed: Iterable[vetoing.Veto],
    instances: str,
    memory: memories.Memory,
    others: testimonies.Testimony,
    claims: Mapping[str, Collection[str]],
) -> Narrowed:
    """Have what could not be looked at keep what it may need.

    :param instances: the guests have their directories in it
    :param others: what the other witnesses have said
    :param claims: the guests that have a file as their disk, or a part of it,
        whoever has the directory that it is in; by its path
    """
    narrowed = Narrowed()
    failed = [*failed]
    if not failed:
        return narrowed
    remembered: dict[str, dict[str, inventories.Seen]] = {}
    for path, seen in memory.inventory.disks.items():
        guest = _guest(instances, path, others)
        remembered.setdefault(guest, {})[path] = seen
    for veto in failed:
        path = veto.subject
        if ignored_files.holds(memory.marks, path):
            narrowed.ignored.append(path)
            continue
        was = memory.inventory.disks.get(path)
        if was is not None and veto.reason is Reason.UNREADABLE:
            narrowed.recalled[path] = was
            if _is_unchanged(path, was) and not was.astray:
                narrowed.unchanged.append(path)
                continue
        disks = remembered.get(_guest(instances, path, others), {})
        keeps = _keeps(veto, instances, others, disks)
        for guest in claims.get(path, ()):
            known = others.known.get(others.aliases.get(guest, guest))
            if keeps is not None:
                keeps = None if known is None else keeps | known
        if keeps is not None:
            narrowed.recalled |= disks
        narrowed.vetoes.append(veto._replace(keeps=keeps))
    return narrowed


def _guest(instances: str, path: str, others: testimonies.Testimony) -> str:
    owner = owners.owner_of(instances, path)
    return others.aliases.get(owner, owner)


def _keeps(
    veto: vetoing.Veto,
    instances: str,
    others: testimonies.Testimony,
    disks: dict[str, inventories.Seen],
) -> needs.Needs | None:
    """Say what a disk of a known guest may need; None for anything.

    Not where the guest stands on something that somebody has put together by
    hand, or is rescued with another image.

    :param disks: those of the guest, as they were read last
    """
    path = veto.subject
    if veto.reason is Reason.OUT_OF_SIGHT or path.endswith(_RESCUE):
        return None
    if not path.startswith(instances + os.sep):
        return None
    known = others.known.get(_guest(instances, path, others))
    if known is None or any(seen.astray for seen in disks.values()):
        return None
    return known.union(*(seen.needs for seen in disks.values()))
