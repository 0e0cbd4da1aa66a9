# SPDX-License-Identifier: Apache-2.0

"""What should be below instances_path, and is not: a mount, a guest."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import os
from typing import NamedTuple

from nova_imagecache.cache import inventories
from nova_imagecache.cache import mounts
from nova_imagecache import names
from nova_imagecache.witnesses import owners
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing

Reason = vetoing.Reason

# So many disks do not go at once without anybody's knowledge.
_MANY = 3

_SHOWN = 3


class Absence(NamedTuple):
    """Something that is not where it should be.

    :ivar roots: where the disks are that are gone with it
    """

    veto: vetoing.Veto
    roots: tuple[str, ...] = ()

    def has(self, path: str) -> bool:
        """Whether a disk is gone with it."""
        return any(path.startswith(f'{root}{os.sep}') for root in self.roots)


def inventory_of(
    instances: str,
    disks: Mapping[str, inventories.Seen],
    links: Collection[str],
) -> inventories.Inventory:
    """Put together what there is to remember.

    :param links: paths of the directories that are links
    """
    return inventories.Inventory(
        _inode(instances),
        mounts.mount_point(instances),
        _mounts_of(
            instances, {path.rpartition(os.sep)[0] for path in disks}, links
        ),
        disks,
    )


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f'{directory}{os.sep}')


def _mounts_of(
    instances: str, directories: set[str], links: Collection[str]
) -> tuple[str, ...]:
    """Give the mount points that these are on, but for the one of them all."""
    real = os.path.realpath(instances)
    found: set[str | None] = {
        point
        for point in mounts.below(instances)
        if any(
            _is_below(each, instances + point.removeprefix(real))
            for each in directories
        )
    }
    for link in links:
        # An instance's whole directory may be a link to another disk.
        whole = os.path.dirname(link) == instances
        if whole and any(_is_below(each, link) for each in directories):
            found.add(mounts.mount_point(link))
    found -= {None, mounts.mount_point(instances)}
    return tuple(sorted(filter(None, found)))


def _is_mounted(point: str) -> bool:
    now = mounts.mount_point(point)
    return now is None or now == point


def _missing_mounts(
    instances: str, inventory: inventories.Inventory
) -> Iterable[Absence]:
    was = inventory.mount
    # The same directory may be shown elsewhere, as in a container.
    moved = inventory.root != _inode(instances)
    if was and moved and os.path.lexists(was) and not _is_mounted(was):
        yield Absence(
            vetoing.Veto(
                Reason.MISSING_MOUNT,
                was,
                'a file system was mounted here in the last pass, and is '
                'not now',
            ),
            (instances,),
        )
    for point in inventory.mounts:
        if os.path.isdir(point) and not _is_mounted(point):
            yield Absence(
                vetoing.Veto(
                    Reason.MISSING_MOUNT,
                    point,
                    'a file system with disks of guests was mounted here in '
                    'the last pass, and is not now',
                ),
                tuple(_shown_at(instances, inventory.disks, point)),
            )


def _shown_at(
    instances: str, disks: Collection[str], point: str
) -> Iterable[str]:
    """Give the paths at which a mount point is shown, or what is on it."""
    real = os.path.realpath(instances)
    if _is_below(point, real):
        yield instances + point.removeprefix(real)
    for owner in {owners.owner_of(instances, path) for path in disks}:
        for suffix in ('', *owners.SUFFIXES):
            link = os.path.join(instances, owner + suffix)
            if os.path.islink(link) and _is_below(
                os.path.realpath(link), point
            ):
                yield link


def _is_there(place: str, directories: Collection[str]) -> bool:
    return any(
        f'{place}{suffix}' in directories or os.path.lexists(place + suffix)
        for suffix in ('', *owners.SUFFIXES)
    )


def _missing_guests(
    instances: str,
    inventory: inventories.Inventory,
    others: testimonies.Testimony,
    directories: Collection[str],
    found: Collection[str],
) -> Iterable[Absence]:
    if not others.expected:
        return
    having = {owners.owner_of(instances, path) for path in found}
    remembered: dict[str, dict[str, inventories.Seen]] = {}
    for path, seen in inventory.disks.items():
        owner = owners.owner_of(instances, path)
        remembered.setdefault(owner, {})[path] = seen
    for guest, called in sorted(others.expected.items()):
        places = [os.path.join(instances, name) for name in sorted(called)]
        disks = {
            path: seen
            for name in called
            for path, seen in remembered.get(name, {}).items()
        }
        there = any(_is_there(each, directories) for each in places)
        lost = having.isdisjoint(called) and _are_lost(disks)
        if not places or (there and not lost):
            continue
        keeps = others.known.get(guest)
        if keeps is not None:
            keeps = keeps.union(*(seen.needs for seen in disks.values()))
        if any(seen.astray for seen in disks.values()):
            keeps = None
        shown = names.printable(guest)
        problem = (
            f'the disks of guest {shown} of this host were here in the last '
            'pass, and none is now'
            if there
            else f'it is the directory of guest {shown} of this host, and is '
            'not there'
        )
        yield Absence(
            vetoing.Veto(
                Reason.MISSING_DISK,
                os.path.join(instances, guest),
                problem,
                keeps,
            ),
            tuple(places),
        )


def _are_lost(disks: Mapping[str, inventories.Seen]) -> bool:
    """Whether disks are gone, as where something is mounted over them."""
    return any(seen.needs for seen in disks.values()) and not any(
        map(os.path.lexists, disks)
    )


def _all_missing(instances: str, guests: Collection[str]) -> Absence:
    """Say so where it is the place that is missing, and not a guest."""
    shown = [*map(names.printable, sorted(guests)[:_SHOWN])]
    more = len(guests) - len(shown)
    listed = ', '.join(shown) + (f' and {more} more' if more else '')
    return Absence(
        vetoing.Veto(
            Reason.MISSING_MOUNT,
            instances,
            f'it has the directory of no guest of this host ({listed})',
        ),
        (instances,),
    )


def _lost(
    instances: str,
    inventory: inventories.Inventory,
    others: testimonies.Testimony,
    found: Mapping[str, inventories.Seen],
) -> int:
    """Count the disks that have all gone, and nobody says why."""

    def is_expected(path: str) -> bool:
        if others.expected is None:
            return True
        owner = owners.owner_of(instances, path)
        return others.aliases.get(owner, owner) in others.expected

    if any(
        seen.needs and _is_inside(instances, path)
        for path, seen in found.items()
    ):
        return 0
    before = [
        seen
        for path, seen in inventory.disks.items()
        if _is_inside(instances, path) and is_expected(path)
    ]
    if not any(_is_inside(instances, path) for path in found):
        return len(before)
    return sum(bool(seen.needs) for seen in before)


def _is_inside(instances: str, path: str) -> bool:
    """Whether a disk is in a directory, as those that Nova makes."""
    return os.path.dirname(path) != instances


def find(
    instances: str,
    inventory: inventories.Inventory,
    others: testimonies.Testimony,
    directories: Collection[str],
    found: Mapping[str, inventories.Seen],
) -> tuple[Absence, ...]:
    """Say what is missing.

    :param inventory: what the last pass of this host has found
    :param others: what is said of the guests that this host has
    :param directories: those that were listed
    :param found: disks that were
    """
    absent = [*_missing_mounts(instances, inventory)]
    guests = [
        *_missing_guests(instances, inventory, others, directories, found)
    ]
    expected = {
        guest for guest, called in (others.expected or {}).items() if called
    }
    if (
        guests
        and len(guests) == len(expected)
        and not any(_is_inside(instances, path) for path in found)
    ):
        absent.append(_all_missing(instances, expected))
    else:
        absent += guests
    lost = _lost(instances, inventory, others, found)
    if lost >= _MANY:
        absent.append(
            Absence(
                vetoing.Veto(
                    Reason.MISSING_MOUNT,
                    instances,
                    'there is no disk of a guest that needs anything, and '
                    f'there were {lost} disks in the last pass',
                ),
                (instances,),
            )
        )
    return tuple(absent)
