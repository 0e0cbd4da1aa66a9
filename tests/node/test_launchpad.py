# SPDX-License-Identifier: Apache-2.0

"""What the image cache manager of Nova is known to get wrong.

Each test makes the situation of a defect, and names the bug report where there
is one.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import ddt

from nova_imagecache.cache import directories
from nova_imagecache import names
from nova_imagecache.witnesses import instances
from tests.support import base
from tests.support import nodes
from tests.support import processes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'

_OLD = 365 * base.DAY


class LaunchpadTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.witness = instances.InstanceWitness([])

    def know(
        self,
        *guests: dict[str, Any],
        mappings: instances.BlockDeviceMappings | None = None,
    ) -> None:
        """Let the host's list of instances be this one."""
        self.witness = instances.InstanceWitness(guests, mappings)

    def assert_stays(self, *chosen: str) -> None:
        """Make passes until whatever may go has gone."""
        for _pass in range(3):
            report = self.node.run(self.witness)
            self.assertEqual(((), ()), (report.vetoes, report.problems))
            self.node.clock.advance(2 * base.DAY)
        self.assertEqual(set(chosen), self.node.files())
        self.assertEqual(set(), self.node.trash())

    def unused(self) -> str:
        """Make a base file that shows that passes do remove."""
        return self.node.add_image('unused', age=_OLD)


@ddt.ddt
class UsedTest(LaunchpadTestCase):
    """Base files that Nova's manager takes for unused."""

    def test_the_guests_of_a_host_that_has_long_been_silent(self) -> None:
        """Nova drops a host from a shared cache's list after 24 hours.

        ``storage_users.register_storage_use``; its guests may well run.
        """
        name = self.node.add_image('silent', age=_OLD)
        self.unused()
        self.node.add_overlay(GUEST, name)
        self.know({'uuid': OTHER, 'image_ref': 'another'})
        self.assert_stays(name)

    def test_a_host_that_made_no_pass_for_days_comes_back_to_its_files(
        self,
    ) -> None:
        """Likewise, with that host's manager and its state in the cache."""
        name = self.node.add_image('silent', age=_OLD)
        overlay = self.node.add_overlay(GUEST, name)
        self.node.configure(host='silent')
        self.node.run()
        self.node.clock.advance(3 * base.DAY)
        self.node.configure(host='other')
        self.know()
        self.assert_stays(name)
        self.node.configure(host='silent')
        self.assertEqual(2, len(nodes.backing_chain(overlay)))
        self.assert_stays(name)

    @ddt.data('disk.rescue', 'disk.eph0', 'disk.eph1', 'disk.local')
    def test_a_disk_that_is_not_called_disk(self, disk: str) -> None:
        """Nova's ``_list_backing_images`` looks at ``disk`` alone."""
        name = self.node.add_image('rescue', age=_OLD)
        self.unused()
        self.node.add_overlay(GUEST, name, disk=disk)
        self.know({'uuid': GUEST, 'image_ref': 'another'})
        self.assert_stays(name)

    def test_more_than_one_ephemeral_device_and_swap(self) -> None:
        """Nova counts the first ephemeral device and the first swap alone.

        The disks are on another storage here, so that no overlay tells.
        """
        kept = {
            'swap_512', 'swap_1024', 'ephemeral_1_0706d66',
            'ephemeral_20_40d1d2c', 'ephemeral_30_40d1d2c',
        }  # fmt: skip
        for name in (*kept, 'swap_64', 'ephemeral_2_0706d66'):
            self.node.add_base(name, age=_OLD)
        devices = [
            {
                'source_type': 'blank',
                'destination_type': 'local',
                'guest_format': form,
                'volume_size': size,
            }
            for form, size in (
                ('swap', 512), ('swap', 1024), (None, 1), ('ext4', 20),
                (None, 30),
            )
        ]  # fmt: skip
        self.know({'uuid': GUEST, 'image_ref': ''}, mappings={GUEST: devices})
        self.assert_stays(*kept)

    def test_the_base_of_a_second_ephemeral_disk(self) -> None:
        """Likewise, where only the overlay tells, as for an old guest."""
        for name in ('ephemeral_1_0706d66', 'ephemeral_2_0706d66'):
            self.node.add_base(name, age=_OLD)
        self.node.add_overlay(GUEST, 'ephemeral_2_0706d66', 'disk.eph1')
        self.assert_stays('ephemeral_2_0706d66')

    def test_a_resize_that_nobody_has_confirmed_for_days(self) -> None:
        """The source's disk is in ``<uuid>_resize``, and may come back.

        The instance is on another host by then, with another image_ref after
        a rebuild; and removal of the base ends all hope of a revert.
        """
        name = self.node.add_image('source', age=_OLD)
        self.unused()
        overlay = self.node.add_overlay(f'{GUEST}_resize', name)
        self.know()
        self.assert_stays(name)
        # The revert.
        home = os.path.join(self.node.layout.instances, GUEST)
        os.rename(os.path.dirname(overlay), home)
        self.assertEqual(
            2, len(nodes.backing_chain(os.path.join(home, 'disk')))
        )
        self.assert_stays(name)

    def test_a_guest_that_was_unshelved(self) -> None:
        """Its disk is over the snapshot's base; its image_ref is the old one.

        https://bugs.launchpad.net/nova/+bug/1732428
        """
        snapshot = self.node.add_image('snapshot', age=_OLD)
        original = self.node.add_image('image', age=_OLD)
        self.unused()
        overlay = self.node.add_overlay(GUEST, snapshot)
        self.know({'uuid': GUEST, 'image_ref': 'image'})
        self.assert_stays(snapshot, original)
        shutil.rmtree(os.path.dirname(overlay))
        self.assert_stays(original)


