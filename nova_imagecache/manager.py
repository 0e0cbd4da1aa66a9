# SPDX-License-Identifier: Apache-2.0

"""The manager that a compute driver calls from its periodic task."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any

from oslo_config import cfg

from nova_imagecache.apart import parent
from nova_imagecache.cache import hosts
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache.cache import scans
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.conf import read_paths
from nova_imagecache.conf import read_settings
from nova_imagecache.conf import register_opts
from nova_imagecache.conf import Settings
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import errors
from nova_imagecache.fetch import caching
from nova_imagecache import host
from nova_imagecache import outlets
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import summaries
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.scrub import background
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import panel

# In the constructor that is the name of a parameter.
_apart = parent.Apart

#: Fetches the instances of all hosts that share the cache, given a context.
GetInstances = Callable[[Any], Iterable[Any]]


def _config_paths(conf: cfg.ConfigOpts) -> list[str]:
    """Give the files and directories that a host was configured from."""
    try:
        return [*(conf.config_file or ()), *(conf.config_dirs or ())]
    except cfg.NoSuchOptError:
        # Nobody has called it: it has its defaults, or overrides.
        return []


def _allocated(path: str) -> int:
    try:
        return identity.stat_of(path).allocated
    except OSError:
        return 0


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
        connect: host.Connect | None = None,
        read_as_root: host.ReadAsRoot | None = None,
        touch_as_root: host.TouchAsRoot | None = None,
        list_as_root: host.ListAsRoot | None = None,
        apart: bool = False,
        rewriter: Sequence[str] = (),
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
        :param list_as_root: lists a directory that this process may not list,
            as one ``hook.Listed`` for itself, named ``.``, and one for each
            entry, without following a symbolic link
        :param apart: whether each pass is made by a process of its own, which
            asks for what is lent. It goes by the clocks of this machine.
        :raises ValueError: passes are to be made apart, and to read inline
        :param rewriter: a command that writes to base files which this
            process may not write to: its standard input is a socket, on which
            it calls ``nova_imagecache.heal.rewriters.serve``. Without it such
            files are not repaired.
        """
        if apart and inline:
            raise ValueError('what is made apart reads no base files')
        self._conf = cfg.CONF if conf is None else conf
        register_opts(self._conf)
        self._get_instances = get_instances
        self._clock = clock
        self._inline = inline
        self._scrub = background.Scrub(
            clock, rewriter, _config_paths(self._conf)
        )
        self._assembly = panel.Assembly(
            host.Host(connect, read_as_root, touch_as_root, list_as_root)
        )
        self._apart = _apart(self._assembly) if apart else None

    @property
    def cache_dir(self) -> str:
        """Path of the directory of the base files."""
        return self._layout.base

    def get_disk_usage(self) -> int:
        """Give the bytes that the cache takes of the instances' disk.

        0 when the cache is on another file system, or is not there.
        """
        return scans.disk_usage(self._layout)

    def update(
        self,
        context: Any,
        all_instances: Iterable[Any] | None,
        block_device_mappings: instances.BlockDeviceMappings | None = None,
    ) -> reports.Report:
        """Make one pass, and see to it that base files get read.

        Returns when the bookkeeping is done, also where that is done apart.
        What is to be read is read by a process of its own, which is started
        here where there is none; what it has found is in the report of a
        later pass.

        :param context: the host's, and not used here
        :param all_instances: those of every host that shares the cache, as
            Nova's Instance objects or anything with the same attributes or
            keys: ``uuid``, ``name``, ``image_ref``, ``kernel_id`` and
            ``ramdisk_id`` are read, and nothing else
        :param block_device_mappings: by UUID; tells who uses swap and
            ephemeral base files. Without it the other witnesses do.
        :raises oslo_config.cfg.Error: a value of an option makes no sense;
            nothing was done
        """
        settings = read_settings(self._conf)
        if self._apart is not None:
            return (
                self._begin(
                    self._apart, settings, all_instances, block_device_mappings
                )
                or self._apart.wait_for_report()
            )
        report = self._pass(
            settings, all_instances, block_device_mappings, self._inline
        )
        if not self._inline:
            report = self._keep_scrub(settings, report)
        report = figures.kept(settings, report)
        outlets.tell(report)
        return report

    def begin(
        self,
        context: Any,
        all_instances: Iterable[Any] | None,
        block_device_mappings: instances.BlockDeviceMappings | None = None,
    ) -> bool:
        """Begin a pass as :meth:`update` makes it, and do not wait for it.

        Returns when the instances are read. For a manager that makes passes
        apart; any other makes it here and now.

        :returns: whether it was begun: not where the last one is still at
            work, which is said in the log
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        if self._apart is None:
            self.update(context, all_instances, block_device_mappings)
            return True
        refusal = self._begin(
            self._apart,
            read_settings(self._conf),
            all_instances,
            block_device_mappings,
        )
        return refusal is None

    def wait(self, seconds: float | None = None) -> reports.Report | None:
        """Wait for the pass that was begun last, if it is at work.

        :param seconds: for how long at most; None is for ever
        :returns: its report, with nothing but a problem where it did not come
            to its end; None if it is not over, or was not made apart
        """
        return None if self._apart is None else self._apart.wait(seconds)

    def _begin(
        self,
        passes: parent.Apart,
        settings: Settings,
        all_instances: Iterable[Any] | None,
        mappings: instances.BlockDeviceMappings | None,
    ) -> reports.Report | None:
        """Begin a pass apart.

        :returns: why that cannot be, if it cannot, as was told
        """

        def tell(outcome: parent.Outcome) -> parent.Outcome:
            return self._tell(settings, outcome)

        try:
            passes.begin(
                settings,
                lambda: self._assembly.read_guests(
                    settings, all_instances, mappings
                ),
                tell,
            )
        except errors.Error as error:
            problem = codes.Problem(codes.Code.NO_PASS, str(error))
            refusal = reports.Report(
                layouts.Layout.of(settings).base, problems=(problem,)
            )
            outlets.tell_findings(refusal)
            return refusal
        return None

    def _tell(
        self, settings: Settings, outcome: parent.Outcome
    ) -> parent.Outcome:
        """See to the scrub when a pass is over, and tell everybody."""
        report = outcome.report
        if outcome.seen is None:
            outlets.tell_findings(report)
            return outcome
        report = self._keep_scrub(settings, report, outcome.seen)
        outlets.tell(report)
        return dataclasses.replace(outcome, report=report)

    def _keep_scrub(
        self,
        settings: Settings,
        report: reports.Report,
        seen: background.Seen | None = None,
    ) -> reports.Report:
        coverage = report.coverage if settings.checksum else None
        problems = self._scrub.keep(
            settings, coverage, seen, report.repairs_due
        )
        return dataclasses.replace(
            report, problems=(*report.problems, *problems)
        )

    def soundness_of(self, name: str) -> soundness.Answer:
        """Say whether a base file may be handed out, as far as it is known.

        The file itself is not read.

        :param name: of the base file, which need not be there
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        return soundness.ask(self._layout, name)

    def expect(self, name: str) -> None:
        """Note that a base file is not there, before somebody fetches it.

        What was known of an earlier one is then asked of the new one, and
        accuses it of nothing: on NFS before 4.2 nothing else tells them apart.
        :meth:`cache_image` does so itself. Waits for nobody.

        :param name: of the base file
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        layout = self._layout
        path = layout.file(name)
        if not identity.gone(path):
            return
        with contextlib.suppress(errors.NotNow):
            with locks.nova_lock(layout, name, blocking=False):
                if identity.gone(path):
                    ledgers.outlive(layout, name)

    def note_use(self, name: str) -> None:
        """Note that this host makes a disk from a base file.

        For hosts that share the cache and cannot see that disk, should this
        one be gone before its next pass. :meth:`cache_image` does so itself.
        Best effort; within ten minutes nothing is written again.

        :param name: of the base file
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        hosts.note_use(self._layout, self._conf.host, name, self._clock().wall)

    def damage_of(self, name: str) -> str | None:
        """Say what is known to be wrong with a base file, if anything is.

        The file itself is not read. Ask before a disk is made from it:
        :meth:`cache_image` does.

        :param name: of the base file
        :returns: ``corrupt`` or ``unreadable``; None of a file that is not
            there, or that nothing is known to speak against
        :raises oslo_config.cfg.Error: as :meth:`update`
        :raises nova_imagecache.errors.Blind: what was known of it cannot be
            made out; better use it than keep a guest from starting
        """
        answer = self.soundness_of(name)
        if answer.is_untold:
            raise errors.Blind(answer.reason)
        return answer.reason if answer.is_bad else None

    def set_aside(self, name: str) -> str | None:
        """Move a bad base file to the trash, so that it is fetched anew.

        Only if nobody uses it, as far as the disks, libvirt and locks tell,
        and nobody has touched it for 600 s: Nova does so, without the lock,
        before it makes a disk. It takes a look at all of them, and so some
        time on a large node.

        :returns: why it stays; None if it is in the trash
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        return self._set_aside(name, young=True)

    def _set_aside(self, name: str, young: bool = False) -> str | None:
        settings = read_settings(self._conf)
        layout = layouts.Layout.of(settings)
        size = _allocated(layout.file(name))
        # For cache_image alone without the floor (decision 0003).
        if self._apart is None:
            stays = pipeline.Pass(
                settings, clock=self._clock, assembly=self._assembly
            ).set_aside(name, young)
        else:
            stays = self._apart.set_aside(settings, name, young)
        if stays is None:
            summaries.note_damaged(layout, settings.host, size)
        return stays

    def cache_image(
        self,
        fetch: caching.Fetch,
        name: str,
        disk_format: str | None = None,
        resize_to: int | None = None,
        overlay: str | None = None,
        size: int | None = None,
    ) -> str:
        """Make sure that a base file is in the cache, and make a disk from it.

        One that was removed lately comes back from the trash. One that is
        known to be bad is set aside and fetched anew if nobody uses it. Waits
        for the file's lock, which is Nova's, and so for anybody else who is
        fetching the same image. Nobody ever sees half a base file.

        :param fetch: writes the image to the path it is given; called only if
            the base file is absent. What it raises comes out here.
        :param name: of the base file: ``get_cache_fname(image_id)``, or the
            driver's own ``swap_<mb>`` and ``ephemeral_<gb>_<hash>``
        :param disk_format: what the image service says the image is; None to
            go by its content
        :param resize_to: make a resized base file of so many bytes as well
        :param overlay: make a qcow2 disk at this path, backed by the base
            file; one that is there already is left as it is, and may be used
            whatever is known of its base file
        :param size: virtual size of that disk in bytes, by default the base
            file's
        :returns: path of the base file, the resized one if that was asked for
        :raises ValueError: no base file has such a name
        :raises nova_imagecache.errors.KnownDamage: the base file is known to
            be bad, and stays, as where somebody uses it; no disk is made from
            it
        :raises nova_imagecache.errors.ImageRefused: the image is hostile or
            not what it is said to be; it is not in the cache
        :raises nova_imagecache.errors.FetchFailed: the file or the disk could
            not be made; nothing of it is left
        :raises nova_imagecache.errors.LockBroken: the lock cannot be taken
        :raises OSError: a file or directory of the cache cannot be written
        :raises oslo_config.cfg.Error: as :meth:`update`
        """
        settings = read_settings(self._conf)
        return caching.FetchPath(
            layouts.Layout.of(settings),
            self._set_aside,
            settings.refuse_damaged,
            self._assembly.host.touch_as_root,
            settings.host,
        ).cache_image(fetch, name, disk_format, resize_to, overlay, size)

    def stop(self) -> None:
        """End the scrub that a pass has started, if it is still at work.

        And a pass that is made apart. Waits for nothing: the scrub saves how
        far it has got, and ends by itself. Both also end when this process
        does, however it ends.
        """
        if self._apart is not None:
            self._apart.stop()
        self._scrub.stop()

    def _pass(
        self,
        settings: Settings,
        all_instances: Iterable[Any] | None,
        mappings: instances.BlockDeviceMappings | None,
        inline: bool,
    ) -> reports.Report:
        return pipeline.Pass(
            settings,
            self._assembly.instances(settings, all_instances, mappings),
            self._clock,
            inline,
            assembly=self._assembly,
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
        settings = read_settings(self._conf)
        report = self._pass(
            settings,
            self._fetch(self._get_instances, context),
            None,
            inline=True,
        )
        report = figures.kept(settings, report)
        outlets.tell(report)
        return report

    @staticmethod
    def _fetch(get_instances: GetInstances, context: Any) -> Iterator[Any]:
        # A generator, so that what the host raises is raised where a witness
        # that fails is dealt with.
        yield from get_instances(context)

    @property
    def _layout(self) -> layouts.Layout:
        # No other option matters to where things are.
        return layouts.Layout.at(*read_paths(self._conf))


def cache_image(
    fetch: caching.Fetch,
    name: str,
    conf: cfg.ConfigOpts,
    disk_format: str | None = None,
    resize_to: int | None = None,
    overlay: str | None = None,
    size: int | None = None,
) -> str:
    """Do as :meth:`ImageCacheManager.cache_image`, where no manager is kept.

    :param conf: the host's options. Options that the host has not registered
        are registered here.
    """
    return ImageCacheManager(conf).cache_image(
        fetch, name, disk_format, resize_to, overlay, size
    )
