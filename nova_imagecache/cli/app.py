# SPDX-License-Identifier: Apache-2.0

"""The program ``nova-imagecache``."""

import argparse
import importlib.metadata
import sys
from typing import Any

from cliff import app
from cliff import command
from cliff import commandmanager

from nova_imagecache.cli import config
from nova_imagecache.cli import owner
from nova_imagecache import conf as confs

_USAGE = 2


class Shell(app.App):
    """Global options, and what every command has in common."""

    NAME = 'nova-imagecache'

    def __init__(self) -> None:
        """Find the commands, which are entry points."""
        super().__init__(
            description=(
                'Look after the image cache of a libvirt compute node. Exit '
                'codes: 0 fine, 1 could not do it, 2 wrong usage, 3 '
                'corruption found.'
            ),
            version=importlib.metadata.version('nova-imagecache'),
            command_manager=commandmanager.CommandManager(
                'nova_imagecache.cli'
            ),
            deferred_help=True,
        )

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        """Add our global options to cliff's."""
        parser = super().build_option_parser(
            description, version, argparse_kwargs
        )
        parser.add_argument(
            '--config-file',
            metavar='FILE',
            action='append',
            default=[],
            help='read this nova.conf, and not those that Nova finds by '
            'itself; can be repeated, the later wins',
        )
        parser.add_argument(
            '--instances-path',
            metavar='DIR',
            help='look after the cache below this directory, whatever '
            'nova.conf says',
        )
        return parser

    def run(self, argv: list[str]) -> int:
        """Run a command; without one, say which there are."""
        if not argv:
            self.parser.print_help(sys.stderr)
            return _USAGE
        return super().run(argv)

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command; argparse ends the process on wrong usage."""
        try:
            return super().run_subcommand(argv)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1

    def interact(self) -> None:
        """Refuse: there is nothing to do interactively."""
        self.parser.error('name a command, as in: nova-imagecache list')

    def prepare_to_run_command(self, cmd: command.Command) -> None:
        """Read the configuration, and stop being root, where needed."""
        if isinstance(cmd, NodeCommand):
            settings = config.load(
                self.options.config_file, self.options.instances_path
            )
            owner.become_owner(settings.instances_path)
            cmd.settings = settings


class NodeCommand(command.Command):
    """A command about the cache of a node.

    :ivar settings: what the operator has asked for, there before the command
        runs
    """

    settings: confs.Settings


def main(argv: list[str] | None = None) -> int:
    """Run the program.

    :returns: 0 fine, 1 could not do it, 2 wrong usage, 3 corruption found
    """
    return Shell().run(sys.argv[1:] if argv is None else argv)
