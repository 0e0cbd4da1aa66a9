# SPDX-License-Identifier: Apache-2.0

"""The stores of an image, one by one, for what came damaged from one of them.

The image service takes any store that has the image, and compares nothing.
"""

from collections.abc import Iterator
from collections.abc import Sequence

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_service

State = sources.State

# What may be the matter with one store, and not with the others. Where one is
# down, the image service takes another by itself.
_OF_A_STORE = (State.OTHER_BYTES, State.TRUNCATED, State.HOSTILE, State.FAILED)


class OtherStores:
    """Gets from each store what the image service gave wrong, or not.

    A source of its own, so that it is asked for what is still bad alone.

    :ivar name: as it is the image service, for people and in its back-off
    """

    name = image_service.ImageService.name
    cryptographic = True

    def __init__(self, service: image_service.ImageService) -> None:
        """Ask nothing yet.

        :param service: was asked before, for the same file
        """
        self._service = service

    @property
    def fetched(self) -> int:
        """Bytes that came over the network so far, also before."""
        return self._service.fetched

    def read(
        self, base: sources.Base, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        """Give what each store has; images are read as a whole last.

        Nothing, where no other store would have anything else to say.

        :raises sources.Unavailable: some store gives nothing, or no more of it
        """
        service = self._service
        image = service.latest
        if image is None or image.id != base.image or len(image.stores) < 2:
            return
        if service.failed not in (None, *_OF_A_STORE):
            return
        problem: sources.Unavailable | None = None
        rangeless: list[str] = []
        for get, stores in (
            (service.parts, image.stores),
            (service.streamed, rangeless),
        ):
            for store in stores:
                try:
                    yield from get(base, image, wanted, store)
                except sources.Unavailable as error:
                    if error.state is State.FORBIDDEN:
                        # To choose a store: download_from_store of a policy.
                        return
                    if error.state is State.NO_RANGES:
                        rangeless.append(store)
                    elif error.state not in _OF_A_STORE:
                        raise
                    problem = error
        if problem is not None:
            raise problem
