# SPDX-License-Identifier: Apache-2.0

"""Steps: what is beside the disks of guests, and is none."""

import functools
import os
import shutil
import uuid

from nova_imagecache.cache import identity
from nova_imagecache.cache import ignored_files
from tests.histories import choices
from tests.histories import disks
from tests.histories import inhabitants

STEPS = ('drop', 'drop', 'clear', 'sibling', 'snapshot', 'restore', 'seed')

# Name, content, and whether it is readable.
_FOREIGN = (
    ('root-notes.txt', b'do not touch', False),
    ('half.qcow2', disks.HALF, True),
)
# What nobody has to say anything of.
_HARMLESS = (
    ('aquota.user', b'quota', False),
    ('core.1234', b'\x7fELF core', True),
    (os.path.join('lost+found', '#1234'), disks.HALF, False),
)


def _with_mark(
    path: str, mark: ignored_files.Mark, marks: ignored_files.Marks
) -> ignored_files.Marks:
    return {**marks, path: mark}


class Files(choices.Choices):
    """What may come to be beside the disks of guests."""

    _dropped = 0

    def _put(self, path: str, data: bytes, readable: bool = True) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as file:
            file.write(data)
        if not readable:
            self._world.unreadable.add(os.stat(path).st_ino)
        self._world.tick(os.path.dirname(path))

    def _drop(self) -> None:
        """Leave a file there, below instances_path or in a guest's place."""
        name, data, readable = self._pick([*_FOREIGN, *_HARMLESS])
        harmless = (name, data, readable) in _HARMLESS
        root = self._host().instances
        path = os.path.join(root, name)
        if not os.path.lexists(path):
            self._put(path, data, readable)
            if not harmless:
                self.sights.foreign[path] = set()

    def _clear(self) -> None:
        """See to a file that is none of a guest's."""
        if self.sights.foreign:
            path = self._pick(sorted(self.sights.foreign))
            self._see_to(path, self._pick(['remove', 'ignore']))

    def _see_to(self, path: str, how: str) -> None:
        if how == 'remove':
            os.unlink(path)
            del self.sights.foreign[path]
            return
        for host in self._world.hosts:
            os.makedirs(self._layout.ignored, exist_ok=True)
            mark = ignored_files.Mark(
                identity.stat_of(path).incarnation.key,
                self._world.now(host).wall,
            )
            ignored_files.amend(
                self._layout,
                host.name,
                functools.partial(_with_mark, path, mark),
            )
            self.sights.foreign[path].add(host.name)

    def _stranger(self, root: str, cache: str) -> None:
        """Make a disk that needs nothing of this cache."""
        name = self._name()
        self._dropped += 1
        guest = str(uuid.UUID(int=self._dropped))
        self._put(
            os.path.join(root, guest, 'disk'),
            self._overlay(os.path.join(cache, name)),
        )

    def _overlay(self, path: str) -> bytes:
        return self._world.templates.over(path)

    def _sibling(self) -> None:
        """Let another host have a cache of its own, as ``_base_$my_ip``."""
        root = self._host().instances
        sibling = os.path.join(root, '_base_192.0.2.7')
        for name in inhabitants.BASE_FILES:
            self._put(os.path.join(sibling, name), b'of another host')
        self._stranger(root, sibling)

    def _snapshot(self) -> None:
        """Let the filer keep disks as they were."""
        root = self._host().instances
        self._stranger(
            os.path.join(root, '.snapshot', 'hourly.0'),
            os.path.join(root, os.path.basename(self._layout.base)),
        )

    def _seed(self) -> None:
        """Copy a base file into the cache, as old as it is elsewhere."""
        name = self._name()
        path = self._layout.file(name)
        if not os.path.lexists(path):
            self._restore_base(name)

    def _restore_base(self, name: str) -> None:
        path = self._layout.file(name)
        self._put(path + '.part', inhabitants.CONTENT[name])
        old = int((self._world.wall - self._pick([9000, 10**6])) * 10**9)
        os.utime(path + '.part', ns=(old, old))
        os.rename(path + '.part', path)
        identity.stat_of(path)
        self._world.used[name] = self._world.true

    def _restore(self) -> None:
        """Lose base files and a guest; bring back the files first."""
        guest = self._guest(
            lambda guest: self._is_at_home(guest) and not guest.opened
        )
        if guest is None or guest.layers:
            return
        backup = os.path.join(self._world.elsewhere, 'backup')
        shutil.copytree(str(guest.directory), backup)
        needed = {**guest.disks}
        for name in guest.needs:
            path = self._layout.file(name)
            if os.path.exists(path) and not any(
                name in other.needs
                for other in self._world.guests
                if other is not guest
            ):
                os.unlink(path)
                self._restore_base(name)
        place = str(guest.directory)
        shutil.rmtree(place)
        guest.directory, guest.disks = None, {}
        self.check()
        for _pass in range(self._pick([0, 1, 2])):
            self._world.advance(self._pick([10, 1000]))
            self.run_pass(self._host())
        shutil.move(backup, place)
        guest.directory, guest.disks = place, needed
        self._world.tick(os.path.dirname(place))
