# SPDX-License-Identifier: Apache-2.0

"""No history makes damage what a base file should hold, nor accuses one."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import errno
from typing import Any

import ddt

from nova_imagecache.cache import identity
from nova_imagecache.cache import sightings
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import readers
from tests.histories import contents
from tests.histories import living
from tests.histories import media
from tests.histories import worlds

# In parts, which may run side by side.
_PARTS = 2
# In each part.
_HISTORIES = living.count_of(300)

# Far more than it takes to find what is missing.
_ENOUGH = 1000

Likeness = identity.Likeness
_real_compare = identity.compare
_real_asked_of = ledgers.Ledger.asked_of
_real_begin_anew = conclusions._begin_anew
_real_settle = conclusions._settle


def _asked_of_none(ledger: ledgers.Ledger, key: identity.Key) -> Any:
    asked = _real_asked_of(ledger, key)
    return ledger if asked is ledger else None


def _answer_for(unsure: Likeness) -> Any:
    """Make a comparison of keys that is never unsure."""

    def compare(one: identity.Key, other: identity.Key) -> Likeness:
        found = _real_compare(one, other)
        return unsure if found is Likeness.UNSURE else found

    return compare


def _begin_unmarked(*args: Any) -> Any:
    begun = _real_begin_anew(*args)
    ledger = dataclasses.replace(begun.ledger, rebaselined=None)
    return dataclasses.replace(begun, ledger=ledger)


def _settle_unmarked(ledger: ledgers.Ledger, reading: Any) -> ledgers.Ledger:
    settled = _real_settle(ledger, reading)
    return dataclasses.replace(settled, suspect=ledger.suspect)


#: What is taken out, and with what.
_MUTATIONS: dict[str, list[tuple[Any, str, Any]]] = {
    'digests of blocks': [
        (comparisons.Comparison, '_matches', lambda *args: True)
    ],
    'digests of an earlier file': [
        (ledgers.Ledger, 'asked_of', _asked_of_none)
    ],
    'stored checksums': [(sidecars, 'load', lambda path: None)],
    'what the state remembers': [
        (knowledge.Knowledge, 'remembering', lambda known, sighting: known)
    ],
    'notes for the state': [(sightings, 'remembers', lambda *args: True)],
    'the question whose digests these are': [
        (identity, 'compare', lambda *args: Likeness.SAME)
    ],
    'doubt about another file': [
        (identity, 'compare', _answer_for(Likeness.ANOTHER))
    ],
    'the mark of a new baseline': [
        (conclusions, '_begin_anew', _begin_unmarked)
    ],
    'the mark of a suspect': [(conclusions, '_settle', _settle_unmarked)],
    'errors that are no fault of the file': [
        (readers, 'MEDIUM_ERRORS', frozenset(errno.errorcode))
    ],
}

#: The steps by which it is found soon, where all of them take long.
_SOON = {'the mark of a suspect': ('stopped', 'flip', 'verify', 'scrub')}


@ddt.ddt
class NoLaunderingTest(living.HistoriesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.laboratory = self.useFixture(media.Laboratory())

    def live(
        self,
        seed: int,
        count: int,
        shrink: bool = True,
        chosen: Sequence[str] = contents.STEPS,
    ) -> None:
        """Go through random histories until something is wrong in one."""

        @contextlib.contextmanager
        def begin() -> Iterator[living.History]:
            with self.laboratory.make() as world:
                yield contents.History(world, self.counts)

        self.go_through(begin, chosen, 10, seed, count, shrink)

    @ddt.data(*range(_PARTS))
    def test_whatever_happens_no_damage_is_laundered(self, part: int) -> None:
        self.assert_right(self.live, part, _HISTORIES)
        # Not because nothing ever happens. That a file differs is rare, and
        # what takes the difference out is found.
        rare = {knowledge.Verdict.OFF, knowledge.Verdict.DIFFERS}
        for what in ('crashes', 'suspect', 'rebaselined', *knowledge.Verdict):
            if what not in rare:
                self.assertGreater(self.counts[what], 0, what)

    @ddt.data(*_MUTATIONS)
    def test_it_is_found_out_when_there_is_nothing_of(
        self, taken: str
    ) -> None:
        for owner, name, value in _MUTATIONS[taken]:
            self.patch(owner, name, value)
        self.assertRaises(
            worlds.Violation,
            self.live,
            0,
            _ENOUGH,
            shrink=False,
            chosen=_SOON.get(taken, contents.STEPS),
        )
