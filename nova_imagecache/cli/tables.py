# SPDX-License-Identifier: Apache-2.0

"""The short table of ``list``, and names that fit: pure functions."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import functools
import itertools
from typing import Any

from oslo_utils import units

from nova_imagecache import measures
from nova_imagecache import names

Values = dict[str, Any]

#: Columns of the name of an image, where there is the room.
NAME_WIDTH = 24

_SHORT = 8
_LEAST_NAME = 12
_FEW_OF_NAME = 8


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


def clipped(text: str, width: int) -> str:
    """Cut a text to a width."""
    return text if len(text) <= width else f'{text[: width - 3]}...'


_HEADS = ('FILE', 'IMAGE', 'KIND', 'SIZE/DISK', 'GUESTS', 'USED', 'STATE')
_LAST_HEAD = 'NEXT'


def _short_size(value: int) -> str:
    for factor, unit in ((units.Ti, 'T'), (units.Gi, 'G'), (units.Mi, 'M')):
        if value >= factor:
            return (
                f'{value / factor:.{0 if value >= 10 * factor else 1}f}{unit}'
            )
    return f'{value // units.Ki}K'


def _row(
    values: Values, short: Callable[[str], str], wide: bool, room: int
) -> list[str]:
    image = values['image'] or '-'
    called = values['image_name']
    if wide:
        image += f' {called}' if called else ''
    else:
        image = clipped(called, room) if called else image[:_SHORT]
    verdict = values['verdict']
    return [
        names.printable(values['name'] if wide else short(values['name'])),
        names.printable(image),
        values['kind'],
        f'{_short_size(values["size"])}/{_short_size(values["allocated"])}',
        str(values['guests'] or '-'),
        'now' if values['used'] else measures.span(values['age']),
        verdict.upper() if verdict in _BAD else verdict,
        'trash' if values['action'] == 'remove' else values['action'],
    ]


_BAD = frozenset({'corrupt', 'unreadable', 'differs'})


def table(rows: Sequence[Values], width: int) -> list[str]:
    """Give the lines of a short table of files.

    Names are whole where there is the room, and where there is little, what
    else tells of the image is left out.
    """
    short = shortener(each['name'] for each in rows)
    lines: list[str] = []
    # Names of files are short before those of images are.
    for wide, room, without in (
        (True, 0, ()),
        (False, NAME_WIDTH, ()),
        (False, _LEAST_NAME, ()),
        (False, _FEW_OF_NAME, ()),
        (False, _FEW_OF_NAME, ('KIND',)),
        (False, _FEW_OF_NAME, ('KIND', 'IMAGE')),
    ):
        heads = [*_HEADS, _LAST_HEAD]
        kept = [head not in without for head in heads]
        cells = [
            [*itertools.compress(line, kept)]
            for line in (
                heads,
                *(_row(each, short, wide, room) for each in rows),
            )
        ]
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
