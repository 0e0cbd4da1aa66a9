# SPDX-License-Identifier: Apache-2.0

"""What goes early because the disk is full: pure functions.

The set is planned once, from the bytes that files take on the disk, and not
from what becomes free (decision 0048).
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from oslo_utils import units

from nova_imagecache.conf import Settings


class Space(NamedTuple):
    """How full a file system is, in bytes.

    :ivar used: by anything
    :ivar available: to the service, so without what is reserved for root
    """

    used: int
    available: int

    @property
    def percent(self) -> float:
        """Give the share in use, as df(1) does."""
        return 100 * self.used / ((self.used + self.available) or 1)


class Candidate(NamedTuple):
    """A file that may go early.

    :ivar allocated: bytes that it takes
    :ivar since: seconds since its last use, or since it is in the trash
    """

    name: str
    allocated: int
    since: float


class Plan(NamedTuple):
    """What goes early.

    :ivar names: files that do, in the cache and in the trash
    :ivar problem: why that is not enough, if it is not
    :ivar shortfall: bytes that should go and cannot
    """

    names: frozenset[str] = frozenset()
    problem: str | None = None
    shortfall: int = 0


def _mib(size: float) -> str:
    return f'{size / units.Mi:.0f} MiB'


def excess(
    settings: Settings, space: Space | None, size: int
) -> tuple[int, str]:
    """Say how many bytes are to go, and why; 0 if none are.

    :param size: bytes that the cache takes
    """
    found = [(0, '')]
    high, low = settings.high_watermark, settings.low_watermark
    if high and space is not None and space.percent > high:
        whole = space.used + space.available
        found.append(
            (
                space.used - whole * low // 100,
                f'{space.percent:.0f} % of the disk is in use, more than '
                f'disk_high_watermark_percent, {high} %',
            )
        )
    if settings.max_size and size > settings.max_size:
        found.append(
            (
                size - settings.max_size,
                f'the cache takes {_mib(size)}, more than cache_max_size, '
                f'{_mib(settings.max_size)}',
            )
        )
    return max(found)


def plan(
    need: int,
    reason: str,
    going: int,
    trashed: Iterable[Candidate],
    unused: Iterable[Candidate],
    kept: Mapping[str, int],
) -> Plan:
    """Choose what goes early.

    :param need: bytes that are to go, as :func:`excess` says
    :param going: bytes that go in any case, now or from the trash later
    :param trashed: files in the trash that may be deleted now
    :param unused: files in the cache that may be moved to it
    :param kept: bytes that are kept, by what keeps them
    """
    if not need:
        return Plan()
    chosen = set()
    covered = 0
    # Only from the trash does space become free, and soon.
    for candidate in _oldest(trashed):
        if covered >= need:
            break
        chosen.add(candidate.name)
        covered += candidate.allocated
    covered += going
    for candidate in _oldest(unused):
        if covered >= need:
            break
        chosen.add(candidate.name)
        covered += candidate.allocated
    if covered >= need:
        return Plan(frozenset(chosen))
    holders = ', '.join(
        f'{_mib(size)} {holder}' for holder, size in kept.items() if size
    )
    return Plan(
        frozenset(chosen),
        f'{reason}: {_mib(need)} should go, and {_mib(need - covered)} of '
        f'that cannot; what stays in the cache is {holders or "nothing"}',
        need - covered,
    )


def _oldest(candidates: Iterable[Candidate]) -> Sequence[Candidate]:
    return sorted(candidates, key=lambda each: (-each.since, each.name))
