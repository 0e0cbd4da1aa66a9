# SPDX-License-Identifier: Apache-2.0

"""Which witnesses are asked, and what the host lends them."""

import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import removal
from nova_imagecache import conf as confs
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import image_locks
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimony as testimonies


@dataclasses.dataclass(frozen=True)
class Lent:
    """What a host lends; kept from pass to pass.

    :ivar connection: its own connection to libvirt
    :ivar read_as_root: reads headers of disks that it may not read itself
    :ivar touch_as_root: renews timestamps that it may not renew itself
    """

    connection: libvirt_connection.HostConnection | None = None
    read_as_root: overlays.ReadAsRoot | None = None
    touch_as_root: removal.Touch | None = None


NOTHING = Lent()


def assemble(
    settings: confs.Settings, layout: layouts.Layout, lent: Lent
) -> list[testimonies.Witness]:
    """Give the witnesses that are named, but for the host's instances.

    And for the overlays, which are always asked, and last no longer than a
    pass.
    """
    witnesses: list[testimonies.Witness] = []
    if 'libvirt' in settings.witnesses:
        witnesses.append(
            domains.DomainWitness(
                settings.libvirt_uri, settings.host, lent.connection
            )
        )
    if 'locks' in settings.witnesses:
        witnesses.append(image_locks.ImageLockWitness(layout))
    return witnesses
