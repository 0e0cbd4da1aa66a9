# SPDX-License-Identifier: Apache-2.0

"""One pass over an image cache, from top to bottom.

A pass looks (scan, witnesses), decides (:mod:`nova_imagecache.decide`), acts
on each file under its lock, and reports.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import state as states
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import verify
from nova_imagecache import report as reports
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimony as testimonies


@dataclasses.dataclass(frozen=True)
class View:
    """What a pass has seen, before it decides.

    :ivar knowledge: of the content of base files, by name; empty when
        checksums are off
    """

    now: clocks.Instant
    scan: scans.Scan
    state: states.State
    testimony: testimonies.Testimony
    knowledge: dict[str, knowledges.Knowledge]
    vetoes: tuple[str, ...]
    problems: tuple[str, ...]

    def decide(self, settings: confs.Settings) -> list[decide.Decision]:
        """Decide on each file seen."""
        return decide.decide(
            self.scan.files,
            self.testimony,
            self.state,
            self.knowledge,
            settings,
            self.now.wall,
            self.vetoes,
        )


class Pass:
    """One pass over one cache."""

    def __init__(
        self,
        settings: confs.Settings,
        witnesses: Sequence[testimonies.Witness] = (),
        clock: clocks.Clock = clocks.now,
        progress_bar: checksum.ProgressBar = checksum.no_progress_bar,
    ) -> None:
        """Prepare a pass; nothing is looked at yet.

        :param witnesses: those beside the overlays, which are always asked
        :param progress_bar: shows how far the reading of files has got
        """
        self._settings = settings
        self._layout = layouts.Layout.of(settings)
        self._overlays = overlays.OverlayWitness(self._layout)
        self._witnesses = (*witnesses, self._overlays)
        self._clock = clock
        self._progress_bar = progress_bar

    def look(self, with_content: bool) -> View:
        """See what is there, without changing anything.

        :param with_content: whether to read what is known of the content of
            base files
        """
        now = self._clock()
        problems: list[str] = []
        scan = scans.scan(self._layout)
        state, vetoes = self._recall_state(now)
        found = [file.name for file in scan.files]
        knowledge = {}
        for file in scan.files if with_content else ():
            if not (file.kind.is_base and file.status.regular):
                continue
            known = knowledges.recall(self._layout, file)
            knowledge[file.name] = known
            problems += known.problems
        return View(
            now=now,
            scan=scan,
            state=state,
            testimony=testimonies.combine(
                [witness.look(found) for witness in self._witnesses]
            ),
            knowledge=knowledge,
            vetoes=tuple(vetoes),
            problems=(*scan.problems, *problems),
        )

    def preview(self) -> reports.Report:
        """Say what a pass would do; change nothing, read no base file."""
        view = self.look(with_content=True)
        rows = [
            self._row(decision, self._last_finding(decision, view))
            for decision in view.decide(self._settings)
        ]
        return self._report(view, rows, dry_run=True)

    def run(self) -> reports.Report:
        """Make the pass."""
        view = self.look(with_content=self._settings.checksum)
        if not view.scan.files:
            return self._report(view, [])
        problems: list[str] = []
        decisions = [
            self._act(decision, view, problems)
            for decision in view.decide(self._settings)
        ]
        # Reading comes last, as it alone takes long.
        return self._finish(view, decisions, problems)

    def verify_now(
        self, chosen: Collection[str], strict: bool = False
    ) -> reports.Report:
        """Verify some files, due or not, and remove nothing.

        :param strict: whether a file that cannot be verified just now, as
            its lock is held or as it may still grow, is a problem
        """
        view = self.look(with_content=True)
        if not view.scan.files:
            return self._report(view, [])
        # As if removal were off, which is what is happening.
        settings = dataclasses.replace(self._settings, remove_unused=False)
        decisions = [
            dataclasses.replace(
                decision,
                verify=decision.file.name in chosen
                and decision.file.name in view.knowledge,
            )
            for decision in view.decide(settings)
        ]
        return self._finish(view, decisions, [], strict).only(chosen)

    def _finish(
        self,
        view: View,
        decisions: Sequence[decide.Decision],
        problems: list[str],
        strict: bool = False,
    ) -> reports.Report:
        """Remember what was seen, verify what is to be, and report."""
        kept = [
            decision
            for decision in decisions
            if decision.action is not decide.Action.REMOVE
        ]
        problems += self._remember(view, kept)
        findings = self._verify(view, kept, problems)
        problems += [
            f'{name} is {finding.note}'
            for name, finding in findings.items()
            if finding.problem or (strict and finding.skipped)
        ]
        off = knowledges.Finding(knowledges.Verdict.OFF)
        rows = [
            self._row(decision, findings.get(decision.file.name, off))
            for decision in decisions
        ]
        return self._report(view, rows, problems)

    def _recall_state(
        self, now: clocks.Instant
    ) -> tuple[states.State, list[str]]:
        try:
            state = states.load(self._layout)
        except errors.Damaged as error:
            return states.State(), [
                f'{self._layout.state} is damaged ({error}), so when files '
                'were used last is not known'
            ]
        except OSError as error:
            return states.State(), [
                f'{self._layout.state} cannot be read: {error.strerror}'
            ]
        before = state.clocks.get(self._settings.host)
        jump = clocks.jump(before, now) if before else None
        return state, [jump] if jump else []

    def _act(
        self, decision: decide.Decision, view: View, problems: list[str]
    ) -> decide.Decision:
        """Touch or remove a file; give what became of the decision."""
        if decision.users and decision.action is decide.Action.KEEP:
            removal.touch(self._layout, decision.file)
        if decision.action is not decide.Action.REMOVE:
            return decision
        try:
            removal.remove(
                self._layout,
                decision.file,
                lambda: self._objection(decision.file, view),
            )
        except errors.LockBroken as error:
            reason = f'not removed: {error}'
            problems.append(f'{decision.file.name} is {reason}')
        except errors.NotNow as error:
            reason = f'not removed: {error}'
        except OSError as error:
            reason = f'cannot be removed: {error.strerror}'
            problems.append(f'{decision.file.name} {reason}')
        else:
            return decision
        return dataclasses.replace(
            decision, action=decide.Action.KEEP, reason=reason
        )

    def _objection(self, file: scans.CachedFile, view: View) -> str | None:
        """Ask again, at the last moment, with the file's lock held."""
        name = file.name
        if states.used_since(self._layout, file, view.state, view.now.wall):
            return 'somebody has noted its use meanwhile'
        for witness in self._witnesses:
            testimony = witness.look_again(name)
            if testimony.failures:
                return testimony.failures[0]
            users = testimony.users.get(name)
            if users:
                return f'{min(users)} has begun to use it'
        return None

    def _remember(
        self, view: View, kept: Sequence[decide.Decision]
    ) -> list[str]:
        try:
            states.remember(
                self._layout,
                self._settings.host,
                view.now,
                [decision.file for decision in kept],
                {decision.file.name for decision in kept if decision.users},
            )
        except errors.NotNow as error:
            return [f'{self._layout.state} cannot be kept: {error}']
        except OSError as error:
            return [f'{self._layout.state} cannot be kept: {error.strerror}']
        removal.tidy(
            self._layout,
            [decision.file.name for decision in kept],
            view.now.wall,
        )
        return []

    def _verify(
        self,
        view: View,
        decisions: Sequence[decide.Decision],
        problems: list[str],
    ) -> dict[str, knowledges.Finding]:
        """Verify the files that are to be; give a finding for each known."""
        findings = {
            name: known.finding for name, known in view.knowledge.items()
        }
        if not findings:
            return findings
        total = sum(
            decision.file.status.size
            for decision in decisions
            if decision.verify
        )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.manager_lock(self._layout, 'verify'))
            except errors.NotNow as error:
                # The other one's findings are those of the next pass.
                problem = isinstance(error, errors.LockBroken)
                for decision in decisions:
                    if decision.verify:
                        name = decision.file.name
                        findings[name] = findings[name].postponed(
                            str(error), problem
                        )
                return findings
            progress = stack.enter_context(self._progress_bar(total))
            for decision in decisions:
                file = decision.file
                name = file.name
                if decision.verify and not decide.settled(
                    file, view.state.sighting(file)
                ):
                    findings[name] = findings[name].postponed(
                        'it is seen for the first time, and may still grow'
                    )
                elif decision.verify:
                    findings[name] = verify.verify(
                        self._layout,
                        file,
                        view.knowledge[name],
                        view.now.wall,
                        progress,
                    )
                elif self._settings.checksum and name in findings:
                    self._restore(view, file, problems)
        return findings

    def _restore(
        self, view: View, file: scans.CachedFile, problems: list[str]
    ) -> None:
        try:
            verify.restore_checksum(
                self._layout, file, view.knowledge[file.name]
            )
        except errors.NotNow:
            return
        except OSError as error:
            problems.append(
                f'the checksum of {file.name} cannot be written: '
                f'{error.strerror}'
            )

    def _last_finding(
        self, decision: decide.Decision, view: View
    ) -> knowledges.Finding:
        known = view.knowledge.get(decision.file.name)
        if known is None:
            return knowledges.Finding(knowledges.Verdict.OFF)
        if not known.digests and not self._settings.checksum:
            return knowledges.Finding(knowledges.Verdict.OFF)
        return known.finding

    def _row(
        self, decision: decide.Decision, finding: knowledges.Finding
    ) -> reports.FileReport:
        status = decision.file.status
        reasons = [decision.reason, finding.note]
        return reports.FileReport(
            name=decision.file.name,
            kind=decision.file.kind,
            size=status.size,
            allocated=status.allocated,
            users=decision.users,
            image=decision.image,
            age_seconds=int(decision.age),
            checksum=finding.verdict,
            action=decision.action,
            reason='; '.join(filter(None, reasons)),
        )

    def _report(
        self,
        view: View,
        rows: Iterable[reports.FileReport],
        problems: Iterable[str] = (),
        dry_run: bool = False,
    ) -> reports.Report:
        return reports.Report(
            cache_dir=self._layout.base,
            files=tuple(rows),
            vetoes=(*view.vetoes, *view.testimony.failures),
            problems=(*view.problems, *problems),
            notes=view.testimony.notes,
            dry_run=dry_run,
        )
