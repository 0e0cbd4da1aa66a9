# SPDX-License-Identifier: Apache-2.0

"""How a pass grows with the node; beside a walk that only reads headers.

Each guest has a base file and an overlay of its own. A pass is made in a
process of its own, so that its memory can be told.
"""

import argparse
import dataclasses
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import common
from oslo_utils import units

from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.fetch import images
from nova_imagecache import names
from nova_imagecache.passes import pipeline

_BASE_SIZE = units.Gi
_HEADER = 4096
_DAY = 24 * 3600


def settings_of(path: str) -> Settings:
    """Give the settings of a node that has no libvirt."""
    return Settings(path, witnesses=('instances', 'overlays', 'locks'))


def build(path: str, guests: int, unused: int = 0) -> None:
    """Build a node; real disks, of which one is made by qemu-img.

    The others are copies with another name in their header, of the same
    length: ten thousand processes would take minutes.

    :param unused: base files that nobody uses
    """
    layout = layouts.Layout.of(settings_of(path))
    os.makedirs(layout.base)
    template, named = b'', b''
    for number in range(guests + unused):
        name = names.get_cache_fname(str(number))
        with open(layout.file(name), 'xb') as file:
            file.truncate(_BASE_SIZE)
        if number >= guests:
            continue
        directory = os.path.join(path, f'guest-{number}')
        os.mkdir(directory)
        disk = os.path.join(directory, 'disk')
        if not template:
            image = images.Image('raw', _BASE_SIZE)
            images.create_overlay(disk, layout.file(name), image, None)
            named = name.encode()
            with open(disk, 'rb') as made:
                template = made.read()
            continue
        with open(disk, 'xb') as file:
            file.write(template.replace(named, name.encode()))


def walk(path: str) -> int:
    """Read the first page of every file; what no pass can do without."""
    found = 0
    for directory, _directories, files in os.walk(path):
        for name in files:
            fd = os.open(os.path.join(directory, name), os.O_RDONLY)
            os.pread(fd, _HEADER, 0)
            os.close(fd)
            found += 1
    return found


def measure(path: str, what: str) -> dict[str, float]:
    """Do something once, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, '--child', what, '--directory', path],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    values: dict[str, float] = json.loads(done.stdout)
    return values


def _later() -> clocks.Instant:
    """Read the clocks as they will be when files are old enough to go."""
    now = clocks.now()
    return dataclasses.replace(
        now, wall=now.wall + 2 * _DAY, boottime=now.boottime + 2 * _DAY
    )


def child(path: str, what: str) -> None:
    """Do it here, and say what it took."""
    start = time.perf_counter()
    if what == 'walk':
        count = walk(path)
    else:
        clock = _later if what == 'later' else clocks.now
        report = pipeline.Pass(settings_of(path), clock=clock).run()
        assert not report.problems and not report.vetoes, report
        count = len(report.removed)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units.Ki
    print(json.dumps({'seconds': seconds, 'peak': peak, 'count': count}))


def main() -> None:
    """Build nodes, measure, and print what was measured."""
    parser = common.parser(__doc__, rounds=5)
    parser.add_argument('--guests', type=int, default=10000)
    parser.add_argument('--child', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.directory, options.child)
        return
    medians = {}
    with common.workspace(options.directory) as space:
        for guests in (options.guests // 2, options.guests):
            path = os.path.join(space, str(guests))
            build(path, guests)
            measure(path, 'pass')
            found = common.interleave(
                options.rounds,
                {
                    'pass': functools.partial(measure, path, 'pass'),
                    'walk': functools.partial(measure, path, 'walk'),
                },
            )
            seconds = [each['seconds'] for each in found['pass']]
            walks = [each['seconds'] for each in found['walk']]
            peak = max(each['peak'] for each in found['pass']) / units.Mi
            medians[guests] = statistics.median(seconds)
            common.print_title(
                f'A pass over {guests} base files and {guests} guests'
            )
            common.print_target(
                'seconds',
                common.spread(seconds),
                '3',
                medians[guests] < 3,
            )
            common.print_target(
                'MiB at most', f'{peak:.0f}', '200', peak < 200
            )
            common.print_value(
                'a walk that reads headers', common.spread(walks)
            )
            common.print_value(
                'pass / walk', common.spread(common.ratios(seconds, walks))
            )
        small, large = medians.values()
        common.print_title('Twice as many')
        common.print_target(
            'time of one / time of the other',
            f'{large / small:.2f}',
            'about 2, at most 2.4',
            large / small <= 2.4,
        )
        unused = options.guests // 10
        path = os.path.join(space, 'unused')
        build(path, options.guests, unused)
        # From the first pass on they have no user.
        measure(path, 'pass')
        took = measure(path, 'later')
        assert took['count'] == unused
        common.print_title(
            f'A pass that removes {unused} files, {options.guests} guests'
        )
        common.print_value('seconds', f'{took["seconds"]:.2f}')
        common.print_value(
            'a pass that removes none / this one',
            f'{large / took["seconds"]:.2f}',
        )


if __name__ == '__main__':
    main()
