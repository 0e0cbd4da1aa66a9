# SPDX-License-Identifier: Apache-2.0

"""What there is to see before anything is decided. Looking changes nothing."""

from collections.abc import Sequence
import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import state as states
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import schedule
from nova_imagecache.integrity import scrub
from nova_imagecache.witnesses import testimony as testimonies


@dataclasses.dataclass(frozen=True)
class View:
    """What a pass has seen, before it decides.

    :ivar entries: what is known of the content of base files, by name; empty
        when checksums are off
    """

    now: clocks.Instant
    scan: scans.Scan
    state: states.State
    testimony: testimonies.Testimony
    entries: dict[str, schedule.Entry]
    vetoes: tuple[str, ...]
    problems: tuple[str, ...]

    def decide(self, settings: confs.Settings) -> list[decide.Decision]:
        """Decide on each file seen."""
        return decide.decide(
            self.scan.files,
            self.testimony,
            self.state,
            self.entries,
            settings,
            self.now,
            self.vetoes,
        )


def entry_of(
    layout: layouts.Layout, file: scans.CachedFile, state: states.State
) -> schedule.Entry:
    """Recall what is known of the content of a base file."""
    sighting = state.sighting(file)
    return schedule.Entry(
        name=file.name,
        size=file.status.allocated,
        known=knowledges.recall(layout, file),
        seen=sighting.seen if sighting else None,
    )


def job_of(
    file: scans.CachedFile,
    known: knowledges.Knowledge,
    state: states.State,
    now: clocks.Instant,
    host: str,
) -> scrub.Job:
    """Put together what the scrub of a base file needs to know."""
    sighting = state.sighting(file)
    if sighting and sighting.digested and known.ledger is None:
        known = dataclasses.replace(known, lost=True)
    return scrub.Job(
        file,
        known,
        image=sighting.image if sighting else None,
        outlived=states.outlived(file, sighting, state, now, host),
        suspect=bool(sighting and sighting.suspect),
        rebaselined=sighting.rebaselined if sighting else None,
    )


def _recall_state(
    layout: layouts.Layout, host: str, now: clocks.Instant
) -> tuple[states.State, list[str]]:
    try:
        state = states.load(layout)
    except errors.Damaged as error:
        return states.State(), [
            f'{layout.state} is damaged ({error}), so when files '
            'were used last is not known'
        ]
    except OSError as error:
        return states.State(), [
            f'{layout.state} cannot be read: {error.strerror}'
        ]
    before = state.clocks.get(host)
    jump = clocks.jump(before, now) if before else None
    return state, [jump] if jump else []


def look(
    settings: confs.Settings,
    witnesses: Sequence[testimonies.Witness],
    now: clocks.Instant,
    with_content: bool,
) -> View:
    """See what is there, without changing anything.

    :param with_content: whether to read what is known of the content of base
        files
    """
    layout = layouts.Layout.of(settings)
    problems: list[str] = []
    scan = scans.scan(layout)
    state, vetoes = _recall_state(layout, settings.host, now)
    entries = {}
    for file in scan.files if with_content else ():
        if not (file.kind.is_base and file.status.regular):
            continue
        entry = entry_of(layout, file, state)
        entries[file.name] = entry
        problems += entry.known.problems
    found = [file.name for file in scan.files]
    return View(
        now=now,
        scan=scan,
        state=state,
        testimony=testimonies.combine(
            [witness.look(found) for witness in witnesses]
        ),
        entries=entries,
        vetoes=tuple(vetoes),
        problems=(*scan.problems, *problems),
    )
