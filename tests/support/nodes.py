# SPDX-License-Identifier: Apache-2.0

"""A node made of real files, and what is done to files."""

from collections.abc import Iterator
import contextlib
import dataclasses
import importlib
import json
import os
import random
import subprocess
from typing import Any

import fixtures
import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from tests.support import base

NOBODY = 65534


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Do something without root's right to ignore permissions."""
    if os.geteuid() != 0:
        yield
        return
    # Python may be installed where root alone can read.
    importlib.import_module('psutil')
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def read_as_root(path: str, offset: int, length: int) -> bytes:
    """Read a part of a file for whoever is :func:`unprivileged`."""
    os.seteuid(0)
    try:
        with open(path, 'rb') as file:
            return os.pread(file.fileno(), length, offset)
    finally:
        os.seteuid(NOBODY)


class Node:
    """A compute node: an instances_path with real files in it."""

    def __init__(self, path: str) -> None:
        self.clock = base.FakeClock()
        self.settings = Settings(
            instances_path=path,
            checksum_interval=0,
            scrub_bandwidth=0,
            # No libvirt that knows of what tests make.
            witnesses=('instances', 'overlays', 'locks'),
        )
        self.layout = layouts.Layout.of(self.settings)
        # A cache that was there before, as this node sees it.
        os.makedirs(self.layout.base, exist_ok=True)

    def configure(self, **changes: Any) -> None:
        """Change what the operator asks for."""
        values = vars(self.settings) | changes
        self.settings = Settings(**values)

    def base_path(self, name: str) -> str:
        return self.layout.file(name)

    def add_base(
        self,
        name: str,
        data: bytes | None = None,
        age: float = 0,
        size: int | None = None,
    ) -> str:
        """Make a base file; give its path."""
        path = self.base_path(name)
        if data is None:
            data = random.Random(os.fsencode(name)).randbytes(64 * base.KIB)
        with open(path, 'wb') as file:
            file.write(data)
            if size is not None:
                file.truncate(size)
        self.set_age(name, age)
        return path

    def add_image(self, image_id: str, **kwargs: Any) -> str:
        """Make the base file of an image; give its name."""
        name = names.get_cache_fname(image_id)
        self.add_base(name, **kwargs)
        return name

    def set_age(self, name: str, age: float) -> None:
        """Let a file be last used, and seen first, so many seconds ago."""
        used = self.clock.wall - age
        os.utime(self.base_path(name), (used, used))
        if age > 0:
            self._see(name, age)

    def _see(self, name: str, age: float) -> None:
        """Have some pass have seen a file first so many seconds ago."""
        now = self.clock()
        then = clocks.Instant(now.wall - age, now.boottime - age, now.boot_id)
        file = base_file.BaseFile.named(self.layout, name)

        def add(state: states.State) -> states.State:
            old = state.sighting(file) or sightings.updated(file, None, then)
            seen = msgspec.structs.replace(old, seen=then)
            return dataclasses.replace(
                state, files={**state.files, name: seen}
            )

        # Where the state is of no use nothing goes, however old.
        with contextlib.suppress(errors.Error, OSError):
            states.amend(self.layout, add)

    def add_directory(self, *parts: str) -> str:
        path = os.path.join(self.layout.instances, *parts)
        os.makedirs(path, exist_ok=True)
        return path

    def add_file(self, *parts: str, data: bytes = b'') -> str:
        """Make any file below instances_path; give its path."""
        self.add_directory(*parts[:-1])
        path = os.path.join(self.layout.instances, *parts)
        with open(path, 'wb') as file:
            file.write(data)
        return path

    def add_overlay(
        self, guest: str, backing: str, disk: str = 'disk', form: str = 'raw'
    ) -> str:
        """Make a guest's qcow2 disk over a base file, or any other path."""
        path = os.path.join(self.add_directory(guest), disk)
        if not os.path.isabs(backing):
            backing = self.base_path(backing)
        qemu_img('create', '-f', 'qcow2', '-b', backing, '-F', form, path)
        return path

    def pin(self, name: str) -> None:
        pins.pin(self.layout, pins.Pin(name), self.clock())

    def make_pass(self, *witnesses: Any, inline: bool = True) -> pipeline.Pass:
        return pipeline.Pass(self.settings, witnesses, self.clock, inline)

    def run(self, *witnesses: Any, inline: bool = True) -> reports.Report:
        """Make one pass."""
        return self.make_pass(*witnesses, inline=inline).run()

    def files(self) -> set[str]:
        """Give what is in the cache, but for our own directory."""
        return set(os.listdir(self.layout.base)) - {names.OWN_DIRECTORY}

    def trash(self) -> set[str]:
        """Give the names that the base files in the trash had."""
        with contextlib.suppress(FileNotFoundError):
            return {
                name
                for name in map(
                    names.trashed_name, os.listdir(self.layout.trash)
                )
                if name
            }
        return set()


