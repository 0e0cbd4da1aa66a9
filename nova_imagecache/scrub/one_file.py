# SPDX-License-Identifier: Apache-2.0

"""Scrubbing one base file: reading it and comparing it with its ledger.

The file is read without its lock, which is taken before, for a moment, and to
publish (decision 0002).
"""

import contextlib
import dataclasses
import errno
import logging

from nova_imagecache.cache import identity
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.scrub import comparing
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import endings
from nova_imagecache.scrub import evidence
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import jobs
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import sources

LOG = logging.getLogger(__name__)

Aim = comparisons.Aim
Job = jobs.Job
Method = comparing.Method

# What to do about what keeps a file from being read.
_ADVICE = {
    errno.EACCES: 'let the owner of instances_path read it',
    errno.EPERM: 'let the owner of instances_path read it',
    errno.EMFILE: 'raise the limit of open files of the service',
    errno.ENFILE: 'raise fs.file-max',
    errno.ENOMEM: 'the host is short of memory',
    errno.ESTALE: 'look at the mount of the cache, and at its server',
    errno.ENOTCONN: 'look at the mount of the cache',
    errno.ETIMEDOUT: 'look at the mount of the cache, and at its server',
    errno.EHOSTDOWN: 'look at the server of the cache',
}


def scrub(job: Job, method: Method) -> knowledge.Finding:
    """Read a base file; compare it with its ledger, or begin one.

    Goes on where an earlier call was interrupted.

    :returns: the verdict; an error is a finding too. Where the file could not
        be read to its end just now, it is the last one, ``skipped``.
    """
    return _Scrub(job, method).run()


