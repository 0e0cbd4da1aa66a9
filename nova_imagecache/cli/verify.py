# SPDX-License-Identifier: Apache-2.0

"""The command verify."""

import argparse
from collections.abc import Iterable
from typing import Any

from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import filing
from nova_imagecache.cli import listing
from nova_imagecache.cli import measuring
from nova_imagecache.cli import originating
from nova_imagecache.cli import reading
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.passes import pipeline


def _check(parsed_args: argparse.Namespace) -> None:
    """Refuse options that go with no others.

    :raises nova_imagecache.errors.Error: which, and why
    """
    named = parsed_args.names
    if parsed_args.origin and not named:
        raise errors.Error('name the files that --origin is to compare')
    if parsed_args.image and not (parsed_args.origin and len(named) == 1):
        raise errors.Error('--image goes with --origin and one file')


class Verify(reading.Reading, filing.Filing):
    """Verify base files now, whether due or not.

    Reads each file and compares it with what is known of it; one of which
    nothing is known gets its checksum. Works whether checksum_base_images is
    on or off, at scrub_bandwidth_mib_per_second unless --bandwidth says
    otherwise. A scrub that is at work gives way. Nothing is removed. A file
    that is named, and cannot be verified just now, makes the exit code 1.

    With --origin the image service is asked as well: what is all that its
    image is, has no doubt left, and is so marked; what is not, is told.
    """

    columns = columns.COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'names',
            metavar='NAME',
            nargs='*',
            help='names of base files; by default all',
        )
        parser.add_argument(
            '--origin',
            action='store_true',
            help='compare the named files with their images in the image '
            'service, as the user in [service_user] of nova.conf, or of the '
            'cloud that OS_CLOUD names in clouds.yaml',
        )
        parser.add_argument(
            '--image',
            metavar='UUID',
            help='the image that the named file was made from, where no '
            'reading has noted that; for --origin',
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Verify, and give a line per file."""
        self.adjust(parsed_args)
        _check(parsed_args)
        chosen = listing.find(self.settings, parsed_args.names)
        for name in chosen:
            if not names.kind_of(name).is_base:
                raise errors.Error(
                    f'{names.printable(name)} is no base file, so there is '
                    'nothing to verify'
                )
        if parsed_args.origin:
            self._report, self.exit_code = originating.verify(
                self, chosen, parsed_args.image, self.progress_bar(parsed_args)
            )
            measuring.write(self.settings)
            return self.columns, self._rows()
        if not chosen:
            layout = layouts.Layout.of(self.settings)
            chosen = [
                file.name
                for file in scans.scan(layout).files
                if file.kind.is_base
            ]
        self._report = pipeline.Pass(
            self.settings, progress_bar=self.progress_bar(parsed_args)
        ).verify_now(chosen, strict=bool(parsed_args.names))
        listing.show_findings(self._report)
        measuring.write(self.settings)
        self.exit_code = exit_codes.of(self._report)
        return self.columns, self._rows()

    def _rows(self) -> list[tuple[Any, ...]]:
        self.files = listing.with_names(self.settings, self._report).files
        return [columns.row(each) for each in self.files]

    def summary(self) -> dict[str, Any]:
        """Count the verdicts."""
        verdicts = [file.word for file in self._report.files]
        return {each: verdicts.count(each) for each in sorted(set(verdicts))}
