# SPDX-License-Identifier: Apache-2.0

"""Which sources are asked, and in which order: the one place for that.

What costs nothing comes first, and what loads others last.
"""

from collections.abc import Sequence

from nova_imagecache.cache import layouts
from nova_imagecache.conf import Settings
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import files
from nova_imagecache.heal.sources import image_service
from nova_imagecache.heal.sources import other_stores
from nova_imagecache.heal.sources import page_cache
from nova_imagecache.heal.sources import siblings
from nova_imagecache.heal.sources import ssh
from nova_imagecache.heal.sources import streams


def sources_of(
    settings: Settings,
    named: Sequence[str] = (),
    get_client: clients.GetClient | None = None,
    whole: streams.Bounds | None = streams.Bounds(),  # noqa: B008 frozen
    watch: sources.Watch | None = None,
) -> list[sources.Source]:
    """Give the sources of this node.

    :param get_client: gives a client of the image service, if one is needed;
        without it, that service is not asked
    :param whole: how much of an image that service may be asked for that
        gives no parts of it; None for nothing
    :param watch: who waits for them
    :param named: by a person: paths of files, and ``ssh://`` URLs
    :raises ValueError: one of them is neither
    """
    layout = layouts.Layout.of(settings)
    found: list[sources.Source] = [
        page_cache.PageCache(),
        siblings.Siblings(layout),
    ]
    if get_client is not None:
        service = image_service.ImageService(
            get_client, layout.temporary, whole, watch
        )
        found += [service, other_stores.OtherStores(service)]
    found += [_named(text, layout, watch) for text in named]
    return found


def _named(
    text: str, layout: layouts.Layout, watch: sources.Watch | None
) -> sources.Source:
    if text.startswith(ssh.SCHEME):
        return ssh.Ssh(text, watch)
    if '://' in text or not text:
        raise ValueError(f'{text!r} is neither a file nor ssh://HOST')
    return files.File(text, layout.temporary, watch)
