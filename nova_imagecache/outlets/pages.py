# SPDX-License-Identifier: Apache-2.0

"""The status of a node as a page for a browser: pure functions.

Nothing in it comes from elsewhere, and nothing in it runs.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import datetime
import html

from nova_imagecache import measures
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import summaries

# Seconds after which a pass is missed: three times manager_interval.
_LATE_SECONDS = 7200

_STYLE = """
body { font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 50em;
       padding: 0 1em; color: #222; background: #fff; }
p.well, p.warn, p.harm { border-left: 8px solid; padding: .5em 1em; }
.well { border-color: #2a7d2a !important; background: #eef7ee; }
.warn { border-color: #c77700 !important; background: #fff6e6; }
.harm { border-color: #b00020 !important; background: #fdecee; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3em .6em;
         border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th { width: 14em; font-weight: normal; color: #555; }
code { font-size: 90%; }
"""


def _time(wall: float | None, now: float) -> str:
    if wall is None:
        return 'never'
    seconds = max(0.0, now - wall)
    when = datetime.datetime.fromtimestamp(wall, datetime.UTC)
    return (
        f'{measures.span(seconds)} ago ({when.strftime("%Y-%m-%d %H:%M")} UTC)'
    )


def headline(facts: metrics.Facts, now: float) -> tuple[str, str]:
    """Say in a line whether all is well; the worst comes first.

    :param now: in seconds since the epoch
    :returns: ``well``, ``warn`` or ``harm``, and the line
    """
    summary = facts.summary
    if facts.unreadable:
        return 'warn', 'What is known of this node cannot be read.'
    if summary is None:
        return 'warn', 'No pass has been made on this host yet.'
    damaged = sum(each.files for each in summary.damage.values())
    if damaged:
        readers = sum(each.readers for each in summary.damaged)
        files = 'base file is' if damaged == 1 else 'base files are'
        guests = 'guest reads' if readers == 1 else 'guests read'
        return 'harm', (
            f'{damaged} {files} damaged; {readers} {guests} what is.'
        )
    if now - summary.ended > _LATE_SECONDS:
        return 'warn', f'The last pass was {_time(summary.ended, now)}.'
    if summary.vetoed:
        return 'warn', 'Nothing can be removed from the cache.'
    if summary.shortfall:
        return (
            'warn',
            f'{measures.size(summary.shortfall)} too much is in the cache.',
        )
    if summary.problems:
        return 'warn', summary.problems[0]
    if summary.overdue.files:
        return 'warn', f'{summary.overdue.files} files wait to be verified.'
    return 'well', 'All is well.'


def _damaged(each: summaries.Damaged) -> str:
    called = f' {each.image_name}' if each.image_name else ''
    image = f' (image {each.image}{called})' if each.image else ''
    shown = ', '.join(each.guests) or 'none'
    more = each.readers - len(each.guests)
    more_text = f', and {more} more' if more > 0 else ''
    return (
        f'{each.name}{image} is {each.verdict}, {measures.size(each.bytes)}: '
        f'{each.reason}. Guests that read it: {shown}{more_text}.'
    )


def _rows(facts: metrics.Facts, now: float) -> Iterator[tuple[str, str]]:
    for each in facts.unreadable:
        yield 'Cannot be read', each
    summary = facts.summary
    if summary is None:
        return
    for file in summary.damaged:
        yield 'Damaged', _damaged(file)
    if summary.unnamed:
        yield 'Damaged', f'and {summary.unnamed} more'
    for veto in summary.vetoes:
        yield 'Keeps unused files', veto
    for problem in summary.problems:
        yield 'Problem', problem
    yield 'Last pass', _time(summary.ended, now)
    for use in summaries.Use:
        amounts = [
            each
            for key, each in summary.usage.items()
            if key.rpartition('/')[2] == use
        ]
        files = sum(each.files for each in amounts)
        size = measures.size(sum(each.bytes for each in amounts))
        yield f'Files: {use}', f'{files}, {size}'
    if not summary.checksums:
        yield 'Verification', 'off (checksum_base_images)'
    else:
        yield (
            'Verified',
            f'{measures.size(summary.verified)} of '
            f'{measures.size(summary.size)}',
        )
        yield 'Oldest verification', _time(summary.oldest, now)
        activity = facts.activity
        if activity is not None:
            doing = 'at work' if facts.running else 'not at work'
            noted = _time(activity.updated.wall, now)
            yield 'Scrub', f'{doing}; last progress {noted}'
    yield 'Last removal', _time(summary.last_removal, now)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return '\n'.join(
        f'<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>'
        for name, text in rows
    )


def page(facts: metrics.Facts, now: float) -> str:
    """Give the page.

    :param now: in seconds since the epoch
    """
    level, line = headline(facts, now)
    host = facts.summary.host if facts.summary else 'this host'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Image cache of {html.escape(host)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Image cache of {html.escape(host)}</h1>
<p class="{level}"><strong>{html.escape(line)}</strong></p>
<table>
{_table(_rows(facts, now))}
</table>
<p><a href="metrics">Metrics</a> for Prometheus. On the node itself,
<code>nova-imagecache status</code> has the details.</p>
<p>nova_imagecache {html.escape(facts.version)}</p>
</body>
</html>
"""
