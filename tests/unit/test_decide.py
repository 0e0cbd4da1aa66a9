# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
import dataclasses
import itertools
import stat
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st
import msgspec
import testtools

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import sightings
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import observed
from nova_imagecache.passes import pressure
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing
from tests.support import base
from tests.support import fake_witnesses

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'
NOW = 2e9
INSTANT = clocks.Instant(NOW, 2e6, 'boot')
SEEN = clocks.Instant(NOW - 50, 0.0, 'an earlier boot')
LONG_AGO = clocks.Instant(0.0, 0.0, 'an earlier boot')
NOBODY = testimonies.Testimony()
SETTINGS = Settings(instances_path='/i')
KEEP, PUT_BACK = decide.Action.KEEP, decide.Action.PUT_BACK
REMOVE, DELETE = decide.Action.REMOVE, decide.Action.DELETE
SPACE = pressure.Space(1, 10**12)

#: A name of each kind, and whether its minimum age is that of originals; None
#: where it never goes. What an interrupted fetch left, and swap and ephemeral
#: files, cannot be made again from what is here; resized ones can.
KINDS: dict[names.Kind, tuple[str, bool | None]] = {
    names.Kind.ORIGINAL: (SHA, True),
    names.Kind.RESIZED: (f'{SHA}_20', False),
    names.Kind.LEGACY: (f'{SHA}_sm', False),
    names.Kind.SWAP: ('swap_5', True),
    names.Kind.EPHEMERAL: ('ephemeral_1_0706d66', True),
    names.Kind.LEFTOVER: (f'{SHA}.part', True),
    names.Kind.OTHER: ('readme', None),
}

#: For originals, and for resized files.
AGES = ((7000, 9000), (9000, 7000), (0, 7000), (7000, 0), (0, 0), (599, 599))


def make_file(
    name: str = SHA,
    age: float = 0,
    mode: int = stat.S_IFREG | 0o644,
    inode: int = 7,
    size: int = 4096,
) -> base_file.BaseFile:
    incarnation = identity.Incarnation(1, inode, 100, None)
    times = int((NOW - age) * 10**9)
    seen = identity.Stat(incarnation, mode, 10, size, times, times)
    layout = layouts.Layout('/instances', '/instances/_base')
    trashed = names.trashed_name(name) is not None
    return base_file.BaseFile(layout, name, seen, trashed)


def sighting(file: base_file.BaseFile, **fields: Any) -> states.State:
    """Remember a file, which was seen first long ago."""
    values: dict[str, Any] = {
        'key': file.stat.incarnation.key,
        'last_used': None,
        'modified': file.stat.modified,
        'seen': LONG_AGO,
        'image': None,
        'digested': False,
        'suspect': False,
        'rebaselined': None,
        'damage': None,
        'trashed': None,
        'ahead': False,
    }
    return states.State(
        files={file.name: sightings.Sighting(**(values | fields))}
    )


BAD = sightings.Damage('corrupt', 0)
JUMP = fake_witnesses.blind('a jump')


def remembering(*files: base_file.BaseFile) -> states.State:
    """Remember files, as if nothing had happened to them since."""
    found: dict[str, sightings.Sighting] = {}
    for file in files:
        found |= sighting(file).files
    return states.State(files=found)


def decide_one(
    file: base_file.BaseFile,
    testimony: testimonies.Testimony = NOBODY,
    state: states.State | None = None,
    knowledge: knowledge.Knowledge | None = None,
    vetoes: tuple[vetoing.Veto, ...] = (),
    **settings: Any,
) -> decide.Decision:
    decisions = decide.decide(
        observed.Facts(
            INSTANT,
            [file],
            testimony=testimony,
            state=state or remembering(file),
            entries={}
            if knowledge is None
            else {file.name: schedule.Entry(file.name, 4096, knowledge, None)},
            vetoes=vetoes,
        ),
        Settings(instances_path='/i', **settings),
    )
    (decision,) = decisions.files
    return decision


class DecisionTest(base.TestCase):
    def test_one_cannot_be_changed(self) -> None:
        with testtools.ExpectedException(AttributeError):
            decide_one(make_file(SHA)).used = True  # type: ignore[misc]


