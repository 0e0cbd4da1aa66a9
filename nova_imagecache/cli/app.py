# SPDX-License-Identifier: Apache-2.0

"""The program ``nova-imagecache``."""

import argparse
import gc
import importlib.metadata
import os
import sys
from typing import Any
from typing import ClassVar

from cliff import app
from cliff import command
from cliff import commandmanager
from oslo_config import cfg

from nova_imagecache.cache import layouts
from nova_imagecache.cli import config
from nova_imagecache.cli import owner
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names

_USAGE = 2

# In these are the version and the commands.
_DISTRIBUTION = importlib.metadata.distribution('nova-imagecache')


def _directory(text: str) -> str:
    """Refuse an empty name, which would mean the current directory."""
    if not text:
        raise argparse.ArgumentTypeError('it must not be empty')
    return text


class Commands(commandmanager.CommandManager):
    """The commands, which are entry points of our own.

    cliff imports all of them to run one, and looks for them in all that is
    installed (decision 0084).
    """

    def load_commands(self, namespace: str) -> None:
        """Take down where they are; each is imported when it is needed."""
        self.group_list.append(namespace)
        for found in _DISTRIBUTION.entry_points.select(group=namespace):
            self.commands[found.name] = found


def _listed(manager: commandmanager.CommandManager) -> str:
    """Give the commands, a line each."""
    lines = ['\nCommands:']
    for name, found in sorted(manager.commands.items()):
        first = (found.load().__doc__ or '').strip().splitlines()[0]
        lines.append(f'  {name:12}  {first}')
    return '\n'.join([*lines, '\nnova-imagecache help COMMAND', ''])


# What a shell says of one that nobody reads any more, as cliff does.
_SIGPIPE = 141


