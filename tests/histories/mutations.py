# SPDX-License-Identifier: Apache-2.0

"""What is taken out of the product, to see whether histories find it.

Each with the steps by which it is found soon, or all.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import re
import types
from typing import Any

import msgspec

from nova_imagecache.cache import hosts
from nova_imagecache.cache import identity
from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import inventories
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.passes import observed
from nova_imagecache.witnesses import absences
from nova_imagecache.witnesses import chain_ends
from nova_imagecache.witnesses import findings
from nova_imagecache.witnesses import ignored
from nova_imagecache.witnesses import other_hosts
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing
from nova_imagecache.witnesses import walks
from tests.histories import steps

_ALWAYS = ('stop', 'run_pass', 'run_pass', 'run_pass', 'age', 'time')

#: An attribute of something, and what it is to be.
Patch = tuple[Any, str, Any]


@dataclasses.dataclass(frozen=True)
class Mutation:
    """What is taken out.

    :ivar steps: by which that is found, beside passes and time; all, if empty
    """

    patches: tuple[Patch, ...]
    steps: tuple[str, ...] = ()

    @property
    def chosen(self) -> tuple[str, ...]:
        """Give the steps to take."""
        if not self.steps:
            return steps.STEPS
        return (*_ALWAYS, *self.steps * 2)


def _without(*patches: Patch, steps: str = '') -> Mutation:
    return Mutation(patches, tuple(steps.split()))


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _none_of_them(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return ()


def _sees_nothing(*args: Any) -> testimonies.Testimony:
    return testimonies.Testimony()


_real_check = removal._check
_real_remember: Any = hosts.remember
_real_certain_age = states.State.certain_age
_real_uses = sightings.uses


def _check_loosely(whose: bool) -> Any:
    """Make a last look at a file that overlooks that it was touched.

    :param whose: whether it sees at least that it is another file
    """

    def check(base_fd: int, file: Any) -> None:
        found = identity.stat_of(file.name, base_fd)
        judged = file.stat._replace(modified=found.modified)
        if not whose:
            judged = judged._replace(incarnation=found.incarnation)
        _real_check(base_fd, msgspec.structs.replace(file, stat=judged))

    return check


def _remember_as(**changes: bool) -> Any:
    """Have all passes take themselves for ones that saw everything, or not."""

    def remember(*args: Any, **kwargs: Any) -> None:
        _real_remember(*args, **{**kwargs, **changes})

    return remember


def _anew(
    state: states.State, host: str, since: float, now: clocks.Instant
) -> float:
    """Let all files be as young as the last step of the clock."""
    steps = [now.wall - step.wall for step in state.steps.get(host, ())]
    return min([_real_certain_age(state, host, since, now), *steps])


def _seen_long_ago(old: Any, instant: clocks.Instant) -> clocks.Instant:
    return clocks.Instant(0.0, 0.0, 'long ago')


def _uses(modified: bool) -> Any:
    """Know of uses by mtime alone, or by memory alone."""

    def uses(*args: Any) -> tuple[float, float]:
        touched, remembered = _real_uses(*args)
        return (touched, 0.0) if modified else (0.0, remembered)

    return uses


def _loose_ends(ends: Any, disk: Any) -> Iterator[chain_ends.End]:
    return iter(())


_NO_PINS = types.SimpleNamespace(load=lambda layout: frozenset())

_BLIND = (overlays.OverlayWitness, 'look', _sees_nothing)
_BLIND_AGAIN = (overlays.OverlayWitness, 'look_again', _sees_nothing)
_OTHERS = other_hosts.OtherHostsWitness

#: By what is missing then.
MUTATIONS = {
    'overlays': _without(_BLIND, _BLIND_AGAIN),
    'overlays at the last moment': _without(_BLIND_AGAIN),
    'image locks at the last moment': _without(
        (qemu_locks, 'fence', lambda *args: contextlib.nullcontext()),
        steps='cache meanwhile',
    ),
    'touches at the last moment': _without(
        (removal, '_check', _check_loosely(whose=True)),
        steps='cache meanwhile',
    ),
    'touches and identity at the last moment': _without(
        (removal, '_check', _check_loosely(whose=False))
    ),
    'noted uses at the last moment': _without(
        (states, 'used_since', lambda *args: frozenset()),
        steps='cache meanwhile',
    ),
    'pins at the last moment': _without(
        (act, 'pins', _NO_PINS), steps='cache meanwhile'
    ),
    'the floor': _without((decide, 'FLOOR_SECONDS', 0)),
    'obstacles': _without((observed.Facts, 'obstacles', ())),
    'putting back': _without(
        (act.Actor, '_put_back', lambda one, decision, restored: decision),
        steps='spawn vanish appear',
    ),
    # Chains, and disks that are elsewhere.
    'the ends of chains': _without(
        (chain_ends.Ends, 'of', _loose_ends), steps='spawn layer'
    ),
    'the disks that libvirt names': _without(
        (findings.Findings, 'look_at', _nothing), steps='spawn export'
    ),
    'what cannot be looked at': _without(
        (walks.Walk, 'fail', _nothing), steps='spawn drop lock_up'
    ),
    # What is not there.
    'all that is missing': _without(
        (absences, 'find', _none_of_them), steps='cache unmount'
    ),
    'mounts that are missing': _without(
        (absences, '_missing_mounts', _none_of_them),
        steps='cache unmount',
    ),
    'what disks needed before': _without(
        (inventories, 'load', lambda *args: inventories.Inventory()),
        steps='spawn lock_up delete time run_pass',
    ),
    # Narrow vetoes.
    'vetoes that keep a part': _without(
        (vetoing.Veto, 'keeps_file', lambda veto, base_file: True),
        steps='spawn lock_up cache',
    ),
    'what narrow vetoes keep': _without(
        (
            vetoing.Veto,
            'keeps_file',
            lambda veto, base_file: veto.keeps is None,
        ),
        steps='spawn lock_up cache stop',
    ),
    # Other hosts.
    'what other hosts have noted': _without(
        (_OTHERS, 'look', _sees_nothing),
        (_OTHERS, 'look_again', _sees_nothing),
        steps='spawn leave come_back',
    ),
    'passes that are not complete': _without(
        (hosts, 'remember', _remember_as(complete=True, blind=False)),
        steps='spawn stop blind',
    ),
    'passes that are complete': _without(
        (hosts, 'remember', _remember_as(complete=False)),
        steps='spawn delete',
    ),
    # What is none of a guest's.
    'directories of snapshots': _without(
        (ignored, '_DIRECTORIES', re.compile('(?!)')), steps='cache snapshot'
    ),
    'files that are ignored': _without(
        (ignored_files, 'holds', lambda *args: False),
        steps='cache drop clear',
    ),
    'caches of other hosts': _without(
        (chain_ends, 'is_sibling', lambda layout, directory: False),
        steps='cache sibling',
    ),
    # Ages.
    # Where there is a time of birth, that is enough.
    'the time of the first sight': _without(
        (sightings, '_seen_since', _seen_long_ago),
        (sightings, 'birth', lambda file, now: 0.0),
        steps='seed restore',
    ),
    'the time of birth': _without(
        (sightings, 'birth', lambda file, now: 0.0),
        steps='cache seed set_clock run_pass',
    ),
    'what is remembered of uses': _without(
        (sightings, 'uses', _uses(modified=True)), steps='spawn delete'
    ),
    'the time of the last touch': _without(
        (sightings, 'uses', _uses(modified=False)), steps='touch'
    ),
    'steps of clocks': _without(
        (clocks, 'jump', lambda *args: 0.0), steps='cache touch jump'
    ),
    'ages from before a step': _without(
        (states.State, 'certain_age', _anew), steps='cache jump'
    ),
    'the clock of the storage': _without(
        (clocks, 'skew', lambda *args: 0.0),
        steps='cache touch set_clock',
    ),
}  # fmt: skip
