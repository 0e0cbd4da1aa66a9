# SPDX-License-Identifier: Apache-2.0

"""How a pass grows with the node; beside a walk that only reads headers.

Each guest has a base file and an overlay of its own. A pass is made in a
process of its own, so that its memory can be told.
"""

import argparse
import functools
import os
import shutil
import statistics
import time

import common
import nodes
from oslo_utils import units

_HEADER = 4096

# Rounds; each takes a node of its own, which takes longer than its passes.
_REMOVALS = 3


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


measure = functools.partial(nodes.measure, __file__)


def removal(
    options: argparse.Namespace, path: str, settled: bool
) -> tuple[nodes.Values, nodes.Values]:
    """Measure a pass that removes none, and then one that removes a tenth."""
    unused = options.guests // 10
    nodes.build(path, options.guests, unused=unused)
    if settled:
        nodes.age(path)
    for _pass in range(2 if settled else 1):
        if settled:
            time.sleep(options.settle)
        # From the first pass on they have no user.
        measure(path, 'pass')
    quiet = measure(path, 'pass')
    took = measure(path, 'later')
    assert took['removed'] == unused
    assert took['locks'] >= unused
    shutil.rmtree(path)
    return quiet, took


def bench_removal(
    options: argparse.Namespace, path: str, settled: bool
) -> None:
    """Measure passes that remove a tenth, each on a node of its own.

    :param settled: whether nobody has changed anything for a while
    """
    found = [removal(options, path, settled) for _round in range(_REMOVALS)]
    quiet, took = ([*each] for each in zip(*found, strict=True))
    common.print_title(
        f'A pass that removes {options.guests // 10} files, '
        f'{options.guests} guests, '
        f'directories {"settled" if settled else "new"}'
    )
    seconds = [each['seconds'] for each in took]
    common.print_value('seconds', common.spread(seconds))
    ratios = common.ratios(seconds, [each['seconds'] for each in quiet])
    common.print_target(
        'this one / a pass that removes none just before',
        common.spread(ratios),
        '2',
        statistics.median(ratios) <= 2,
    )
    locked = max(each['locked'] for each in took)
    common.print_target(
        "a lock of Nova's was held, seconds at most",
        f'{locked:.3f}',
        '1',
        locked <= 1,
    )


def main() -> None:
    """Build nodes, measure, and print what was measured."""
    parser = common.parser(__doc__, rounds=5)
    parser.add_argument('--guests', type=int, default=10000)
    parser.add_argument(
        '--settle',
        type=float,
        default=5,
        help='seconds after which a change is not new any more',
    )
    parser.add_argument('--child', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        nodes.answer(options.directory, options.child, {'walk': walk})
        return
    medians = {}
    with common.workspace(options.directory) as space:
        for guests in (options.guests // 2, options.guests):
            path = os.path.join(space, str(guests))
            nodes.build(path, guests)
            # Until nothing is too new to be believed by its times; the first
            # pass makes our own directory in the cache.
            for _pass in range(2):
                time.sleep(options.settle)
                measure(path, 'pass')
            found = common.interleave(
                options.rounds,
                {
                    'pass': functools.partial(measure, path, 'pass'),
                    'walk': functools.partial(measure, path, 'walk'),
                    'ticks': functools.partial(measure, path, 'ticks'),
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
                'MiB at most', f'{peak:.0f}', '100', peak < 100
            )
            common.print_value(
                'a walk that reads headers', common.spread(walks)
            )
            ratios = common.ratios(seconds, walks)
            common.print_target(
                'pass / walk',
                common.spread(ratios),
                '2.5',
                statistics.median(ratios) <= 2.5,
            )
            common.print_value(
                'another thread had to wait, seconds at most',
                common.spread([each['ticks'] for each in found['ticks']]),
            )
        small, large = medians.values()
        common.print_title('Twice as many')
        common.print_target(
            'time of one / time of the other',
            f'{large / small:.2f}',
            'about 2, at most 2.4',
            large / small <= 2.4,
        )
        for name, settled in (('new', False), ('settled', True)):
            bench_removal(options, os.path.join(space, name), settled)


if __name__ == '__main__':
    main()
