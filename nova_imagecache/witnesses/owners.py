# SPDX-License-Identifier: Apache-2.0

"""Whose a path below ``instances_path`` is: a matter of names."""

import os

#: Nova renames the directory of a guest that is resized or deleted.
SUFFIXES = ('_del', '_resize')


def guest_of(root: str, directory: str, name: str) -> str:
    """Name the guest that a file belongs to.

    :param root: the guests have their directories in it
    :param directory: the one that the file is in
    :param name: of the file, which is all there is beside the directories
    """
    if directory == root:
        return name
    guest = directory.removeprefix(root + os.sep).partition(os.sep)[0]
    for suffix in SUFFIXES:
        guest = guest.removesuffix(suffix)
    return guest


def owner_of(instances: str, path: str) -> str:
    """Name the guest in whose directory a path is, or that it is."""
    return guest_of(instances, path + os.sep, '')
