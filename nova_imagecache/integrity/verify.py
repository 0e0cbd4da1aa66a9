# SPDX-License-Identifier: Apache-2.0

"""Reading a base file and comparing it with what is known of it.

The file is read without its lock: a long read under the lock would hold up
every guest that is started from the image meanwhile. The lock is taken before,
for a moment, because whoever still writes the file holds it, and afterwards to
publish, if the file is still the one that was read.
"""

import contextlib
import dataclasses
import os

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import errors
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache import names

LOG = logging.getLogger(__name__)


def _read(
    layout: layouts.Layout,
    file: scan.CachedFile,
    known: knowledges.Knowledge,
    progress: checksum.Progress | None,
) -> str:
    incarnation = file.status.incarnation
    with locks.guard(layout, file.name, incarnation):
        # Nobody who takes the lock replaces the file in here.
        fd = statuses.open_regular(layout.file(file.name))
    try:
        digest = checksum.settled_digest(fd, known.digests, progress)
    except errors.Written:
        locks.check_unreplaced(layout, file.name, incarnation)
        raise
    finally:
        os.close(fd)
    locks.check_unreplaced(layout, file.name, incarnation)
    return digest


def _updated(
    file: scan.CachedFile,
    known: knowledges.Knowledge,
    found: str,
    now: float,
) -> ledgers.Ledger:
    """Give the ledger after a reading."""
    old = known.ledger
    compared = bool(known.digests)
    first = (old.sha1 if old else None) or known.stored or found
    rebaselined = old.rebaselined if old else None
    if known.lost and not compared:
        rebaselined = now
    return ledgers.Ledger(
        key=file.status.incarnation.key,
        sha1=first,
        stored=known.stored or first,
        verified=now if compared else None,
        found=None if known.digests <= {found} else found,
        rebaselined=rebaselined,
    )


def _publish(
    layout: layouts.Layout,
    file: scan.CachedFile,
    known: knowledges.Knowledge,
    ledger: ledgers.Ledger,
) -> None:
    """Publish what was learnt, with the file's guard held.

    :raises nova_imagecache.errors.NotNow: it is known better by now
    :raises OSError: it was not published
    """
    if knowledges.recall(layout, file) != known:
        raise errors.NotNow('its records have changed meanwhile')
    if known.blind and known.ledger is None:
        # There may be a ledger that says something else.
        return
    if known.lost:
        records.set_aside(
            layout.ledger(file.name), errors.Damaged('it says nothing')
        )
    ledgers.save(layout, file.name, ledger)
    if known.stored is None and not known.blind and ledger.sha1 is not None:
        checksum.store_checksum(layout.file(file.name), ledger.sha1)


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


def _compare(
    layout: layouts.Layout,
    file: scan.CachedFile,
    known: knowledges.Knowledge,
    now: float,
    progress: checksum.Progress | None,
) -> knowledges.Finding:
    found = _read(layout, file, known, progress)
    ledger = _updated(file, known, found, now)
    finding = knowledges.judge(ledger)
    try:
        with locks.guard(layout, file.name, file.status.incarnation):
            _publish(layout, file, known, ledger)
    except (errors.Locked, errors.LockBroken, OSError) as error:
        # The verdict holds all the same, if this is still that file.
        locks.check_unreplaced(layout, file.name, file.status.incarnation)
        LOG.warning(
            'What was learnt of base file %(name)s cannot be kept, so it '
            'will be read again: %(error)s',
            {'name': names.printable(file.name), 'error': error},
        )
        if not known.digests:
            return finding.postponed(f'its checksum cannot be kept: {error}')
    else:
        if not known.digests:
            return finding.noting('its checksum has been created')
    return finding


def verify(
    layout: layouts.Layout,
    file: scan.CachedFile,
    known: knowledges.Knowledge,
    now: float,
    progress: checksum.Progress | None = None,
) -> knowledges.Finding:
    """Read a base file; compare it with its checksum, or give it one.

    :param known: what is known so far; its verdict stands if the file cannot
        be verified just now
    :param now: seconds since the epoch, to be noted as the time of reading
    :returns: the verdict; an error is a finding too
    """
    if known.blind and not known.digests:
        # To make a checksum now could make damage the baseline.
        return known.finding.postponed(
            'what is known of it cannot be read', problem=True
        )
    try:
        return _compare(layout, file, known, now, progress)
    except errors.Changed as error:
        # What was known is of a file that is gone.
        return knowledges.Finding().postponed(str(error))
    except errors.NotNow as error:
        broken = isinstance(error, errors.LockBroken | errors.Written)
        return known.finding.postponed(str(error), problem=broken)
    except OSError as error:
        return _note_failure(layout, file, known, now, error)


def _note_failure(
    layout: layouts.Layout,
    file: scan.CachedFile,
    known: knowledges.Knowledge,
    now: float,
    error: OSError,
) -> knowledges.Finding:
    """Remember that a file cannot be read; what is known of it stays."""
    ledger = dataclasses.replace(
        known.ledger or ledgers.Ledger(file.status.incarnation.key),
        unreadable=error.strerror or str(error),
        attempted=now,
    )
    with contextlib.suppress(errors.NotNow, OSError):
        with locks.guard(layout, file.name, file.status.incarnation):
            if not (known.blind or known.lost):
                ledgers.save(layout, file.name, ledger)
    return knowledges.judge(ledger)
