# SPDX-License-Identifier: Apache-2.0

"""Nova in one directory, and we in another."""

import importlib.metadata
import os
import subprocess
import sys
import textwrap

import ddt
import fixtures
import nova
import testtools

_PROGRAM = textwrap.dedent("""
    import sys

    import nova_imagecache.nova.compute as ours

    # Eventlet comes first, or not at all.
    assert not {'nova', 'oslo_config', 'oslo_log'} & set(sys.modules)

    def main():
        from nova.virt import driver
        from nova.virt import fake
        import nova.conf
        import nova.virt.libvirt.driver

        nova.conf.CONF(sys.argv[1:], project='nova')
        found = driver.load_compute_driver(
            fake.FakeVirtAPI(), 'imagecache_ext.LibvirtDriver'
        )
        print(type(found).__module__)
        print(nova.virt.libvirt.driver.__file__)
        print(sys.modules['nova.virt.imagecache_ext'].__file__)
        eventlet = sys.modules.get('eventlet.patcher')
        print(bool(eventlet and eventlet.is_monkey_patched('socket')))
        print(nova.conf.CONF.prog)

    which = sys.argv.pop(1)
    if which == 'version':
        sys.argv[1:] = ['--version']
        ours.main()
    elif which == 'stock':
        import nova.cmd.compute

        main()
    else:
        # The real one serves until it is told to end.
        import nova.cmd.compute

        nova.cmd.compute.main = main
        ours.main()
""")


@ddt.ddt
class ElsewhereTest(testtools.TestCase):
    """Two directories, as with a distribution's packages beside pip's."""

    def setUp(self) -> None:
        super().setUp()
        temporary = self.useFixture(fixtures.TempDir()).path
        site = os.path.dirname(os.path.dirname(nova.__file__))
        self.theirs = os.path.join(temporary, 'theirs')
        self.ours = os.path.join(temporary, 'ours')
        # What the wheel has brought, and not what is in the working tree.
        (wheel,) = importlib.metadata.Distribution.discover(
            name='nova-imagecache', path=[site]
        )
        own = wheel.files or []
        tops = {file.parts[0] for file in own} - {'nova', '..'}
        self.link(site, self.theirs, tops | {'nova'})
        self.link(
            os.path.join(site, 'nova'),
            os.path.join(self.theirs, 'nova'),
            {'virt'},
        )
        self.link(
            os.path.join(site, 'nova', 'virt'),
            os.path.join(self.theirs, 'nova', 'virt'),
            {'imagecache_ext'},
        )
        for file in own:
            if file.suffix == '.py':
                path = os.path.join(self.ours, str(file))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.symlink(os.fspath(file.locate()), path)

    def link(self, source: str, target: str, without: set[str]) -> None:
        os.makedirs(target)
        for name in set(os.listdir(source)) - without:
            os.symlink(os.path.join(source, name), os.path.join(target, name))

    def run_program(
        self, which: str, order: list[str], patched: bool
    ) -> 'subprocess.CompletedProcess[str]':
        return subprocess.run(
            [sys.executable, '-S', '-c', _PROGRAM, which,
             '--config-file', os.devnull],
            cwd='/',
            env={
                'PATH': os.environ['PATH'],
                'PYTHONPATH': os.pathsep.join(order),
                'PYTHONDONTWRITEBYTECODE': '1',
                'OS_NOVA_DISABLE_EVENTLET_PATCHING': str(not patched),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip

    @ddt.data((True, False), (True, True), (False, False))
    @ddt.unpack
    def test_the_wrapper_finds_the_driver(
        self, ours_first: bool, patched: bool
    ) -> None:
        order = [self.ours, self.theirs]
        done = self.run_program(
            'wrapper', order if ours_first else order[::-1], patched
        )
        self.assertEqual(
            [
                'nova_imagecache.nova.driver',
                os.path.join(self.theirs, 'nova/virt/libvirt/driver.py'),
                os.path.join(
                    self.ours, 'nova/virt/imagecache_ext/__init__.py'
                ),
                str(patched),
                'nova-compute',
            ],
            done.stdout.splitlines(),
            done.stderr,
        )

    def test_the_wrapper_is_novas_own_program(self) -> None:
        done = self.run_program('version', [self.ours, self.theirs], False)
        version = importlib.metadata.version('nova')
        self.assertEqual(version, done.stdout.strip(), done.stderr)

    def test_without_it_nova_does_not_start_and_says_why(self) -> None:
        done = self.run_program('stock', [self.ours, self.theirs], False)
        self.assertEqual(1, done.returncode)
        self.assertIn('Unable to load the virtualization driver', done.stderr)
        self.assertIn(
            "No module named 'nova.virt.imagecache_ext'", done.stderr
        )
