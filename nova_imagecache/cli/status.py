# SPDX-License-Identifier: Apache-2.0

"""The command status: whether all is well, or what to do next."""

import argparse
from collections.abc import Iterable
import dataclasses
import select
from typing import Any
from typing import IO

import msgspec

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.cli import checking
from nova_imagecache.cli import colours
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import listing
from nova_imagecache.cli import runbook
from nova_imagecache.cli import screens
from nova_imagecache.cli import showing
from nova_imagecache import clocks
from nova_imagecache import names
from nova_imagecache.outlets import health
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import turns
from nova_imagecache.witnesses import vetoing


_LEAST_WIDTH = 40
_WATCH_SECONDS = 5.0
_CLEAR = '\033[H\033[2J'

# As ls and systemctl do: green, yellow, red.
_COLOURS = {
    health.Health.OK: colours.GREEN,
    health.Health.NOT_CHECKED: colours.GREEN,
    health.Health.DEGRADED: colours.YELLOW,
    health.Health.DAMAGED: colours.RED,
}


def _wait(stream: IO[str], seconds: float) -> None:
    """Let time pass, until nobody reads a stream any more.

    :raises BrokenPipeError: nobody does
    """
    poll = select.poll()
    # For no event: that the other end is closed is told all the same.
    poll.register(stream.fileno(), 0)
    if poll.poll(1000 * seconds):
        raise BrokenPipeError


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f'{text} is no number of seconds')
    return value


def _damage(file: reports.FileReport) -> dict[str, Any]:
    return {
        'name': names.printable(file.name),
        'image': file.image,
        'image_name': file.image_name or None,
        'checksum': str(file.checksum),
        'reason': names.printable(file.reason),
        'users': [names.printable(user) for user in file.users],
        'ranges': [msgspec.to_builtins(each) for each in file.bad],
        'exposures': [
            {
                'guest': names.printable(each.guest),
                'disk': names.printable(each.disk),
                **msgspec.to_builtins(extent),
            }
            for each in file.exposures
            for extent in each.extents
        ],
    }


def _scrub(
    layout: layouts.Layout, now: clocks.Instant
) -> dict[str, Any] | None:
    last = activities.load(layout)
    if last is None:
        return None
    return {
        'running': last.ended is None
        and coordination.coordinator(layout).taken(),
        'host': last.host,
        'started_seconds_ago': round(clocks.elapsed(last.started, now)),
        'bytes': last.read,
        'files': last.files,
        'queue': last.queue,
        'rate': last.rate,
        'current': last.current and names.printable(last.current),
        'reason': last.reason,
    }


def _reading(
    layout: layouts.Layout, now: clocks.Instant
) -> dict[str, Any] | None:
    """Give what a person has asked to be read, while it is."""
    found = turns.load(layout)
    if found is None or not coordination.coordinator(layout).taken():
        return None
    return {
        'command': names.printable(found.command),
        'host': names.printable(found.host),
        'started_seconds_ago': round(clocks.elapsed(found.started, now)),
        'current': found.current and names.printable(found.current),
        'passed': found.passed,
        'size': found.size,
    }


def _veto(veto: vetoing.Veto) -> dict[str, Any]:
    return {
        'code': str(vetoing.code(veto.reason)),
        'reason': str(veto.reason),
        'subject': names.printable(veto.subject),
        'problem': veto.problem,
        'way_out': veto.way_out,
        'keeps': None if veto.keeps is None else sorted(veto.keeps),
    }


def _check(each: health.Check, report: reports.Report) -> dict[str, Any]:
    return {
        'code': str(each.code),
        'severity': str(each.severity),
        'title': each.code.title,
        'text': names.printable(each.text),
        'subject': names.printable(each.subject),
        'image': each.image,
        'image_name': each.image_name or None,
        'guests': _guests(each.guests, report),
        'since': each.since,
        'action': each.action,
        'doc': f'{runbook.PAGE}#{each.code.anchor}',
    }


def _guests(
    guests: Iterable[str], report: reports.Report
) -> list[dict[str, Any]]:
    return [
        {'uuid': names.printable(guest), 'name': report.titles.get(guest)}
        for guest in guests
    ]


def _space(report: reports.Report) -> dict[str, int]:
    unused = [file for file in report.files if not file.used]
    unused = [file for file in unused if file.kind.is_base]
    return {
        'cache_bytes': sum(file.allocated for file in report.files),
        'used_files': sum(file.used for file in report.files),
        'unused_files': len(unused),
        'unused_bytes': sum(file.allocated for file in unused),
        'trash_files': len(report.trash),
        'trash_bytes': sum(file.allocated for file in report.trash),
        'going_files': len(report.removed) + len(report.deleted),
    }


