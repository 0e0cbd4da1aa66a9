# SPDX-License-Identifier: Apache-2.0

"""Disks and the files that they need, joined to chains by name."""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import os
from typing import NamedTuple

from nova_imagecache.witnesses import testimonies


class Disk(NamedTuple):
    """A file that needs others.

    :ivar needs: their names, without any path
    :ivar references: what it says of them, each as its header has it
    :ivar usual: whether these lead to base files as Nova makes them
    """

    directory: str
    name: str
    guest: str
    needs: frozenset[str]
    references: tuple[str, ...] = ()
    usual: bool = False

    @property
    def path(self) -> str:
        """Where it is."""
        return f'{self.directory}{os.sep}{self.name}'


@dataclasses.dataclass(frozen=True)
class Chain:
    """One disk of a guest over a base file.

    :ivar paths: of the disk and of those between it and the base file, the
        top one first
    """

    guest: str
    paths: tuple[str, ...]


class Disks:
    """All disks that were found to need other files.

    None is ever taken out: one that was renamed is still needed, and one that
    is gone can only protect its base file for one pass too long.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._disks: dict[str, Disk] = {}
        self._by_need: dict[str, list[str]] = {}

    def add(self, disk: Disk) -> None:
        """Take a disk in."""
        path = disk.path
        before = self._disks.get(path)
        self._disks[path] = disk
        for need in disk.needs:
            if before is None or need not in before.needs:
                self._by_need.setdefault(need, []).append(path)

    def __iter__(self) -> Iterator[Disk]:
        """Give all disks."""
        return iter([*self._disks.values()])

    @property
    def needed(self) -> Collection[str]:
        """Names of the files that some disk needs."""
        return self._by_need.keys()

    def needing(self, name: str) -> Collection[str]:
        """Give the paths of the disks that need a file of this name."""
        return self._by_need.get(name, ())

    def above(self, name: str, itself: str) -> Mapping[str, Disk]:
        """Give all disks from which a chain leads to a file, by path.

        :param itself: path of that file, which is no user of its own
        """
        found: dict[str, Disk] = {}
        pending = list(self.needing(name))
        while pending:
            path = pending.pop()
            if path in found:
                continue
            found[path] = disk = self._disks[path]
            if disk.name in self._by_need:
                pending += self._above(disk)
        found.pop(itself, None)
        return found

    def users(self, name: str, itself: str) -> testimonies.Guests:
        """Collect the guests of these disks."""
        above = self.above(name, itself)
        return frozenset(disk.guest for disk in above.values())

    def chains(self, name: str) -> list[Chain]:
        """Give the disks from which a chain leads to a file.

        A disk that is the backing file of another one is part of that one's
        chain.
        """
        found = []
        pending: list[tuple[str, ...]] = [
            (path,) for path in sorted({*self.needing(name)})
        ]
        # Each disk once: forged headers could name each other in any number
        # of ways.
        seen = {path for (path,) in pending}
        while pending:
            paths = pending.pop()
            disk = self._disks[paths[0]]
            above = sorted(set(self._above(disk)) - seen)
            seen.update(above)
            pending += [(path, *paths) for path in above]
            if not above:
                found.append(Chain(disk.guest, paths))
        return sorted(found, key=lambda chain: chain.paths)

    def _above(self, disk: Disk) -> Iterator[str]:
        """Find the disks that may have this one as their backing file.

        Every instance has a file called 'disk': one in the referrer's own
        directory is meant before any other.
        """
        for path in self.needing(disk.name):
            directory = self._disks[path].directory
            nearer = os.path.join(directory, disk.name)
            if directory == disk.directory or nearer not in self._disks:
                yield path
