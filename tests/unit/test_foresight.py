# SPDX-License-Identifier: Apache-2.0

"""When a pass is likely to remove files, before it has looked."""

from typing import Any

from nova_imagecache.cache import machines
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.passes import foresight
from tests.support import base

NAME = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'
TRASHED = f'{NAME}.00000000'
LAST, NOW = 1_000_000.0, 1_002_400.0
# Old enough half way between both passes.
BETWEEN = 1_001_200.0


def at(wall: float) -> clocks.Instant:
    return clocks.Instant(wall, wall, 'a boot')


class ForesightTest(base.TestCase):
    def removes(
        self,
        used: float,
        seen: float = 0,
        name: str = NAME,
        trashed: float | None = None,
        users: frozenset[str] = frozenset(),
        passed: bool = True,
        **changes: Any,
    ) -> bool:
        sighting = sightings.Sighting(
            key=(1, 2, None),
            last_used=used,
            modified=0,
            seen=at(seen),
            image=None,
            digested=False,
            suspect=False,
            rebaselined=None,
            damage=None,
            trashed=None if trashed is None else at(trashed),
            ahead=False,
        )
        settings = Settings(
            instances_path='/i',
            host='us',
            **({'original_minimum_age': 3600, 'retention': 7200} | changes),
        )
        boots = {'us': (machines.Boot(at(LAST), None, None),)}
        state = states.State(
            boots=boots if passed else {},
            files={name: sighting},
            used={'another': users},
        )
        return foresight.removes(state, at(NOW), settings)

    def test_what_became_old_enough_since_the_last_pass_is_foreseen(
        self,
    ) -> None:
        self.assertTrue(self.removes(used=BETWEEN - 3600))
        self.assertTrue(self.removes(used=0, seen=BETWEEN - 3600))

    def test_what_was_old_enough_before_was_kept_for_a_reason(self) -> None:
        self.assertFalse(self.removes(used=LAST - 3600))

    def test_what_is_not_old_enough_yet_stays(self) -> None:
        self.assertFalse(self.removes(used=NOW - 3599))
        self.assertFalse(self.removes(used=0, seen=NOW - 3599))

    def test_what_somebody_used_in_the_last_pass_is_not_expected_to_go(
        self,
    ) -> None:
        self.assertFalse(
            self.removes(used=BETWEEN - 3600, users=frozenset({NAME}))
        )

    def test_what_is_in_the_trash_goes_when_it_was_there_for_long(
        self,
    ) -> None:
        for since, expected in ((BETWEEN - 7200, True), (LAST - 7200, False)):
            self.assertIs(
                expected, self.removes(used=0, name=TRASHED, trashed=since)
            )

    def test_where_nothing_is_removed_nothing_is_foreseen(self) -> None:
        self.assertFalse(
            self.removes(used=BETWEEN - 3600, remove_unused=False)
        )

    def test_nor_in_the_first_pass_of_a_host(self) -> None:
        self.assertFalse(self.removes(used=BETWEEN - 3600, passed=False))
