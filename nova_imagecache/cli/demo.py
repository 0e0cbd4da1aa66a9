# SPDX-License-Identifier: Apache-2.0

"""The command demo: a throw-away node, and real passes over it."""

import argparse
import dataclasses
import os
import random
import shutil
import tempfile
import textwrap

from cliff import command
from oslo_utils import units

from nova_imagecache.cache import layouts
from nova_imagecache.cli import exit_codes
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.fetch import images
from nova_imagecache import names
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports

_CIRROS = names.get_cache_fname('cirros')
_DEBIAN = names.get_cache_fname('debian')
_RETIRED = names.get_cache_fname('retired')
_RESIZED = f'{_DEBIAN}_{128 * units.Mi}'
_SWAP = 'swap_64'
_LEFTOVER = names.get_cache_fname('interrupted') + '.part'

_GUESTS = {
    '11111111-aaaa-4aaa-8aaa-000000000001': _CIRROS,
    '22222222-bbbb-4bbb-8bbb-000000000002': _CIRROS,
    '33333333-cccc-4ccc-8ccc-000000000003': _DEBIAN,
}
_STRANGER = '44444444-dddd-4ddd-8ddd-000000000004'
_REMOVABLE = {_RETIRED, _RESIZED, _SWAP, _LEFTOVER}

_DISK_SIZE = 64 * units.Mi
_DATA_SIZE = 4 * units.Mi
_FLIPPED_BYTE = 3 * units.Mi + 12345
_FLIPPED_BIT = 0x10
_LATER_SECONDS = 25 * 3600


def _later() -> clocks.Instant:
    """Read the clocks as they will be when files are old enough to go."""
    now = clocks.now()
    return dataclasses.replace(
        now,
        wall=now.wall + _LATER_SECONDS,
        boottime=now.boottime + _LATER_SECONDS,
    )


def _write_base(path: str, seed: int) -> None:
    """Write a sparse raw image: some data, and a large hole."""
    with open(path, 'xb') as file:
        file.write(random.Random(seed).randbytes(_DATA_SIZE))  # noqa: S311 no secret
        file.truncate(_DISK_SIZE)


def _build(layout: layouts.Layout) -> None:
    os.makedirs(layout.base)
    for seed, name in enumerate([_CIRROS, _DEBIAN, *sorted(_REMOVABLE)]):
        _write_base(layout.file(name), seed)
    for guest, base in _GUESTS.items():
        directory = os.path.join(layout.instances, guest)
        os.mkdir(directory)
        images.create_overlay(
            os.path.join(directory, 'disk'),
            layout.file(base),
            images.Image('raw', _DISK_SIZE),
            None,
        )


def _turn_up(layout: layouts.Layout) -> None:
    """Give a guest a disk over a base file that is not in the cache."""
    directory = os.path.join(layout.instances, _STRANGER)
    os.mkdir(directory)
    # qemu-img insists on a file to read from; the name is what counts.
    stand_in = os.path.join(directory, _RETIRED)
    _write_base(stand_in, 0)
    images.create_overlay(
        os.path.join(directory, 'disk'),
        stand_in,
        images.Image('raw', _DISK_SIZE),
        None,
    )


def _flip_bit(path: str) -> None:
    with open(path, 'r+b') as file:
        file.seek(_FLIPPED_BYTE)
        (value,) = file.read(1)
        file.seek(_FLIPPED_BYTE)
        file.write(bytes([value ^ _FLIPPED_BIT]))