@ddt.ddt
class RemovalTest(base.TestCase):
    def assert_kept(self, decision: decide.Decision, *words: str) -> None:
        self.assertEqual(decide.Action.KEEP, decision.action)
        for word in words:
            self.assertIn(word, decision.reason)

    def assert_removed(self, decision: decide.Decision) -> None:
        self.assertEqual(decide.Action.REMOVE, decision.action)

    @ddt.data(SHA, 'swap_5', 'ephemeral_1_0706d66', SHA + '.part')
    def test_an_original_stays_for_a_day(self, name: str) -> None:
        self.assert_kept(decide_one(make_file(name, age=3601)))
        self.assert_kept(decide_one(make_file(name, age=86399)))
        self.assert_removed(decide_one(make_file(name, age=25 * 3600)))

    @ddt.data(f'{SHA}_20', f'{SHA}_sm')
    def test_a_resized_file_stays_for_an_hour(self, name: str) -> None:
        self.assert_kept(decide_one(make_file(name, age=3599)))
        self.assert_removed(decide_one(make_file(name, age=3601)))

    @ddt.data(SHA, f'{SHA}_20')
    def test_nothing_younger_than_ten_minutes_goes(self, name: str) -> None:
        ages: dict[str, Any] = {
            'original_minimum_age': 0,
            'resized_minimum_age': 0,
        }
        self.assert_kept(decide_one(make_file(name, age=599), **ages))
        self.assert_removed(decide_one(make_file(name, age=601), **ages))

    @ddt.data(*itertools.product(names.Kind, AGES))
    @ddt.unpack
    def test_each_kind_of_file_has_its_minimum_age(
        self, kind: names.Kind, ages: tuple[int, int]
    ) -> None:
        original, resized = ages
        name, of_the_original = KINDS[kind]
        self.assertIs(kind, names.kind_of(name))
        options: dict[str, Any] = {
            'original_minimum_age': original, 'resized_minimum_age': resized,
        }  # fmt: skip
        least = {True: max(original, 600), False: max(resized, 600)}
        for age in (599, 601, *(a + d for a in (7000, 9000) for d in (-1, 1))):
            expected = decide.Action.LEAVE
            if of_the_original is not None:
                expected = (
                    decide.Action.KEEP
                    if age < least[of_the_original]
                    else decide.Action.REMOVE
                )
            decision = decide_one(make_file(name, age=age), **options)
            self.assertEqual(expected, decision.action, f'after {age} s')

    @ddt.data((0, 600), (599, 600), (601, 601), (7000, 7000))
    @ddt.unpack
    def test_a_file_in_the_trash_has_its_time_too(
        self, retention: int, least: int
    ) -> None:
        name = f'{SHA}.00000001'
        for age, action in (
            (least - 1, decide.Action.KEEP), (least, decide.Action.DELETE),
        ):  # fmt: skip
            file = make_file(name, age=1e9)
            since = clocks.Instant(
                NOW - age, INSTANT.boottime - age, INSTANT.boot_id
            )
            decisions = decide.decide(
                observed.Facts(
                    INSTANT, trash=[file],
                    state=sighting(file, trashed=since),
                ),
                Settings(instances_path='/i', retention=retention),
            )  # fmt: skip
            self.assertEqual(
                [action], [each.action for each in decisions.trash]
            )

    def test_a_file_in_use_stays_however_old(self) -> None:
        used = testimonies.Testimony(users={SHA: frozenset({'b', 'a'})})
        decision = decide_one(make_file(age=1e9), used)
        self.assert_kept(decision, 'used by 2 guests')
        self.assertEqual(('a', 'b'), decision.users)

    def test_the_reason_names_no_pin_where_there_is_none(self) -> None:
        used = testimonies.Testimony(users={SHA: frozenset({'a'})})
        self.assertEqual(
            'used by 1 guest', decide_one(make_file(), used).reason
        )

    def test_what_a_newer_release_knows_more_of_stays(self) -> None:
        facts = observed.Facts(
            INSTANT, [make_file(age=1e9)], newer=frozenset({SHA})
        )
        (decision,) = decide.decide(facts, SETTINGS).files
        self.assert_kept(decision, 'a newer release')

    def test_what_cannot_be_fetched_anew_does_not_go_to_make_room(
        self,
    ) -> None:
        """It goes in its time, and so does what was resized from it."""
        settings = dataclasses.replace(SETTINGS, max_size=1)
        for name in (SHA, f'{SHA}_20'):
            for age, action in (
                (700, decide.Action.KEEP),
                (1e9, decide.Action.REMOVE),
            ):
                file = make_file(name, age=age)
                facts = observed.Facts(
                    INSTANT,
                    [file],
                    state=remembering(file),
                    space=pressure.Space(99, 1),
                )
                (other,) = decide.decide(facts, settings).files
                self.assertIs(decide.Action.REMOVE, other.action)
                self.assertFalse(other.last_copy)
                facts = dataclasses.replace(
                    facts, last_copies=frozenset({SHA})
                )
                (decision,) = decide.decide(facts, settings).files
                self.assertIs(action, decision.action, f'{name} {age}')
                self.assertTrue(decision.last_copy)
                self.assertIn('gone from the image', decision.reason)

    def test_what_a_fetch_left_behind_is_no_last_copy(self) -> None:
        facts = observed.Facts(
            INSTANT,
            [make_file(f'{SHA}.part', age=700)],
            last_copies=frozenset({SHA}),
        )
        (decision,) = decide.decide(facts, SETTINGS).files
        self.assertFalse(decision.last_copy)
        self.assertNotIn('gone', decision.reason)

    def test_seconds_in_the_place_of_the_options_count(self) -> None:
        for least, action in ((5000, REMOVE), (5001, KEEP)):
            facts = observed.Facts(INSTANT, [make_file(age=5000)], least=least)
            (decision,) = decide.decide(facts, SETTINGS).files
            self.assertIs(action, decision.action)

    def test_what_a_fetch_left_behind_is_called_so(self) -> None:
        for name, idle in ((f'{SHA}.part', 'left behind'), (SHA, 'unused')):
            reason = decide_one(make_file(name, age=700)).reason
            self.assertEqual(f'{idle} for 700 s of 86400 s', reason)

    def test_the_image_is_what_is_said_or_remembered(self) -> None:
        file = make_file()
        said = testimonies.Testimony(images={SHA: 'said'})
        remembered = sighting(file, image='remembered')
        for testimony, state, image in (
            (said, remembered, 'said'), (said, None, 'said'),
            (NOBODY, remembered, 'remembered'), (NOBODY, None, None),
        ):  # fmt: skip
            decision = decide_one(file, testimony, state)
            self.assertEqual(image, decision.image)

    def test_a_file_that_a_qemu_has_open_stays_however_old(self) -> None:
        held = testimonies.Testimony(held=frozenset({SHA}))
        decision = decide_one(make_file(age=1e9), held)
        self.assert_kept(decision, 'running QEMU')
        self.assertEqual(((), True), (decision.users, decision.used))

    def test_nothing_goes_when_removal_is_off(self) -> None:
        decision = decide_one(make_file(age=1e9), remove_unused=False)
        self.assert_kept(decision, 'removal is off')

    def test_nothing_goes_when_a_witness_failed(self) -> None:
        failed = testimonies.Testimony(
            vetoes=(fake_witnesses.blind('unreadable'), JUMP)
        )
        decision = decide_one(make_file(age=1e9), failed)
        self.assert_kept(decision, 'unreadable', '1 more')

    def test_nothing_goes_when_the_clock_jumped(self) -> None:
        decision = decide_one(make_file(age=1e9), vetoes=(JUMP,))
        self.assertIn('nothing is removed now: a witness: a jump',
                      decision.reason)  # fmt: skip
        self.assert_kept(decision, 'a jump')

    @ddt.data('readme', 'image.iso', 'ephemeral_1_default')
    def test_a_name_of_no_pattern_is_left_alone(self, name: str) -> None:
        decision = decide_one(make_file(name, age=1e9))
        self.assertEqual(decide.Action.LEAVE, decision.action)

    @ddt.data(
        stat.S_IFDIR, stat.S_IFIFO, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFSOCK
    )
    def test_what_is_no_regular_file_is_left_alone(self, mode: int) -> None:
        known = knowledge.Knowledge()
        decision = decide_one(make_file(age=1e9, mode=mode), knowledge=known)
        self.assertEqual(decide.Action.LEAVE, decision.action)

    def test_a_remembered_use_counts_where_mtime_does_not_move(self) -> None:
        file = make_file(age=30 * base.DAY)
        used = sighting(file, last_used=NOW - base.HOUR)
        decision = decide_one(file, state=used)
        self.assert_kept(decision)
        self.assertEqual(base.HOUR, decision.age)

    def test_the_use_of_another_file_of_that_name_does_not_count(
        self,
    ) -> None:
        file = make_file(age=30 * base.DAY)
        other = sighting(make_file(inode=8), last_used=NOW)
        facts = observed.Facts(INSTANT, [file], state=other, least=600)
        (decision,) = decide.decide(facts, SETTINGS).files
        self.assert_removed(decision)

    def test_an_mtime_in_the_future_means_used_now(self) -> None:
        file = make_file(age=-base.DAY)
        decision = decide_one(file)
        self.assert_kept(decision)
        self.assertEqual(0, decision.age)

    def test_an_mtime_in_the_future_does_not_keep_a_file_for_ever(
        self,
    ) -> None:
        file = make_file(age=-365 * base.DAY)
        seen = sighting(file, last_used=NOW - 2 * base.DAY, ahead=True)
        self.assert_removed(decide_one(file, state=seen))

    def test_a_use_in_the_future_means_used_now(self) -> None:
        file = make_file(age=30 * base.DAY)
        decision = decide_one(
            file, state=sighting(file, last_used=NOW + base.DAY)
        )
        self.assert_kept(decision)

    @hypothesis.given(
        name=st.sampled_from(
            [SHA, f'{SHA}_20', f'{SHA}_sm', 'swap_1', f'{SHA}.part', 'other']
        ),
        age=st.floats(-1e9, 1e9),
        users=st.frozensets(st.text(), max_size=2),
        failures=st.lists(st.text(), max_size=1),
        vetoes=st.lists(st.text(), max_size=1),
        last_used=st.none() | st.floats(0, 4e9),
        original=st.integers(0, 10**7),
        resized=st.integers(0, 10**7),
        remove=st.booleans(),
    )
    def test_a_file_goes_if_and_only_if_nothing_speaks_for_it(
        self,
        name: str,
        age: float,
        users: frozenset[str],
        failures: list[str],
        vetoes: list[str],
        last_used: float | None,
        original: int,
        resized: int,
        remove: bool,
    ) -> None:
        file = make_file(name, age=age)
        decision = decide_one(
            file,
            testimonies.Testimony(
                users={name: users} if users else {},
                vetoes=tuple(map(fake_witnesses.blind, failures)),
            ),
            sighting(file, last_used=last_used),
            vetoes=tuple(map(fake_witnesses.blind, vetoes)),
            original_minimum_age=original,
            resized_minimum_age=resized,
            remove_unused=remove,
        )
        self.assertTrue(decision.reason)
        if last_used is not None and last_used <= NOW:
            self.assertGreaterEqual(NOW - last_used, decision.age)
        least = resized if '_20' in name or '_sm' in name else original
        goes = (
            remove
            and name != 'other'
            and not (users or failures or vetoes)
            and decision.age >= max(least, 600)
        )
        self.assertEqual(goes, decision.action is decide.Action.REMOVE)


