# SPDX-License-Identifier: Apache-2.0

"""The status of a node as a page for a browser: pure functions.

Nothing in it comes from elsewhere, and nothing in it runs. In the order in
which somebody asks who was woken: is it bad, what do I do, whom does it hit,
and then the figures.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import datetime
import html
import re

from nova_imagecache import codes
from nova_imagecache.content import incidents
from nova_imagecache import measures
from nova_imagecache import names
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import summaries

# Seconds after which a pass is missed: three times manager_interval.
_LATE_SECONDS = 7200

# After which a scrub that is at work should have noted that it is.
_STALLED_SECONDS = 600

# Of what is over.
_INCIDENTS_SHOWN = 3

_SUMMARY = 'nova-imagecache status'

_CODE = re.compile(r'\[(\w+)\] ')

#: What is wrong, and its code.
_Trouble = tuple[str, codes.Code | None]

_STYLE = """
body { font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 54em;
       padding: 0 1em; color: #222; background: #fff; }
h1 { font-size: 1.3em; }
h2 { font-size: 1em; margin: 1.5em 0 .3em; }
.head { border-left: 8px solid; padding: .7em 1em; }
.head p { margin: .2em 0; }
.head .word { font-size: 1.6em; font-weight: bold; }
.well { border-color: #2a7d2a; background: #eef7ee; }
.warn { border-color: #c77700; background: #fff6e6; }
.harm { border-color: #b00020; background: #fdecee; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3em .6em;
         border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th { width: 9em; font-weight: normal; color: #555; }
code { font-size: 90%; }
footer { color: #555; margin-top: 1.5em; }
"""


@dataclasses.dataclass(frozen=True)
class Headline:
    """Whether all is well, or what to do next.

    :ivar level: ``well``, ``warn`` or ``harm``
    :ivar word: as ``status`` has it
    :ivar action: the command that helps, or says what does; empty for none
    """

    level: str
    word: str
    text: str
    action: str = ''


def _time(wall: float | None, now: float) -> str:
    if wall is None:
        return 'never'
    seconds = max(0.0, now - wall)
    when = datetime.datetime.fromtimestamp(wall, datetime.UTC)
    return (
        f'{measures.span(seconds)} ago ({when.strftime("%Y-%m-%d %H:%M")} UTC)'
    )


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' + ('' if number == 1 else 's')


def _explain(what: object) -> str:
    return f'nova-imagecache explain {what}'


def _code(sentence: str) -> codes.Code | None:
    """Give the code of a sentence, unless an earlier release has left it."""
    found = _CODE.match(sentence)
    if found is None:
        return None
    known = {str(code): code for code in codes.Code}
    return known.get(found.group(1))


def _rank(sentence: str) -> int:
    code = _code(sentence)
    return len(codes.Code) if code is None else code.rank


def _sentences(summary: summaries.Summary) -> list[str]:
    """Give what else is to be looked into, the worst first."""
    return sorted((*summary.vetoes, *summary.problems), key=_rank)


def headline(facts: metrics.Facts, now: float) -> Headline:
    """Say whether all is well; the worst comes first.

    :param now: in seconds since the epoch
    """
    summary = facts.summary
    if facts.unreadable:
        return Headline(
            'warn',
            'UNKNOWN',
            'What is known of this node cannot be read.',
            _SUMMARY,
        )
    if summary is None:
        return Headline(
            'warn',
            'UNKNOWN',
            'No pass has been made on this host yet.',
            _SUMMARY,
        )
    return _of_damage(summary) or _of_work(facts, summary, now)


def _of_damage(summary: summaries.Summary) -> Headline | None:
    damaged = sum(each.files for each in summary.damage.values())
    if not damaged:
        return None
    readers = sum(each.readers for each in summary.damaged)
    files = 'base file is' if damaged == 1 else 'base files are'
    it = 'it' if damaged == 1 else 'them'
    guests = 'guest reads' if readers == 1 else 'guests read'
    worst = summary.damaged[0].name if summary.damaged else ''
    return Headline(
        'harm',
        'DAMAGED',
        f'{damaged} {files} damaged; {readers or "no"} {guests} {it}.',
        _explain(names.abbreviated(worst)) if worst else _SUMMARY,
    )


def _of_work(
    facts: metrics.Facts, summary: summaries.Summary, now: float
) -> Headline:
    for text, code in (*_told(summary, now), *_behind(facts, summary, now)):
        action = _SUMMARY if code is None else _explain(code)
        return Headline('warn', 'DEGRADED', text, action)
    if not summary.checksums:
        return Headline(
            'well', 'OK', 'All is well; base files are not verified.'
        )
    if summary.size and summary.oldest is None:
        return Headline(
            'well', 'OK, NOT CHECKED YET', 'Nothing has been verified so far.'
        )
    return Headline('well', 'OK', 'All is well.')


def _told(summary: summaries.Summary, now: float) -> Iterator[_Trouble]:
    """Say what the last pass had to tell, unless it is too long ago."""
    if now - summary.ended > _LATE_SECONDS:
        yield (
            f'The last pass was {_time(summary.ended, now)}, and what is '
            'below is as old.',
            codes.Code.NO_PASS,
        )
    sentences = _sentences(summary)
    if sentences:
        code = _code(sentences[0])
        title = code.title if code else sentences[0]
        others = len(sentences) - 1
        more = f', and {others} more' if others else ''
        yield f'{title[:1].upper()}{title[1:]}{more}.', code
    if summary.vetoed:
        yield 'Nothing can be removed from the cache.', None


def _behind(
    facts: metrics.Facts, summary: summaries.Summary, now: float
) -> Iterator[_Trouble]:
    """Say what is not as far as it should be."""
    if summary.shortfall:
        much = measures.size(summary.shortfall)
        yield f'{much} too much is in the cache.', codes.Code.SPACE
    activity = facts.activity
    if facts.running and activity is not None and activity.ended is None:
        if now - activity.updated.wall >= _STALLED_SECONDS:
            yield 'The scrub makes no progress.', codes.Code.STALLED
    overdue = summary.overdue.files
    if overdue:
        waits = 'file waits' if overdue == 1 else 'files wait'
        yield f'{overdue} {waits} to be verified.', codes.Code.OVERDUE


Row = tuple[str, str]


def _damaged(
    each: summaries.Damaged, since: float | None, now: float
) -> Iterator[Row]:
    called = f' ({each.image_name})' if each.image_name else ''
    yield 'Base file', each.name
    yield 'Image', f'{each.image}{called}' if each.image else 'not known'
    verdict = each.verdict.replace('_', ' ')
    yield 'Damage', f'{verdict}, {measures.size(each.bytes)}: {each.reason}'
    if since is not None:
        yield 'Found', _time(since, now)
    more = each.readers - len(each.guests)
    lines = [*each.guests, *([f'and {more} more'] if more > 0 else [])]
    yield (
        'Read by',
        '\n'.join([_count(each.readers, 'guest'), *lines])
        if each.readers
        else 'no guest that is seen',
    )
    yield 'Do', _explain(each.name)


def _figures(facts: metrics.Facts, now: float) -> Iterator[Row]:
    summary = facts.summary
    if summary is None:
        return
    yield 'Last pass', _time(summary.ended, now)
    labels = {
        summaries.Use.USED: 'In use',
        summaries.Use.UNUSED: 'Unused',
        summaries.Use.TRASHED: 'In the trash',
    }
    for use, label in labels.items():
        amounts = [
            each
            for key, each in summary.usage.items()
            if key.rpartition('/')[2] == use
        ]
        files = sum(each.files for each in amounts)
        size = measures.size(sum(each.bytes for each in amounts))
        yield label, f'{_count(files, "file")}, {size}'
    if not summary.checksums:
        yield 'Verified', 'nothing; checksum_base_images is off'
    else:
        oldest = summary.oldest
        yield (
            'Verified',
            f'{measures.size(summary.verified)} of '
            f'{measures.size(summary.size)}'
            + (f'; the oldest {_time(oldest, now)}' if oldest else ''),
        )
        activity = facts.activity
        if activity is not None:
            doing = 'at work' if facts.running else 'not at work'
            noted = _time(activity.updated.wall, now)
            yield 'Scrub', f'{doing}; last progress {noted}'
    if facts.repairs.paused:
        yield 'Repairs', 'paused, as many blocks were repaired lately'
    yield 'Last removal', _time(summary.last_removal, now)


def _history(known: Iterable[incidents.Incident]) -> Iterator[Row]:
    """Give what is over, the latest first."""
    over = [each for each in known if each.ended is not None]
    for each in over[: -_INCIDENTS_SHOWN - 1 : -1]:
        called = f' ({each.image_name})' if each.image_name else ''
        end = measures.day(each.ended) if each.ended is not None else ''
        copied = len(each.copied_up)
        kept = f'; {_count(copied, "guest")} had copied it' if copied else ''
        name = names.printable(names.abbreviated(each.name))
        yield (
            measures.day(each.found),
            f'{name}{called} {each.verdict}; {each.outcome} {end} UTC{kept}',
        )


def _table(rows: Iterable[Row], title: str = '') -> str:
    lines = [
        f'<tr><th>{html.escape(name)}</th><td>{_marked(text)}</td></tr>'
        for name, text in rows
    ]
    if not lines:
        return ''
    head = f'<h2>{html.escape(title)}</h2>\n' if title else ''
    return '\n'.join([f'{head}<table>', *lines, '</table>'])


def _marked(text: str) -> str:
    """Give a text as HTML; what can be typed looks so."""
    escaped = html.escape(text).replace('\n', '<br>')
    return f'<code>{escaped}</code>' if text.startswith(_TYPED) else escaped


_TYPED = 'nova-imagecache '


def _body(facts: metrics.Facts, now: float) -> Iterator[str]:
    summary = facts.summary
    yield _table(('Cannot be read', each) for each in facts.unreadable)
    if summary is not None:
        found = {
            names.printable(each.name): each.found
            for each in facts.history
            if each.ended is None
        }
        for file in summary.damaged:
            yield _table(_damaged(file, found.get(file.name), now), 'Damaged')
        if summary.unnamed:
            yield f'<p>And {summary.unnamed} more are damaged.</p>'
        yield _table(map(_problem, _sentences(summary)), 'To be looked into')
    yield _table(_figures(facts, now), 'The cache')
    yield _table(_history(facts.history), 'Damage that is over')


def _problem(sentence: str) -> Row:
    code = _code(sentence)
    if code is None:
        return 'Problem', sentence
    return str(code), sentence.partition('] ')[2]


def page(facts: metrics.Facts, now: float) -> str:
    """Give the page.

    :param now: in seconds since the epoch
    """
    head = headline(facts, now)
    host = html.escape(facts.summary.host if facts.summary else 'this host')
    word = html.escape(head.word)
    lines = [
        f'<p class="word">{word}</p>',
        f'<p>{html.escape(head.text)}</p>',
    ]
    if head.action:
        lines.append(f'<p>Next, on {host}: {_marked(head.action)}</p>')
    made = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="60">
<title>{word} - image cache of {host}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Image cache of {host}</h1>
<div class="head {head.level}">
{"".join(lines)}
</div>
{"".join(filter(None, _body(facts, now)))}
<footer>
<p>As of {made.strftime("%Y-%m-%d %H:%M:%S")} UTC. On the node,
<code>nova-imagecache status</code> has it all, and
<code>nova-imagecache explain CODE</code> says what to do.
<a href="metrics">Metrics</a> for Prometheus. nova_imagecache
{html.escape(facts.version)}</p>
</footer>
</body>
</html>
"""
