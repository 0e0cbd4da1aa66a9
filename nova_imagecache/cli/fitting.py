# SPDX-License-Identifier: Apache-2.0

"""Tables of cliff that fit a terminal."""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import shutil
from typing import Any

from cliff.columns import FormattableColumn

from nova_imagecache.cli import tables

# Of the bars and spaces beside and between cells.
_FRAME, _BESIDE = 1, 3


def width(parsed_args: argparse.Namespace) -> int:
    """Give the columns that there are, which are 80 where nobody says."""
    asked: int = parsed_args.max_width
    return asked or shutil.get_terminal_size().columns


def _is_wider(rows: Iterable[Sequence[Any]], most: int) -> bool:
    """Whether a table of these rows is wider than that."""
    widths = [
        max(len(line) for cell in column for line in [*_lines(cell), ''])
        for column in zip(*rows, strict=True)
    ]
    return sum(widths) + _BESIDE * len(widths) + _FRAME > most


def _lines(value: Any) -> list[str]:
    if isinstance(value, FormattableColumn):
        value = value.human_readable()
    return str(value).splitlines()


def fitted(
    column_names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    parsed_args: argparse.Namespace,
) -> Sequence[Sequence[Any]]:
    """Give rows that fit, with short names of files if they have to be.

    What is wider all the same is wrapped by cliff, which is told so.
    """
    parsed_args.max_width = most = width(parsed_args)
    if 'name' not in column_names or not _is_wider(
        [column_names, *rows], most
    ):
        return rows
    index = column_names.index('name')
    short = tables.shortener(row[index] for row in rows)
    return [
        (*row[:index], short(row[index]), *row[index + 1 :]) for row in rows
    ]
