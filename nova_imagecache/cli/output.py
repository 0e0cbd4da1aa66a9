# SPDX-License-Identifier: Apache-2.0

"""How reports come out: the columns, and the exit code."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import sys
import time
from typing import Any
from typing import IO

from cliff import columns as cliff_columns
from oslo_utils import units
import tqdm

from nova_imagecache.integrity import checksum
from nova_imagecache import names
from nova_imagecache import report as reports

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

FINE = 0
COULD_NOT = 1
CORRUPTION = 3

_UNITS = (
    (units.Ti, 'TiB'),
    (units.Gi, 'GiB'),
    (units.Mi, 'MiB'),
    (units.Ki, 'KiB'),
)

_JSON_PROGRESS_SECONDS = 1.0

ProgressBar = checksum.ProgressBar

# A table with a hundred UUIDs in a cell is none.
_USERS_SHOWN = 3


class Bytes(cliff_columns.FormattableColumn[int]):
    """A number of bytes."""

    def human_readable(self) -> str:
        """Give it in the unit that fits."""
        for factor, unit in _UNITS:
            if self._value >= factor:
                return f'{self._value / factor:.1f} {unit}'
        return f'{self._value} B'


class Seconds(cliff_columns.FormattableColumn[float | None]):
    """A span of time; None for never."""

    def human_readable(self) -> str:
        """Give it in the unit that fits."""
        if self._value is None:
            return 'never'
        for factor, unit in ((86400, 'days'), (3600, 'hours'), (60, 'min')):
            if self._value >= factor:
                return f'{self._value / factor:.1f} {unit}'
        return f'{self._value:.0f} s'


class Users(cliff_columns.FormattableColumn[list[str]]):
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
        file.age_seconds,
        str(file.checksum),
        str(file.action),
        names.printable(file.reason),
    )


def exit_code(report: reports.Report) -> int:
    """Say in a number how it went.

    A veto counts for nothing here, as not every command would remove.
    """
    if report.corrupt:
        return CORRUPTION
    if report.problems or report.unreadable:
        return COULD_NOT
    return FINE


def machine_readable(
    columns: Sequence[str], line: Sequence[Any]
) -> dict[str, Any]:
    """Give a line as JSON has it."""
    return {
        name: value.machine_readable()
        if isinstance(value, cliff_columns.FormattableColumn)
        else value
        for name, value in zip(columns, line, strict=True)
    }


def print_json(stream: IO[str], value: Any) -> None:
    """Print one line of JSON, at once."""
    stream.write(json.dumps(value) + '\n')
    stream.flush()


def json_progress(stream: IO[str]) -> ProgressBar:
    """Show how far reading has got as a line of JSON a second."""

    @contextlib.contextmanager
    def bar(total: int) -> Iterator[checksum.Progress]:
        began = last = time.monotonic()
        done = 0

        def progress(length: int) -> None:
            nonlocal done, last
            done += length
            now = time.monotonic()
            if now - last < _JSON_PROGRESS_SECONDS:
                return
            last = now
            rate = done / (now - began)
            left = max(0, total - done) / rate if rate else None
            value = {
                'done': done,
                'total': total,
                'rate': round(rate),
                'seconds_left': None if left is None else round(left),
            }
            print_json(stream, {'progress': value})

        yield progress

    return bar


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[checksum.Progress]:
    """Show how far reading has got, with rate and time left.

    Only on a terminal.
    """
    with tqdm.tqdm(
        total=total,
        desc='Reading base files',
        unit='B',
        unit_scale=True,
        unit_divisor=units.Ki,
        disable=total == 0 or not sys.stderr.isatty(),
        file=sys.stderr,
        leave=False,
    ) as bar:
        yield bar.update
