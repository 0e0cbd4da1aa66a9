# SPDX-License-Identifier: Apache-2.0

"""What a pass writes where nothing is news, and what it still remembers."""

import contextlib
import dataclasses
import os
import shutil
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import base_file
from nova_imagecache.cache import inventories
from nova_imagecache.cache import records
from nova_imagecache.cache import scans
from nova_imagecache.cache import sightings
from nova_imagecache.cache import state_records
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.witnesses import walks
from tests.support import base
from tests.support import nodes

ONE, TWO, THREE = NAMES = tuple(
    names.get_cache_fname(str(number)) for number in range(3)
)
BOTH = frozenset({ONE, TWO})


class QuietTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in NAMES:
            path = self.node.add_base(name)
            used = self.node.clock.wall - base.DAY
            os.utime(path, (used, used))

    @property
    def layout(self) -> Any:
        return self.node.layout

    def found(self) -> list[base_file.BaseFile]:
        return list(scans.scan(self.layout).files)

    def remember(
        self, used: frozenset[str] = BOTH, host: str = 'here', **more: Any
    ) -> None:
        self.node.clock.advance(base.HOUR)
        states.remember(
            self.layout, host, self.node.clock(), self.found(), used, {}, {},
            states.load(self.layout), **more,
        )  # fmt: skip

    def written(self) -> bytes:
        with open(self.layout.state, 'rb') as file:
            return file.read()

    def last_used(self, name: str) -> float | None:
        return states.load(self.layout).files[name].last_used


