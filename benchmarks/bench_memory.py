# SPDX-License-Identifier: Apache-2.0

"""How much memory a scrub takes, whatever it reads.

There is no peer: what is compared is a small cache with a large one.
"""

import argparse
import os
import re
import statistics
import sys

import common
from oslo_utils import units

# VmHWM is gone when a process is, and ru_maxrss counts what the process was
# forked from as well.
_PEAK = """
import sys
from nova_imagecache.cli import app
code = app.main(sys.argv[1:])
with open('/proc/self/status') as file:
    print(*(line for line in file if line.startswith('VmHWM')))
sys.exit(code)
"""


def bench_memory(
    options: argparse.Namespace, directory: str, program: common.Program
) -> None:
    """Measure the peak memory of scrubs of small and large caches."""
    common.print_title(
        'Peak memory (VmHWM) of the process: first scrub, '
        f'median of {options.rounds} later ones'
    )
    small, large = options.sizes
    few, many = options.files
    peaks: dict[str, tuple[int, int]] = {}

    def peak(cache: common.Cache, files: int) -> int:
        arguments = program.arguments(cache, '--bandwidth', '0')
        cost = common.run(
            sys.executable, '-P', '-c', _PEAK, *arguments, env=program.env
        )
        if cost.output.count('"checksum"') != files:
            raise RuntimeError(cost.output)
        found = re.findall(r'VmHWM:\s*(\d+) kB', cost.output)
        return int(found[0]) * units.Ki

    def bench(label: str, size: int, data: int, files: int) -> None:
        cache = common.Cache(directory, f'memory-{len(peaks)}')
        paths = [cache.add(str(each), size, data) for each in range(files)]
        first = peak(cache, files)
        later = [peak(cache, files) for _round in range(options.rounds)]
        for path in paths:
            os.unlink(path)
        peaks[label] = first, int(statistics.median(later))
        common.print_value(
            label,
            ', '.join(f'{each / units.Mi:.1f} MiB' for each in peaks[label]),
        )

    data = 64 * units.Mi
    bench('an empty cache', 0, 0, 0)
    bench(f'a sparse file of {small / units.Gi:g} GiB', small, data, 1)
    bench(f'a sparse file of {large / units.Gi:g} GiB', large, data, 1)
    bench(f'{few} files of 256 KiB', units.Mi // 4, units.Mi // 4, few)
    bench(f'{many} files of 256 KiB', units.Mi // 4, units.Mi // 4, many)
    worst = max(max(pair) for pair in peaks.values()) / units.Mi
    common.print_target(
        'the most of all', f'{worst:.1f} MiB', '< 64 MiB', worst < 64
    )
    _empty, one, other, less, more = peaks.values()
    for label, before, after in (
        ('from the small to the large file', one, other),
        ('from few to many files', less, more),
    ):
        growth = max(after[0] - before[0], after[1] - before[1]) / units.Mi
        common.print_target(
            label, f'{growth:+.1f} MiB', 'flat (<= 4 MiB)', growth <= 4
        )


def main() -> None:
    """Measure, and print what was measured."""
    parser = common.parser(__doc__, 3)
    parser.add_argument(
        '--sizes',
        type=common.gib,
        nargs=2,
        default=[units.Gi, 64 * units.Gi],
        help='of sparse files, GiB',
    )
    parser.add_argument('--files', type=int, nargs=2, default=[10, 1000])
    options = parser.parse_args()
    with common.workspace(options.directory) as directory:
        bench_memory(options, directory, common.Program(directory))


if __name__ == '__main__':
    main()
