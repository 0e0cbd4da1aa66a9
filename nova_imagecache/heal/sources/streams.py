# SPDX-License-Identifier: Apache-2.0

"""Blocks of an image of which the image service gives no parts.

All of it is read once. What is kept is what is needed, in files without a
name, and nothing is given before the digest of the whole is right.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import tempfile
from typing import IO

from oslo_utils import units

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import images
from nova_imagecache.heal.sources import qemu

State = sources.State

# That stays free for others.
_RESERVE = units.Gi


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How much of an image is read as a whole.

    :ivar size: bytes in an image that is read at most; None for any
    :ivar seconds: for which that may take; None for what its size allows
    """

    size: int | None = None
    seconds: float | None = None

    def check(self, image: images.Image) -> None:
        """See that an image is not too large.

        :raises sources.Unavailable: it is
        """
        if self.size is not None and image.size > self.size:
            raise sources.Unavailable(
                State.TOO_LARGE,
                f'image {image.id} comes as a whole or not at all, and its '
                f'{-(-image.size // units.Mi)} MiB are more than the '
                f'{self.size // units.Mi} MiB that are read without a person; '
                'use nova-imagecache repair',
            )


@dataclasses.dataclass(frozen=True)
class Stream:
    """What reads an image as a whole.

    :ivar directory: where there is room for what is kept
    :ivar store: which of its stores to prefer
    """

    api: image_api.ImageApi
    image: images.Image
    directory: str
    bounds: Bounds
    watch: sources.Watch
    store: str | None = None


def as_it_is(
    stream: Stream, wanted: Sequence[sources.Wanted]
) -> Iterator[bytes]:
    """Give ranges of the data of an image, in order.

    :param wanted: in order, and within the image
    :raises sources.Unavailable: it is not to be had, or not what it was
    """
    stream.bounds.check(stream.image)
    _make_sure_of_room(stream.directory, sum(each.length for each in wanted))
    with _file(stream.directory) as kept:
        position, rest = 0, list(wanted)
        for chunk in _checked(stream):
            end = position + len(chunk)
            while rest and rest[0].start < end:
                first = max(rest[0].start, position) - position
                last = min(rest[0].end, end) - position
                kept.write(chunk[first:last])
                if rest[0].end > end:
                    break
                del rest[0]
            position = end
        kept.seek(0)
        for each in wanted:
            yield kept.read(each.length)


def converted(
    stream: Stream, wanted: Sequence[sources.Wanted]
) -> Iterator[bytes]:
    """Give ranges of the content of an image that has to be decoded, in order.

    Where one goes on past the end of the content, that is zeros. There has to
    be room for all of the image.

    :raises sources.Unavailable: it is not to be had, not what it was, or not
        to be decoded
    """
    image, directory = stream.image, stream.directory
    stream.bounds.check(image)
    most = max((each.length for each in wanted), default=0)
    _make_sure_of_room(directory, image.size + most)
    with _file(directory) as kept:
        for chunk in _checked(stream):
            kept.write(chunk)
        kept.flush()
        size = qemu.inspect(kept, image.disk_format)
        for each in wanted:
            length = max(0, min(each.end, size) - each.start)
            data = b''
            if length:
                data = qemu.decode(
                    kept,
                    image.disk_format,
                    each.start,
                    length,
                    directory,
                    stream.watch,
                )
            yield data.ljust(each.length, b'\0')


def _checked(stream: Stream) -> Iterator[bytes]:
    """Give all bytes of an image, and fail at the end if they are not its."""
    image = stream.image
    digest = images.hasher(image)
    for chunk in stream.api.whole(image, stream.store, stream.bounds.seconds):
        if digest is not None:
            digest.update(chunk)
        yield chunk
    if digest is not None and digest.hexdigest() != image.digest:
        raise sources.Unavailable(
            State.OTHER_BYTES,
            f'image {image.id} came with other bytes than its '
            f'{image.algorithm} says: it is damaged in the image service, or '
            'on the way from there',
        )


@contextlib.contextmanager
def _file(directory: str) -> Iterator[IO[bytes]]:
    """Make a file that goes with this process."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            yield file
    except OSError as error:
        raise sources.Unavailable(
            State.NO_SPACE, f'{directory}: {error.strerror}'
        ) from error


def _make_sure_of_room(directory: str, needed: int) -> None:
    """Refuse to begin what does not fit.

    :raises sources.Unavailable: there is no such room
    """
    try:
        found = os.statvfs(directory)
    except OSError as error:
        raise sources.Unavailable(
            State.NO_SPACE, f'{directory}: {error.strerror}'
        ) from error
    free = found.f_bavail * found.f_frsize
    if needed + _RESERVE > free:
        raise sources.Unavailable(
            State.NO_SPACE,
            f'{directory} has {free // units.Mi} MiB free, and '
            f'{-(-(needed + _RESERVE) // units.Mi)} MiB are needed',
        )