class QuietPassTest(QuietTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.remember()
        self.before = self.written()

    def test_the_large_record_stays_and_the_use_is_known(self) -> None:
        self.remember()
        self.assertEqual(self.before, self.written())
        now = self.node.clock.wall
        self.assertEqual(now, self.last_used(ONE))
        self.assertIsNone(self.last_used(THREE))

    def test_a_touch_is_not_written(self) -> None:
        os.utime(self.node.base_path(ONE), (self.node.clock.wall,) * 2)
        self.remember()
        self.assertEqual(self.before, self.written())

    def test_a_use_that_ends_is_written_with_its_time(self) -> None:
        self.remember()
        last = self.node.clock.wall
        self.remember(frozenset({TWO}))
        self.assertNotEqual(self.before, self.written())
        self.remember(frozenset({TWO}))
        self.assertEqual(last, self.last_used(ONE))
        self.assertEqual(self.node.clock.wall, self.last_used(TWO))

    def test_each_host_has_its_own_uses(self) -> None:
        self.remember(frozenset({THREE}), host='there')
        there, before = self.node.clock.wall, self.written()
        self.remember()
        self.assertEqual(before, self.written())
        self.assertEqual(there, self.last_used(THREE))
        self.assertEqual(self.node.clock.wall, self.last_used(ONE))

    def test_what_is_gone_is_written(self) -> None:
        os.unlink(self.node.base_path(THREE))
        self.remember()
        self.assertEqual(BOTH, states.load(self.layout).files.keys())

    def test_the_small_record_is_small(self) -> None:
        for _pass in range(3):
            self.remember()
        self.assertLess(os.path.getsize(self.layout.passes), 1024)

    def test_a_quiet_pass_of_another_host_is_noticed_before_a_removal(
        self,
    ) -> None:
        self.remember(frozenset({THREE}), host='there')
        state = states.load(self.layout)
        before = self.written()
        self.remember(frozenset({THREE}), host='there')
        self.assertEqual(before, self.written())
        self.assertEqual(
            {THREE}, states.used_since(self.layout, self.found(), state)
        )

    def test_a_use_that_is_noted_survives_a_quiet_pass(self) -> None:
        self.node.clock.advance(1)
        now = self.node.clock()
        states.note_use(self.layout, THREE, now)
        self.remember()
        self.assertEqual(now.wall, self.last_used(THREE))


_LOAD = records.Format.load


class LostPassesTest(QuietTestCase):
    """The small record is lost, so when files were used last is not known."""

    def setUp(self) -> None:
        super().setUp()
        self.remember()

    def assert_any_may_be_used(self) -> None:
        self.assertRaises(errors.Damaged, states.load, self.layout)
        self.node.clock.advance(base.HOUR)
        seen = self.node.clock.wall - 2 * base.HOUR
        states.remember(
            self.layout, 'here', self.node.clock(), self.found(), set(), {},
            {}, states.State(),
        )  # fmt: skip
        for name in NAMES:
            self.assertEqual(self.node.clock.wall, self.last_used(name))
        self.assertGreater(self.node.clock.wall, seen)

    def test_missing(self) -> None:
        os.unlink(self.layout.passes)
        self.assert_any_may_be_used()

    def test_damaged(self) -> None:
        with open(self.layout.passes, 'w') as file:
            file.write('x')
        self.assert_any_may_be_used()
        self.assertTrue(os.path.exists(self.layout.passes + '.damaged'))

    def test_of_a_cache_without_that_host(self) -> None:
        passes = state_records.PASSES.load(self.layout.passes)
        assert passes is not None
        state_records.save_passes(
            self.layout, dataclasses.replace(passes, boots={})
        )
        self.assert_any_may_be_used()

    def test_but_not_where_a_host_joins_between_both_are_read(self) -> None:
        real = state_records.PASSES.load
        passes = real(self.layout.passes)
        assert passes is not None
        old = dataclasses.replace(passes, boots={})
        found = iter([old])
        with mock.patch.object(
            records.Format,
            'load',
            autospec=True,
            side_effect=lambda which, path: (
                next(found, passes)
                if which is state_records.PASSES
                else _LOAD(which, path)
            ),
        ):
            states.load(self.layout)

    def test_a_pass_removes_nothing(self) -> None:
        os.unlink(self.layout.passes)
        self.node.configure(remove_unused=True)
        self.node.clock.advance(400 * base.DAY)
        report = self.node.run()
        self.assertIn('passes is missing', str(report.vetoes))
        self.assertEqual((), tuple(report.removed))
        self.assertEqual((), tuple(self.node.run().removed))

    def test_what_was_known_of_files_is_kept(self) -> None:
        seen = states.load(self.layout).files[ONE].seen
        os.unlink(self.layout.passes)
        self.assert_any_may_be_used()
        self.assertEqual(seen, states.load(self.layout).files[ONE].seen)

    def test_of_a_newer_release_it_stays(self) -> None:
        nodes_record = dataclasses.replace(state_records.PASSES, version=2)
        passes = state_records.PASSES.load(self.layout.passes)
        assert passes is not None
        nodes_record.save(self.layout, self.layout.passes, passes)
        self.assertRaises(errors.Newer, states.load, self.layout)
        self.assertRaises(errors.Newer, self.remember_anything)
        self.assertEqual(passes, nodes_record.load(self.layout.passes))

    def remember_anything(self) -> None:
        states.remember(
            self.layout, 'here', self.node.clock(), self.found(), set(), {},
            {}, states.State(),
        )  # fmt: skip


STEPS = st.lists(
    st.tuples(
        st.sampled_from(['here', 'there']),
        st.sets(st.sampled_from(NAMES)) | st.none(),
        st.sampled_from([1, 60, 3600, 3600, 3600, 90000, -60, -90000]),
        st.sampled_from(['', '', '', '', 'adrift', 'noted', 'crash', 'Crash']),
    ),
    min_size=1,
    max_size=12,
)


class AsBeforeTest(QuietTestCase):
    """What is known is what it was when each pass wrote all of it."""

    @hypothesis.settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(STEPS)
    def test_whatever_hosts_and_clocks_do(self, steps: Any) -> None:
        for path in (self.layout.state, self.layout.passes):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        now = clocks.Instant(1.8e9, 1e6, 'boot')
        # mtimes are in the past and stay there.
        for name in NAMES:
            os.utime(self.node.base_path(name), (1e9, 1e9))
        files = self.found()
        model: dict[str, sightings.Sighting] = {}
        used: set[str] = set()
        for host, changed, seconds, what in steps:
            used = used if changed is None else changed
            now = dataclasses.replace(
                now, wall=now.wall + seconds,
                boottime=now.boottime + abs(seconds),
            )  # fmt: skip
            before, model = model, self.expect(
                model, files, used, now, what
            )  # fmt: skip
            if what == 'noted':
                states.note_use(self.layout, ONE, now)
            else:
                self.do(host, files, used, now, what)
            state = states.load(self.layout)
            if what in ('crash', 'Crash'):
                for name, sighting in before.items():
                    least = min(
                        sighting.last_used or 0, model[name].last_used or 0
                    )
                    found = state.files[name].last_used or 0
                    self.assertGreaterEqual(found, least)
                model = dict(state.files)
            else:
                self.assertEqual(model, dict(state.files))

    def expect(
        self,
        model: dict[str, sightings.Sighting],
        files: list[base_file.BaseFile],
        used: set[str],
        now: clocks.Instant,
        what: str,
    ) -> dict[str, sightings.Sighting]:
        """Do what each pass did, and wrote."""
        model = dict(model)
        for file in files:
            old = model.get(file.name)
            if what == 'noted':
                if file.name == ONE:
                    model[ONE] = sightings.updated(file, old, now, used=True)
                continue
            new = sightings.updated(file, old, now, file.name in used)
            if what == 'adrift':
                new = sightings.with_times_of(old, new)
            model[file.name] = new
        return model

    def do(
        self,
        host: str,
        files: list[base_file.BaseFile],
        used: set[str],
        now: clocks.Instant,
        what: str,
    ) -> None:
        with contextlib.ExitStack() as stack:
            name = {'crash': 'save', 'Crash': 'save_passes'}.get(what)
            if name is not None:
                broken = mock.patch.object(
                    state_records, name, autospec=True, side_effect=OSError
                )
                stack.enter_context(broken)
                stack.enter_context(contextlib.suppress(OSError))
            states.remember(
                self.layout, host, now, files, used, {}, {}, states.State(),
                adrift=what == 'adrift',
            )  # fmt: skip


class BytesTest(nodes.NodeTestCase):
    """What a pass writes does not grow with what is known already."""

    #: Of files; each has a guest.
    many = 300

    def setUp(self) -> None:
        super().setUp()
        # However long it takes to make all that, by a clock of its own.
        self.patch(walks, '_GRAIN_NANOSECONDS', 0)
        first = self.node.add_image('0')
        with open(self.node.add_overlay('template', first), 'rb') as file:
            template = file.read()
        for number in range(self.many):
            name = self.node.add_image(f'{number}', data=b'x')
            self.node.add_file(
                f'guest-{number}', 'disk',
                data=template.replace(first.encode(), name.encode()),
            )  # fmt: skip
        for _pass in range(2):
            self.node.clock.advance(base.HOUR)
            self.node.run()

    def records(self) -> dict[str, tuple[int, int]]:
        """Tell records apart: inode and size, by path."""
        found = {}
        for directory, _directories, files in os.walk(self.node.layout.own):
            for file in files:
                path = os.path.join(directory, file)
                status = os.stat(path)
                found[path] = status.st_ino, status.st_size
        return found

    def bytes_of_pass(self) -> int:
        self.node.clock.advance(base.HOUR)
        before = self.records()
        report = self.node.run()
        self.assertEqual(((), ()), (report.vetoes, report.problems))
        return sum(
            size
            for path, (inode, size) in self.records().items()
            if before.get(path) != (inode, size)
        )

    def test_where_nothing_is_news_it_is_a_few_kilobytes(self) -> None:
        for _pass in range(3):
            self.assertLess(self.bytes_of_pass(), 8 * base.KIB)

    def test_what_is_counted_is_what_is_written(self) -> None:
        shutil.rmtree(os.path.join(self.node.layout.instances, 'guest-7'))
        self.assertGreater(self.bytes_of_pass(), self.many * 40)


class OnceTest(QuietTestCase):
    """Of very many files, what is the same is there once."""

    def setUp(self) -> None:
        super().setUp()
        self.remember()

    def test_a_name_in_the_state(self) -> None:
        state = states.load(self.layout)
        known = {name: name for name in state.files}
        for name in state.used['here']:
            self.assertIs(known[name], name)

    def test_when_they_were_seen(self) -> None:
        one, two, _three = states.load(self.layout).files.values()
        self.assertEqual(one.seen, two.seen)
        self.assertIs(one.seen.boot_id, two.seen.boot_id)

    def test_a_name_in_an_inventory(self) -> None:
        seen = inventories.Seen(7, 8192, 10**18, (ONE,))
        new = inventories.Inventory(disks={'/a': seen}, bases={ONE: (1, 2)})
        inventories.save(self.layout, 'x', new, inventories.Inventory())
        found = inventories.load(self.layout, 'x')
        (name,) = found.disks['/a'].needs
        self.assertIs(next(iter(found.bases)), name)
