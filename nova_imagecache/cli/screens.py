# SPDX-License-Identifier: Apache-2.0

"""The screen of ``status``, from what its JSON has: pure functions.

Everything is here that a person has to see first, in so few lines that it is
seen; ``explain`` and ``-f json`` have the rest.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import datetime
import functools
import itertools
import textwrap
from typing import Any

from oslo_utils import units

from nova_imagecache import names

Values = dict[str, Any]

# Of the subjects of one code, of the guests of one subject, and of a sentence.
_SUBJECTS_SHOWN = 3
_GUESTS_SHOWN = 3
_LINES_SHOWN = 3
_INCIDENTS_SHOWN = 3

_SHORT = 8
_GUEST_WIDTH = 62
_WIDE = 120
_INDENT = ' ' * 7
_LABEL = 10

_BYTES = (
    (units.Ti, 'TiB'),
    (units.Gi, 'GiB'),
    (units.Mi, 'MiB'),
    (units.Ki, 'KiB'),
)
_SPANS = ((86400, 'd'), (3600, 'h'), (60, 'min'))


def size(value: float) -> str:
    """Give a number of bytes in the unit that fits."""
    for factor, unit in _BYTES:
        if value >= factor:
            return f'{value / factor:.1f} {unit}'
    # Of a small rate the digits count.
    return f'{value:.0f} B' if value >= 10 or not value else f'{value:.1g} B'


def span(seconds: float) -> str:
    """Give a span of time in the unit that fits."""
    seconds = round(seconds)
    for factor, unit in _SPANS:
        if seconds >= factor:
            return f'{seconds / factor:.0f} {unit}'
    return f'{seconds} s'


def rate(value: float) -> str:
    """Give bytes per second, with so many digits that it is not 0."""
    return f'{size(value)}/s'


def day(when: float) -> str:
    """Give a moment, in UTC."""
    moment = datetime.datetime.fromtimestamp(when, datetime.UTC)
    return moment.strftime('%d %b %H:%M')


def shortener(known: Iterable[str]) -> Callable[[str], str]:
    """Give what makes a name as short as tells it from the others.

    What is behind the 40 digits of a resized file stays.
    """
    all_known = frozenset(known)

    @functools.cache
    def counts(digits: int) -> collections.Counter[str]:
        return collections.Counter(
            names.abbreviated(each, digits) for each in all_known
        )

    def short(name: str) -> str:
        for digits in range(_SHORT, 40, 4):
            found = names.abbreviated(name, digits)
            if counts(digits)[found] <= (name in all_known):
                return found
        return name

    return short


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' + ('' if number == 1 else 's')


def _wrapped(text: str, width: int, most: int = _LINES_SHOWN) -> list[str]:
    """Wrap a sentence; a path is never in pieces."""
    lines = textwrap.wrap(
        text,
        width - len(_INDENT),
        break_long_words=False,
        break_on_hyphens=False,
        max_lines=most,
        placeholder=' ...',
    )
    return [f'{_INDENT}{line}' for line in lines]


def guest_lines(
    guests: Sequence[Values], width: int, most: int | None = _GUESTS_SHOWN
) -> Iterator[str]:
    """Give three lines of guests, by UUID and name, side by side if they fit.

    :param most: lines of them; None for all
    """
    room = width - len(_INDENT) - 2
    texts = [
        each['uuid'] + (f' {each["name"]}' if each['name'] else '')
        for each in guests
    ]
    side = max(1, room // _GUEST_WIDTH)
    shown = texts if most is None else texts[: most * side]
    for first in range(0, len(shown), side):
        row = shown[first : first + side]
        if side > 1:
            cells = [
                f'{each[: _GUEST_WIDTH - 2]:{_GUEST_WIDTH}}' for each in row
            ]
            line = ''.join(cells).rstrip()
        else:
            line = row[0][:room]
        yield f'{_INDENT}  {line}'
    more = len(guests) - len(shown)
    if more > 0:
        yield f'{_INDENT}  and {more} more guest' + ('' if more == 1 else 's')


def _first(values: Values, short: Callable[[str], str]) -> str:
    """Say in a line how the node is, or what to do next."""
    health = values['health']
    if health in ('DAMAGED', 'DEGRADED'):
        worst = values['checks'][0]
        return f'HEALTH: {health}  next: {_action(worst, short)}'
    if health == 'OK, NOT CHECKED YET':
        due = values['next']
        when = (
            f'first reading in {span(due["seconds"])}'
            if due and not values['queue_files']
            else 'the first reading is due'
        )
        return f"HEALTH: {health}  {when}; 'verify' starts now"
    if not values['files']:
        return f'HEALTH: {health}  the cache is empty'
    files = _count(values['files'], 'file')
    if values['checksums'] == 'off':
        return f'HEALTH: {health}  {files}; checksum_base_images is off'
    interval = values['interval']
    within = f' within {span(interval)}' if interval else ''
    if values['bytes_verified'] == values['bytes']:
        return f'HEALTH: {health}  all {files} verified{within}, none bad'
    return f'HEALTH: {health}  {files}, none known to be bad'


def _action(check: Values, short: Callable[[str], str]) -> str:
    command, _space, what = check['action'].rpartition(' ')
    return f'{command} {short(what)}'


def _checks(
    values: Values, short: Callable[[str], str], width: int
) -> Iterator[str]:
    """Give the problems in the order of harm, those of a code together."""
    found = [each for each in values['checks'] if each['severity'] != 'note']
    for code, group in itertools.groupby(found, lambda each: each['code']):
        yield from _group(code, [*group], short, width)
    notes = [each for each in values['checks'] if each['severity'] == 'note']
    for code, group in itertools.groupby(notes, lambda each: each['code']):
        (first, *others) = [*group]
        more = f' (and {len(others)} more)' if others else ''
        yield from _titled(f'  {code}  note: {first["text"]}{more}', width)


def _titled(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=_INDENT,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
        max_lines=_LINES_SHOWN,
        placeholder=' ...',
    )


def _group(
    code: str,
    group: Sequence[Values],
    short: Callable[[str], str],
    width: int,
) -> Iterator[str]:
    guests = {each['uuid'] for check in group for each in check['guests']}
    title = f'  {code}  {group[0]["title"]}'
    facts = []
    if len(group) > 1:
        facts.append(f'{len(group)} times')
    if guests:
        facts.append(_count(len(guests), 'guest'))
    since = [each['since'] for each in group if each['since'] is not None]
    if since:
        facts.append(f'since {day(min(since))}')
    yield from _titled(
        title + (f': {", ".join(facts)}' if facts else ''), width
    )
    for check in group[:_SUBJECTS_SHOWN]:
        yield from _subject(check, short, width)
    more = len(group) - _SUBJECTS_SHOWN
    if more > 0:
        yield (f'{_INDENT}and {more} more  -> nova-imagecache explain {code}')


def _subject(
    check: Values, short: Callable[[str], str], width: int
) -> Iterator[str]:
    name = short(check['subject'])
    text = check['text']
    if name != check['subject'] or check['image']:
        image = f'  image {check["image"]}' if check['image'] else ''
        if width < _WIDE:
            yield f'{_INDENT}{name}{image}'
        else:
            text = f'{name}{image}  {text}'
    yield from _wrapped(text, width)
    yield from guest_lines(check['guests'], width)
    yield f'{_INDENT}-> {_action(check, short)}'


def labelled(label: str, text: str, width: int) -> list[str]:
    """Give a text behind a label, and the rest of it below."""
    return textwrap.wrap(
        f'{label:{_LABEL}}{text}',
        width,
        subsequent_indent=' ' * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verified(values: Values) -> str:
    if values['checksums'] == 'off' and not values['bytes_digested']:
        return 'nothing; checksum_base_images is off'
    text = (
        f'{size(values["bytes_verified"])} of {size(values["bytes"])}, '
        f'{values["percent_verified"]:g} %'
    )
    if values['oldest_verification'] is not None:
        text += f'; the oldest {span(values["oldest_verification"])} ago'
    if values['interval']:
        text += f', every {span(values["interval"])}'
    if values['overdue_files']:
        text += f'; {_count(values["overdue_files"], "file")} overdue'
    return text


def _scrub(values: Values, short: Callable[[str], str]) -> str:
    last = values['scrub']
    limit = (
        f'needs {rate(values["rate_needed"])} of {rate(values["rate_limit"])}'
        if values['rate_limit']
        else f'needs {rate(values["rate_needed"])}, no limit'
    )
    if last is None:
        return f'none yet; {limit}'
    read = f'{size(last["bytes"])} in {_count(last["files"], "file")}'
    if last['running']:
        at = f', at {short(last["current"])}' if last['current'] else ''
        return (
            f'at work on {last["host"]}: {read} read{at}, '
            f'{last["queue"]} to come; {limit}'
        )
    reason = last['reason'] or 'it was killed'
    return f'ended ({reason}): {read} read; {limit}'


def _space(values: Values) -> str:
    space = values['space']
    return (
        f'{size(space["cache_bytes"])} in the cache, of which '
        f'{size(space["unused_bytes"])} unused '
        f'({_count(space["unused_files"], "file")}); '
        f'{size(space["trash_bytes"])} in the trash'
    )


def _removal(values: Values) -> str:
    last = values['last_removal_ago']
    text = 'nothing yet' if last is None else f'last {span(last)} ago'
    stopped = [
        each['code']
        for each in values['checks']
        if each['code'].startswith('V')
    ]
    if stopped:
        held = values['vetoed_for']
        since = '' if held is None else f' for {span(held)}'
        text += f'; held back{since} by {", ".join(dict.fromkeys(stopped))}'
    going = values['space']['going_files']
    if going:
        text += f'; the next pass takes {_count(going, "file")}'
    return text


def _history(incident: Values, short: Callable[[str], str]) -> str:
    end = f', {incident["outcome"]} {day(incident["ended"])}'
    copied = len(incident['copied_up'])
    kept = f'; {_count(copied, "guest")} had copied it' if copied else ''
    return (
        f'{incident["number"]}: {short(incident["name"])} '
        f'{incident["verdict"]} {day(incident["found"])}{end}{kept}'
    )


def screen(values: Values, width: int) -> list[str]:
    """Give the lines of the screen.

    :param values: what ``-f json`` has
    :param width: columns of the terminal
    """
    short = shortener(values['names'])
    lines = [
        _first(values, short),
        f'{values["host"]}  {values["cache_dir"]}',
        '',
    ]
    checks = [*_checks(values, short, width)]
    lines += [*checks, ''] if checks else []
    lines += labelled('Files', _files(values), width)
    lines += labelled('Verified', _verified(values), width)
    lines += labelled('Scrub', _scrub(values, short), width)
    if values['next'] and values['checksums'] == 'on':
        due = values['next']
        text = f'{short(due["name"])} in {span(due["seconds"])}'
        lines += labelled('Next', text, width)
    elif values['queue_files']:
        text = (
            f'{_count(values["queue_files"], "file")} due now, '
            f'{size(values["queue_bytes"])}'
        )
        lines += labelled('Next', text, width)
    lines += labelled('Space', _space(values), width)
    lines += labelled('Removal', _removal(values), width)
    others = [each for each in values['hosts'] if not _is_ours(each, values)]
    if others:
        away = [each['host'] for each in others if each['away']]
        text = f'{_count(len(others), "other")} on this cache' + (
            f'; away: {_some(away)}' if away else ''
        )
        lines += labelled('Hosts', text, width)
    other_files = [
        each['path'] for each in values['ignored'] if not each['holds']
    ]
    if other_files:
        text = f'another file by now: {_some(other_files)}'
        lines += labelled('Ignored', text, width)
    lines += _incidents(values['incidents'], short, width)
    return lines


def _incidents(
    incidents: Sequence[Values], short: Callable[[str], str], width: int
) -> Iterator[str]:
    """Give those that are over; the others are among the problems."""
    over = [each for each in incidents if each['ended'] is not None]
    label = 'Incidents'
    for incident in reversed(over[-_INCIDENTS_SHOWN:]):
        yield from labelled(label, _history(incident, short), width)
        label = ''
    more = len(over) - _INCIDENTS_SHOWN
    if more > 0:
        yield from labelled(label, f'and {more} more: -f json', width)


def _is_ours(host: Values, values: Values) -> bool:
    return bool(host['host'] == values['host'])


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - _SUBJECTS_SHOWN
    return ', '.join(texts[:_SUBJECTS_SHOWN]) + (
        f' and {more} more' if more > 0 else ''
    )


def _files(values: Values) -> str:
    users = values['space']['used_files']
    return f'{_count(values["files"], "base file")}, {users} in use'


_HEADS = ('FILE', 'IMAGE', 'KIND', 'SIZE/DISK', 'GUESTS', 'USED', 'STATE')
_LAST_HEAD = 'NEXT'


def _short_size(value: int) -> str:
    for factor, unit in ((units.Ti, 'T'), (units.Gi, 'G'), (units.Mi, 'M')):
        if value >= factor:
            return (
                f'{value / factor:.{0 if value >= 10 * factor else 1}f}{unit}'
            )
    return f'{value // units.Ki}K'


def _row(values: Values, short: Callable[[str], str], wide: bool) -> list[str]:
    image = values['image'] or '-'
    verdict = values['verdict']
    return [
        names.printable(values['name'] if wide else short(values['name'])),
        names.printable(image if wide else image[:_SHORT]),
        values['kind'],
        f'{_short_size(values["size"])}/{_short_size(values["allocated"])}',
        str(values['guests'] or '-'),
        'now' if values['used'] else span(values['age']),
        verdict.upper() if verdict in _BAD else verdict,
        'trash' if values['action'] == 'remove' else values['action'],
    ]


_BAD = frozenset({'corrupt', 'unreadable', 'differs'})


def table(rows: Sequence[Values], width: int) -> list[str]:
    """Give the lines of a short table of files.

    Names are whole where there is the room.
    """
    short = shortener(each['name'] for each in rows)
    lines: list[str] = []
    for wide in (True, False):
        cells = [[*_HEADS, _LAST_HEAD]]
        cells += [_row(each, short, wide) for each in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            '  '.join(
                f'{text:{length}}'
                for text, length in zip(line, widths, strict=True)
            ).rstrip()
            for line in cells
        ]
        if max(map(len, lines)) <= width:
            break
    return lines