def _next(coverage: schedule.Coverage) -> dict[str, Any] | None:
    if not coverage.next_name:
        return None
    return {
        'name': names.printable(coverage.next_name),
        'seconds': round(coverage.next_due),
    }


class Status(showing.Showing):
    """Say whether all is well, or what to do next, and how far it is.

    The first line has it in a word, and the exit code follows that: 0 OK, 1
    DEGRADED, 3 DAMAGED. The problems are below it in the order of harm, each
    with its code, the guests that it hits, and the command that helps. -f
    json has all of it. Nothing is changed, and no base file is read.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--watch',
            metavar='SECONDS',
            nargs='?',
            type=_seconds,
            const=_WATCH_SECONDS,
            help='show it anew all the time, each 5 s or as is said, until '
            'it is interrupted',
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show it once, or all the time."""
        code = super().run(parsed_args)
        while parsed_args.watch is not None:
            on_terminal = self.app.stdout.isatty()
            # Who reads it has all of it, however long the pause is.
            self.app.stdout.flush()
            try:
                self.wait(self.app.stdout, parsed_args.watch)
                self.exit_code = exit_codes.FINE
                self.app.stdout.write(_CLEAR if on_terminal else '\n')
                code = super().run(parsed_args)
            except KeyboardInterrupt:
                # The terminal has shown ^C behind the screen.
                self.app.stdout.write('\n' if on_terminal else '')
                return code
        return code

    #: How the time until the next screen passes.
    wait = staticmethod(_wait)

    def lines(
        self, values: dict[str, Any], width: int, args: argparse.Namespace
    ) -> list[str]:
        """Give the lines, the first one in colour where there is any."""
        lines = screens.screen(values, max(_LEAST_WIDTH, width))
        colour = _COLOURS[values['health']]
        lines[0] = colours.on_terminal(self.app.stdout, lines[0], colour)
        return lines

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Look, and give the figures."""
        values = self._values()
        return tuple(values), tuple(values.values())

    def _values(self) -> dict[str, Any]:
        report = listing.look(self)
        remembered, lost = checking.remembered(self)
        report = dataclasses.replace(
            report, problems=(*report.problems, *lost)
        )
        since = {
            each.name: each.found
            for each in remembered.incidents
            if each.ended is None
        }
        found = health.checks(report, since)
        self.exit_code = checking.exit_code_of(found)
        hosts = listing.hosts_of(self)
        layout = layouts.Layout.of(self.settings)
        coverage = report.coverage
        verified = coverage.verified / (coverage.size or 1)
        return {
            'health': str(health.health(report, found)),
            'host': report.host,
            'cache_dir': report.cache_dir,
            'checks': [_check(each, report) for each in found],
            'checksums': 'on' if self.settings.checksum else 'off',
            'files': coverage.files,
            'bytes': coverage.size,
            'bytes_digested': coverage.digested,
            'bytes_verified': coverage.verified,
            'percent_verified': round(100 * verified, 1),
            'oldest_verification': coverage.oldest,
            'interval': self.settings.checksum_interval,
            'overdue_files': coverage.overdue,
            'overdue_bytes': coverage.overdue_size,
            'queue_files': coverage.queue,
            'queue_bytes': coverage.queue_size,
            'next': _next(coverage),
            'rate_needed': coverage.needed,
            'rate_limit': coverage.limit,
            'rate_sufficient': coverage.sufficient,
            'scrub': _scrub(layout, clocks.now()),
            'reading': _reading(layout, clocks.now()),
            'space': _space(report),
            'vetoes': [*map(str, (*report.vetoes, *report.withheld))],
            'vetoed_for': report.vetoed_seconds,
            'last_removal_ago': report.removed_seconds,
            'vetoed_by': [_veto(each) for each in report.obstacles],
            'problems': [*map(names.printable, report.problems)],
            'hosts': hosts,
            'ignored': listing.ignored(self),
            'suspect': [
                names.printable(file.name)
                for file in report.files
                if file.suspect
            ],
            'outdated': [
                {
                    'name': names.printable(file.name),
                    'guests': [*map(names.printable, file.outdated)],
                }
                for file in report.outdated
            ],
            'damaged': [_damage(file) for file in report.harmful],
            'incidents': [
                checking.incident(each) for each in remembered.incidents
            ],
            'names': [names.printable(file.name) for file in report.files],
        }