class AgeTest(base.TestCase):
    """Age counts from the latest of mtime, birth, first sight, last use."""

    def age(
        self,
        file: base_file.BaseFile | None = None,
        steps: Mapping[str, tuple[clocks.Step, ...]] | None = None,
        skew: float = 0.0,
        least: int | None = None,
        seen: clocks.Instant | None = None,
        last_used: float | None = None,
    ) -> float:
        file = make_file(age=1e9) if file is None else file
        state = states.State()
        if seen is not None:
            state = sighting(file, seen=seen, last_used=last_used)
        state = dataclasses.replace(state, steps=steps or {})
        facts = observed.Facts(
            INSTANT, [file], state=state, least=least, skew=skew
        )
        settings = Settings(instances_path='/i', host='here')
        (decision,) = decide.decide(facts, settings).files
        return decision.age

    def born(self, age: float) -> base_file.BaseFile:
        file = make_file(age=1e9)
        incarnation = file.incarnation._replace(born=int((NOW - age) * 10**9))
        stat = file.stat._replace(incarnation=incarnation)
        return msgspec.structs.replace(file, stat=stat)

    def test_what_no_pass_has_seen_was_seen_first_now(self) -> None:
        self.assertEqual(0, self.age())

    def test_each_of_the_four_counts(self) -> None:
        self.assertEqual(50, self.age(seen=SEEN))
        self.assertEqual(40, self.age(seen=SEEN, last_used=NOW - 40))
        self.assertEqual(30, self.age(make_file(age=30), seen=SEEN))
        self.assertEqual(20, self.age(self.born(20), seen=SEEN))

    def test_in_one_boot_the_time_since_boot_counts(self) -> None:
        then = clocks.Instant(NOW - 1e8, INSTANT.boottime - 70, 'boot')
        self.assertEqual(70, self.age(seen=then))

    def test_clocks_are_right_unless_it_was_seen_that_they_are_not(
        self,
    ) -> None:
        facts = observed.Facts(INSTANT)
        self.assertEqual((0, 0), (facts.jump, facts.skew))

    def test_a_birth_in_the_future_says_nothing(self) -> None:
        self.assertEqual(50, self.age(self.born(-1), seen=SEEN))

    def test_a_first_sight_in_the_future_is_no_age(self) -> None:
        later = clocks.Instant(NOW + 50, 0.0, 'an earlier boot')
        self.assertEqual(0, self.age(seen=later))

    def test_of_what_is_bad_only_uses_count(self) -> None:
        self.assertEqual(1e9, self.age(self.born(20), least=600))
        used = self.age(least=600, seen=SEEN, last_used=NOW - 40)
        self.assertEqual(40, used)

    def test_the_clock_of_the_storage_dates_files_and_no_passes(self) -> None:
        for skew in (7.0, -7.0):
            self.assertEqual(50, self.age(seen=SEEN, skew=skew))
            file = make_file(age=30)
            self.assertEqual(23, self.age(file, seen=SEEN, skew=skew))
            self.assertEqual(13, self.age(self.born(20), seen=SEEN, skew=skew))
        self.assertEqual(0, self.age(make_file(age=30), seen=SEEN, skew=40.0))

    def test_a_step_makes_all_of_them_uncertain(self) -> None:
        steps = {'here': (clocks.Step(NOW - 10, 25.0, 'boot'),)}
        self.assertEqual(25, self.age(seen=SEEN, steps=steps))
        for file in (make_file(age=40), self.born(40)):
            self.assertEqual(15, self.age(file, seen=SEEN, steps=steps))
        self.assertEqual(
            15, self.age(last_used=NOW - 40, seen=SEEN, steps=steps)
        )
        # Nobody can have set it in between.
        self.assertEqual(9, self.age(make_file(age=9), seen=SEEN, steps=steps))

    def test_so_does_one_of_a_host_that_shares_the_cache(self) -> None:
        there = clocks.Step(NOW - 10, 25.0, 'there')
        self.assertEqual(25, self.age(seen=SEEN, steps={'there': (there,)}))
        # It went ahead of us, and what it notes is not older for that.
        ahead = clocks.Step(NOW + 1e9, 1e9, 'there')
        self.assertEqual(50, self.age(seen=SEEN, steps={'there': (ahead,)}))

    def test_a_step_while_it_is_in_the_trash_counts_too(self) -> None:
        steps = {'here': (clocks.Step(NOW - 10, 4000.0, 'boot'),)}
        file = make_file(TRASHED, age=1e9)
        for boot, age in (('boot', 5000), ('an earlier boot', 1000)):
            since = clocks.Instant(NOW - 5000, INSTANT.boottime - 5000, boot)
            state = dataclasses.replace(
                sighting(file, trashed=since), steps=steps
            )
            (decision,) = decide.decide(
                observed.Facts(INSTANT, trash=[file], state=state),
                Settings(instances_path='/i', host='here'),
            ).trash
            self.assertEqual(age, decision.age)


