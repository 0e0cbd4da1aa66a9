# SPDX-License-Identifier: Apache-2.0

"""What people call the images whose base files are cached.

Names come from whoever has one in hand: the host that makes a guest, and the
image service where that is asked for data. Nobody asks it for a name. They
are other people's text, so they are cut and made printable here, and say
nothing of the content of a file.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import dataclasses
import logging
import os

from oslo_utils import uuidutils

from nova_imagecache.cache import layouts
from nova_imagecache.cache import records
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

# As many characters as a name may have in the image service.
_MOST_CHARACTERS = 255


@dataclasses.dataclass(frozen=True)
class Image:
    """An image, as it was called when that was last seen.

    :ivar id: as the image service has it
    :ivar name: printable, 255 characters at most
    """

    id: str
    name: str


_FORMAT = records.Format('image', 1, Image, lasting=False)


def bounded(name: str) -> str:
    """Give a name as it is kept and shown."""
    return names.printable(name[:_MOST_CHARACTERS])[:_MOST_CHARACTERS].strip()


def _path(layout: layouts.Layout, name: str) -> str:
    return os.path.join(layout.images, names.fingerprint(name))


def note(layout: layouts.Layout, image_id: str, name: object) -> None:
    """Note what an image is called whose base file is cached.

    Best effort: nothing that goes wrong comes out of here, and what is noted
    already is not written again. Nothing is noted before the first pass over
    a cache.

    :param name: whatever was said to be its name
    """
    try:
        if not (isinstance(name, str) and bounded(name)):
            return
        new = Image(image_id, bounded(name))
        path = _path(layout, names.get_cache_fname(image_id))
        if load(layout, names.get_cache_fname(image_id)) == new:
            return
        cached = layout.file(names.get_cache_fname(image_id))
        if os.path.isdir(layout.images) and os.path.lexists(cached):
            _FORMAT.save(layout, path, new)
    except (errors.Error, OSError, ValueError) as error:
        LOG.debug('The name of image %s is not noted: %s', image_id, error)


def load(layout: layouts.Layout, name: str) -> Image | None:
    """Give the image of a base file, if it has a name that was noted.

    What cannot be read is not known.
    """
    try:
        found = _FORMAT.load(_path(layout, name))
    except (errors.Error, OSError, ValueError):
        return None
    if found is None or not bounded(found.name):
        return None
    if names.get_cache_fname(found.id) != names.fingerprint(name):
        return None
    return Image(found.id, bounded(found.name))


def load_all(
    layout: layouts.Layout, wanted: Iterable[str] | None = None
) -> Mapping[str, Image]:
    """Give those that are known, by the names of their original base files.

    :param wanted: the names of base files; None for all images
    """
    chosen = _list(layout) if wanted is None else {*wanted}
    return {
        names.fingerprint(name): image
        for name in chosen
        if (image := load(layout, name)) is not None
    }


def called(images: Mapping[str, Image], text: str) -> frozenset[str]:
    """Give the IDs of the images that people call so.

    What may be an ID is none of a name: whoever names an image would choose
    what is done to another one.
    """
    if uuidutils.is_uuid_like(text):
        return frozenset()
    return frozenset(each.id for each in images.values() if each.name == text)


def forget_others(layout: layouts.Layout, present: Collection[str]) -> None:
    """Forget the images of which no file is there, in cache or trash.

    :param present: the names of those that are there, as in the cache
    """
    kept = {*map(names.fingerprint, present)}
    for name in _list(layout):
        # It may have been fetched since that was looked at.
        if name not in kept and not os.path.lexists(layout.file(name)):
            with contextlib.suppress(OSError):
                os.unlink(_path(layout, name))


def _list(layout: layouts.Layout) -> list[str]:
    try:
        found = os.listdir(layout.images)
    except OSError:
        return []
    return sorted(
        name for name in found if names.kind_of(name) is names.Kind.ORIGINAL
    )
