# SPDX-License-Identifier: Apache-2.0

"""The command explain: the details of a file, a code or an incident."""

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import re
import textwrap
from typing import Any

import msgspec

from nova_imagecache.cli import checking
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import listing
from nova_imagecache.cli import runbook
from nova_imagecache.cli import screens
from nova_imagecache.cli import showing
from nova_imagecache.conf import Settings
from nova_imagecache.content import incidents
from nova_imagecache import errors
from nova_imagecache import measures
from nova_imagecache import names
from nova_imagecache.outlets import health
from nova_imagecache.passes import reports

_CODE = re.compile(r'\[?([A-Za-z][0-9]{2})\]?')

# Of bad ranges.
_RANGES_SHOWN = 10

# Columns of what comes before the text.
_LABEL = 9


def _anchor(text: str) -> str | None:
    """Give the anchor of a code or an alert."""
    found = _CODE.fullmatch(text)
    anchor = f'code-{found[1]}' if found else f'alert-{text}'
    anchor = anchor.lower()
    return anchor if anchor in runbook.entries() else None


class Explain(showing.Showing):
    """Say what a file, a code or an incident is, and what to do.

    A code is what begins a line of the log, such as C01; the name of an alert
    will do. A file may be named by the first digits of its name, or by the ID
    or the name of its image. An incident is named by its number. Nothing is
    changed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'what',
            metavar='FILE|CODE|INCIDENT',
            help='what to explain',
        )
        parser.add_argument(
            '--guests',
            action='store_true',
            help='name all guests, and not the first three',
        )
        return parser

    def load_settings(self, parsed_args: argparse.Namespace) -> Settings:
        """Look for no node where the runbook alone is asked."""
        if _anchor(parsed_args.what):
            return Settings(instances_path='')
        return super().load_settings(parsed_args)

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Find out what is meant, and give all that there is of it."""
        what = parsed_args.what
        anchor = _anchor(what)
        if anchor is not None:
            values = self._of_code(what, anchor)
        elif what.isdecimal() and len(what) < 7:
            values = self._of_number(what)
        else:
            values = self._of_file(what)
        return tuple(values), tuple(values.values())

    def _of_code(self, what: str, anchor: str) -> dict[str, Any]:
        found = _CODE.fullmatch(what)
        return {
            'code': found[1].upper() if found else what,
            'text': runbook.text_of(anchor),
            'doc': f'{runbook.PAGE}#{anchor}',
        }

    def _of_number(self, what: str) -> dict[str, Any]:
        """Give an incident, or the file whose name begins so."""
        number = int(what)
        remembered, lost = checking.remembered(self)
        for problem in lost:
            raise errors.Error(problem)
        for each in remembered.incidents:
            if each.number == number:
                if each.ended is None:
                    self.exit_code = exit_codes.CORRUPTION
                return {'incident': checking.incident(each)}
        with contextlib.suppress(errors.Error):
            return self._of_file(what)
        raise errors.Error(
            f'there is no incident {number}; nova-imagecache status -f json '
            'has those that there are'
        )

    def _of_file(self, what: str) -> dict[str, Any]:
        report = listing.look(self)
        remembered, _lost = checking.remembered(self)
        try:
            (name,) = listing.find(self.settings, [what])
        except errors.Error:
            # One that has gone is remembered for what it was.
            for each in reversed(remembered.incidents):
                prefix = each.name.startswith(what) and len(what) > 3
                if prefix or what in (each.image, each.image_name):
                    return {'incident': checking.incident(each)}
            if _CODE.fullmatch(what):
                raise errors.Error(
                    f'there is no code {what.upper()}, and no file of that '
                    f'name; the codes are in {runbook.PAGE}'
                ) from None
            raise
        for file in report.only([name]).files:
            mine = checking.checks_of(file, report)
            self.exit_code = checking.exit_code_of(mine)
            return {
                'file': _file(file, report, mine),
                'incidents': [
                    checking.incident(each)
                    for each in remembered.incidents
                    if each.name == name
                ],
            }
        raise errors.Error(f'{names.printable(what)} has gone meanwhile')

    def lines(
        self, values: dict[str, Any], width: int, args: argparse.Namespace
    ) -> Iterator[str]:
        """Give the text, or the lines of a file or an incident."""
        most = None if args.guests else 3
        if 'text' in values:
            yield from (values['text'], '', f'Doc: {values["doc"]}')
        elif 'file' in values:
            yield from _file_lines(values, width, most)
        else:
            yield from _incident_lines(values['incident'], width, most)


