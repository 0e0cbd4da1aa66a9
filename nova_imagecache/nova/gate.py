# SPDX-License-Identifier: Apache-2.0

"""No disk is made from a base file that is known to be bad."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import contextvars
import functools
from typing import Any

import nova.conf
from nova import exception
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_imagecache.cache import tallies
from nova_imagecache import coalesce
from nova_imagecache.nova import manager

LOG = logging.getLogger(__name__)

CONF = nova.conf.CONF

# Of one thread, or one green thread.
_OPEN = contextvars.ContextVar('imagecache_gate_open', default=False)


class DamagedBaseFile(exception.NovaException):
    """No disk is made from a base file that is known to be bad.

    Nothing that the compute manager knows (``_build_and_run_instance`` in
    nova/compute/manager.py), and its text says nothing of this host or of
    others' guests (decision 0036).
    """

    msg_fmt = (
        'The copy of %(what)s on this host is %(damage)s, so no disk is made '
        'from it'
    )


def _do_nothing() -> None:
    pass


class Gate:
    """Looks at what is known of a base file, and never at its content."""

    def __init__(self, images: manager.NovaImageCacheManager) -> None:
        """Look at nothing yet."""
        self._images = images
        # Many builds of one image come at once (decision 0038).
        self._attempts: dict[str, coalesce.Coalesced[str | None]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let everything through, as the guest was there before.

        Some of its disks may not be (decision 0037).
        """
        token = _OPEN.set(True)
        try:
            yield
        finally:
            _OPEN.reset(token)

    def check(
        self,
        name: str,
        image_id: str | None,
        exists: Callable[[], bool] | None = None,
    ) -> None:
        """See that a disk may be made from a base file.

        One that is bad and that nobody uses is set aside, so that Nova fetches
        it anew. What goes wrong here keeps no guest from being built.

        :param image_id: None for swap and ephemeral disks
        :param exists: tells whether the disk is there already; asked only if
            the base file is bad. Then, and while the gate is open, it is used
            as it is. Without this it is not, in any case.
        :raises DamagedBaseFile: it is known to be bad, and stays
        """
        try:
            damage = self._settle(name, image_id, exists)
        # A broad net, as nothing that fails in here is the guest's fault.
        except Exception as error:
            LOG.warning(
                '[N13] Whether base file %(name)s may be used cannot be told: '
                '%(error)s',
                {'name': name, 'error': str(error) or repr(error)},
            )
            return
        if damage is not None:
            what = f'image {image_id}' if image_id else f'base file {name}'
            raise DamagedBaseFile(what=what, damage=damage)

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[manager.Use]:
        """Keep a base file from all who would remove or fetch it meanwhile.

        What goes wrong here keeps no guest from being built.
        """
        with contextlib.ExitStack() as stack:
            use = manager.Use(_do_nothing)
            try:
                use = stack.enter_context(self._images.using(name))
            # A broad net, as in check.
            except Exception as error:
                LOG.warning(
                    '[N15] Base file %(name)s cannot be kept from others: '
                    '%(error)s',
                    {'name': name, 'error': str(error) or repr(error)},
                )
            yield use

    def count(self, event: tallies.Event) -> None:
        """Count what became of a request for the base file of an image.

        Not of guests that were there before: they ask for it at each start.
        What goes wrong here keeps no guest from being built.
        """
        if _OPEN.get() and event is tallies.Event.HIT:
            return
        try:
            self._images.count(event)
        # A broad net, as in check.
        except Exception as error:
            LOG.debug('That there was a %s is not counted: %s', event, error)

    def note_name(self, image_meta: Any) -> None:
        """Note what an image is called of which a guest was made.

        What goes wrong here ends no guest.

        :param image_meta: as Nova has it; all of it may be missing
        """
        try:
            self._images.note_name(image_meta.id, image_meta.name)
        # A broad net, as in check; Nova raises for what was not set.
        except Exception as error:
            LOG.debug('What an image is called is not noted: %s', error)

    def note_use(self, name: str) -> None:
        """Note for other hosts that a disk is made from a base file.

        What goes wrong here keeps no guest from being built.
        """
        try:
            self._images.note_use(name)
        # A broad net, as in check.
        except Exception as error:
            LOG.warning(
                '[N16] That base file %(name)s is used cannot be noted: '
                '%(error)s',
                {'name': name, 'error': str(error) or repr(error)},
            )

    def _settle(
        self,
        name: str,
        image_id: str | None,
        exists: Callable[[], bool] | None,
    ) -> str | None:
        """Do what can be done; say what damage forbids to make the disk."""
        self._images.expect(name)
        answer = self._images.soundness_of(name)
        file = f'{name} of image {image_id}' if image_id else name
        if answer.is_untold:
            LOG.warning(
                '[N13] Whether base file %(file)s may be used cannot be told: '
                '%(reason)s',
                {'file': file, 'reason': answer.reason},
            )
        if not answer.is_bad:
            return None
        details = {'file': file, 'damage': answer.reason}
        passes = exists is not None and (_OPEN.get() or exists())
        if passes or not CONF.image_cache.refuse_damaged_base_images:
            LOG.error(
                '[C06] Base file %(file)s is %(damage)s, and used all the '
                'same',
                details,
            )
            return None
        reason = self._attempts.setdefault(
            name,
            coalesce.Coalesced(
                functools.partial(self._images.set_aside, name)
            ),
        )()
        # It may be another file by now, whatever kept the one that was judged.
        answer = self._images.soundness_of(name)
        if answer.is_bad:
            LOG.error(
                '[C07] Base file %(file)s is %(damage)s, and stays: '
                '%(reason)s',
                details | {'damage': answer.reason, 'reason': reason},
            )
            return answer.reason
        if reason is None:
            LOG.warning(
                '[C08] Base file %(file)s is %(damage)s. Nobody uses it, so '
                'it is in the trash, and made anew.',
                details,
            )
        return None


