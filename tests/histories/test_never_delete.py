# SPDX-License-Identifier: Apache-2.0

"""No history ends with a guest whose base file is gone."""

from collections.abc import Iterator
import contextlib
import dataclasses
import types
from typing import Any

import ddt

from nova_imagecache.cache import identity
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimonies
from tests.histories import living
from tests.histories import passes
from tests.histories import steps
from tests.histories import worlds

# In parts, which may run side by side.
_PARTS = 4
# In each part.
_HISTORIES = living.count_of(500)

# Far more than it takes to find what is missing.
_ENOUGH = 1000

_WITNESSES = passes.WITNESSES


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
    'the clock': [(clocks, 'jump', lambda *args: 0.0)],
    'putting back': [
        (act.Actor, '_put_back', lambda one, decision, restored: decision)
    ],
}


@ddt.ddt
class NeverDeleteTest(living.HistoriesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.workshop = self.useFixture(worlds.Workshop())

    def live(
        self,
        seed: int,
        count: int,
        asked: frozenset[str] = _WITNESSES,
        shrink: bool = True,
    ) -> None:
        """Go through random histories until something is wrong in one."""

        @contextlib.contextmanager
        def begin() -> Iterator[living.History]:
            with self.workshop.make() as world:
                yield steps.History(world, self.counts, asked)

        self.go_through(begin, steps.STEPS, 20, seed, count, shrink)

    @ddt.data(*range(_PARTS))
    def test_whatever_happens_guests_keep_their_base_files(
        self, part: int
    ) -> None:
        self.assert_right(self.live, part, _HISTORIES)
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
