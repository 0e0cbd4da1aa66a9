# SPDX-License-Identifier: Apache-2.0

"""Two hosts with one cache, each with guests of its own."""

import os
from typing import Any

from nova_imagecache.cache import hosts
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import nodes

#: Long enough for anything that nobody uses to be removed.
LONG = 30 * base.DAY

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'


class TwoHostsTestCase(nodes.FileTestCase):
    """Hosts with an ``instances_path`` each, and links to one ``_base``.

    :ivar used: name of a base file that a guest of the second host needs
    :ivar free: name of one that nobody needs
    :ivar disk: path of the disk of that guest
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = base.FakeClock()
        self.one, self.two = self.add_host('one'), self.add_host('two')
        self.used = self.one.add_image('used', age=LONG)
        self.free = self.one.add_image('free', age=LONG)
        self.disk = self.two.add_overlay(GUEST, self.used)

    def add_host(self, name: str) -> nodes.Node:
        """Have another host share the cache."""
        shared = os.path.join(self.temporary, 'shared')
        os.makedirs(shared, exist_ok=True)
        instances = os.path.join(self.temporary, name, 'instances')
        os.makedirs(instances)
        os.symlink(shared, os.path.join(instances, '_base'))
        return self.host_at(name, instances)

    def host_at(self, name: str, instances: str) -> nodes.Node:
        """Give a host by its name and its ``instances_path``."""
        node = nodes.Node(instances)
        node.clock = self.clock
        # What is removed can be looked at.
        node.configure(host=name, retention=1000 * base.DAY)
        return node

    def first_pass(self, node: nodes.Node) -> None:
        """Have a host make its first pass, which is to remove nothing."""
        node.configure(remove_unused=False)
        node.run()
        node.configure(remove_unused=True)

    def run_passes(
        self, *hosts_: nodes.Node, days: int = 3
    ) -> list[reports.Report]:
        """Let days pass, and have hosts make a pass in each hour of three.

        Nothing may keep them from removing what nobody needs.
        """
        found = []
        self.clock.advance(days * base.DAY)
        for _pass in range(3):
            self.clock.advance(base.HOUR)
            found += [host.run() for host in hosts_]
        for report in found:
            self.assertEqual(((), ()), (report.vetoes, report.problems))
        return found

    def recall(self, name: str) -> hosts.Host:
        """Give what a host has noted."""
        return hosts.load(self.one.layout, name)

    def record(self, name: str) -> str:
        """Give the path of the record of a host."""
        return os.path.join(self.one.layout.hosts, f'_{name}')

    def end_guest(self) -> None:
        """Have the guest of the second host be deleted."""
        os.unlink(self.disk)
        os.rmdir(os.path.dirname(self.disk))

    def assert_kept(self, *names: str) -> None:
        self.assertLessEqual({*names}, self.one.files())

    def assert_removed(self, *names: str) -> None:
        self.assertEqual(set(), {*names} & self.one.files())

    def reason(self, report: reports.Report, name: str) -> Any:
        return self.file_of(report, name).reason
