# SPDX-License-Identifier: Apache-2.0

"""The command pass."""

import argparse
from collections.abc import Iterator
import dataclasses
import time

from nova_imagecache.cache import layouts
from nova_imagecache.cache import registry
from nova_imagecache.cli import app
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import filing
from nova_imagecache.cli import listing
from nova_imagecache.cli import measuring
from nova_imagecache.cli import progress
from nova_imagecache.cli import summing
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import messages
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.witnesses import vetoing


def _is_unmounted(report: reports.Report) -> bool:
    """Whether nothing is to be made here: it may be below a mount point."""
    missing = vetoing.Reason.MISSING_MOUNT
    return any(each.reason is missing for each in report.obstacles)


class Pass(summing.Summing, filing.Filing):
    """Make one pass, without the compute service's list of instances.

    Checksums, verifies and removes as nova.conf says, and as the manager in
    the compute service does. Who uses a file is learnt from the disks below
    instances_path, from libvirt and from the locks of running guests.
    """

    changes = True
    interrupted = (
        'What was found in files that were read to their end is kept, and '
        'what was removed is in the trash; run it again for the rest.'
    )

    def load_settings(self, parsed_args: argparse.Namespace) -> Settings:
        """Find out which node, and become who may act on it."""
        assert isinstance(self.app, app.Shell)  # noqa: S101 for mypy
        return measuring.load_settings(self.app)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='say what would be done, and change nothing',
        )
        parser.add_argument(
            '--no-verify',
            action='store_true',
            help='read no base file; for a timer, beside one that runs '
            'nova-imagecache scrub',
        )
        parser.add_argument(
            '--register-host',
            action='store_true',
            help='note this host in instances_path/compute_nodes, as the '
            'compute service does in its own passes; for where those are off, '
            'or the hosts that share instances_path take the guests of this '
            'one for gone after a day',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> listing.Table:
        """Make the pass, and list the trash as well, which passes empty."""
        one = pipeline.Pass(
            self.settings,
            inline=not parsed_args.no_verify,
            progress_bar=progress.progress_bar,
        )
        if parsed_args.dry_run:
            report = one.preview()
        else:
            report = one.run()
            if parsed_args.register_host and not _is_unmounted(report):
                report = dataclasses.replace(
                    report, problems=(*report.problems, *self._register())
                )
            report = figures.kept(self.settings, report)
        listing.show_findings(report)
        self._report = report
        self.exit_code = exit_codes.of(report, removing=True)
        if not parsed_args.summary:
            report = listing.with_names(self.settings, report)
        self.files = (*report.files, *report.trash)
        return listing.table(self.files, parsed_args)

    def summary_lines(self) -> Iterator[str]:
        """Say what was done, and how the cache is."""
        for message in messages.of_work(self._report):
            yield message.line

    def _register(self) -> list[codes.Problem]:
        """Note this host; what goes wrong ends no pass."""
        layout = layouts.Layout.of(self.settings)
        try:
            registry.register(layout, self.settings.host, time.time())
        except (errors.NotNow, OSError) as error:
            text = f'this host cannot be noted in compute_nodes: {error}'
            return [codes.Problem(codes.Code.NOT_KEPT, text)]
        return []
