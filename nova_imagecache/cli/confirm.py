# SPDX-License-Identifier: Apache-2.0

"""The command confirm."""

import argparse
from collections.abc import Iterable
import logging
import os
import re
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import filing
from nova_imagecache.cli import listing
from nova_imagecache.cli import measuring
from nova_imagecache.cli import reading
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import outlets
from nova_imagecache.passes import noting
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.scrub import checksums
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import courses

LOG = logging.getLogger(__name__)


def _digest(text: str) -> str:
    digest = text.strip().lower()
    if not re.fullmatch('[0-9a-f]{40}', digest):
        raise argparse.ArgumentTypeError(
            f'{names.printable(text)} is no SHA-1, which has 40 hex digits'
        )
    return digest


class Confirm(reading.Reading, filing.Filing):
    """Compare a base file with evidence that it is right.

    Ends what cannot be found out from the file itself: that it is suspect,
    was rebaselined, differs from an earlier file of its image, or is damaged
    in blocks whose digests were lost. Reads all of the file. If it has that
    SHA-1, it is good, and the baseline of all later verifications. If not, the
    exit code is 3 and nothing is changed; but where that SHA-1 was known of
    it, or of an earlier file of its name, it is known to be corrupt.
    """

    columns = columns.COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'name', metavar='NAME', help='name of the base file'
        )
        evidence = parser.add_mutually_exclusive_group(required=True)
        evidence.add_argument(
            '--sha1',
            metavar='HEX',
            type=_digest,
            help='SHA-1 of what the file should hold, as sha1sum prints it; '
            'not that of the file itself, which is no evidence',
        )
        evidence.add_argument(
            '--file',
            metavar='PATH',
            help='a file that holds what the base file should hold, such as '
            'the image as it was saved from the image service, and converted '
            'as Nova converts it',
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Compare, and show the file."""
        self.adjust(parsed_args)
        file = listing.find_base_file(
            self.settings, parsed_args.name, 'confirm'
        )
        name = file.name
        bar = self.progress_bar(parsed_args)
        sha1 = parsed_args.sha1
        if sha1 is None:
            sha1 = self._digest_of(parsed_args.file, file.path, bar)
        before = self._preview(name)
        finding = self._confirm(file, sha1, bar)
        report = self._preview(name)
        noting.note_guests(file.layout, report)
        outlets.tell_damage(report)
        self.exit_code = exit_codes.of_files(report)
        if finding.problem:
            LOG.error('[P08] %s: %s', names.printable(name), finding.note)
            self.exit_code = exit_codes.CORRUPTION
        for each in before.outdated if not report.outdated else ():
            LOG.warning(
                '[C03] Guests whose disks are older than base file %(name)s, '
                'and which are not named from now on: %(guests)s',
                {
                    'name': names.printable(name),
                    'guests': ', '.join(map(names.printable, each.outdated)),
                },
            )
        measuring.write(self.settings)
        self._finding = finding
        self.files = report.files
        return self.columns, [columns.row(each) for each in report.files]

    def _preview(self, name: str) -> reports.Report:
        return pipeline.Pass(self.settings).preview().only([name])

    def _confirm(
        self, file: base_file.BaseFile, sha1: str, bar: courses.ProgressBar
    ) -> knowledge.Finding:
        try:
            return confirmation.confirm(self.settings, file, sha1, bar)
        except OSError as error:
            raise errors.Error(
                f'{names.printable(file.name)} cannot be confirmed: '
                f'{error.strerror}'
            ) from None

    def _digest_of(self, path: str, base: str, bar: Any) -> str:
        """Give the SHA-1 of a file that a person has."""
        if os.path.exists(path) and os.path.samefile(path, base):
            raise errors.Error(
                f'{names.printable(path)} is the base file itself, which is '
                'no evidence'
            )
        try:
            fd = identity.open_regular(os.path.realpath(path))
        except OSError as error:
            raise errors.Error(
                f'{names.printable(path)} cannot be read by the owner of '
                f'instances_path, as whom this runs: {error.strerror}'
            ) from None
        try:
            with bar(os.fstat(fd).st_size) as progress:
                return checksums.digest_of_fd(fd, progress)
        finally:
            os.close(fd)

    def summary(self) -> dict[str, Any]:
        """Say what came out."""
        return {
            'confirmed': not (self._finding.problem or self._finding.harmful)
        }
