# SPDX-License-Identifier: Apache-2.0

"""What a scrub costs, beside reading or hashing the same file otherwise.

Every scrub that is measured is a later one, unless said otherwise: it compares
a file with its ledger. CPU seconds are user and system.
"""

import argparse
from collections.abc import Callable
import json
import mmap
import os
import re
import statistics
import sys
import threading

import common
from oslo_utils import units
import xxhash

from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import scrubber

_PIECE = 4 * units.Mi

# What a manager that is not careful would do.
_HASHLIB = """
import hashlib, sys
with open(sys.argv[1], 'rb') as file:
    print(hashlib.file_digest(file, 'sha1').hexdigest())
"""


def scrub_here(cache: common.Cache) -> None:
    """Scrub a cache in this process, as the program does.

    :raises RuntimeError: something is wrong with a file
    """
    settings = Settings(
        cache.instances, checksum=True, checksum_interval=0, scrub_bandwidth=0
    )
    stop = threading.Event()
    means = readers.Means(
        limiters.Limiter(wait=stop.wait), stop=stop, ahead=True
    )
    for result in scrubber.Scrubber(settings, means).run():
        if result.finding.verdict is not knowledge.Verdict.GOOD:
            raise RuntimeError(result)


def check(cost: common.Cost) -> None:
    """Make sure that a scrub has read one file, and found it good.

    :raises RuntimeError: it has not
    """
    printed = cost.output.splitlines()
    *lines, last = [json.loads(line) for line in printed if line[:1] == '{']
    good = [line for line in lines if line.get('checksum') == 'good']
    if len(good) != 1 or last['summary']['files'] != 1:
        raise RuntimeError(cost.output)


