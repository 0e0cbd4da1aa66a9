# SPDX-License-Identifier: Apache-2.0

"""What a pass saw and did, put together to a report."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from nova_imagecache import act
from nova_imagecache.cache import layout as layouts
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache.integrity import schedule
from nova_imagecache import look
from nova_imagecache import report as reports
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import overlays

_OFF = knowledges.Finding(knowledges.Verdict.OFF)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What there is to say, beside what was done.

    :ivar disks: knows which disks lead to a base file
    :ivar entries: what is known of the content of base files, by name
    :ivar findings: what was found in them, by name
    """

    settings: confs.Settings
    view: look.View
    disks: overlays.OverlayWitness
    entries: Mapping[str, schedule.Entry]
    findings: Mapping[str, knowledges.Finding]

    def report(
        self, done: act.Done, now: clocks.Instant, dry_run: bool
    ) -> reports.Report:
        """Give the report of a pass.

        :param dry_run: whether nothing was done
        """
        gone = {
            each.file.name
            for each in done.files
            if each.action is decide.Action.REMOVE and not dry_run
        }
        coverage = schedule.coverage(
            [
                entry
                for name, entry in self.entries.items()
                if name not in gone
            ],
            self.settings.checksum_interval,
            self.settings.scrub_bandwidth,
            now,
            self.settings.host,
        )
        return reports.Report(
            cache_dir=self._layout.base,
            files=tuple(map(self._row, done.files)),
            trash=tuple(map(self._row, done.trash)),
            vetoes=self.view.facts.obstacles,
            problems=(*self.view.problems, *done.problems),
            notes=(*self.view.testimony.notes, *done.notes),
            dry_run=dry_run,
            checksums=self.settings.checksum,
            coverage=coverage,
        )

    @property
    def _layout(self) -> layouts.Layout:
        return layouts.Layout.of(self.settings)

    def _row(self, decision: decide.Decision) -> reports.FileReport:
        file = decision.file
        finding = self.findings.get(file.name, _OFF)
        entry = self.entries.get(file.name)
        ledger = entry.known.ledger if entry else None
        bad = ledger.bad_ranges if ledger else ()
        reasons = [decision.reason, finding.note]
        return reports.FileReport(
            name=file.name,
            kind=file.kind,
            size=file.status.size,
            allocated=file.status.allocated,
            users=decision.users,
            image=decision.image or (ledger.image if ledger else None),
            age_seconds=int(decision.age),
            checksum=finding.verdict,
            action=decision.action,
            reason='; '.join(filter(None, reasons)),
            bad=bad,
            exposures=self._expose(file.name, bad) if bad else (),
            suspect=bool(ledger and ledger.suspect),
        )

    def _expose(
        self, name: str, bad: Sequence[ledgers.BadRange]
    ) -> tuple[exposure.Exposure, ...]:
        found = exposure.expose(
            self._layout,
            name,
            [(each.start, each.end) for each in bad],
            self.disks.chains(name),
        )
        aliases = self.view.testimony.aliases
        return tuple(
            dataclasses.replace(
                each, guest=aliases.get(each.guest, each.guest)
            )
            for each in found
        )
