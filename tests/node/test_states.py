# SPDX-License-Identifier: Apache-2.0

from collections.abc import Collection
import os
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import records
from nova_imagecache.cache import scans
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache import clocks
from nova_imagecache import errors
from tests.support import base
from tests.support import nodes

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


NOW = {'wall': 1.0, 'boottime': 1.0, 'boot_id': 'boot'}
SIGHTING: dict[str, Any] = {
    'key': [1, 2, None],
    'last_used': None,
    'modified': 5,
    'seen': NOW,
    'image': None,
    'digested': False,
    'suspect': False,
    'rebaselined': None,
    'damage': None,
    'trashed': None,
    'ahead': False,
}


@ddt.ddt
class StateTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        path = self.node.add_base(SHA)
        used = self.node.clock.wall - base.DAY
        os.utime(path, (used, used))

    def file(self) -> base_file.BaseFile:
        (file,) = scans.scan(self.node.layout).files
        return file

    def remember(self, used: bool = False, host: str = 'here') -> None:
        states.remember(
            self.node.layout,
            host,
            self.node.clock(),
            [self.file()],
            {SHA} if used else set(),
            {},
            {},
            states.State(),
        )

    def remember_nothing(self, now: clocks.Instant) -> None:
        states.remember(
            self.node.layout, 'here', now, [], set(), {}, {}, states.State()
        )

    def last_use_ago(self) -> float:
        state = states.load(self.node.layout)
        now = self.node.clock.wall
        file = self.file()
        return now - sightings.last_use(file, state.sighting(file), now)

    def test_a_first_pass_remembers_nothing(self) -> None:
        self.assertEqual(states.State(), states.load(self.node.layout))

    def test_a_use_is_remembered_where_mtime_cannot_move(self) -> None:
        self.remember(used=True)
        self.node.clock.advance(base.HOUR)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(2 * base.HOUR, self.last_use_ago(), places=3)

    def test_each_host_has_its_own_clock(self) -> None:
        self.remember(host='here')
        there = self.node.clock()
        self.node.clock.advance(base.HOUR)
        self.remember(host='there')
        state = states.load(self.node.layout)
        self.assertEqual({'here', 'there'}, state.last_passes.keys())
        self.assertEqual(there, state.last_passes['here'])

    def test_a_use_before_the_clock_was_set_back_ages_from_now_on(
        self,
    ) -> None:
        self.node.clock.jump(365 * base.DAY)
        self.remember(used=True)
        self.node.clock.jump(-365 * base.DAY)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(base.HOUR, self.last_use_ago(), places=3)

    def test_a_touch_in_the_future_ages_from_when_it_was_seen(self) -> None:
        self.node.set_age(SHA, -365 * base.DAY)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(2 * base.HOUR, self.last_use_ago(), places=3)

    def test_another_touch_in_the_future_is_another_use(self) -> None:
        self.node.set_age(SHA, -365 * base.DAY)
        self.remember()
        self.node.clock.advance(base.HOUR)
        self.node.set_age(SHA, -365 * base.DAY)
        self.assertEqual(0, self.last_use_ago())

    def test_what_one_pass_cannot_look_at_is_not_forgotten(self) -> None:
        self.remember(used=True)
        now = self.node.clock()
        self.remember_nothing(now)
        self.node.clock.advance(base.HOUR)
        self.assertAlmostEqual(base.HOUR, self.last_use_ago(), places=3)
        os.unlink(self.node.base_path(SHA))
        now = self.node.clock()
        self.remember_nothing(now)
        self.assertEqual({}, states.load(self.node.layout).files)

    def remember_vetoes(
        self, *vetoes: str, removed: Collection[str] = ()
    ) -> None:
        states.remember(
            self.node.layout,
            'here',
            self.node.clock(),
            [],
            set(),
            {},
            {},
            states.State(),
            vetoes=vetoes,
            removed=removed,
        )

    def test_since_when_nothing_may_go_is_remembered(self) -> None:
        since = self.node.clock()
        self.remember_vetoes('a disk')
        self.node.clock.advance(base.HOUR)
        self.remember_vetoes('b', 'c', 'd', 'e', 'f', 'g')
        vetoed = states.load(self.node.layout).vetoed
        self.assertEqual(
            {'here': states.Vetoed(since, ('b', 'c', 'd', 'e', 'f'))}, vetoed
        )
        self.remember(host='there')
        self.assertEqual(vetoed, states.load(self.node.layout).vetoed)
        self.remember_vetoes()
        self.assertEqual({}, states.load(self.node.layout).vetoed)
        self.remember_vetoes('a disk')
        (vetoed_now,) = states.load(self.node.layout).vetoed.values()
        self.assertEqual(self.node.clock(), vetoed_now.since)

    def test_when_anything_was_removed_last_is_remembered(self) -> None:
        self.remember()
        self.assertIsNone(states.load(self.node.layout).last_removal)
        then = self.node.clock()
        self.remember_vetoes(removed=[SHA])
        self.node.clock.advance(base.HOUR)
        self.remember()
        self.assertEqual(then, states.load(self.node.layout).last_removal)

    def test_what_is_in_the_trash_by_now_is_not_looked_for(self) -> None:
        self.remember()
        before = states.load(self.node.layout)
        with trash.opened(self.node.layout, make=True) as (base_fd, fd):
            trash.Mover(base_fd, fd, 5).move(self.file())
        self.patch(identity, 'gone', self.fail)
        self.remember_removal(before)
        (name,) = states.load(self.node.layout).files
        self.assertEqual(f'{SHA}.00000005', name)

    def test_what_is_back_by_another_hand_stays_known(self) -> None:
        self.remember()
        before = states.load(self.node.layout)
        self.remember_removal(before)
        self.assertEqual(before.files, states.load(self.node.layout).files)

    def test_of_its_name_what_another_host_has_noted_since_is_kept(
        self,
    ) -> None:
        self.remember()
        before = states.load(self.node.layout)
        os.unlink(self.node.base_path(SHA))
        self.node.add_base(SHA, data=b'fetched anew')
        self.node.clock.advance(base.HOUR)
        self.remember(host='there')
        noted = states.load(self.node.layout).files
        self.remember_removal(before)
        self.assertEqual(noted, states.load(self.node.layout).files)

    def remember_removal(self, before: states.State) -> None:
        """Remember that the file of a state was removed."""
        states.remember(
            self.node.layout,
            'here',
            self.node.clock(),
            trash.scan(self.node.layout).files,
            set(),
            {},
            {},
            before,
            removed=[SHA],
        )

    def test_a_use_noted_since_is_seen(self) -> None:
        self.remember()
        state = states.load(self.node.layout)

        def used_since() -> frozenset[str]:
            return states.used_since(self.node.layout, [self.file()], state)

        self.assertEqual(set(), used_since())
        self.node.clock.advance(1)
        states.note_use(self.node.layout, SHA, self.node.clock())
        self.assertEqual({SHA}, used_since())

    @ddt.data(
        {},
        {'clocks': {}, 'files': 3},
        {'clocks': 1, 'files': {}},
        {'clocks': {'h': NOW | {'wall': 'a'}}, 'files': {}},
        {'clocks': {'h': {'wall': 1}}, 'files': {}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'key': [1, 2, 'x']}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'last_used': 'x'}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'modified': None}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'seen': 5}}},
        {'clocks': {}, 'files': {'f': SIGHTING | {'trashed': 5}}},
        {'clocks': {}, 'files': {}, 'relieved': 5},
    )
    def test_other_fields_are_damage(self, body: dict[str, Any]) -> None:
        self.save(body)
        self.assertRaises(errors.Damaged, states.load, self.node.layout)

    @ddt.data(
        {'boots': {'h': NOW}},
        {'boots': {'h': [{'passed': NOW, 'machine': 5, 'twin': None}]}},
        {'steps': {'h': [{'wall': 1.0, 'seconds': 'x', 'boot_id': 'b'}]}},
        {'steps': []},
        {'vetoed': {'h': {'since': 5, 'reasons': []}}},
        {'vetoed': {'h': {'since': NOW, 'reasons': 'x'}}},
        {'last_removal': 5},
    )
    def test_nor_are_those_of_this_version(self, body: dict[str, Any]) -> None:
        sound: dict[str, Any] = {
            'files': {}, 'boots': {}, 'steps': {}, 'vetoed': {},
            'last_removal': None,
        }  # fmt: skip
        self.save(sound, 5)
        self.assertEqual({}, states.load(self.node.layout).boots)
        self.save(sound | body, 5)
        self.assertRaises(errors.Damaged, states.load, self.node.layout)

    def test_these_fields_are_none(self) -> None:
        self.save({'clocks': {'h': NOW}, 'files': {'f': SIGHTING}})
        self.assertEqual({'f'}, states.load(self.node.layout).files.keys())

    def save(self, body: dict[str, Any], version: int = 3) -> None:
        if body:
            body = {'relieved': None} | body
        records.Format('state', version, dict).save(
            self.node.layout, self.node.layout.state, body
        )
