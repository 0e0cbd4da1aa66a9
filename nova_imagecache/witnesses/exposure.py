# SPDX-License-Identifier: Apache-2.0

"""What the damage in a base file does to the guests that use it."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import stat

from nova_imagecache.cache import identity
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import disk_header
from nova_imagecache.witnesses import qcow2_map

# Extents that are looked at for one base file, shared by the disks over it, of
# which each has some; and layers of one disk. What is beyond that is unknown
# (decision 0026), and nobody would read such a list.
_MOST_EXTENTS = 50000
_EXTENTS_EACH = 256
_MOST_LAYERS = 32

Effect = qcow2_map.Effect
Extent = qcow2_map.Extent


@dataclasses.dataclass(frozen=True)
class Exposure:
    """One disk of a guest, and how it fares with bad bytes of its base file.

    :ivar disk: name of the disk that does
    :ivar extents: the bad bytes that the guest can see, in order
    """

    guest: str
    disk: str
    extents: tuple[Extent, ...]


def _merged(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    merged: list[Extent] = []
    for extent in extents:
        last = merged[-1] if merged else None
        if last and (last.end, last.effect) == (extent.start, extent.effect):
            merged[-1] = Extent(last.start, extent.end, extent.effect)
        else:
            merged.append(extent)
    return tuple(merged)


class _Budget:
    """How much may still be looked at."""

    def __init__(self, disks: int) -> None:
        self.left = max(_MOST_EXTENTS // disks, _EXTENTS_EACH)

    def spend(self, extents: Iterable[Extent]) -> Iterator[Extent]:
        for extent in extents:
            self.left -= 1
            if self.left < 0:
                raise qcow2_map.NoMap('there is too much of it')
            yield extent


def _through(
    layers: Sequence[qcow2_map.Map], start: int, end: int, budget: _Budget
) -> list[Extent]:
    """Follow a range down the layers of a disk, the top one first."""
    if not layers:
        return [Extent(start, end, Effect.READS_THROUGH)]
    found = []
    for extent in _merged(budget.spend(layers[0].extents(start, end))):
        if extent.effect is Effect.READS_THROUGH:
            found += _through(layers[1:], extent.start, extent.end, budget)
        else:
            found.append(extent)
    return found


def _open_layers(
    chain: chains.Chain, stack: contextlib.ExitStack
) -> list[qcow2_map.Map]:
    if len(chain.paths) > _MOST_LAYERS:
        raise qcow2_map.NoMap('it has too many layers')
    layers = []
    for path in chain.paths:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise qcow2_map.NoMap('it is not a regular file')
        layers.append(qcow2_map.Map(fd))
    return layers


def _expose(
    chain: chains.Chain,
    ranges: Sequence[tuple[int, int]],
    budget: _Budget,
) -> tuple[Extent, ...]:
    found: list[Extent] = []
    try:
        with contextlib.ExitStack() as stack:
            layers = _open_layers(chain, stack)
            for start, end in ranges:
                found += _through(layers, start, end, budget)
    except (OSError, qcow2_map.NoMap):
        # From the first to the last: there may be very many.
        return (Extent(ranges[0][0], ranges[-1][1], Effect.UNKNOWN),)
    return _merged(found)


def made_before(
    base_file: identity.Stat, disks: Sequence[chains.Chain]
) -> set[str]:
    """Name the guests that have a disk older than the file it stands on.

    One whose age cannot be told is taken for older.
    """
    return {chain.guest for chain in disks if _is_older(chain, base_file)}


def _is_older(chain: chains.Chain, base_file: identity.Stat) -> bool:
    born = base_file.incarnation.born
    try:
        made = identity.stat_of(chain.paths[-1]).incarnation.born
    except OSError:
        return True
    return born is None or made is None or made < born


def expose(
    base_file: str,
    ranges: Sequence[tuple[int, int]],
    disks: Sequence[chains.Chain],
) -> list[Exposure]:
    """Say how each guest fares with bad bytes in a base file.

    From what is on the disk: a running guest may have written more than its
    QEMU has noted there.

    :param base_file: its path
    :param ranges: first byte, and the one after the last
    :param disks: those that lead to it
    :returns: nothing where the base file is not raw, as the offsets in it are
        not those that guests see
    """
    try:
        fd = identity.open_regular(base_file)
        try:
            raw = disk_header.read_header(fd).format == 'raw'
        finally:
            os.close(fd)
    except (OSError, disk_header.MalformedHeader):
        raw = False
    if not raw:
        return []
    return [
        Exposure(
            chain.guest,
            os.path.basename(chain.paths[0]),
            _expose(chain, ranges, _Budget(len(disks))),
        )
        for chain in disks
    ]
