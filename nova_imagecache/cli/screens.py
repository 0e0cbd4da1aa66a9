# SPDX-License-Identifier: Apache-2.0

"""The screen of ``status``, from what its JSON has: pure functions.

Everything is here that a person has to see first, in so few lines that it is
seen; ``explain`` and ``-f json`` have the rest.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import textwrap
from typing import Any


from nova_imagecache.cli import tables
from nova_imagecache import measures

Values = dict[str, Any]

# Of the subjects of one code, of the guests of one subject, and of a sentence.
_SUBJECTS_SHOWN = 3
_GUESTS_SHOWN = 3
_LINES_SHOWN = 3
_INCIDENTS_SHOWN = 3

_GUEST_WIDTH = 62
_WIDE = 120
_INDENT = ' ' * 7
_LABEL = 10


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
            f'first reading in {measures.span(due["seconds"])}'
            if due and not values['queue_files']
            else 'the first reading is due'
        )
        return f"HEALTH: {health}  {when}; 'verify' starts now"
    if not values['files']:
        return f'HEALTH: {health}  the cache is empty'
    files = _count(values['files'], 'file')
    all_files = files if values['files'] == 1 else f'all {files}'
    if values['checksums'] == 'off':
        return f'HEALTH: {health}  {files}; checksum_base_images is off'
    interval = values['interval']
    within = f' within {measures.span(interval)}' if interval else ''
    if values['bytes_verified'] == values['bytes']:
        return f'HEALTH: {health}  {all_files} verified{within}, none bad'
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
        facts.append(f'since {measures.day(min(since))}')
    yield from _titled(
        title + (f': {", ".join(facts)}' if facts else ''), width
    )
    for check in group[:_SUBJECTS_SHOWN]:
        yield from _subject(check, short, width)
    more = len(group) - _SUBJECTS_SHOWN
    if more > 0:
        yield (f'{_INDENT}and {more} more  -> nova-imagecache explain {code}')
    yield f'{_INDENT}   {group[0]["doc"]}'


def _subject(
    check: Values, short: Callable[[str], str], width: int
) -> Iterator[str]:
    name = short(check['subject'])
    text = check['text']
    if name != check['subject'] or check['image']:
        image = image_of(check)
        image = f'  {image}' if image else ''
        if width < _WIDE:
            yield tables.clipped(f'{_INDENT}{name}{image}', width)
        else:
            text = f'{name}{image}  {text}'
    yield from _wrapped(text, width)
    yield from guest_lines(check['guests'], width)
    yield f'{_INDENT}-> {_action(check, short)}'


def image_of(values: Values) -> str:
    """Say which image something is of: its ID, and what people call it."""
    image, name = values['image'], values['image_name']
    return f'image {image}' + (f' ({name})' if name else '') if image else ''


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
        f'{measures.size(values["bytes_verified"])} of '
        f'{measures.size(values["bytes"])}, '
        f'{values["percent_verified"]:g} %'
    )
    if values['oldest_verification'] is not None:
        text += (
            f'; the oldest {measures.span(values["oldest_verification"])} ago'
        )
    if values['interval']:
        text += f', every {measures.span(values["interval"])}'
    if values['overdue_files']:
        text += f'; {_count(values["overdue_files"], "file")} overdue'
    return text


def _scrub(values: Values, short: Callable[[str], str]) -> str:
    last = values['scrub']
    most = values['rate_limit']
    limit = f'needs {measures.rate(values["rate_needed"])}' + (
        f' of {measures.rate(most)}' if most else ', no limit'
    )
    if last is None:
        return f'none yet; {limit}'
    read = f'{measures.size(last["bytes"])} in {_count(last["files"], "file")}'
    if last['running']:
        at = f', at {short(last["current"])}' if last['current'] else ''
        return (
            f'at work on {last["host"]}: {read} read{at}, '
            f'{last["queue"]} to come; {limit}'
        )
    reason = last['reason'] or 'it was killed'
    return f'ended ({reason}): {read} read; {limit}'


def _reading(values: Values, short: Callable[[str], str]) -> str:
    reading = values['reading']
    at = f', at {short(reading["current"])}' if reading['current'] else ''
    far = (
        f', {measures.size(reading["passed"])} of '
        f'{measures.size(reading["size"])}'
        if reading['size']
        else ''
    )
    since = measures.span(reading['started_seconds_ago'])
    return f'{reading["command"]} on {reading["host"]} for {since}{at}{far}'


def _space(values: Values) -> str:
    space = values['space']
    return (
        f'{measures.size(space["cache_bytes"])} in the cache, of which '
        f'{measures.size(space["unused_bytes"])} unused '
        f'({_count(space["unused_files"], "file")}); '
        f'{measures.size(space["trash_bytes"])} in the trash'
    )


def _removal(values: Values) -> str:
    last = values['last_removal_ago']
    text = 'nothing yet' if last is None else f'last {measures.span(last)} ago'
    stopped = [
        each['code']
        for each in values['checks']
        if each['code'].startswith('V')
    ]
    if stopped:
        held = values['vetoed_for']
        since = '' if held is None else f' for {measures.span(held)}'
        text += f'; held back{since} by {", ".join(dict.fromkeys(stopped))}'
    going = values['space']['going_files']
    if going:
        text += f'; the next pass takes {_count(going, "file")}'
    return text


def _history(incident: Values, short: Callable[[str], str]) -> str:
    end = f', {incident["outcome"]} {measures.day(incident["ended"])}'
    copied = len(incident['copied_up'])
    kept = f'; {_count(copied, "guest")} had copied it' if copied else ''
    called = incident['image_name'] or ''
    name = f' ({tables.clipped(called, tables.NAME_WIDTH)})' if called else ''
    return (
        f'{incident["number"]}: {short(incident["name"])}{name} '
        f'{incident["verdict"]} {measures.day(incident["found"])}{end}{kept}'
    )


def _where(values: Values, width: int) -> list[str]:
    """Say which cache it is; a path is never in pieces."""
    host, path = values['host'], values['cache_dir']
    if len(host) + len(path) + 2 <= width:
        return [f'{host}  {path}']
    return [tables.clipped(host, width), path]


def screen(values: Values, width: int) -> list[str]:
    """Give the lines of the screen.

    :param values: what ``-f json`` has
    :param width: columns of the terminal
    """
    short = tables.shortener(values['names'])
    lines = [
        _first(values, short),
        *_where(values, width),
        '',
    ]
    checks = [*_checks(values, short, width)]
    lines += [*checks, ''] if checks else []
    lines += labelled('Files', _files(values), width)
    lines += labelled('Verified', _verified(values), width)
    lines += labelled('Scrub', _scrub(values, short), width)
    if values['reading']:
        lines += labelled('Reading', _reading(values, short), width)
    if values['next'] and values['checksums'] == 'on':
        due = values['next']
        text = f'{short(due["name"])} in {measures.span(due["seconds"])}'
        lines += labelled('Next', text, width)
    elif values['queue_files']:
        text = (
            f'{_count(values["queue_files"], "file")} due now, '
            f'{measures.size(values["queue_bytes"])}'
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
