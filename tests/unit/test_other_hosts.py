# SPDX-License-Identifier: Apache-2.0

from nova_imagecache.cache import hosts
from nova_imagecache.witnesses import other_hosts
from nova_imagecache.witnesses import testimonies
from tests.support import base

NOW = 1_000 * base.DAY
AWAY = NOW - base.DAY - 1


class HostTest(base.TestCase):
    def test_who_sees_the_same_disks_needs_only_the_others_told(self) -> None:
        host = hosts.Host('x', below={'a': 1.0}, beyond={'b': 1.0})
        self.assertEqual({'b'}, host.needs(in_sight=True))
        self.assertEqual({'a', 'b'}, host.needs())

    def test_it_is_away_when_it_was_not_heard_of_for_a_day(self) -> None:
        self.assertTrue(hosts.Host('x', passed=AWAY).is_away(NOW))
        self.assertFalse(hosts.Host('x', passed=AWAY + 2).is_away(NOW))
        # The one whose clock is ahead is not, and nobody knows of the other.
        self.assertFalse(hosts.Host('x', passed=NOW + 1).is_away(NOW))
        self.assertFalse(hosts.Host('x').is_away(NOW))

    def test_a_use_that_was_noted_was_heard_too(self) -> None:
        for when, away in ((AWAY, True), (AWAY + 2, False)):
            for host in (
                hosts.Host('x', passed=AWAY, below={'a': when}),
                hosts.Host('x', passed=AWAY, beyond={'a': when}),
                hosts.Host('x', below={'a': when}),
            ):
                self.assertEqual(away, host.is_away(NOW))


class OutOfSightTest(base.TestCase):
    def out_of_sight(self, **said: dict[str, frozenset[str]]) -> set[str]:
        return {*testimonies.Testimony(**said).out_of_sight}  # type: ignore

    def test_a_guest_with_a_disk_that_others_see_is_in_sight(self) -> None:
        one, two = frozenset({'one'}), frozenset({'two'})
        self.assertEqual(
            set(), self.out_of_sight(said={'a': one}, below={'a': one | two})
        )
        self.assertEqual(
            {'a'}, self.out_of_sight(said={'a': one}, below={'a': two})
        )
        self.assertEqual(
            {'a'}, self.out_of_sight(said={'a': one}, below={'b': one})
        )

    def test_a_disk_elsewhere_is_not_whatever_else_there_is(self) -> None:
        one = frozenset({'one'})
        self.assertEqual(
            {'a'}, self.out_of_sight(beyond={'a': one}, below={'a': one})
        )

    def test_it_is_one_guest_by_whatever_name(self) -> None:
        found = testimonies.combine(
            [
                testimonies.Testimony(
                    aliases={'instance-1': 'uuid'},
                    said={'a': frozenset({'uuid'})},
                ),
                testimonies.Testimony(below={'a': frozenset({'instance-1'})}),
            ]
        )
        self.assertEqual(set(), {*found.out_of_sight})


class NotesTest(base.TestCase):
    def notes(
        self,
        *known: hosts.Host,
        kept: int = 1,
        registered: dict[str, float] | None = None,
    ) -> list[str]:
        by_name = {host.name: host for host in known}
        counts = dict.fromkeys(by_name, kept)
        return [*other_hosts.notes(by_name, counts, registered or {}, NOW)]

    def test_many_hosts_make_one_note(self) -> None:
        away = [hosts.Host(f'h{count}', passed=AWAY) for count in range(5)]
        (note,) = self.notes(*away)
        for name in ('h0', 'h1', 'h2', 'and 2 more', 'forget-host'):
            self.assertIn(name, note)
        self.assertNotIn('h3', note)

    def test_who_is_there_or_keeps_nothing_is_not_said(self) -> None:
        self.assertEqual([], self.notes(hosts.Host('x', passed=NOW)))
        self.assertEqual([], self.notes(hosts.Host('x', passed=AWAY), kept=0))

    def test_who_shares_and_has_noted_nothing_is_said_for_a_day(self) -> None:
        (note,) = self.notes(registered={'a': NOW, 'b': NOW, 'old': AWAY})
        self.assertIn('a, b: by compute_nodes', note)
        self.assertNotIn('old', note)

    def test_names_are_printable(self) -> None:
        (note,) = self.notes(hosts.Host('a\nb', passed=AWAY))
        self.assertTrue(note.isprintable())
        (note,) = self.notes(registered={'a\nb': NOW})
        self.assertTrue(note.isprintable())
