# SPDX-License-Identifier: Apache-2.0

"""What is made of a reading that has come to its end: concluded, and kept."""

from collections.abc import Callable
import dataclasses
import logging

from nova_imagecache.cache import identity
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.scrub import comparing
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import evidence
from nova_imagecache.scrub import jobs
from nova_imagecache.scrub import keeper

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Ending:
    """The end of one scrub of one file.

    :ivar job: what was known before
    :ivar kept: what is known by now, and is to be kept
    :ivar method: how long to wait for the lock
    :ivar given: the evidence that there was from the first byte on
    """

    job: jobs.Job
    kept: keeper.Keeper
    method: comparing.Method
    given: evidence.Evidence | None

    def conclude(
        self,
        ledger: ledgers.Ledger,
        comparison: comparisons.Comparison,
        moved: bool,
        size: int,
        form: ledgers.Form | None,
    ) -> knowledge.Finding:
        """Conclude, publish, and give the verdict."""
        failure: Exception | None = None
        try:
            self.kept.recall_checksum()
        except errors.NotNow as error:
            # The verdict holds all the same.
            failure = error
        known = self.kept.known
        assert ledger.started is not None  # noqa: S101 for mypy
        key = self.job.file.incarnation.key
        likeness = identity.compare(
            known.ledger.key if known.ledger else key, key
        )
        reading = conclusions.Reading(
            comparison,
            ledger.started,
            moved,
            size,
            known.stored,
            self.job.outlived,
            self.job.file.kind is names.Kind.ORIGINAL,
            likeness is identity.Likeness.UNSURE,
            ledger.corrupt,
            form,
            is_without(known, ledger),
        )
        concluded = conclusions.conclude(ledger, reading)
        concluded, weighed = self._weigh(concluded, reading)
        after = concluded.ledger
        image = after.image or self.job.image
        after = dataclasses.replace(after, image=image)
        self._log_change(ledger, comparison)
        stored = None if concluded.supersedes else known.stored
        finding = knowledge.judge(after, stored, known.sparse, size)
        finding = weighed(finding)
        finding = dataclasses.replace(
            finding, history=knowledge.history_of(after, finding)
        )
        first = comparison.aim is comparisons.Aim.LEARN and not known.digests
        try:
            if failure is not None:
                raise failure
            self.kept.publish(
                after,
                concluded.blocks,
                self.job.file.guard(
                    self.method.patience,
                    self.method.means.stop.wait,
                    self.method.monotonic,
                ),
                concluded.supersedes,
            )
        except errors.Changed:
            raise
        except (errors.NotNow, OSError) as error:
            # The verdict holds all the same, if this is still that file.
            self.job.file.same()
            reason = getattr(error, 'strerror', None) or str(error)
            LOG.warning(
                '[P13] What was learnt of base file %(name)s cannot be kept, '
                'so it will be read again: %(error)s',
                {'name': names.printable(self.job.file.name), 'error': reason},
            )
            finding = self._unkept(finding)
            if first:
                return finding.postponed(
                    f'its checksum cannot be kept: {reason}', problem=True
                )
            return dataclasses.replace(
                self._beside(finding).noting(f'that cannot be kept: {reason}'),
                problem=True,
            )
        if first and after.settled and not finding.harmful:
            if not after.proven and known.sparse:
                return finding.noting('its blocks have been digested')
            return finding.noting(
                'its checksum has been created'
                if after.proven
                else 'its blocks have been digested; its SHA-1 takes a '
                'reading that is not interrupted'
            )
        return finding

    def _weigh(
        self, concluded: conclusions.Conclusion, reading: conclusions.Reading
    ) -> tuple[
        conclusions.Conclusion,
        Callable[[knowledge.Finding], knowledge.Finding],
    ]:
        """Add evidence, if there is any; give what adds to the finding."""
        given = self.given
        if given is None or reading.comparison.sha1 is None:
            return concluded, lambda finding: finding
        concluded = conclusions.weigh(
            concluded, reading, given.image, given.holds
        )
        return (
            concluded,
            lambda finding: finding if given.holds else _noting_other(finding),
        )

    def _unkept(self, finding: knowledge.Finding) -> knowledge.Finding:
        """Have the state miss no ledger that there never was."""
        history, there = finding.history, self.kept.known.has_had_ledger
        if history is not None:
            history = dataclasses.replace(history, digested=there)
        if not (there or finding.harmful):
            history = None
        return dataclasses.replace(finding, history=history)

    def _beside(self, finding: knowledge.Finding) -> knowledge.Finding:
        """Have the state remember what the ledger beside does not say."""
        history = finding.history
        if history is None or history.damage is None:
            return finding
        damage = dataclasses.replace(
            history.damage, beside=self.kept.known.last_read
        )
        return dataclasses.replace(
            finding, history=dataclasses.replace(history, damage=damage)
        )

    def _log_change(
        self, ledger: ledgers.Ledger, comparison: comparisons.Comparison
    ) -> None:
        again = ledger.read is not None and not ledger.settled
        if again and comparison.changed:
            LOG.warning(
                '[N12] Base file %(name)s was touched while it was first '
                'read, and did not hold the same when it was read again: '
                'somebody writes to it, or it is going bad.',
                {'name': names.printable(self.job.file.name)},
            )


def is_without(known: knowledge.Knowledge, ledger: ledgers.Ledger) -> bool:
    """Whether a file has no SHA-1, and gets none (decision 0081)."""
    return known.sparse and (known.stored or ledger.sha1) is None


def _noting_other(finding: knowledge.Finding) -> knowledge.Finding:
    """Say that a file is not what its image is."""
    return dataclasses.replace(
        finding.noting(
            'it is not what its image is in the image service; see '
            'nova-imagecache verify --origin'
        ),
        problem=True,
    )
