# SPDX-License-Identifier: Apache-2.0

"""Reading and touching what belongs to QEMU's user, as Nova does it."""

import errno
import os
import subprocess
import sys
import textwrap

import ddt
import nova.privsep

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

    method, user, path, link = sys.argv[1:]
    config.parse_args(
        ['nova-compute', '--config-file', os.devnull],
        configure_db=False,
        init_rpc=False,
    )
    config.CONF.set_override(
        'helper_command',
        os.path.join(sys.prefix, 'bin', 'privsep-helper'),
        group='nova_sys_admin',
    )
    context = nova.privsep.sys_admin_pctxt
    context.start(priv_context.Method[method])
    os.setgroups([])
    os.setresgid(*[int(user)] * 3)
    os.setresuid(*[int(user)] * 3)
    for attempt in (open, os.utime):
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
    context.stop()
""")


@ddt.ddt
class PrivsepTest(base.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.node.add_file('guest', 'disk', data=b'0123456789')
        self.link = os.path.join(os.path.dirname(self.path), 'link')
        os.symlink(self.path, self.link)

    def test_both_belong_to_the_context_of_nova(self) -> None:
        for function in (privsep.read, privsep.touch):
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

    @ddt.data('FORK', 'ROOTWRAP')
    def test_a_daemon_reads_and_touches_what_is_not_ours(
        self, method: str
    ) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can start a daemon that is root')
        os.chmod(self.path, 0o600)
        os.utime(self.path, (1, 1))
        done = subprocess.run(
            [sys.executable, '-P', '-c', _UNPRIVILEGED, method,
             str(nodes.NOBODY), self.path, self.link],
            cwd='/',
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
        self.assertEqual(
            ['refused', 'refused', "b'234'", str(errno.EINVAL)],
            done.stdout.splitlines(),
            done.stderr,
        )
        self.assertLess(1, os.stat(self.path).st_mtime)
