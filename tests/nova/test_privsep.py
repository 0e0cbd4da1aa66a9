# SPDX-License-Identifier: Apache-2.0

"""Reading and touching what belongs to QEMU's user, as Nova does it."""

import errno
import os
import stat
import subprocess
import sys
import textwrap
from typing import Any
from unittest import mock

import ddt
import nova.privsep

from nova_imagecache import host
from nova_imagecache.nova import privsep
from tests.nova import base
from tests.support import nodes

# What nova-compute does: begin with the daemon, then be nobody much.
_UNPRIVILEGED = textwrap.dedent("""
    import os, sys

    from nova import monkey_patch
    if hasattr(monkey_patch, 'patch'):
        monkey_patch.patch()
    from nova import config
    import nova.privsep
    from oslo_privsep import priv_context

    from nova_imagecache.nova import privsep

    method, user, path, link, conf = sys.argv[1:]
    config.parse_args(
        ['nova-compute', '--config-file', conf],
        configure_db=False,
        init_rpc=False,
    )
    config.CONF.set_override(
        'helper_command',
        os.path.join(sys.prefix, 'bin', 'privsep-helper')
        + ' --config-file ' + conf,
        group='nova_sys_admin',
    )
    context = nova.privsep.sys_admin_pctxt
    context.start(priv_context.Method[method])
    os.setgroups([])
    os.setresgid(*[int(user)] * 3)
    os.setresuid(*[int(user)] * 3)
    hidden = os.path.dirname(path)
    for attempt in (open, os.utime, lambda _path: os.listdir(hidden)):
        try:
            attempt(path)
        except PermissionError:
            print('refused')
    print(privsep.read(path, 2, 3))
    privsep.touch(path)
    try:
        privsep.read(link, 0, 1)
    except OSError as error:
        print(error.errno)
    print(*[ascii(each.name) for each in privsep.list_as_root(hidden)])
    for act in (
        lambda: privsep.read(conf, 0, 1),
        lambda: privsep.touch(conf),
        lambda: privsep.list_as_root(os.path.dirname(conf)),
    ):
        try:
            act()
        except PermissionError as error:
            print(error.strerror.partition(',')[0])
    context.stop()
""")


