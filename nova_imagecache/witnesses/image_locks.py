# SPDX-License-Identifier: Apache-2.0

"""The witness that asks for the locks of running QEMUs on base files."""

from collections.abc import Collection
import errno
import os

from nova_imagecache.cache import layouts
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import trash
from nova_imagecache import codes
from nova_imagecache import names
from nova_imagecache import pools
from nova_imagecache.witnesses import testimonies


class ImageLockWitness:
    """Which base files some QEMU has open, whoever it runs for.

    It sees guests whose disks nobody finds any more, and on NFS those of other
    hosts. It does not see who they are.
    """

    def __init__(self, layout: layouts.Layout) -> None:
        """Look at nothing yet."""
        self._layout = layout
        # Why they do not tell, if so, by the number of the file system.
        self._untold: dict[int, str | None] = {}

    def look(
        self,
        base_files: Collection[str],
        others: testimonies.Testimony | None = None,
    ) -> testimonies.Testimony:
        """Say which of these files a QEMU has open, as far as that is news.

        Not of one that a disk or a domain shows to be in use. And which of
        those in the trash, by the name that they have there.
        """
        bases = [name for name in base_files if names.kind_of(name).is_base]
        shown = frozenset[str]() if others is None else others.shown
        asked = {
            name: self._layout.file(name)
            for name in bases
            if name not in shown
        }
        for file in trash.scan(self._layout).files:
            asked[file.name] = file.path
        held = set()
        notes: list[codes.Problem] = []
        # Whether they tell at all is found out in any case, and by one.
        for path in (*asked.values(), *map(self._layout.file, bases[:1])):
            self._asked(path)
            break
        for name, answer in zip(
            asked, pools.each(self._asked, asked.values()), strict=True
        ):
            if isinstance(answer, bool):
                if answer:
                    held.add(name)
            # What has gone, or is no file, is nobody's.
            elif answer.errno not in (errno.ENOENT, errno.EINVAL):
                # It counts as held, and holds back no other (decision 0030).
                held.add(name)
                notes.append(
                    codes.Problem(
                        codes.Code.QEMU_LOCKS,
                        f'whether a QEMU has {names.printable(name)} open '
                        f'cannot be asked: {answer.strerror}',
                        name,
                    )
                )
        notes += [
            codes.Problem(
                codes.Code.QEMU_LOCKS,
                f'the locks of QEMU do not tell who uses a file in '
                f'{self._layout.base}, and the other witnesses decide alone: '
                f'{why}',
                self._layout.base,
            )
            for why in self._untold.values()
            if why is not None
        ]
        return testimonies.Testimony(held=frozenset(held), notes=tuple(notes))

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Add nothing: whoever removes the file asks once more."""
        return testimonies.Testimony()

    def _asked(self, path: str) -> bool | OSError:
        try:
            return self._held(path)
        except OSError as error:
            return error

    def _held(self, path: str) -> bool:
        try:
            # One that is seen counts, whoever else is not.
            seen = qemu_locks.look(path)
        except OSError as error:
            why = self._why_untold(path, os.lstat(path).st_dev)
            if why is None or error.errno not in qemu_locks.NO_LOCKS:
                raise
            return False
        self._why_untold(path, seen.device)
        return seen.in_use

    def _why_untold(self, path: str, device: int) -> str | None:
        if device not in self._untold:
            self._untold[device] = qemu_locks.why_untold(path)
        return self._untold[device]
