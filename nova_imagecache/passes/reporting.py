# SPDX-License-Identifier: Apache-2.0

"""Putting a report together, from what a pass has seen and done."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from nova_imagecache.cache import image_names
from nova_imagecache.cache import layouts
from nova_imagecache.cache import mounts
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache.heal import accounts
from nova_imagecache import names
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.passes import observed
from nova_imagecache.passes import reports
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import vetoing

#: Bytes of files, by name: where they begin, and where they end.
Ranges = Mapping[str, Sequence[tuple[int, int]]]

# Of files that are named in a line.
_LAST_COPIES_SHOWN = 3


class Reporter(NamedTuple):
    """Says of one cache what a pass has seen and done there.

    :ivar chains_to: gives the disks that lead to a base file
    """

    layout: layouts.Layout
    settings: Settings
    clock: clocks.Clock
    chains_to: Callable[[str], Sequence[chains.Chain]]

    def report(
        self,
        facts: observed.Facts,
        done: act.Done,
        findings: Mapping[str, knowledge.Finding],
        dry_run: bool = False,
        urgent: bool = False,
        ranges: Ranges | None = None,
    ) -> reports.Report:
        """Say what it was.

        :param findings: what was found in base files, by name
        :param dry_run: whether nothing was done
        :param urgent: whether some files were read for whom a person waits
        :param ranges: bytes to look at as if they were bad
        """
        gone = {
            decision.file.name
            for decision in done.files
            if decision.action is decide.Action.REMOVE and not dry_run
        }
        coverage = self._coverage(facts, gone)
        problems = [*facts.problems, *done.problems]
        vetoed = facts.state.vetoed.get(self.settings.host)
        overdue = schedule.overdue(coverage, facts.now)
        # Whoever verifies some files does not ask for the others.
        if overdue is not None and self.settings.checksum and not urgent:
            problems.append(codes.Problem(codes.Code.OVERDUE, overdue))
        bad = [name for name, each in findings.items() if each.damaged]
        repairs_due = False
        if bad and self.settings.corruption_action == 'repair':
            account = accounts.load(self.layout, self.settings.host)
            problems += accounts.sentences(account, bad, facts.now)
            repairs_due = accounts.is_due(account, bad, facts.now)
        report = reports.Report(
            cache_dir=self.layout.base,
            files=self._rows(facts, done.files, findings, ranges or {}),
            trash=self._rows(facts, done.trash, findings, ranges or {}),
            vetoes=vetoing.sentences(
                each for each in facts.obstacles if not each.is_narrow
            ),
            withheld=vetoing.sentences(
                each for each in facts.obstacles if each.is_narrow
            ),
            obstacles=facts.obstacles,
            vetoed_seconds=_since(
                facts, vetoed.since if vetoed and facts.obstacles else None
            ),
            removed_seconds=_since(facts, facts.state.last_removal),
            problems=tuple(problems),
            notes=(
                *_jump(facts),
                *facts.testimony.notes,
                *_last_copies(done),
                *_mount(self.layout),
                *done.notes,
            ),
            titles=facts.testimony.titles,
            host=self.settings.host,
            made=facts.now.wall,
            dry_run=dry_run,
            checksums=self.settings.checksum,
            coverage=coverage,
            repairs_due=repairs_due,
            shortfall=done.shortfall,
            began=facts.now,
            ended=self.clock(),
        )
        # A pass names the images of the few files that people hear of.
        wanted = None if dry_run else [file.name for file in report.harmful]
        images = image_names.load_all(self.layout, wanted)
        return reports.with_names(report, images)

    def _rows(
        self,
        facts: observed.Facts,
        decisions: Sequence[decide.Decision],
        findings: Mapping[str, knowledge.Finding],
        ranges: Ranges,
    ) -> tuple[reports.FileReport, ...]:
        return tuple(
            reports.row(
                decision,
                facts.entries.get(decision.file.name),
                findings.get(decision.file.name),
                facts,
                self.chains_to,
                ranges.get(decision.file.name, ()),
            )
            for decision in decisions
        )

    def _coverage(
        self, facts: observed.Facts, gone: Collection[str]
    ) -> schedule.Coverage:
        return schedule.coverage(
            [each for name, each in facts.entries.items() if name not in gone],
            self.settings.checksum_interval,
            self.settings.scrub_bandwidth,
            self.clock(),
            self.settings.host,
        )


def _since(facts: observed.Facts, when: clocks.Instant | None) -> float | None:
    if when is None:
        return None
    return max(0.0, clocks.elapsed(when, facts.now))


def _jump(facts: observed.Facts) -> list[codes.Problem]:
    if not facts.jump:
        return []
    told = clocks.tell_jump(facts.jump)
    return [codes.Problem(codes.Code.JUMP, told)]


def _mount(layout: layouts.Layout) -> list[codes.Problem]:
    found = mounts.local_locks(layout.base)
    if found is None:
        return []
    return [codes.Problem(codes.Code.LOCAL_LOCKS, found)]


def _last_copies(done: act.Done) -> list[codes.Problem]:
    """Say which files in use cannot be had from the image service."""
    found = [
        names.printable(each.file.name)
        for each in done.files
        if each.last_copy and each.used
    ]
    if not found:
        return []
    shown = ', '.join(found[:_LAST_COPIES_SHOWN])
    more = len(found) - _LAST_COPIES_SHOWN
    return [
        codes.Problem(
            codes.Code.LAST_COPY,
            'base files in use are the last copies of images that are gone '
            f'from the image service: {shown}'
            + (f' and {more} more' if more > 0 else ''),
            found[0],
        )
    ]