class Shell(app.App):
    """Global options, and what every command has in common.

    :ivar conf: what was read of nova.conf, for a command about a node
    """

    conf: cfg.ConfigOpts

    NAME = 'nova-imagecache'

    def __init__(self) -> None:
        """Find the commands."""
        super().__init__(
            description=(
                'Look after the image cache of a libvirt compute node. Exit '
                'codes: 0 fine, 1 could not do it, 2 wrong usage, 3 '
                'corruption found.'
            ),
            version=_DISTRIBUTION.version,
            command_manager=Commands('nova_imagecache.cli'),
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
            description, version, {'prog': self.NAME} | (argparse_kwargs or {})
        )
        parser.add_argument(
            '--config-file',
            metavar='FILE',
            action='append',
            default=[],
            help='read this file, and not the nova.conf that Nova finds by '
            'itself (nova.conf.d is read all the same); can be repeated, the '
            'later wins',
        )
        parser.add_argument(
            '--instances-path',
            metavar='DIR',
            type=_directory,
            help='look after the cache below this directory, whatever '
            'nova.conf says',
        )
        return parser

    def run(self, argv: list[str]) -> int:
        """Run a command; without one, say which there are."""
        if not argv:
            self._list_commands()
            return _USAGE
        return super().run(argv)

    def _list_commands(self) -> None:
        self.parser.print_usage(sys.stderr)
        sys.stderr.write(_listed(self.command_manager))

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command; argparse ends the process on wrong usage."""
        if argv[0] == 'help':
            # cliff makes it of "--help", wherever that is in the line; a
            # command is one word, and what comes after it needs no help.
            argv = argv[:2]
        try:
            return super().run_subcommand(argv)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1

    def interact(self) -> None:
        """Refuse: options alone are no command."""
        self._list_commands()
        self.parser.exit(_USAGE)

    def load_settings(self) -> Settings:
        """Read the configuration, and become who may act on it.

        :raises oslo_config.cfg.Error: a value makes no sense
        :raises nova_imagecache.errors.Error: there is no such directory
        """
        settings = self.read_settings()
        become_owner(settings)
        return settings

    def read_settings(self) -> Settings:
        """Read the configuration.

        :raises oslo_config.cfg.Error: a value makes no sense
        :raises nova_imagecache.errors.Error: there is no such directory
        """
        self.conf, settings = config.read(
            self.options.config_file, self.options.instances_path
        )
        return settings


def become_owner(settings: Settings) -> None:
    """Become who may act on a cache.

    :raises OSError: the change is refused
    """
    layout = layouts.Layout.of(settings)
    owner.become_owner(layout.instances, layout.base)


class WrongUsage(Exception):
    """What was typed makes no sense; the message says why."""


class NodeCommand(command.Command):
    """A command about the cache of a node.

    :ivar settings: what the operator has asked for
    :ivar exit_code: what the program ends with if nothing fails; cliff's own
        lists are always fine
    :cvar changes: whether it writes to the cache, unless in a dry run
    :cvar interrupted: what to say where a person interrupts it
    """

    settings: Settings
    exit_code = 0
    changes: ClassVar[bool] = False
    interrupted: ClassVar[str] = ''

    def get_epilog(self) -> str:
        """Give what hooks of cliff add to the help.

        cliff itself reads the records of all packages, to name the one that a
        command is from where it is not the shell's.
        """
        hooks = [hook.obj for hook in self._hooks if hook.obj is not None]
        epilogs = [hook.get_epilog() for hook in hooks]
        return '\n\n'.join(['', *filter(None, epilogs)])

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command on the node that is configured."""
        # Before it becomes the owner.
        owner.import_format(getattr(parsed_args, 'formatter', None))
        self.settings = self.load_settings(parsed_args)
        if not gc.isenabled():
            # The program has started; all of that stays.
            gc.freeze()
            gc.enable()
        if self.changes and not getattr(parsed_args, 'dry_run', False):
            layout = layouts.Layout.of(self.settings)
            owner.insist(layout.instances, layout.base)
        try:
            super().run(parsed_args)
        except WrongUsage as error:
            self.app.stderr.write(f'{error}\n')
            return _USAGE
        except BrokenPipeError:
            raise
        except errors.Error as error:
            if isinstance(error.__cause__, BrokenPipeError):
                # Nobody reads what is printed while it is at work.
                raise error.__cause__ from None
            raise
        except KeyboardInterrupt:
            if self.interrupted:
                # The terminal has shown ^C.
                begin = '\n' if self.app.stderr.isatty() else ''
                self.app.stderr.write(
                    f'{begin}Interrupted. {self.interrupted}\n'
                )
            raise
        except OSError as error:
            where = f'{error.filename}: ' if error.filename else ''
            raise errors.Error(
                names.printable(f'{where}{errors.why(error)}')
            ) from error
        return self.exit_code

    def load_settings(self, parsed_args: argparse.Namespace) -> Settings:
        """Find out which node, and become who may act on it.

        :raises oslo_config.cfg.Error: a value makes no sense
        :raises nova_imagecache.errors.Error: there is no such directory
        """
        assert isinstance(self.app, Shell)  # noqa: S101 for mypy
        return self.app.load_settings()


def _open_streams() -> None:
    """Open those of the three standard streams that the parent has closed.

    Else the next file that is opened is in the place of one of them, and who
    writes to a stream finds none.
    """
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        if getattr(sys, name) is None:
            # It gets the lowest descriptor that is free, so that of the
            # stream, and children are to have it as well.
            stream = open(os.devnull, 'w' if number else 'r')
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _flush() -> None:
    """See that all is written that was printed.

    The end of the process would do so too, and only complain.

    :raises SystemExit: it cannot be
    """
    # A pager closes it.
    if sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(_SIGPIPE)
        sys.exit(f'What was printed cannot be written: {error.strerror}')


def main(argv: list[str] | None = None) -> int:
    """Run the program.

    :returns: 0 fine, 1 could not do it, 2 wrong usage, 3 corruption found
    """
    _open_streams()
    try:
        return Shell().run(sys.argv[1:] if argv is None else argv)
    finally:
        _flush()
