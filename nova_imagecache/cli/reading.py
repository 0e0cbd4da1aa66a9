# SPDX-License-Identifier: Apache-2.0

"""The commands that read base files: verify and scrub."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import signal
import sys
import threading
from typing import Any

from cliff import lister
from oslo_log import log as logging
from oslo_utils import units
import psutil

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import scan
from nova_imagecache.cli import app
from nova_imagecache.cli import commands
from nova_imagecache.cli import output
from nova_imagecache import conf as confs
from nova_imagecache import errors
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import limiter
from nova_imagecache.integrity import reader
from nova_imagecache import names
from nova_imagecache import passes
from nova_imagecache import report as reports
from nova_imagecache import scrubber

LOG = logging.getLogger(__name__)

# Longer than any settings.
_LINE_LIMIT = 65536

_MOST_MIB = 10**9


def _bandwidth(text: str) -> int:
    try:
        value = float(text) * units.Mi
    except ValueError:
        value = -1
    if value != 0 and not 1 <= value <= _MOST_MIB * units.Mi:
        raise argparse.ArgumentTypeError(
            f'{text} is no number of MiB per second'
        )
    return int(value)


class _Reading(app.NodeCommand, lister.Lister, metaclass=abc.ABCMeta):
    """A command that reads base files, and takes its time.

    With JSON it prints an object per line: ``{"progress": {...}}`` once a
    second, a file that was read, and ``{"summary": {...}}`` at the end.
    """

    columns: tuple[str, ...]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--bandwidth',
            metavar='MIB',
            type=_bandwidth,
            help='read so many MiB per second at most, and 0 for no limit, '
            'whatever scrub_bandwidth_mib_per_second says',
        )
        return parser

    def adjust(self, parsed_args: argparse.Namespace) -> None:
        """Let the options of the command override the configuration.

        :raises nova_imagecache.errors.Error: there is no such column; better
            said before reading for hours
        """
        unknown = set(parsed_args.columns) - set(self.columns)
        if unknown:
            raise errors.Error(
                f'there is no column {min(unknown)}; there are '
                f'{", ".join(self.columns)}'
            )
        if parsed_args.bandwidth is not None:
            self.settings = dataclasses.replace(
                self.settings, scrub_bandwidth=parsed_args.bandwidth
            )

    def progress_bar(
        self, parsed_args: argparse.Namespace
    ) -> output.ProgressBar:
        """Choose how to show progress."""
        if parsed_args.formatter == 'json':
            return output.json_progress(self.app.stdout)
        return output.progress_bar

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Iterable[str],
        data: Iterable[Any],
    ) -> int:
        """Print JSON a line per file, and anything else as cliff does."""
        column_names = list(column_names)
        if parsed_args.formatter != 'json':
            code: int = super().produce_output(parsed_args, column_names, data)
            return code
        columns = parsed_args.columns or column_names
        for line in data:
            values = output.machine_readable(column_names, line)
            output.print_json(
                self.app.stdout, {name: values[name] for name in columns}
            )
        output.print_json(self.app.stdout, {'summary': self.summary()})
        return 0

    @abc.abstractmethod
    def summary(self) -> dict[str, Any]:
        """Say in a few numbers how it went."""


class Verify(_Reading):
    """Verify base files now, whether due or not.

    Reads each file and compares it with what is known of it; one of which
    nothing is known gets its checksum. Works whether checksum_base_images is
    on or off, at scrub_bandwidth_mib_per_second unless --bandwidth says
    otherwise. A scrub that is at work gives way. Nothing is removed. A file
    that is named, and cannot be verified just now, makes the exit code 1.
    """

    columns = output.COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'names',
            metavar='NAME',
            nargs='*',
            help='names of base files; by default all',
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Verify, and give a line per file."""
        self.adjust(parsed_args)
        chosen = commands.find(self.settings, parsed_args.names)
        for name in chosen:
            if not names.kind_of(name).is_base:
                raise errors.Error(
                    f'{names.printable(name)} is no base file, so there is '
                    'nothing to verify'
                )
        if not chosen:
            layout = layouts.Layout.of(self.settings)
            chosen = [
                file.name
                for file in scan.scan(layout).files
                if file.kind.is_base
            ]
        self._report = passes.Pass(
            self.settings, progress_bar=self.progress_bar(parsed_args)
        ).verify_now(chosen, strict=bool(parsed_args.names))
        commands.show_findings(self._report)
        self.exit_code = output.exit_code(self._report)
        return self.columns, [output.row(each) for each in self._report.files]

    def summary(self) -> dict[str, Any]:
        """Count the verdicts."""
        verdicts = [str(file.checksum) for file in self._report.files]
        return {each: verdicts.count(each) for each in sorted(set(verdicts))}


