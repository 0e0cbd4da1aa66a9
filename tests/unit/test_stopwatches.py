# SPDX-License-Identifier: Apache-2.0

import os
import tempfile

from nova_imagecache import stopwatches
from tests.support import base


class StopwatchTest(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        fd, self.schedstat = tempfile.mkstemp()
        os.close(fd)
        self.addCleanup(os.unlink, self.schedstat)
        self.patch(stopwatches, '_SCHEDSTAT', self.schedstat)
        self.wait_in_all(5)

    def wait_in_all(self, seconds: float) -> None:
        """Have the kernel say for how long the thread has waited."""
        with open(self.schedstat, 'w') as file:
            file.write(f'7000000000 {int(seconds * 1e9)} 12\n')

    def stopwatch(self) -> stopwatches.Stopwatch:
        return stopwatches.Stopwatch(lambda: self.now)

    def test_what_passes_counts(self) -> None:
        stopwatch = self.stopwatch()
        stopwatch.start()
        self.now += 0.5
        self.assertAlmostEqual(0.5, stopwatch.seconds())

    def test_to_wait_for_a_processor_does_not(self) -> None:
        stopwatch = self.stopwatch()
        stopwatch.start()
        self.now += 0.5
        self.wait_in_all(5.4)
        self.assertAlmostEqual(0.1, stopwatch.seconds())

    def test_it_is_never_less_than_nothing(self) -> None:
        stopwatch = self.stopwatch()
        stopwatch.start()
        self.wait_in_all(6)
        self.assertEqual(0.0, stopwatch.seconds())

    def test_where_the_kernel_says_nothing_all_of_it_counts(self) -> None:
        for how in ('garbage', 'missing'):
            if how == 'missing':
                self.patch(stopwatches, '_SCHEDSTAT', '/nowhere')
            else:
                with open(self.schedstat, 'w') as file:
                    file.write('garbage')
            stopwatch = self.stopwatch()
            stopwatch.start()
            self.now += 0.5
            self.assertAlmostEqual(0.5, stopwatch.seconds())
            self.assertEqual(0.0, stopwatches.waited())

    def test_what_was_waited_in_all_is_said(self) -> None:
        self.assertEqual(5.0, stopwatches.waited())

    def test_this_kernel_says_it(self) -> None:
        self.patch(stopwatches, '_SCHEDSTAT', '/proc/thread-self/schedstat')
        if not os.path.exists(stopwatches._SCHEDSTAT):
            self.skipTest('this kernel has no schedstat')
        self.assertGreaterEqual(stopwatches.Stopwatch()._waited(), 0)
        self.assertIsNotNone(stopwatches.Stopwatch()._fd)
