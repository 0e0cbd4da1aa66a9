# SPDX-License-Identifier: Apache-2.0

"""Finding tests that need a Nova, and finding none where there is no Nova."""

import importlib.util
import os
from typing import Any
import unittest

# Nova's own variable and its default; ``false`` has eventlet instead.
_NO_EVENTLET = 'OS_NOVA_DISABLE_EVENTLET_PATCHING'


def patch() -> bool:
    """Let eventlet in or keep it out, as Nova would; tell if there is a Nova.

    To be called before anything that would not know of eventlet is imported.
    """
    os.environ.setdefault(_NO_EVENTLET, 'true')
    try:
        from nova import monkey_patch
    except ImportError:
        return False
    # To import it was enough until 2025.1.
    if hasattr(monkey_patch, 'patch'):
        monkey_patch.patch()
    return True


def has_eventlet() -> bool:
    """Tell which of the two it is."""
    return os.environ[_NO_EVENTLET] == 'false'


def has(module: str) -> bool:
    """Tell whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def discover(
    package: str, loader: unittest.TestLoader, pattern: Any
) -> unittest.TestSuite:
    """Find the tests in a package, as unittest would.

    :param package: path of its ``__init__``
    """
    here = os.path.dirname(package)
    top = os.path.dirname(os.path.dirname(here))
    return loader.discover(here, pattern or 'test*.py', top)
