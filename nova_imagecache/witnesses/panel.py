# SPDX-License-Identifier: Apache-2.0

"""Which witnesses are asked: the one place that makes them."""

from collections.abc import Iterable
from typing import Any
from typing import TYPE_CHECKING

from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.host import Host
from nova_imagecache.witnesses import image_locks
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import memories
from nova_imagecache.witnesses import other_hosts
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import walks

if TYPE_CHECKING:
    from nova_imagecache.witnesses import libvirt_connection


class Assembly:
    """Makes the witnesses of each pass, with what the host lends.

    Keep it from pass to pass: it remembers a question that libvirt has not
    answered.

    :ivar host: what the host lends
    :ivar connection: through which libvirt is asked; None where a process
        of its own is to open one
    """

    def __init__(
        self,
        host: Host | None = None,
        connection: 'libvirt_connection.Connection | None' = None,
    ) -> None:
        """Make none yet.

        :param host: without it we have our own means only
        :param connection: in the place of the one that the host lends
        """
        self.host = Host() if host is None else host
        connect = self.host.connect
        if connection is None and connect is not None:
            # Here and below, as not every host has libvirt asked.
            from nova_imagecache.witnesses import libvirt_connection

            connection = libvirt_connection.HostConnection(connect)
        self.connection = connection

    @staticmethod
    def read_guests(
        settings: Settings,
        all_instances: Iterable[Any] | None,
        mappings: instances.BlockDeviceMappings | None,
    ) -> instances.GuestList:
        """Read the host's list, if the witness that has it is asked."""
        if 'instances' not in settings.witnesses:
            return instances.GuestList()
        return instances.read_guests(all_instances, mappings)

    def instances(
        self,
        settings: Settings,
        all_instances: instances.GuestList | Iterable[Any] | None,
        mappings: instances.BlockDeviceMappings | None = None,
    ) -> list[testimonies.Witness]:
        """Give the witness that has the host's list, if it is asked."""
        if 'instances' not in settings.witnesses:
            return []
        return [
            instances.InstanceWitness(all_instances, mappings, settings.host)
        ]

    def overlays(
        self,
        layout: layouts.Layout,
        memory: memories.Memory,
        glance: bool = False,
        clock: walks.StorageClock | None = None,
        settled: bool = False,
        jumped: bool = False,
    ) -> overlays.OverlayWitness:
        """Give the witness that is always asked, anew for each pass.

        It is asked after the others: it looks for what they have named.

        :param glance: whether what it sees need not do to remove anything
        :param clock: that of the storage, where it could be read
        :param settled: whether what is remembered was noted long enough ago
            for the times of directories to tell what was changed since
        :param jumped: whether the clock of this host was set since
        """
        return overlays.OverlayWitness(
            layout, self.host, memory, glance, clock, settled, jumped
        )

    def others(
        self,
        settings: Settings,
        layout: layouts.Layout,
        clock: clocks.Clock = clocks.now,
    ) -> list[testimonies.Witness]:
        """Give those beside these, as far as they are named.

        The one that knows of other hosts is asked in any case.
        """
        witnesses: list[testimonies.Witness] = [
            other_hosts.OtherHostsWitness(layout, settings.host, clock)
        ]
        if 'libvirt' in settings.witnesses:
            from nova_imagecache.witnesses import domains

            witnesses.append(
                domains.DomainWitness(
                    settings.libvirt_uri, settings.host, self.connection
                )
            )
        return witnesses

    def locks(
        self, settings: Settings, layout: layouts.Layout
    ) -> list[testimonies.Witness]:
        """Give the witness that asks for QEMU's locks, if it is asked.

        It is asked last: only about what no other one has seen in use.
        """
        if 'locks' not in settings.witnesses:
            return []
        return [image_locks.ImageLockWitness(layout)]
