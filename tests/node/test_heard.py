# SPDX-License-Identifier: Apache-2.0

"""What a host needs is written when it is news, and when it passed always."""

import contextlib
import os
import shutil
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import hosts
from nova_imagecache.cache import records
from nova_imagecache import names
from tests.support import base
from tests.support import nodes
from tests.support import sharing

ONE, TWO, THREE = NAMES = tuple(
    names.get_cache_fname(str(number)) for number in range(3)
)
SAMPLES = os.path.join(os.path.dirname(__file__), 'formats', '_heard')


class HeardTestCase(sharing.TwoHostsTestCase):
    """A host whose last pass had no news."""

    def setUp(self) -> None:
        super().setUp()
        self.first_pass(self.two)
        self.clock.advance(base.HOUR)
        self.before = self.written()
        self.two.run()

    @property
    def path(self) -> str:
        return os.path.join(self.one.layout.heard, '_two')

    def written(self) -> bytes:
        with open(self.record('two'), 'rb') as file:
            return file.read()

    def note(self, name: str) -> None:
        hosts.note_use(self.one.layout, 'two', name, self.clock.wall)


@ddt.ddt
class QuietTest(HeardTestCase):
    def test_what_it_needs_is_not_written_and_its_pass_is_known(self) -> None:
        self.assertEqual(self.before, self.written())
        found, now = self.recall('two'), self.clock.wall
        self.assertEqual((now, now), (found.passed, found.complete))
        self.assertEqual({self.used: now}, found.below)

    def test_what_is_news_is_written(self) -> None:
        new = self.two.add_image('new')
        self.two.add_overlay(sharing.OTHER, new)
        self.two.run()
        self.assertNotEqual(self.before, self.written())
        self.assertEqual({self.used, new}, {*self.recall('two').below})

    def test_a_use_that_was_noted_and_is_seen_then_is_no_news(self) -> None:
        self.clock.advance(base.HOUR)
        self.note(self.used)
        before = self.written()
        self.assertNotEqual(self.before, before)
        self.clock.advance(base.HOUR)
        self.two.run()
        self.assertEqual(before, self.written())
        self.assertEqual(self.clock.wall, self.recall('two').below[self.used])

    def test_what_the_last_pass_saw_stays_for_an_hour(self) -> None:
        """Though what says that it needs it is older."""
        for _pass in range(3):
            self.clock.advance(base.HOUR)
            self.two.run()
        self.assertEqual(self.before, self.written())
        self.end_guest()
        self.clock.advance(base.HOUR - 1)
        self.two.run()
        self.assertEqual({self.used}, {*self.recall('two').below})
        self.clock.advance(2)
        self.two.run()
        self.assertEqual({}, self.recall('two').below)

    def test_it_is_written_all_the_same_twice_a_day(self) -> None:
        """Who reads nothing else does not take the host for away."""
        changes = 0
        for _pass in range(48):
            self.clock.advance(base.HOUR)
            before = self.written()
            self.two.run()
            changes += before != self.written()
            record = hosts._FORMAT.load(self.record('two'))
            assert record is not None
            alone = hosts.Host(**vars(record))
            self.assertFalse(alone.is_away(self.clock.wall + base.HOUR))
        self.assertEqual(4, changes)

    def test_who_notes_a_use_goes_by_what_is_written(self) -> None:
        self.note(self.used)
        self.assertEqual(
            self.clock.wall,
            hosts._written(self.one.layout, 'two').below[self.used],
        )

    def test_to_forget_the_host_leaves_nothing_of_it(self) -> None:
        self.assertTrue(hosts.forget(self.one.layout, 'two'))
        self.assertFalse(os.path.exists(self.path))

    def test_one_that_comes_back_has_a_new_beginning(self) -> None:
        shutil.copy(self.path, f'{self.temporary}/heard')
        hosts.forget(self.one.layout, 'two')
        self.clock.jump(-30 * base.DAY)
        self.two.run()
        shutil.copy(f'{self.temporary}/heard', self.path)
        self.assertEqual(self.clock.wall, self.recall('two').passed)

    @ddt.data('garbage', 'newer', 'directory', 'missing')
    def test_without_the_small_record_it_needs_the_same(
        self, what: str
    ) -> None:
        self.spoil(what)
        self.assertEqual({self.used}, {*self.recall('two').below})
        self.run_passes(self.one, days=40)
        self.assert_kept(self.used)
        self.assert_removed(self.free)

    @ddt.data('garbage', 'newer')
    def test_what_was_seen_just_now_for_all_one_knows_stays(
        self, what: str
    ) -> None:
        self.clock.advance(2 * base.HOUR)
        self.spoil(what)
        self.end_guest()
        self.two.run()
        self.assertEqual({self.used}, {*self.recall('two').below})
        self.clock.advance(base.HOUR + 1)
        self.two.run()
        self.assertEqual({}, self.recall('two').below)

    @ddt.data('garbage', 'newer')
    def test_the_next_pass_writes_it_anew(self, what: str) -> None:
        self.spoil(what)
        self.clock.advance(base.HOUR)
        self.assertEqual((), self.two.run().problems)
        self.assertEqual(self.before, self.written())
        self.assertEqual(self.clock.wall, self.recall('two').passed)

    def spoil(self, what: str) -> None:
        if what == 'newer':
            newer = records.Format('heard', 2, hosts._Heard)
            heard = hosts._HEARD_FORMAT.load(self.path)
            assert heard is not None
            newer.save(self.one.layout, self.path, heard)
            return
        os.unlink(self.path)
        if what == 'directory':
            os.mkdir(self.path)
        elif what == 'garbage':
            with open(self.path, 'w') as file:
                file.write('garbage')


