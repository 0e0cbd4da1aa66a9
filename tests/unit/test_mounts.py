# SPDX-License-Identifier: Apache-2.0

import dataclasses

import ddt

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
class LocalLocksTest(base.TestCase):
    @ddt.data(
        nfs('nolock'),
        nfs('local_lock=all'),
        nfs('local_lock=posix'),
        Mount('/srv/nova', 'cifs', 'rw,nobrl'),
        Mount('/srv/nova', 'smb3', 'nobrl,rw'),
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