class ScanTest(LaunchpadTestCase):
    def delete_guest_at(self, opened: str) -> None:
        """Have a guest be deleted just when something of it is opened."""
        real = os.open
        pending = [os.path.join(self.node.layout.instances, GUEST)]

        def open_late(name: Any, *args: Any, **kwargs: Any) -> int:
            if name == opened and pending:
                shutil.rmtree(pending.pop())
            return real(name, *args, **kwargs)

        self.patch(os, 'open', open_late)

    def test_a_disk_that_vanishes_during_the_scan(self) -> None:
        """It ends Nova's pass, and all that the pass was to do.

        https://bugs.launchpad.net/nova/+bug/1261442
        """
        gone = self.node.add_image('gone', age=_OLD)
        used = self.node.add_image('used', age=_OLD)
        unused = self.unused()
        path = self.node.add_overlay(GUEST, gone)
        other = self.node.add_overlay(OTHER, used)
        self.delete_guest_at(path)
        report = self.node.run(self.witness)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(((), ()), (report.vetoes, report.problems))
        self.assertNotIn(unused, self.node.files())
        self.assertEqual(2, len(nodes.backing_chain(other)))
        # By now nobody uses this one; it is aged from its last use.
        self.assert_stays(used)

    def test_a_directory_that_vanishes_before_it_is_read(self) -> None:
        """Likewise, with all of the guest."""
        used = self.node.add_image('used', age=_OLD)
        path = self.node.add_overlay(GUEST, self.unused())
        self.node.add_overlay(OTHER, used)
        self.delete_guest_at(os.path.dirname(path))
        report = self.node.run(self.witness)
        self.assertEqual(((), ()), (report.vetoes, report.problems))
        self.assertFalse(os.path.exists(path))
        self.assert_stays(used)

    def test_a_touch_that_is_refused_ends_nothing(self) -> None:
        """The base files are QEMU's user's, or on NFS with root squashed.

        https://bugs.launchpad.net/nova/+bug/1809123
        """
        name = self.node.add_image('used', age=_OLD)
        self.unused()
        overlay = self.node.add_overlay(GUEST, name)
        with contextlib.ExitStack() as stack:
            if os.geteuid() == 0:
                self._give_away(name)
                stack.enter_context(nodes.unprivileged())
            else:
                # Mocked: a file of another user's takes root.
                stack.enter_context(base.patched(os, 'utime', self._refuse))
            before = os.stat(self.node.base_path(name)).st_mtime_ns
            self.assertRaises(
                PermissionError, os.utime, self.node.base_path(name)
            )
            self.assert_stays(name)
            self.assertEqual(
                before, os.stat(self.node.base_path(name)).st_mtime_ns
            )
            # The use is remembered all the same, and ages from the last one.
            os.unlink(overlay)
            self.node.clock.advance(-2 * base.DAY + 23 * base.HOUR)
            self.node.run(self.witness)
            self.assertEqual({name}, self.node.files())
            self.node.clock.advance(2 * base.HOUR)
            self.node.run(self.witness)
            self.assertEqual({name}, self.node.trash())

    def _give_away(self, but: str) -> None:
        """Give all to the user that the service runs as, but for one file."""
        for parent, _directories, files in os.walk(self.temporary):
            for path in [parent, *(f'{parent}/{name}' for name in files)]:
                os.chown(path, nodes.NOBODY, nodes.NOBODY)
        os.chown(self.node.base_path(but), 0, 0)

    @staticmethod
    def _refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError


