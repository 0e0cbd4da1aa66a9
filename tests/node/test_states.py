# SPDX-License-Identifier: Apache-2.0

import os
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import records
from nova_imagecache.cache import scans
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
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
        self.node.add_base(SHA, age=base.DAY)

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

    def test_these_fields_are_none(self) -> None:
        self.save({'clocks': {'h': NOW}, 'files': {'f': SIGHTING}})
        self.assertEqual({'f'}, states.load(self.node.layout).files.keys())

    def save(self, body: dict[str, Any]) -> None:
        if body:
            body = {'relieved': None} | body
        records.Format('state', 3, dict).save(
            self.node.layout, self.node.layout.state, body
        )
