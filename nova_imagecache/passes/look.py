# SPDX-License-Identifier: Apache-2.0

"""What there is to see before anything is decided. Looking changes nothing."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os

from nova_imagecache.cache import base_file
from nova_imagecache.cache import coordination
from nova_imagecache.cache import directories
from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import scans
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache import names
from nova_imagecache.passes import observed
from nova_imagecache.passes import pressure
from nova_imagecache import pools
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import recalling
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing

# Of the guests that a sentence names.
_SHOWN = 3


def recall_state(
    layout: layouts.Layout,
) -> tuple[states.State, list[vetoing.Veto]]:
    """Recall when files were used; give what speaks against believing that."""
    try:
        return states.load(layout), []
    except (errors.Newer, errors.Damaged) as error:
        # Decision 0057.
        damaged = isinstance(error, errors.Damaged)
        matter = 'is damaged' if damaged else 'cannot be used'
        return states.State(), [
            _unusable(
                layout.state,
                f'it {matter} ({error}), so when files were used last is not '
                'known' + ('; a pass begins it anew' if damaged else ''),
            )
        ]
    except OSError as error:
        return states.State(), [_unreadable(layout.state, error)]


def _unusable(subject: str, problem: str) -> vetoing.Veto:
    return vetoing.Veto(vetoing.Reason.RECORD, subject, problem)


def _unreadable(path: str, error: OSError) -> vetoing.Veto:
    return _unusable(
        path,
        f'it cannot be read: {error.strerror}{directories.way_out(error)}',
    )


def _recall_pins(
    layout: layouts.Layout,
) -> tuple[frozenset[str], list[vetoing.Veto]]:
    try:
        return pins.load(layout), []
    except OSError as error:
        return frozenset(), [_unreadable(layout.pins, error)]


def recall(
    layout: layouts.Layout, settings: Settings
) -> tuple[memories.Memory, list[codes.Problem]]:
    """Recall what this host has found, and what it is told to ignore.

    What cannot be read is not known, and is said: that removes nothing more.
    """
    problems: list[codes.Problem] = []
    inventory = inventories.Inventory()
    marks: ignored_files.Marks = {}
    try:
        inventory = inventories.load(layout, settings.host)
    except (errors.Error, OSError) as error:
        path = inventories.path_of(layout, settings.host)
        problems.append(
            codes.Problem(
                codes.Code.RECALL,
                f'{path}, which has the disks that were found before, cannot '
                f'be used: {error}; a pass writes it anew',
                path,
            )
        )
    try:
        marks = ignored_files.load(layout, settings.host)
    except (errors.Error, OSError) as error:
        path = ignored_files.path_of(layout, settings.host)
        problems.append(
            codes.Problem(
                codes.Code.RECALL,
                f'which files are to be ignored is not known: {error}; move '
                f'{path} away, and say "nova-imagecache ignore" again',
                path,
            )
        )
    return memories.Memory(inventory, marks, settings.ignore_paths), problems


def _measure(
    layout: layouts.Layout, settings: Settings
) -> tuple[pressure.Space | None, list[codes.Problem]]:
    """Say how full the disk is, where that matters."""
    if not settings.high_watermark:
        return None, []
    try:
        found = os.statvfs(layout.base)
    except FileNotFoundError:
        return None, []
    except OSError as error:
        return None, [
            codes.Problem(
                codes.Code.UNMEASURED,
                f'how full the disk of {layout.base} is cannot be told: '
                f'{error.strerror}',
                layout.base,
            )
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
    unread = [
        file
        for file in files
        if file.name not in entries and (file.trashed or file.name in noted)
    ]
    newer = pools.each(lambda file: ledgers.is_newer(file.ledger), unread)
    return frozenset(
        (
            *(name for name, entry in entries.items() if entry.known.newer),
            *(
                file.name
                for file, is_newer in zip(unread, newer, strict=True)
                if is_newer
            ),
        )
    )


def _stalled_scrub(
    layout: layouts.Layout, now: clocks.Instant
) -> list[codes.Problem]:
    # In this order: who takes the turn says so at once.
    taken = coordination.coordinator(layout).taken()
    stalled = activities.stalled(activities.load(layout), taken, now)
    return (
        [] if stalled is None else [codes.Problem(codes.Code.STALLED, stalled)]
    )


def _unkept(
    layout: layouts.Layout, host: str, state: states.State
) -> list[codes.Problem]:
    """Say that nothing can be kept, where that is news.

    Some have all hosts but one mount the cache read-only, and that is fine:
    such a host has never noted anything.
    """
    unwritable = directories.unwritable(layout)
    if unwritable is None:
        return []
    last = activities.load(layout)
    ours = host in state.last_passes or (last and last.host == host)
    if unwritable.read_only and not ours:
        return []
    return [codes.Problem(codes.Code.UNWRITABLE, str(unwritable))]


def _not_mounted(layout: layouts.Layout) -> list[vetoing.Veto]:
    """Tell an empty mount point by its being empty."""
    try:
        with os.scandir(layout.instances) as entries:
            if next(entries, None) is not None:
                return []
    except OSError:
        # The overlays say so.
        return []
    return [
        vetoing.Veto(
            vetoing.Reason.MISSING_MOUNT,
            layout.instances,
            'it is empty, as where its file system is not mounted (on a new '
            'host, make its directory _base)',
        )
    ]


def _no_cache(
    layout: layouts.Layout, testimony: testimonies.Testimony
) -> list[vetoing.Veto]:
    """Tell a cache that is not mounted by its being empty, and needed."""
    try:
        if not testimony.missing or os.listdir(layout.base):
            return []
    except OSError:
        return []
    return [
        vetoing.Veto(
            vetoing.Reason.MISSING_MOUNT,
            layout.base,
            'it is empty, and guests need files in it, as where its file '
            'system is not mounted',
        )
    ]


def _missing(
    layout: layouts.Layout, testimony: testimonies.Testimony
) -> Iterator[codes.Problem]:
    """Say which base files are nowhere that guests of this host need."""
    for name, guests in sorted(testimony.missing.items()):
        # Those of other hosts are theirs, where it is told which they are.
        ours = {
            guest
            for guest in guests
            if testimony.expected is None or guest in testimony.expected
        }
        if ours:
            shown = sorted(map(names.printable, ours))
            more = len(shown) - _SHOWN
            yield codes.Problem(
                codes.Code.MISSING_BASE,
                f'base file {names.printable(name)} is missing, and these '
                f'guests need it: {", ".join(shown[:_SHOWN])}'
                + (f' and {more} more' if more > 0 else '')
                + '; they cannot start before it is fetched or restored to '
                f'{layout.base}',
                name,
                tuple(shown),
            )


def look(
    settings: Settings,
    scan: scans.Scan,
    witnesses: Sequence[testimonies.Witness],
    last: Sequence[testimonies.Witness],
    now: clocks.Instant,
    recalled: states.State,
    obstacles: Sequence[vetoing.Veto],
    with_content: bool,
) -> observed.Facts:
    """See what is there, without changing anything.

    :param scan: what is in the cache
    :param last: witnesses that are asked after the others
    :param recalled: what earlier passes have left
    :param obstacles: what is known to speak against removing anything
    :param with_content: whether to read what is known of the content of base
        files
    """
    layout = layouts.Layout.of(settings)
    problems: list[codes.Problem] = []
    trashed = trash.scan(layout)
    unkept = _unkept(layout, settings.host, recalled) if with_content else []
    state, jump = recalled.entered(settings.host, now, clocks.machine_id())
    twins = state.twins(settings.host, now)
    pinned, unread = _recall_pins(layout)
    unread += _not_mounted(layout)
    space, unmeasured = _measure(layout, settings)
    intruder = directories.intruder(layout)
    if intruder is not None:
        obstacles = [_unusable(layout.base, intruder), *obstacles]
    bases = [file for file in scan.files if with_content and file.is_base]
    known = pools.each(lambda file: recalling.entry_of(file, state), bases)
    entries = {entry.name: entry for entry in known}
    for entry in entries.values():
        problems += entry.known.problems
    wanted = {file.original for file in (*scan.files, *trashed.files)}
    heard = testimonies.hear(witnesses, sorted(wanted))
    testimony = testimonies.combine(
        testimonies.hear(last, sorted(wanted), heard)
    )
    unread += _no_cache(layout, testimony)
    problems += _missing(layout, testimony)
    return observed.Facts(
        now=now,
        files=scan.files,
        trash=trashed.files,
        testimony=testimony,
        others=tuple(heard),
        state=state,
        entries=entries,
        pins=pinned,
        last_copies=accounts.last_copies(layout),
        space=space,
        vetoes=(*obstacles, *unread),
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
            *(
                ()
                if twins is None
                else (codes.Problem(codes.Code.TWINS, twins),)
            ),
        ),
    )


def look_closely(
    layout: layouts.Layout,
    facts: observed.Facts,
    last: Sequence[testimonies.Witness],
) -> observed.Facts:
    """Have others in the place of the last witnesses, who only glanced.

    :param last: who look at everything
    """
    wanted = {file.original for file in (*facts.files, *facts.trash)}
    testimony = testimonies.combine(
        testimonies.hear(last, sorted(wanted), facts.others)
    )
    before = {*_missing(layout, facts.testimony)}
    return dataclasses.replace(
        facts,
        testimony=testimony,
        vetoes=(
            *facts.vetoes,
            *(
                veto
                for veto in _no_cache(layout, testimony)
                if veto not in facts.vetoes
            ),
        ),
        problems=(
            *(each for each in facts.problems if each not in before),
            *_missing(layout, testimony),
        ),
    )
