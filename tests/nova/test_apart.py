# SPDX-License-Identifier: Apache-2.0

"""The thread of Nova, and its green ones, while a pass is made apart."""

import os
import threading
import time
from typing import Any
from unittest import mock

import psutil

from nova_imagecache.apart import lending
from nova_imagecache.nova import privsep
from tests.nova import base
from tests.support import base as plain
from tests.support import nodes
from tests.support import processes

OLD = 365 * plain.DAY

# Each disk takes as long to be read as it takes others to say so.
_SLOW = """
import os, time
from nova_imagecache.cache import sightings
from nova_imagecache.witnesses import headers
sightings.birth = lambda file, now: 0.0
real = headers.read
def read(path, *args, **kwargs):
    with open({asked!r}, 'w'):
        pass
    while not os.path.exists({go!r}):
        time.sleep(0.01)
    return real(path, *args, **kwargs)
headers.read = read
"""


class ApartTest(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.options(witnesses=['instances', 'overlays', 'libvirt', 'locks'])
        self.manager = self.driver.image_cache_manager
        temporary = os.path.dirname(self.node.layout.instances)
        self.asked = os.path.join(temporary, 'asked')
        self.go = os.path.join(temporary, 'go')
        self.used = self.node.add_image(base.IMAGE, age=OLD)
        self.unused = self.node.add_image('unused', age=OLD)
        self.guest = self.create_instance(image_ref=base.IMAGE)
        self.node.add_overlay(self.guest.uuid, self.used)

    def slow(self) -> None:
        """Have the storage not answer for now."""
        self.useFixture(
            nodes.Child(_SLOW.format(asked=self.asked, go=self.go))
        )

    def let_go_on(self) -> None:
        with open(self.go, 'w'):
            pass

    def begin(self) -> None:
        self.driver.manage_image_cache(
            self.context, self.instances(self.guest)
        )

    def assert_made(self) -> None:
        report = self.manager.wait(processes.PATIENCE_SECONDS)
        self.assertEqual(((), ()), (report.vetoes, report.problems))
        self.assertEqual([self.unused], [each.name for each in report.removed])

    def test_other_threads_run_while_a_pass_is_at_slow_storage(self) -> None:
        # Under eventlet a green one: were any thread of ours at the storage,
        # it would not come to let the storage answer.
        self.slow()
        turns = []

        def run() -> None:
            while not os.path.exists(self.asked):
                time.sleep(0)
            for _turn in range(100):
                turns.append(self.manager.wait(0))
                time.sleep(0)
            self.let_go_on()

        thread = threading.Thread(target=run)
        thread.start()
        self.begin()
        self.assert_made()
        thread.join()
        # It was at work all the while.
        self.assertEqual([None] * 100, turns)

    def test_the_periodic_task_is_over_before_the_pass_is(self) -> None:
        self.slow()
        self.begin()
        self.assertTrue(processes.wait_for(lambda: os.path.exists(self.asked)))
        self.assertIsNone(self.manager.wait(0))
        self.assertIn(self.unused, self.node.files())
        # The next one comes, and says so.
        self.begin()
        self.assertIn('still at work', self.output)
        self.let_go_on()
        self.assert_made()
        self.assertIn('1 moved to the trash', self.output)

    def test_the_end_of_the_service_is_that_of_the_pass(self) -> None:
        self.slow()
        self.begin()
        processes.wait_for(lambda: os.path.exists(self.asked))
        with mock.patch(
            'nova.virt.libvirt.driver.LibvirtDriver.cleanup_host',
            autospec=True,
        ):
            self.driver.cleanup_host('here')
        report = self.manager.wait(processes.PATIENCE_SECONDS)
        self.assertIn('with this service', report.problems[0])
        self.assertIn(self.unused, self.node.files())
        self.assertEqual([], psutil.Process().children())

    def test_one_that_is_killed_is_a_line_in_the_log(self) -> None:
        self.slow()
        self.begin()
        processes.wait_for(lambda: os.path.exists(self.asked))
        (process,) = psutil.Process().children()
        process.kill()
        report = self.manager.wait(processes.PATIENCE_SECONDS)
        self.assertIn('ended by SIGKILL', report.problems[0])
        self.assertIn('ended by SIGKILL', self.output)
        self.assertNotIn('Traceback', self.output)
        self.let_go_on()
        self.begin()
        self.assert_made()

    def test_privileges_of_nova_are_those_of_the_pass(self) -> None:
        # Mocked in the process of the pass: that it may not read a disk.
        self.useFixture(
            nodes.Child(
                'import os\n'
                'from nova_imagecache.cache import sightings\n'
                'sightings.birth = lambda file, now: 0.0\n'
                'real = os.open\n'
                'def refuse(path, *args, **kwargs):\n'
                "    if str(path).endswith('/disk'):\n"
                "        raise PermissionError(13, 'no')\n"
                '    return real(path, *args, **kwargs)\n'
                'os.open = refuse\n'
            )
        )
        asked: list[Any] = []
        services = lending.services(self.manager._assembly)

        def read(*args: Any) -> Any:
            asked.append(args[0])
            return privsep.read(*args)

        self.assertIs(privsep.read, services['read'])
        with (
            mock.patch.dict(services, {'read': read}),
            mock.patch.object(
                lending, 'services', autospec=True, return_value=services
            ),
        ):
            self.begin()
            self.assert_made()
        self.assertIn(
            os.path.join(self.node.layout.instances, self.guest.uuid, 'disk'),
            asked,
        )
