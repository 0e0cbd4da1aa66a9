# SPDX-License-Identifier: Apache-2.0

"""Guests, base files and hosts as they are, beside what a pass can see.

Real files, and real locks as QEMU holds them. What is made up is the time,
and libvirt.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import os
import shutil
import tempfile
import time
from typing import Any

import fixtures

from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import mounts
from nova_imagecache.cache import publish
from nova_imagecache.cache import removal
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.fetch import images
from nova_imagecache import hook
from nova_imagecache import names
from nova_imagecache.witnesses import absences
from nova_imagecache.witnesses import headers
from tests.histories import disks
from tests.histories import inhabitants
from tests.support import base

# More than a host's note of a use counts by itself, see cache/hosts.py.
ORIGINAL_AGE = 7500
RESIZED_AGE = 4500
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
        self.overlays = disks.Templates(self.root)
        self.world: World | None = None
        # What was not synced is lost only when the machine goes down, and
        # none does here. On a disk, this is where the time would go.
        self._patch(os, 'fsync', lambda fd: None)
        # The clock of the file system is the one of the history.
        self._patch(os, 'utime', self._utime)
        self._patch(clocks, 'now', self._now)
        self._patch(publish, 'current_time', self._current_time)
        # A file system and its mount point, without one.
        self._patch(mounts, 'mount_point', self._mount_point)
        self._patch(absences, '_inode', self._inode)
        # For root, every file is readable.
        self._patch(headers, 'read', self._read_header)
        # Files are born when the storage says so.
        self._patch(identity, '_stat', self._stat)
        self._patch(removal, 'touch', self._touch)
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

    def _now(self) -> clocks.Instant:
        assert self.world is not None
        return self.world.now(self.world.hosts[0])

    def _current_time(self, path: str) -> float:
        """Give the time of the storage, where that of the host is ours."""
        assert self.world is not None
        return time.time() - self.world.acting.offset

    def _mount_point(self, path: str) -> str | None:
        if self.world is not None and self.world.acting.mounted:
            if os.path.realpath(path) == self.world.acting.instances:
                return self.world.acting.instances
        return self.root

    def _inode(self, path: str) -> int:
        """Have the mount point be another directory than what is on it."""
        assert self.world is not None
        inode = os.stat(path).st_ino
        return inode if self.world.acting.mounted else -inode

    def _read_header(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if self.world is not None and self.world.unreadable:
            if os.stat(path).st_ino in self.world.unreadable:
                raise PermissionError(errno.EACCES, 'Permission denied', path)
        return _real_read_header(path, *args, **kwargs)

    def _stat(self, *args: Any) -> identity.Stat:
        seen = _real_stat(*args)
        if self.world is None:
            return seen
        born = self.world.born(seen.incarnation.key)
        incarnation = seen.incarnation._replace(born=born)
        return seen._replace(incarnation=incarnation)

    def _touch(self, *args: Any) -> bool:
        """Touch a file, unless the storage squashes root."""
        assert self.world is not None
        return not self.world.squashed and _real_touch(*args)

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
_real_stat = identity._stat
_real_touch = removal.touch
_real_read_header = headers.read


class World:
    """Guests, base files and hosts.

    :ivar local: whether each host has disks of its own, beside the cache
    :ivar tells: whether the list of guests says on which host each is
    :ivar astray: whether it is clocks of single hosts that are set
    :ivar squashed: whether hosts may not touch base files
    :ivar true: seconds that have really passed
    :ivar ahead: seconds by which all clocks were set forward, all in all. Who
        looks at the clock may believe that so much more has passed. Setting
        it back never makes anything older.
    :ivar back: seconds by which they were set back
    :ivar used: when base files were used last, by :attr:`true`
    :ivar noted: hosts that may have noted a use of base files, lately
    :ivar trashed: when files came to the trash, likewise, by inode
    :ivar unreadable: inodes of files that only root may read
    :ivar acting: the host that does something
    :ivar fuse: after how many changes of the disk the process ends
    """

    def __init__(self, path: str, workshop: Workshop) -> None:
        self._workshop = workshop
        self.templates = workshop.overlays
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
        # Where nobody looks who is not told to.
        self.outside = path + '-outside'
        for directory in (self.elsewhere, self.outside):
            os.mkdir(directory)
        self.hosts = [
            inhabitants.Host(name, path) for name in inhabitants.HOSTS
        ]
        self.acting = self.hosts[0]
        self.local = False
        self.tells = False
        self.astray = False
        self.squashed = False
        self.guests: list[inhabitants.Guest] = []
        self.pins: set[str] = set()
        self.pressure = False
        self.true = self.ahead = self.back = 0.0
        self.used: dict[str, float] = {}
        self.noted: list[tuple[str, set[str]]] = []
        self.trashed: dict[int, float] = {}
        self.unreadable: set[int] = set()
        self.fuse: int | None = None
        self._born = 0
        self._births: dict[identity.Key, int] = {}

    def part(self) -> None:
        """Give each host disks of its own, before anything is there."""
        self.local = True
        for host in self.hosts:
            host.instances = os.path.join(self.layout.instances, host.name)
            os.mkdir(host.instances)
            os.symlink(
                self.layout.base,
                os.path.join(
                    host.instances, os.path.basename(self.layout.base)
                ),
            )

    def end(self) -> None:
        for guest in self.guests:
            guest.stop()
        shutil.rmtree(self.elsewhere)
        shutil.rmtree(self.outside)

    def burn(self) -> None:
        """Come closer to the end of the process; at it, change nothing."""
        if self.fuse == 0:
            raise Crash
        if self.fuse is not None:
            self.fuse -= 1

    @property
    def wall(self) -> float:
        """Give what the clock of the storage shows."""
        return 2e9 + self.true + self.ahead - self.back

    def now(self, host: inhabitants.Host) -> clocks.Instant:
        """Read the clocks of a host."""
        return clocks.Instant(
            self.wall + host.offset,
            host.boottime,
            f'{host.name}-{host.boots}',
        )

    def born(self, key: identity.Key) -> int:
        """Say when a file was born, in nanoseconds: when it was seen first."""
        return self._births.setdefault(key, int(self.wall * 10**9))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.true += seconds
        for host in self.hosts:
            host.boottime += seconds

    def host(self, name: str) -> inhabitants.Host:
        """Give the host of a name."""
        (found,) = [host for host in self.hosts if host.name == name]
        return found

    # What Nova does.

    def cache(self, name: str) -> None:
        """Get a base file into the cache, our way."""
        image = inhabitants.BASE_FILES[name]
        original = names.get_cache_fname(image) if image else name

        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                file.write(inhabitants.CONTENT[original])

        there = [host for host in self.hosts if not host.away]
        conf = self._workshop.conf
        conf.set_override('host', there[0].name)
        conf.set_override('instances_path', there[0].instances)
        hook.cache_image(
            fetch,
            original,
            conf=conf,
            resize_to=None if name == original else inhabitants.RESIZED_SIZE,
        )
        self.used[original] = self.used[name] = self.true
        self.noted.append((there[0].name, {original, name}))

    def touch(self, name: str) -> None:
        """Get a base file into the cache as a Nova that knows us not."""
        path = self.layout.file(name)
        if not os.path.exists(path):
            with open(path + '.part', 'wb') as file:
                file.write(inhabitants.CONTENT[name])
            os.rename(path + '.part', path)
        os.utime(path)
        self.used[name] = self.true

    def add_guest(self, home: inhabitants.Host) -> inhabitants.Guest:
        """Have a guest that nobody can see, and that needs nothing."""
        self._born += 1
        uuid = f'11111111-aaaa-4aaa-8aaa-{self._born:012}'
        guest = inhabitants.Guest(uuid, home.name)
        self.guests.append(guest)
        return guest

    def place_of(self, guest: inhabitants.Guest) -> str:
        """Give the directory that a guest has on its host."""
        return os.path.join(self.host(guest.home).instances, guest.uuid)

    def add_disk(
        self, guest: inhabitants.Guest, name: str, disk: str = 'disk'
    ) -> None:
        """Make an overlay."""
        if guest.directory is None:
            guest.directory = guest.address = self.place_of(guest)
            os.mkdir(guest.directory)
        self._write(guest, disk, self._over_base(guest, name))
        guest.disks[disk] = name
        guest.ever.add(name)
        self.tick(guest.directory)

    def add_layer(
        self, guest: inhabitants.Guest, disk: str, inside: bool
    ) -> None:
        """Let a disk be over another one, which is over its base file."""
        assert guest.directory is not None
        data = self._over_base(guest, guest.disks[disk])
        layer = f'layer-{disk}'
        if inside:
            self._write(guest, layer, data)
        else:
            layer = os.path.join(self.outside, f'{guest.uuid}-{layer}')
            with open(layer, 'wb') as file:
                file.write(data)
        self._write(guest, disk, self._workshop.overlays.over(layer, 'qcow2'))
        guest.layers[disk] = layer
        self.tick(guest.directory)

    def flatten(self, guest: inhabitants.Guest, disk: str) -> None:
        """Let a disk be over its base file directly."""
        assert guest.directory is not None
        self._write(guest, disk, self._over_base(guest, guest.disks[disk]))
        os.unlink(os.path.join(guest.directory, guest.layers.pop(disk)))
        self.tick(guest.directory)

    def _over_base(self, guest: inhabitants.Guest, name: str) -> bytes:
        path = os.path.join(
            self.host(guest.home).instances,
            os.path.basename(self.layout.base),
            name,
        )
        return self._workshop.overlays.over(path)

    def _write(self, guest: inhabitants.Guest, disk: str, data: bytes) -> None:
        """Write a disk anew, as qemu-img does: not in place."""
        assert guest.directory is not None
        path = os.path.join(guest.directory, disk)
        with open(path + '.new', 'wb') as file:
            file.write(data)
        os.replace(path + '.new', path)

    def move(
        self, guest: inhabitants.Guest, path: str, told: bool = False
    ) -> None:
        """Rename the directory of a guest.

        :param told: whether libvirt hears of that
        """
        assert guest.directory is not None
        before = os.path.dirname(guest.directory)
        os.rename(guest.directory, path)
        guest.directory = path
        if told:
            guest.address = path
        for directory in {before, os.path.dirname(path)}:
            self.tick(directory)

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
        for disk in [*guest.layers]:
            self._unlink(guest, guest.layers.pop(disk))
        guest.disks.clear()
        if guest.directory is not None:
            shutil.rmtree(guest.directory)
            guest.directory = guest.address = None

    def lose_disk(self, guest: inhabitants.Guest, disk: str) -> None:
        """Remove a disk of a guest, and what is below it."""
        del guest.disks[disk]
        self._unlink(guest, disk)
        if disk in guest.layers:
            self._unlink(guest, guest.layers.pop(disk))

    def _unlink(self, guest: inhabitants.Guest, path: str) -> None:
        assert guest.directory is not None
        os.unlink(os.path.join(guest.directory, path))

    def forget(self, guest: inhabitants.Guest, name: str) -> None:
        """Give up the disks of a guest over a base file that is gone."""
        for disk in [d for d, needed in guest.disks.items() if needed == name]:
            self.lose_disk(guest, disk)

    @contextlib.contextmanager
    def seen_from(self, host: inhabitants.Host) -> Iterator[None]:
        """Have below instances_path what a host can see there.

        Where its file system is not mounted, there is the cache alone.
        """
        self.acting = host
        kept = {os.path.basename(self.layout.base), 'locks', 'broken'}
        kept |= {each.name for each in self.hosts}
        away = os.path.join(self.elsewhere, 'unmounted')
        hidden: list[str] = []
        if not host.mounted:
            os.mkdir(away)
            hidden = sorted(set(os.listdir(host.instances)) - kept)
        for name in hidden:
            os.rename(
                os.path.join(host.instances, name), os.path.join(away, name)
            )
        try:
            yield
        finally:
            self.acting = self.hosts[0]
            for name in hidden:
                os.rename(
                    os.path.join(away, name),
                    os.path.join(host.instances, name),
                )
            if not host.mounted:
                os.rmdir(away)
                self.tick(host.instances)
