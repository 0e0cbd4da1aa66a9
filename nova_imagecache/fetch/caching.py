# SPDX-License-Identifier: Apache-2.0

"""The fetch path: getting an image into the cache, and a disk out of it.

It computes no checksum and, past the headers that the format inspector needs,
reads nothing of the image back: a guest that waits for its first boot must not
wait for us. The first reading of the file makes the checksum.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import os

from nova_imagecache.cache import directories
from nova_imagecache.cache import hosts
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import publish
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache.cache import tallies
from nova_imagecache.cache import trash
from nova_imagecache import clocks
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import errors
from nova_imagecache.fetch import images
from nova_imagecache.host import TouchAsRoot
from nova_imagecache import names

LOG = logging.getLogger(__name__)

#: Writes an image to the path that it is given.
Fetch = Callable[[str], object]

Event = tallies.Event

# A bad file is set aside, or somebody else is at it, who is waited for.
_ATTEMPTS = 5


@contextlib.contextmanager
def _staged(path: str) -> Iterator[str]:
    """Give a path to write to; what is there in the end is published.

    Under a name that nobody else writes to: stock Nova unlinks lock files, so
    somebody may hold "the same" lock. If we are killed it is a leftover.
    """
    parent, name = os.path.split(path)
    staged = os.path.join(parent, names.staged_name(name))
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


def _exists(path: str) -> bool:
    """Whether there is something at a path, be it that it cannot be seen.

    Nothing is to be fetched over what a failing disk or server hides.
    """
    # As Nova asks; what this says of an error is not enough.
    if os.path.exists(path):
        return True
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def prepare(layout: layouts.Layout, name: str) -> str:
    """Make the directory of the cache; give the path of a base file in it.

    :raises OSError: it cannot be made
    """
    os.makedirs(layout.base, exist_ok=True)
    return layout.file(name)


def is_there(
    layout: layouts.Layout,
    name: str,
    as_root: TouchAsRoot | None = None,
    refuse: bool = True,
) -> bool:
    """Whether the file is cached, or in the trash; then it is used now.

    See :func:`find`.
    """
    return find(layout, name, as_root, refuse) is not Event.MISS


def find(
    layout: layouts.Layout,
    name: str,
    as_root: TouchAsRoot | None = None,
    refuse: bool = True,
) -> tallies.Event:
    """Look for the file in the cache and in the trash; then it is used now.

    As Nova does, so that nobody takes it for unused meanwhile. The caller
    holds its lock.

    :param as_root: what the host lends for files that are not its own
    :param refuse: whether one that is known to be bad is no use
    :returns: whether it was there, came back, or is to be fetched
    :raises nova_imagecache.errors.KnownDamage: it is cached, and bad
    """
    found = Event.HIT
    if _exists(layout.file(name)):
        answer = soundness.ask(layout, name)
        if answer.is_bad and refuse:
            raise _refused(name, answer)
        if answer.is_untold:
            LOG.warning(
                '[N13] Whether base file %(name)s is sound cannot be told: '
                '%(reason)s',
                {'name': name, 'reason': answer.reason},
            )
    elif _recover(layout, name):
        found = Event.RESTORED
    else:
        ledgers.outlive(layout, name)
        return Event.MISS
    use(layout, name, as_root)
    return found


def bring_back(
    layout: layouts.Layout, name: str, as_root: TouchAsRoot | None = None
) -> bool:
    """Bring a base file back from the trash that somebody is about to fetch.

    The caller has ``locks.user_lock``. Waits for Nova's lock, as the fetch
    would, if there is anything to bring back.

    :param as_root: what the host lends for files that are not its own
    :returns: whether it is in the cache now
    :raises nova_imagecache.errors.LockBroken: the lock cannot be had at all
    """
    if _exists(layout.file(name)) or not any(
        file.original == name for file in trash.scan(layout).files
    ):
        return False
    with locks.nova_lock(layout, name, blocking=True):
        return is_there(layout, name, as_root, refuse=False)


def _refused(
    name: str, answer: soundness.Answer, why: str | None = None
) -> errors.KnownDamage:
    stays = '' if why is None else f'; it stays in the cache: {why}'
    return errors.KnownDamage(
        f'base file {name} is {answer.reason}, so no disk is made from it'
        f'{stays}'
    )


def use(
    layout: layouts.Layout, name: str, as_root: TouchAsRoot | None = None
) -> None:
    """Note that a base file is used now, as far as that can be done."""
    if not removal.touch(layout.file(name), as_root):
        states.note_use(layout, name, clocks.now())


def _recover(layout: layouts.Layout, name: str) -> bool:
    """Bring a base file back from the trash, if it is there and sound.

    The newest one. One that is known to be bad is to be fetched anew, and so
    is one of which it cannot be told.
    """
    files = [
        file for file in trash.scan(layout).files if file.original == name
    ]
    if directories.intruder(layout) is not None:
        return False
    for file in sorted(
        files, key=lambda file: names.trashed_at(file.name), reverse=True
    ):
        if soundness.of(file).soundness is not soundness.Soundness.SOUND:
            continue
        try:
            trash.move_out(file)
        except (errors.NotNow, OSError) as error:
            LOG.warning(
                '[N14] Base file %(name)s is fetched, as it cannot be brought '
                'back from the trash: %(error)s',
                {'name': name, 'error': error},
            )
            return False
        LOG.info('Brought base file %s back from the trash', name)
        return True
    return False


@dataclasses.dataclass(frozen=True)
class FetchPath:
    """The fetch path into one cache, out of which disks are made.

    :ivar set_aside: moves a bad base file to the trash if nobody uses it, or
        says why it stays
    :ivar refuse_damaged: whether no new disk is made from a base file that is
        bad and stays
    :ivar as_root: what the host lends for files that are not its own
    :ivar host: the one that this is
    """

    layout: layouts.Layout
    set_aside: Callable[[str], str | None]
    refuse_damaged: bool
    as_root: TouchAsRoot | None = None
    host: str | None = None

    def cache_image(
        self,
        fetch: Fetch,
        name: str,
        disk_format: str | None = None,
        resize_to: int | None = None,
        overlay: str | None = None,
        size: int | None = None,
    ) -> str:
        """Make sure that a base file is in the cache, and make a disk from it.

        See :meth:`nova_imagecache.manager.ImageCacheManager.cache_image`.
        """
        kind = names.kind_of(name)
        if not kind.is_base:
            raise ValueError(f'{name!r} is not the name of a base file')
        if resize_to is not None and kind is not names.Kind.ORIGINAL:
            raise ValueError(f'{name!r} is no original, so it is not resized')
        prepare(self.layout, name)
        # A guest whose disk is there is started, whatever that reads.
        new = overlay is None or not os.path.lexists(overlay)
        refuse = new and self.refuse_damaged
        resized = f'{name}_{resize_to}'
        # What the original holds counts where that is handed out, or copied.
        copied = resize_to is None or not self._is_sound(resized)
        with self._secured(name, refuse and copied):
            self._ensure_fetched(name, fetch, disk_format)
            if resize_to is None:
                self._note_use(name)
                if overlay is not None:
                    self._ensure_overlay(name, overlay, size)
        if resize_to is None:
            return self.layout.file(name)
        with self._secured(resized, refuse):
            self._ensure_resized(name, resized, resize_to)
            self._note_use(resized)
            if overlay is not None:
                self._ensure_overlay(resized, overlay, size)
        return self.layout.file(resized)

    @contextlib.contextmanager
    def _secured(self, name: str, refuse: bool) -> Iterator[None]:
        """Hold the locks of a base file that is not known to be bad.

        One that is bad and that nobody uses is set aside, to be made anew.
        That takes them itself, so it is done before.

        :param refuse: whether one that is bad and stays is no use
        :raises nova_imagecache.errors.KnownDamage: there is such a one
        """
        why = None
        for attempts_left in reversed(range(_ATTEMPTS + 1)):
            with (
                locks.user_lock(self.layout, name),
                locks.nova_lock(self.layout, name, blocking=True),
            ):
                answer = soundness.ask(self.layout, name)
                if not answer.is_bad or not refuse:
                    if answer.is_bad:
                        LOG.error(
                            '[C06] Base file %(name)s is %(damage)s, and used '
                            'all the same',
                            {'name': name, 'damage': answer.reason},
                        )
                    yield
                    return
                if not attempts_left:
                    self._count(Event.REFUSED)
                    raise _refused(name, answer, why)
            why = self.set_aside(name)
            if why is None:
                LOG.warning(
                    '[C08] Base file %(name)s is %(damage)s. Nobody uses it, '
                    'so it is in the trash, and made anew.',
                    {'name': name, 'damage': answer.reason},
                )

    def _note_use(self, name: str) -> None:
        if self.host is not None:
            hosts.note_use(self.layout, self.host, name, clocks.now().wall)

    def _count(self, event: tallies.Event) -> None:
        if self.host is not None:
            tallies.count(self.layout, self.host, event)

    def _is_sound(self, name: str) -> bool:
        return (
            _exists(self.layout.file(name))
            and not soundness.ask(self.layout, name).is_bad
        )

    def _is_there(self, name: str) -> bool:
        # What may not be handed out is behind us.
        return is_there(self.layout, name, self.as_root, refuse=False)

    def _ensure_fetched(
        self, name: str, fetch: Fetch, disk_format: str | None
    ) -> None:
        # What may not be handed out is behind us.
        found = find(self.layout, name, self.as_root, refuse=False)
        if found is not Event.MISS:
            self._count(found)
            return
        with _staged(self.layout.file(name)) as staged:
            fetch(staged)
            if not os.path.lexists(staged):
                raise errors.FetchFailed(f'fetch wrote no file at {staged}')
            _inspect(staged, names.kind_of(name), disk_format)
            # It is used from now on, whatever times the fetch has copied.
            os.utime(staged)
        self._count(found)

    def _ensure_resized(self, original: str, name: str, size: int) -> None:
        if self._is_there(name):
            return
        source = self.layout.file(original)
        image = images.inspect(source)
        _check_size(image, size)
        with _staged(self.layout.file(name)) as staged:
            images.copy_resized(source, staged, image, size)

    def _ensure_overlay(
        self, name: str, overlay: str, size: int | None
    ) -> None:
        overlay = os.path.abspath(overlay)
        if os.path.lexists(overlay):
            return
        path = self.layout.file(name)
        image = _inspect(path, names.kind_of(name), None)
        _check_size(image, size)
        try:
            images.create_overlay(overlay, path, image, size)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(overlay)
            raise
