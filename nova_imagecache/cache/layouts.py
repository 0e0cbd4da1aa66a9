# SPDX-License-Identifier: Apache-2.0

"""Where things are below ``instances_path``."""

import os
from typing import NamedTuple

from nova_imagecache.conf import Settings
from nova_imagecache import names


class Layout(NamedTuple):
    """The paths of one image cache.

    :ivar instances: the instances' directories are in here
    :ivar base: the base files are in here
    """

    instances: str
    base: str

    @classmethod
    def of(cls, settings: Settings) -> 'Layout':
        """Give the layout that the settings describe."""
        return cls.at(settings.instances_path, settings.subdirectory_name)

    @classmethod
    def at(cls, instances: str, subdirectory_name: str) -> 'Layout':
        """Give the layout with the base files in such a subdirectory."""
        return cls(instances, os.path.join(instances, subdirectory_name))

    @classmethod
    def around(cls, base_file: str) -> 'Layout':
        """Give the layout of the cache that a base file is in.

        The instances are where Nova's locks are: in the directory above, or
        further up where there is nothing in between but the way to the cache.
        """
        base = os.path.dirname(os.path.abspath(base_file))
        below, above = base, os.path.dirname(base)
        while not os.path.isdir(os.path.join(above, 'locks')):
            if above == below or len(os.listdir(above)) > 1:
                return cls(os.path.dirname(base), base)
            below, above = above, os.path.dirname(above)
        return cls(above, base)

    @property
    def locks(self) -> str:
        """Nova's directory of lock files, as nova/virt/libvirt has it."""
        return os.path.join(self.instances, 'locks')

    @property
    def own(self) -> str:
        """The directory of everything of ours but the sidecars."""
        return os.path.join(self.base, names.OWN_DIRECTORY)

    @property
    def own_locks(self) -> str:
        """Locks between managers; Nova knows nothing of them."""
        return os.path.join(self.own, 'locks')

    @property
    def ledgers(self) -> str:
        """One record per base file: what is known of its content."""
        return os.path.join(self.own, 'ledgers')

    @property
    def state(self) -> str:
        """The record of when files were seen first and used last."""
        return os.path.join(self.own, 'state')

    @property
    def passes(self) -> str:
        """The record of when hosts passed, and of what they are."""
        return os.path.join(self.own, 'passes')

    @property
    def scrub(self) -> str:
        """The record of the last scrub: who, when, how far."""
        return os.path.join(self.own, 'scrub')

    @property
    def reading(self) -> str:
        """The record of what is read now for whom a person waits."""
        return os.path.join(self.own, 'reading')

    @property
    def incidents(self) -> str:
        """The record of the damage that was found, and of its end."""
        return os.path.join(self.own, 'incidents')

    @property
    def trash(self) -> str:
        """Base files that were removed, for as long as they are kept."""
        return os.path.join(self.own, 'trash')

    @property
    def pins(self) -> str:
        """One record per base file that is to stay, under its name."""
        return os.path.join(self.own, 'pins')

    @property
    def hosts(self) -> str:
        """One record per host that shares the cache: what its guests need."""
        return os.path.join(self.own, 'hosts')

    @property
    def heard(self) -> str:
        """One record per host: when it passed, where that was all the news."""
        return os.path.join(self.own, 'heard')

    @property
    def inventories(self) -> str:
        """One record per host: the disks that it has found."""
        return os.path.join(self.own, 'inventories')

    @property
    def ignored(self) -> str:
        """One record per host: the files that are no disks of guests."""
        return os.path.join(self.own, 'ignored')

    @property
    def repairs(self) -> str:
        """One record per host: what it has repaired, and what it could not."""
        return os.path.join(self.own, 'repairs')

    @property
    def summaries(self) -> str:
        """One record per host: the figures of its last pass."""
        return os.path.join(self.own, 'summaries')

    @property
    def tallies(self) -> str:
        """Files whose sizes are counts: what each host has fetched."""
        return os.path.join(self.own, 'tallies')

    @property
    def images(self) -> str:
        """One record per image: what people call it."""
        return os.path.join(self.own, 'images')

    @property
    def temporary(self) -> str:
        """Where files are written before they are published."""
        return os.path.join(self.own, 'tmp')

    @property
    def directories(self) -> tuple[str, ...]:
        """All directories of ours, each after the one that it is in."""
        return (
            self.own,
            self.own_locks,
            self.ledgers,
            self.trash,
            self.pins,
            self.hosts,
            self.heard,
            self.inventories,
            self.ignored,
            self.repairs,
            self.summaries,
            self.tallies,
            self.images,
            self.temporary,
        )

    def file(self, name: str, trashed: bool = False) -> str:
        """Give the path of a file in the cache, or in the trash."""
        return f'{self.trash if trashed else self.base}{os.sep}{name}'

    def ledger(self, name: str, trashed: bool = False) -> str:
        """Give the path of the ledger of a base file, wherever that is."""
        if trashed:
            return f'{self.file(name, trashed)}.ledger'
        return os.path.join(self.ledgers, name)