@ddt.ddt
class PrivsepTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.node.add_file('guest', 'disk', data=b'0123456789')
        self.link = os.path.join(os.path.dirname(self.path), 'link')
        os.symlink(self.path, self.link)

    def test_all_belong_to_the_context_of_nova(self) -> None:
        for function in (
            privsep.read,
            privsep.touch,
            privsep.list_directory,
            privsep.rewrite,
        ):
            self.assertTrue(
                nova.privsep.sys_admin_pctxt.is_entrypoint(function)
            )

    def test_a_part_of_a_file_is_read(self) -> None:
        self.assertEqual(b'234', privsep.read(self.path, 2, 3))
        self.assertEqual(b'89', privsep.read(self.path, 8, 100))
        self.assertEqual(b'', privsep.read(self.path, 100, 1))

    def test_a_symbolic_link_is_not_read(self) -> None:
        error = self.assertRaises(OSError, privsep.read, self.link, 0, 1)
        self.assertEqual(errno.EINVAL, error.errno)

    def test_what_is_no_regular_file_is_not_read(self) -> None:
        fifo = os.path.join(os.path.dirname(self.path), 'fifo')
        os.mkfifo(fifo)
        for path in (fifo, os.path.dirname(self.path), '/dev/null'):
            self.assertRaises(OSError, privsep.read, path, 0, 1)

    def test_a_file_is_touched_and_a_symbolic_link_is_not_followed(
        self,
    ) -> None:
        os.utime(self.path, (1, 1))
        privsep.touch(self.link)
        self.assertEqual(1, os.stat(self.path).st_mtime)
        privsep.touch(self.path)
        self.assertLess(1, os.stat(self.path).st_mtime)

    def names(self, path: str) -> list[str]:
        return [each.name for each in privsep.list_as_root(path)]

    def refuse(self, path: str) -> None:
        """See that nothing is done to a file at all."""
        before = os.stat(path)
        for act in (
            lambda: privsep.read(path, 0, 1),
            lambda: privsep.touch(path),
            lambda: privsep.list_as_root(os.path.dirname(path)),
        ):
            error = self.assertRaises(PermissionError, act)
            self.assertIn('not below instances_path', str(error))
        self.assertEqual(before.st_mtime_ns, os.stat(path).st_mtime_ns)

    def allow(self, path: str) -> None:
        """See that a file is read, touched and listed."""
        os.utime(path, (1, 1))
        self.assertEqual(b'0', privsep.read(path, 0, 1))
        privsep.touch(path)
        self.assertLess(1, os.stat(path).st_mtime)
        self.assertIn(
            os.path.basename(path), self.names(os.path.dirname(path))
        )

    def elsewhere(self, *parts: str) -> str:
        """Make a file that is not below ``instances_path``; give its path."""
        return self.node.add_file(
            '..', 'elsewhere', *parts, 'disk', data=b'0123456789'
        )

    def test_a_file_somewhere_else_is_left_alone(self) -> None:
        path = self.elsewhere()
        self.refuse(path)
        self.refuse(os.path.realpath(path))
        # Below another directory whose name begins likewise.
        self.refuse(self.node.add_file('../instances2', 'disk', data=b'0'))

    def test_the_way_there_over_a_link_of_a_guest_is_refused(self) -> None:
        path = self.elsewhere()
        inside = os.path.join(os.path.dirname(self.path), 'out')
        os.symlink(os.path.dirname(path), inside)
        self.refuse(os.path.join(inside, 'disk'))

    def test_a_directory_that_is_changed_for_a_link_at_once_is_refused(
        self,
    ) -> None:
        away = os.path.dirname(self.elsewhere())
        path = self.node.add_file('guest', 'below', 'disk', data=b'x')
        directory = os.path.dirname(path)
        real = os.open

        def change_and_open(name: Any, *args: Any, **kwargs: Any) -> int:
            if name == directory:
                os.rename(directory, directory + '.away')
                os.symlink(away, directory)
            return real(name, *args, **kwargs)

        with mock.patch('os.open', change_and_open):
            self.assertRaises(PermissionError, privsep.read, path, 0, 1)
        self.assertTrue(os.path.islink(directory))

    def test_the_directory_of_a_guest_may_be_on_another_disk(self) -> None:
        path = self.elsewhere('guest')
        link = os.path.join(self.node.layout.instances, 'moved')
        os.symlink(os.path.dirname(path), link)
        self.allow(os.path.join(link, 'disk'))
        # Under its own name as well, as libvirt may have it.
        self.allow(os.path.realpath(path))
        # And nothing beside it.
        self.refuse(self.elsewhere('other'))

    def test_such_a_link_is_of_root_or_of_nova(self) -> None:
        path = self.elsewhere('guest')
        link = os.path.join(self.node.layout.instances, 'moved')
        os.symlink(os.path.dirname(path), link)
        os.lchown(link, nodes.NOBODY, nodes.NOBODY)
        self.refuse(os.path.join(link, 'disk'))
        os.chown(self.node.layout.instances, nodes.NOBODY, nodes.NOBODY)
        self.allow(os.path.join(link, 'disk'))

    def test_a_link_to_all_that_is_around_leads_nowhere(self) -> None:
        path = self.elsewhere()
        link = os.path.join(self.node.layout.instances, 'up')
        os.symlink(os.path.dirname(self.node.layout.instances), link)
        self.refuse(os.path.join(link, 'elsewhere', 'disk'))
        self.assertTrue(os.path.exists(path))

    def test_the_cache_may_be_somewhere_else(self) -> None:
        path = self.elsewhere()
        os.rmdir(self.node.layout.base)
        os.symlink(os.path.dirname(path), self.node.layout.base)
        self.allow(os.path.join(self.node.layout.base, 'disk'))

    def test_instances_path_may_be_a_link(self) -> None:
        link = self.node.layout.instances + '.link'
        os.symlink(self.node.layout.instances, link)
        self.flags(instances_path=link)
        self.allow(os.path.join(link, 'guest', 'disk'))
        self.allow(self.path)

    @ddt.data('guest/', 'guest/.', 'guest/..')
    def test_what_is_not_the_name_of_a_file_is_refused(
        self, name: str
    ) -> None:
        path = os.path.join(self.node.layout.instances, name)
        self.assertRaises(PermissionError, privsep.touch, path)
        self.assertRaises(PermissionError, privsep.read, path, 0, 1)

    def test_a_directory_is_listed_as_it_is(self) -> None:
        odd = os.fsdecode(b'odd\xe9\n')
        self.node.add_file('guest', odd, data=b'x')
        directory = os.path.dirname(self.path)
        listed = privsep.list_as_root(directory)
        self.assertEqual(
            ['.', *sorted(['disk', 'link', odd])],
            [each.name for each in listed],
        )
        for each in listed:
            status = os.lstat(os.path.join(directory, each.name))
            self.assertEqual(
                host.Listed(
                    each.name,
                    status.st_mode,
                    status.st_ino,
                    status.st_dev,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                ),
                each,
            )
        (link,) = [each for each in listed if each.name == 'link']
        self.assertTrue(stat.S_ISLNK(link.mode))

    def test_what_is_no_directory_is_not_listed(self) -> None:
        self.assertRaises(NotADirectoryError, privsep.list_as_root, self.path)

    def test_what_goes_while_it_is_listed_is_left_out(self) -> None:
        real = os.listdir

        def listdir(path: Any) -> Any:
            return [*real(path), 'gone']

        with mock.patch('os.listdir', listdir):
            self.assertNotIn('gone', self.names(os.path.dirname(self.path)))

    def test_the_manager_has_all_three(self) -> None:
        lent = self.driver.image_cache_manager._assembly.host
        self.assertIs(privsep.read, lent.read_as_root)
        self.assertIs(privsep.touch, lent.touch_as_root)
        self.assertIs(privsep.list_as_root, lent.list_as_root)

    @ddt.data('FORK', 'ROOTWRAP')
    def test_a_daemon_reads_and_touches_what_is_not_ours(
        self, method: str
    ) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can start a daemon that is root')
        self.node.add_file('guest', os.fsdecode(b'odd\xe9'))
        os.chmod(self.path, 0o600)
        os.utime(self.path, (1, 1))
        # It can be searched, and not listed.
        os.chmod(os.path.dirname(self.path), 0o711)
        conf = os.path.join(self.node.layout.instances, '..', 'nova.conf')
        with open(conf, 'w') as file:
            file.write(
                f'[DEFAULT]\ninstances_path = {self.node.layout.instances}\n'
            )
        done = subprocess.run(
            [sys.executable, '-P', '-c', _UNPRIVILEGED, method,
             str(nodes.NOBODY), self.path, self.link, conf],
            cwd='/',
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
        self.assertEqual(
            [
                *['refused'] * 3,
                "b'234'",
                str(errno.EINVAL),
                r"'.' 'disk' 'link' 'odd\udce9'",
                *['not below instances_path'] * 3,
            ],
            done.stdout.splitlines(),
            done.stderr,
        )
        self.assertLess(1, os.stat(self.path).st_mtime)