TRASHED = f'{SHA}.00000001'


@ddt.ddt
class OutcomeTest(base.TestCase):
    """What is asked of decisions and clocks, whatever was decided."""

    @ddt.data(
        (0, False), (600, False), (-600, False), (601, True), (-601, True)
    )
    @ddt.unpack
    def test_a_clock_is_adrift_beyond_the_floor(
        self, skew: float, adrift: bool
    ) -> None:
        self.assertIs(adrift, decide.is_adrift(skew))

    @ddt.data(
        ([], [], False),
        ([KEEP], [KEEP, decide.Action.PUT_BACK], False),
        ([KEEP, decide.Action.REMOVE], [KEEP], True),
        ([KEEP], [KEEP, DELETE], True),
    )
    @ddt.unpack
    def test_a_file_goes_from_the_cache_or_from_the_trash(
        self,
        files: list[decide.Action],
        trash: list[decide.Action],
        goes: bool,
    ) -> None:
        in_cache, in_trash = (
            tuple(decide.Decision(make_file(), each, '') for each in actions)
            for actions in (files, trash)
        )
        made = decide.Decisions(in_cache, in_trash)
        self.assertIs(goes, made.take_away)


class TrashTest(base.TestCase):
    """A file in the trash, for a day."""

    def judge(
        self, *files: base_file.BaseFile, age: float = base.DAY, **facts: Any
    ) -> decide.Decisions:
        file = make_file(TRASHED, age=1e9)
        since = clocks.Instant(NOW - age, INSTANT.boottime - age, 'boot')
        values: dict[str, Any] = {'state': sighting(file, trashed=since)}
        return decide.decide(
            observed.Facts(
                INSTANT, files=files, trash=[file], **(values | facts)
            ),
            Settings(instances_path='/i'),
        )

    def assert_trash(
        self, action: decide.Action, words: str, *files: Any, **facts: Any
    ) -> decide.Decisions:
        decisions = self.judge(*files, **facts)
        (decision,) = decisions.trash
        self.assertIs(action, decision.action)
        self.assertIn(words, decision.reason)
        return decisions

    def test_it_goes_when_nothing_speaks_for_it(self) -> None:
        self.assert_trash(DELETE, 'in the trash for 86400 s')

    def inspected(
        self,
        *ages: float,
        size: int = 4096,
        action: str = 'set_aside',
        name: str = SHA,
        damage: sightings.Damage | None = BAD,
        known: bool = True,
    ) -> list[decide.Action]:
        """Decide on bad files, by the seconds since they were moved here.

        :param damage: what was wrong with them
        :param known: whether they are remembered at all
        """
        found: dict[str, sightings.Sighting] = {}
        files = []
        for number, age in enumerate(ages):
            trashed = names.trash_name(name, NOW - age - number)
            file = make_file(trashed, age=1e9, size=size)
            since = clocks.Instant(NOW - age, INSTANT.boottime - age, 'boot')
            found |= sighting(file, trashed=since, damage=damage).files
            files.append(file)
        state = states.State(files=found if known else {})
        facts = observed.Facts(INSTANT, trash=files, state=state)
        settings = Settings(instances_path='/i', corruption_action=action)
        decisions = decide.decide(facts, settings).trash
        for each in decisions:
            if each.action is KEEP:
                self.assertIn('kept to be looked at', each.reason)
        return [each.action for each in decisions]

    def test_a_bad_one_is_kept_for_a_week_to_be_looked_at(self) -> None:
        week = 7 * base.DAY
        self.assertEqual([KEEP], self.inspected(week - 1))
        self.assertEqual([DELETE], self.inspected(week + 1))

    def test_what_is_not_known_to_be_bad_is_not(self) -> None:
        for which in ({'damage': None}, {'known': False}):
            self.assertEqual([DELETE], self.inspected(base.DAY, **which))

    def test_nor_is_what_was_left_behind(self) -> None:
        self.assertEqual(
            [DELETE], self.inspected(base.DAY, name=f'{SHA}.part')
        )

    def test_by_default_a_bad_one_goes_as_any_other(self) -> None:
        self.assertEqual([DELETE], self.inspected(base.DAY, action='report'))

    def test_three_bad_ones_are_kept_the_latest(self) -> None:
        self.assertEqual(
            [DELETE, KEEP, KEEP, KEEP, DELETE],
            self.inspected(*(days * base.DAY for days in (5, 1, 2, 3, 4))),
        )

    def test_so_much_of_bad_ones_is_kept_and_no_more(self) -> None:
        half = 32 * 1024 * base.MIB
        days = (base.DAY, 2 * base.DAY, 3 * base.DAY)
        self.assertEqual(
            [KEEP, KEEP, DELETE], self.inspected(*days, size=half)
        )
        self.assertEqual(
            [KEEP, DELETE, DELETE], self.inspected(*days, size=half + 1)
        )

    def test_one_that_is_used_comes_back_though_others_are_blind(self) -> None:
        seen = testimonies.Testimony(
            users={SHA: frozenset({'guest'})}, vetoes=(fake_witnesses.blind(),)
        )
        self.assert_trash(
            PUT_BACK, 'in the trash, but used by 1 guest', testimony=seen
        )

    def test_one_that_another_host_needs_comes_back(self) -> None:
        needed = testimonies.Testimony(hosts={SHA: frozenset({'b', 'a'})})
        self.assert_trash(
            PUT_BACK, 'needed by guests of a, b', testimony=needed
        )

    def test_not_where_another_file_has_its_name(self) -> None:
        """That is the one that is needed then."""
        needed = testimonies.Testimony(hosts={SHA: frozenset({'a'})})
        decisions = self.assert_trash(
            DELETE, 'in the trash for', make_file(), testimony=needed
        )
        (file,) = decisions.files
        self.assertEqual('needed by guests of a', file.reason)

    def test_what_may_be_needed_keeps_that_alone(self) -> None:
        narrow = vetoing.Veto(
            vetoing.Reason.DAMAGED, '/disk', 'it is bad', frozenset({SHA})
        )
        self.assert_trash(
            KEEP,
            'in the trash, but may be needed: /disk: it is bad (and 1 more)',
            vetoes=(narrow, JUMP),
        )
        other = vetoing.Veto(
            vetoing.Reason.DAMAGED, '/disk', 'bad', frozenset({'swap_5'})
        )
        self.assert_trash(DELETE, 'in the trash for', vetoes=(other,))

    def test_one_that_a_qemu_has_open_comes_back(self) -> None:
        held = testimonies.Testimony(held=frozenset({TRASHED}))
        decisions = self.assert_trash(PUT_BACK, 'running QEMU', testimony=held)
        self.assertEqual((), decisions.notes)

    def test_a_leftover_stays_there_whoever_speaks_for_it(self) -> None:
        name = f'{SHA}.part.00000000'
        for testimony in (
            testimonies.Testimony(users={f'{SHA}.part': frozenset({'guest'})}),
            testimonies.Testimony(held=frozenset({name})),
        ):
            decisions = decide.decide(
                observed.Facts(
                    INSTANT, trash=[make_file(name)], testimony=testimony
                ),
                SETTINGS,
            )
            (decision,) = decisions.trash
            self.assertIs(KEEP, decision.action)
            self.assertIn(name, decisions.notes[0])

    def test_one_that_is_pinned_comes_back(self) -> None:
        self.assert_trash(
            PUT_BACK, 'in the trash, but pinned', pins=frozenset({SHA})
        )

    def test_what_is_said_of_its_name_is_of_the_file_that_has_it(self) -> None:
        seen = testimonies.Testimony(users={SHA: frozenset({'guest'})})
        decisions = self.assert_trash(
            DELETE, '', make_file(age=1e9),
            testimony=seen, pins=frozenset({SHA}),
        )  # fmt: skip
        (decision,) = decisions.files
        self.assertEqual(
            (KEEP, 'used by 1 guest, and pinned'),
            (decision.action, decision.reason),
        )

    def test_one_that_is_used_and_pinned_comes_back_for_its_user(self) -> None:
        seen = testimonies.Testimony(users={SHA: frozenset({'guest'})})
        decisions = self.judge(testimony=seen, pins=frozenset({SHA}))
        self.assertEqual(
            ['in the trash, but used by 1 guest'],
            [each.reason for each in decisions.trash],
        )

    def test_one_that_is_open_and_replaced_keeps_both(self) -> None:
        held = testimonies.Testimony(held=frozenset({TRASHED}))
        decisions = self.assert_trash(
            KEEP, 'another file has its name', make_file(age=1e9),
            testimony=held,
        )  # fmt: skip
        (decision,) = decisions.files
        self.assertIs(KEEP, decision.action)
        self.assertIn('an earlier file of this name', decision.reason)
        (note,) = decisions.notes
        self.assertIn(TRASHED, note)

    def test_an_obstacle_keeps_it_there(self) -> None:
        decisions = self.assert_trash(KEEP, 'a jump', vetoes=(JUMP,))
        self.assertEqual((), decisions.notes)

    def test_without_a_sighting_its_name_tells_since_when(self) -> None:
        then = int(NOW) - 3599
        for moved, action in ((then, KEEP), (then - 1, DELETE)):
            file = make_file(names.trash_name(SHA, moved), age=1e9)
            decisions = decide.decide(
                observed.Facts(INSTANT, trash=[file]),
                Settings(instances_path='/i'),
            )
            self.assertEqual(
                [action], [each.action for each in decisions.trash]
            )

    def test_its_name_tells_where_no_pass_has_noted_it(self) -> None:
        file = make_file(names.trash_name(SHA, NOW - 700), age=1e9)
        decisions = decide.decide(
            observed.Facts(INSTANT, trash=[file], state=sighting(file)),
            SETTINGS,
        )
        self.assertEqual([700], [each.age for each in decisions.trash])

    def test_a_name_from_the_future_is_as_of_now(self) -> None:
        file = make_file(names.trash_name(SHA, NOW + 1e6), age=1e9)
        decisions = decide.decide(
            observed.Facts(INSTANT, trash=[file]),
            Settings(instances_path='/i'),
        )
        self.assertEqual([0], [each.age for each in decisions.trash])


