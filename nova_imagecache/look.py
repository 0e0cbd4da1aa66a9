# SPDX-License-Identifier: Apache-2.0

"""What there is to see before anything is decided. Looking changes nothing."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os

from nova_imagecache.cache import directory
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import state as states
from nova_imagecache.cache import trash
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import schedule
from nova_imagecache.integrity import scrub
from nova_imagecache import pressure
from nova_imagecache.witnesses import testimony as testimonies


@dataclasses.dataclass(frozen=True)
class View:
    """What a pass has seen, before it decides.

    :ivar facts: what is decided on; ``entries`` is empty when checksums are
        off
    :ivar problems: what could not be looked at, a sentence each
    :ivar usable: whether there is room for what a pass writes
    """

    facts: decide.Facts
    problems: tuple[str, ...]
    usable: bool

    @property
    def now(self) -> clocks.Instant:
        """Say when this was."""
        return self.facts.now

    @property
    def state(self) -> states.State:
        """Give what earlier passes remember."""
        return self.facts.state

    @property
    def testimony(self) -> testimonies.Testimony:
        """Give what all witnesses say together."""
        return self.facts.testimony

    @property
    def entries(self) -> Mapping[str, schedule.Entry]:
        """Give what is known of the content of base files, by name."""
        return self.facts.entries


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


def _recall_pins(
    layout: layouts.Layout,
) -> tuple[frozenset[str], list[str]]:
    try:
        return pins.load(layout), []
    except OSError as error:
        return frozenset(), [f'{layout.pins} cannot be read: {error.strerror}']


def _measure(
    layout: layouts.Layout, settings: confs.Settings
) -> tuple[pressure.Space | None, list[str]]:
    """Say how full the disk is, where that matters."""
    if not settings.high_watermark:
        return None, []
    try:
        found = os.statvfs(layout.base)
    except FileNotFoundError:
        return None, []
    except OSError as error:
        return None, [
            f'how full the disk of {layout.base} is cannot be told: '
            f'{error.strerror}'
        ]
    return pressure.Space(
        (found.f_blocks - found.f_bfree) * found.f_frsize,
        found.f_bavail * found.f_frsize,
    ), []


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
    trashed = trash.scan(layout)
    state, vetoes = _recall_state(layout, settings.host, now)
    pinned, unread = _recall_pins(layout)
    space, unmeasured = _measure(layout, settings)
    intruder = directory.intruder(layout)
    if intruder is not None:
        vetoes = [intruder, *vetoes]
    entries = {}
    for file in scan.files if with_content else ():
        if not (file.kind.is_base and file.status.regular):
            continue
        entry = entry_of(layout, file, state)
        entries[file.name] = entry
        problems += entry.known.problems
    wanted = {file.name for file in scan.files}
    wanted.update(trash.original(file.name) for file in trashed.files)
    testimony = testimonies.ask(witnesses, sorted(wanted), again=False)
    return View(
        facts=decide.Facts(
            now=now,
            files=scan.files,
            trash=trashed.files,
            testimony=testimony,
            state=state,
            entries=entries,
            pins=pinned,
            space=space,
            vetoes=(*vetoes, *unread),
        ),
        usable=intruder is None,
        problems=(
            *scan.problems,
            *trashed.problems,
            *unmeasured,
            *problems,
        ),
    )
