# SPDX-License-Identifier: Apache-2.0

"""The columns of the tables, which are the keys of the JSON objects."""

from collections.abc import Sequence
from typing import Any

from cliff.columns import FormattableColumn

from nova_imagecache import measures
from nova_imagecache import names
from nova_imagecache.passes import reports

#: The columns of a file, and the keys of the JSON objects.
COLUMNS = (
    'name',
    'kind',
    'size',
    'allocated',
    'users',
    'age_seconds',
    'checksum',
    'action',
    'reason',
)

#: What JSON and YAML have beside them: a table has not the room.
MORE_COLUMNS = (
    'readers',
    'vetoes',
    'trust',
    'last_copy',
    'image',
    'image_name',
)

# A table with a hundred UUIDs in a cell is none.
_USERS_SHOWN = 3


class Bytes(FormattableColumn[int]):
    """A number of bytes."""

    def human_readable(self) -> str:
        """Give it in the unit that fits."""
        return measures.size(self._value)


class Seconds(FormattableColumn[float | None]):
    """A span of time; None for never."""

    def human_readable(self) -> str:
        """Give it in the unit that fits."""
        return 'never' if self._value is None else measures.span(self._value)


class Users(FormattableColumn[list[str]]):
    """Guests."""

    def human_readable(self) -> str:
        """Give the first ones, and how many there are beside them."""
        shown = self._value[:_USERS_SHOWN]
        more = len(self._value) - len(shown)
        return '\n'.join(shown + ([f'and {more} more'] if more else []))


def row(file: reports.FileReport) -> tuple[Any, ...]:
    """Give a file's values, in the order of the columns."""
    return (
        names.printable(file.name),
        str(file.kind),
        Bytes(file.size),
        Bytes(file.allocated),
        Users([names.printable(user) for user in file.users]),
        Seconds(file.age_seconds),
        file.word,
        str(file.action),
        names.printable(file.reason),
    )


def more(file: reports.FileReport) -> tuple[Any, ...]:
    """Give a file's values of the other columns, in their order."""
    return (
        [names.printable(user) for user in file.readers],
        [names.printable(veto) for veto in file.vetoes],
        None if file.trust is None else str(file.trust),
        file.last_copy,
        file.image and names.printable(file.image),
        file.image_name or None,
    )


def flat(values: Sequence[Any]) -> tuple[Any, ...]:
    """Give values for csv and its like: of a list its parts, with spaces."""
    return tuple(
        ' '.join(value.machine_readable())
        if isinstance(value, Users)
        else value
        for value in values
    )


def filled(formatter: str, line: Sequence[Any]) -> tuple[Any, ...]:
    """Give a line with what there is not in the form of a formatter.

    ``null`` in JSON and YAML, nothing in csv and its like, and in a table a
    dash, where a span of time that never ended says so.
    """
    if formatter in ('json', 'yaml'):
        return tuple(line)
    nothing = '-' if formatter == 'table' else ''

    def fill(value: Any) -> Any:
        if value is None:
            return nothing
        if formatter == 'table' or not isinstance(value, FormattableColumn):
            return value
        return nothing if value.machine_readable() is None else value

    return tuple(map(fill, line))


def machine_readable(
    columns: Sequence[str], line: Sequence[Any]
) -> dict[str, Any]:
    """Give a line as JSON has it."""
    return {
        name: value.machine_readable()
        if isinstance(value, FormattableColumn)
        else value
        for name, value in zip(columns, line, strict=True)
    }


def plain(formatter: str, data: Sequence[Any]) -> tuple[Any, ...]:
    """Give values as a formatter shows them best: lists as lines.

    Those for programs get them as they are.
    """
    if formatter in ('json', 'yaml'):
        return tuple(data)
    return tuple(
        '\n'.join(map(str, value)) if isinstance(value, list) else value
        for value in data
    )
