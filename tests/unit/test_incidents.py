# SPDX-License-Identifier: Apache-2.0

"""When an incident is opened, what it gathers, and when it ends."""

from nova_imagecache.cache import identity
from nova_imagecache.content import incidents
from tests.support import base

GOOD = incidents.Good()
NONE = incidents.Incidents()
SEEN = incidents.Sight(
    'corrupt', 'an-image', 50.0, ((0, 10),), ('one', 'two'), ('two',)
)


class UpdatedTest(base.TestCase):
    def opened(self) -> incidents.Incidents:
        return incidents.updated(NONE, {'x': SEEN}, {}, ('x',), 100.0)

    def test_damage_opens_one_with_all_that_is_known(self) -> None:
        self.assertEqual(
            incidents.Incidents(
                1,
                (
                    incidents.Incident(
                        1,
                        'x',
                        'corrupt',
                        'an-image',
                        100.0,
                        50.0,
                        ((0, 10),),
                        ('one', 'two'),
                        ('two',),
                    ),
                ),
            ),
            self.opened(),
        )

    def test_while_it_lasts_there_is_no_second_one(self) -> None:
        known = self.opened()
        self.assertEqual(
            known, incidents.updated(known, {'x': SEEN}, {}, ('x',), 200.0)
        )

    def test_who_read_it_at_any_time_stays_listed(self) -> None:
        seen = incidents.Sight('corrupt', None, None, ((20, 30),), ('three',))
        known = incidents.updated(
            self.opened(), {'x': seen}, {}, ('x',), 200.0
        )
        (one,) = known.incidents
        self.assertEqual(('one', 'two', 'three'), one.guests)
        self.assertEqual(('two',), one.copied_up)
        self.assertEqual(((0, 10), (20, 30)), one.ranges)
        self.assertEqual('an-image', one.image)

    def test_it_lasts_for_as_long_as_nobody_has_read_the_file(self) -> None:
        known = self.opened()
        self.assertEqual(
            known, incidents.updated(known, {}, {}, ('x',), 200.0)
        )

    def test_a_good_reading_ends_it_and_so_does_a_file_that_went(self) -> None:
        for good, present, outcome in (
            (
                {'x': incidents.Good(changed=99.0)},
                ('x',),
                incidents.Outcome.GOOD,
            ),
            ({}, (), incidents.Outcome.GONE),
        ):
            known = incidents.updated(self.opened(), {}, good, present, 200.0)
            (one,) = known.incidents
            self.assertEqual((200.0, outcome), (one.ended, one.outcome))
            self.assertEqual(('two',), one.copied_up)

    def test_a_good_file_that_is_another_one_has_replaced_it(self) -> None:
        Outcome = incidents.Outcome
        old, new = (1, 100, None), (2, 200, None)
        for key, outcome in (
            (old, Outcome.GOOD), (new, Outcome.REPLACED),
            (None, Outcome.GOOD_OR_REPLACED),
            ((1, None, None), Outcome.GOOD_OR_REPLACED),
        ):  # fmt: skip
            good = incidents.Good(key, 150.0)
            self.assertEqual(outcome, self.outcome(old, good))

    def outcome(
        self, key: identity.Key | None, good: incidents.Good
    ) -> incidents.Outcome | None:
        """Say how one ends that was found at 100, of such a file."""
        seen = SEEN._replace(key=key)
        known = incidents.updated(NONE, {'x': seen}, {}, ('x',), 100.0)
        known = incidents.updated(known, {}, {'x': good}, ('x',), 200.0)
        (one,) = known.incidents
        return one.outcome

    def test_without_birth_times_another_number_and_a_change_since_tell(
        self,
    ) -> None:
        """Another number alone may be that of another mount."""
        Outcome = incidents.Outcome
        old, new = (1, None, None), (2, None, None)
        for key, good, outcome in (
            (old, incidents.Good(new, 150.0), Outcome.REPLACED),
            (old, incidents.Good(new, 100.0), Outcome.GOOD),
            (old, incidents.Good(new, None), Outcome.GOOD_OR_REPLACED),
            # Its number may be that of the next file.
            (old, incidents.Good(old, 150.0), Outcome.GOOD_OR_REPLACED),
            (old, incidents.Good(old, 100.0), Outcome.GOOD),
            (None, incidents.Good(new, 150.0), Outcome.GOOD_OR_REPLACED),
            # A server has birth times, and its client has none.
            ((1, 5, None), incidents.Good(new, 150.0), Outcome.REPLACED),
            (
                old,
                incidents.Good((1, 5, None), 150.0),
                Outcome.GOOD_OR_REPLACED,
            ),
        ):
            self.assertEqual(outcome, self.outcome(key, good), f'{key} {good}')

    def test_one_that_is_bad_as_well_is_what_it_is_about_then(self) -> None:
        known = NONE
        for key in ((1, 100, None), (2, 200, None)):
            seen = SEEN._replace(key=key)
            known = incidents.updated(known, {'x': seen}, {}, ('x',), 100.0)
        self.assertEqual((2, 200, None), known.incidents[0].key)

    def test_its_verdict_is_the_worst_that_was_seen(self) -> None:
        for first, then, worst in (
            ('differs', 'corrupt', 'corrupt'),
            ('corrupt', 'differs', 'corrupt'),
            ('unreadable', 'corrupt', 'corrupt'),
            ('corrupt', 'unreadable', 'corrupt'),
            ('differs', 'unreadable', 'unreadable'),
        ):
            known = NONE
            for verdict in (first, then):
                seen = incidents.Sight(verdict)
                known = incidents.updated(
                    known, {'x': seen}, {}, ('x',), 100.0
                )
            self.assertEqual(worst, known.incidents[0].verdict)

    def test_who_knows_when_it_was_good_last_may_come_later(self) -> None:
        known = NONE
        for last in (None, 50.0, 70.0):
            seen = incidents.Sight('corrupt', last_good=last)
            known = incidents.updated(known, {'x': seen}, {}, ('x',), 100.0)
        self.assertEqual(50.0, known.incidents[0].last_good)

    def test_who_looks_at_some_files_does_not_say_that_others_went(
        self,
    ) -> None:
        known = self.opened()
        self.assertEqual(known, incidents.updated(known, {}, {}, None, 200.0))

    def test_the_same_file_damaged_again_is_another(self) -> None:
        known = incidents.updated(
            self.opened(), {}, {'x': GOOD}, ('x',), 200.0
        )
        known = incidents.updated(known, {'x': SEEN}, {}, ('x',), 300.0)
        self.assertEqual([1, 2], [each.number for each in known.incidents])
        found = known.open('x')
        assert found is not None
        self.assertEqual(2, found.number)

    def test_who_looked_before_it_was_healed_opens_no_other_one(self) -> None:
        known = incidents.updated(
            self.opened(), {}, {'x': GOOD}, ('x',), 200.0
        )
        known = incidents.updated(known, {'x': SEEN}, {}, ('x',), 150.0)
        self.assertEqual([1], [each.number for each in known.incidents])

    def test_it_is_bounded_and_forgets_none_that_lasts(self) -> None:
        known = self.opened()
        for number in range(300):
            name = f'file-{number}'
            present = ('x', name)
            known = incidents.updated(
                known, {name: SEEN, 'x': SEEN}, {}, present, 200.0
            )
            known = incidents.updated(
                known, {'x': SEEN}, {name: GOOD}, present, 200.0
            )
        self.assertEqual(101, len(known.incidents))
        self.assertEqual('x', known.incidents[0].name)
        self.assertEqual(301, known.last)
        later = 200.0 + 401 * base.DAY
        known = incidents.updated(known, {}, {}, ('x',), later)
        self.assertEqual(['x'], [each.name for each in known.incidents])

    def test_of_a_thousand_guests_and_ranges_some_are_kept(self) -> None:
        seen = SEEN._replace(
            guests=tuple(map(str, range(1000))),
            ranges=tuple((each, each + 1) for each in range(1000)),
        )
        known = incidents.updated(NONE, {'x': seen}, {}, ('x',), 1.0)
        (one,) = known.incidents
        self.assertEqual((256, 64), (len(one.guests), len(one.ranges)))