class _Scrub:
    """One scrub of one file."""

    def __init__(self, job: Job, method: Method) -> None:
        self._job = job
        self._file = job.file
        self._keeper = keeper.Keeper(job.file, job.known)
        self._method = method
        self._ledger: ledgers.Ledger | None = job.known.ledger
        self._blocks: blockmap.Blocks | None = None
        self._evidence: evidence.Evidence | None = None

    def run(self) -> knowledge.Finding:
        known = self._keeper.known
        if known.blind and not known.digests:
            # A checksum made now could be one of damage (decision 0029).
            return known.finding.postponed(
                'what is known of it cannot be read', problem=True
            )
        try:
            lent = self._method.read_as_root
            with sources.opened(self._file, lent) as source:
                return self._scrub(source)
        except errors.Written as error:
            self._note_resized()
            return self._keeper.known.finding.postponed(
                str(error), problem=True
            )
        except errors.Changed as error:
            # What was known is of a file that is gone.
            return knowledge.Finding().postponed(str(error))
        except errors.NotNow as error:
            broken = isinstance(
                error, errors.LockBroken | errors.Blind | errors.Hung
            )
            return self._keeper.known.finding.postponed(
                str(error), problem=broken
            )
        except OSError as error:
            if error.errno in readers.MEDIUM_ERRORS:
                return self._give_up(error.strerror or str(error))
            return self._put_off(error)

    def _put_off(self, error: OSError) -> knowledge.Finding:
        """Say why a file is not read now, which is no fault of the file."""
        try:
            self._file.same()
        except errors.Changed as changed:
            return knowledge.Finding().postponed(str(changed))
        except OSError:
            # The same that has kept it from being read, most likely.
            pass
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0)
        return self._keeper.known.finding.postponed(
            f'{reason} ({advice})' if advice else reason, problem=True
        )

    def _scrub(self, source: sources.Source) -> knowledge.Finding:
        opened = source.stat()
        ledger, comparison = self._begin(opened)
        if ledger.read is None and comparison.next == 0:
            self._sync(source, ledger)
        comparer = comparing.Comparer(
            self._file, source, opened, ledger, comparison, self._method
        )
        try:
            comparer.compare(lambda: self._note_progress(ledger, comparison))
            comparer.compare_again(ledger.sha1 or self._keeper.known.stored)
        except (errors.Stopped, errors.Hung, OSError):
            self._note_progress(ledger, comparison)
            raise
        except comparisons.TooManyErrors as error:
            self._note_progress(ledger, comparison)
            return self._give_up(f'{error}; the rest is left for later')
        now = source.stat()
        moved = not now.same_content_as(opened) or (
            ledger.times not in (None, (now.modified, now.changed))
        )
        form = None
        # A broad net, as what the host lends may raise anything.
        with contextlib.suppress(Exception):
            form = ledgers.Form.of(source.head())
        ending = endings.Ending(
            self._job, self._keeper, self._method, self._evidence
        )
        return ending.conclude(ledger, comparison, moved, now.size, form)

    def _sync(self, source: sources.Source, ledger: ledgers.Ledger) -> None:
        """Have on the disk what is read: in memory it says nothing of that."""
        try:
            source.sync()
        except OSError as error:
            if error.errno in readers.MEDIUM_ERRORS:
                # What was not written is lost, and reads as something else.
                self._ledger = dataclasses.replace(ledger, suspect=True)
            raise

    def _begin(
        self, opened: identity.Stat
    ) -> tuple[ledgers.Ledger, comparisons.Comparison]:
        """Find out what is known, and what the reading is for."""
        blocks = self._keeper.recall_blocks()
        old = self._keeper.known.ledger
        ledger = self._continued(old, blocks, opened.size)
        if blocks is None or ledger is not old:
            blocks = blockmap.Blocks(
                ledger.algorithm, ledger.size, ledger.block_size
            )
        aim = jobs.aim_of(ledger, blocks)
        if aim is Aim.PROVE:
            ledger = dataclasses.replace(ledger, proven=False)
        first = ledger.position if ledger.started else 0
        if aim is Aim.PROVE or self._job.afresh:
            first = 0
        if not first:
            ledger = dataclasses.replace(
                ledger, started=self._method.clock(), position=0, times=None
            )
        if ledger.read is None and ledger.times is None:
            times = (opened.modified, opened.changed)
            ledger = dataclasses.replace(ledger, times=times)
        self._ledger, self._blocks = ledger, blocks
        return ledger, self._comparison(aim, ledger, blocks, first, opened)

    def _comparison(
        self,
        aim: comparisons.Aim,
        ledger: ledgers.Ledger,
        blocks: blockmap.Blocks,
        first: int,
        opened: identity.Stat,
    ) -> comparisons.Comparison:
        """Prepare to compare, with the SHA-1 and new digests if wanted."""
        fresh = whole = None
        unproven = ledger.question or not (ledger.proven and ledger.settled)
        convert = aim is Aim.CHECK and (
            ledger.algorithm != self._method.algorithm
        )
        hashed = unproven and not endings.is_without(
            self._keeper.known, ledger
        )
        if not first:
            self._ask(ledger, hashed)
        if not first and hashed:
            whole = hashing.WholeFile(
                self._evidence.hash if self._evidence else None
            )
        if not first and (unproven or convert):
            fresh = blockmap.Blocks(
                self._method.algorithm, opened.size, ledger.block_size
            )
        return comparisons.Comparison(aim, ledger, blocks, fresh, whole, first)

    def _ask(self, ledger: ledgers.Ledger, hashed: bool) -> None:
        """Ask for what its image is, where a file should be that.

        :param hashed: whether all of it will be, from its first byte on
        """
        image = ledger.image or self._job.image
        if image is None or self._file.kind is not names.Kind.ORIGINAL:
            return
        if hashed and ledger.origin is None:
            self._evidence = self._method.asker.digest(self._file, image)
        else:
            self._method.asker.look_again(self._file, image)

    def _continued(
        self,
        old: ledgers.Ledger | None,
        blocks: blockmap.Blocks | None,
        size: int,
    ) -> ledgers.Ledger:
        method = self._method
        job = dataclasses.replace(self._job, known=self._keeper.known)
        if jobs.goes_on(old, blocks, size):
            return old
        return jobs.new_ledger(
            job, old, size, method.algorithm, method.clock()
        )

    def _note_progress(
        self, ledger: ledgers.Ledger, comparison: comparisons.Comparison
    ) -> None:
        """Publish how far a reading has got, so that it can go on there."""
        if comparison.aim is Aim.PROVE:
            self._file.same()
            return
        differs = conclusions.new_damage(comparison.bad, ledger.corrupt)
        ledger = dataclasses.replace(
            ledger,
            position=comparison.position,
            bad=ledgers.gather(comparison.bad),
            suspect=ledger.suspect
            or comparison.changed
            or comparison.doubtful,
        )
        if differs and self._may_be_another(ledger, comparison):
            # Whose damage it is turns out in the end, and takes all of it.
            ledger = dataclasses.replace(
                self._ledger or ledger,
                started=None,
                position=0,
                differs=ledger.differs or ledger.question,
            )
        if ledger.read is not None:
            unsettled = ledgers.runs_of(comparison.unsettled)
            ledger = dataclasses.replace(ledger, unsettled=unsettled)
        with contextlib.suppress(errors.Locked, errors.LockBroken, OSError):
            self._keeper.recall_checksum()
            self._keeper.publish(ledger, comparison.blocks)
        self._ledger = ledger

    def _may_be_another(
        self, ledger: ledgers.Ledger, comparison: comparisons.Comparison
    ) -> bool:
        """Whether what is not as it was may be so as it is another file."""
        key = self._file.incarnation.key
        unsure = identity.compare(ledger.key, key) is identity.Likeness.UNSURE
        return ledger.question or (
            unsure and not conclusions.has_kin(comparison)
        )

    def _note_resized(self) -> None:
        """Remember that a file changed before anybody could know it."""
        old = self._keeper.known.ledger
        if old is not None and old.settled:
            return
        with contextlib.suppress(errors.NotNow, OSError):
            size = self._file.same().size
            blocks = self._keeper.recall_blocks()
            ledger = self._continued(old, blocks, size)
            if ledger is not old:
                blocks = None
            ledger = dataclasses.replace(ledger.from_the_start(), suspect=True)
            self._keeper.publish(ledger, blocks)

    def _give_up(self, reason: str) -> knowledge.Finding:
        """Remember that a file cannot be read; what is known of it stays."""
        try:
            size = self._file.same().size
        except errors.Changed as error:
            return knowledge.Finding().postponed(str(error))
        except OSError:
            size = self._file.stat.size
        ledger, blocks = self._ledger, self._blocks
        with contextlib.suppress(errors.NotNow):
            if ledger is None or blocks is None:
                # It could not even be opened; its digests stay.
                blocks = self._keeper.recall_blocks()
                ledger = self._continued(ledger, blocks, size)
                if ledger is not self._keeper.known.ledger:
                    blocks = None
            ledger = dataclasses.replace(
                ledger, unreadable=reason, attempted=self._method.clock()
            )
            if not self._keeper.known.blind:
                self._publish_failure(ledger, blocks)
            known = self._keeper.known
            finding = knowledge.judge(ledger, known.stored, known.sparse, size)
            history = dataclasses.replace(
                knowledge.history_of(ledger, finding),
                # Where it could not be written none is lost.
                digested=known.has_had_ledger,
            )
            return dataclasses.replace(finding, history=history)
        return self._keeper.known.finding.postponed(reason, problem=True)

    def _publish_failure(
        self, ledger: ledgers.Ledger, blocks: blockmap.Blocks | None
    ) -> None:
        with contextlib.suppress(errors.NotNow, OSError):
            self._keeper.publish(ledger, blocks)
