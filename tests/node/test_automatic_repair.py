# SPDX-License-Identifier: Apache-2.0

"""What a scrub has found is repaired by itself, where that is asked for."""

import dataclasses
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from oslo_config import cfg

from nova_imagecache.cache import coordination
from nova_imagecache.cache import hosts
from nova_imagecache.cache import records
from nova_imagecache.cli import healing as cli_healing
from nova_imagecache.conf import register_opts
from nova_imagecache.content import knowledge
from nova_imagecache.heal import accounts
from nova_imagecache.heal import automatic
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources
from nova_imagecache import manager
from nova_imagecache.scrub import background
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import turns
from tests.support import base
from tests.support import healing
from tests.support import image_server
from tests.support import scrubbing

BLOCK = healing.BLOCK
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
Result = outcomes.Result


class Down(healing.Given):
    """A source that cannot be asked."""

    def read(self, base: Any, wanted: Any) -> Any:
        self.asked.append(0)
        yield from ()
        raise sources.Unavailable(sources.State.UNREACHABLE, 'no route')


class HealerTest(healing.HealTestCase):
    def healer(self, *given: sources.Source) -> automatic.Healer:
        return automatic.Healer(
            self.node.settings,
            clock=self.node.clock,
            chance=lambda: 0.5,
            sources_of=lambda settings: [*given],
        )

    def account(self) -> accounts.Account:
        return accounts.load(self.node.layout, self.node.settings.host)

    def told(self) -> str:
        return ' '.join(
            accounts.sentences(self.account(), [self.name], self.node.clock())
        )

    def test_a_bad_block_is_repaired_and_charged(self) -> None:
        self.damage(1)
        outcome = self.healer(healing.Given(self.data)).heal(self.name)
        assert outcome is not None
        self.assert_healed()
        account = self.account()
        self.assertEqual(1, account.spent)
        self.assertEqual({'given': 1}, account.repaired)
        self.assertEqual({'repaired': 1}, account.results)
        self.assertEqual({}, account.files)

    def test_what_came_over_a_network_is_told_by_what_came_of_it(
        self,
    ) -> None:
        good = healing.Given(self.data)
        bad = healing.Given(bytes(len(self.data)), 'empty')
        down = Down(b'', 'down')
        for number, each in enumerate((bad, down, good), 1):
            each.fetched = number * BLOCK
        self.damage(1)
        self.healer(bad, down, good).heal(self.name)
        self.assertEqual(
            {
                'empty': {'other-bytes': BLOCK},
                'down': {'unreachable': 2 * BLOCK},
                'given': {'repaired': 3 * BLOCK},
            },
            self.account().fetched,
        )

    def test_what_an_earlier_release_has_counted_stays(self) -> None:
        earlier = records.Format('repairs', 1, dict)
        earlier.save(
            self.node.layout,
            hosts.record_path(
                self.node.layout.repairs, self.node.settings.host
            ),
            {
                'spent': 2.0, 'noted': None, 'files': {}, 'repaired': {},
                'results': {'repaired': 3}, 'fetched': {'ssh': 9},
            },
        )  # fmt: skip
        account = self.account()
        self.assertEqual({'ssh': {'unknown': 9}}, account.fetched)
        self.assertEqual(2.0, account.spent)

    def test_one_without_damage_is_left_alone(self) -> None:
        given = healing.Given(self.data)
        self.assertIsNone(self.healer(given).heal(self.name))
        self.assertEqual([], given.asked)

    def test_one_that_is_bad_as_a_whole_is_told_and_waits(self) -> None:
        """None of its blocks is known to be bad."""
        with open(self.sidecar, 'w') as file:
            file.write('0' * 40)
        os.utime(self.sidecar, (0, 0))
        self.node.make_pass().verify_now([self.name])
        given = healing.Given(self.data)
        self.assertIs(
            scrubbing.Verdict.CORRUPT, self.known(self.name).finding.verdict
        )
        self.assertEqual({}, self.bad(self.name))
        outcome = self.healer(given).heal(self.name)
        assert outcome is not None
        self.assertIn('as a whole', outcome.stopped)
        self.assertIn('as a whole', self.told())
        self.assertEqual([], given.asked)
        self.assertFalse(
            accounts.is_due(self.account(), [self.name], self.node.clock())
        )

    def test_a_budget_that_is_spent_pauses_says_so_and_refills(self) -> None:
        self.damage(1)
        spent = dataclasses.replace(
            self.account(), spent=20.0, noted=self.node.clock()
        )
        accounts.save(self.node.layout, self.node.settings.host, spent)
        given = healing.Given(self.data)
        before = self.content()
        self.healer(given).heal(self.name)
        self.assertEqual([], given.asked)
        self.assertEqual(before, self.content())
        self.assertIn('repairs pause', self.told())
        self.assertFalse(
            accounts.is_due(self.account(), [self.name], self.node.clock())
        )
        self.node.clock.advance(base.HOUR)
        self.assertTrue(
            accounts.is_due(self.account(), [self.name], self.node.clock())
        )
        self.healer(given).heal(self.name)
        self.assert_healed()

    def test_a_budget_for_one_block_repairs_one_block(self) -> None:
        self.damage(1, 2)
        spent = dataclasses.replace(
            self.account(), spent=19.0, noted=self.node.clock()
        )
        accounts.save(self.node.layout, self.node.settings.host, spent)
        self.healer(healing.Given(self.data)).heal(self.name)
        self.assertEqual({2: scrubbing.CORRUPT}, self.bad(self.name))
        self.assertIn('budget', self.told())

    def test_what_the_source_said_that_was_asked_last_is_told_first(
        self,
    ) -> None:
        """A line of the log has no room for all."""
        self.damage(1)
        self.healer(Down(b'', 'siblings'), Down(b'', 'image-service')).heal(
            self.name
        )
        told = self.told()
        self.assertLess(told.index('image-service'), told.index('siblings'))

    def test_one_that_is_killed_each_time_comes_to_its_end(self) -> None:
        """It is charged before anything is written."""
        self.damage(1)
        healer = self.healer(healing.Given(self.data))

        def die(*args: Any) -> None:
            raise KeyboardInterrupt

        healer = dataclasses.replace(healer, rewrite=die)
        self.assertRaises(KeyboardInterrupt, healer.heal, self.name)
        self.assertEqual(1, self.account().spent)

    def killed(self) -> None:
        def die(*args: Any) -> None:
            raise KeyboardInterrupt

        healer = self.healer(healing.Given(self.data))
        healer = dataclasses.replace(healer, rewrite=die)
        self.assertRaises(KeyboardInterrupt, healer.heal, self.name)

    def test_one_that_is_killed_is_counted_by_the_next_one_and_once(
        self,
    ) -> None:
        self.damage(1, 2)
        self.killed()
        self.assertEqual({}, self.account().results)
        for _time in range(2):
            self.healer(healing.Given(self.data)).heal(self.name)
            self.assertEqual(
                {'interrupted': 2, 'repaired': 2}, self.account().results
            )

    def test_one_that_is_killed_again_and_again_is_counted_each_time(
        self,
    ) -> None:
        self.damage(1)
        for _time in range(3):
            self.killed()
        self.assertEqual({'interrupted': 2}, self.account().results)
        self.assertEqual({self.name: 1}, self.account().begun)

    def test_one_that_is_killed_is_counted_by_a_scrub_that_repairs_nothing(
        self,
    ) -> None:
        self.damage(1)
        self.killed()
        acting = cli_healing.Acting(self.healer())
        self.assertEqual('report', self.node.settings.corruption_action)
        for _time in range(2):
            acting.act_on_all()
            self.assertEqual({'interrupted': 1}, self.account().results)
        self.assertEqual({}, self.account().begun)

    def test_while_another_repairs_none_is_taken_for_killed(self) -> None:
        self.damage(1)
        self.killed()
        before = self.account()
        coordinator = coordination.coordinator(self.node.layout)
        with coordinator.turn():
            cli_healing.Acting(self.healer()).act_on_all()
        self.assertEqual(before, self.account())

    def test_blocks_that_it_was_told_to_stop_before_are_interrupted(
        self,
    ) -> None:
        self.damage(1, 2)
        healer = self.healer(healing.Given(self.data))
        healer = dataclasses.replace(healer, pulse=healer.stop.set)
        healer.heal(self.name)
        self.assertEqual(
            {'repaired': 1, 'interrupted': 1}, self.account().results
        )

    def test_what_was_not_written_is_not_charged(self) -> None:
        self.damage(1)
        self.healer(Down(b'')).heal(self.name)
        self.assertEqual(0, self.account().spent)

    def test_a_file_that_is_mostly_bad_is_left_to_a_person(self) -> None:
        self.damage(0, 1, 2)
        given = healing.Given(self.data)
        before = self.content()
        self.healer(given).heal(self.name)
        self.assertEqual([], given.asked)
        self.assertEqual(before, self.content())
        self.assertEqual(
            'left-to-a-person', self.account().files[self.name].last.state
        )
        self.assertIn('nova-imagecache repair', self.told())

    def test_a_source_that_is_down_is_asked_again_later(self) -> None:
        self.damage(1)
        down = Down(b'', 'image-service')
        healer = self.healer(down)
        healer.heal(self.name)
        found = self.account().files[self.name]
        self.assertEqual(
            ('unreachable', 1, 600.0),
            (
                found.sources['image-service'].state,
                found.sources['image-service'].tries,
                found.sources['image-service'].wait,
            ),
        )
        self.assertIn('no route', self.told())
        self.node.clock.advance(590)
        self.assertIsNone(healer.heal(self.name))
        self.assertEqual(1, len(down.asked))
        self.node.clock.advance(20)
        healer.heal(self.name)
        self.assertEqual(2, len(down.asked))
        found = self.account().files[self.name]
        self.assertEqual(1200.0, found.sources['image-service'].wait)

    def test_it_says_after_each_block_that_it_goes_on(self) -> None:
        """On a disk that is dying, each may take minutes."""
        self.damage(1, 2)
        pulses: list[int] = []
        healer = dataclasses.replace(
            self.healer(healing.Given(self.data)),
            pulse=lambda: pulses.append(1),
        )
        healer.heal(self.name)
        self.assertEqual(2, len(pulses))

    def test_what_a_server_says_without_an_end_is_cut(self) -> None:
        """A record has its limit, and is not read beyond that."""
        long = 'x' * 10**6
        account = self.account().failing(
            self.name, 'no-data', long, {'one': ('failed', long)},
            self.node.clock(), 0.5,
        )  # fmt: skip
        accounts.save(self.node.layout, self.node.settings.host, account)
        found = self.account().files[self.name]
        for attempt in (found.last, found.sources['one']):
            self.assertEqual(300, len(attempt.message))

    def test_a_clock_that_was_set_back_does_not_stop_repairs(self) -> None:
        """After a reboot, for as long as it takes to be there again."""
        self.damage(1)
        now = self.node.clock()
        later = dataclasses.replace(
            now, wall=now.wall + 10**9, boot_id='before'
        )
        account = self.account().failing(
            self.name, 'no-data', 'x', {'given': ('unreachable', 'x')}, later,
            0.5,
        )  # fmt: skip
        account = dataclasses.replace(account, spent=20.0, noted=later)
        accounts.save(self.node.layout, self.node.settings.host, account)
        self.node.clock.advance(2 * base.DAY)
        self.healer(healing.Given(self.data)).heal(self.name)
        self.assert_healed()

    def test_what_fetched_much_for_nothing_is_asked_much_later(self) -> None:
        """As where all of an image came, and with other bytes."""
        self.damage(1)
        down = Down(b'', 'image-service')
        down.fetched = 10 * 2**30
        self.healer(down).heal(self.name)
        found = self.account().files[self.name]
        self.assertEqual(40960.0, found.sources['image-service'].wait)
        self.assertEqual(600.0, found.last.wait)

    def test_a_damaged_record_is_as_good_as_none(self) -> None:
        self.damage(1)
        accounts.save(
            self.node.layout, self.node.settings.host, accounts.Account()
        )
        path = self.node.layout.repairs + '/_' + self.node.settings.host
        with open(path, 'wb') as file:
            file.write(b'garbage')
        self.healer(healing.Given(self.data)).heal(self.name)
        self.assert_healed()

    def test_where_nothing_can_be_noted_nothing_is_written(self) -> None:
        self.damage(1)
        before = self.content()

        def refuse(*args: Any) -> None:
            raise PermissionError(13, 'Permission denied')

        self.patch(accounts, 'save', refuse)
        outcome = self.healer(healing.Given(self.data)).heal(self.name)
        assert outcome is not None
        self.assertIn('cannot be noted', outcome.stopped)
        self.assertEqual(before, self.content())

    def test_the_report_says_why_a_file_is_still_bad(self) -> None:
        self.damage(1)
        self.healer(Down(b'')).heal(self.name)
        self.node.configure(corruption_action='repair')
        report = self.node.make_pass().preview()
        self.assertIn('no route', ' '.join(report.problems))


