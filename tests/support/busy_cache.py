# SPDX-License-Identifier: Apache-2.0

"""Processes that are busy with one cache, each until it is killed or told.

Managers live fast: their clocks run so much ahead that whatever nobody uses is
old after a moment. So it is not its age that protects a base file from here
on, but locks, and what witnesses see; and whoever makes a disk holds the lock
of the base file from the touch to the overlay, as hook.cache_image does.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import os
import random
import shutil
import struct
import time
import traceback
from typing import Any
import uuid

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import trash
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache.fetch import images
from nova_imagecache import hook
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import pipeline
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import scrubber
from nova_imagecache.witnesses import instances
from tests.support import base

_SIZE = 64 * base.KIB
_RESIZED = 2 * _SIZE
_IMAGES = {
    names.get_cache_fname(image): random.Random(image).randbytes(_SIZE)
    for image in ('one', 'two', 'three', 'four')
}
#: What is in each base file.
CONTENT = _IMAGES | {
    f'{name}_{_RESIZED}': data.ljust(_RESIZED, b'\0')
    for name, data in _IMAGES.items()
}

# Seconds that pass for a manager in one second.
_HASTE = 4000
_RETENTION = 600

# Somebody else's lock is held for that long at most.
_DEADLINE = 30.0

_FLOCK = struct.Struct('@hhqqi')
_QEMU_BYTES = (100, 201, 203)
_FORBIDS_READ = 200


class Fault(AssertionError):
    """Something was promised, and is not so."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where everything is.

    :ivar guests: a file for each guest that is complete, with the name of its
        base file in it
    :ivar started: when it began, for the clocks of managers
    """

    path: str
    started: float

    @property
    def instances(self) -> str:
        """Where guests and the cache are."""
        return os.path.join(self.path, 'instances')

    @property
    def guests(self) -> str:
        """Where it is noted which guests there are."""
        return os.path.join(self.path, 'guests')

    @property
    def notes(self) -> str:
        """Where each process writes down what it has done."""
        return os.path.join(self.path, 'notes')

    @property
    def stop(self) -> str:
        """A file that tells all to stop."""
        return os.path.join(self.path, 'stop')

    def settings(self, host: str) -> Settings:
        """Give the options of a host."""
        return Settings(
            instances_path=self.instances,
            host=host,
            original_minimum_age=0,
            resized_minimum_age=0,
            retention=_RETENTION,
            checksum=True,
            checksum_interval=0,
            scrub_bandwidth=0,
            witnesses=('instances', 'overlays', 'locks'),
        )

    @property
    def layout(self) -> layouts.Layout:
        """Give the paths of the cache."""
        return layouts.Layout.of(self.settings('first'))

    def clock(self, later: float = 0) -> clocks.Instant:
        """Give the time as managers have it, who all agree on it.

        :param later: in so many of their seconds
        """
        now = clocks.now()
        ahead = (now.boottime - self.started) * _HASTE + later
        return clocks.Instant(
            now.wall + ahead, now.boottime + ahead, now.boot_id
        )


def read(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


class Worker:
    """A process that does one thing again and again."""

    def __init__(self, place: Place, slot: str, seed: int) -> None:
        self._place = place
        self._slot = slot
        self._random = random.Random(seed)
        self._layout = place.layout
        # Unbuffered, so that what was noted is there when it is killed.
        self._notes = open(
            os.path.join(place.notes, f'{slot}-{seed}'), 'ab', buffering=0
        )
        self._conf = base.make_conf(instances_path=place.instances)
        # As one of the hosts that make passes.
        self._conf.set_override('host', 'manage-first')
        # The times of scratch files are not those of managers.
        removal._STALE_SECONDS = 10**12

    def note(self, what: str, times: int = 1) -> None:
        """Write down what was done."""
        self._notes.write(f'{what}\n'.encode() * times)

    def work(self) -> None:
        """Go on until told to stop."""
        act = getattr(self, self._slot.partition('-')[0])
        try:
            self._clear()
            while not os.path.exists(self._place.stop):
                act()
        except BaseException:
            self.note('fault: ' + traceback.format_exc().replace('\n', ' | '))
            raise

    def _name(self) -> str:
        return self._random.choice(list(CONTENT))

    # Guests.

    def _clear(self) -> None:
        """Delete the guests that a process before has left."""
        for path in (self._place.guests, self._place.instances):
            for name in os.listdir(path):
                if name.startswith(self._slot):
                    self._delete(name.removesuffix('_resize'))

    def _delete(self, guest: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._place.guests, guest))
        for suffix in ('', '_resize'):
            path = os.path.join(self._place.instances, guest + suffix)
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _guest(self) -> Iterator[tuple[str, str]]:
        """Have a guest for a while; give its name and directory."""
        guest = f'{self._slot}-{uuid.uuid4()}'
        directory = os.path.join(self._place.instances, guest)
        os.mkdir(directory)
        try:
            yield guest, directory
        finally:
            self._delete(guest)

    def _complete(self, guest: str, name: str) -> None:
        """Have a guest run for a while; from now on it needs its base."""
        check_base(self._layout, name)
        note = os.path.join(self._place.guests, guest)
        with open(note + '.new', 'w') as file:
            file.write(name)
        os.rename(note + '.new', note)
        time.sleep(self._random.random() / 10)
        check_base(self._layout, name)

    def _fetch(self, name: str) -> Callable[[str], None]:
        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                file.write(_IMAGES[name])
            self.note('fetched')

        return fetch

    def spawn(self) -> None:
        """Make a guest as the host does, with qemu-img or without."""
        real = trash.move_out

        def move_out(*args: Any) -> Any:
            moved = real(*args)
            self.note('recovered')
            return moved

        name = self._name()
        original = names.fingerprint(name)
        with (
            self._guest() as (guest, directory),
            base.patched(trash, 'move_out', move_out),
            base.patched(images, 'create_overlay', self._overlay_maker()),
        ):
            try:
                hook.cache_image(
                    self._fetch(original),
                    original,
                    conf=self._conf,
                    resize_to=None if name == original else _RESIZED,
                    overlay=os.path.join(directory, 'disk'),
                )
            except (hook.FetchFailed, FileNotFoundError):
                # While it is copied, the age of an original protects it.
                if name == original:
                    raise
                return
            self._complete(guest, name)
            if self._random.random() < 0.3:
                os.rename(directory, directory + '_resize')
                time.sleep(self._random.random() / 20)
                check_base(self._layout, name)
            self.note('spawned')

    def _overlay_maker(self) -> Callable[..., None]:
        if self._slot.endswith('fast'):
            return self._create_overlay
        return images.create_overlay

    def _create_overlay(self, overlay: str, path: str, *args: Any) -> None:
        """Write what qemu-img has written before, which is much faster."""
        self._copy_disk(os.path.basename(path), overlay)

    def _copy_disk(self, name: str, overlay: str) -> None:
        """Have a disk over a base file appear as a whole.

        One that is cut short is a witness that cannot look, and rightly so.
        """
        scratch = os.path.join(self._place.path, f'{uuid.uuid4()}.new')
        shutil.copyfile(os.path.join(self._place.path, name), scratch)
        os.rename(scratch, overlay)

    def mount(self) -> None:
        """Have a guest turn up whose base file is in the trash by now."""
        found = [
            file
            for file in trash.scan(self._layout).files
            if file.kind.is_base
        ]
        if not found:
            time.sleep(0.01)
            return
        name = self._random.choice(found).original
        with self._guest() as (guest, directory):
            with locks.nova_lock(self._layout, name, blocking=True):
                if not self._is_somewhere(name):
                    return
                self._copy_disk(name, os.path.join(directory, 'disk'))
            deadline = time.monotonic() + _DEADLINE
            while not os.path.exists(self._layout.file(name)):
                if time.monotonic() > deadline:
                    raise Fault(f'{name} is not put back')
                if os.path.exists(self._place.stop):
                    return
                time.sleep(0.01)
            self._complete(guest, name)
            self.note('put back')

    def _is_somewhere(self, name: str) -> bool:
        return os.path.exists(self._layout.file(name)) or any(
            file.original == name for file in trash.scan(self._layout).files
        )

    def run(self) -> None:
        """Have a QEMU whose disk nobody finds, and which goes on running."""
        path = self._layout.file(self._name())
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            time.sleep(0.01)
            return
        try:
            for byte in _QEMU_BYTES:
                lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
            question = _FLOCK.pack(
                fcntl.F_WRLCK, os.SEEK_SET, _FORBIDS_READ, 1, 0
            )
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
            if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
                self.note('kept out')
                return
            inode = os.fstat(fd).st_ino
            if not _is_at(path, inode):
                # It was moved between the two, as QEMU opened it.
                self.note('late')
                return
            until = time.monotonic() + self._random.random() / 5
            while time.monotonic() < until:
                if not _is_at(path, inode):
                    raise Fault(f'{path} was removed under a running QEMU')
                time.sleep(0.005)
            self.note('ran')
        finally:
            os.close(fd)

    # Managers.

    def manage(self) -> None:
        """Make a pass."""
        report = pipeline.Pass(
            self._place.settings(self._slot),
            [instances.InstanceWitness([])],
            self._place.clock,
        ).run()
        self.note('passed')
        self.note('removed', len(report.removed))
        self.note('deleted', len(report.deleted))
        self.note(
            'put back by a pass',
            sum(row.action is decide.Action.PUT_BACK for row in report.trash),
        )
        for text in (*report.problems, *report.vetoes):
            # All guests may go at once here, and no list says so.
            if 'there is no disk of a guest' in text:
                continue
            # Ten minutes are a moment here.
            if 'has noted no progress' not in text:
                self.note(f'problem: {text}')
        time.sleep(self._random.random() / 20)

    def scrub(self) -> None:
        """Read whatever is there."""
        one = scrubber.Scrubber(
            self._place.settings('first'), readers.Means(), self._place.clock
        )
        for result in one.run():
            if result.finding.verdict is knowledge.Verdict.CORRUPT:
                raise Fault(f'{result.name}: {result.finding.note}')
            if not result.finding.skipped:
                self.note('scrubbed')
        time.sleep(0.02)


def _is_at(path: str, inode: int) -> bool:
    try:
        return os.stat(path).st_ino == inode
    except FileNotFoundError:
        return False


def check_base(layout: layouts.Layout, name: str) -> None:
    """Make sure that a base file is there, byte for byte."""
    try:
        found = read(layout.file(name))
    except FileNotFoundError:
        raise Fault(f'{name} is gone') from None
    if found != CONTENT[name]:
        raise Fault(f'{name} is not what it was')


def work(place: Place, slot: str, seed: int) -> None:
    """Be a worker, in a process of its own."""
    Worker(place, slot, seed).work()
