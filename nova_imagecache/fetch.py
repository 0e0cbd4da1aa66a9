# SPDX-License-Identifier: Apache-2.0

"""The fetch path: getting an image into the cache, and a disk out of it.

It computes no checksum and, past the headers that the format inspector needs,
reads nothing of the image back: a guest that waits for its first boot must not
wait for us. The manager's first pass over the file makes the checksum.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import secrets

from oslo_config import cfg
from oslo_log import log as logging

from nova_imagecache.cache import directory
from nova_imagecache.cache import images
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import publish
from nova_imagecache.cache import removal
from nova_imagecache.cache import trash
from nova_imagecache.cache import uses
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import errors
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache import names

LOG = logging.getLogger(__name__)

#: Writes an image to the path that it is given.
Fetch = Callable[[str], object]


@contextlib.contextmanager
def _staged(path: str) -> Iterator[str]:
    """Give a path to write to; what is there in the end is published.

    Under a name that nobody else writes to: stock Nova unlinks lock files, so
    somebody may hold "the same" lock. If we are killed it is a leftover.
    """
    parent, name = os.path.split(path)
    # As rsync names what it writes to.
    staged = os.path.join(parent, f'.{name}.{secrets.token_hex(3)}')
    try:
        yield staged
        publish.rename(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise


def _inspect(
    path: str, kind: names.Kind, disk_format: str | None
) -> images.Image:
    if not kind.is_image:
        # The driver made it itself, from nothing that a user supplied.
        return images.Image('raw', os.path.getsize(path))
    return images.inspect(path, disk_format)


def _check_size(image: images.Image, size: int | None) -> None:
    if size is not None and size < image.virtual_size:
        raise errors.FetchFailed(
            f'the image needs {image.virtual_size} bytes, more than the '
            f'{size} asked for'
        )


def prepare(layout: layouts.Layout, name: str) -> str:
    """Make the directory of the cache; give the path of a base file in it.

    :raises OSError: it cannot be made
    """
    os.makedirs(layout.base, exist_ok=True)
    return layout.file(name)


def is_there(
    layout: layouts.Layout, name: str, as_root: removal.Touch | None = None
) -> bool:
    """Whether the file is cached, or in the trash; then it is used now.

    As Nova does, so that nobody takes it for unused meanwhile. The caller
    holds its lock.

    :param as_root: what the host lends for files that are not its own
    """
    if not os.path.exists(layout.file(name)) and not _recover(layout, name):
        return False
    use(layout, name, as_root)
    return True


def use(
    layout: layouts.Layout, name: str, as_root: removal.Touch | None = None
) -> None:
    """Note that a base file is used now, as far as that can be done."""
    if not removal.touch(layout.file(name), as_root):
        uses.note_use(layout, name, clocks.now())


def _recover(layout: layouts.Layout, name: str) -> bool:
    """Bring a base file back from the trash, if it is there and sound.

    The newest one. One that is known to be bad is to be fetched anew, and so
    is one of which it cannot be told.
    """
    files = [
        file
        for file in trash.scan(layout).files
        if trash.original(file.name) == name
    ]
    if directory.intruder(layout) is not None:
        return False
    for file in sorted(
        files, key=lambda file: names.trashed_at(file.name), reverse=True
    ):
        known = knowledges.recall(layout, file)
        if known.blind or known.lost or known.finding.damaged:
            continue
        try:
            trash.move_out(layout, file)
        except (errors.NotNow, OSError) as error:
            LOG.warning(
                'Base file %(name)s is fetched, as it cannot be brought back '
                'from the trash: %(error)s',
                {'name': name, 'error': error},
            )
            return False
        LOG.info('Brought base file %s back from the trash', name)
        return True
    return False


def _ensure_fetched(
    layout: layouts.Layout, name: str, fetch: Fetch, disk_format: str | None
) -> None:
    if is_there(layout, name):
        return
    with _staged(layout.file(name)) as staged:
        fetch(staged)
        if not os.path.lexists(staged):
            raise errors.FetchFailed(f'fetch wrote no file at {staged}')
        _inspect(staged, names.kind_of(name), disk_format)
        # It is used from now on, whatever times the fetch has copied.
        os.utime(staged)


def _ensure_resized(
    layout: layouts.Layout, original: str, name: str, size: int
) -> None:
    if is_there(layout, name):
        return
    image = images.inspect(original)
    _check_size(image, size)
    with _staged(layout.file(name)) as staged:
        images.copy_resized(original, staged, image, size)


def _ensure_overlay(
    layout: layouts.Layout, name: str, overlay: str, size: int | None
) -> None:
    overlay = os.path.abspath(overlay)
    if os.path.lexists(overlay):
        return
    path = layout.file(name)
    image = _inspect(path, names.kind_of(name), None)
    _check_size(image, size)
    try:
        images.create_overlay(overlay, path, image, size)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(overlay)
        raise


def cache_image(
    fetch: Fetch,
    name: str,
    *,
    conf: cfg.ConfigOpts | None = None,
    disk_format: str | None = None,
    resize_to: int | None = None,
    overlay: str | None = None,
    size: int | None = None,
) -> str:
    """Make sure that a base file is in the cache, and make a disk from it.

    One that was removed lately comes back from the trash. Waits for the file's
    lock, which is Nova's, and so for anybody else who is fetching the same
    image. Nobody ever sees half a base file.

    :param fetch: writes the image to the path it is given; called only if
        the base file is absent. What it raises comes out here.
    :param name: of the base file: ``get_cache_fname(image_id)``, or the
        driver's own ``swap_<mb>`` and ``ephemeral_<gb>_<hash>``
    :param conf: the host's options, by default the global ones
    :param disk_format: what the image service says the image is; None to go
        by its content
    :param resize_to: make a resized base file of so many bytes as well
    :param overlay: make a qcow2 disk at this path, backed by the base file;
        one that is there already is left as it is
    :param size: virtual size of that disk in bytes, by default the base
        file's
    :returns: path of the base file, the resized one if that was asked for
    :raises ValueError: no base file has such a name
    :raises nova_imagecache.errors.ImageRefused: the image is hostile or not
        what it is said to be; it is not in the cache
    :raises nova_imagecache.errors.FetchFailed: the file or the disk could not
        be made; nothing of it is left
    :raises nova_imagecache.errors.LockBroken: the lock cannot be taken
    :raises OSError: a file or directory of the cache cannot be written
    :raises oslo_config.cfg.Error: a value of an option makes no sense
    """
    kind = names.kind_of(name)
    if not kind.is_base:
        raise ValueError(f'{name!r} is not the name of a base file')
    if resize_to is not None and kind is not names.Kind.ORIGINAL:
        raise ValueError(f'{name!r} is no original, so it is not resized')
    conf = cfg.CONF if conf is None else conf
    confs.register_opts(conf)
    layout = layouts.Layout.of(confs.read_settings(conf))
    prepare(layout, name)
    with locks.nova_lock(layout, name, blocking=True):
        _ensure_fetched(layout, name, fetch, disk_format)
        if resize_to is None and overlay is not None:
            _ensure_overlay(layout, name, overlay, size)
    if resize_to is None:
        return layout.file(name)
    resized = f'{name}_{resize_to}'
    with locks.nova_lock(layout, resized, blocking=True):
        _ensure_resized(layout, layout.file(name), resized, resize_to)
        if overlay is not None:
            _ensure_overlay(layout, resized, overlay, size)
    return layout.file(resized)