class WholeTest(healing.HealTestCase):
    """An image of which there are no parts to be had, for the scrub."""

    image = image_server.ID

    def setUp(self) -> None:
        super().setUp()
        self.node.add_overlay(GUEST, self.name)
        target = self.file(self.name)
        kept = keeper.Keeper(target, knowledge.recall(target))
        assert kept.known.ledger is not None
        kept.publish(
            dataclasses.replace(kept.known.ledger, image=self.image),
            kept.recall_blocks(),
        )
        self.flip(1)
        self.drop()
        stored = image_server.Stored(
            self.copy, stores='one', rangeless=('one',)
        )
        self.server = self.useFixture(image_server.ImageServer(stored))
        self.write_conf(
            checksum_base_images='true', corruption_action='repair'
        )
        with open(self.nova_conf, 'a') as file:
            file.write(
                '[service_user]\nauth_type = none\n'
                f'[glance]\nendpoint_override = {self.server.url}\n'
            )

    def test_all_of_it_is_read_and_the_block_is_good(self) -> None:
        _code, _stdout, said = self.run_command('scrub')
        self.assert_healed()
        self.assertIn('image-service', said)
        self.assertEqual(1, self.server.asked.count(None))

    def test_one_that_wants_to_verify_does_not_wait_for_it(self) -> None:
        """It gives way within the patience of who waits."""
        hung, over = threading.Event(), threading.Event()
        self.addCleanup(over.set)

        def fault(it: image_server.Handler) -> None:
            if 'Range' in it.headers:
                it.reply(400)
                return
            hung.set()
            over.wait(60)

        self.server.stored.fault = fault
        scrub = subprocess.Popen(
            [sys.executable, '-m', 'nova_imagecache', '--config-file',
             self.nova_conf, 'scrub'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(scrub.wait)
        self.addCleanup(scrub.kill)
        self.assertTrue(hung.wait(10))
        self.patch(turns, '_PATIENCE_SECONDS', 20)
        with turns.urgent(self.node.settings, 'verify'):
            scrub.wait(60)
        account = accounts.load(self.node.layout, socket.gethostname())
        (file,) = account.files.values()
        self.assertEqual('stopped', file.sources['image-service'].state)
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        self.assertEqual([], os.listdir(self.node.layout.temporary))


class ManagerTest(healing.HealTestCase):
    """A pass starts the scrub for a repair, where nothing is to be read."""

    def wanted(
        self,
    ) -> bool:
        conf = cfg.ConfigOpts()
        register_opts(conf)
        conf([], project='nova', default_config_files=[self.nova_conf])
        one = manager.ImageCacheManager(conf, clock=self.node.clock)
        found: list[bool] = []

        def keep(*args: Any) -> Any:
            *_others, wanted = args
            found.append(wanted)
            return []

        self.patch(background.Scrub, 'keep', keep)
        one.update(None, None)
        return found[0]

    def write(self, action: str) -> None:
        self.write_conf(checksum_base_images='true', corruption_action=action)

    def test_where_a_bad_file_is_due(self) -> None:
        self.write('repair')
        self.assertFalse(self.wanted())
        self.damage(1)
        self.assertTrue(self.wanted())
        account = accounts.Account(spent=30.0, noted=self.node.clock())
        accounts.save(self.node.layout, socket.gethostname(), account)
        self.assertFalse(self.wanted())

    def test_and_not_where_it_is_only_reported(self) -> None:
        self.write('report')
        self.damage(1)
        self.assertFalse(self.wanted())


class ScrubTest(healing.HealTestCase):
    """The scrub process, with corruption_action."""

    def setUp(self) -> None:
        super().setUp()
        # A resized sibling is what good data comes from.
        self.node.add_base(
            f'{self.name}_20', data=self.data, size=len(self.data) + BLOCK
        )

    def scrub_as(self, action: str) -> str:
        self.write_conf(checksum_base_images='true', corruption_action=action)
        _code, _stdout, stderr = self.run_command('scrub')
        return stderr

    def test_by_default_damage_is_only_reported(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.flip(1)
        before = self.content()
        self.drop()
        self.scrub_as('report')
        self.assertEqual(before, self.content())
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_a_file_in_use_is_repaired_as_soon_as_it_is_found_bad(
        self,
    ) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.flip(1)
        self.drop()
        said = self.scrub_as('repair')
        self.assert_healed()
        self.assertIn('siblings', said)

    def test_pages_that_stay_wrong_in_the_cache_are_told(self) -> None:
        self.patch(pages, 'drop_stale', lambda *_: (2, 1))
        self.node.add_overlay(GUEST, self.name)
        self.flip(1)
        self.drop()
        said = self.scrub_as('repair')
        self.assertIn(
            f'[P19] Base file {self.name}: bytes {BLOCK}-{2 * BLOCK - 1} are '
            'good on the medium: 1 of its pages in the page cache are wrong',
            said,
        )
        self.assertIn(f'[C09] Guest {GUEST} disk may read wrong bytes', said)

    def test_what_was_found_before_is_repaired_too(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.damage(1)
        self.node.configure(checksum_interval=base.DAY)
        self.scrub_as('repair')
        self.assert_healed()

    def test_set_aside_touches_nothing_that_is_in_use(self) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.flip(1)
        before = self.content()
        self.drop()
        self.scrub_as('set_aside')
        self.assertEqual(before, self.content())
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_a_file_that_nobody_uses_is_set_aside(self) -> None:
        self.node.set_age(self.name, 2 * base.DAY)
        self.flip(1)
        self.drop()
        said = self.scrub_as('repair')
        self.assertNotIn(self.name, self.node.files())
        self.assertEqual({self.name}, self.node.trash())
        self.assertIn('fetched anew', said)

    def test_it_is_kept_in_the_trash_to_be_looked_at(self) -> None:
        self.node.set_age(self.name, 2 * base.DAY)
        self.flip(1)
        self.drop()
        self.scrub_as('set_aside')
        self.node.configure(corruption_action='set_aside')
        self.node.clock = base.FakeClock.of_this_machine()
        self.node.clock.advance(60)
        self.node.run()
        self.node.clock.advance(6 * base.DAY)
        report = self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        (file,) = report.trash
        self.assertIn('kept to be looked at', file.reason)
        self.node.configure(remove_unused=True)
        self.node.clock.advance(2 * base.DAY)
        self.node.run()
        self.assertNotIn(self.name, self.node.trash())
