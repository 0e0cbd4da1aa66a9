# SPDX-License-Identifier: Apache-2.0

"""Who has passed under the name of a host."""

import dataclasses

from nova_imagecache.cache import machines
from nova_imagecache.cache import states
from nova_imagecache import clocks
from tests.support import base

NOW = 2e9

Boots = tuple[machines.Boot, ...]


class Machine:
    """A machine that makes passes.

    :ivar ahead: seconds by which its clock is
    """

    def __init__(
        self, boot_id: str, uptime: float, machine: str | None = None
    ) -> None:
        self.boot_id, self.uptime = boot_id, uptime
        self.machine = machine
        self.ahead = 0.0

    def now(self, after: float = 0.0) -> clocks.Instant:
        return clocks.Instant(
            NOW + after + self.ahead, self.uptime + after, self.boot_id
        )

    def enter(self, boots: Boots, after: float = 0.0) -> tuple[Boots, float]:
        """Make a pass, so many seconds after the beginning."""
        return machines.entered(boots, self.now(after), self.machine)

    def reboot(self, after: float, boot_id: str) -> None:
        self.uptime, self.boot_id = -after, boot_id


class TwinsTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.one = Machine('one', 10.0 * base.DAY)
        self.other = Machine('other', 20.0 * base.DAY)

    def told(self, boots: Boots, after: float) -> str | None:
        return machines.tell_twins('compute1', boots, self.one.now(after))

    def by_turns(
        self, rounds: int = 3, boots: Boots = ()
    ) -> tuple[Boots, list[float]]:
        """Have both make passes by turns, every ten minutes."""
        jumps = []
        for number in range(2 * rounds):
            machine = (self.one, self.other)[number % 2]
            boots, jump = machine.enter(boots, 600.0 * number)
            jumps.append(jump)
        return boots, jumps

    def test_one_machine_is_one(self) -> None:
        boots: Boots = ()
        for number in range(5):
            boots, jump = self.one.enter(boots, 600.0 * number)
            self.assertEqual(0, jump)
            self.assertIsNone(self.told(boots, 600.0 * number))
        self.assertEqual(1, len(boots))

    def test_a_boot_that_comes_back_tells_that_there_are_two(self) -> None:
        boots, jumps = self.by_turns()
        text = str(self.told(boots, 3000))
        self.assertIn('two machines call themselves compute1', text)
        for words in ('one', 'other', '2033-05-18', '[DEFAULT]/host'):
            self.assertIn(words, text)
        # Once, as nothing tells yet that this is no reboot.
        self.assertEqual([0.0] * 4, jumps[2:])

    def test_what_tells_machines_apart_tells_it_at_once(self) -> None:
        self.one.machine, self.other.machine = 'a', 'b'
        boots, jumps = self.by_turns(rounds=1)
        self.assertIsNotNone(self.told(boots, 600))
        self.assertEqual([0.0, 0.0], jumps)

    def test_a_clock_is_compared_with_itself_alone(self) -> None:
        self.other.ahead = 365.0 * base.DAY
        boots, _jumps = self.by_turns()
        _boots, jumps = self.by_turns(boots=boots)
        self.assertEqual({0.0}, set(jumps))
        self.one.ahead = 5000.0
        boots, jump = self.one.enter(boots, 3600)
        self.assertEqual(5000, jump)

    def test_it_is_told_for_a_day(self) -> None:
        boots, _jumps = self.by_turns()
        for number in range(1, 30):
            after = number * base.HOUR
            boots, _jump = self.one.enter(boots, after)
            told = self.told(boots, after)
        self.assertIsNone(told)

    def test_a_pass_that_is_added_again_changes_nothing(self) -> None:
        boots, _jumps = self.by_turns()
        again, jump = self.other.enter(boots, 3000)
        self.assertEqual((boots, 0), (again, jump))

    def test_a_reboot_is_none(self) -> None:
        for machine in (None, 'a', 'reinstalled'):
            boots, _jump = self.one.enter(())
            self.one.reboot(500, 'next')
            self.one.machine = machine
            boots, jump = self.one.enter(boots, 560)
            self.assertEqual(0, jump)
            boots, jump = self.one.enter(boots, 9000)
            self.assertEqual(0, jump)
            self.assertIsNone(self.told(boots, 9000))

    def test_a_container_that_is_made_anew_is_none(self) -> None:
        boots: Boots = ()
        for number in range(6):
            self.one.machine = f'machine {number}'
            self.one.boot_id = f'boot {number // 2}'
            boots, jump = self.one.enter(boots, 600.0 * number)
            self.assertEqual(0, jump)
            self.assertIsNone(self.told(boots, 600.0 * number))

    def test_a_clock_that_goes_back_over_a_reboot_is_told(self) -> None:
        boots, _jump = self.one.enter(())
        self.one.reboot(500, 'next')
        self.one.ahead = -9000.0
        _boots, jump = self.one.enter(boots, 560)
        self.assertEqual(560 - 9000 - 60, jump)

    def test_four_boots_are_kept(self) -> None:
        boots: Boots = ()
        for number in range(9):
            self.one.boot_id = str(number)
            boots, _jump = self.one.enter(boots, 600.0 * number)
        self.assertEqual(
            ['5', '6', '7', '8'], [boot.passed.boot_id for boot in boots]
        )


