# SPDX-License-Identifier: Apache-2.0

"""What is known of one base file, from its recall to its publication."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import time

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache.integrity import blocks as block_maps
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import ledger as ledgers

_POLL_SECONDS = 0.2

#: Waits for so many seconds; says whether we are to stop waiting.
Wait = Callable[[float], bool]


def restore_checksum(
    layout: layouts.Layout,
    file: scan.CachedFile,
    known: knowledges.Knowledge,
) -> None:
    """Bring back a lost stored checksum from the ledger.

    Stock Nova on another host of shared storage takes ``<sha1>_<n>.sha1`` for
    a resized image and deletes it.

    :raises nova_imagecache.errors.NotNow: not in this pass
    :raises OSError: it was not written
    """
    digest = known.ledger.sha1 if known.ledger else None
    if known.stored is None and not known.blind and digest is not None:
        with locks.guard(layout, file.name, file.status.incarnation):
            checksum.store_checksum(layout.file(file.name), digest)


class Keeper:
    """Keeps what is known of one incarnation of a base file.

    Nothing is published but with the file's guard held, and if nobody else has
    published anything since.

    :ivar known: what is known, as it was last recalled or published
    """

    def __init__(
        self,
        layout: layouts.Layout,
        file: scan.CachedFile,
        known: knowledges.Knowledge,
    ) -> None:
        """Begin with what was recalled."""
        self.known = known
        self._layout = layout
        self._file = file

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file, once nobody holds its lock.

        :raises nova_imagecache.errors.NotNow: somebody does, or it is gone
        :raises OSError: it cannot be opened
        """
        with self._guard():
            # Nobody who takes the lock replaces the file in here.
            fd = statuses.open_regular(self._layout.file(self._file.name))
        try:
            yield fd
        finally:
            os.close(fd)

    def recall_blocks(self) -> block_maps.Blocks | None:
        """Read the digests; None where there are none, or they are lost.

        :raises nova_imagecache.errors.NotNow: they cannot be read
        """
        if self.known.ledger is None:
            return None
        try:
            return ledgers.load_blocks(
                self._layout, self._file.name, self.known.ledger
            )
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
        now = knowledges.recall(self._layout, self._file)
        if now.ledger != self.known.ledger:
            raise errors.NotNow('its records have changed meanwhile')
        self.known = dataclasses.replace(
            self.known, stored=now.stored, blind=now.blind
        )

    def check_unreplaced(self) -> statuses.Status:
        """Give the status of the file, provided it is still the same file.

        :raises nova_imagecache.errors.Changed: it is not
        :raises OSError: it cannot be looked at
        """
        return locks.check_unreplaced(
            self._layout, self._file.name, self._file.status.incarnation
        )

    def publish(
        self,
        ledger: ledgers.Ledger,
        blocks: block_maps.Blocks | None,
        patience: float = 0,
        wait: Wait = lambda seconds: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Publish a ledger, and the stored checksum if there is none.

        :param patience: for how many seconds to wait for the file's lock
        :param wait: how to wait
        :raises nova_imagecache.errors.NotNow: not now, or it is known better
            by now
        :raises OSError: it was not published
        """
        deadline = monotonic() + patience
        while True:
            try:
                with self._guard():
                    return self._publish(ledger, blocks)
            except errors.Locked:
                if monotonic() >= deadline or wait(_POLL_SECONDS):
                    raise

    def _guard(self) -> contextlib.AbstractContextManager[statuses.Status]:
        return locks.guard(
            self._layout, self._file.name, self._file.status.incarnation
        )

    def _publish(
        self, ledger: ledgers.Ledger, blocks: block_maps.Blocks | None
    ) -> None:
        known = self.known
        name = self._file.name
        now = knowledges.recall(self._layout, self._file)
        if (now.ledger, now.stored) != (known.ledger, known.stored):
            raise errors.NotNow('its records have changed meanwhile')
        if known.blind and known.ledger is None:
            # There may be a ledger that says something else.
            return
        record = self._layout.ledger(name)
        if known.lost and not statuses.gone(record):
            records.set_aside(record, errors.Damaged('it says nothing'))
        path = self._layout.file(name)
        stored, failure = known.stored, None
        if ledger.settled and ledger.sha1 and not (stored or known.blind):
            try:
                checksum.store_checksum(path, ledger.sha1)
                stored = ledger.sha1
            except OSError as error:
                failure = error
        ledger = dataclasses.replace(
            ledger, sidecar=checksum.sidecar_key(path)
        )
        ledgers.save(self._layout, name, ledger, blocks)
        self.known = dataclasses.replace(
            known, stored=stored, ledger=ledger, lost=False
        )
        if failure is not None:
            raise failure
