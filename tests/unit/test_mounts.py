# SPDX-License-Identifier: Apache-2.0

import dataclasses

import ddt
import psutil

from nova_imagecache.cache import mounts
from tests.support import base


@dataclasses.dataclass(frozen=True)
class Mount:
    mountpoint: str
    fstype: str
    opts: str


ROOT = Mount('/', 'ext4', 'rw,relatime')
NFS = Mount('/srv/nova', 'nfs4', 'rw,vers=4.2,local_lock=none,addr=10.0.0.1')
CACHE = '/srv/nova/instances/_base'


def nfs(options: str) -> Mount:
    return dataclasses.replace(NFS, fstype='nfs', opts=f'rw,{options},hard')


@ddt.ddt
class OneClockTest(base.TestCase):
    """Only where one clock dates all files, it tells how old each is."""

    @ddt.data(
        ('ext4', True), ('xfs', True), ('nfs4', True), ('ceph', False),
        ('lustre', False), ('gfs2', False), ('fuse.glusterfs', False),
    )  # fmt: skip
    @ddt.unpack
    def test_a_type_that_is_not_known_to_have_one_has_none(
        self, fstype: str, one: bool
    ) -> None:
        mount = Mount('/srv/nova', fstype, 'rw')
        self.patch(mounts, 'of', lambda path: mount)
        self.assertIs(one, mounts.has_one_clock(CACHE))

    def test_nor_has_what_is_no_mount(self) -> None:
        self.patch(mounts, 'of', lambda path: None)
        self.assertFalse(mounts.has_one_clock(CACHE))


@ddt.ddt
class LocalLocksTest(base.TestCase):
    @ddt.data(
        nfs('nolock'),
        nfs('local_lock=all'),
        nfs('local_lock=posix'),
        Mount('/srv/nova', 'cifs', 'rw,nobrl'),
        Mount('/srv/nova', 'smb3', 'nobrl,rw'),
        Mount('/srv/nova', 'lustre', 'rw,localflock'),
    )
    def test_a_mount_whose_locks_stay_on_the_host_is_named(
        self, mount: Mount
    ) -> None:
        found = mounts.find_local_locks([ROOT, mount], CACHE)
        assert found is not None
        self.assertIn('/srv/nova is mounted with ', found)
        self.assertIn(
            found.partition('mounted with ')[2].partition(',')[0], mount.opts
        )

    @ddt.data(
        'fuse', 'fuse.bindfs', 'fuse.sshfs', 'fuse.mergerfs', '9p', 'virtiofs'
    )  # fmt: skip
    def test_so_is_one_whose_kind_of_file_system_keeps_them(
        self, fstype: str
    ) -> None:
        mount = Mount('/srv/nova', fstype, 'rw')
        found = mounts.find_local_locks([ROOT, mount], CACHE)
        assert found is not None
        self.assertIn(f'/srv/nova is of the type {fstype}, ', found)
        why = mounts.why_no_qemu_locks(mount)
        assert why is not None
        self.assertIn(f'/srv/nova is of the type {fstype}, ', why)

    @ddt.data(
        Mount('/srv/nova', 'fuse.glusterfs', 'rw'),
        Mount('/srv/nova', 'fuse.ceph-fuse', 'rw'),
        Mount('/srv/nova', 'ceph', 'rw'),
        Mount('/srv/nova', 'fuseblk', 'rw'),
        Mount('/srv/nova', 'lustre', 'rw,flock'),
        NFS,
        nfs('local_lock=flock'),
        Mount('/srv/nova', 'cifs', 'rw'),
        # Another cache's, and no cache's at all.
        dataclasses.replace(nfs('nolock'), mountpoint='/srv/nova2'),
        dataclasses.replace(nfs('nolock'), mountpoint='/srv/nova/inst'),
        # What it means elsewhere is not what it means to NFS.
        Mount('/srv/nova', 'ext4', 'rw,nolock'),
    )
    def test_any_other_is_none(self, mount: Mount) -> None:
        self.assertIsNone(mounts.find_local_locks([ROOT, mount], CACHE))

    def test_hosts_share_locks_on_juicefs_and_qemus_do_not(self) -> None:
        mount = Mount('/srv/nova', 'fuse.juicefs', 'rw')
        self.assertIsNone(mounts.find_local_locks([ROOT, mount], CACHE))
        self.assertIn('juicefs', mounts.why_no_qemu_locks(mount) or '')

    @ddt.data(ROOT, NFS, Mount('/srv/nova', 'fuse.glusterfs', 'rw'))
    def test_nothing_speaks_against_qemus_locks_elsewhere(
        self, mount: Mount
    ) -> None:
        self.assertIsNone(mounts.why_no_qemu_locks(mount))

    def test_on_a_disk_of_this_host_the_kernel_keeps_all_locks(self) -> None:
        self.assertTrue(mounts.is_of_this_host(ROOT))
        self.assertFalse(mounts.is_of_this_host(NFS))

    def test_the_innermost_mount_counts(self) -> None:
        outer = dataclasses.replace(nfs('nolock'), mountpoint='/srv')
        self.assertIsNone(mounts.find_local_locks([ROOT, NFS, outer], CACHE))
        inner = dataclasses.replace(nfs('nolock'), mountpoint=CACHE)
        self.assertIsNotNone(mounts.find_local_locks([inner, NFS], CACHE))

    def test_of_two_in_one_place_the_later_one_counts(self) -> None:
        self.assertIsNone(mounts.find_local_locks([nfs('nolock'), NFS], CACHE))
        self.assertIsNotNone(
            mounts.find_local_locks([NFS, nfs('nolock')], CACHE)
        )

    def test_where_nothing_is_mounted_nothing_is_known(self) -> None:
        self.assertIsNone(mounts.find_local_locks([], CACHE))


