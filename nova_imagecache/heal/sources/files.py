# SPDX-License-Identifier: Apache-2.0

"""A file that a person has as a source, in whatever format.

Such as a copy of the base file from another host, or the image as it was
downloaded. The file is looked at before QEMU's tools open it, and only so much
of it is decoded as is wanted.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import json
import os
import tempfile

from oslo_concurrency import processutils
from oslo_utils.imageutils import format_inspector
from oslo_utils import units

from nova_imagecache.cache import identity
from nova_imagecache import children
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources
from nova_imagecache import names

State = sources.State

# What the inspector calls what is read as it is, and how qemu-img calls the
# others that it can read.
_AS_IT_IS = frozenset({'raw', 'gpt', 'iso'})
_FORMATS = {
    'qcow2': 'qcow2',
    'vhd': 'vpc',
    'vhdx': 'vhdx',
    'vmdk': 'vmdk',
    'vdi': 'vdi',
}

# Hostile images have made qemu-img take all memory (CVE-2015-5162).
_LIMITS = processutils.ProcessLimits(cpu_time=30, address_space=units.Gi)
_SECONDS = 120

# Of which sizes of images are multiples, to QEMU.
_SECTOR = 512


@dataclasses.dataclass(frozen=True)
class _Image:
    """What is in a file.

    :ivar format: as qemu-img calls it
    :ivar size: virtual, in bytes
    """

    format: str
    size: int


class File:
    """One file, a source: as it is, and as what it is an image of."""

    name = 'file'
    cryptographic = False
    fetched = 0

    def __init__(
        self,
        path: str,
        temporary: str,
        watch: sources.Watch | None = None,
    ) -> None:
        """Look at nothing yet.

        :param path: of the file, which may be a symbolic link
        :param temporary: a directory with space for one block
        """
        self._path = os.path.realpath(path)
        self._temporary = temporary
        self._watch = watch or sources.Watch()

    def read(
        self, base: sources.Base, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        """Give each block as the file has it, and decoded."""
        shown = names.printable(self._path)
        try:
            if os.path.samefile(self._path, base.path):
                raise sources.Unavailable(
                    State.ABSENT, f'{shown} is the base file itself'
                )
            fd = identity.open_regular(self._path)
        except OSError as error:
            state = State.ABSENT
            if isinstance(error, PermissionError):
                state = State.FORBIDDEN
            raise sources.Unavailable(
                state,
                f'{shown} cannot be read by the owner of instances_path, as '
                f'whom this runs: {error.strerror}',
            ) from error
        try:
            # A base file may be the image itself, whatever its format.
            yield from _as_it_is(fd, shown, wanted)
            size = os.fstat(fd).st_size
            image = _inspect(fd, shown)
            if image is not None:
                yield from self._decoded(image, shown, wanted)
                size = max(size, image.size)
            if any(each.end > size for each in wanted):
                raise sources.Unavailable(
                    State.TRUNCATED,
                    f'{shown} ends before byte {wanted[-1].end - 1}, which is '
                    f'bad: base file {names.printable(base.name)} has '
                    f'{base.size} bytes',
                )
        finally:
            os.close(fd)

    def _decoded(
        self, image: _Image, shown: str, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        os.makedirs(self._temporary, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._temporary) as directory:
            target = os.path.join(directory, 'block')
            for each in wanted:
                data = _decode(image, self._path, target, each, self._watch)
                if data is not None:
                    origin = f'{shown} ({image.format})'
                    yield sources.Piece(each, data, origin)


def _as_it_is(
    fd: int, shown: str, wanted: Sequence[sources.Wanted]
) -> Iterator[sources.Piece]:
    size = os.fstat(fd).st_size
    with pages.Medium(fd) as medium:
        for each in wanted:
            length = min(each.end, size) - each.start
            if length > 0:
                data, missing = pages.fill(
                    medium.read(each.start, length), each.length
                )
                yield sources.Piece(each, data, shown, frozenset(missing))


def _round_up(length: int) -> int:
    return -(-length // _SECTOR) * _SECTOR


def _inspect(fd: int, shown: str) -> _Image | None:
    """Say what a file is an image of; None where it is what it is.

    :raises sources.Unavailable: it would have QEMU open other files, or is
        of no format that is read here
    """
    try:
        with os.fdopen(os.dup(fd), 'rb', buffering=0) as file:
            file.seek(0)
            wrapper = format_inspector.InspectWrapper(file)
            while wrapper.read(pages.PAGE) and not wrapper.formats:
                pass
            wrapper.close()
        found = {str(each): each for each in wrapper.formats or ()}
        if not found.keys() - _AS_IT_IS:
            return None
        inspector = wrapper.format
        assert inspector is not None  # noqa: S101 for mypy: it has some
        inspector.safety_check()
    except (
        format_inspector.ImageFormatError,
        format_inspector.SafetyCheckFailed,
    ) as error:
        raise sources.Unavailable(
            State.HOSTILE, f'{shown} fails the safety check: {error}'
        ) from error
    if str(inspector) not in _FORMATS:
        raise sources.Unavailable(
            State.HOSTILE, f'{shown} is of format {inspector}, not read here'
        )
    size = int(inspector.virtual_size)
    return _Image(_FORMATS[str(inspector)], size - size % _SECTOR)


def _decode(
    image: _Image,
    path: str,
    target: str,
    wanted: sources.Wanted,
    watch: sources.Watch,
) -> bytes | None:
    """Decode one block of an image; None where the image ends before."""
    end = min(wanted.start + _round_up(wanted.length), image.size)
    if end <= wanted.start:
        return None
    # And not "qemu-img dd", whose count counts what is skipped as well.
    part = {
        'driver': 'raw',
        'offset': wanted.start,
        'size': end - wanted.start,
        'file': {
            'driver': image.format,
            'read-only': True,
            'file': {'driver': 'file', 'filename': path},
        },
    }
    try:
        done = children.run(
            'qemu-img', 'convert', '-O', 'raw', f'json:{json.dumps(part)}',
            target,
            timeout=_SECONDS,
            look=watch.look,
            limits=_LIMITS.prlimit_args(),
            env={**os.environ, 'LC_ALL': 'C'},
        )  # fmt: skip
        if done.returncode:
            status = f'it ended with status {done.returncode}'
            lines = os.fsdecode(done.stderr).strip().splitlines()
            last = [status, *lines][-1]
            raise sources.Unavailable(
                State.FAILED, f'qemu-img convert: {names.printable(last)}'
            )
        with open(target, 'rb') as file:
            data = file.read(wanted.length)
        os.unlink(target)
    except children.TimedOut as error:
        raise sources.Unavailable(
            State.TIMEOUT, f'qemu-img took longer than {_SECONDS} s'
        ) from error
    except OSError as error:
        raise sources.Unavailable(
            State.FAILED, f'qemu-img convert: {error.strerror}'
        ) from error
    return data.ljust(wanted.length, b'\0')
