# SPDX-License-Identifier: Apache-2.0

"""The command scrub, which is also the reading process of the manager."""

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
import logging
import os
import signal
import sys
import threading
from typing import Any

from nova_imagecache.cache import layouts
from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import healing
from nova_imagecache.cli import listing
from nova_imagecache.cli import measuring
from nova_imagecache.cli import reading
from nova_imagecache.cli import summing
from nova_imagecache.cli import telling
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.heal import automatic
from nova_imagecache.heal import first_sight
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal import writer
from nova_imagecache import measures
from nova_imagecache import names
from nova_imagecache.scrub import background
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import pipe
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import scrubber

LOG = logging.getLogger(__name__)


class Scrub(summing.Summing, reading.Reading):
    """Read the base files that are due, and end.

    The same program whether the compute service starts it, a timer or a
    person. It is nice, idle to the I/O scheduler, and no faster than it must
    be to be in time; scrub_bandwidth_mib_per_second is the most. One is at
    work in a cache at any time. Told to end, it saves how far it has got, and
    the next one goes on there. nova-imagecache verify reads files that are
    not due.
    """

    columns = ('name', 'checksum', 'bytes', 'seconds', 'reason')
    _scrubber: scrubber.Scrubber | None = None
    _rewrite: writer.Rewrite = staticmethod(writer.rewrite)
    #: Why nothing is to be done.
    _idle = ''

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        # For the manager: the settings come on the first line of the standard
        # input, and when that is closed the scrub ends.
        parser.add_argument(
            '--parent', action='store_true', help=argparse.SUPPRESS
        )
        # Its command that writes to base files which we may not write to.
        parser.add_argument('--rewriter', default='', help=argparse.SUPPRESS)
        # What says how to ask the image service.
        parser.add_argument(
            '--host-config',
            action='append',
            default=[],
            help=argparse.SUPPRESS,
        )
        parser.add_argument(
            '--if-enabled',
            action='store_true',
            help='do nothing where checksum_base_images is off or another '
            'scrub is at work in the cache; for a timer',
        )
        return parser

    def load_settings(self, parsed_args: argparse.Namespace) -> Settings:
        """Take the settings from the parent, where there is one."""
        if parsed_args.parent:
            try:
                end = sys.stdin.buffer if sys.stdin else None
                settings = pipe.receive(end)
            except ValueError as error:
                raise errors.Error(
                    f'the parent gave no settings: {error}'
                ) from error
        else:
            assert isinstance(self.app, app.Shell)  # noqa: S101 for mypy
            settings = self.app.read_settings()
        if settings.corruption_action == 'repair':
            self._rewrite = healing.keep_rights(settings, parsed_args.rewriter)
        measuring.prepare(settings)
        app.become_owner(settings)
        return settings

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Scrub; give a line per file as it comes."""
        self.adjust(parsed_args)
        layout = layouts.Layout.of(self.settings)
        if not parsed_args.parent:
            # As verify and pass do, where its file system is not mounted.
            listing.writable_layout(self.settings)
        if not os.path.isdir(layout.base):
            self._idle = f'there is no cache at {layout.base}'
        elif parsed_args.if_enabled and not self.settings.checksum:
            self._idle = 'checksum_base_images is off'
        if self._idle:
            LOG.warning('[N19] Nothing is read: %s', self._idle)
            return self.columns, []
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_args: stop.set())
        if parsed_args.parent:
            pipe.set_when_closed(stop)
        background.be_modest()
        means = readers.Means(
            limiters.Limiter(wait=stop.wait), stop=stop, ahead=True
        )
        self._scrubber = scrubber.Scrubber(
            self.settings,
            means,
            progress_bar=self.progress_bar(parsed_args),
        )
        assert isinstance(self.app, app.Shell)  # noqa: S101 for mypy
        get_client = (
            clients.from_paths(parsed_args.host_config)
            if parsed_args.parent
            else clients.from_options(self.app.conf)
        )
        watch = sources.Watch(stop, self._scrubber.look_around)
        paths = parsed_args.host_config
        if not parsed_args.parent:
            conf = self.app.conf
            # The process that asks is in another directory.
            paths = [
                os.path.abspath(path)
                for path in (
                    *(conf.config_file or ()),
                    *(conf.config_dir or ()),
                )
            ]
        self._scrubber.asker = first_sight.Asker(self.settings, paths, watch)
        healer = automatic.Healer(
            self.settings,
            self._rewrite,
            stop=stop,
            sources_of=automatic.asking(get_client, watch),
            pulse=watch.pulse,
        )
        lines = self._lines(self._scrubber, healing.Acting(healer))
        if parsed_args.if_enabled:
            lines = self._unless_locked(lines)
        return self.columns, lines

    def _unless_locked(
        self, lines: Iterator[tuple[Any, ...]]
    ) -> Iterator[tuple[Any, ...]]:
        """Leave it to another scrub, if one is at work."""
        try:
            yield from lines
        except errors.Locked as error:
            self._idle = str(error)
            LOG.warning('[N19] Nothing is read: %s', error)

    def _lines(
        self, one: scrubber.Scrubber, acting: healing.Acting
    ) -> Iterator[tuple[Any, ...]]:
        any_read = harmful = False
        told = telling.Telling(self.settings)
        try:
            for result in one.run():
                finding = result.finding
                any_read = True
                if finding.problem:
                    LOG.warning(
                        '[P08] %s: %s',
                        names.printable(result.name),
                        finding.note,
                    )
                    self.exit_code = exit_codes.COULD_NOT
                if finding.harmful:
                    harmful = True
                    told.add(result.name)
                yield (
                    names.printable(result.name),
                    finding.word,
                    columns.Bytes(result.bytes),
                    round(result.seconds, 3),
                    names.printable(finding.note),
                )
                if finding.damaged and not finding.skipped:
                    acting.act_on(result.name)
            acting.act_on_all()
        finally:
            healing.let_go(self._rewrite)
        following = one.next
        if not any_read and following is not None:
            LOG.warning(
                '[N19] Nothing is due. %(name)s is next, in %(time)s; '
                'nova-imagecache verify reads files at once.',
                {
                    'name': names.printable(following.name),
                    'time': columns.Seconds(following.due).human_readable(),
                },
            )
        told.tell()
        measuring.write(self.settings)
        if harmful:
            self.exit_code = exit_codes.CORRUPTION

    def summary_lines(self) -> Iterator[str]:
        """Say how much was read, and why it ended."""
        if self._idle:
            return
        told = self.summary()
        files = '1 file' if told['files'] == 1 else f'{told["files"]} files'
        yield (
            f'{measures.size(told["bytes"])} read in {files}; it ended, as '
            f'{told["reason"]}'
        )

    def summary(self) -> dict[str, Any]:
        """Say how much was read, and why it ended."""
        if self._scrubber is None or self._idle:
            return {'files': 0, 'bytes': 0, 'reason': self._idle}
        activity = self._scrubber.activity
        return {
            'files': activity.files,
            'bytes': activity.read,
            'reason': activity.reason,
        }
