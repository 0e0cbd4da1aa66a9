# SPDX-License-Identifier: Apache-2.0

"""The commands, as pyproject.toml registers them."""

import importlib
import inspect
import os
import pkgutil
import tomllib

from cliff import command
import ddt
import fixtures

from nova_imagecache import cli
from nova_imagecache.cli import app
from tests.support import base

_PROJECT = os.path.join(os.path.dirname(__file__), '../../pyproject.toml')
_GROUP = 'nova_imagecache.cli'


def read_registry() -> dict[str, str]:
    """Read the commands: where each of them is, by its name."""
    with open(_PROJECT, 'rb') as file:
        project = tomllib.load(file)['project']
    registry: dict[str, str] = project['entry-points'][_GROUP]
    return registry


REGISTRY = read_registry()


@ddt.ddt
class RegistryTest(base.TestCase):
    @ddt.data(*REGISTRY.items())
    @ddt.unpack
    def test_a_command_is_there_and_says_what_it_does(
        self, name: str, where: str
    ) -> None:
        module, _colon, attribute = where.partition(':')
        found = getattr(importlib.import_module(module), attribute)
        self.assertTrue(issubclass(found, command.Command), where)
        self.assertFalse(inspect.isabstract(found), where)
        self.assertEqual(module, found.__module__)
        # The first line is what help lists, behind the name.
        first = (found.__doc__ or '').splitlines()[0]
        self.assertTrue(first.endswith('.'))
        self.assertLessEqual(len(f'{"":16}{first}'), 80)

    @ddt.data(*REGISTRY.items())
    @ddt.unpack
    def test_a_command_has_a_module_of_its_own(
        self, name: str, where: str
    ) -> None:
        module = where.partition(':')[0]
        # A word of Python has an underscore behind it.
        word = name.replace('-', '_')
        self.assertIn(module, (f'{_GROUP}.{word}', f'{_GROUP}.{word}_'))
        own = [
            value
            for value in vars(importlib.import_module(module)).values()
            if inspect.isclass(value)
            and issubclass(value, command.Command)
            and value.__module__ == module
        ]
        self.assertEqual(1, len(own))

    def test_every_command_that_there_is_is_registered(self) -> None:
        found = set()
        for info in pkgutil.iter_modules(cli.__path__, f'{_GROUP}.'):
            for value in vars(importlib.import_module(info.name)).values():
                if (
                    inspect.isclass(value)
                    and issubclass(value, command.Command)
                    and value.__module__.startswith(_GROUP)
                    and not inspect.isabstract(value)
                ):
                    found.add(f'{value.__module__}:{value.__name__}')
        self.assertEqual(set(REGISTRY.values()), found)

    def test_the_program_finds_each_command_where_it_is_registered(
        self,
    ) -> None:
        found = dict(app.Commands(_GROUP))
        self.assertEqual(
            REGISTRY, {name: point.value for name, point in found.items()}
        )

    def test_every_command_has_its_own_help_and_no_package(self) -> None:
        for name in REGISTRY:
            made = app.Commands(_GROUP).find_command([name])[0](
                app.Shell(), None
            )
            self.assertEqual('', made.get_epilog(), name)


@ddt.ddt
class HelpTest(base.TestCase):
    def shell(self, *arguments: str) -> str:
        stdout = self.useFixture(fixtures.StringStream('stdout')).stream
        with fixtures.MonkeyPatch('sys.stdout', stdout):
            try:
                app.main([*arguments])
            except SystemExit as error:
                self.assertFalse(error.code)
        stdout.seek(0)
        return str(stdout.read())

    @ddt.data('help', '--help')
    def test_help_lists_every_command_with_its_first_line(
        self, argument: str
    ) -> None:
        lines = [line.split() for line in self.shell(argument).splitlines()]
        for name, where in REGISTRY.items():
            module, _colon, attribute = where.partition(':')
            found = getattr(importlib.import_module(module), attribute)
            first = (found.__doc__ or '').splitlines()[0].rstrip('.')
            self.assertIn([name, *first.split()], lines)
        for name in ('complete', 'help'):
            self.assertIn(name, [line[0] for line in lines if line])

    def test_completion_knows_every_command_and_its_options(self) -> None:
        shown = self.shell('complete')
        (line,) = (
            line for line in shown.splitlines() if line.startswith("  cmds='")
        )
        commands = line.removeprefix("  cmds='").removesuffix("'").split()
        self.assertEqual({*REGISTRY, 'complete', 'help'}, {*commands})
        for name in REGISTRY:
            word = name.replace('-', '_')
            self.assertIn(f"  cmds_{word}='-h --help", shown)
