# SPDX-License-Identifier: Apache-2.0

"""The commands that keep files: trash, undelete, pin, unpin and pins."""

import abc
import argparse
from collections.abc import Iterable
import time
from typing import Any

from cliff import lister
from oslo_log import log as logging

from nova_imagecache.cache import directory
from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import removal
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import status as statuses
from nova_imagecache.cache import trash
from nova_imagecache.cli import app
from nova_imagecache.cli import commands
from nova_imagecache.cli import output
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import errors
from nova_imagecache import fetch
from nova_imagecache import names
from nova_imagecache import passes

LOG = logging.getLogger(__name__)

Table = tuple[tuple[str, ...], Iterable[Any]]


class Trash(app.NodeCommand, lister.Lister):
    """List the base files that were removed and are not deleted yet.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Look."""
        report = passes.Pass(self.settings).preview()
        commands.show_findings(report)
        self.exit_code = output.exit_code(report)
        return output.COLUMNS, [output.row(file) for file in report.trash]


class Undelete(app.NodeCommand, lister.Lister):
    """Bring removed base files back from the trash, with their checksums.

    They count as used now, so a pass does not remove them again before they
    are old enough.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'names',
            metavar='NAME',
            nargs='+',
            help='name of the base file, of which the newest comes back, or '
            'the name that nova-imagecache trash shows',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Bring all of them back, or say which one cannot be."""
        layout = _layout(self.settings)
        chosen = {
            trash.original(file.name): file
            for file in (_find(layout, name) for name in parsed_args.names)
        }
        rows = []
        for file in chosen.values():
            name = trash.original(file.name)
            try:
                found = removal.put_back(layout, file)
            except FileExistsError:
                LOG.error('There is another file called %s by now', name)
                self.exit_code = output.COULD_NOT
            except (errors.NotNow, OSError) as error:
                LOG.error('%s stays in the trash: %s', file.name, error)
                self.exit_code = output.COULD_NOT
            else:
                fetch.use(layout, name)
                rows.append(
                    (name, str(found.kind), output.Bytes(found.status.size))
                )
        return ('name', 'kind', 'size'), rows


def _layout(settings: confs.Settings) -> layouts.Layout:
    """Give the layout of a cache that can be written to."""
    layout = layouts.Layout.of(settings)
    intruder = directory.intruder(layout)
    if intruder is not None:
        raise errors.Error(intruder)
    return layout


def _find(layout: layouts.Layout, text: str) -> scans.CachedFile:
    scan = trash.scan(layout)
    if scan.problems:
        raise errors.Error(scan.problems[0])
    name = text.rpartition('/')[2]
    found = [
        file
        for file in scan.files
        if name in (file.name, trash.original(file.name))
    ]
    if not found:
        raise errors.Error(
            f'there is no {names.printable(text)} in the trash; '
            'nova-imagecache trash shows what there is'
        )
    return max(found, key=lambda file: names.trashed_at(file.name))


class _Pinning(app.NodeCommand, lister.Lister, metaclass=abc.ABCMeta):
    """A command about pins."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'names', metavar='NAME', nargs='*', help='name of the base file'
        )
        parser.add_argument(
            '--image-id',
            metavar='ID',
            action='append',
            default=[],
            help='the base file of this image; can be repeated',
        )
        return parser

    @abc.abstractmethod
    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Pin or unpin; say whether that changed anything."""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Pin or unpin all of them."""
        chosen = [pins.Pin(_base_file(text)) for text in parsed_args.names]
        chosen += [
            pins.Pin(names.get_cache_fname(image), image)
            for image in map(_image_id, parsed_args.image_id)
        ]
        if not chosen:
            raise errors.Error('name a base file, or an image with --image-id')
        layout = _layout(self.settings)
        rows = [
            (new.name, new.image, self.change(layout, new)) for new in chosen
        ]
        return ('name', 'image', 'changed'), rows


def _image_id(text: str) -> str:
    if not text.strip() or names.printable(text) != text:
        raise errors.Error(f'{names.printable(text)!r} is no ID of an image')
    return text


def _base_file(text: str) -> str:
    name = text.rpartition('/')[2]
    if not names.kind_of(name).is_base:
        raise errors.Error(
            f'{names.printable(text)} is not the name of a base file; '
            'nova-imagecache list shows what there is, and --image-id takes '
            'the ID of an image'
        )
    return name


class Pin(_Pinning):
    """Keep base files, used or not, until they are unpinned.

    A file need not be there yet. A resized file has a name of its own, and
    needs a pin of its own.
    """

    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Pin a file."""
        if statuses.gone(layout.file(new.name)):
            LOG.warning('%s is not in the cache yet', new.name)
        return pins.pin(layout, new, clocks.now())


class Unpin(_Pinning):
    """Let base files go again when nobody uses them."""

    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Unpin a file."""
        return pins.unpin(layout, new.name)


class Pins(app.NodeCommand, lister.Lister):
    """List the pins, also of base files that are not there yet."""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Look."""
        layout = layouts.Layout.of(self.settings)
        now = time.time()
        rows = [
            (
                pin.name,
                pin.image,
                pin.since and output.Seconds(max(0.0, now - pin.since)),
                not statuses.gone(layout.file(pin.name)),
            )
            for pin in pins.describe(layout)
        ]
        return ('name', 'image', 'pinned_for', 'cached'), rows
