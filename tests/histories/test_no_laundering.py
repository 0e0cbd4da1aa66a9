# SPDX-License-Identifier: Apache-2.0

"""No history makes damage what a base file should hold, nor accuses one."""

import collections
import dataclasses
import errno
import logging
import os
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import identity
from nova_imagecache.cache import sightings
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from nova_imagecache.scrub import readers
from tests.histories import contents
from tests.histories import media
from tests.histories import worlds
from tests.support import base

# In parts, which may run side by side.
_PARTS = 2
# Of the first part; README.rst says how to replay a seed.
_SEED = int(os.environ.get('NOVA_IMAGECACHE_TEST_SEED', 0))
# In each part. Fewer where each takes longer, as with coverage.
_HISTORIES = int(os.environ.get('NOVA_IMAGECACHE_TEST_HISTORIES', 300))

# Far more than it takes to find what is missing.
_ENOUGH = 1000


def _step(number: int) -> tuple[str, int]:
    number, index = divmod(number, len(contents.STEPS))
    return contents.STEPS[index], number


_HISTORY = st.lists(st.integers(0, 2**24).map(_step), min_size=10, max_size=30)

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


@ddt.ddt
class NoLaunderingTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.laboratory = self.useFixture(media.Laboratory())
        # Thousands of scrubs log megabytes.
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.counts: collections.Counter[str] = collections.Counter()

    def live(self, seed: int, count: int, shrink: bool = True) -> None:
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
            with self.laboratory.make() as world:
                self.counts['histories'] += 1
                history = contents.History(world, self.counts)
                for step, number in chosen:
                    history.take(step, number)

        hypothesis.seed(seed)(live)()

    @ddt.data(*range(_PARTS))
    def test_whatever_happens_no_damage_is_laundered(self, part: int) -> None:
        seed = _SEED + part
        try:
            self.live(seed, _HISTORIES)
        except worlds.Violation as error:
            error.add_note(
                'Replay it, as part 0, with NOVA_IMAGECACHE_TEST_SEED='
                f'{seed} NOVA_IMAGECACHE_TEST_HISTORIES={_HISTORIES}'
            )
            raise
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
            worlds.Violation, self.live, 0, _ENOUGH, shrink=False
        )
