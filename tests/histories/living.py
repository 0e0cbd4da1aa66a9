# SPDX-License-Identifier: Apache-2.0

"""What the tests of random histories share."""

import collections
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import logging
import os
import random
from typing import Any, Protocol

import hypothesis
from hypothesis import strategies as st

from tests.histories import worlds
from tests.support import base

# Of the first part; README.rst says how to replay a seed.
SEED = int(os.environ.get('NOVA_IMAGECACHE_TEST_SEED', 0))

#: Makes a history, for as long as it is needed.
Begin = Callable[[], contextlib.AbstractContextManager['History']]


class History(Protocol):
    """What happens, one thing after the other."""

    def take(self, step: str, number: int) -> None:
        """Have something happen, and look whether all is well."""
        ...


def count_of(histories: int) -> int:
    """Say how many to go through, which is fewer where each takes longer."""
    name = 'NOVA_IMAGECACHE_TEST_HISTORIES'
    return int(os.environ.get(name, histories))


class HistoriesTestCase(base.TestCase):
    """Goes through random histories.

    :ivar counts: how often what happened
    """

    def setUp(self) -> None:
        super().setUp()
        # Thousands of passes log megabytes.
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.counts: collections.Counter[str] = collections.Counter()

    def go_through(
        self,
        begin: Begin,
        steps: Sequence[str],
        least: int,
        seed: int,
        count: int,
        shrink: bool = True,
    ) -> None:
        """Go through random histories until something is wrong in one.

        :param steps: what may happen
        :param least: how many of these there are in each at least, of 30
        :param shrink: whether to look for a shorter history where something
            is wrong
        """

        def step(number: int) -> tuple[str, int]:
            number, index = divmod(number, len(steps))
            return steps[index], number

        def go(chosen: Sequence[tuple[str, int]]) -> None:
            with begin() as history:
                self.counts['histories'] += 1
                for name, number in chosen:
                    history.take(name, number)

        if not shrink:
            # Not hypothesis, whose choices change with all the modules that
            # happen to be there: what is found is found each time.
            dice = random.Random(seed)
            for _history in range(count):
                numbers = dice.choices(range(2**24), k=dice.randint(least, 30))
                go([*map(step, numbers)])
            return

        @hypothesis.settings(
            max_examples=count,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
            # One is enough to replay.
            report_multiple_bugs=False,
        )
        @hypothesis.given(
            st.lists(
                st.integers(0, 2**24).map(step), min_size=least, max_size=30
            )
        )
        def live(chosen: list[tuple[str, int]]) -> None:
            hypothesis.note(f'{chosen}')
            go(chosen)

        hypothesis.seed(seed)(live)()

    def assert_right(self, live: Any, part: int, count: int) -> None:
        """Go through one part of them, and say how to replay a failure."""
        seed = SEED + part
        try:
            live(seed, count)
        except worlds.Violation as error:
            error.add_note(
                'Replay it, as part 0, with NOVA_IMAGECACHE_TEST_SEED='
                f'{seed} NOVA_IMAGECACHE_TEST_HISTORIES={count}'
            )
            raise
