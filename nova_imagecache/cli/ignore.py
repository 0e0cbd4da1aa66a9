# SPDX-License-Identifier: Apache-2.0

"""The command ignore."""

import os
import time

from nova_imagecache.cache import identity
from nova_imagecache.cache import ignored_files
from nova_imagecache.cli import ignoring
from nova_imagecache import errors
from nova_imagecache import names


class Ignore(ignoring.Ignoring):
    """Say of a file that it is no disk of a guest.

    For a file that cannot be read, or that has the damaged header of a disk:
    it keeps base files from being removed, as a guest may need them. What is
    said holds for this very file, and not for another one that is at the same
    path later. "nova-imagecache status" shows it until it is taken back.
    """

    def change(self, path: str, marks: dict[str, ignored_files.Mark]) -> bool:
        """Mark a file."""
        try:
            found = identity.stat_of(path)
        except OSError as error:
            raise errors.Error(
                f'{names.printable(path)} cannot be looked at: '
                f'{error.strerror}; only what is there can be ignored'
            ) from None
        if os.path.isdir(path):
            raise errors.Error(
                f'{names.printable(path)} is a directory, and what will be in '
                'it is not known; list it in [image_cache]/ignore_paths if no '
                'guest has a disk there'
            )
        key = found.incarnation.key
        known = marks.get(path)
        if known is not None and known.key == key:
            return False
        marks[path] = ignored_files.Mark(key, time.time())
        return True