@ddt.ddt
class LeftoverTest(LaunchpadTestCase):
    """Nova leaves behind for ever what a killed fetch has left."""

    @ddt.data('{}.part', '{}.converted', '.{}.aB3dEf')
    def test_it_is_reclaimed_but_not_while_it_is_young(
        self, form: str
    ) -> None:
        name = form.format(names.get_cache_fname('fetched'))
        os.chmod(self.node.add_base(name, age=23 * base.HOUR), 0o600)
        self.node.run(self.witness)
        self.assertEqual({name}, self.node.files())
        for _pass in range(2):
            self.node.clock.advance(2 * base.HOUR)
            self.node.run(self.witness)
            self.assertEqual(set(), self.node.files())
        self.assertEqual(set(), self.node.trash())

    @ddt.data('{}.part', '{}.converted', '.{}.aB3dEf')
    def test_it_stays_while_the_fetch_goes_on(self, form: str) -> None:
        base_name = names.get_cache_fname('fetched')
        name = form.format(base_name)
        os.chmod(self.node.add_base(name, age=_OLD), 0o600)
        fetch = processes.NovaProcess(self.node.layout.locks, base_name)
        with fetch:
            report = self.node.run(self.witness)
            self.assertIn('lock', self.file_of(report, name).reason)
            self.assertEqual({name}, self.node.files())
        self.node.run(self.witness)
        self.assertEqual(set(), self.node.files())


# As Nova does it, each time it is told to by a line.
_TRY_LOCKS = """
import json, sys
from oslo_concurrency import lockutils
for line in sys.stdin:
    taken = []
    for name in json.loads(line):
        try:
            with lockutils.lock(name, lock_file_prefix='nova-', external=True,
                                lock_path=sys.argv[1], blocking=False):
                taken.append(name)
        except lockutils.AcquireLockFailedException:
            pass
    print(json.dumps(taken), flush=True)
"""


class LockTest(LaunchpadTestCase):
    """Nova unlinks the lock file of a base file that it has removed.

    Whoever waits for the lock then has that of a file without name, and the
    next one makes a new file: two processes hold "one" lock.
    """

    def setUp(self) -> None:
        super().setUp()
        self.process = subprocess.Popen(
            [sys.executable, '-c', _TRY_LOCKS, self.node.layout.locks],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.process.communicate)
        self.name = self.node.add_image('removed', age=_OLD)

    def try_locks(self, *chosen: str) -> list[str]:
        """Have the other process take locks; give those that it could."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(chosen) + '\n')
        self.process.stdin.flush()
        taken: list[str] = json.loads(self.process.stdout.readline())
        return taken

    def inodes(self) -> dict[str, int]:
        path = self.node.layout.locks
        return {
            name: os.stat(os.path.join(path, name)).st_ino
            for name in os.listdir(path)
        }

    def test_lock_files_outlive_the_files_that_they_are_of(self) -> None:
        leftover = f'{names.get_cache_fname("fetched")}.part'
        self.node.add_base(leftover, age=_OLD)
        self.node.configure(checksum=True)
        # Those that Nova made, of files that are there and that are not.
        for name in (self.name, 'f' * 40):
            self.assertEqual([name], self.try_locks(name))
        before = self.inodes()
        for _pass in range(4):
            self.node.run(self.witness)
            self.node.clock.advance(2 * base.DAY)
        self.assertEqual(
            (set(), set()), (self.node.files(), self.node.trash())
        )
        after = self.inodes()
        self.assertEqual(before, {name: after[name] for name in before})
        self.assertEqual(after, after | self.inodes())

    def test_another_process_is_kept_out_while_a_file_is_removed(
        self,
    ) -> None:
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run(self.witness)
        self.node.configure(remove_unused=True)
        taken: list[str] = []
        calls: set[str] = set()

        def spy(owner: Any, function: str) -> None:
            real = getattr(owner, function)

            def call(*args: Any, **kwargs: Any) -> Any:
                if not any(self.name in str(arg) for arg in args):
                    return real(*args, **kwargs)
                calls.add(function)
                taken.extend(self.try_locks(self.name))
                try:
                    return real(*args, **kwargs)
                finally:
                    taken.extend(self.try_locks(self.name))

            self.patch(owner, function, call)

        spy(os, 'unlink')
        spy(os, 'link')
        spy(directories, 'rename_at_once')
        for _pass in range(2):
            self.node.run(self.witness)
            self.node.clock.advance(2 * base.HOUR)
        self.assertEqual(
            (set(), set()), (self.node.files(), self.node.trash())
        )
        expected = {'unlink', 'link', 'rename_at_once'}
        self.assertEqual((expected, []), (calls, taken))
        # Afterwards it is free, and one of two waits for the other.
        self.assertEqual([self.name], self.try_locks(self.name))
        with processes.NovaProcess(self.node.layout.locks, self.name):
            self.assertEqual([], self.try_locks(self.name))
