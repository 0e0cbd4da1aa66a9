# SPDX-License-Identifier: Apache-2.0

import contextlib
import gc
import os
import subprocess
import sys

from nova_imagecache.cache import locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import scans
from nova_imagecache import errors
from tests import base
from tests.unit import test_cache

_TRY_LOCK = """
import sys
from oslo_concurrency import lockutils
with lockutils.lock(
    sys.argv[2], lock_file_prefix='nova-', external=True,
    lock_path=sys.argv[1], blocking=False,
):
    pass
"""


class LockLifetimeTest(base.NodeTestCase):
    """A POSIX lock goes when its process closes the file, by any handle."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image')
        # What is garbage is collected when the test says so.
        gc.disable()
        self.addCleanup(gc.enable)

    def fail_to_lock(self) -> object:
        """Try in vain to lock a file; give what keeps the attempt alive."""
        nova = self.useFixture(
            test_cache.NovaProcess(self.node.layout.locks, self.name)
        )
        (file,) = scans.scan(self.node.layout).files
        outcomes = removal.remove(self.node.layout, [file], lambda _: {}, 0)
        self.assertIsInstance(outcomes[self.name], errors.Locked)
        nova.end()
        return outcomes

    def others_can_lock(self) -> bool:
        done = subprocess.run(
            [sys.executable, '-c', _TRY_LOCK, self.node.layout.locks,
             self.name],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode == 0

    def test_a_lock_outlives_an_earlier_attempt_that_failed(self) -> None:
        attempt: object = self.fail_to_lock()
        with locks.nova_lock(self.node.layout, self.name, blocking=False):
            self.assertFalse(self.others_can_lock())
            del attempt
            gc.collect()
            self.assertFalse(self.others_can_lock())
        self.assertTrue(self.others_can_lock())

    def test_an_attempt_that_failed_leaves_no_file_open(self) -> None:
        attempt = self.fail_to_lock()
        opened = []
        for fd in os.listdir('/proc/self/fd'):
            with contextlib.suppress(FileNotFoundError):
                opened.append(os.readlink(f'/proc/self/fd/{fd}'))
        lock = os.path.join(self.node.layout.locks, f'nova-{self.name}')
        self.assertNotIn(lock, opened)
        self.assertIsNotNone(attempt)
