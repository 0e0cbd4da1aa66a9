# SPDX-License-Identifier: Apache-2.0

"""What the commands pin and unpin have in common."""

import abc
import argparse
import contextlib

from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cli import app
from nova_imagecache.cli import lines
from nova_imagecache.cli import listing
from nova_imagecache import errors
from nova_imagecache import names


class Pinning(lines.Lines, metaclass=abc.ABCMeta):
    """A command about pins."""

    changes = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'names', metavar='NAME', nargs='*', help='name of the base file'
        )
        parser.add_argument(
            '--image-id',
            metavar='IMAGE',
            action='append',
            default=[],
            help='the base file of the image that has this ID, or this name '
            'where that is known; can be repeated',
        )
        return parser

    @abc.abstractmethod
    def change(self, layout: layouts.Layout, new: pins.Pin) -> bool:
        """Pin or unpin; say whether that changed anything."""

    def image_id(self, text: str) -> str:
        """Take what was typed for the ID of an image, or for its name.

        :raises nova_imagecache.cli.app.WrongUsage: it is none
        """
        if not text.strip() or names.printable(text) != text:
            raise app.WrongUsage(
                f'{names.printable(text)!r} is no ID of an image'
            )
        layout = layouts.Layout.of(self.settings)
        try:
            return listing.image_called(layout, text) or text
        except errors.Error as error:
            raise app.WrongUsage(str(error)) from None

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Pin or unpin all of them."""
        chosen = [
            pins.Pin(self._base_file(text)) for text in parsed_args.names
        ]
        chosen += [
            pins.Pin(names.get_cache_fname(image), image)
            for image in map(self.image_id, parsed_args.image_id)
        ]
        if not chosen:
            raise app.WrongUsage(
                'name a base file, or an image with --image-id'
            )
        layout = listing.writable_layout(self.settings)
        rows = [
            (new.name, new.image, self.change(layout, new)) for new in chosen
        ]
        return ('name', 'image', 'changed'), rows

    def _base_file(self, text: str) -> str:
        """Take what was typed for the name of a base file, cached or not.

        Or for the first digits of one that is cached.
        """
        name = listing.name_of(text)
        if not names.kind_of(name).is_base:
            with contextlib.suppress(errors.Error, OSError):
                (name,) = listing.find(self.settings, [text])
        if not names.kind_of(name).is_base:
            raise app.WrongUsage(
                f'{names.printable(text)} is not the name of a base file; '
                'nova-imagecache list shows what there is, and --image-id '
                'takes the ID of an image'
            )
        return name
