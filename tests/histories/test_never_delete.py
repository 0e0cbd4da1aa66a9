# SPDX-License-Identifier: Apache-2.0

"""No history ends with a guest whose base file is gone."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib

import ddt

from tests.histories import living
from tests.histories import mutations
from tests.histories import passes
from tests.histories import steps
from tests.histories import worlds

# In parts, which may run side by side.
_PARTS = 4
# In each part.
_HISTORIES = living.count_of(100)

# Far more than it takes to find what is missing.
_ENOUGH = 1000

_WITNESSES = passes.WITNESSES


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
        chosen: Sequence[str] = steps.STEPS,
    ) -> None:
        """Go through random histories until something is wrong in one."""

        @contextlib.contextmanager
        def begin() -> Iterator[living.History]:
            with self.workshop.make() as world:
                history = steps.History(world, self.counts, asked)
                yield history
                history.finish()

        self.go_through(begin, chosen, 20, seed, count, shrink)

    @ddt.data(*range(_PARTS))
    def test_whatever_happens_guests_keep_their_base_files(
        self, part: int
    ) -> None:
        self.assert_right(self.live, part, _HISTORIES)
        # Not because nothing ever happens. That files are put back is rare,
        # and the mutation that takes it out is found.
        for what in ('removed', 'deleted', 'crashes', 'frozen'):
            self.assertGreater(self.counts[what], 0, what)

    def assert_found(
        self,
        asked: frozenset[str] = _WITNESSES,
        chosen: Sequence[str] = steps.STEPS,
    ) -> None:
        self.assertRaises(
            worlds.Violation,
            self.live,
            0,
            _ENOUGH,
            asked,
            shrink=False,
            chosen=chosen,
        )

    @ddt.data('instances', 'domains', 'locks')
    def test_it_is_found_out_without(self, witness: str) -> None:
        self.assert_found(_WITNESSES - {witness})

    @ddt.data(*mutations.MUTATIONS)
    def test_it_is_found_out_when_there_is_nothing_of(
        self, taken: str
    ) -> None:
        mutation = mutations.MUTATIONS[taken]
        for owner, name, value in mutation.patches:
            self.patch(owner, name, value)
        self.assert_found(chosen=mutation.chosen)
