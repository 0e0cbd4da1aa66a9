# SPDX-License-Identifier: Apache-2.0

"""What there is to see before anything is decided. Looking changes nothing."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import os

from nova_imagecache.cache import base_file
from nova_imagecache.cache import coordination
from nova_imagecache.cache import directories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import scans
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.passes import decide
from nova_imagecache.passes import pressure
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import testimonies


def _recall_state(layout: layouts.Layout) -> tuple[states.State, list[str]]:
    try:
        return states.load(layout), []
    except errors.Newer as error:
        return states.State(), [
            f'{layout.state} cannot be used ({error}), so when files were '
            'used last is not known'
        ]
    except errors.Damaged as error:
        # Decision 0057.
        return states.State(), [
            f'{layout.state} is damaged ({error}), so when files '
            'were used last is not known'
        ]
    except OSError as error:
        return states.State(), [
            f'{layout.state} cannot be read: {error.strerror}'
        ]


def _recall_pins(
    layout: layouts.Layout,
) -> tuple[frozenset[str], list[str]]:
    try:
        return pins.load(layout), []
    except OSError as error:
        return frozenset(), [f'{layout.pins} cannot be read: {error.strerror}']


def _measure(
    layout: layouts.Layout, settings: Settings
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


def _newer(
    layout: layouts.Layout,
    files: Iterable[base_file.BaseFile],
    entries: Mapping[str, schedule.Entry],
) -> frozenset[str]:
    """Tell of which files a newer release knows more than we can read."""
    try:
        noted = frozenset(os.listdir(layout.ledgers))
    except OSError:
        noted = frozenset()
    return frozenset(
        file.name
        for file in files
        if (
            entries[file.name].known.newer
            if file.name in entries
            else (file.trashed or file.name in noted)
            and ledgers.is_newer(file.ledger)
        )
    )


def _stalled_scrub(layout: layouts.Layout, now: clocks.Instant) -> list[str]:
    # In this order: who takes the turn says so at once.
    taken = coordination.coordinator(layout).taken()
    stalled = activities.stalled(activities.load(layout), taken, now)
    return [] if stalled is None else [stalled]


def _unkept(
    layout: layouts.Layout, host: str, state: states.State
) -> list[str]:
    """Say that nothing can be kept, where that is news.

    Some have all hosts but one mount the cache read-only, and that is fine:
    such a host has never noted anything.
    """
    unwritable = directories.unwritable(layout)
    if unwritable is None:
        return []
    last = activities.load(layout)
    ours = host in state.last_passes or (last and last.host == host)
    return [str(unwritable)] if ours or not unwritable.read_only else []


def look(
    settings: Settings,
    witnesses: Sequence[testimonies.Witness],
    now: clocks.Instant,
    with_content: bool,
) -> decide.Facts:
    """See what is there, without changing anything.

    :param with_content: whether to read what is known of the content of base
        files
    """
    layout = layouts.Layout.of(settings)
    problems: list[str] = []
    scan = scans.scan(layout)
    trashed = trash.scan(layout)
    recalled, vetoes = _recall_state(layout)
    unkept = _unkept(layout, settings.host, recalled) if with_content else []
    state, jump = recalled.entered(settings.host, now, clocks.machine_id())
    twins = state.twins(settings.host, now)
    pinned, unread = _recall_pins(layout)
    space, unmeasured = _measure(layout, settings)
    intruder = directories.intruder(layout)
    if intruder is not None:
        vetoes = [intruder, *vetoes]
    entries = {}
    for file in scan.files if with_content else ():
        if file.is_base:
            entry = entries[file.name] = queues.entry_of(file, state)
            problems += entry.known.problems
    wanted = {file.original for file in (*scan.files, *trashed.files)}
    testimony = testimonies.ask(witnesses, sorted(wanted), again=False)
    return decide.Facts(
        now=now,
        files=scan.files,
        trash=trashed.files,
        testimony=testimony,
        state=state,
        entries=entries,
        pins=pinned,
        space=space,
        vetoes=(*vetoes, *unread),
        newer=_newer(layout, (*scan.files, *trashed.files), entries),
        usable=intruder is None,
        jump=jump,
        problems=(
            *scan.problems,
            *trashed.problems,
            *unmeasured,
            *problems,
            *(_stalled_scrub(layout, now) if with_content else ()),
            *unkept,
            *(() if twins is None else (twins,)),
        ),
    )
