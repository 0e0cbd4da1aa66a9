# SPDX-License-Identifier: Apache-2.0

"""The manager that a compute driver calls from its periodic task."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
from typing import Any

from oslo_config import cfg

from nova_imagecache import background
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import removal
from nova_imagecache.cache import scan
from nova_imagecache.cache import status as statuses
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import errors
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache import names
from nova_imagecache import passes
from nova_imagecache import report as reports
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import panel

#: Fetches the instances of all hosts that share the cache, given a context.
GetInstances = Callable[[Any], Iterable[Any]]


class ImageCacheManager:
    """Looks after the base files of one compute host.

    Has what drivers ask of ``nova.virt.libvirt.imagecache.ImageCacheManager``.
    Between two passes it keeps nothing but what is on the disk, and the
    process that reads base files.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts | None = None,
        get_instances: GetInstances | None = None,
        clock: clocks.Clock = clocks.now,
        inline: bool = False,
        connect: Callable[[], Any] | None = None,
        read_as_root: overlays.ReadAsRoot | None = None,
        touch_as_root: removal.Touch | None = None,
    ) -> None:
        """Make a manager; the options are read anew in each pass.

        :param conf: the host's options, by default the global ones. Options
            that the host has not registered are registered here.
        :param get_instances: needed only by :meth:`verify_base_images`
        :param inline: whether passes themselves read the base files that are
            due, however long that takes, and start no process for it
        :param clock: gives the present moment
        :param connect: gives the host's own open connection to libvirt, as
            ``Host.get_connection`` of nova/virt/libvirt/host.py, or raises.
            Without it a process opens one that can only read.
        :param read_as_root: reads so many bytes at an offset of a file that
            this process may not read: a disk of a guest. It has to open the
            path with O_NOFOLLOW and refuse what is no regular file.
        :param touch_as_root: renews the timestamp of a base file that belongs
            to QEMU's user, without following a symbolic link
        """
        self._conf = cfg.CONF if conf is None else conf
        confs.register_opts(self._conf)
        self._get_instances = get_instances
        self._clock = clock
        self._inline = inline
        self._scrub = background.Scrub(clock)
        self._lent = panel.Lent(
            None
            if connect is None
            else libvirt_connection.HostConnection(connect),
            read_as_root,
            touch_as_root,
        )

    @property
    def cache_dir(self) -> str:
        """Path of the directory of the base files."""
        return self._layout.base

    def get_disk_usage(self) -> int:
        """Give the bytes that the cache takes of the instances' disk.

        0 when the cache is on another file system, or is not there.
        """
        return scan.disk_usage(self._layout)

    def update(
        self,
        context: Any,
        all_instances: Iterable[Any] | None,
        block_device_mappings: instances.BlockDeviceMappings | None = None,
    ) -> reports.Report:
        """Make one pass, and see to it that base files get read.

        Returns when the bookkeeping is done. What is to be read is read by a
        process of its own, which is started here where there is none; what it
        has found is in the report of a later pass.

        :param context: the host's, and not used here
        :param all_instances: those of every host that shares the cache, as
            Nova's Instance objects or anything with the same attributes or
            keys: ``uuid``, ``name``, ``image_ref``, ``kernel_id`` and
            ``ramdisk_id`` are read, and nothing else
        :param block_device_mappings: by UUID; tells who uses swap and
            ephemeral base files. Without it the overlays alone do.
        :raises oslo_config.cfg.Error: a value of an option makes no sense;
            nothing was done
        """
        settings = confs.read_settings(self._conf)
        report = self._pass(
            settings, all_instances, block_device_mappings, self._inline
        )
        if not self._inline:
            coverage = report.coverage if settings.checksum else None
            problems = self._scrub.keep(settings, coverage)
            report = dataclasses.replace(
                report, problems=(*report.problems, *problems)
            )
        reports.log_report(report)
        return report

    def damage_of(self, name: str) -> str | None:
        """Say what is known to be wrong with a base file, if anything is.

        The file itself is not read.

        :param name: of the base file
        :raises oslo_config.cfg.Error: as :meth:`update`
        :raises OSError: it cannot be looked at
        :raises nova_imagecache.errors.Blind: what was known of it cannot be
            made out
        """
        layout = self._layout
        try:
            status = statuses.status_of(layout.file(name))
        except FileNotFoundError:
            return None
        file = scan.CachedFile(name, names.kind_of(name), status)
        known = knowledges.recall(layout, file)
        if known.finding.damaged:
            return str(known.finding.verdict)
        if known.blind or known.lost:
            raise errors.Blind('; '.join(known.problems))
        return None

    def set_aside(self, name: str) -> str | None:
        """Move a bad base file to the trash, so that it is fetched anew.

        Only if nobody uses it, as far as the disks, libvirt and locks tell.

        :returns: why it stays; None if it is in the trash
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        settings = confs.read_settings(self._conf)
        return passes.Pass(
            settings, clock=self._clock, lent=self._lent
        ).set_aside(name)

    def stop(self) -> None:
        """End the scrub that a pass has started, if it is still at work.

        Waits for nothing: it saves how far it has got, and ends by itself.
        It also does so when this process ends, however it ends.
        """
        self._scrub.stop()

    def _pass(
        self,
        settings: confs.Settings,
        all_instances: Iterable[Any] | None,
        mappings: instances.BlockDeviceMappings | None,
        inline: bool,
    ) -> reports.Report:
        witnesses = []
        if 'instances' in settings.witnesses:
            witnesses.append(
                instances.InstanceWitness(all_instances, mappings)
            )
        return passes.Pass(
            settings, witnesses, self._clock, inline, lent=self._lent
        ).run()

    def verify_base_images(self, context: Any) -> reports.Report:
        """Make one pass, with the instances fetched here: the 2012 name.

        As it was in 2012, it also reads the base files that are due, and
        returns when that is done.

        :raises RuntimeError: the manager was made without ``get_instances``
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        if self._get_instances is None:
            raise RuntimeError(
                'verify_base_images needs an ImageCacheManager made with '
                'get_instances; or call update with the instances'
            )
        report = self._pass(
            confs.read_settings(self._conf),
            self._fetch(self._get_instances, context),
            None,
            inline=True,
        )
        reports.log_report(report)
        return report

    @staticmethod
    def _fetch(get_instances: GetInstances, context: Any) -> Iterator[Any]:
        # A generator, so that what the host raises is raised where a witness
        # that fails is dealt with.
        yield from get_instances(context)

    @property
    def _layout(self) -> layouts.Layout:
        # No other option matters to where things are.
        return layouts.Layout.at(*confs.read_paths(self._conf))