def bare_loop(path: str, piece: int = _PIECE, digests: bool = False) -> None:
    """Read a file past the page cache into a huge page, and nothing else.

    :param piece: bytes at a time
    :param digests: whether to make a digest of each piece, as a scrub does
    """
    region = mmap.mmap(
        -1, 2 * _PIECE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    region.madvise(mmap.MADV_HUGEPAGE)
    # Of 8 MiB of whole pages, the middle has whole huge pages enough.
    buffer = memoryview(region)[2 * units.Mi : 2 * units.Mi + piece]
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    position = 0
    while length := os.preadv(fd, [buffer], position):
        if digests:
            xxhash.xxh3_128_digest(buffer[:length])
        position += length
    os.close(fd)


def median(costs: list[common.Cost], part: str) -> float:
    """Give the median of one part of the costs."""
    values: list[float] = [getattr(cost, part) for cost in costs]
    return statistics.median(values)


def bench_reading(
    options: argparse.Namespace, directory: str, program: common.Program
) -> None:
    """Measure bandwidth, processor time and page cache over one file."""
    size: int = options.size
    cache = common.Cache(directory, 'reading')
    path = cache.add('random', size)
    common.print_title(
        f'Scrub of a random file of {size / units.Gi:g} GiB, cold, no limit; '
        f'medians of {options.rounds} rounds'
    )
    program.scrub(cache)
    with open(path + '.sha1') as file:
        sha1 = file.read()
    resident: dict[str, list[int]] = {}

    def cold(
        name: str, work: Callable[[], common.Cost]
    ) -> Callable[[], common.Cost]:
        def measure() -> common.Cost:
            common.make_cold(path)
            # Programs are warm, as on a node where Nova runs.
            program.start_up()
            cost = work()
            resident.setdefault(name, []).append(common.resident(path))
            return cost

        return measure

    def dd() -> common.Cost:
        return common.run(
            'dd', f'if={path}', 'iflag=direct', 'bs=4M', 'of=/dev/null'
        )

    def scrub_process() -> common.Cost:
        cost = program.scrub(cache)
        check(cost)
        return cost

    def digest(*command: str) -> common.Cost:
        cost = common.run(*command, path)
        if cost.output[:40] != sha1:
            raise RuntimeError(cost.output)
        return cost

    works: dict[str, Callable[[], common.Cost]] = {
        'dd': dd,
        'bare': lambda: common.measure(lambda: bare_loop(path)),
        'hashed': lambda: common.measure(
            lambda: bare_loop(path, 2 * units.Mi, digests=True)
        ),
        'scrub': lambda: common.measure(lambda: scrub_here(cache)),
        'process': scrub_process,
        'start-up': program.start_up,
        'sha1sum': lambda: digest('sha1sum'),
        'hashlib': lambda: digest(sys.executable, '-I', '-c', _HASHLIB),
    }
    costs = common.interleave(
        options.rounds, {name: cold(name, works[name]) for name in works}
    )
    os.unlink(path)
    print_bandwidth(costs, size)
    print_cpu(costs, size)
    print_page_cache(costs, resident)


def print_bandwidth(costs: dict[str, list[common.Cost]], size: int) -> None:
    """Print bandwidths beside that of dd."""
    # By its own clock: without the start of the process.
    times = [
        float(re.findall(r'copied, ([\d.e-]+) s', cost.output)[0])
        for cost in costs['dd']
    ]
    rates = {
        name: [size / units.Mi / cost.seconds for cost in costs[name]]
        for name in ('scrub', 'bare', 'hashed', 'process')
    }
    rates['dd'] = [size / units.Mi / seconds for seconds in times]
    for name, label in (
        ('scrub', 'scrub, in process'),
        ('dd', 'dd iflag=direct bs=4M'),
        ('bare', 'preadv(2) of 4 MiB into huge pages, no more'),
        ('hashed', 'preadv(2) of 2 MiB, and its XXH3, no more'),
        ('process', 'scrub, as a process from start to exit'),
    ):
        values = rates[name]
        common.print_value(
            label,
            f'{statistics.median(values):.0f} MiB/s '
            f'({min(values):.0f} to {max(values):.0f})',
        )
    cost = median(costs['start-up'], 'seconds')
    common.print_value(
        'start-up: the process on an empty cache', f'{cost:.2f} s'
    )
    our = statistics.median(rates['scrub'])
    ratio = our / statistics.median(rates['dd'])
    common.print_target('scrub / dd', f'{ratio:.2f}', '>= 0.95', ratio >= 0.95)
    ratio = our / statistics.median(rates['bare'])
    common.print_target(
        'scrub / preadv(2)', f'{ratio:.2f}', '>= 0.95', ratio >= 0.95
    )
    # Where memory is hardly faster than the storage, no reading with digests
    # is as fast as one without.
    ratio = our / statistics.median(rates['hashed'])
    common.print_value('scrub / preadv(2) and XXH3', f'{ratio:.2f}')


def print_cpu(costs: dict[str, list[common.Cost]], size: int) -> None:
    """Print processor times beside those of SHA-1."""
    common.print_title('CPU seconds per GiB')
    cpu = {
        name: median(costs[name], 'cpu') * units.Gi / size for name in costs
    }
    for name, label in (
        ('scrub', 'scrub, in process'),
        ('process', 'scrub, as a process'),
        ('sha1sum', 'sha1sum'),
        ('hashlib', 'hashlib.file_digest, SHA-1, as a process'),
        ('dd', 'dd'),
    ):
        common.print_value(label, f'{cpu[name]:.3f} s')
    once = median(costs['start-up'], 'cpu')
    common.print_value(
        'start-up: the process on an empty cache, per scrub', f'{once:.3f} s'
    )
    for name, most in (('sha1sum', 8), ('hashlib', 4)):
        ratio = cpu[name] / cpu['scrub']
        common.print_target(
            f'scrub / {name}', f'1/{ratio:.1f}', f'<= 1/{most}', ratio >= most
        )
    for name in ('sha1sum', 'hashlib'):
        ratio = cpu[name] / cpu['process']
        common.print_value(
            f'scrub as a process, with start-up / {name}', f'1/{ratio:.1f}'
        )


def print_page_cache(
    costs: dict[str, list[common.Cost]], resident: dict[str, list[int]]
) -> None:
    """Print what was in the page cache afterwards, and not before."""
    common.print_title(
        'Page cache that it pulls in: of the file, and in all (which counts '
        'what anybody else reads meanwhile)'
    )
    for name, label in (
        ('scrub', 'scrub, in process'),
        ('process', 'scrub, as a process'),
        ('sha1sum', 'sha1sum'),
    ):
        of_file = [size / units.Mi for size in resident[name]]
        in_all = [cost.cached / units.Mi for cost in costs[name]]
        common.print_value(
            label,
            f'{statistics.median(of_file):.1f} MiB (at most '
            f'{max(of_file):.1f}), {statistics.median(in_all):.1f} MiB (at '
            f'most {max(in_all):.1f})',
        )
    worst = max(
        *resident['process'],
        *resident['scrub'],
        median(costs['process'], 'cached'),
    )
    common.print_target(
        'scrub: most of the file, or median in all',
        f'{worst / units.Mi:.1f} MiB',
        '<= 16 MiB',
        worst <= 16 * units.Mi,
    )


def bench_sparse(
    options: argparse.Namespace, directory: str, program: common.Program
) -> None:
    """Measure a later scrub of a sparse file, as a whole process."""
    size: int = options.sparse_size
    data: int = options.sparse_data
    cache = common.Cache(directory, 'sparse')
    path = cache.add('sparse', size, data)
    common.print_title(
        f'Later scrub of {size / units.Gi:g} GiB holding '
        f'{data / units.Gi:g} GiB of data, a process from start to exit; '
        f'median of {options.rounds} rounds; sha1sum once'
    )
    first = program.scrub(cache)
    common.make_cold(path)
    peer = common.run('sha1sum', path)
    with open(path + '.sha1') as file:
        if peer.output[:40] != file.read():
            raise RuntimeError(peer.output)

    def scrub() -> common.Cost:
        common.make_cold(path)
        program.start_up()
        cost = program.scrub(cache)
        check(cost)
        return cost

    costs = common.interleave(
        options.rounds, {'scrub': scrub, 'start-up': program.start_up}
    )
    os.unlink(path)
    our = median(costs['scrub'], 'seconds')
    common.print_value('scrub', f'{our:.2f} s')
    start_up = median(costs['start-up'], 'seconds')
    common.print_value(
        'of which start-up (an empty cache)', f'{start_up:.2f} s'
    )
    common.print_value('sha1sum', f'{peer.seconds:.2f} s')
    common.print_value('first scrub, with SHA-1', f'{first.seconds:.2f} s')
    ratio = peer.seconds / our
    common.print_target(
        'times faster than sha1sum', f'{ratio:.1f}', '>= 40', ratio >= 40
    )
    without = peer.seconds / (our - start_up)
    common.print_value('times faster, without start-up', f'{without:.1f}')


_PARTS = {
    'reading': bench_reading,
    'sparse': bench_sparse,
}


def main() -> None:
    """Measure, and print what was measured."""
    parser = common.parser(__doc__, 7, list(_PARTS))
    parser.add_argument(
        '--size', type=common.gib, default='2', help='of the random file, GiB'
    )
    parser.add_argument(
        '--sparse-size', type=common.gib, default='20', help='GiB'
    )
    parser.add_argument(
        '--sparse-data', type=common.gib, default='1', help='GiB'
    )
    options = parser.parse_args()
    with common.workspace(options.directory) as directory:
        program = common.Program(directory)
        for name in options.only:
            _PARTS[name](options, directory, program)


if __name__ == '__main__':
    main()
