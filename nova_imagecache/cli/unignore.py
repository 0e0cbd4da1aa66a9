# SPDX-License-Identifier: Apache-2.0

"""The command unignore."""

from nova_imagecache.cache import ignored_files
from nova_imagecache.cli import ignoring


class Unignore(ignoring.Ignoring):
    """Take back what was said with "nova-imagecache ignore"."""

    def change(self, path: str, marks: dict[str, ignored_files.Mark]) -> bool:
        """Take a mark away."""
        return marks.pop(path, None) is not None
