# SPDX-License-Identifier: Apache-2.0

"""Tests on Nova's own functional fixtures; none where there is no Nova.

They tell the services in one process apart by thread, so there are none with
eventlet either.
"""

from typing import Any
import unittest

from tests.support import in_nova

_FOUND = in_nova.patch()


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Any
) -> unittest.TestSuite:
    """Find the tests in here, if Nova and Placement are there."""
    if not _FOUND or in_nova.has_eventlet() or not in_nova.has('placement'):
        return unittest.TestSuite()
    return in_nova.discover(__file__, loader, pattern)