@ddt.ddt
class PlacesTest(base.TestCase):
    """Where something is mounted."""

    @ddt.data(
        ('/srv/nova', '/srv/nova'),
        (CACHE, '/srv/nova'),
        ('/srv/nova2', '/'),
        ('/', '/'),
    )
    @ddt.unpack
    def test_a_path_is_on_the_innermost_mount(
        self, path: str, point: str
    ) -> None:
        found = mounts.innermost([ROOT, NFS], path)
        self.assertEqual(point, found and found.mountpoint)

    def test_where_there_are_no_mounts_it_is_on_none(self) -> None:
        self.assertIsNone(mounts.innermost([], CACHE))
        self.assertIsNone(mounts.innermost([NFS], '/srv'))

    @ddt.data(
        ('/', ('/srv/nova', '/srv/nova/instances', '/srv/nova2')),
        ('/srv', ('/srv/nova', '/srv/nova/instances', '/srv/nova2')),
        ('/srv/nova', ('/srv/nova/instances',)),
        ('/srv/nova/', ('/srv/nova/instances',)),
        ('/srv/nova/instances', ()),
        (CACHE, ()),
    )
    @ddt.unpack
    def test_what_is_mounted_below_a_path_is_found_once(
        self, path: str, points: tuple[str, ...]
    ) -> None:
        inner = dataclasses.replace(NFS, mountpoint='/srv/nova/instances')
        other = dataclasses.replace(NFS, mountpoint='/srv/nova2')
        self.assertEqual(
            points, mounts.find_below([ROOT, NFS, inner, other, inner], path)
        )

    def test_a_host_that_does_not_say_knows_no_place(self) -> None:
        def refuse(all: bool) -> None:
            raise PermissionError(13, 'Permission denied')

        self.patch(psutil, 'disk_partitions', refuse)
        self.assertIsNone(mounts.mount_point(CACHE))
        self.assertEqual((), mounts.below('/'))
        self.assertIsNone(mounts.local_locks(CACHE))