class SampleTest(nodes.FileTestCase):
    """What each release has written is read by this one."""

    def test_of_version_1(self) -> None:
        heard = hosts._HEARD_FORMAT.load(os.path.join(SAMPLES, '1'))
        self.assertEqual(hosts._Heard(1.7e9, 1.7e9 + 7200, 1.7e9), heard)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ['pass'] * 6 + ['note', 'fail', 'lose', 'spoil', 'earlier']
        ),
        st.sets(st.sampled_from(NAMES)) | st.none(),
        st.sets(st.sampled_from(NAMES)),
        st.booleans(),
        st.sampled_from([1, 60, 599, 3600, 3600, 50000, 90000, -60, -90000]),
    ),
    min_size=1,
    max_size=10,
)


class AsBeforeTest(nodes.NodeTestCase):
    """What is known is what it was when each pass wrote all of it."""

    def setUp(self) -> None:
        super().setUp()
        # What a disk would do with it is shown elsewhere.
        self.patch(os, 'fsync', lambda _fd: None)

    @hypothesis.settings(
        max_examples=50,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(STEPS)
    def test_whatever_a_host_sees_and_when(self, steps: Any) -> None:
        for directory in (self.node.layout.hosts, self.node.layout.heard):
            shutil.rmtree(directory, ignore_errors=True)
            os.makedirs(directory)
        self.model = hosts.Host('two')
        now, below = 1.8e9, {*NAMES}
        for count, (what, seen, beyond, complete, seconds) in enumerate(steps):
            # No two are the same.
            now += seconds + count / 1024
            below = below if seen is None else seen
            getattr(self, f'_{what}')(now, below, beyond, complete)
            found = hosts.load(self.node.layout, 'two')
            self.assertEqual(self.model, found)
            # Whoever knows one record only knows the same.
            written = hosts._written(self.node.layout, 'two')
            self.assertEqual(
                (found.below.keys(), found.beyond.keys(), found.blind),
                (written.below.keys(), written.beyond.keys(), written.blind),
            )
            if found.passed is not None and written.passed is not None:
                self.assertLess(found.passed - written.passed, base.DAY / 2)

    def remember(
        self, now: float, below: set[str], beyond: set[str], complete: bool
    ) -> None:
        hosts.remember(
            self.node.layout, 'two', now, frozenset(below), frozenset(beyond),
            complete, blind=not complete and bool(beyond),
        )  # fmt: skip

    def expect(
        self, now: float, below: set[str], beyond: set[str], complete: bool
    ) -> hosts.Host:
        """Give what each pass wrote."""

        def renewed(old: Any, seen: set[str]) -> dict[str, float]:
            kept = {
                name: min(when, now)
                for name, when in old.items()
                if not complete or when > now - base.HOUR
            }
            return {**kept, **dict.fromkeys(seen, now)}

        return hosts.Host(
            'two',
            now,
            now if complete else self.model.complete,
            not complete and bool(beyond),
            hosts.root_of(self.node.layout),
            renewed(self.model.below, below),
            renewed(self.model.beyond, beyond),
        )

    def _pass(self, *what: Any) -> None:
        self.remember(*what)
        self.model = self.expect(*what)

    def _earlier(self, *what: Any) -> None:
        """Have a release make a pass that knows one record only."""
        self.model = hosts._written(self.node.layout, 'two')
        self.model = self.expect(*what)
        hosts._save(self.node.layout, self.model)

    def _note(self, now: float, *_what: Any) -> None:
        hosts.note_use(self.node.layout, 'two', ONE, now)
        found = hosts.load(self.node.layout, 'two')
        before = self.model.below.get(ONE)
        after = found.below[ONE]
        if before is not None and 0 <= now - before < 600:
            self.assertIn(after, (now, before))
        else:
            self.assertIn(after, (now, max(now, before or 0)))
        others = {**found.below}
        del others[ONE]
        known = {**self.model.below}
        known.pop(ONE, None)
        self.assertEqual(known, others)
        self.model = found

    def _fail(self, *what: Any) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, 'No space left on device')

        with (
            base.patched(records.Format, 'save', fail),
            contextlib.suppress(OSError),
        ):
            self.remember(*what)

    def _lose(self, *_what: Any) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.node.layout.heard, '_two'))
        self._relearn()

    def _spoil(self, *what: Any) -> None:
        os.makedirs(self.node.layout.heard, exist_ok=True)
        with open(os.path.join(self.node.layout.heard, '_two'), 'w') as file:
            file.write('x')
        # It keeps no less than if it had known.
        expected = self.expect(*what)
        self.remember(*what)
        found = hosts.load(self.node.layout, 'two')
        self.assertLessEqual(expected.below.keys(), found.below.keys())
        self.assertLessEqual(expected.beyond.keys(), found.beyond.keys())
        self.model = found

    def _relearn(self) -> None:
        found = hosts.load(self.node.layout, 'two')
        for old, new in (
            (self.model.below, found.below),
            (self.model.beyond, found.beyond),
        ):
            self.assertEqual(old.keys(), new.keys())
            for name, when in new.items():
                self.assertLessEqual(0, old[name] - when)
                self.assertLess(old[name] - when, base.DAY / 2)
        self.model = found
