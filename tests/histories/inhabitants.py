# SPDX-License-Identifier: Apache-2.0

"""The guests, hosts and base files in histories."""

from collections.abc import Collection
from collections.abc import Iterator
import dataclasses
import fcntl
import os
import random
import struct
from typing import Any

from nova_imagecache import clocks
from nova_imagecache import names
from nova_imagecache.witnesses import needs
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import fake_witnesses

HOSTS = ('first', 'second')

#: Of the base file that is resized.
RESIZED_SIZE = 8192
_ONE = names.get_cache_fname('one')
_TWO = names.get_cache_fname('two')
_RESIZED = f'{_ONE}_{RESIZED_SIZE}'
SWAP = 'swap_64'
#: All base files that there may be, and the images they are made from.
BASE_FILES = {_ONE: 'one', _RESIZED: 'one', _TWO: 'two', SWAP: None}

_FLOCK = struct.Struct('@hhqqi')
# "Consistent read", and that nobody else writes or resizes.
_QEMU_BYTES = (100, 201, 203)


def _content() -> dict[str, bytes]:
    content = {
        name: random.Random(name).randbytes(RESIZED_SIZE // 2)
        for name in BASE_FILES
    }
    content[_RESIZED] = content[_ONE].ljust(RESIZED_SIZE, b'\0')
    return content


CONTENT = _content()


def made_from(image: str | None) -> set[str]:
    """Name the base files that may be made from an image."""
    return {
        name for name, each in BASE_FILES.items() if image and each == image
    }


#: When a clock was set, by the true time, and by how many seconds.
Step = tuple[float, float]


@dataclasses.dataclass
class Host:
    """A host that shares the cache.

    :ivar instances: path of the directory with its guests
    :ivar mounted: whether the file system is there that has them
    :ivar away: whether it makes no passes
    :ivar offset: seconds by which its clock is ahead of that of the storage
    :ivar passes: what its clocks may have been at its last pass, as far as
        it remembers; None if it may know of none. More than one if the last
        passes may have been killed before they noted that.
    :ivar steps: of its clock since the last pass that came to its end
    :ivar forward: those forward since the last pass
    :ivar missed: those forward that it need not have noticed
    """

    name: str
    instances: str
    mounted: bool = True
    away: bool = False
    offset: float = 0.0
    boottime: float = 10.0 * base.DAY
    boots: int = 0
    passes: list[clocks.Instant | None] = dataclasses.field(
        default_factory=lambda: [None]
    )
    steps: list[Step] = dataclasses.field(default_factory=list)
    forward: list[Step] = dataclasses.field(default_factory=list)
    missed: list[Step] = dataclasses.field(default_factory=list)

    def step(self, when: float, seconds: float) -> None:
        """Have its clock set."""
        self.steps.append((when, seconds))
        if seconds > 0:
            self.forward.append((when, seconds))


@dataclasses.dataclass
class Guest:
    """A guest, and by what it can be seen.

    :ivar home: name of the host that has its disks
    :ivar image: in the host's list of instances, if it is in there
    :ivar built: whether that says that it has a directory
    :ivar host: where libvirt knows it, if it does
    :ivar tag: the image that libvirt knows it to be made from
    :ivar disks: base files by the names of the disks over them
    :ivar layers: paths of what is between, by the names of the disks
    :ivar ever: base files that it ever had a disk over
    :ivar directory: where its disks are, for whoever finds them
    :ivar address: where libvirt has them
    :ivar opened: descriptors that its QEMU has of base files
    :ivar locked: those base files on which it holds locks
    """

    uuid: str
    home: str
    image: str | None = None
    swap: bool = False
    built: bool = True
    host: str | None = None
    tag: str | None = None
    disks: dict[str, str] = dataclasses.field(default_factory=dict)
    layers: dict[str, str] = dataclasses.field(default_factory=dict)
    ever: set[str] = dataclasses.field(default_factory=set)
    directory: str | None = None
    address: str | None = None
    opened: dict[str, int] = dataclasses.field(default_factory=dict)
    locked: set[str] = dataclasses.field(default_factory=set)

    @property
    def needs(self) -> set[str]:
        """Name the base files that it cannot do without."""
        return set(self.disks.values())

    @property
    def named(self) -> set[str]:
        """Name the base files that the list of instances tells of."""
        return ({SWAP} if self.swap else set()) | made_from(self.image)

    @property
    def listed(self) -> bool:
        """Whether it is in a list of instances."""
        return bool(self.image or self.swap)

    def start(self, name: str, path: str) -> None:
        """Have QEMU open a base file, which takes no locks yet."""
        if name not in self.opened:
            self.opened[name] = os.open(path, os.O_RDONLY)

    def run(self) -> None:
        """Have QEMU take its locks, as once it does not wait any more."""
        for name, fd in self.opened.items():
            for byte in _QEMU_BYTES:
                lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
            self.locked.add(name)

    def stop(self) -> None:
        """End QEMU."""
        for fd in self.opened.values():
            os.close(fd)
        self.opened.clear()
        self.locked.clear()


def _named(guest: Guest) -> Iterator[testimonies.NamedDisk]:
    """Give the disks of a guest as libvirt has them.

    It knows the chain of one that is running.
    """
    for disk, name in guest.disks.items():
        path = os.path.join(str(guest.address), disk)
        layers: tuple[str, ...] | None = None
        if guest.opened:
            layer = guest.layers.get(disk)
            between = (
                (os.path.join(str(guest.address), layer),) if layer else ()
            )
            layers = (*between, os.path.join(os.sep, '_base', name))
        yield testimonies.NamedDisk(guest.uuid, path, path, layers)


class Domains:
    """What libvirt on a host says of the guests here.

    In the place of the real witness, which is tested against libvirt itself in
    tests/node/test_domains.py and tests/node/test_libvirt.py.
    """

    def __init__(
        self, guests: Collection[Guest], host: str, failing: bool = False
    ) -> None:
        self._guests = guests
        self._host = host
        self._failing = failing

    def look(
        self, base_files: Collection[str], others: Any = None
    ) -> testimonies.Testimony:
        if self._failing:
            return testimonies.Testimony(
                vetoes=(fake_witnesses.blind('libvirt hangs'),)
            )
        here = [
            guest
            for guest in self._guests
            if guest.host == self._host and guest.address
        ]
        users: dict[str, frozenset[str]] = {}
        known = {}
        for guest in here:
            found = made_from(guest.tag)
            if guest.opened:
                found |= guest.needs
            for name in found & {*base_files}:
                users[name] = users.get(name, frozenset()) | {guest.uuid}
            if guest.tag:
                image = names.get_cache_fname(guest.tag)
                known[guest.uuid] = needs.ANY_DEVICE | {image, *found}
        return testimonies.Testimony(
            users=users,
            said=users,
            known=known,
            expected={guest.uuid: frozenset() for guest in here},
            disks=tuple(disk for guest in here for disk in _named(guest)),
        )

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        return testimonies.Testimony()
