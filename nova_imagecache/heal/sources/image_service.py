# SPDX-License-Identifier: Apache-2.0

"""The image service as a source: of the image that a base file is made from.

Parts of the image where it gives them, as few bytes as that takes; or else
all of it.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib

from nova_imagecache.cache import image_names
from nova_imagecache.cache import layouts
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import exchanges
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import images
from nova_imagecache.heal.sources import qcow2_ranges
from nova_imagecache.heal.sources import streams
from nova_imagecache import names

State = sources.State

# For which a client may take to find the image service: several requests.
_CLIENT_SECONDS = 120

#: Gives the bytes of a range of the base file: an offset, and how many.
Read = Callable[[int, int], bytes]


class ImageService:
    """Gets blocks of base files from the image service.

    :ivar latest: the image that was read last, once its record was had
    :ivar failed: why it came to an end before its time; None if it did not
    """

    name = 'image-service'
    cryptographic = True

    def __init__(
        self,
        client: Callable[[], image_api.ImageClient],
        directory: str,
        whole: streams.Bounds | None = streams.Bounds(),  # noqa: B008 frozen
        watch: sources.Watch | None = None,
    ) -> None:
        """Ask nothing yet.

        :param client: gives the client, when one is needed; raises
            :class:`sources.Unavailable` where there is none
        :param directory: for files of a block, or of an image
        :param whole: how much may be read of an image that gives no parts;
            None for nothing
        :param watch: who waits for it
        """
        self._client = client
        self._directory = directory
        self._whole = whole
        self._watch = watch or sources.Watch()
        self._api: image_api.ImageApi | None = None
        self.latest: images.Image | None = None
        self.failed: State | None = None

    @property
    def fetched(self) -> int:
        """Bytes that came over the network so far."""
        return self._api.fetched if self._api else 0

    @property
    def api(self) -> image_api.ImageApi:
        """What the image service is asked by.

        :raises sources.Unavailable: there is no client
        """
        if self._api is None:
            try:
                client = exchanges.wait_for(
                    self._client, _CLIENT_SECONDS, self._watch
                )
            except TimeoutError as error:
                raise sources.Unavailable(
                    State.TIMEOUT,
                    'the image service is not found within '
                    f'{_CLIENT_SECONDS} s; see [service_user] and [glance] of '
                    'nova.conf',
                ) from error
            self._api = image_api.ImageApi(client, self._watch)
        return self._api

    def image(self, base: sources.Base) -> images.Image:
        """Give the image that a base file is made from.

        :raises sources.Unavailable: it is not known, is gone, or cannot be
            asked for; or no such file can be made from it
        """
        if base.image is None:
            raise sources.Unavailable(
                State.UNKNOWN_IMAGE,
                f'it is not known which image {names.printable(base.name)} is '
                'made from',
            )
        if names.get_cache_fname(base.image) != names.fingerprint(base.name):
            raise sources.Unavailable(
                State.UNKNOWN_IMAGE,
                f'{names.printable(base.name)} is not made from image '
                f'{names.printable(base.image)}',
            )
        image = self.api.image(base.image)
        with contextlib.suppress(OSError):
            layout = layouts.Layout.around(base.path)
            image_names.note(layout, image.id, image.name)
        if images.is_as_it_is(image, base):
            check_size(base, image.size)
        return image

    def read(
        self, base: sources.Base, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        """Give what there is; nobody has compared it yet.

        :raises sources.Unavailable: the image service gives nothing, or no
            more of it
        """
        self.latest = self.failed = None
        image = self.latest = self.image(base)
        several = image.stores if len(image.stores) > 1 else ()
        given = 0
        try:
            try:
                for piece in self.parts(base, image, wanted, None, *several):
                    yield piece
                    given += 1
            except sources.Unavailable as error:
                if error.state is not State.NO_RANGES or self._whole is None:
                    raise
                yield from self.streamed(base, image, wanted[given:])
        except sources.Unavailable as error:
            self.failed = error.state
            raise

    def parts(
        self,
        base: sources.Base,
        image: images.Image,
        wanted: Sequence[sources.Wanted],
        *stores: str | None,
    ) -> Iterator[sources.Piece]:
        """Give parts of an image, from the first store that has such.

        :raises sources.Unavailable: with ``NO_RANGES``, none of them has
        """
        given = 0
        problem: sources.Unavailable | None = None
        for store in stores:
            try:
                read = self.opened(base, image, store)
                for each in wanted[given:]:
                    data = read(each.start, each.length)
                    yield sources.Piece(each, data, _origin(image, store))
                    given += 1
            except sources.Unavailable as error:
                # Who may have it need not be let choose a store.
                chosen = problem is not None and store is not None
                if error.state is not State.NO_RANGES and not (
                    chosen and error.state is State.FORBIDDEN
                ):
                    raise
                problem = problem or error
            else:
                return
        if problem is not None:
            raise problem

    def opened(
        self,
        base: sources.Base,
        image: images.Image,
        store: str | None = None,
    ) -> Read:
        """Give what reads parts of a base file from its image.

        :param store: which of the image's stores to prefer
        :raises sources.Unavailable: there are no parts to be had
        """
        if images.is_as_it_is(image, base):
            size = image.size

            def from_image(start: int, length: int) -> bytes:
                return self.api.part(image, start, length, store)

        elif image.disk_format == 'qcow2':
            opened = qcow2_ranges.Qcow2Image(
                self.api, image, self._directory, self._watch, store
            )
            size, from_image = opened.size, opened.read
            check_size(base, size)
        else:
            raise sources.Unavailable(
                State.NO_RANGES,
                f'image {image.id} is {names.printable(image.disk_format)}, '
                'of which no parts are decoded',
            )

        def read(start: int, length: int) -> bytes:
            # What was resized goes on with zeros.
            within = max(0, min(start + length, size) - start)
            data = from_image(start, within) if within else b''
            return data.ljust(length, b'\0')

        return read

    def streamed(
        self,
        base: sources.Base,
        image: images.Image,
        wanted: Sequence[sources.Wanted],
        store: str | None = None,
    ) -> Iterator[sources.Piece]:
        """Read all of an image, if that is allowed.

        :param store: which of its stores to prefer
        :raises sources.Unavailable: it cannot be had
        """
        if self._whole is None:
            return
        stream = streams.Stream(
            self.api, image, self._directory, self._whole, self._watch, store
        )
        if images.is_as_it_is(image, base):
            # What was resized goes on with zeros.
            within = [
                sources.Wanted(
                    min(each.start, image.size),
                    max(0, min(each.end, image.size) - each.start),
                )
                for each in wanted
            ]
            found = streams.as_it_is(stream, within)
        else:
            found = streams.converted(stream, wanted)
        for each, data in zip(wanted, found, strict=True):
            yield sources.Piece(
                each, data.ljust(each.length, b'\0'), _origin(image, store)
            )


def check_size(base: sources.Base, size: int) -> None:
    """See that a base file can be made from so many bytes.

    :raises sources.Unavailable: it cannot
    """
    original = names.kind_of(base.name) is names.Kind.ORIGINAL
    if base.size < size or (original and base.size != size):
        raise sources.Unavailable(
            State.OTHER_BYTES,
            f'{names.printable(base.name)} has {base.size} bytes, and its '
            f'image {size}',
        )


def _origin(image: images.Image, store: str | None = None) -> str:
    return f'image {image.id}' + (f' in store {store}' if store else '')
