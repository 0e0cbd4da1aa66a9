# SPDX-License-Identifier: Apache-2.0

"""One pass over an image cache, from top to bottom.

A pass looks (:mod:`nova_imagecache.passes.look`), decides
(:mod:`nova_imagecache.passes.decide`), acts on each file under its lock
(:mod:`nova_imagecache.passes.act`), and reports
(:mod:`nova_imagecache.passes.reports`).
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import gc
import os
import time

from nova_imagecache.cache import directories
from nova_imagecache.cache import image_names
from nova_imagecache.cache import layouts
from nova_imagecache.cache import mounts
from nova_imagecache.cache import publish
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache.content import soundness
from nova_imagecache.heal import accounts
from nova_imagecache import names
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.passes import foresight
from nova_imagecache.passes import look
from nova_imagecache.passes import noting
from nova_imagecache.passes import remember
from nova_imagecache.passes import reports
from nova_imagecache.passes import storage
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import verification
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import panel
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing


def _never(_state: states.State, _now: clocks.Instant) -> bool:
    return False


def _is_unmounted(facts: decide.Facts, layout: layouts.Layout) -> bool:
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


# Of files that are named in a line.
_LAST_COPIES_SHOWN = 3


class Pass:
    """One pass over one cache."""

    def __init__(
        self,
        settings: Settings,
        witnesses: Sequence[testimonies.Witness] = (),
        clock: clocks.Clock = clocks.now,
        inline: bool = False,
        progress_bar: readers.ProgressBar = readers.no_progress_bar,
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
        memory, self._unrecalled = look.recall(self._layout, settings)
        self._memory = memory
        self._assembly = assembly
        self._overlays = assembly.overlays(self._layout, memory, glance=True)
        self._others = (
            *witnesses,
            *assembly.others(settings, self._layout, clock),
        )
        self._read_as_root = assembly.host.read_as_root
        self._touch_as_root = assembly.host.touch_as_root
        self._clock = clock
        self._inline = inline
        self._storage = storage.Storage()
        self._progress_bar = progress_bar

    @property
    def _witnesses(self) -> tuple[testimonies.Witness, ...]:
        # In this order: the last one looks for what the others have named.
        return (*self._others, self._overlays)

    def _look(
        self,
        with_content: bool,
        closely: Callable[[states.State, clocks.Instant], bool] = _never,
    ) -> decide.Facts:
        """See what there is; by a glance where that is likely to do.

        :param closely: whether it is not, by what was left and how late it is
        """
        now = self._clock()
        state, obstacles = look.recall_state(self._layout)
        _entered, jump = state.entered(
            self._settings.host, now, clocks.machine_id()
        )
        if closely(state, now):
            self._overlays = self._closer(jump)
        facts = look.look(
            self._settings,
            self._witnesses,
            now,
            state,
            obstacles,
            with_content,
        )
        return dataclasses.replace(
            facts, problems=(*facts.problems, *self._unrecalled)
        )

    def _foresee(self, state: states.State, now: clocks.Instant) -> bool:
        return foresight.removes(state, now, self._settings)

    def _foresee_it(self, state: states.State, now: clocks.Instant) -> bool:
        """Whether files are about to go; asks the storage what it takes."""
        return self._foresee(state, now) and self._look_for_it(state, now)

    def _look_for_it(self, _state: states.State, _now: clocks.Instant) -> bool:
        self._storage = storage.ask(self._layout, self._settings.host)
        return True

    def _closer(self, jump: float) -> overlays.OverlayWitness:
        return self._assembly.overlays(
            self._layout,
            self._memory,
            clock=self._storage.clock,
            settled=self._storage.settled and not jump,
        )

    def _look_closely(self, facts: decide.Facts) -> decide.Facts:
        """See everything as it is, and as it stays while it is seen."""
        if not self._overlays.has_glanced:
            return facts
        self._overlays = self._closer(facts.jump)
        return look.look_closely(self._layout, facts, self._overlays)

    def _decide(
        self, facts: decide.Facts
    ) -> tuple[decide.Facts, decide.Decisions]:
        """Decide; by more than a glance where a file would go."""
        decisions = decide.decide(facts, self._settings)
        if decisions.take_away and self._overlays.has_glanced:
            facts = self._look_closely(facts)
            decisions = decide.decide(facts, self._settings)
        return facts, decisions

    @property
    def _notes(self) -> remember.Notes:
        return remember.Notes(
            self._layout,
            self._settings.host,
            self._overlays.inventory,
            self._memory.inventory,
        )

    def _actor(self, facts: decide.Facts) -> act.Actor:
        return act.Actor(
            self._layout,
            self._witnesses,
            facts,
            self._touch_as_root,
        )

    @_without_collector()
    def preview(self) -> reports.Report:
        """Say what a pass would do; change nothing, read no base file."""
        facts = self._look(with_content=True, closely=self._foresee)
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
        return self._report(
            facts, act.nothing(decisions), findings, dry_run=True
        )

    def run(self) -> reports.Report:
        """Make the pass."""
        # What reads base files for hours is not for this.
        if self._inline:
            return self._run()
        with _without_collector():
            return self._run()

    def _run(self) -> reports.Report:
        facts = self._look(self._settings.checksum, closely=self._foresee_it)
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

    def _coverage(
        self, facts: decide.Facts, gone: Collection[str]
    ) -> schedule.Coverage:
        return schedule.coverage(
            [each for name, each in facts.entries.items() if name not in gone],
            self._settings.checksum_interval,
            self._settings.scrub_bandwidth,
            self._clock(),
            self._settings.host,
        )

    def _prepare(self, facts: decide.Facts) -> decide.Facts:
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
            self._storage = storage.tell(
                self._layout, self._settings.host, shown
            )
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
        self, facts: decide.Facts, skew: float
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
        self, facts: decide.Facts, problems: Sequence[codes.Problem] = ()
    ) -> reports.Report:
        """Report that there is nothing to do, or no way to do it."""
        if not facts.usable:
            why = str(facts.vetoes[0])
            problems = (*problems, codes.Problem(codes.Code.UNUSABLE, why))
        facts = dataclasses.replace(facts, entries={})
        report = self._report(
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
        facts = self._look(False, closely=self._look_for_it)
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
        facts = self._look(with_content=True)
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
                decision = dataclasses.replace(
                    decision,
                    action=decide.Action.KEEP,
                    reason=f'{decision.reason}; to verify removes nothing',
                )
            name = decision.file.name
            verify = name in chosen and name in facts.entries
            decisions.append(dataclasses.replace(decision, verify=verify))
        done = act.Done(tuple(decisions), ())
        report = self._finish(facts, done, urgent=True, strict=strict)
        return report.only(chosen)

    def _finish(
        self,
        facts: decide.Facts,
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
                entries[file.name] = queues.entry_of(file, facts.state)
        problems += [
            codes.Problem(
                codes.Code.NOT_VERIFIED, f'{name}: {finding.note}', name
            )
            for name, finding in findings.items()
            if finding.problem or (strict and finding.skipped)
        ]
        report = self._report(
            dataclasses.replace(facts, entries=entries),
            dataclasses.replace(done, problems=tuple(dict.fromkeys(problems))),
            findings,
            urgent=urgent,
        )
        noting.note(self._layout, report, facts.entries, entries)
        return report

    def _report(
        self,
        facts: decide.Facts,
        done: act.Done,
        findings: Mapping[str, knowledge.Finding],
        dry_run: bool = False,
        urgent: bool = False,
    ) -> reports.Report:
        gone = {
            decision.file.name
            for decision in done.files
            if decision.action is decide.Action.REMOVE and not dry_run
        }
        coverage = self._coverage(facts, gone)
        problems = [*facts.problems, *done.problems]
        vetoed = facts.state.vetoed.get(self._settings.host)
        overdue = schedule.overdue(coverage, facts.now)
        # Whoever verifies some files does not ask for the others.
        if overdue is not None and self._settings.checksum and not urgent:
            problems.append(codes.Problem(codes.Code.OVERDUE, overdue))
        bad = [name for name, each in findings.items() if each.damaged]
        repairs_due = False
        if bad and self._settings.corruption_action == 'repair':
            account = accounts.load(self._layout, self._settings.host)
            problems += accounts.sentences(account, bad, facts.now)
            repairs_due = accounts.is_due(account, bad, facts.now)
        report = reports.Report(
            cache_dir=self._layout.base,
            files=self._rows(facts, done.files, findings),
            trash=self._rows(facts, done.trash, findings),
            vetoes=vetoing.sentences(
                each for each in facts.obstacles if not each.is_narrow
            ),
            withheld=vetoing.sentences(
                each for each in facts.obstacles if each.is_narrow
            ),
            obstacles=facts.obstacles,
            vetoed_seconds=self._since(
                facts, vetoed.since if vetoed and facts.obstacles else None
            ),
            removed_seconds=self._since(facts, facts.state.last_removal),
            problems=tuple(problems),
            notes=(
                *self._jump(facts),
                *facts.testimony.notes,
                *_last_copies(done),
                *self._mount(),
                *done.notes,
            ),
            titles=facts.testimony.titles,
            host=self._settings.host,
            made=facts.now.wall,
            dry_run=dry_run,
            checksums=self._settings.checksum,
            coverage=coverage,
            repairs_due=repairs_due,
            shortfall=done.shortfall,
            began=facts.now,
            ended=self._clock(),
        )
        # A pass names the images of the few files that people hear of.
        wanted = None if dry_run else [file.name for file in report.harmful]
        images = image_names.load_all(self._layout, wanted)
        return reports.with_names(report, images)

    @staticmethod
    def _since(
        facts: decide.Facts, when: clocks.Instant | None
    ) -> float | None:
        if when is None:
            return None
        return max(0.0, clocks.elapsed(when, facts.now))

    @staticmethod
    def _jump(facts: decide.Facts) -> list[codes.Problem]:
        if not facts.jump:
            return []
        told = clocks.tell_jump(facts.jump)
        return [codes.Problem(codes.Code.JUMP, told)]

    def _mount(self) -> list[codes.Problem]:
        found = mounts.local_locks(self._layout.base)
        if found is None:
            return []
        return [codes.Problem(codes.Code.LOCAL_LOCKS, found)]

    def _rows(
        self,
        facts: decide.Facts,
        decisions: Sequence[decide.Decision],
        findings: Mapping[str, knowledge.Finding],
    ) -> tuple[reports.FileReport, ...]:
        return tuple(
            reports.row(
                decision,
                facts.entries.get(decision.file.name),
                findings.get(decision.file.name),
                facts,
                self._overlays.chains,
            )
            for decision in decisions
        )


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
