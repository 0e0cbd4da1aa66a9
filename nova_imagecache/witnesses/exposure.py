# SPDX-License-Identifier: Apache-2.0

"""What the damage in a base file does to the guests that use it."""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import stat

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import status as statuses
from nova_imagecache.witnesses import disk_header
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import qcow2_map

# More than this is not looked up for each guest: the answer would be a list
# that nobody reads.
_MOST_BYTES = 64 * 1024 * 1024

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


def _through(
    layers: Sequence[qcow2_map.Map], start: int, end: int
) -> list[Extent]:
    """Follow a range down the layers of a disk, the top one first."""
    if not layers:
        return [Extent(start, end, Effect.READS_THROUGH)]
    found = []
    for extent in layers[0].extents(start, end):
        if extent.effect is Effect.READS_THROUGH:
            found += _through(layers[1:], extent.start, extent.end)
        else:
            found.append(extent)
    return found


def _expose(
    chain: overlays.Chain, ranges: Sequence[tuple[int, int]]
) -> tuple[Extent, ...]:
    found: list[Extent] = []
    left = _MOST_BYTES
    with contextlib.ExitStack() as stack:
        try:
            layers = []
            for path in chain.paths:
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(path, flags)
                stack.callback(os.close, fd)
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise qcow2_map.NoMap('it is not a regular file')
                layers.append(qcow2_map.Map(fd))
            for start, end in ranges:
                seen = min(end, start + left)
                left -= seen - start
                found += _through(layers, start, seen)
                if seen < end:
                    found.append(Extent(seen, end, Effect.UNKNOWN))
        except (OSError, qcow2_map.NoMap):
            found = [
                Extent(start, end, Effect.UNKNOWN) for start, end in ranges
            ]
    return _merged(found)


def expose(
    layout: layouts.Layout,
    base_file: str,
    ranges: Sequence[tuple[int, int]],
    chains: Iterable[overlays.Chain],
) -> list[Exposure]:
    """Say how each guest fares with bad bytes in a base file.

    From what is on the disk: a running guest may have written more than its
    QEMU has noted there.

    :param ranges: first byte, and the one after the last
    :param chains: the disks that lead to it
    :returns: nothing where the base file is not raw, as the offsets in it are
        not those that guests see
    """
    try:
        fd = statuses.open_regular(layout.file(base_file))
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
            _expose(chain, ranges),
        )
        for chain in chains
    ]
