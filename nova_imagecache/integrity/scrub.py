# SPDX-License-Identifier: Apache-2.0

"""Scrubbing one base file: reading it and comparing it with its ledger.

The file is read without its lock: a long read under the lock would hold up
every guest that is started from the image meanwhile. The lock is taken before,
for a moment, because whoever still writes the file holds it, and to publish,
if the file is still the one that was read.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import time

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import records
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import clock as clocks
from nova_imagecache import errors
from nova_imagecache.integrity import blocks as block_maps
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import comparison as comparisons
from nova_imagecache.integrity import conclusion
from nova_imagecache.integrity import hashing
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache.integrity import reader as readers
from nova_imagecache import names

LOG = logging.getLogger(__name__)

_POLL_SECONDS = 0.2

Aim = comparisons.Aim


@dataclasses.dataclass(frozen=True)
class Job:
    """A base file to be scrubbed.

    :ivar known: what is known of its content so far
    :ivar image: the image it was made from, where that is known
    :ivar outlived: whether it was there in an earlier boot, see
        :func:`nova_imagecache.cache.state.outlived`
    :ivar rebaselined: when all that was known of it had been lost, if that
        is remembered
    :ivar afresh: whether to read it from its start, although an earlier
        reading was interrupted
    """

    file: scan.CachedFile
    known: knowledges.Knowledge
    image: str | None = None
    outlived: bool = False
    rebaselined: float | None = None
    afresh: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
    """How base files are scrubbed.

    :ivar algorithm: for the digests of blocks
    :ivar patience: for how many seconds to wait for the lock of a file, to
        publish what a long reading gave
    :ivar pulse: called after each block
    :ivar checkpoint_seconds: after which what is known so far is published,
        and blocks that did not match are read again
    """

    algorithm: str
    means: readers.Means
    clock: clocks.Clock = clocks.now
    patience: float = 0
    pulse: Callable[[], None] = lambda: None
    checkpoint_seconds: float = 30
    monotonic: Callable[[], float] = time.monotonic


def scrub(
    layout: layouts.Layout, job: Job, method: Method
) -> knowledges.Finding:
    """Read a base file; compare it with its ledger, or begin one.

    Goes on where an earlier call was interrupted.

    :returns: the verdict; an error is a finding too. Where the file could not
        be read to its end just now, it is the last one, ``skipped``.
    """
    return _Scrub(layout, job, method).run()


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


def _aim(ledger: ledgers.Ledger, blocks: block_maps.Blocks) -> comparisons.Aim:
    if ledger.read is None:
        return Aim.LEARN
    corrupt = ledger.found is not None and not ledger.proven
    lost = ledger.sha1 is not None and blocks.unknown == blocks.count > 0
    return Aim.PROVE if corrupt or lost else Aim.CHECK


class _Scrub:
    """One scrub of one file."""

    def __init__(
        self, layout: layouts.Layout, job: Job, method: Method
    ) -> None:
        self._layout = layout
        self._job = job
        self._file = job.file
        self._known = job.known
        self._method = method
        self._ledger: ledgers.Ledger | None = job.known.ledger
        self._blocks: block_maps.Blocks | None = None

    def run(self) -> knowledges.Finding:
        known = self._known
        if known.blind and not known.digests:
            # To make a checksum now could make damage the baseline.
            return known.finding.postponed(
                'what is known of it cannot be read', problem=True
            )
        try:
            with self._opened() as fd:
                return self._scrub(fd)
        except errors.Changed as error:
            # What was known is of a file that is gone.
            return knowledges.Finding().postponed(str(error))
        except errors.NotNow as error:
            broken = isinstance(
                error, errors.LockBroken | errors.Written | errors.Blind
            )
            return self._known.finding.postponed(str(error), problem=broken)
        except OSError as error:
            return self._give_up(error.strerror or str(error))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        incarnation = self._file.status.incarnation
        with locks.guard(self._layout, self._file.name, incarnation):
            # Nobody who takes the lock replaces the file in here.
            fd = statuses.open_regular(self._layout.file(self._file.name))
        try:
            yield fd
        finally:
            os.close(fd)

    def _scrub(self, fd: int) -> knowledges.Finding:
        opened = statuses.status_of_fd(fd)
        ledger, comparison = self._begin(opened)
        if ledger.read is None and comparison.next == 0:
            # What is only in memory yet says nothing of the disk.
            os.fsync(fd)
        try:
            self._read(fd, opened, ledger, comparison)
        except errors.Stopped:
            self._note_progress(ledger, comparison)
            raise
        except comparisons.TooManyErrors as error:
            self._note_progress(ledger, comparison)
            return self._give_up(f'{error}; the rest is left for later')
        now = statuses.status_of_fd(fd)
        moved = not now.same_content_as(opened) or (
            ledger.times not in (None, (now.modified, now.changed))
        )
        return self._end(ledger, comparison, moved, now.size)

    def _begin(
        self, opened: statuses.Status
    ) -> tuple[ledgers.Ledger, comparisons.Comparison]:
        """Find out what is known, and what the reading is for."""
        old, blocks = self._recall_blocks()
        if (
            old is None
            or (not old.settled and old.size != opened.size)
            or (blocks is None and (old.sha1 is None or not old.settled))
        ):
            ledger, blocks = self._new_ledger(old, opened), None
        else:
            ledger = old
        if blocks is None:
            ledger = dataclasses.replace(ledger, proven=False)
            blocks = block_maps.Blocks(
                ledger.algorithm, ledger.size, ledger.block_size
            )
        aim = _aim(ledger, blocks)
        first = ledger.position if ledger.started else 0
        if aim is Aim.PROVE or self._job.afresh:
            first = 0
        if not first:
            ledger = dataclasses.replace(
                ledger, started=self._method.clock(), times=None, changed=False
            )
        if not ledger.settled and ledger.times is None:
            times = (opened.modified, opened.changed)
            ledger = dataclasses.replace(ledger, times=times)
        self._ledger, self._blocks = ledger, blocks
        return ledger, self._comparison(aim, ledger, blocks, first, opened)

    def _comparison(
        self,
        aim: comparisons.Aim,
        ledger: ledgers.Ledger,
        blocks: block_maps.Blocks,
        first: int,
        opened: statuses.Status,
    ) -> comparisons.Comparison:
        """Prepare to compare, with the SHA-1 and new digests if wanted."""
        fresh = whole = None
        if not first and not (ledger.proven and ledger.settled):
            whole = hashing.WholeFile()
        convert = aim is Aim.CHECK and (
            ledger.algorithm != self._method.algorithm
        )
        if whole is not None or (convert and not first):
            fresh = block_maps.Blocks(
                self._method.algorithm, opened.size, ledger.block_size
            )
        return comparisons.Comparison(aim, ledger, blocks, fresh, whole, first)

    def _recall_blocks(
        self,
    ) -> tuple[ledgers.Ledger | None, block_maps.Blocks | None]:
        ledger = self._known.ledger
        if ledger is None:
            return None, None
        try:
            blocks = ledgers.load_blocks(self._layout, self._file.name, ledger)
        except errors.Damaged:
            self._known = dataclasses.replace(self._known, lost=True)
            return ledger, None
        except OSError as error:
            raise errors.Blind(
                f'its ledger cannot be read: {error.strerror}'
            ) from error
        return ledger, blocks

    def _new_ledger(
        self, old: ledgers.Ledger | None, opened: statuses.Status
    ) -> ledgers.Ledger:
        ledger = ledgers.begin(
            self._file.status.incarnation.key,
            opened.size,
            self._method.algorithm,
            self._job.image,
        )
        rebaselined = old.rebaselined if old else self._job.rebaselined
        if self._known.lost and not self._known.digests:
            rebaselined = rebaselined or self._method.clock().wall
        return dataclasses.replace(
            ledger,
            sha1=self._known.stored,
            rebaselined=rebaselined,
            suspect=bool(old and old.suspect),
            # What they held is lost, and not that they are bad.
            bad=old.bad if old and old.settled else (),
        )

    def _read(
        self,
        fd: int,
        opened: statuses.Status,
        ledger: ledgers.Ledger,
        comparison: comparisons.Comparison,
    ) -> None:
        size = ledger.block_size
        reader = readers.Reader(fd, self._method.means)
        readings = hashing.read_blocks(
            reader.read(comparison.next * size, opened.size, size),
            size,
            comparison.algorithms,
            comparison.whole,
        )
        monotonic = self._method.monotonic
        last = monotonic()
        with contextlib.closing(readings):
            for reading in readings:
                comparison.take(reading)
                self._method.pulse()
                if monotonic() - last >= self._method.checkpoint_seconds:
                    self._read_suspects(fd, opened, comparison)
                    self._note_progress(ledger, comparison)
                    last = monotonic()
        self._read_suspects(fd, opened, comparison)
        comparison.end()

    def _read_suspects(
        self,
        fd: int,
        opened: statuses.Status,
        comparison: comparisons.Comparison,
    ) -> None:
        """Read once more what did not match, later and to other memory."""
        means = dataclasses.replace(self._method.means, ahead=False)
        size = comparison.blocks.block_size
        for index in sorted(comparison.suspects):
            reader = readers.Reader(fd, means)
            start = index * size
            pieces = reader.read(start, start + size, size)
            found = list(
                hashing.read_blocks(pieces, size, comparison.algorithms)
            )
            unsteady = comparison.take_again(found[0] if found else None)
            if not unsteady:
                continue
            if not statuses.status_of_fd(fd).same_content_as(opened):
                raise errors.Written('it was written to while it was read')
            LOG.warning(
                'Block %(index)d of base file %(name)s, %(size)d bytes from '
                '%(start)d, was read twice and came out differently. That is '
                'not the fault of the file, but of memory, cable or disk.',
                {
                    'index': index,
                    'name': names.printable(self._file.name),
                    'size': size,
                    'start': start,
                },
            )

    def _note_progress(
        self, ledger: ledgers.Ledger, comparison: comparisons.Comparison
    ) -> None:
        """Publish how far a reading has got, so that it can go on there."""
        if comparison.aim is Aim.PROVE:
            locks.check_unreplaced(
                self._layout, self._file.name, self._file.status.incarnation
            )
            return
        ledger = dataclasses.replace(
            ledger,
            position=comparison.position,
            changed=comparison.changed,
            bad=ledgers.gather(comparison.bad),
        )
        with contextlib.suppress(errors.Locked, errors.LockBroken, OSError):
            self._recall_checksum()
            self._publish(ledger, comparison.blocks)
        self._ledger = ledger

    def _end(
        self,
        ledger: ledgers.Ledger,
        comparison: comparisons.Comparison,
        moved: bool,
        size: int,
    ) -> knowledges.Finding:
        """Conclude, publish, and give the verdict."""
        with contextlib.suppress(OSError):
            self._recall_checksum()
        known = self._known
        assert ledger.started is not None  # noqa: S101 for mypy
        reading = conclusion.Reading(
            comparison,
            ledger.started,
            moved,
            size,
            known.stored,
            self._job.outlived,
        )
        concluded = conclusion.conclude(ledger, reading)
        after, blocks = concluded.ledger, concluded.blocks
        image = after.image or self._job.image
        after = dataclasses.replace(after, image=image)
        self._log_change(ledger, comparison)
        finding = knowledges.judge(after, known.stored)
        first = comparison.aim is Aim.LEARN and not known.digests
        if first and after.settled:
            finding = finding.noting(
                'its checksum has been created'
                if after.proven
                else 'its blocks have been digested; its SHA-1 takes a '
                'reading that is not interrupted'
            )
        try:
            self._publish(after, blocks, self._method.patience)
        except (errors.Locked, errors.LockBroken, OSError) as error:
            # The verdict holds all the same, if this is still that file.
            locks.check_unreplaced(
                self._layout, self._file.name, self._file.status.incarnation
            )
            LOG.warning(
                'What was learnt of base file %(name)s cannot be kept, so it '
                'will be read again: %(error)s',
                {'name': names.printable(self._file.name), 'error': error},
            )
            if first:
                return knowledges.judge(after, known.stored).postponed(
                    f'its checksum cannot be kept: {error}', problem=True
                )
            return dataclasses.replace(
                finding.noting(f'that cannot be kept: {error}'), problem=True
            )
        return finding

    def _log_change(
        self, ledger: ledgers.Ledger, comparison: comparisons.Comparison
    ) -> None:
        again = ledger.read is not None and not ledger.settled
        if again and comparison.changed:
            LOG.warning(
                'Base file %(name)s was touched while it was first read, and '
                'did not hold the same when it was read again: somebody '
                'writes to it, or it is going bad.',
                {'name': names.printable(self._file.name)},
            )

    def _recall_checksum(self) -> None:
        """Take up a stored checksum that was made or lost meanwhile.

        :raises nova_imagecache.errors.NotNow: somebody else has changed the
            ledger
        """
        now = knowledges.recall(self._layout, self._file)
        if now.ledger != self._known.ledger:
            raise errors.NotNow('its records have changed meanwhile')
        self._known = dataclasses.replace(
            self._known, stored=now.stored, blind=now.blind
        )

    def _publish(
        self,
        ledger: ledgers.Ledger,
        blocks: block_maps.Blocks | None,
        patience: float = 0,
    ) -> None:
        """Publish what was learnt, with the file's guard held.

        :raises nova_imagecache.errors.NotNow: it is known better by now
        :raises OSError: it was not published
        """
        known = self._known
        name = self._file.name
        with self._guarded(patience):
            now = knowledges.recall(self._layout, self._file)
            if (now.ledger, now.stored) != (known.ledger, known.stored):
                raise errors.NotNow('its records have changed meanwhile')
            if known.blind and known.ledger is None:
                # There may be a ledger that says something else.
                return
            if known.lost and not statuses.gone(self._layout.ledger(name)):
                records.set_aside(
                    self._layout.ledger(name),
                    errors.Damaged('it says nothing'),
                )
            ledgers.save(self._layout, name, ledger, blocks)
            known = dataclasses.replace(known, ledger=ledger, lost=False)
            self._known = known
            if (
                known.stored is None
                and not known.blind
                and ledger.settled
                and ledger.sha1 is not None
            ):
                checksum.store_checksum(self._layout.file(name), ledger.sha1)
                self._known = dataclasses.replace(known, stored=ledger.sha1)

    @contextlib.contextmanager
    def _guarded(self, patience: float) -> Iterator[None]:
        """Hold the guard, for which a long reading is worth some waiting."""
        deadline = self._method.monotonic() + patience
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(
                        locks.guard(
                            self._layout,
                            self._file.name,
                            self._file.status.incarnation,
                        )
                    )
                    break
                except errors.Locked:
                    late = self._method.monotonic() >= deadline
                    if late or self._method.means.stop.wait(_POLL_SECONDS):
                        raise
            yield

    def _give_up(self, reason: str) -> knowledges.Finding:
        """Remember that a file cannot be read; what is known of it stays."""
        try:
            status = locks.check_unreplaced(
                self._layout, self._file.name, self._file.status.incarnation
            )
        except errors.Changed as error:
            return knowledges.Finding().postponed(str(error))
        except OSError:
            status = self._file.status
        ledger, blocks = self._ledger, self._blocks
        if ledger is None:
            ledger = self._new_ledger(None, status)
        ledger = dataclasses.replace(
            ledger, unreadable=reason, attempted=self._method.clock()
        )
        if not self._known.blind:
            with contextlib.suppress(errors.Error, OSError):
                if blocks is None and self._known.ledger is not None:
                    # It could not even be opened; its digests stay.
                    blocks = ledgers.load_blocks(
                        self._layout, self._file.name, self._known.ledger
                    )
                self._publish(ledger, blocks)
        return knowledges.judge(ledger, self._known.stored)
