# SPDX-License-Identifier: Apache-2.0

"""What importing the package brings along, in a process of its own."""

import subprocess
import sys

import ddt

from tests.support import base
from tests.support import shell

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

_IMPORT_HOOK = """
import sys
from nova_imagecache import hook
print(*sys.modules)
"""

_RUN = """
import sys
from nova_imagecache import __main__
code = __main__.main()
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""

# What is imported from when a pass changes something until it has a report.
_PASS = """
import sys
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.passes import act, pipeline
instances, host, wall, boottime, boot_id, inline = sys.argv[1:]
now = clocks.Instant(float(wall), float(boottime), boot_id)
settings = Settings(instances, host=host, witnesses=('overlays', 'locks'),
                    checksum=True, checksum_interval=0)
real = act.Actor.act
before = set()
def begin(*args):
    before.update(sys.modules)
    return real(*args)
act.Actor.act = begin
made = pipeline.Pass(settings, clock=lambda: now, inline=inline == 'inline')
report = made.run()
print(len(report.removed), *({*sys.modules} - before))
"""

#: What the command list has no use for, and what it is for.
NOT_FOR_LIST = {
    'asyncio': 'nobody uses it',
    'cmd2': "cliff's interactive mode, which is refused",
    'cryptography': 'oslo.utils, which looks into LUKS images',
    'eventlet': 'nobody uses it',
    'http.client': 'oslo.serialization, for XML-RPC',
    'libvirt': 'a process of its own asks',
    'multiprocessing.synchronize': 'the lock of tqdm',
    'netaddr.core': 'options that are addresses, of which we have none',
    'nova': 'the shell needs none',
    'nova_imagecache.fetch': 'fetching',
    'nova_imagecache.heal.outcomes': 'repairing',
    'nova_imagecache.hook': 'drivers',
    'nova_imagecache.manager': 'drivers',
    'nova_imagecache.outlets.exposition': 'metrics',
    'nova_imagecache.outlets.health': 'what is to be looked into',
    'nova_imagecache.outlets.summaries': 'metrics',
    'nova_imagecache.scrub.background': 'starting a scrub',
    'nova_imagecache.scrub.jobs': 'scrubbing',
    'nova_imagecache.scrub.readers': 'reading',
    'nova_imagecache.scrub.scrubber': 'scrubbing',
    'nova_imagecache.scrub.verification': 'reading',
    'nova_imagecache.witnesses.domains': 'hosts whose libvirt is asked',
    'oslo_concurrency.processutils': 'running qemu-img',
    'oslo_log.log': 'services; Python has loggers as well',
    'oslo_serialization': 'oslo.log',
    'oslo_utils.imageutils': 'images that are fetched',
    'oslo_utils.netutils': 'the address of a host without a route',
    'oslo_utils.strutils': 'oslo.concurrency, which runs programs',
    'requests': 'clients of the image service',
    'rfc3986.api': 'options that are URIs, of which we have none',
    'ssl': 'oslo.serialization, for XML-RPC',
    'tqdm': 'progress, which reading has',
    'wcwidth': 'tables',
    'yaml': 'YAML',
}

#: What the hook does not bring into nova-compute, and what it is for.
NOT_FOR_HOOK = {
    'asyncio': 'nobody uses it',
    'autopage': 'cliff',
    'cliff': 'the shell',
    'cmd2': 'cliff',
    'eventlet': 'Nova itself, where it does',
    'libvirt': 'a process of its own asks, or Nova',
    'nova': 'it imports us',
    'nova_imagecache.cli': 'the shell',
    'nova_imagecache.nova': 'it imports us',
    'prettytable': 'cliff',
    'psutil': 'mounts, once they are asked for',
    'requests': 'clients of the image service',
    'tqdm': 'the shell',
    'yaml': 'cliff',
}


class ImportAllTest(base.TestCase):
    def test_it_needs_neither_nova_nor_libvirt_nor_eventlet(self) -> None:
        done = subprocess.run(
            [sys.executable, '-c', _IMPORT_ALL], capture_output=True, text=True
        )
        self.assertEqual(('set()\n', ''), (done.stdout, done.stderr))

    def test_the_hook_brings_nothing_of_the_shell_into_nova(self) -> None:
        done = subprocess.run(
            [sys.executable, '-c', _IMPORT_HOOK],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        imported = set(done.stdout.split())
        self.assertIn('nova_imagecache.hook', imported)
        self.assertEqual(set(), imported & NOT_FOR_HOOK.keys())


@ddt.ddt
class ImportForCommandTest(shell.ShellTestCase):
    def imported(self, *arguments: str) -> set[str]:
        """Run the program, and say what it has imported."""
        done = subprocess.run(
            [sys.executable, '-c', _RUN, '--config-file', self.nova_conf,
             *arguments],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return set(done.stderr.split())

    def test_list_imports_nothing_that_it_does_not_need(self) -> None:
        self.node.add_image('x')
        imported = self.imported('list', '-f', 'json')
        self.assertIn('nova_imagecache.cli.list', imported)
        self.assertEqual(set(), imported & NOT_FOR_LIST.keys())

    @ddt.data('inline', 'looks')
    def test_a_pass_imports_nothing_once_something_goes(
        self, how: str
    ) -> None:
        """It might fail, and nobody would tell what has gone."""
        self.node.add_image('x', age=365 * base.DAY)
        now, settings = self.node.clock(), self.node.settings
        done = subprocess.run(
            [sys.executable, '-c', _PASS,
             settings.instances_path, settings.host,
             *map(str, (now.wall, now.boottime, now.boot_id)), how],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.assertEqual(['1'], done.stdout.split())

    def test_list_imports_no_other_command(self) -> None:
        imported = self.imported('list', '-f', 'json')
        self.assertEqual(
            {
                'app', 'colours', 'columns', 'config', 'exit_codes', 'filing',
                'fitting', 'lines', 'list', 'listing', 'owner', 'tables',
            },
            {
                name.rpartition('.')[2]
                for name in imported
                if name.startswith('nova_imagecache.cli.')
            },
        )  # fmt: skip

    @ddt.data(
        (('list', '-f', 'yaml'), 'yaml'),
        (('list', '-f', 'table'), 'wcwidth'),
        (('verify',), 'tqdm'),
        (('demo', '--help'), 'oslo_utils.strutils'),
    )
    @ddt.unpack
    def test_what_a_command_needs_is_imported(
        self, arguments: tuple[str, ...], module: str
    ) -> None:
        self.assertIn(module, self.imported(*arguments))
