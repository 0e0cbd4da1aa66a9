# SPDX-License-Identifier: Apache-2.0

"""Tests inside a real Nova. Where there is none, there are no tests."""

from typing import Any
import unittest

from tests.support import in_nova

_FOUND = in_nova.patch()


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Any
) -> unittest.TestSuite:
    """Find the tests in here, if Nova is there."""
    if not _FOUND:
        return unittest.TestSuite()
    return in_nova.discover(__file__, loader, pattern)