class EarlyTest(base.TestCase):
    """What goes before its time, where the cache is too large."""

    OLD, YOUNG = 'swap_1', 'swap_2'

    def judge(self, blocks: float, **facts: Any) -> decide.Decisions:
        """Decide on two files, of a block each, with room for so many."""
        files = [make_file(self.OLD, age=5000), make_file(self.YOUNG, age=700)]
        values: dict[str, Any] = {'files': files, 'space': SPACE} | facts
        state = values.pop('state', states.State())
        sighted = remembering(*values['files']).files
        state = dataclasses.replace(state, files={**sighted, **state.files})
        return decide.decide(
            observed.Facts(INSTANT, state=state, **values),
            Settings(instances_path='/i', max_size=int(4096 * blocks)),
        )

    def gone(self, decisions: decide.Decisions) -> list[str]:
        return [
            each.file.name
            for each in (*decisions.files, *decisions.trash)
            if each.action in (REMOVE, DELETE)
        ]

    def test_nothing_goes_where_there_is_room(self) -> None:
        self.assertEqual([], self.gone(self.judge(2)))

    def test_the_oldest_goes_first_and_says_why(self) -> None:
        decisions = self.judge(1)
        self.assertEqual([self.OLD], self.gone(decisions))
        self.assertIn('to make room', decisions.files[0].reason)
        self.assertEqual((), decisions.problems)

    def test_what_is_used_pinned_or_younger_than_the_floor_stays(self) -> None:
        users = {self.OLD: frozenset({'guest'})}
        decisions = self.judge(
            1, testimony=testimonies.Testimony(users=users),
            files=[make_file(self.OLD, age=5000), make_file('swap_3', age=599),
                   make_file('swap_4', age=5000)],
            pins=frozenset({'swap_4'}),
        )  # fmt: skip
        self.assertEqual([], self.gone(decisions))
        (problem,) = decisions.problems
        self.assertIn('cache_max_size', problem)

    def large(self, name: str, age: float) -> base_file.BaseFile:
        """Make a file that takes one MiB."""
        file = make_file(name, age=age)
        stat = file.stat._replace(allocated=base.MIB)
        return msgspec.structs.replace(file, stat=stat)

    def stays(self, facts: observed.Facts, **settings: Any) -> str:
        """Say what stays, where more should go than can."""
        given = Settings(instances_path='/i', max_size=1, **settings)
        (problem,) = decide.decide(facts, given).problems
        return problem.rpartition('what stays in the cache is ')[2]

    def test_what_keeps_how_much_is_said(self) -> None:
        """Each file once, be it here or in the trash."""
        pinned = ['swap_3', 'swap_4']
        back = names.trash_name('swap_5', NOW)
        facts = observed.Facts(
            INSTANT,
            [
                *(self.large(name, age=1e6) for name in ('swap_1', 'swap_2')),
                *(self.large(name, age=1e6) for name in pinned),
                self.large('swap_6', age=599),
            ],
            trash=[self.large(back, age=1e6)],
            testimony=testimonies.Testimony(
                users={
                    name: frozenset({'guest'}) for name in ('swap_1', 'swap_2')
                }
            ),
            pins=frozenset([*pinned, 'swap_5']),
            space=SPACE,
        )
        self.assertEqual(
            '2 MiB in use, 4 MiB that is pinned, young or not to be removed',
            self.stays(facts),
        )

    def test_where_removal_is_off_all_of_it_is_kept(self) -> None:
        trashed = names.trash_name('swap_3', NOW - 1e6)
        facts = observed.Facts(
            INSTANT,
            [self.large(name, age=1e6) for name in ('swap_1', 'swap_2')],
            trash=[self.large(trashed, age=1e6)],
            space=SPACE,
        )
        self.assertEqual(
            '3 MiB that is pinned, young or not to be removed',
            self.stays(facts, remove_unused=False),
        )

    def test_while_enough_goes_in_any_case_nothing_goes_early(self) -> None:
        due = [self.large(name, age=1e6) for name in ('swap_3', 'swap_4')]
        spare = self.large(self.OLD, age=5000)
        decisions = self.judge(256, files=[*due, spare])
        self.assertEqual(['swap_3', 'swap_4'], self.gone(decisions))
        self.assertEqual((), decisions.problems)

    def test_at_the_floor_a_file_may_go(self) -> None:
        decisions = self.judge(
            0.5, files=[make_file(self.OLD, age=decide.FLOOR_SECONDS)]
        )
        self.assertEqual([self.OLD], self.gone(decisions))

    def test_an_old_file_that_is_kept_for_one_reason_stays(self) -> None:
        used = testimonies.Testimony(users={self.OLD: frozenset({'guest'})})
        kept: tuple[dict[str, Any], ...] = (
            {'testimony': used}, {'pins': frozenset({self.OLD})},
            {'newer': frozenset({self.OLD})}, {'vetoes': (JUMP,)},
        )  # fmt: skip
        for facts in kept:
            for age in (5000, 1e9):
                decisions = self.judge(
                    0.5, files=[make_file(self.OLD, age=age)], **facts
                )
                self.assertEqual([], self.gone(decisions))
                self.assertEqual(1, len(decisions.problems))

    def test_what_goes_in_any_case_counts(self) -> None:
        files = [make_file('swap_3', age=1e9), make_file(self.OLD, age=5000)]
        for blocks, gone in (
            (1, ['swap_3']), (4095 / 4096, ['swap_3', self.OLD]),
        ):  # fmt: skip
            decisions = self.judge(blocks, files=files)
            self.assertEqual(gone, self.gone(decisions))

    def test_what_is_in_the_trash_and_goes_in_time_counts(self) -> None:
        trash = [make_file(names.trash_name(SHA, NOW - 5), age=1e9)]
        files = [make_file(self.OLD, age=5000)]
        for blocks, gone in ((1, []), (4095 / 4096, [self.OLD])):
            decisions = self.judge(blocks, files=files, trash=trash)
            self.assertEqual(gone, self.gone(decisions))

    def problem(self, settings: Settings, **facts: Any) -> str:
        (problem,) = decide.decide(
            observed.Facts(
                INSTANT,
                space=SPACE,
                state=remembering(*facts['files']),
                **facts,
            ),
            dataclasses.replace(settings, max_size=1),
        ).problems
        return problem.rpartition('; ')[2]

    def test_the_problem_tells_how_much_is_kept_and_by_what(self) -> None:
        users = {self.OLD: frozenset({'guest'})}
        trashed = make_file(f'{SHA}.{int(NOW) - 5:x}', size=7 * base.MIB)
        files = [
            make_file(self.OLD, size=2 * base.MIB),
            make_file('swap_2', size=3 * base.MIB),
            make_file('swap_3', size=5 * base.MIB, age=1e9),
        ]
        seen = testimonies.Testimony(users=users)
        pinned = frozenset({SHA})
        off = dataclasses.replace(SETTINGS, remove_unused=False)
        for settings, pins, kept in (
            # What is in the trash goes in time, or comes back, or stays.
            (SETTINGS, frozenset(), 3), (SETTINGS, pinned, 10),
            (off, pinned, 15), (off, frozenset(), 15),
        ):  # fmt: skip
            self.assertEqual(
                'what stays in the cache is 2 MiB in use, '
                f'{kept} MiB that is pinned, young or not to be removed',
                self.problem(
                    settings, files=files, trash=[trashed],
                    testimony=seen, pins=pins,
                ),
            )  # fmt: skip

    def test_a_file_of_a_name_that_goes_from_the_trash_stays(self) -> None:
        trash = make_file(names.trash_name(SHA, NOW - 700))
        nobodys = msgspec.structs.replace(trash, trashed=False)
        decisions = self.judge(0.5, files=[nobodys], trash=[trash])
        self.assertIs(decide.Action.LEAVE, decisions.files[0].action)
        self.assertIs(DELETE, decisions.trash[0].action)

    def test_what_goes_early_is_not_verified(self) -> None:
        entry = schedule.Entry(self.OLD, 4096, knowledge.Knowledge(), None)
        for blocks, verify in ((2, True), (1, False)):
            decisions = self.judge(blocks, entries={self.OLD: entry})
            self.assertIs(verify, decisions.files[0].verify)

    def test_right_after_some_was_deleted_none_but_trash_goes(self) -> None:
        trash = make_file(TRASHED, age=1e9)
        for ago, gone in (
            (0, [TRASHED]), (599, [TRASHED]), (600, [self.OLD, TRASHED]),
        ):  # fmt: skip
            relieved = clocks.Instant(
                NOW - ago, INSTANT.boottime - ago, INSTANT.boot_id
            )
            since = clocks.Instant(NOW - 700, INSTANT.boottime - 700, 'boot')
            state = dataclasses.replace(
                sighting(trash, trashed=since), relieved=relieved
            )
            decisions = self.judge(1, trash=[trash], state=state)
            self.assertEqual(gone, self.gone(decisions))


