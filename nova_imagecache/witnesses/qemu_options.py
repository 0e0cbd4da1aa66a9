# SPDX-License-Identifier: Apache-2.0

"""The options in a ``json:`` reference as QEMU reads them, by pure functions.

After qobject/json-lexer.c, qobject/json-parser.c and qobject/block-qdict.c in
QEMU: JSON, in which strings may be in single quotes, and a key with dots in it
is a path.
"""

from collections.abc import Iterator
import dataclasses
import json
import re
from typing import Any

_SKIP = re.compile(r'[ \t\r\n]*')
_STRING = (
    r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"'
    r"|'(?:[^'\\\x00-\x1f]|\\[^\x00-\x1f])*'"
)
_STRINGS = re.compile(_STRING)
_TOKEN = re.compile(
    rf'(?P<string>{_STRING})|(?P<other>[][{{}}:,]|true|false|null'
    r'|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)'
)
_ESCAPE = re.compile(
    r'\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})'
    r'\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})'
    r'|u(?P<code>[0-9a-fA-F]{4})|(?P<letter>.))'
)
_LETTERS = {'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'} | {
    letter: letter for letter in '"\'\\/'
}

# No NUL ends a string: QEMU writes it as these two bytes, "modified UTF-8".
_NUL = '\udcc0\udc80'

# What cannot be in a name: bytes that were no UTF-8 (but for that NUL), and
# halves of pairs.
_NO_TEXT = re.compile('[\ud800-\udfff]')

# include/qapi/qmp/json-parser.h allows 1,024; a header has room for some 100.
_DEPTH = 200


class MalformedOptions(Exception):
    """QEMU would not read them, or nobody can say how."""


class _Object(list[tuple[str, Any]]):
    """What was in braces; a list is what was in brackets."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Options of one node of QEMU's, with those of its children.

    :ivar values: by their names: text, or None for all that is no text
    :ivar children: by their names; those of a list are '0', '1' ...
    """

    values: dict[str, list[str | None]] = dataclasses.field(
        default_factory=dict
    )
    children: dict[str, 'Options'] = dataclasses.field(default_factory=dict)

    def text(self, name: str) -> str:
        """Give an option, or '' where it is missing, or no text."""
        return self.values.get(name, [None])[-1] or ''

    def is_text(self, name: str) -> bool:
        """Whether an option is there; QEMU overlooks what is no text."""
        return self.values.get(name, [None])[-1] is not None

    def child(self, name: str) -> 'Options':
        """Give the options of a child, made where it is missing."""
        return self.children.setdefault(name, Options())

    def said_twice(self) -> Iterator[str]:
        """Name the options of which the order in QEMU tells which counts."""
        for name, values in self.values.items():
            if len(values) > 1 or name in self.children:
                yield name


def _unescape(match: re.Match[str]) -> str:
    if match['high']:
        high, low = int(match['high'], 16), int(match['low'], 16)
        return chr(0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF))
    if match['code']:
        return chr(int(match['code'], 16)) if int(match['code'], 16) else _NUL
    return _LETTERS.get(match['letter'], '\\' + match['letter'])


def _decode(token: str) -> str:
    """Decode what is between two quotes.

    :raises MalformedOptions: QEMU would not
    """
    for match in _ESCAPE.finditer(token):
        if match['letter'] and match['letter'] not in _LETTERS:
            raise MalformedOptions('it has an escape that means nothing')
    text = _ESCAPE.sub(_unescape, token)
    if _NO_TEXT.search(text.replace(_NUL, '')):
        raise MalformedOptions('it has bytes in it that are no text')
    return text


def _json(text: str) -> Iterator[str]:
    """Say the same in plain JSON."""
    depth = 0
    at = _end_of_space(text, 0)
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise MalformedOptions('it is no JSON')
        if match['string']:
            yield json.dumps(_decode(match['string'][1:-1]))
        else:
            depth += (match[0] in '[{') - (match[0] in ']}')
            if depth > _DEPTH:
                raise MalformedOptions('it is nested too deeply')
            yield match[0]
        # Or two tokens could become one.
        yield ' '
        at = _end_of_space(text, match.end())


def _end_of_space(text: str, at: int) -> int:
    match = _SKIP.match(text, at)
    return match.end() if match else at


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    # QEMU before 2.12 let the last one win.
    if len(dict(pairs)) < len(pairs):
        raise MalformedOptions('it says something twice')
    return _Object(pairs)


def strings(text: str) -> Iterator[str]:
    """Give whatever is between quotes, decoded, also in what is malformed."""
    for match in _STRINGS.finditer(text):
        yield _ESCAPE.sub(_unescape, match[0][1:-1])


def unescaped(text: str) -> str:
    """Decode every escape, wherever it is."""
    return _ESCAPE.sub(_unescape, text)


def read(text: str) -> Options:
    """Read what follows ``json:``.

    :raises MalformedOptions: QEMU would not, or it cannot be made out
    """
    try:
        pairs = json.loads(
            ''.join(_json(text)),
            object_pairs_hook=_object,
            parse_int=float,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedOptions('it is no JSON') from error
    if not isinstance(pairs, _Object):
        raise MalformedOptions('it has no options')
    root = Options()
    pending = [(root, pairs)]
    while pending:
        options, pairs = pending.pop()
        for key, value in pairs:
            *path, name = key.split('.')
            node = options
            for part in path:
                node = node.child(part)
            if isinstance(value, _Object):
                pending.append((node.child(name), value))
            elif isinstance(value, list):
                items = [
                    (str(count), item) for count, item in enumerate(value)
                ]
                pending.append((node.child(name), _Object(items)))
            else:
                known = value if isinstance(value, str) else None
                node.values.setdefault(name, []).append(known)
    return root
