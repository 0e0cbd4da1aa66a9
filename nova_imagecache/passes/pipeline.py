# SPDX-License-Identifier: Apache-2.0

"""One pass over an image cache, from top to bottom.

A pass looks (:mod:`nova_imagecache.passes.look`), decides
(:mod:`nova_imagecache.passes.decide`), acts on each file under its lock
(:mod:`nova_imagecache.passes.act`), and reports
(:mod:`nova_imagecache.passes.reports`).
"""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import gc
import importlib
import os
import time

import msgspec

from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache.content import soundness
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.passes import noting
from nova_imagecache.passes import observed
from nova_imagecache.passes import observers
from nova_imagecache.passes import remember
from nova_imagecache.passes import reporting
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import recalling
from nova_imagecache.witnesses import panel
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing


def _is_unmounted(facts: observed.Facts, layout: layouts.Layout) -> bool:
    """Whether what is made here may be below a mount point."""
    ours = [*map(os.path.realpath, (layout.instances, layout.base))]
    for veto in facts.obstacles:
        if veto.reason is vetoing.Reason.MISSING_MOUNT:
            point = os.path.realpath(veto.subject)
            if any(os.path.commonpath([point, at]) == point for at in ours):
                return True
    return False


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Have no garbage looked for: there is none, among very many objects."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


