# SPDX-License-Identifier: Apache-2.0

"""What is known of one base file, from its recall to its publication."""

from collections.abc import Callable
import contextlib
import dataclasses
import logging

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import publish
from nova_imagecache.cache import records
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache import errors

LOG = logging.getLogger(__name__)

_CHANGED = 'its records have changed meanwhile'


def restore_checksum(
    file: base_file.BaseFile, known: knowledge.Knowledge
) -> None:
    """Bring back a lost stored checksum from the ledger.

    Stock Nova on another host of shared storage takes ``<sha1>_<n>.sha1`` for
    a resized image and deletes it.

    :raises nova_imagecache.errors.NotNow: not in this pass
    :raises OSError: it was not written
    """
    digest = known.ledger.sha1 if known.ledger else None
    if digest is None or known.question:
        # Whether it is of this file is yet to be found out.
        return
    if known.stored is None and not known.blind:
        with file.guard():
            now = knowledge.recall(file)
            if now != known:
                raise errors.NotNow(_CHANGED)
            sidecars.save(file, digest)


class Keeper:
    """Keeps what is known of one incarnation of a base file.

    Nothing is published but in the file's guard, and if nobody else has
    published anything since.

    :ivar known: what is known, as it was last recalled or published
    """

    def __init__(
        self, file: base_file.BaseFile, known: knowledge.Knowledge
    ) -> None:
        """Begin with what was recalled."""
        self.known = known
        self._file = file

    def recall_blocks(self) -> blockmap.Blocks | None:
        """Read the digests; None where there are none, or they are lost.

        :raises nova_imagecache.errors.NotNow: they cannot be read
        """
        if self.known.ledger is None:
            return None
        try:
            return self.known.ledger.load_blocks(self._file)
        except errors.Damaged:
            self.known = dataclasses.replace(self.known, lost=True)
            return None
        except OSError as error:
            raise errors.Blind(
                f'its ledger cannot be read: {error.strerror}'
            ) from error

    def recall_checksum(self) -> None:
        """Take up a stored checksum that was made or lost meanwhile.

        :raises nova_imagecache.errors.NotNow: somebody else has changed the
            ledger, or what is known cannot be read
        """
        now = self._recall()
        if now.ledger != self.known.ledger:
            raise errors.NotNow(_CHANGED)
        self.known = dataclasses.replace(
            self.known, stored=now.stored, blind=now.blind
        )

    def _recall(self) -> knowledge.Knowledge:
        now = knowledge.recall(self._file)
        if now.blind and not self.known.blind:
            raise errors.Blind('; '.join(now.problems))
        return now

    def publish(
        self,
        ledger: ledgers.Ledger,
        blocks: blockmap.Blocks | None,
        guard: contextlib.AbstractContextManager[object] | None = None,
        supersedes: bool = False,
    ) -> None:
        """Publish a ledger, and the stored checksum if there is none.

        :param guard: that of the file, where the lock is worth some waiting
        :param supersedes: whether a stored checksum is of an earlier file,
            and goes
        :raises nova_imagecache.errors.NotNow: not now, or it is known better
            by now
        :raises OSError: it was not published
        """
        known, file = self.known, self._file
        if known.blind and known.ledger is None:
            # There may be a ledger that says something else.
            raise errors.Blind(
                '; '.join(known.problems) or 'its ledger cannot be read'
            )
        key = identity.merged(ledger.key, file.incarnation.key)
        ledger = dataclasses.replace(ledger, key=key)
        stored = None if supersedes else known.stored
        digest = ledger.sha1 if ledger.settled else None
        with contextlib.ExitStack() as stack:
            # Nothing is written and synced while the lock is held.
            put = stack.enter_context(ledger.prepared(file, blocks))
            store = None
            if digest and not (stored or known.blind):
                store = stack.enter_context(sidecars.prepared(file, digest))
            stack.enter_context(file.guard() if guard is None else guard)
            now = self._recall()
            if (now.ledger, now.stored) != (known.ledger, known.stored):
                raise errors.NotNow(_CHANGED)
            if known.lost and not identity.gone(file.ledger):
                self._set_aside()
            self._put(ledger, put, store, stored, supersedes)

    def _set_aside(self) -> None:
        """Keep a damaged ledger, for somebody to look at."""
        file = self._file
        if self.known.ledger is None:
            records.set_aside(file.ledger, errors.Damaged('it says nothing'))
            return
        # A copy, as what its line says counts until there is another one.
        aside = file.ledger + records.DAMAGED_SUFFIX
        with contextlib.suppress(OSError):
            with open(file.ledger, 'rb') as ledger:
                data = ledger.read()
            publish.publish(aside, data, file.layout.temporary)
        LOG.warning(
            '[N10] The digests in the record %(path)s are damaged, and have '
            'to be learnt again. It is kept as %(aside)s.',
            {'path': file.ledger, 'aside': aside},
        )

    def _put(
        self,
        ledger: ledgers.Ledger,
        put: Callable[[], None],
        store: Callable[[], None] | None,
        stored: str | None,
        supersedes: bool,
    ) -> None:
        """Put both in their places; a checksum that fails is no reason."""
        failure = None
        if supersedes:
            # Whoever is killed here leaves none that the ledger knows not.
            sidecars.remove(self._file)
            put()
        try:
            if store is not None:
                store()
                stored = ledger.sha1
        except OSError as error:
            failure = error
        if not supersedes:
            put()
        self.known = dataclasses.replace(
            self.known, stored=stored, ledger=ledger, older=False, lost=False
        )
        if failure is not None:
            raise failure
