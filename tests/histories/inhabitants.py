# SPDX-License-Identifier: Apache-2.0

"""The guests, hosts and base files in histories."""

from collections.abc import Collection
import dataclasses
import fcntl
import os
import random
import struct

from nova_imagecache import clocks
from nova_imagecache import names
from nova_imagecache.witnesses import testimonies
from tests.support import base

HOSTS = ('first', 'second')

#: Of the base file that is resized.
RESIZED_SIZE = 8192
_ONE = names.get_cache_fname('one')
_TWO = names.get_cache_fname('two')
_RESIZED = f'{_ONE}_{RESIZED_SIZE}'
_SWAP = 'swap_64'
#: All base files that there may be, and the images they are made from.
BASE_FILES = {_ONE: 'one', _RESIZED: 'one', _TWO: 'two', _SWAP: None}

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


@dataclasses.dataclass
class Host:
    """A host that shares the cache.

    :ivar passes: what its clocks may have been at its last pass, as far as
        it remembers; None if it may know of none. More than one if the last
        passes may have been killed before they noted that.
    :ivar missed: seconds by which the clock was set forward while nobody was
        bound to notice, up to its last pass
    :ivar ahead: what the clock had been set forward by then, all in all
    """

    name: str
    boottime: float = 10.0 * base.DAY
    boots: int = 0
    passes: list[clocks.Instant | None] = dataclasses.field(
        default_factory=lambda: [None]
    )
    missed: float = 0.0
    ahead: float = 0.0


@dataclasses.dataclass
class Guest:
    """A guest, and by what it can be seen.

    :ivar image: in the host's list of instances, if it is in there
    :ivar host: where libvirt knows it, if it does
    :ivar disks: base files by the names of the disks over them
    :ivar directory: where its disks are, for whoever finds them
    :ivar opened: descriptors that its QEMU has of base files
    :ivar locked: those base files on which it holds locks
    """

    uuid: str
    image: str | None = None
    swap: bool = False
    host: str | None = None
    disks: dict[str, str] = dataclasses.field(default_factory=dict)
    directory: str | None = None
    opened: dict[str, int] = dataclasses.field(default_factory=dict)
    locked: set[str] = dataclasses.field(default_factory=set)

    @property
    def needs(self) -> set[str]:
        """Name the base files that it cannot do without."""
        return set(self.disks.values())

    @property
    def named(self) -> set[str]:
        """Name the base files that the list of instances tells of."""
        found = {_SWAP} if self.swap else set()
        return found | {
            name
            for name, image in BASE_FILES.items()
            if image and image == self.image
        }

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

    def look(self, base_files: Collection[str]) -> testimonies.Testimony:
        if self._failing:
            return testimonies.Testimony(failures=('libvirt hangs',))
        users: dict[str, frozenset[str]] = {}
        for guest in self._guests:
            for name in guest.needs if guest.host == self._host else ():
                users[name] = users.get(name, frozenset()) | {guest.uuid}
        return testimonies.Testimony(users=users)

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        return testimonies.Testimony()
