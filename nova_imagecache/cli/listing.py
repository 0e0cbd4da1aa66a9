# SPDX-License-Identifier: Apache-2.0

"""What the commands that list files have in common."""

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import logging
import os
import time
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import directories
from nova_imagecache.cache import hosts
from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import image_names
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import outlets
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.witnesses import vetoing

LOG = logging.getLogger(__name__)

# The formatters of cliff for programs.
_WHOLE = ('json', 'yaml')

_FEW = 100

#: Column names, and a line per file.
Table = tuple[tuple[str, ...], Iterable[Any]]


def table(
    files: Iterable[reports.FileReport], parsed_args: argparse.Namespace
) -> Table:
    """Give a line per file; whoever takes all of it gets more."""
    if parsed_args.formatter not in _WHOLE:
        rows: Iterable[Any] = map(columns.row, files)
        if parsed_args.formatter != 'table':
            rows = map(columns.flat, rows)
        return columns.COLUMNS, [*rows]
    return (
        columns.COLUMNS + columns.MORE_COLUMNS,
        [columns.row(file) + columns.more(file) for file in files],
    )


def preview(command: app.NodeCommand) -> reports.Report:
    """See what a pass would do, for a command that changes nothing.

    What is to be looked into is told, and makes the exit code.
    """
    report = look(command)
    outlets.tell_findings(report)
    command.exit_code = exit_codes.of(report, removing=True)
    return report


def look(command: app.NodeCommand) -> reports.Report:
    """See what a pass would do, and whether there is a cache at all."""
    report = pipeline.Pass(command.settings).preview()
    if os.path.isdir(report.cache_dir):
        return report
    none = codes.Problem(
        codes.Code.NO_CACHE,
        f'there is no cache at {report.cache_dir}',
        report.cache_dir,
    )
    return dataclasses.replace(report, problems=(*report.problems, none))


def show_findings(report: reports.Report) -> None:
    """Tell the operator what is to be looked into."""
    if not os.path.isdir(report.cache_dir):
        _tell_none(report.cache_dir)
    outlets.tell_findings(report)


def name_of(text: str) -> str:
    """Take the name of a file from what was typed; a path will do."""
    return text.rpartition('/')[2]


def find(settings: Settings, wanted: Iterable[str]) -> list[str]:
    """Check that files are in the cache, and give their names."""
    layout = layouts.Layout.of(settings)
    known = {
        names.printable(file.name): file.name
        for file in scans.scan(layout).files
    }
    found = []
    for text in wanted:
        # The name of an image may have slashes, and that of a file is told by
        # what is behind the last one.
        name = _meant(names.printable(name_of(text)), known)
        if name is None:
            name = _called(layout, names.printable(text), known)
        if name is None:
            raise errors.Error(
                f'there is no file {names.printable(text)} in {layout.base}; '
                'nova-imagecache list shows what there is'
            )
        found.append(name)
    return found


def find_base_file(
    settings: Settings, text: str, what: str
) -> base_file.BaseFile:
    """Give the base file that is meant.

    :param what: is to be done with it
    :raises nova_imagecache.errors.Error: there is none
    """
    (name,) = find(settings, [text])
    file = base_file.BaseFile.named(layouts.Layout.of(settings), name)
    if not file.is_base:
        raise errors.Error(
            f'{names.printable(name)} is {_what_it_is(file)}, so there is '
            f'nothing to {what}'
        )
    return file


def _what_it_is(file: base_file.BaseFile) -> str:
    if not file.kind.is_base:
        return 'no base file'
    return 'no regular file, which a base file is'


def _meant(text: str, known: Mapping[str, str]) -> str | None:
    """Give the file that is meant by a name, a prefix or an image's ID.

    :raises nova_imagecache.errors.Error: several may be
    """
    for exact in (text, names.get_cache_fname(text)):
        if exact in known:
            return known[exact]
    found = one_of(
        text, (name for name in known if names.kind_of(name).is_base)
    )
    return None if found is None else known[found]


def one_of(text: str, known: Iterable[str]) -> str | None:
    """Give the name that a text is short for.

    :raises nova_imagecache.errors.Error: several may be
    """
    found = {name for name in known if names.is_abbreviated(text, name)}
    if len(found) > 1:
        raise errors.Error(
            f'{text} may be any of {len(found)} files: '
            f'{", ".join(sorted(found)[:3])}'
        )
    return found.pop() if found else None


