# SPDX-License-Identifier: Apache-2.0

"""What importing the package brings along, in a process of its own."""

import subprocess
import sys

from tests.support import base

_IMPORT_ALL = """
import importlib, pkgutil, sys
import nova_imagecache
for module in pkgutil.walk_packages(nova_imagecache.__path__,
                                    'nova_imagecache.'):
    if not (module.name.endswith('__main__')
            or module.name.startswith('nova_imagecache.nova.')):
        importlib.import_module(module.name)
print(set(sys.modules) & {'eventlet', 'asyncio', 'nova', 'libvirt', 'tooz',
                          'glanceclient', 'openstack', 'prometheus_client'})
"""


class ImportAllTest(base.TestCase):
    def test_it_needs_neither_nova_nor_libvirt_nor_eventlet(self) -> None:
        done = subprocess.run(
            [sys.executable, '-c', _IMPORT_ALL], capture_output=True, text=True
        )
        self.assertEqual(('set()\n', ''), (done.stdout, done.stderr))