class Scrub(_Reading):
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
        parser.add_argument(
            '--if-enabled',
            action='store_true',
            help='do nothing where checksum_base_images is off or another '
            'scrub is at work in the cache; for a timer',
        )
        return parser

    def load_settings(self, parsed_args: argparse.Namespace) -> confs.Settings:
        """Take the settings from the parent, where there is one."""
        if not parsed_args.parent:
            return super().load_settings(parsed_args)
        line = sys.stdin.buffer.readline(_LINE_LIMIT) if sys.stdin else b''
        try:
            settings = confs.decode(line.decode())
        except (ValueError, TypeError) as error:
            raise errors.Error(
                f'the parent gave no settings: {error}'
            ) from error
        app.become_owner(settings)
        return settings

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Scrub; give a line per file as it comes."""
        self.adjust(parsed_args)
        layout = layouts.Layout.of(self.settings)
        if not os.path.isdir(layout.base):
            self._idle = f'there is no cache at {layout.base}'
        elif parsed_args.if_enabled and not self.settings.checksum:
            self._idle = 'checksum_base_images is off'
        if self._idle:
            LOG.warning('Nothing is read: %s', self._idle)
            return self.columns, []
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_args: stop.set())
        if parsed_args.parent:
            threading.Thread(
                target=_wait_for_end, args=(stop,), daemon=True
            ).start()
        _be_modest()
        means = reader.Means(
            limiter.Limiter(wait=stop.wait), stop=stop, ahead=True
        )
        self._scrubber = scrubber.Scrubber(
            self.settings,
            means,
            progress_bar=self.progress_bar(parsed_args),
        )
        lines = self._lines(self._scrubber)
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
            LOG.warning('Nothing is read: %s', error)

    def _lines(self, one: scrubber.Scrubber) -> Iterator[tuple[Any, ...]]:
        verdicts = []
        damaged = []
        for result in one.run():
            finding = result.finding
            verdicts.append(finding.verdict)
            if finding.problem:
                LOG.warning(
                    '%s: %s', names.printable(result.name), finding.note
                )
                self.exit_code = output.COULD_NOT
            if finding.verdict in _DAMAGED:
                damaged.append(result.name)
            yield (
                names.printable(result.name),
                str(finding.verdict),
                output.Bytes(result.bytes),
                round(result.seconds, 3),
                names.printable(finding.note),
            )
        following = one.next
        if not verdicts and following is not None:
            LOG.warning(
                'Nothing is due. %(name)s is next, in %(time)s; '
                'nova-imagecache verify reads files at once.',
                {
                    'name': names.printable(following.name),
                    'time': output.Seconds(following.due).human_readable(),
                },
            )
        if damaged:
            # Whoever reads the log wants to know the guests too.
            report = passes.Pass(self.settings).preview().only(damaged)
            reports.log_damage(report)
        if knowledges.Verdict.CORRUPT in verdicts:
            self.exit_code = output.CORRUPTION
        elif knowledges.Verdict.UNREADABLE in verdicts:
            self.exit_code = output.COULD_NOT

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


_DAMAGED = (knowledges.Verdict.CORRUPT, knowledges.Verdict.UNREADABLE)


def _wait_for_end(stop: threading.Event) -> None:
    """Wait for the end of the parent, which closes our standard input."""
    with contextlib.suppress(OSError):
        while os.read(0, _LINE_LIMIT):
            pass
    stop.set()


def _be_modest() -> None:
    """Let everybody else go first, where the kernel knows how."""
    process = psutil.Process()
    with contextlib.suppress(OSError, psutil.Error):
        process.nice(19)
    with contextlib.suppress(OSError, psutil.Error):
        # The scheduler "none" ignores it; the limit is what counts.
        process.ionice(psutil.IOPRIO_CLASS_IDLE)