class Pass:
    """One pass over one cache."""

    def __init__(
        self,
        settings: Settings,
        witnesses: Sequence[testimonies.Witness] = (),
        clock: clocks.Clock = clocks.now,
        inline: bool = False,
        progress_bar: courses.ProgressBar = courses.no_progress_bar,
        assembly: panel.Assembly | None = None,
    ) -> None:
        """Prepare a pass; nothing is looked at yet.

        :param witnesses: those beside the ones that the settings name and
            that need nobody's list
        :param inline: whether the pass itself reads the base files that are
            due, and does not leave that to a scrub
        :param progress_bar: shows how far the reading of files has got
        :param assembly: makes the witnesses, with what a host lends
        """
        assembly = panel.Assembly() if assembly is None else assembly
        self._settings = settings
        self._layout = layouts.Layout.of(settings)
        self._observer = observers.Observer(
            settings, self._layout, witnesses, assembly, clock
        )
        self._read_as_root = assembly.host.read_as_root
        self._touch_as_root = assembly.host.touch_as_root
        self._clock = clock
        self._inline = inline
        self._progress_bar = progress_bar

    def _decide(
        self, facts: observed.Facts
    ) -> tuple[observed.Facts, decide.Decisions]:
        """Decide; by more than a glance where a file would go."""
        decisions = decide.decide(facts, self._settings)
        if decisions.take_away and self._observer.has_glanced:
            facts = self._observer.look_closely(facts)
            decisions = decide.decide(facts, self._settings)
        return facts, decisions

    @property
    def _notes(self) -> remember.Notes:
        return remember.Notes(
            self._layout,
            self._settings.host,
            self._observer.inventory,
            self._observer.recalled,
        )

    @property
    def _reporter(self) -> reporting.Reporter:
        return reporting.Reporter(
            self._layout, self._settings, self._clock, self._observer.chains_to
        )

    def _actor(self, facts: observed.Facts) -> act.Actor:
        return act.Actor(
            self._layout,
            self._observer.witnesses,
            facts,
            self._touch_as_root,
        )

    @_without_collector()
    def preview(
        self, ranges: reporting.Ranges | None = None
    ) -> reports.Report:
        """Say what a pass would do; change nothing, read no base file.

        :param ranges: of files, bytes to look at as if they were bad
        """
        facts = self._observer.look(
            with_content=True, closely=self._observer.foresees
        )
        last = activities.load(self._layout)
        # Nobody else may hear of it, as where a timer has started it.
        told = [
            codes.Problem(each.code, f'the last scrub: {each}', each.subject)
            for each in activities.told(last)
        ]
        facts = dataclasses.replace(facts, problems=(*facts.problems, *told))
        facts, decisions = self._decide(facts)
        findings = {
            name: entry.known.finding
            for name, entry in facts.entries.items()
            if entry.known.digests
            or entry.known.ledger
            or self._settings.checksum
        }
        return self._reporter.report(
            facts,
            act.nothing(decisions),
            findings,
            dry_run=True,
            ranges=ranges,
        )

    def run(self) -> reports.Report:
        """Make the pass."""
        # What reads base files for hours is not for this.
        if self._inline:
            # Before anything goes: none but the report tells what has gone.
            importlib.import_module('nova_imagecache.scrub.verification')
            return self._run()
        with _without_collector():
            return self._run()

    def _run(self) -> reports.Report:
        facts = self._observer.look(
            self._settings.checksum,
            closely=self._observer.foresees_and_asks,
        )
        # An empty cache is remembered too: the clock is, for the next pass.
        if not (facts.usable and os.path.isdir(self._layout.base)):
            return self._refuse(facts)
        if _is_unmounted(facts, self._layout):
            # The cache may be there, and other hosts go by what is noted.
            noted = os.path.isdir(self._layout.hosts)
            problems = self._notes.remember_guests(facts) if noted else []
            return self._refuse(facts, problems)
        facts, decisions = self._decide(self._prepare(facts))
        return self._finish(facts, self._actor(facts).act(decisions))

    def _prepare(self, facts: observed.Facts) -> observed.Facts:
        """Make what a removal needs while there is space (decision 0041).

        And compare our clock with that of the storage, which may be another:
        it is the one that dates files, for all hosts. Where that cannot be
        asked, no file can be made, and little can be removed; on a disk
        without inodes something has to be.
        """
        skew, problems = 0.0, [*facts.problems]
        try:
            for path in (self._layout.locks, *self._layout.directories):
                os.makedirs(path, exist_ok=True)
            before = time.time()
            shown = publish.current_time(self._layout.temporary)
        except OSError as error:
            where = error.filename or self._layout.temporary
            problems.append(
                codes.Problem(
                    codes.Code.UNWRITABLE,
                    f'{where} cannot be written to: {error.strerror}'
                    f'{directories.way_out(error)}',
                    where,
                )
            )
        else:
            # Neither may be apart: the answer may have taken its time.
            nearest = min(max(shown, before), time.time())
            self._observer.tell_time(shown)
            skew = clocks.skew(nearest, shown)
            if skew:
                told = clocks.tell_skew(skew)
                problems.append(codes.Problem(codes.Code.SKEW, told))
        return dataclasses.replace(
            facts,
            skew=skew,
            problems=problems,
            vetoes=(*facts.vetoes, *self._misleading(facts, skew)),
        )

    def _misleading(
        self, facts: observed.Facts, skew: float
    ) -> Iterator[vetoing.Veto]:
        """Tell a clock by which this host would mislead others.

        They go by when it has noted that a file was used, or removed.
        """
        others = facts.state.boots.keys() - {self._settings.host}
        if others and decide.is_adrift(skew):
            yield vetoing.Veto(
                vetoing.Reason.CLOCK,
                'the clock of this host',
                f'it is {abs(skew):.0f} s from that of the storage, which '
                'other hosts use too',
            )

    def _refuse(
        self, facts: observed.Facts, problems: Sequence[codes.Problem] = ()
    ) -> reports.Report:
        """Report that there is nothing to do, or no way to do it."""
        if not facts.usable:
            why = str(facts.vetoes[0])
            problems = (*problems, codes.Problem(codes.Code.UNUSABLE, why))
        facts = dataclasses.replace(facts, entries={})
        report = self._reporter.report(
            facts, act.Done((), (), problems=tuple(problems)), {}
        )
        return dataclasses.replace(report, began=None, ended=None)

    def set_aside(self, name: str, young: bool = True) -> str | None:
        """Move a base file that is bad to the trash, if nobody uses it.

        Its minimum age does not count, nor does a pin: what is bad is better
        fetched anew.

        :param young: whether it stays for 600 s after its last use
        :returns: why it stays; None if it is in the trash
        """
        facts = self._observer.look(False, closely=self._observer.asks)
        if not facts.usable:
            return str(facts.vetoes[0])
        if _is_unmounted(facts, self._layout):
            return 'a file system that it may be on is not mounted'
        facts = self._prepare(facts)
        decisions = decide.decide(
            dataclasses.replace(
                facts,
                files=[file for file in facts.files if file.name == name],
                trash=(),
                pins=frozenset(),
                space=None,
                least=decide.FLOOR_SECONDS if young else 0,
            ),
            dataclasses.replace(self._settings, remove_unused=True),
        )
        for decision in decisions.files:
            goes = decision.action is decide.Action.REMOVE
            if goes and not soundness.of(decision.file, facts.state).is_bad:
                return 'it is not known to be bad'
            if goes and decision.last_copy:
                return (
                    'its image is gone from the image service, and this is '
                    'what is left of that'
                )
        # With all facts: what was pinned before is no news at the last moment.
        for decision in self._actor(facts).act(decisions).files:
            if decision.action is decide.Action.REMOVE:
                return None
            return decision.reason
        return str(next(iter(facts.problems), 'it is not to be seen'))

    def verify_now(
        self, chosen: Collection[str], strict: bool = False
    ) -> reports.Report:
        """Verify some files, due or not, and remove nothing.

        :param strict: whether a file that cannot be verified just now, as
            its lock is held, as it may still grow or as it has gone, is a
            problem
        """
        facts = self._observer.look(with_content=True)
        if strict:
            facts = dataclasses.replace(
                facts,
                problems=(
                    *facts.problems,
                    *(
                        codes.Problem(
                            codes.Code.NOT_VERIFIED,
                            f'{name}: not verified: it is no file, or has '
                            'gone meanwhile',
                            name,
                        )
                        for name in chosen
                        if name not in facts.entries
                    ),
                ),
            )
        if not (facts.usable and facts.files):
            return self._refuse(facts)
        if _is_unmounted(facts, self._layout):
            return self._refuse(facts)
        decisions = []
        for decision in decide.decide(facts, self._settings).files:
            if decision.action is decide.Action.REMOVE:
                decision = msgspec.structs.replace(
                    decision,
                    action=decide.Action.KEEP,
                    reason=f'{decision.reason}; to verify removes nothing',
                )
            name = decision.file.name
            verify = name in chosen and name in facts.entries
            decisions.append(msgspec.structs.replace(decision, verify=verify))
        done = act.Done(tuple(decisions), ())
        report = self._finish(facts, done, urgent=True, strict=strict)
        return report.only(chosen)

    def _finish(
        self,
        facts: observed.Facts,
        done: act.Done,
        urgent: bool = False,
        strict: bool = False,
    ) -> reports.Report:
        """Remember what was seen, verify what is to be, and report."""
        kept = [
            decision
            for decision in done.files
            if decision.action is not decide.Action.REMOVE
        ]
        problems = [
            *done.problems,
            *self._notes.remember(facts, done, kept),
        ]
        if self._settings.checksum:
            problems += remember.restore_checksums(facts, kept)
        entries = dict(facts.entries)
        findings = {
            name: entry.known.finding for name, entry in entries.items()
        }
        if urgent or self._inline:
            # Here, as most passes read nothing (decision 0084).
            from nova_imagecache.scrub import verification

            # Reading comes last, as it alone takes long.
            chosen = [decision.file for decision in kept if decision.verify]
            found, failure = verification.verify(
                self._settings,
                chosen,
                facts.state,
                self._clock,
                self._progress_bar,
                urgent,
                self._read_as_root,
            )
            findings |= found
            problems += (
                []
                if failure is None
                else [codes.Problem(codes.Code.NOT_KEPT, failure)]
            )
            for file in chosen:
                entries[file.name] = recalling.entry_of(file, facts.state)
        problems += [
            codes.Problem(
                codes.Code.NOT_VERIFIED, f'{name}: {finding.note}', name
            )
            for name, finding in findings.items()
            if finding.problem or (strict and finding.skipped)
        ]
        report = self._reporter.report(
            dataclasses.replace(facts, entries=entries),
            dataclasses.replace(done, problems=tuple(dict.fromkeys(problems))),
            findings,
            urgent=urgent,
        )
        noting.note(self._layout, report, facts.entries, entries)
        return report
