# SPDX-License-Identifier: Apache-2.0

"""The commands about a node: pass, list and show."""

import abc
import argparse
from collections.abc import Iterable
import dataclasses
import os
import time
from typing import Any

from cliff import lister
from cliff import show
from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import registry
from nova_imagecache.cache import scan
from nova_imagecache.cli import app
from nova_imagecache.cli import output
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache import passes
from nova_imagecache import report as reports

LOG = logging.getLogger(__name__)


class _Listing(app.NodeCommand, lister.Lister, metaclass=abc.ABCMeta):
    """A command that gives a line per file."""

    @abc.abstractmethod
    def make_report(self, parsed_args: argparse.Namespace) -> reports.Report:
        """Do the command's work."""

    def make_pass(self, inline: bool = True) -> passes.Pass:
        """Prepare a pass that shows how far its reading has got.

        :param inline: whether it reads at all
        """
        return passes.Pass(
            self.settings, inline=inline, progress_bar=output.progress_bar
        )

    def judge(self, report: reports.Report) -> int:
        """Give the exit code."""
        return output.exit_code(report)

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Give the lines, and remember how it went."""
        report = self.make_report(parsed_args)
        show_findings(report)
        self.exit_code = self.judge(report)
        rows = [*report.files, *self.more(report)]
        return output.COLUMNS, [output.row(file) for file in rows]

    def more(self, report: reports.Report) -> Iterable[reports.FileReport]:
        """Give what is to be listed beside what is in the cache."""
        return ()


def show_findings(report: reports.Report) -> None:
    """Tell the operator what is to be looked into."""
    if not os.path.isdir(report.cache_dir):
        LOG.warning('There is no cache at %s', report.cache_dir)
    reports.log_findings(report)


def find(settings: Any, wanted: Iterable[str]) -> list[str]:
    """Check that files are in the cache; a path will do for a name."""
    layout = layouts.Layout.of(settings)
    known = {
        names.printable(file.name): file.name
        for file in scan.scan(layout).files
    }
    found = []
    for text in wanted:
        name = known.get(names.printable(os.path.basename(text)))
        if name is None:
            raise errors.Error(
                f'there is no file {names.printable(text)} in {layout.base}; '
                'nova-imagecache list shows what there is'
            )
        found.append(name)
    return found


class Pass(_Listing):
    """Make one pass, without the list of instances of the compute service.

    Checksums, verifies and removes as nova.conf says, and as the manager in
    the compute service does. Who uses a file is learnt from the disks below
    instances_path, from libvirt and from the locks of running guests.
    """

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

    def make_report(self, parsed_args: argparse.Namespace) -> reports.Report:
        """Make the pass."""
        if parsed_args.dry_run:
            return self.make_pass().preview()
        problems = []
        if parsed_args.register_host:
            problems += self._register()
        report = self.make_pass(inline=not parsed_args.no_verify).run()
        return dataclasses.replace(
            report, problems=(*report.problems, *problems)
        )

    def _register(self) -> list[str]:
        """Note this host; what goes wrong ends no pass."""
        layout = layouts.Layout.of(self.settings)
        try:
            registry.register(layout, self.settings.host, time.time())
        except (errors.NotNow, OSError) as error:
            return [f'this host cannot be noted in compute_nodes: {error}']
        return []

    def more(self, report: reports.Report) -> Iterable[reports.FileReport]:
        """List the trash as well, which passes empty."""
        return report.trash

    def judge(self, report: reports.Report) -> int:
        """Give the exit code; a pass that may not remove is not fine."""
        code = output.exit_code(report)
        return code or (output.COULD_NOT if report.vetoes else output.FINE)


class List(_Listing):
    """List what is cached, who uses it, and the state of its checksum.

    The actions are those that a pass would take now. Nothing is changed.
    """

    def make_report(self, parsed_args: argparse.Namespace) -> reports.Report:
        """Look."""
        return self.make_pass().preview()


class Show(app.NodeCommand, show.ShowOne):
    """Show one file of the cache, as list does."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument('name', metavar='NAME', help='name of the file')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Any]:
        """Give the file's values."""
        (name,) = find(self.settings, [parsed_args.name])
        report = passes.Pass(self.settings).preview()
        report = report.only([name])
        if not report.files:
            raise errors.Error(f'{parsed_args.name} has gone meanwhile')
        reports.log_findings(report)
        self.exit_code = output.exit_code(report)
        return output.COLUMNS, output.row(report.files[0])
