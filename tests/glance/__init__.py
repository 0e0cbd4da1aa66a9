# SPDX-License-Identifier: Apache-2.0

"""Tests with a real Glance. Where there is none, there are no tests."""

import importlib.util
import os
from typing import Any
import unittest


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Any
) -> unittest.TestSuite:
    """Give the tests of this package, if there is a Glance to start."""
    if importlib.util.find_spec('glance') is not None:
        here = os.path.dirname(__file__)
        top = os.path.dirname(os.path.dirname(here))
        tests.addTests(
            loader.discover(here, pattern or 'test*.py', top_level_dir=top)
        )
    return tests
