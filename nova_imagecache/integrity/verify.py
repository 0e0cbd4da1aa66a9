# SPDX-License-Identifier: Apache-2.0

"""Reading a base file and comparing it with what is known of it.

The file is read without its lock: a long read under the lock would hold up
every guest that is started from the image meanwhile. The lock is taken before,
for a moment, because whoever still writes the file holds it, and afterwards to
publish, if the file is still the one that was read.
"""

import dataclasses
import enum
import os

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache import names

LOG = logging.getLogger(__name__)


class Verdict(enum.StrEnum):
    """What is known of the content of a file."""

    GOOD = 'good'
    CORRUPT = 'corrupt'
    UNKNOWN = 'unknown'
    UNREADABLE = 'unreadable'
    OFF = 'off'


@dataclasses.dataclass(frozen=True)
class Finding:
    """A verdict, and why, where that is worth a sentence.

    :ivar skipped: whether the file was to be read, and was not
    """

    verdict: Verdict = Verdict.UNKNOWN
    note: str = ''
    skipped: bool = False

    def postponed(self, reason: str) -> 'Finding':
        """Give this finding again, as nothing was read: bad stays bad."""
        notes = [self.note, f'not verified: {reason}']
        return Finding(
            self.verdict, '; '.join(filter(None, notes)), skipped=True
        )


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What earlier passes left to know about a file.

    :ivar stored: its stored checksum, if it has a valid one
    :ivar ledger: its ledger, if it has one
    """

    stored: str | None = None
    ledger: ledgers.Ledger | None = None

    @property
    def expected(self) -> str | None:
        """The digest that the file must have.

        The stored checksum comes first: whoever replaces it, as an operator
        with ``sha1sum`` may, means it.
        """
        return self.stored or (self.ledger.sha1 if self.ledger else None)

    @property
    def finding(self) -> Finding:
        """The last verdict."""
        if self.ledger is None or self.ledger.verified is None:
            return Finding()
        if self.ledger.found is None:
            return Finding(Verdict.GOOD)
        return _corrupt(self.ledger.found, self.ledger.sha1)

    def due(self, interval: int, now: float) -> bool:
        """Whether the file is to be read again.

        :param interval: seconds between two verifications
        :param now: seconds since the epoch
        """
        if self.ledger is None or self.ledger.verified is None:
            return True
        if self.stored not in (None, self.ledger.sha1):
            return True
        # A verification in the future was noted before a clock was set back.
        return not 0 <= now - self.ledger.verified < interval


def _corrupt(found: str, expected: str) -> Finding:
    return Finding(Verdict.CORRUPT, f'its SHA-1 is {found} and not {expected}')


def recall(layout: layouts.Layout, file: scan.CachedFile) -> Knowledge:
    """Read what is known of a file; the file itself is not read.

    A damaged ledger says nothing of the file, good or bad; the next
    verification makes a new one from the stored checksum.

    :raises OSError: it cannot be read
    """
    try:
        ledger = ledgers.load(layout, file.name, file.status.incarnation)
    except errors.Damaged as error:
        LOG.warning(
            'The ledger of base file %(name)s says nothing: %(error)s.',
            {'name': file.name, 'error': error},
        )
        ledger = None
    stored = checksum.read_stored_checksum(layout.file(file.name))
    return Knowledge(stored, ledger)


def _publish(
    layout: layouts.Layout,
    file: scan.CachedFile,
    knowledge: Knowledge,
    ledger: ledgers.Ledger,
) -> None:
    try:
        ledgers.load(layout, file.name, file.status.incarnation)
    except errors.Damaged as error:
        records.set_aside(layout.ledger(file.name), error)
    ledgers.save(layout, file.name, ledger)
    if knowledge.stored is None:
        checksum.store_checksum(layout.file(file.name), ledger.sha1)


def restore_checksum(
    layout: layouts.Layout, file: scan.CachedFile, knowledge: Knowledge
) -> None:
    """Bring back a lost stored checksum from the ledger.

    Stock Nova on another host of shared storage takes ``<sha1>_<n>.sha1`` for
    a resized image and deletes it.

    :raises nova_imagecache.errors.NotNow: not in this pass
    :raises OSError: it was not written
    """
    if knowledge.stored is None and knowledge.ledger is not None:
        with locks.guard(layout, file.name, file.status.incarnation):
            checksum.store_checksum(
                layout.file(file.name), knowledge.ledger.sha1
            )


def _read(
    layout: layouts.Layout,
    file: scan.CachedFile,
    progress: checksum.Progress | None,
) -> tuple[str, bool]:
    path = layout.file(file.name)
    with locks.guard(layout, file.name, file.status.incarnation):
        fd = statuses.open_regular(path)
    try:
        opened = statuses.status_of_fd(fd).incarnation
        if opened != file.status.incarnation:
            raise errors.Changed('another file has taken its place')
        return checksum.read_unchanged(fd, progress)
    finally:
        os.close(fd)


def _compare(
    layout: layouts.Layout,
    file: scan.CachedFile,
    now: float,
    progress: checksum.Progress | None,
) -> Finding:
    knowledge = recall(layout, file)
    found, unchanged = _read(layout, file, progress)
    expected = knowledge.expected
    # Where the digest is the expected one, no write can have mattered.
    if found != expected and not unchanged:
        locks.check_unreplaced(layout, file.name, file.status.incarnation)
        raise errors.Written('it was touched or written while it was read')
    key = file.status.incarnation.key
    if expected is None:
        ledger = ledgers.Ledger(key, found)
        finding = Finding(note='its checksum has been created')
    elif found == expected:
        ledger = ledgers.Ledger(key, expected, verified=now)
        finding = Finding(Verdict.GOOD)
    else:
        ledger = ledgers.Ledger(key, expected, verified=now, found=found)
        finding = _corrupt(found, expected)
    try:
        with locks.guard(layout, file.name, file.status.incarnation):
            _publish(layout, file, knowledge, ledger)
    except (errors.Locked, OSError) as error:
        # The verdict holds all the same, if this is still that file.
        locks.check_unreplaced(layout, file.name, file.status.incarnation)
        LOG.warning(
            'What was learnt of base file %(name)s cannot be kept, so it '
            'will be read again: %(error)s',
            {'name': names.printable(file.name), 'error': error},
        )
        if expected is None:
            return Finding(note=f'its checksum cannot be kept: {error}')
    return finding


def verify(
    layout: layouts.Layout,
    file: scan.CachedFile,
    now: float,
    known: Finding,
    progress: checksum.Progress | None = None,
) -> Finding:
    """Read a base file; compare it with its checksum, or give it one.

    :param known: the last verdict, which stands if the file cannot be
        verified just now
    :param now: seconds since the epoch, to be noted as the time of reading
    :returns: the verdict; an error is a finding too
    """
    try:
        return _compare(layout, file, now, progress)
    except errors.Changed as error:
        # What was known is of a file that is gone.
        return Finding(note=f'not verified: {error}', skipped=True)
    except errors.NotNow as error:
        return known.postponed(str(error))
    except OSError as error:
        return Finding(
            Verdict.UNREADABLE, f'it cannot be read: {error.strerror}'
        )
