# SPDX-License-Identifier: Apache-2.0

"""The file of those who share the storage, which is Nova's."""

import json
import multiprocessing
import os
import threading
from typing import Any

import ddt

from nova_imagecache.cache import registry
from tests.support import nodes
from tests.support import processes


def _register(args: tuple[Any, str]) -> None:
    layout, host = args
    registry.register(layout, host, 1.0)


@ddt.ddt
class RegistryTest(nodes.NodeTestCase):
    """The file of those who share the storage, which is Nova's."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.node.layout.instances, 'compute_nodes')

    def nodes(self) -> Any:
        with open(self.path) as file:
            return json.load(file)

    def write(self, text: str) -> None:
        with open(self.path, 'w') as file:
            file.write(text)

    def test_a_host_is_noted_beside_those_that_are_there(self) -> None:
        self.write('{"other": 5.5}')
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'other': 5.5, 'here': 7.0}, self.nodes())

    def test_the_first_host_makes_the_file(self) -> None:
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'here': 7.0}, self.nodes())

    @ddt.data('', '{"cut', '[1]', 'null', '[' * 100000)
    def test_what_is_no_list_of_hosts_is_begun_anew_as_nova_does(
        self, text: str
    ) -> None:
        self.write(text)
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'here': 7.0}, self.nodes())
        self.assertIn('no list of hosts', self.log.output)

    def test_a_time_that_is_none_is_dropped(self) -> None:
        # Nova would fail to subtract it, on all hosts.
        self.write('{"a": "x", "b": null, "c": NaN, "d": true, "e": 1}')
        registry.register(self.node.layout, 'here', 7.0)
        self.assertEqual({'e': 1, 'here': 7.0}, self.nodes())

    def test_a_symbolic_link_is_not_followed(self) -> None:
        target = os.path.join(self.temporary, 'target')
        with open(target, 'w') as file:
            file.write('{}')
        os.symlink(target, self.path)
        self.assertRaises(
            OSError, registry.register, self.node.layout, 'here', 7.0
        )
        with open(target) as file:
            self.assertEqual('{}', file.read())

    def test_many_at_once_lose_nobody(self) -> None:
        hosts = [f'host-{number}' for number in range(20)]
        context = multiprocessing.get_context('spawn')
        with context.Pool(4) as pool:
            pool.map(_register, [(self.node.layout, host) for host in hosts])
        self.assertEqual(set(hosts), set(self.nodes()))

    def test_it_waits_for_novas_lock(self) -> None:
        nova = processes.NovaProcess(
            self.node.layout.locks, 'storage-registry-lock'
        )
        waiting = self.useFixture(processes.Waiting())
        thread = threading.Thread(
            target=_register, args=((self.node.layout, 'here'),)
        )
        with nova:
            thread.start()
            self.assertTrue(waiting.wait())
            self.assertFalse(os.path.exists(self.path))
        thread.join()
        self.assertEqual({'here': 1.0}, self.nodes())
