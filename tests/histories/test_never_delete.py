# SPDX-License-Identifier: Apache-2.0

"""No history ends with a guest whose base file is gone."""

import collections
import contextlib
import dataclasses
import logging
import os
import types
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import identity
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimonies
from tests.histories import passes
from tests.histories import steps
from tests.histories import worlds
from tests.support import base

# In parts, which may run side by side.
_PARTS = 4
# Of the first part; README.rst says how to replay a seed.
_SEED = int(os.environ.get('NOVA_IMAGECACHE_TEST_SEED', 0))
# In each part. Fewer where each takes longer, as with coverage.
_HISTORIES = int(os.environ.get('NOVA_IMAGECACHE_TEST_HISTORIES', 500))

# Far more than it takes to find what is missing.
_ENOUGH = 1000

_WITNESSES = passes.WITNESSES


def _step(number: int) -> tuple[str, int]:
    number, index = divmod(number, len(steps.STEPS))
    return steps.STEPS[index], number


_HISTORY = st.lists(st.integers(0, 2**24).map(_step), min_size=20, max_size=30)


def _sees_nothing(*args: Any) -> testimonies.Testimony:
    return testimonies.Testimony()


_real_check = removal._check


def _check_loosely(whose: bool) -> Any:
    """Make a last look at a file that overlooks that it was touched.

    :param whose: whether it sees at least that it is another file
    """

    def check(base_fd: int, file: Any) -> None:
        found = identity.stat_of(file.name, base_fd)
        judged = dataclasses.replace(file.stat, modified=found.modified)
        if not whose:
            judged = dataclasses.replace(judged, incarnation=found.incarnation)
        _real_check(base_fd, dataclasses.replace(file, stat=judged))

    return check


_NO_PINS = types.SimpleNamespace(load=lambda layout: frozenset())

_BLIND = (overlays.OverlayWitness, 'look', _sees_nothing)
_BLIND_AGAIN = (overlays.OverlayWitness, 'look_again', _sees_nothing)

#: What is taken out, and with what.
_MUTATIONS: dict[str, list[tuple[Any, str, Any]]] = {
    'overlays': [_BLIND, _BLIND_AGAIN],
    'overlays at the last moment': [_BLIND_AGAIN],
    'image locks at the last moment': [
        (qemu_locks, 'fence', lambda *args: contextlib.nullcontext())
    ],
    'touches at the last moment': [
        (removal, '_check', _check_loosely(whose=True))
    ],
    'touches and identity at the last moment': [
        (removal, '_check', _check_loosely(whose=False))
    ],
    'noted uses at the last moment': [
        (states, 'used_since', lambda *args: frozenset())
    ],
    'pins at the last moment': [(act, 'pins', _NO_PINS)],
    'the floor': [(decide, 'FLOOR_SECONDS', 0)],
    'obstacles': [(decide.Facts, 'obstacles', ())],
    'the clock': [(clocks, 'jump', lambda *args: None)],
    'putting back': [
        (act.Actor, '_put_back', lambda one, decision, restored: decision)
    ],
}


@ddt.ddt
class NeverDeleteTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.workshop = self.useFixture(worlds.Workshop())
        # Thousands of passes log megabytes.
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.counts: collections.Counter[str] = collections.Counter()

    def live(
        self,
        seed: int,
        count: int,
        asked: frozenset[str] = _WITNESSES,
        shrink: bool = True,
    ) -> None:
        """Go through random histories until something is wrong in one."""
        phases = [hypothesis.Phase.generate]
        if shrink:
            phases.append(hypothesis.Phase.shrink)

        @hypothesis.settings(
            max_examples=count,
            phases=phases,
            suppress_health_check=list(hypothesis.HealthCheck),
            # One is enough to replay.
            report_multiple_bugs=False,
        )
        @hypothesis.given(_HISTORY)
        def live(chosen: list[tuple[str, int]]) -> None:
            hypothesis.note(f'{chosen}')
            with self.workshop.make() as world:
                self.counts['histories'] += 1
                history = steps.History(world, self.counts, asked)
                for step, number in chosen:
                    history.take(step, number)

        hypothesis.seed(seed)(live)()

    @ddt.data(*range(_PARTS))
    def test_whatever_happens_guests_keep_their_base_files(
        self, part: int
    ) -> None:
        seed = _SEED + part
        try:
            self.live(seed, _HISTORIES)
        except worlds.Violation as error:
            error.add_note(
                'Replay it, as part 0, with NOVA_IMAGECACHE_TEST_SEED='
                f'{seed} NOVA_IMAGECACHE_TEST_HISTORIES={_HISTORIES}'
            )
            raise
        # Not because nothing ever happens. That files are put back is rare,
        # and the mutation that takes it out is found.
        for what in ('removed', 'deleted', 'crashes', 'frozen'):
            self.assertGreater(self.counts[what], 0, what)

    def assert_found(self, asked: frozenset[str] = _WITNESSES) -> None:
        self.assertRaises(
            worlds.Violation, self.live, 0, _ENOUGH, asked, shrink=False
        )

    @ddt.data('instances', 'domains', 'locks')
    def test_it_is_found_out_without(self, witness: str) -> None:
        self.assert_found(_WITNESSES - {witness})

    @ddt.data(*_MUTATIONS)
    def test_it_is_found_out_when_there_is_nothing_of(
        self, taken: str
    ) -> None:
        for owner, name, value in _MUTATIONS[taken]:
            self.patch(owner, name, value)
        self.assert_found()
