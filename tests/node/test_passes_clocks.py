# SPDX-License-Identifier: Apache-2.0

"""What passes believe of clocks, and what they do when they cannot."""

import os
import time
from typing import Any

from nova_imagecache.cache import publish
from nova_imagecache.cache import states
from nova_imagecache.passes import decide
from nova_imagecache.passes import look
from tests.support import base
from tests.support import nodes


class ClockTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image')

    def test_what_was_used_a_minute_ago_does_not_go_after_a_jump(
        self,
    ) -> None:
        self.node.run()
        self.node.clock.advance(60)
        self.node.clock.jump(2 * base.DAY)
        for seconds in (60, 61):
            file = self.file_of(self.node.run(), self.name)
            self.assertEqual(f'unused for {seconds} s of 86400 s', file.reason)
            self.node.clock.advance(1)
        self.assertIn(self.name, self.node.files())

    def test_a_jump_is_said_once_and_keeps_nothing_that_is_old_for_certain(
        self,
    ) -> None:
        self.node.run()
        self.node.clock.advance(25 * base.HOUR)
        self.node.clock.jump(base.HOUR)
        young = self.node.add_image('young', age=base.HOUR)
        preview = self.node.make_pass().preview()
        report = self.node.run()
        for each in (preview, report):
            self.assertIn('forward by 3600 s', each.notes[0])
            self.assertEqual(((), ()), (each.vetoes, each.problems))
            self.assertEqual([self.name], [file.name for file in each.removed])
        self.node.clock.advance(60)
        self.assertEqual((), self.node.run().notes)
        self.assertEqual({young}, self.node.files())

    def test_after_a_jump_of_years_ages_begin_anew(self) -> None:
        self.node.add_image('other', age=20 * base.HOUR)
        for years in (50, -50, -50):
            self.node.run()
            self.node.clock.jump(years * 365 * base.DAY)
        self.node.run()
        self.node.clock.advance(23 * base.HOUR)
        self.assertEqual((), self.node.run().removed)
        self.node.clock.advance(base.HOUR)
        self.assertEqual(2, len(self.node.run().removed))

    def test_a_node_whose_clock_is_set_each_day_removes_all_the_same(
        self,
    ) -> None:
        for seconds in (base.HOUR, -base.HOUR):
            name = self.node.add_image('another')
            for _day in range(3):
                self.node.run()
                self.node.clock.advance(base.DAY)
                self.node.clock.jump(seconds)
            self.node.run()
            self.assertNotIn(name, self.node.files())

    def test_a_clock_that_is_set_back_a_little_makes_no_file_old(
        self,
    ) -> None:
        self.node.run()
        self.node.clock.advance(1)
        self.node.run()
        self.node.clock.jump(-30)
        report = self.node.run()
        self.assertEqual((), report.vetoes)
        self.assertIn('unused for 0 s', self.file_of(report, self.name).reason)

    def test_a_host_whose_clock_is_late_takes_no_new_file_for_old(
        self,
    ) -> None:
        self.node.run()
        self.node.clock.advance(-1)
        self.node.configure(host='other')
        self.assertIn(
            'unused for 0 s', self.file_of(self.node.run(), self.name).reason
        )

    def test_a_jump_since_a_pass_over_an_empty_cache_is_noticed(self) -> None:
        os.unlink(self.node.base_path(self.name))
        self.node.run()
        self.node.add_base(self.name)
        self.node.clock.jump(30 * base.DAY)
        self.assertIn('clock', self.node.run().notes[0])
        self.assertIn(self.name, self.node.files())

    def test_a_use_noted_by_a_host_whose_clock_is_late_counts(self) -> None:
        self.node.set_age(self.name, 365 * base.DAY)
        real = look.look

        def looking(*args: Any) -> Any:
            facts = real(*args)
            self.node.clock.advance(-5)
            states.note_use(self.node.layout, self.name, self.node.clock())
            self.node.clock.advance(5)
            return facts

        self.patch(look, 'look', looking)
        file = self.file_of(self.node.run(), self.name)
        self.assertIn('noted', file.reason)
        self.assertIn(self.name, self.node.files())

    def test_while_our_clock_is_not_that_of_the_storage_ages_are_uncertain(
        self,
    ) -> None:
        young = self.node.add_image('young', age=3 * base.DAY - base.HOUR)
        self.node.set_age(self.name, 3 * base.DAY + base.HOUR)
        real = publish.current_time

        # Mocked: the clock of a server takes a server.
        def behind(directory: str) -> float:
            return real(directory) - 2 * base.DAY

        self.patch(publish, 'current_time', behind)
        for _pass in range(2):
            report = self.node.run()
            self.assertEqual((), report.vetoes)
            (problem,) = report.problems
            self.assertIn('172800 s ahead of that of the storage', problem)
            self.assertEqual({young}, self.node.files())
        self.assertIn('unused for 82800 s', self.file_of(report, young).reason)
        self.patch(publish, 'current_time', real)
        self.assertEqual((), self.node.run().problems)
        self.assertEqual(set(), self.node.files())

    def test_where_others_go_by_what_is_noted_nothing_goes_then(self) -> None:
        node = self.node
        node.set_age(self.name, 3 * base.DAY)
        real = publish.current_time
        node.configure(host='another')
        self.patch(publish, 'current_time', lambda path: real(path) - 700)
        node.configure(remove_unused=False)
        self.assertEqual((), node.run().vetoes)
        node.configure(host='first', remove_unused=True)
        (veto,) = node.run().vetoes
        self.assertIn('700 s from that of the storage', veto)
        self.assertIn('set both to the same time', veto)
        self.assertEqual({self.name}, node.files())
        self.patch(publish, 'current_time', lambda path: real(path) - 500)
        self.assertEqual((), node.run().vetoes)
        self.assertEqual(set(), node.files())

    def test_nor_does_it_change_the_times_that_others_have_noted(self) -> None:
        node = self.node
        node.set_age(self.name, 3 * base.DAY)
        node.run()
        self.assertEqual({self.name}, node.trash())
        real, wall = publish.current_time, node.clock.wall
        node.configure(host='another')
        node.clock.wall -= 900 * base.DAY
        node.clock.boot_id = 'another-boot'
        self.patch(publish, 'current_time', lambda path: real(path) + 7000)
        node.run()
        node.configure(host='first')
        node.clock.wall, node.clock.boot_id = wall + 100, 'first-boot'
        node.clock.boottime += 100
        self.patch(publish, 'current_time', real)
        node.run()
        self.assertEqual({self.name}, node.trash())

    def test_nothing_is_set_aside_then_either(self) -> None:
        self.node.set_age(self.name, base.HOUR)
        real = publish.current_time
        self.patch(
            publish, 'current_time', lambda path: real(path) - base.HOUR
        )
        reason = self.node.make_pass().set_aside(self.name)
        self.assertIn('unused for 0 s of 600 s', str(reason))
        self.assertIn(self.name, self.node.files())
        self.patch(publish, 'current_time', real)
        self.spoil()
        self.assertIsNone(self.node.make_pass().set_aside(self.name))
        self.assertEqual({self.name}, self.node.trash())

    def spoil(self) -> None:
        """Have it known that the file is bad."""
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        nodes.flip_bit(self.node.base_path(self.name))
        self.node.run()

    def test_what_is_not_known_to_be_bad_is_not_set_aside(self) -> None:
        self.node.set_age(self.name, base.HOUR)
        reason = self.node.make_pass().set_aside(self.name)
        self.assertEqual('it is not known to be bad', reason)
        self.assertIn(self.name, self.node.files())

    def test_what_was_used_lately_is_not_set_aside(self) -> None:
        self.node.set_age(self.name, decide.FLOOR_SECONDS - 1)
        reason = self.node.make_pass().set_aside(self.name)
        self.assertIn('unused for 599 s', str(reason))
        self.assertIn(self.name, self.node.files())

    def test_a_container_that_is_made_anew_is_no_jump(self) -> None:
        self.node.run()
        self.node.clock.advance(2400)
        self.node.clock.boot_id = 'another container'
        self.assertEqual((), self.node.run().vetoes)

    def test_within_a_boot_no_jump_is_time_in_the_trash(self) -> None:
        self.node.set_age(self.name, 2 * base.DAY)
        self.node.run()
        self.node.clock.jump(30 * base.DAY)
        self.node.run()
        self.node.clock.advance(3599)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        self.node.clock.advance(1)
        self.node.run()
        self.assertEqual(set(), self.node.trash())

    def test_a_jump_begins_the_time_in_the_trash_anew(self) -> None:
        self.node.set_age(self.name, 2 * base.DAY)
        self.node.run()
        self.node.clock.jump(-30 * base.DAY)
        self.node.run()
        self.node.clock.jump(30 * base.DAY)
        self.node.run()
        self.node.clock.advance(60)
        self.node.clock.boot_id = 'second-boot'
        self.node.clock.boottime = 30.0
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())

    def test_the_time_of_the_storage_is_that_of_its_files(self) -> None:
        apart = time.time() - publish.current_time(self.temporary)
        self.assertLess(abs(apart), 60)

    def test_the_storage_that_is_asked_for_its_time_is_that_of_the_cache(
        self,
    ) -> None:
        """The clock of another file system dates no base file."""
        asked: list[str] = []
        real = os.utime

        def utime(path: Any, *args: Any, **kwargs: Any) -> None:
            if isinstance(path, int):
                asked.append(os.readlink(f'/proc/self/fd/{path}'))
            real(path, *args, **kwargs)

        self.patch(os, 'utime', utime)
        self.node.run()
        self.assertEqual(
            [self.node.layout.temporary],
            [os.path.dirname(path) for path in asked],
        )
        self.assertEqual(
            os.stat(self.node.layout.base).st_dev,
            os.stat(self.node.layout.temporary).st_dev,
        )

    def test_a_clock_set_back_over_a_reboot_keeps_no_trash_for_ever(
        self,
    ) -> None:
        self.node.clock.wall += 365 * base.DAY
        self.node.set_age(self.name, 2 * base.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        self.node.clock.wall -= 365 * base.DAY
        self.node.clock.boottime = 60.0
        self.node.clock.boot_id = 'second-boot'
        self.node.run()
        self.node.clock.advance(3601)
        self.node.run()
        self.assertEqual(set(), self.node.trash())