@ddt.ddt
class VerificationTest(base.TestCase):
    def ledger(self, read: float | None) -> knowledge.Knowledge:
        """Give what is known of a file that was read so many seconds ago."""
        then = None
        if read is not None:
            then = dataclasses.replace(
                INSTANT, boottime=INSTANT.boottime - read
            )
        ledger = ledgers.Ledger.begin((7, 100, None), 4096, 'xxh3_128')
        return knowledge.Knowledge(
            'a' * 40,
            dataclasses.replace(
                ledger, sha1='a' * 40, stored='a' * 40, read=then
            ),
        )

    def due(
        self, knowledge: knowledge.Knowledge | None, **settings: Any
    ) -> bool:
        file = make_file()
        return decide_one(
            file, state=sighting(file), knowledge=knowledge, **settings
        ).verify

    def test_with_checksums_off_nothing_is_verified(self) -> None:
        self.assertFalse(self.due(None))

    def test_what_was_never_verified_is_due(self) -> None:
        self.assertTrue(self.due(knowledge.Knowledge()))
        self.assertTrue(self.due(knowledge.Knowledge(stored='a' * 40)))
        self.assertTrue(self.due(self.ledger(None)))

    def test_a_file_is_verified_once_per_interval(self) -> None:
        interval = {'checksum_interval': 1000}
        self.assertFalse(self.due(self.ledger(999), **interval))
        self.assertTrue(self.due(self.ledger(1000), **interval))

    def test_an_interval_of_zero_means_every_pass(self) -> None:
        self.assertTrue(self.due(self.ledger(0), checksum_interval=0))

    def test_a_verification_in_the_future_does_not_count(self) -> None:
        self.assertTrue(self.due(self.ledger(-1)))

    def test_a_checksum_that_was_replaced_is_compared_within_a_day(
        self,
    ) -> None:
        for age, due in ((base.DAY - 1, False), (base.DAY, True)):
            ledger = self.ledger(age).ledger
            replaced = knowledge.Knowledge('b' * 40, ledger)
            self.assertEqual(due, self.due(replaced))

    def test_only_a_resized_file_seen_first_may_still_grow(self) -> None:
        for name, settled in ((f'{SHA}_20', False), (SHA, True)):
            file = make_file(name)
            self.assertEqual(settled, schedule.complete(file, None))
            seen = sighting(file).sighting(file)
            self.assertTrue(schedule.complete(file, seen))

    def test_a_file_that_goes_is_not_verified(self) -> None:
        file = make_file(age=1e9)
        self.assertFalse(
            decide_one(file, knowledge=knowledge.Knowledge()).verify
        )
