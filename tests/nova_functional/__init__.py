# SPDX-License-Identifier: Apache-2.0

"""Tests on Nova's own functional fixtures; none where there is no Nova."""

import importlib.util
import os
from typing import Any
import unittest

# Nova's own variable and its default. These tests tell services in one process
# apart by thread, so there are none with eventlet.
os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', 'true')

try:
    from nova import monkey_patch
except ImportError:
    monkey_patch = None
else:
    # Before anything that would not know of eventlet is imported. To import
    # it was enough until 2025.1.
    if hasattr(monkey_patch, 'patch'):
        monkey_patch.patch()


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Any
) -> unittest.TestSuite:
    """Find the tests in here, as unittest would, if Nova is there."""
    if (
        monkey_patch is None
        or importlib.util.find_spec('placement') is None
        or os.environ['OS_NOVA_DISABLE_EVENTLET_PATCHING'] == 'false'
    ):
        return unittest.TestSuite()
    here = os.path.dirname(__file__)
    top = os.path.dirname(os.path.dirname(here))
    tests.addTests(loader.discover(here, pattern or 'test*.py', top))
    return tests