def _reads_base(kind: Any, arguments: dict[str, Any]) -> bool:
    """Tell whether a kind of image makes a disk out of a base file.

    As ``create_image`` of each in nova/virt/libvirt/imagebackend.py: some make
    swap and ephemeral disks where they are to be.
    """
    if issubclass(kind, imagebackend.Flat | imagebackend.Ploop):
        return 'image_id' in arguments
    if issubclass(kind, imagebackend.Lvm):
        return not arguments.get('ephemeral_size')
    return True


class _Fetch:
    """Has others use a file as soon as it is fetched.

    Not before the disk is made, which takes its time where it is a copy.

    :ivar done: whether it was
    """

    def __init__(
        self, share: Callable[[], None], fetch: Callable[..., None]
    ) -> None:
        self._share = share
        self._fetch = fetch
        self.done = False

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._fetch(*args, **kwargs)
        self.done = True
        self._share()


def _behind(gate: Gate, kind: Any) -> Any:
    """Give a kind of image whose ``cache`` asks the gate first.

    It is ``Image.cache`` of nova/virt/libvirt/imagebackend.py (decision 0036).
    """

    class Image(kind):
        def cache(
            self,
            fetch_func: Callable[..., None],
            filename: str,
            *args: Any,
            **kwargs: Any,
        ) -> None:
            if not _reads_base(kind, kwargs):
                super().cache(fetch_func, filename, *args, **kwargs)
                return
            try:
                gate.check(filename, kwargs.get('image_id'), self.exists)
            except DamagedBaseFile:
                # Here, and not where nothing is built.
                gate.count(tallies.Event.REFUSED)
                raise
            gate.note_use(filename)
            with gate.using(filename) as use:
                fetch = _Fetch(use.share, fetch_func)
                super().cache(fetch, filename, *args, **kwargs)
            if kwargs.get('image_id'):
                gate.count(
                    tallies.Event.MISS
                    if fetch.done
                    else tallies.Event.RESTORED
                    if use.restored
                    else tallies.Event.HIT
                )
            # Again, where the fetch has taken long.
            gate.note_use(filename)

    return functools.update_wrapper(Image, kind, updated=())


class Backend(imagebackend.Backend):
    """Nova's image backends, behind the gate."""

    def __init__(self, gate: Gate, use_cow: bool) -> None:
        """Choose among them as Nova does.

        :param use_cow: ``CONF.use_cow_images``
        """
        super().__init__(use_cow)
        self.BACKEND: dict[str, Any] = {
            name: _behind(gate, kind) for name, kind in self.BACKEND.items()
        }
