# SPDX-License-Identifier: Apache-2.0

"""Runs a benchmark in a process that eventlet has patched, as Nova's is."""

import importlib
import runpy
import sys
import warnings

warnings.simplefilter('ignore')
importlib.import_module('eventlet').monkey_patch()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
