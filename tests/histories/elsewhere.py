# SPDX-License-Identifier: Apache-2.0

"""Steps: disks that are elsewhere, or out of sight."""

import os

from tests.histories import choices
from tests.histories import inhabitants

Guest = inhabitants.Guest

STEPS = (
    'export', 'import', 'layer', 'layer', 'flatten', 'lock_up', 'lock_up',
    'open_up', 'unmount', 'mount',
)  # fmt: skip


class Disks(choices.Choices):
    """What may happen to disks that stay the guests' own."""

    def _export(self) -> None:
        """Move a guest's disks out of instances_path; libvirt knows."""
        guest = self._guest(self._is_at_home)
        if guest is not None:
            path = os.path.join(self._world.outside, guest.uuid)
            guest.host = guest.home
            self._world.move(guest, path, told=True)

    def _import(self) -> None:
        guest = self._guest(self._is_outside)
        if guest is not None:
            self._world.move(guest, self._world.place_of(guest), told=True)

    def _is_outside(self, guest: Guest) -> bool:
        return (guest.directory or '').startswith(self._world.outside)

    def _layer(self) -> None:
        """Make a snapshot, be it in another place."""
        guest = self._guest(lambda guest: set(guest.disks) - {*guest.layers})
        if guest is not None:
            disk = self._pick(sorted(set(guest.disks) - {*guest.layers}))
            self._world.add_layer(guest, disk, self._pick([True, False]))

    def _flatten(self) -> None:
        guest = self._guest(lambda guest: guest.layers)
        if guest is not None:
            self._world.flatten(guest, self._pick(sorted(guest.layers)))

    def _lock_up(self) -> None:
        """Let only root read a disk of a guest."""
        guest = self._guest(lambda guest: guest.disks)
        if guest is not None:
            disk = self._pick(sorted(guest.disks))
            path = os.path.join(str(guest.directory), disk)
            self._world.unreadable.add(os.stat(path).st_ino)

    def _open_up(self) -> None:
        """Let everybody read everything."""
        for path in [*self.sights.foreign]:
            if os.stat(path).st_ino in self._world.unreadable:
                del self.sights.foreign[path]
        self._world.unreadable.clear()

    def _unmount(self) -> None:
        self._host().mounted = False

    def _mount(self) -> None:
        for host in self._world.hosts:
            host.mounted = True
