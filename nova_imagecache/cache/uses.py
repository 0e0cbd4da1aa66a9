# SPDX-License-Identifier: Apache-2.0

"""Uses that need not be written anew in each pass: pure functions.

Most files are used in one pass as in the one before. So it is noted once which
those are, and in each pass only when that was (decision 0087).
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import operator

import msgspec

from nova_imagecache.cache import sightings

_beside_uses = operator.attrgetter(
    *(
        name
        for name in sightings.Sighting.__struct_fields__
        if name not in ('last_used', 'modified')
    )
)

#: By host: the files that had a user in its last pass.
Used = Mapping[str, frozenset[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Files that had a user in the last passes of some hosts, as on the disk.

    :ivar hosts: their names, sorted
    :ivar files: names, sorted
    """

    hosts: tuple[str, ...]
    files: tuple[str, ...]


def completed(
    files: Mapping[str, sightings.Sighting],
    used: Used,
    passed: Mapping[str, float],
) -> dict[str, sightings.Sighting]:
    """Add the uses that the last passes of hosts have seen.

    :param files: sightings as they were written
    :param passed: when each host made its last pass
    """
    last = _last_uses(used, passed)
    return {
        name: msgspec.structs.replace(sighting, last_used=last[name])
        if name in last and _adds(last[name], sighting)
        else sighting
        for name, sighting in files.items()
    }


def _last_uses(used: Used, passed: Mapping[str, float]) -> dict[str, float]:
    """Say of each file when it was last used in the last pass of a host."""
    found: dict[str, float] = {}
    for host in sorted(used.keys() & passed.keys(), key=passed.__getitem__):
        found.update(dict.fromkeys(used[host], passed[host]))
    return found


def _adds(when: float, sighting: sightings.Sighting) -> bool:
    return sighting.last_used is None or sighting.last_used < when


def settled(
    files: Mapping[str, sightings.Sighting],
    used: Used,
    passed: Mapping[str, float],
) -> dict[str, frozenset[str]]:
    """Leave out the hosts whose last passes would add to these sightings.

    They are later than what was noted since, by a clock that was ahead.
    """
    return {
        host: names
        for host, names in used.items()
        if host not in passed
        or not any(
            _adds(passed[host], files[name]) for name in names & files.keys()
        )
    }


def agree(
    files: Mapping[str, sightings.Sighting],
    written: Mapping[str, sightings.Sighting],
    used: Used,
    passed: Mapping[str, float],
) -> bool:
    """Whether sightings are what others say once these are completed."""
    last = _last_uses(used, passed)
    return files.keys() == written.keys() and all(
        _agree(sighting, written[name], last.get(name))
        for name, sighting in files.items()
    )


def _agree(
    one: sightings.Sighting, other: sightings.Sighting, when: float | None
) -> bool:
    last_used = other.last_used
    if when is not None and _adds(when, other):
        last_used = when
    # Each pass touches what is used, and of an mtime that is not ahead nobody
    # asks what it was.
    ahead = one.ahead or other.ahead
    return (
        (one.modified == other.modified or not ahead)
        and one.last_used == last_used
        and _beside_uses(one) == _beside_uses(other)
    )


def grouped(used: Used, order: Iterable[str], limit: int) -> tuple[Group, ...]:
    """Give what is to be written, with what several hosts use once.

    :param order: names of hosts, the one first that is to be kept in any case
    :param limit: names of files at most, beside those of the first one. What
        a host uses is written again in its next pass where it is left out.
    """
    hosts: dict[frozenset[str], list[str]] = {}
    left = limit
    for host in order:
        files = used.get(host)
        if files is None:
            continue
        if hosts and files not in hosts:
            if len(files) > left:
                continue
            left -= len(files)
        hosts.setdefault(files, []).append(host)
    return tuple(
        Group(tuple(sorted(names)), tuple(sorted(files)))
        for files, names in hosts.items()
    )


def spread(groups: Iterable[Group]) -> dict[str, frozenset[str]]:
    """Give by host what was written."""
    return {
        host: files
        for group in groups
        for files in [frozenset(group.files)]
        for host in group.hosts
    }
