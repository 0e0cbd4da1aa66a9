# SPDX-License-Identifier: Apache-2.0

"""What is below instances_path and is no disk of a guest."""

from collections.abc import Callable
from collections.abc import Collection
import fnmatch
import os
import re

from nova_imagecache.cache import layouts
from nova_imagecache import names

# Logs and vTPM state are not even readable for the compute service. And what
# quotacheck(8) leaves, of whatever file system is mounted there.
_NO_DISKS = re.compile(
    r'console\.log.*|disk\.info|swtpm|a?quota\.(user|group|project)'
)

# What file systems, filers and tools for snapshots keep in them: those of
# NetApp and Isilon, ZFS, snapper and GPFS, Gluster (a brick), file managers.
# The snapshots are of guests that were, and none is started from there; if
# one is after all, libvirt names its disk.
_DIRECTORIES = re.compile(
    r'\.snapshots?|\.zfs|\.glusterfs|\.Trash(-[0-9]+)?|\.ckpt'
)

# Emacs locks the file that it edits by a link to whoever does.
_EDITORS_LOCK = re.compile(r'\.#.*')

_LOST_AND_FOUND = 'lost+found'


def _is_lost_and_found(path: str) -> bool:
    """Whether this is what fsck found, which is root's alone."""
    try:
        return os.lstat(path).st_uid == 0
    except OSError:
        return False


class Ignored:
    """Tells what is not looked into."""

    def __init__(
        self, layout: layouts.Layout, patterns: Collection[str] = ()
    ) -> None:
        """Take what an operator lists.

        :param patterns: of paths, absolute or below ``instances_path``, as in
            a shell
        """
        self._instances = layout.instances
        self._paths = {
            # Locks, and our own files: to close one would drop a lock.
            layout.locks,
            layout.own,
            # Whoever owns these: not everybody can tell, as with root
            # squashed.
            os.path.join(layout.instances, _LOST_AND_FOUND),
            os.path.join(layout.base, _LOST_AND_FOUND),
        }
        self._patterns = [
            os.path.normpath(os.path.join(layout.instances, pattern))
            for pattern in patterns
            if pattern
        ]

    def __call__(
        self, path: str, name: str, is_directory: Callable[[], bool]
    ) -> bool:
        """Whether this is none of a guest's.

        :param is_directory: asked only where that matters
        :raises OSError: as ``is_directory``
        """
        if path in self._paths or _NO_DISKS.fullmatch(name):
            return True
        if self._patterns and any(
            fnmatch.fnmatchcase(path, each) for each in self._patterns
        ):
            return True
        if name == _LOST_AND_FOUND:
            return _is_lost_and_found(path)
        # All that is left begins so.
        if not name.startswith('.'):
            return False
        if name == names.OWN_DIRECTORY:
            return self._is_a_siblings(path)
        if _EDITORS_LOCK.fullmatch(name):
            return os.path.islink(path) and not os.path.exists(path)
        return bool(_DIRECTORIES.fullmatch(name)) and is_directory()

    def _is_a_siblings(self, path: str) -> bool:
        """Whether this is what we have in the cache of another host."""
        return os.path.dirname(os.path.dirname(path)) == self._instances