class BesideTest(base.TestCase):
    """What tells two machines apart before one has come back."""

    def are_two(
        self,
        passed: float = 61.0,
        began: float = -base.DAY,
        machine: str | None = 'b',
        ours: str | None = 'a',
    ) -> bool:
        """Ask, in seconds from when ours was started."""
        start = NOW - base.DAY
        last = clocks.Instant(start + passed, passed - began, 'theirs')
        boots, _jump = machines.entered(
            [machines.Boot(last, machine, None)],
            clocks.Instant(NOW, base.DAY, 'ours'),
            ours,
        )
        return any(boot.twin for boot in boots)

    def test_one_that_passed_when_ours_had_been_started(self) -> None:
        self.assertTrue(self.are_two())
        for passed in (60.0, 0.0, -60.0, -base.DAY):
            self.assertFalse(self.are_two(passed))

    def test_both_have_to_be_known_and_to_differ(self) -> None:
        for machine, ours in (
            (None, 'a'), ('b', None), (None, None), ('a', 'a'),
        ):  # fmt: skip
            self.assertFalse(self.are_two(machine=machine, ours=ours))

    def test_what_was_started_at_the_same_moment_is_one(self) -> None:
        for began in (-60.0, 0.0, 60.0):
            self.assertFalse(self.are_two(3600.0, began))
        self.assertTrue(self.are_two(3600.0, -61.0))
        self.assertTrue(self.are_two(3600.0, 61.0))

    def test_after_a_reboot_it_is_the_last_pass_that_counts(self) -> None:
        boots: Boots = ()
        machine = Machine('0', base.DAY)
        for number in range(3):
            boots, _jump = machine.enter(boots, 9000.0 * number)
            machine.reboot(9000.0 * number + 60, str(number + 1))
        machine.ahead = -7000.0
        _boots, jump = machine.enter(boots, 18120)
        self.assertEqual(120 - 7000 - 60, jump)

    def test_so_it_is_where_there_is_another_machine_as_well(self) -> None:
        one = Machine('one', 10.0 * base.DAY, 'a')
        other = Machine('other', 20.0 * base.DAY, 'b')
        boots, _jump = other.enter(())
        boots, _jump = one.enter(boots, 10)
        one.reboot(20, 'next')
        one.ahead = -7000.0
        _boots, jump = one.enter(boots, 80)
        self.assertEqual(70 - 7000 - 60, jump)

    def test_for_how_long_it_is_told(self) -> None:
        then = clocks.Instant(NOW, 5.0, 'a')
        boots = [machines.Boot(then, None, then)] * 3
        for after, told in ((base.DAY - 1, True), (base.DAY, False)):
            now = clocks.Instant(NOW + after, 5.0 + after, 'a')
            found = machines.tell_twins('host', boots, now)
            self.assertIs(told, found is not None)
        text = str(machines.tell_twins('host', boots, then))
        self.assertEqual(2, text.count('passed on'))


class StateTest(base.TestCase):
    """What a state makes of it."""

    def enter(
        self, state: states.State, machine: Machine, after: float
    ) -> states.State:
        return state.entered('here', machine.now(after), machine.machine)[0]

    def test_steps_are_kept_by_host(self) -> None:
        one = Machine('one', base.DAY)
        state = self.enter(states.State(), one, 0)
        one.ahead = 5000.0
        state = self.enter(state, one, 60)
        step = clocks.Step(NOW + 5060, 5000.0, 'one')
        self.assertEqual({'here': (step,)}, state.steps)
        # As in the look of a pass, and when it is remembered.
        self.assertEqual(state, self.enter(state, one, 60))

    def test_nothing_is_counted_from_the_clock_of_the_other_one(self) -> None:
        one, other = Machine('one', base.DAY), Machine('other', 5.0 * base.DAY)
        state = states.State()
        for number in range(4):
            machine = (one, other)[number % 2]
            state = self.enter(state, machine, 600.0 * number)
        used = one.now(2900).wall
        one.ahead = 50.0 * base.DAY
        state = self.enter(state, one, 3000)
        other.ahead = 100.0
        state = self.enter(state, other, 3600)
        state = self.enter(state, one, 4200)
        # What it was set by may be of ours; when, is not.
        age = state.certain_age('here', used, one.now(4200))
        self.assertEqual(1300 - 100, age)

    def test_the_boots_of_both_are_not_over(self) -> None:
        one, other = Machine('one', base.DAY), Machine('other', 5.0 * base.DAY)
        state = states.State()
        for number in range(3):
            machine = (one, other)[number % 2]
            state = self.enter(state, machine, 600.0 * number)
        self.assertEqual({'one', 'other'}, state.other_boots('here'))
        there = dataclasses.replace(
            state, boots={'there': state.boots['here'][-1:]}
        )
        self.assertEqual({'one'}, there.other_boots('here'))
