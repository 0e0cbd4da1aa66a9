# SPDX-License-Identifier: Apache-2.0

"""Guests, base files and hosts as they are, beside what a pass can see.

Real files, and real locks as QEMU holds them. What is made up is the time,
and libvirt.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from typing import Any

import fixtures

from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.fetch import images
from nova_imagecache import hook
from nova_imagecache import names
from tests.histories import inhabitants
from tests.support import base
from tests.support import nodes

ORIGINAL_AGE = 2000
RESIZED_AGE = 1000
RETENTION = 1500


class Violation(AssertionError):
    """Something was promised, and is not so."""


class Crash(BaseException):
    """The process ends here."""


def read(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


class Workshop(fixtures.Fixture):
    """What all histories share, and what makes them fast."""

    def _setUp(self) -> None:
        self.conf = base.make_conf()
        memory = '/dev/shm'
        self.root = self.useFixture(
            fixtures.TempDir(
                memory if os.access(memory, os.W_OK | os.X_OK) else None
            )
        ).path
        self.overlays = {
            name: self._overlay(name) for name in inhabitants.BASE_FILES
        }
        self.world: World | None = None
        # What was not synced is lost only when the machine goes down, and
        # none does here. On a disk, this is where the time would go.
        self._patch(os, 'fsync', lambda fd: None)
        # The clock of the file system is the one of the history.
        self._patch(os, 'utime', self._utime)
        self._patch(clocks, 'now', self._now)
        # Whether it is that of the machine is no matter here.
        self._patch(publish, 'current_time', lambda path: time.time())
        # Instead of two processes for each.
        self._patch(images, 'copy_resized', self._copy_resized)
        for owner, name in (
            (os, 'rename'), (os, 'link'), (os, 'unlink'), (os, 'mkdir'),
            (os, 'utime'), (directories, '_renameat2'), (tempfile, 'mkstemp'),
        ):  # fmt: skip
            self._patch(owner, name, self._fused(getattr(owner, name)))

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        self.useFixture(
            fixtures.MonkeyPatch(f'{owner.__name__}.{name}', value)
        )

    def _overlay(self, name: str) -> bytes:
        """Make an overlay once: names of files are compared without paths."""
        path = os.path.join(self.root, name)
        with open(path, 'wb') as file:
            file.write(inhabitants.CONTENT[name])
        overlay = os.path.join(self.root, 'overlay')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-o', 'cluster_size=512', '-b', path,
            '-F', 'raw', overlay,
        )  # fmt: skip
        return read(overlay)

    def _now(self) -> clocks.Instant:
        assert self.world is not None
        return self.world.now(self.world.hosts[0])

    def _utime(
        self, path: Any, times: Any = None, *, ns: Any = None, **kwargs: Any
    ) -> None:
        if times is None and ns is None:
            assert self.world is not None
            ns = (int(self.world.wall * 10**9),) * 2
        if times is not None:
            kwargs['times'] = times
        else:
            kwargs['ns'] = ns
        _real_utime(path, **kwargs)

    def _copy_resized(
        self, source: str, target: str, image: Any, size: int
    ) -> None:
        shutil.copyfile(source, target)
        os.truncate(target, size)
        os.utime(target)

    def _fused(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Have a call that changes the disk end a process in its time."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.world is not None:
                self.world.burn()
            return real(*args, **kwargs)

        return call

    @contextlib.contextmanager
    def make(self) -> Iterator['World']:
        """Make a world for one history."""
        path = tempfile.mkdtemp(dir=self.root)
        self.conf.set_override('instances_path', path)
        self.world = World(path, self)
        try:
            yield self.world
        finally:
            self.world.end()
            self.world = None
            shutil.rmtree(path)


_real_utime = os.utime


@dataclasses.dataclass(frozen=True)
class Moment:
    """When something happened.

    :ivar true: after so many seconds
    :ivar missed: what each host had missed by then, see its class
    """

    true: float
    missed: dict[str, float]


class World:
    """Guests, base files and hosts.

    :ivar true: seconds that have really passed
    :ivar ahead: seconds by which the clock was set forward, all in all. Who
        looks at the clock may believe that so much more has passed. Setting
        it back never makes anything older.
    :ivar back: seconds by which it was set back
    :ivar used: when base files were used last
    :ivar trashed: when files came to the trash, likewise, by inode
    :ivar fuse: after how many changes of the disk the process ends
    """

    def __init__(self, path: str, workshop: Workshop) -> None:
        self._workshop = workshop
        self.settings = Settings(
            instances_path=path,
            checksum_interval=0,
            scrub_bandwidth=0,
            original_minimum_age=ORIGINAL_AGE,
            resized_minimum_age=RESIZED_AGE,
            retention=RETENTION,
            witnesses=('instances', 'overlays', 'locks'),
        )
        self.layout = layouts.Layout.of(self.settings)
        os.mkdir(self.layout.base)
        # On a disk that is not always mounted.
        self.elsewhere = path + '-elsewhere'
        os.mkdir(self.elsewhere)
        self.hosts = [inhabitants.Host(name) for name in inhabitants.HOSTS]
        self.guests: list[inhabitants.Guest] = []
        self.pins: set[str] = set()
        self.pressure = False
        self.true = self.ahead = self.back = 0.0
        self.used: dict[str, Moment] = {}
        self.trashed: dict[int, Moment] = {}
        self.fuse: int | None = None
        self._born = 0

    def end(self) -> None:
        for guest in self.guests:
            guest.stop()
        shutil.rmtree(self.elsewhere)

    def burn(self) -> None:
        """Come closer to the end of the process; at it, change nothing."""
        if self.fuse == 0:
            raise Crash
        if self.fuse is not None:
            self.fuse -= 1

    @property
    def reckoned(self) -> float:
        """Give the most seconds that anybody may believe to have passed."""
        return self.true + self.ahead

    def moment(self) -> Moment:
        missed = {host.name: host.missed for host in self.hosts}
        return Moment(self.true, missed)

    def age(self, since: Moment, host: inhabitants.Host) -> float:
        """Give the most seconds that a host may believe to have passed.

        What it has noticed of its clock, it does not believe.
        """
        missed = host.missed - since.missed[host.name]
        return self.true - since.true + missed

    @property
    def wall(self) -> float:
        """Give what the clock on the wall shows."""
        return 2e9 + self.true + self.ahead - self.back

    def now(self, host: inhabitants.Host) -> clocks.Instant:
        """Read the clocks of a host."""
        return clocks.Instant(
            self.wall, host.boottime, f'{host.name}-{host.boots}'
        )

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.true += seconds
        for host in self.hosts:
            host.boottime += seconds

    # What Nova does.

    def cache(self, name: str) -> None:
        """Get a base file into the cache, our way."""
        image = inhabitants.BASE_FILES[name]
        original = names.get_cache_fname(image) if image else name

        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                file.write(inhabitants.CONTENT[original])

        hook.cache_image(
            fetch,
            original,
            conf=self._workshop.conf,
            resize_to=None if name == original else inhabitants.RESIZED_SIZE,
        )
        self.used[original] = self.used[name] = self.moment()

    def touch(self, name: str) -> None:
        """Get a base file into the cache as a Nova that knows us not."""
        path = self.layout.file(name)
        if not os.path.exists(path):
            with open(path + '.part', 'wb') as file:
                file.write(inhabitants.CONTENT[name])
            os.rename(path + '.part', path)
        os.utime(path)
        self.used[name] = self.moment()

    def add_guest(self) -> inhabitants.Guest:
        """Have a guest that nobody can see, and that needs nothing."""
        self._born += 1
        uuid = f'11111111-aaaa-4aaa-8aaa-{self._born:012}'
        guest = inhabitants.Guest(uuid)
        self.guests.append(guest)
        return guest

    def add_disk(
        self, guest: inhabitants.Guest, name: str, disk: str = 'disk'
    ) -> None:
        """Make an overlay."""
        if guest.directory is None:
            guest.directory = os.path.join(self.layout.instances, guest.uuid)
            os.mkdir(guest.directory)
        with open(os.path.join(guest.directory, disk), 'wb') as file:
            file.write(self._workshop.overlays[name])
        guest.disks[disk] = name
        self.tick(guest.directory)

    def move(self, guest: inhabitants.Guest, path: str) -> None:
        """Rename the directory of a guest."""
        assert guest.directory is not None
        os.rename(guest.directory, path)
        guest.directory = path
        self.tick(self.layout.instances)

    def tick(self, directory: str) -> None:
        """Let a changed directory have another time than before.

        Kernels before 6.13 count file times in ticks of some milliseconds,
        and histories are too fast for that.
        """
        times = os.stat(directory).st_mtime_ns + 10**7
        os.utime(directory, ns=(times, times))

    def lose_disks(self, guest: inhabitants.Guest) -> None:
        """Remove all disks of a guest."""
        guest.stop()
        guest.host = None
        guest.disks.clear()
        if guest.directory is not None:
            shutil.rmtree(guest.directory)
            guest.directory = None

    def forget(self, guest: inhabitants.Guest, name: str) -> None:
        """Give up the disks of a guest over a base file that is gone."""
        for disk in [d for d, needed in guest.disks.items() if needed == name]:
            del guest.disks[disk]
            assert guest.directory is not None
            os.unlink(os.path.join(guest.directory, disk))