def qemu_img(*args: str) -> str:
    """Run qemu-img; give what it prints."""
    done = subprocess.run(
        ['qemu-img', *args],
        check=True,
        capture_output=True,
        text=True,
        errors='surrogateescape',
    )
    return done.stdout


def qemu_io(path: str, *commands: str) -> None:
    """Run commands of qemu-io on a qcow2 disk."""
    args = [part for command in commands for part in ('-c', command)]
    subprocess.run(
        ['qemu-io', '-f', 'qcow2', *args, path], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def backing_chain(path: str) -> list[dict[str, Any]]:
    """Ask qemu-img for the chain of a disk."""
    output = qemu_img('info', '-U', '--backing-chain', '--output=json', path)
    chain: list[dict[str, Any]] = json.loads(output)
    return chain


def write_after(path: str, data: bytes, earlier: str) -> None:
    """Make a file anew, with a birth time that is later than another's."""
    before = identity.stat_of(earlier).incarnation.born
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with open(path, 'wb') as file:
            file.write(data)
        born = identity.stat_of(path).incarnation.born
        # The kernel's clock has a tick.
        if before is None or born is None or born > before:
            return


def flip_bit(path: str, offset: int = 1234, bit: int = 3) -> None:
    """Flip one bit, as a disk would: times stay as they are."""
    before = os.stat(path)
    with open(path, 'r+b') as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ (1 << bit)]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


_CHILD = """
from nova_imagecache.apart import child
{before}
child.main()
"""

_NO_BIRTHS = """
from nova_imagecache.cache import sightings
sightings.birth = lambda file, now: 0.0
"""


class Child(fixtures.MonkeyPatch):
    """Has the processes that make passes for a host do something first."""

    def __init__(self, before: str) -> None:
        """Prepare it.

        :param before: what they do, in Python
        """
        super().__init__(
            'nova_imagecache.apart.parent._PROGRAM',
            ('-P', '-c', _CHILD.format(before=before)),
        )


class NoBirths(fixtures.MonkeyPatch):
    """Has nobody know when files were made, but by whom they were seen.

    All files are made in their test, and no call can change when that was: it
    is as on a file system that does not tell. See tests/node/test_ages.py.
    """

    def __init__(self) -> None:
        super().__init__(
            'nova_imagecache.cache.sightings.birth', lambda file, now: 0.0
        )

    def _setUp(self) -> None:
        super()._setUp()
        # Nor in the processes that make passes.
        self.useFixture(Child(_NO_BIRTHS))


class FileTestCase(base.TestCase):
    """A test with a directory for its files."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(NoBirths())
        self.temporary = self.useFixture(fixtures.TempDir()).path
        # A temporary directory is its maker's alone.
        os.chmod(self.temporary, 0o755)
        self.addCleanup(self._make_removable)

    def _make_removable(self) -> None:
        for directory, directories, _files in os.walk(self.temporary):
            for name in directories:
                path = os.path.join(directory, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o755)

    def file_of(self, report: reports.Report, name: str) -> reports.FileReport:
        """Pick one file from a report."""
        (found,) = [file for file in report.files if file.name == name]
        return found

    def note_opens(self) -> list[str]:
        """Note each path that is opened from now on, as it was given."""
        opened: list[str] = []
        real = os.open

        def spy(path: Any, *args: Any, **kwargs: Any) -> int:
            opened.append(os.fspath(path))
            return real(path, *args, **kwargs)

        self.patch(os, 'open', spy)
        return opened

    def note_syncs(self) -> list[str]:
        """Note the path of each file that is synced from now on."""
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(os.readlink(f'/proc/self/fd/{fd}'))
            real(fd)

        self.patch(os, 'fsync', fsync)
        return synced


class NodeTestCase(FileTestCase):
    """A test on a node.

    :ivar sidecar: path of the stored checksum, where a test has one base file
    """

    sidecar: str

    def setUp(self) -> None:
        super().setUp()
        self.node = Node(os.path.join(self.temporary, 'instances'))

    def write_sidecar(self, text: str | bytes) -> None:
        """Store something as the checksum of the base file."""
        with open(self.sidecar, 'wb') as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def read_sidecar(self) -> str:
        """Read what is stored as the checksum of the base file."""
        with open(self.sidecar) as file:
            return file.read()