def _file(
    file: reports.FileReport,
    report: reports.Report,
    mine: Sequence[health.Check],
) -> dict[str, Any]:
    totals: dict[str, dict[str, int]] = {}
    for exposure in file.exposures:
        for extent in exposure.extents:
            fare = totals.setdefault(exposure.guest, {})
            length = extent.end - extent.start
            fare[str(extent.effect)] = fare.get(str(extent.effect), 0) + length
    return {
        'name': names.printable(file.name),
        'kind': str(file.kind),
        'image': file.image,
        'image_name': file.image_name or None,
        'size': file.size,
        'allocated': file.allocated,
        'verdict': file.word,
        'codes': [str(each.code) for each in mine],
        'note': names.printable(file.note),
        'action': str(file.action),
        'reason': names.printable(file.reason),
        'ranges': [msgspec.to_builtins(each) for each in file.bad],
        'readers': [
            {
                'uuid': names.printable(guest),
                'name': report.titles.get(guest),
                'fare': totals.get(guest, {}),
            }
            for guest in file.readers
        ],
        'keepers': [
            {
                'uuid': names.printable(guest),
                'name': report.titles.get(guest),
            }
            for guest in file.users
            if guest not in file.readers
        ],
        'suspect': file.suspect,
    }


def _file_lines(
    values: dict[str, Any], width: int, most: int | None
) -> Iterator[str]:
    file = values['file']
    image = screens.image_of(file) or 'image not known'
    yield f'File     {file["name"]}'
    yield from _behind('', f'{file["kind"]}, {image}', width)
    yield (
        f'         {measures.size(file["size"])}, '
        f'{measures.size(file["allocated"])} on the disk'
    )
    shown = ' '.join(f'[{code}]' for code in file['codes'])
    yield f'Content  {file["verdict"]}' + (f'  {shown}' if shown else '')
    yield from _behind('', file['note'], width)
    # The note names the first ones.
    told = [
        (f'bytes {each["start"]}-{each["end"] - 1}', each["damage"])
        for each in file['ranges']
    ]
    told = [each for each in told if f'{each[0]} ' not in file['note']]
    for where, damage in told[:_RANGES_SHOWN]:
        yield f'{" " * _LABEL}{where}: {damage}'
    more = len(told) - _RANGES_SHOWN
    if more > 0:
        yield f'         and {more} more ranges, which -f json has'
    yield f'Next     {file["action"]}'
    yield f'Readers  {len(file["readers"])}'
    yield from _fares(file['readers'], width, most)
    kept = len(file['keepers'])
    yield f'Keepers  {kept}, of the same image, not seen to read it'
    yield from screens.guest_lines(file['keepers'], width, most)
    for each in reversed(values['incidents'][-3:]):
        yield ''
        yield from _incident_lines(each, width, most)
    for code in dict.fromkeys(file['codes']):
        yield ''
        yield runbook.text_of(f'code-{code}'.lower())


def _behind(label: str, text: str, width: int) -> Iterator[str]:
    """Give a text behind a label, and the rest of it below."""
    # A name is in one piece where it fits.
    room = max(_LABEL, width - _LABEL)
    wrapped = textwrap.wrap(text, room, break_on_hyphens=False)
    for line in wrapped:
        yield f'{label:{_LABEL}}{line}'
        label = ''


def _fares(
    readers: Sequence[dict[str, Any]], width: int, most: int | None
) -> Iterator[str]:
    """Say in two lines who reads a file, and how that one fares."""
    for each in readers if most is None else readers[:most]:
        yield from _behind('', f'{each["uuid"]}  {each["name"] or ""}', width)
        fare = ', '.join(
            f'{effect} {measures.size(length)}'
            for effect, length in each['fare'].items()
        )
        if fare:
            yield f'           {fare}'
    if most is not None and len(readers) > most:
        yield f'         and {len(readers) - most} more: --guests'


def _incident_lines(
    incident: dict[str, Any], width: int, most: int | None
) -> Iterator[str]:
    ended = incident['ended']
    last = incident['last_good']
    yield (
        f'INCIDENT {incident["number"]}  {incident["verdict"]} since '
        f'{measures.day(incident["found"])}'
        + (f' (last good {measures.day(last)})' if last else '')
    )
    yield f'File     {incident["name"]}'
    if incident['image']:
        yield from _behind('', screens.image_of(incident), width)
    if ended:
        yield f'End      {incident["outcome"]} {measures.day(ended)}'
    else:
        yield 'End      it lasts'
    for title, key in (('Readers', 'guests'), ('Copied', 'copied_up')):
        guests = incident[key]
        yield f'{title:9}{len(guests)}'
        for each in guests if most is None else guests[:most]:
            yield f'         {each}'
        if most is not None and len(guests) > most:
            yield f'         and {len(guests) - most} more: --guests'
    if (
        incident['outcome'] == incidents.Outcome.HEALED
        and incident['copied_up']
    ):
        yield 'Do       check the guests that had copied it: it is still there'
