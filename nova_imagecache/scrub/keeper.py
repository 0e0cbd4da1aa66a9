# SPDX-License-Identifier: Apache-2.0

"""What is known of one base file, from its recall to its publication."""

import contextlib
import dataclasses

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import records
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache import errors


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
    if known.stored is None and not known.blind and digest is not None:
        with file.guard():
            now = knowledge.recall(file)
            if now != known:
                raise errors.NotNow('its records have changed meanwhile')
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
            ledger
        """
        now = knowledge.recall(self._file)
        if now.ledger != self.known.ledger:
            raise errors.NotNow('its records have changed meanwhile')
        self.known = dataclasses.replace(
            self.known, stored=now.stored, blind=now.blind
        )

    def publish(
        self,
        ledger: ledgers.Ledger,
        blocks: blockmap.Blocks | None,
        guard: contextlib.AbstractContextManager[object] | None = None,
    ) -> None:
        """Publish a ledger, and the stored checksum if there is none.

        :param guard: that of the file, where the lock is worth some waiting
        :raises nova_imagecache.errors.NotNow: not now, or it is known better
            by now
        :raises OSError: it was not published
        """
        with self._file.guard() if guard is None else guard:
            self._publish(ledger, blocks)

    def _publish(
        self, ledger: ledgers.Ledger, blocks: blockmap.Blocks | None
    ) -> None:
        known, file = self.known, self._file
        now = knowledge.recall(file)
        if (now.ledger, now.stored) != (known.ledger, known.stored):
            raise errors.NotNow('its records have changed meanwhile')
        if now.blind and not known.blind:
            raise errors.Blind('; '.join(now.problems))
        if known.blind and known.ledger is None:
            # There may be a ledger that says something else.
            return
        if known.lost and not identity.gone(file.ledger):
            records.set_aside(file.ledger, errors.Damaged('it says nothing'))
        stored, failure = known.stored, None
        if ledger.settled and ledger.sha1 and not (stored or known.blind):
            try:
                sidecars.save(file, ledger.sha1)
                stored = ledger.sha1
            except OSError as error:
                failure = error
        ledger = dataclasses.replace(ledger, sidecar=sidecars.key_of(file))
        ledger.save(file, blocks)
        self.known = dataclasses.replace(
            known, stored=stored, ledger=ledger, lost=False
        )
        if failure is not None:
            raise failure
