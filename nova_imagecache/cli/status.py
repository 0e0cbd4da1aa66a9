# SPDX-License-Identifier: Apache-2.0

"""The command status: what is verified, what is bad, and what is kept."""

import argparse
import collections
from collections.abc import Iterator
from collections.abc import Sequence
import textwrap
from typing import Any

from cliff.columns import FormattableColumn
from cliff import show
import msgspec

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import listing
from nova_imagecache import clocks
from nova_imagecache import names
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.witnesses import vetoing


# What the field names leave of 80 columns.
_WIDTH = 54

# Of the ranges and of the guests of one file.
_LINES_SHOWN = 10


class Scrub(FormattableColumn[dict[str, Any] | None]):
    """What the scrub does, or the last one has done."""

    def human_readable(self) -> str:
        """Give it as a sentence."""
        last = self._value
        if last is None:
            return 'none yet'
        read = columns.Bytes(last['bytes']).human_readable()
        text = f'{read} read, {last["files"]} files done, on {last["host"]}'
        if last['running']:
            at = f'; at {last["current"]}' if last['current'] else ''
            return _wrapped(
                f'at work: {text}{at}; {last["queue"]} more to come'
            )
        reason = last['reason'] or 'it was killed'
        return _wrapped(f'ended ({reason}): {text}')


class Damage(FormattableColumn[list[dict[str, Any]]]):
    """The files that are damaged, with ranges and guests."""

    def human_readable(self) -> str:
        """Give some ranges and some guests; JSON has all."""
        lines = []
        for file in self._value:
            image = f' (image {file["image"]})' if file['image'] else ''
            verdict = str(file['checksum'])
            verb = '' if verdict == 'differs' else 'is '
            lines.append(f'{file["name"]}{image} {verb}{verdict}')
            if not file['ranges']:
                lines.append(f'  {file["reason"]}')
            lines += _some(
                'ranges',
                [
                    f'bytes {each["start"]}-{each["end"] - 1}: '
                    f'{each["damage"] if verb else "differ"}'
                    for each in file['ranges']
                ],
            )
            if not verb:
                lines.append(
                    '  one of two files is bad; see nova-imagecache confirm'
                )
            lines += _some('guests', [*_guests(file)])
        return '\n'.join(lines) or 'none'


class Hosts(FormattableColumn[list[dict[str, Any]]]):
    """The hosts that share the cache."""

    def human_readable(self) -> str:
        """Give a line for each."""
        lines = []
        for each in self._value:
            passed = columns.Seconds(each['passed_ago']).human_readable()
            ago = passed if passed == 'never' else f'{passed} ago'
            away = ', away' if each['away'] else ''
            lines.append(
                f'{each["host"]}: last pass {ago}{away}; base files: '
                f'{each["files"]}'
            )
        return '\n'.join(lines) or 'none has noted anything yet'


class Paths(FormattableColumn[list[dict[str, Any]]]):
    """The files that are ignored."""

    def human_readable(self) -> str:
        """Give a line for each."""
        lines = [
            each['path'] + ('' if each['holds'] else ' (another file by now)')
            for each in self._value
        ]
        return '\n'.join(lines) or 'none'


class Sentences(FormattableColumn[list[str]]):
    """What is to be looked into."""

    def human_readable(self) -> str:
        """Give a paragraph for each."""
        return '\n'.join(map(_wrapped, self._value)) or 'none'


class VetoedBy(FormattableColumn[list[dict[str, Any]]]):
    """The same one by one, for programs."""

    def human_readable(self) -> str:
        """Count them."""
        count = len(self._value)
        return f'{count}, which -f json has' if count else 'none'


def _wrapped(text: str) -> str:
    """Keep a table within 80 columns, but no path in pieces."""
    return '\n'.join(
        textwrap.wrap(
            text, _WIDTH, break_long_words=False, break_on_hyphens=False
        )
    )