class Demo(command.Command):
    """Show on a throw-away node what the manager does.

    Builds a node with real disks in a temporary directory, makes real passes
    over it, damages a base file, shows what is found and what is removed, and
    cleans up. Touches nothing else. Needs qemu-img.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--no-damage',
            action='store_true',
            help='leave out the flipped bit, to see that nothing is found '
            'then',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Show it all, and check that it is so."""
        if shutil.which('qemu-img') is None:
            raise errors.Error(
                'qemu-img is not installed; it is in the package qemu-utils '
                '(Debian, Ubuntu) or qemu-img (Fedora, RHEL)'
            )
        damage = not parsed_args.no_damage
        with tempfile.TemporaryDirectory(prefix='imagecache-demo-') as path:
            node = Settings(
                instances_path=path,
                remove_unused=False,
                checksum=True,
                checksum_interval=0,
                scrub_bandwidth=0,
                # The libvirt of this machine, if any, knows nothing of it.
                witnesses=('overlays', 'locks'),
            )
            as_promised = self._show(node, damage)
        self._say('The node is gone again.')
        if not as_promised:
            raise errors.Error('this is not what should have been found')
        return exit_codes.FINE

    def _show(self, node: Settings, damage: bool) -> bool:
        layout = layouts.Layout.of(node)
        self._say(
            f'1. A compute node, in {node.instances_path}: three guests read '
            'two base images through qcow2 overlays. Beside them are an '
            'image, a resized image and a swap file that nobody uses, and '
            'what an interrupted download left behind.'
        )
        _build(layout)

        self._say(
            '2. The first pass, with checksum_base_images on. Fetching an '
            'image computes no checksum, so that guests start fast; this '
            'pass makes them, and cannot say yet whether a file is good '
            '("digested"). A resized image gets its checksum a pass later: it '
            'is written without a lock, and could still be growing. For now '
            'removal is switched off.'
        )
        self._table(pipeline.Pass(node, inline=True).run())

        self._say('3. The second pass reads the files again and compares.')
        second = pipeline.Pass(node, inline=True).run()
        self._table(second)

        if damage:
            self._say(
                f'4. The disk goes bad: one bit flips in byte '
                f'{_FLIPPED_BYTE} of {_CIRROS}. Size and times look right.'
            )
            path = layout.file(_CIRROS)
            before = os.stat(path)
            _flip_bit(path)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            self._say('4. No bit is flipped (--no-damage).')
        third = pipeline.Pass(node, inline=True).run()
        self._table(third)
        for file in third.corrupt:
            self._say(
                f'Found: {file.name} is corrupt. The guests that read it: '
                f'{", ".join(file.users)}.'
            )
        if not third.corrupt:
            self._say('Found: nothing, every file is as it was.')

        removing = dataclasses.replace(
            node, remove_unused=True, checksum_interval=24 * 3600
        )
        self._say(
            '5. 25 hours later (the clock of the demo is set on), with '
            'removal switched on, as it is by default, a dry run says what a '
            'pass would take: what no guest uses, and only when it is old '
            'enough.'
        )
        preview = pipeline.Pass(removing, clock=_later).preview()
        self._table(preview)
        self._say(
            '6. The pass takes it. All of it is in the trash for an hour, '
            'base files with their checksums.'
        )
        before_removal = set(os.listdir(layout.base))
        fourth = pipeline.Pass(removing, clock=_later, inline=True).run()
        gone = before_removal - set(os.listdir(layout.base))
        for name in sorted(gone):
            self._print(f'  removed {name}')

        self._say(
            f'7. A guest that nobody knew of turns up, and it reads '
            f'{_RETIRED}. The next pass puts that back.'
        )
        _turn_up(layout)
        fifth = pipeline.Pass(removing, clock=_later, inline=True).run()
        for file in fifth.restored:
            self._print(f'  {file.name}: {file.reason}')

        expected = {_CIRROS} if damage else set()
        victims = {
            guest for guest, base in _GUESTS.items() if base in expected
        }
        return (
            not second.corrupt
            and {file.name for file in third.corrupt} == expected
            and {user for file in third.corrupt for user in file.users}
            == victims
            and {file.name for file in preview.removed} == _REMOVABLE
            and {file.name for file in fourth.removed} == _REMOVABLE
            and {name for name in gone if not names.sidecar_of(name)}
            == _REMOVABLE
            and len(fifth.restored) == 1
            and os.path.exists(layout.file(_RETIRED))
            and os.path.exists(names.sidecar_name(layout.file(_RETIRED)))
            and os.path.exists(layout.file(_CIRROS))
            and os.path.exists(layout.file(_DEBIAN))
        )

    def _print(self, text: str = '') -> None:
        self.app.stdout.write(text + '\n')

    def _say(self, text: str) -> None:
        self._print()
        self._print(textwrap.fill(text, 78))

    def _table(self, report: reports.Report) -> None:
        self._print()
        for file in report.files:
            name = file.name
            # Enough to tell the files apart.
            short = name if len(name) < 20 else name[:8] + '...' + name[40:]
            self._print(
                f'  {short:21} {file.kind:9} {file.word:8} {file.action} '
                f'({file.reason.partition(";")[0]})'
            )
