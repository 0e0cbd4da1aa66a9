# SPDX-License-Identifier: Apache-2.0

"""One pass over an image cache, from top to bottom.

A pass looks (:mod:`nova_imagecache.look`), decides
(:mod:`nova_imagecache.decide`), acts on each file under its lock, and reports.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import time

from nova_imagecache import act
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import removal
from nova_imagecache.cache import state as states
from nova_imagecache.cache import trash
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import keeper
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import schedule
from nova_imagecache import look
from nova_imagecache import names
from nova_imagecache import report as reports
from nova_imagecache import summary
from nova_imagecache import verification
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import panel
from nova_imagecache.witnesses import testimony as testimonies


class Pass:
    """One pass over one cache."""

    def __init__(
        self,
        settings: confs.Settings,
        witnesses: Sequence[testimonies.Witness] = (),
        clock: clocks.Clock = clocks.now,
        inline: bool = False,
        progress_bar: checksum.ProgressBar = checksum.no_progress_bar,
        lent: panel.Lent = panel.NOTHING,
    ) -> None:
        """Prepare a pass; nothing is looked at yet.

        :param witnesses: those beside the ones that the settings name and
            that need nobody's list
        :param inline: whether the pass itself reads the base files that are
            due, and does not leave that to a scrub
        :param progress_bar: shows how far the reading of files has got
        :param lent: what the host lends to the witnesses
        """
        self._settings = settings
        self._layout = layouts.Layout.of(settings)
        self._overlays = overlays.OverlayWitness(
            self._layout, lent.read_as_root
        )
        self._witnesses = (
            *witnesses,
            self._overlays,
            *panel.assemble(settings, self._layout, lent),
        )
        self._touch_as_root = lent.touch_as_root
        self._clock = clock
        self._inline = inline
        self._progress_bar = progress_bar

    def _look(self, with_content: bool) -> look.View:
        return look.look(
            self._settings, self._witnesses, self._clock(), with_content
        )

    def _actor(self, view: look.View) -> act.Actor:
        return act.Actor(
            self._layout, self._witnesses, view, self._touch_as_root
        )

    def preview(self) -> reports.Report:
        """Say what a pass would do; change nothing, read no base file."""
        view = self._look(with_content=True)
        decisions = decide.decide(view.facts, self._settings)
        findings = {
            name: entry.known.finding
            for name, entry in view.entries.items()
            if entry.known.digests
            or entry.known.ledger
            or self._settings.checksum
        }
        return self._summarize(
            view, act.nothing(decisions), view.entries, findings, dry_run=True
        )

    def run(self) -> reports.Report:
        """Make the pass."""
        view = self._look(with_content=self._settings.checksum)
        # An empty cache is remembered too: the clock is, for the next pass.
        if not (view.usable and os.path.isdir(self._layout.base)):
            return self._refuse(view)
        view = self._prepare(view)
        decisions = decide.decide(view.facts, self._settings)
        return self._finish(view, self._actor(view).act(decisions))

    def _prepare(self, view: look.View) -> look.View:
        """Make what is needed for a removal while there is space for it.

        And compare our clock with that of the storage, which may be another:
        it is the one that dates files, for all hosts. Where that cannot be
        asked, no file can be made, and little can be removed; on a disk
        without inodes something has to be.
        """
        vetoes, problems = [*view.facts.vetoes], [*view.problems]
        try:
            for path in (self._layout.locks, *self._layout.directories):
                os.makedirs(path, exist_ok=True)
            before = time.time()
            storage = publish.current_time(self._layout.temporary)
        except OSError as error:
            where = error.filename or self._layout.temporary
            problems.append(f'{where} cannot be written to: {error.strerror}')
        else:
            # Neither may be apart: the answer may have taken its time.
            nearest = min(max(storage, before), time.time())
            skew = clocks.skew(nearest, storage)
            vetoes += [] if skew is None else [skew]
        facts = dataclasses.replace(view.facts, vetoes=vetoes)
        return dataclasses.replace(view, facts=facts, problems=tuple(problems))

    def _refuse(self, view: look.View) -> reports.Report:
        """Report that there is nothing to do, or no way to do it."""
        problems = () if view.usable else tuple(view.facts.vetoes[:1])
        done = act.Done((), (), problems=problems)
        return self._summarize(view, done, {}, {})

    def set_aside(self, name: str) -> str | None:
        """Move a base file that is bad to the trash, if nobody uses it.

        Its minimum age does not count, nor does a pin: what is bad is better
        fetched anew. The floor does.

        :returns: why it stays; None if it is in the trash
        """
        view = self._look(with_content=False)
        if not view.usable:
            return view.facts.vetoes[0]
        view = self._prepare(view)
        facts = dataclasses.replace(
            view.facts,
            files=[file for file in view.facts.files if file.name == name],
            trash=(),
            pins=frozenset(),
            space=None,
        )
        settings = dataclasses.replace(
            self._settings,
            remove_unused=True,
            original_minimum_age=0,
            resized_minimum_age=0,
        )
        done = self._actor(view).act(decide.decide(facts, settings))
        for decision in done.files:
            if decision.action is decide.Action.REMOVE:
                return None
            return decision.reason
        return next(iter(view.problems), 'it is not to be seen')

    def verify_now(
        self, chosen: Collection[str], strict: bool = False
    ) -> reports.Report:
        """Verify some files, due or not, and remove nothing.

        :param strict: whether a file that cannot be verified just now, as
            its lock is held or as it may still grow, is a problem
        """
        view = self._look(with_content=True)
        if not (view.usable and view.facts.files):
            return self._refuse(view)
        decisions = [
            dataclasses.replace(
                decision,
                # Due to go, perhaps, but not by this.
                action=decide.Action.KEEP
                if decision.action is decide.Action.REMOVE
                else decision.action,
                verify=decision.file.name in chosen
                and decision.file.name in view.entries,
            )
            for decision in decide.decide(view.facts, self._settings).files
        ]
        done = act.Done(tuple(decisions), ())
        report = self._finish(view, done, urgent=True, strict=strict)
        return report.only(chosen)

    def _finish(
        self,
        view: look.View,
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
        problems = [*done.problems, *self._remember(view, done, kept)]
        if self._settings.checksum:
            self._restore(view, kept, problems)
        entries = dict(view.entries)
        findings = {
            name: entry.known.finding for name, entry in entries.items()
        }
        if urgent or self._inline:
            # Reading comes last, as it alone takes long.
            findings |= verification.verify(
                self._settings,
                view,
                kept,
                self._clock,
                self._progress_bar,
                urgent,
            )
            for decision in kept:
                if decision.verify:
                    entries[decision.file.name] = look.entry_of(
                        self._layout, decision.file, view.state
                    )
        problems += [
            f'{name}: {finding.note}'
            for name, finding in findings.items()
            if finding.problem or (strict and finding.skipped)
        ]
        done = dataclasses.replace(done, problems=tuple(problems))
        return self._summarize(view, done, entries, findings)

    def _summarize(
        self,
        view: look.View,
        done: act.Done,
        entries: Mapping[str, schedule.Entry],
        findings: Mapping[str, knowledges.Finding],
        dry_run: bool = False,
    ) -> reports.Report:
        return summary.Summary(
            self._settings, view, self._overlays, entries, findings
        ).report(done, self._clock(), dry_run)

    def _remember(
        self,
        view: look.View,
        done: act.Done,
        kept: Sequence[decide.Decision],
    ) -> list[str]:
        used = {each.file.name for each in kept if each.used}
        used |= {
            names.trashed_name(each.file.name) or ''
            for each in done.trash
            if each.used and each.action is decide.Action.PUT_BACK
        }
        trashed = trash.scan(self._layout)
        try:
            states.remember(
                self._layout,
                self._settings.host,
                view.now,
                [
                    *(decision.file for decision in kept),
                    *done.restored,
                    *trashed.files,
                ],
                used,
                view.testimony.images,
                {
                    name: states.History(
                        entry.known.ledger.suspect,
                        entry.known.ledger.rebaselined,
                    )
                    for name, entry in view.entries.items()
                    if entry.known.ledger is not None
                },
                view.state,
                any(
                    each.spare and each.action is decide.Action.DELETE
                    for each in done.trash
                ),
            )
        except errors.NotNow as error:
            return [f'{self._layout.state} cannot be kept: {error}']
        except OSError as error:
            return [f'{self._layout.state} cannot be kept: {error.strerror}']
        removal.tidy(
            self._layout,
            [
                *(decision.file.name for decision in kept),
                *(file.name for file in done.restored),
            ],
            trashed.strays,
            None if view.facts.vetoes else view.now.wall,
        )
        return []

    def _restore(
        self,
        view: look.View,
        kept: Sequence[decide.Decision],
        problems: list[str],
    ) -> None:
        """Bring back stored checksums that were lost."""
        for decision in kept:
            file = decision.file
            entry = view.entries.get(file.name)
            if entry is None:
                continue
            try:
                keeper.restore_checksum(self._layout, file, entry.known)
            except errors.NotNow:
                continue
            except OSError as error:
                problems.append(
                    f'the checksum of {file.name} cannot be written: '
                    f'{error.strerror}'
                )
