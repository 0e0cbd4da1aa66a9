# SPDX-License-Identifier: Apache-2.0

"""The commands that tell of the hosts on one cache, and forget one."""

import os

from nova_imagecache.cache import hosts
from nova_imagecache.cache import inventories
from tests.support import base
from tests.support import shell

NEEDED = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


class HostsTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.add_base(NEEDED, age=365 * base.DAY)
        self.node.clock.advance(-3 * base.DAY)
        self.note('away')
        self.node.clock.advance(3 * base.DAY)

    def note(self, host: str) -> None:
        """Have a host note that its guests need the base file."""
        os.makedirs(self.node.layout.own_locks, exist_ok=True)
        os.makedirs(self.node.layout.temporary, exist_ok=True)
        hosts.remember(
            self.node.layout,
            host,
            self.node.clock.wall,
            frozenset({NEEDED}),
            frozenset(),
            True,
        )

    def known(self) -> set[str]:
        return {*hosts.names_of(self.node.layout)}

    def fail(self, *argv: str) -> str:  # type: ignore[override]
        """Run what cannot be done; give what it says."""
        code, _stdout, stderr = self.run_command(*argv)
        self.assertEqual(1, code)
        self.assertNotIn('Traceback', stderr)
        return stderr

    def test_hosts_are_listed_with_what_they_need(self) -> None:
        self.note('here')
        away, here = self.rows('hosts')
        self.assertEqual(
            ('away', 1, True), (away['host'], away['files'], away['away'])
        )
        self.assertAlmostEqual(3 * base.DAY, away['passed_ago'], delta=99)
        self.assertEqual(away['passed_ago'], away['complete_ago'])
        self.assertEqual(
            ('here', 1, False), (here['host'], here['files'], here['away'])
        )

    def test_without_any_there_is_nothing_to_list(self) -> None:
        hosts.forget(self.node.layout, 'away')
        self.assertEqual([], self.rows('hosts'))

    def test_a_record_that_cannot_be_read_is_said(self) -> None:
        path = os.path.join(self.node.layout.hosts, '_away')
        with open(path, 'w') as file:
            file.write('garbage')
        code, stdout, stderr = self.run_command('hosts')
        self.assertEqual(1, code)
        self.assertIn('away', stdout)
        self.assertIn('What host away needs cannot be read', stderr)
        self.assertIn('nova-imagecache forget-host away', stderr)
        self.rows('forget-host', 'away')
        self.assertEqual(set(), self.known())

    def test_status_has_them(self) -> None:
        code, stdout, _stderr = self.run_command('status')
        self.assertEqual(0, code)
        self.assertIn('Hosts     1 other on this cache; away: away', stdout)

    def test_a_host_is_forgotten_with_all_that_it_has_noted(self) -> None:
        inventories.save(
            self.node.layout,
            'away',
            inventories.Inventory(mount='/'),
            inventories.Inventory(),
        )
        (row,) = self.rows('forget-host', 'away')
        self.assertEqual({'host': 'away', 'files': 1, 'forgotten': True}, row)
        self.assertNotIn('away', self.known())
        self.assertEqual(
            inventories.Inventory(),
            inventories.load(self.node.layout, 'away'),
        )

    def test_a_dry_run_forgets_nothing(self) -> None:
        (row,) = self.rows('forget-host', '--dry-run', 'away')
        self.assertEqual({'host': 'away', 'files': 1, 'forgotten': False}, row)
        self.assertEqual({'away'}, self.known())

    def test_an_unknown_host_is_one_clear_line_and_none_is_forgotten(
        self,
    ) -> None:
        for argv in (['nobody'], ['away', 'nobody']):
            said = self.fail('forget-host', *argv)
            self.assertIn('no host nobody has noted anything here', said)
            self.assertIn('nova-imagecache hosts', said)
            self.assertEqual({'away'}, self.known())

    def test_this_host_may_be_forgotten_and_notes_it_again(self) -> None:
        self.write_conf()
        self.run_command('pass')
        (ours,) = self.known() - {'away'}
        self.rows('forget-host', ours)
        self.assertEqual({'away'}, self.known())
        self.run_command('pass')
        self.assertEqual({'away', ours}, self.known())

    def test_a_host_of_any_name_can_be_forgotten(self) -> None:
        for name in ('a/b', 'caf\xe9', 'two\nlines'):
            self.note(name)
            shown = self.rows('hosts')
            (listed,) = [each['host'] for each in shown if each['files']
                         and each['host'] != 'away']  # fmt: skip
            self.assertTrue(listed.isprintable())
            self.rows('forget-host', listed)
            self.assertEqual({'away'}, self.known())

    def test_what_is_no_file_is_one_clear_line(self) -> None:
        path = os.path.join(self.node.layout.hosts, '_odd')
        os.mkdir(path)
        self.assertIn('_odd', self.fail('forget-host', 'odd'))