def _some(what: str, lines: Sequence[str]) -> Iterator[str]:
    """Give so many lines that a person reads them."""
    for line in lines[:_LINES_SHOWN]:
        yield f'  {line}'
    more = len(lines) - _LINES_SHOWN
    if more > 0:
        yield f'  and {more} more {what}, which -f json has'


def _guests(file: dict[str, Any]) -> Iterator[str]:
    """Say in a line how each disk of a guest fares."""
    disks: dict[tuple[str, str], collections.Counter[str]] = {}
    for each in file['exposures']:
        key = each['guest'], each['disk']
        totals = disks.setdefault(key, collections.Counter())
        totals[each['effect']] += each['end'] - each['start']
    for (guest, disk), totals in disks.items():
        fare = ', '.join(f'{effect} {n} B' for effect, n in totals.items())
        yield f'guest {guest}, {disk}: {fare}'
    exposed = {guest for guest, _disk in disks}
    for user in file['users']:
        if user not in exposed:
            yield f'guest {user}'


def _damage(file: reports.FileReport) -> dict[str, Any]:
    return {
        'name': names.printable(file.name),
        'image': file.image,
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


def _veto(veto: vetoing.Veto) -> dict[str, Any]:
    return {
        'reason': str(veto.reason),
        'subject': names.printable(veto.subject),
        'problem': veto.problem,
        'way_out': veto.way_out,
        'keeps': None if veto.keeps is None else sorted(veto.keeps),
    }


class Status(app.NodeCommand, show.ShowOne):
    """Show what is verified, what is damaged, and what keeps unused files.

    For damaged bytes of raw base files it says how each guest fares: it
    "reads through" to them; its disk has "copied" that part, and may carry
    the damage also after a repair; or it is "zeroed" in its disk. That is
    what is on the disk: a running guest may have written more. Nothing is
    changed, and no base file is read.
    """

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Look, and give the figures."""
        report = listing.preview(self)
        coverage = report.coverage
        suspect = [
            names.printable(file.name) for file in report.files if file.suspect
        ]
        verified = coverage.verified / (coverage.size or 1)
        values = {
            'cache_dir': report.cache_dir,
            'checksums': 'on' if self.settings.checksum else 'off',
            'files': coverage.files,
            'bytes': columns.Bytes(coverage.size),
            'bytes_digested': columns.Bytes(coverage.digested),
            'bytes_verified': columns.Bytes(coverage.verified),
            'percent_verified': round(100 * verified, 1),
            'oldest_verification': columns.Seconds(coverage.oldest),
            'interval': columns.Seconds(self.settings.checksum_interval),
            'overdue_files': coverage.overdue,
            'overdue_bytes': columns.Bytes(coverage.overdue_size),
            'queue_files': coverage.queue,
            'queue_bytes': columns.Bytes(coverage.queue_size),
            'rate_needed': columns.Rate(coverage.needed),
            'rate_limit': columns.Limit(coverage.limit),
            'rate_sufficient': coverage.sufficient,
            'scrub': Scrub(
                _scrub(layouts.Layout.of(self.settings), clocks.now())
            ),
            'vetoes': Sentences([*report.vetoes, *report.withheld]),
            'vetoed_for': columns.Seconds(report.vetoed_seconds),
            'last_removal_ago': columns.Seconds(report.removed_seconds),
            'vetoed_by': VetoedBy([_veto(each) for each in report.obstacles]),
            'problems': Sentences([*map(names.printable, report.problems)]),
            'hosts': Hosts(listing.hosts_of(self)),
            'ignored': Paths(listing.ignored(self)),
            'suspect': suspect,
            'outdated': [
                {
                    'name': names.printable(file.name),
                    'guests': [*map(names.printable, file.outdated)],
                }
                for file in report.outdated
            ],
            'damaged': Damage([_damage(file) for file in report.harmful]),
        }
        return tuple(values), tuple(values.values())