def with_names(settings: Settings, report: reports.Report) -> reports.Report:
    """Give a report with what people call the images of its files."""
    wanted = {
        names.fingerprint(file.name)
        for file in (*report.files, *report.trash)
        if file.kind.is_image
    }
    # Of many, few may have a record: a look at the directory tells.
    few = wanted if len(wanted) < _FEW else None
    images = image_names.load_all(layouts.Layout.of(settings), few)
    return reports.with_names(report, images)


def _called(
    layout: layouts.Layout, text: str, known: Mapping[str, str]
) -> str | None:
    """Give the file that is meant by what people call its image.

    :raises nova_imagecache.errors.Error: several images are called so
    """
    image = image_called(layout, text)
    return None if image is None else known.get(names.get_cache_fname(image))


def image_called(layout: layouts.Layout, text: str) -> str | None:
    """Give the ID of the image that people call so, if one is cached.

    :raises nova_imagecache.errors.Error: several are called so
    """
    found = image_names.called(image_names.load_all(layout), text)
    if len(found) > 1:
        raise errors.Error(
            f'{len(found)} images are called {text}; name one by its ID: '
            f'{", ".join(map(names.printable, sorted(found)[:3]))}'
        )
    return next(iter(found), None)


def writable_layout(settings: Settings) -> layouts.Layout:
    """Give the layout of a cache that can be written to.

    Nothing is made below a mount point whose file system is not there.

    :raises nova_imagecache.errors.Error: it cannot
    """
    layout = layouts.Layout.of(settings)
    intruder = directories.intruder(layout)
    if intruder is not None:
        raise errors.Error(intruder)
    if not (os.path.isdir(layout.base) and os.listdir(layout.base)):
        for veto in pipeline.Pass(settings).preview().obstacles:
            if veto.reason is vetoing.Reason.MISSING_MOUNT:
                raise errors.Error(f'{veto}; {veto.way_out}')
    return layout


def insist(command: app.NodeCommand) -> None:
    """Say so where there is no cache, which has what a command shows."""
    base = layouts.Layout.of(command.settings).base
    if not os.path.isdir(base):
        _tell_none(base)
        _fail(command)


def _tell_none(base: str) -> None:
    LOG.warning('[P18] There is no cache at %s', base)


def hosts_of(command: app.NodeCommand) -> list[dict[str, Any]]:
    """Say of each host that shares the cache what it has noted.

    What cannot be read is told, and makes the exit code.
    """
    layout = layouts.Layout.of(command.settings)
    now = time.time()
    rows = []
    try:
        known = hosts.names_of(layout)
    except OSError as error:
        LOG.warning(
            '[P16] %s cannot be read: %s', layout.hosts, error.strerror
        )
        _fail(command)
        known = []
    for name in known:
        try:
            host = hosts.load(layout, name)
        except (errors.Error, OSError) as error:
            LOG.warning(
                '[V10] What host %(name)s needs cannot be read: %(error)s; a '
                'pass of that host writes it anew; if it is gone for good, '
                'say "nova-imagecache forget-host %(name)s"',
                {'name': names.printable(name), 'error': error},
            )
            _fail(command)
            host = hosts.Host(name)
        rows.append(
            {
                'host': names.printable(name),
                'passed_ago': _ago(host.passed, now),
                'complete_ago': _ago(host.complete, now),
                'files': len(host.needs()),
                'away': host.is_away(now),
            }
        )
    return rows


def ignored(command: app.NodeCommand) -> list[dict[str, Any]]:
    """Say which files are ignored on this host, and whether that holds.

    What cannot be read is told, and makes the exit code.
    """
    layout = layouts.Layout.of(command.settings)
    now = time.time()
    try:
        marks = ignored_files.load(layout, command.settings.host)
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[P16] Which files are ignored cannot be read: %(error)s; move '
            '%(path)s away, and say "nova-imagecache ignore" again',
            {
                'error': errors.why(error),
                'path': ignored_files.path_of(layout, command.settings.host),
            },
        )
        _fail(command)
        marks = {}
    return [
        {
            'path': names.printable(path),
            'ignored_for': _ago(mark.since, now),
            'holds': ignored_files.holds(marks, path),
        }
        for path, mark in sorted(marks.items())
    ]


def _fail(command: app.NodeCommand) -> None:
    command.exit_code = command.exit_code or exit_codes.COULD_NOT


def _ago(when: float | None, now: float) -> float | None:
    return None if when is None else round(max(0.0, now - when))
