# SPDX-License-Identifier: Apache-2.0

"""What reading costs where it is not just one large file.

Each is beside a peer that is measured in the same round.
"""

import argparse
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import common
from oslo_utils import units

from nova_imagecache.conf import Settings
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import scrubber

_ISLAND = 4 * units.Ki
_BLOCK = 4 * units.Mi


def make_islands(path: str, data: int, step: int) -> None:
    """Write a file of islands of 4 KiB, one at the start of each step."""
    with open(path, 'xb') as file:
        file.truncate(data // _ISLAND * step)
        for index in range(data // _ISLAND):
            os.pwrite(file.fileno(), os.urandom(_ISLAND), index * step)
        os.fsync(file.fileno())


def islands_of(fd: int) -> Iterator[tuple[int, int]]:
    """Give where data begins and ends."""
    position, size = 0, os.fstat(fd).st_size
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:
            return
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position


@dataclasses.dataclass
class _Counting(limiters.Limiter):
    """Counts what the limit is charged."""

    charged: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def before(self, length: int) -> None:
        self.charged += length


def bench_fragments(options: argparse.Namespace, directory: str) -> None:
    """Measure what is read of a file of small islands, and how fast."""
    path = os.path.join(directory, 'fragments')
    make_islands(path, options.fragments, 64 * _ISLAND)
    common.print_title(
        f'{options.fragments / units.Mi:g} MiB of data in islands of 4 KiB, '
        f'one in 256 KiB; cold; medians of {options.rounds} rounds'
    )
    data = os.stat(path).st_blocks * 512
    charged: list[float] = []

    def bare() -> float:
        buffer = readers._buffers(1, _BLOCK)[0]
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)

        def work() -> None:
            for start, end in islands_of(fd):
                os.preadv(fd, [buffer[: end - start]], start)

        common.make_cold(path)
        cost = common.measure(work)
        os.close(fd)
        return cost.seconds

    def ours() -> float:
        limiter = _Counting()
        means = readers.Means(limiter, ahead=True)
        fd = os.open(path, os.O_RDONLY)
        size = os.fstat(fd).st_size

        def work() -> None:
            for _piece in readers.Reader(fd, means).read(0, size, _BLOCK):
                pass

        common.make_cold(path)
        cost = common.measure(work)
        os.close(fd)
        charged.append(limiter.charged / data)
        return cost.seconds

    seconds = common.interleave(options.rounds, {'ours': ours, 'bare': bare})
    worst = max(charged)
    common.print_target(
        'bytes read, and charged to the limit / bytes of data',
        f'{worst:.2f}',
        '<= 1.1',
        worst <= 1.1,
    )
    common.print_value(
        'seconds / those of preadv(2) of each island',
        common.spread(common.ratios(seconds['ours'], seconds['bare'])),
    )
    common.print_value(
        'microseconds an island',
        f'{statistics.median(seconds["ours"]) / (data / _ISLAND) * 1e6:.0f}',
    )
    os.unlink(path)


def first_scrub(cache: common.Cache, rate: int) -> common.Cost:
    """Scrub a cache of which nothing is known; give what that took."""
    settings = Settings(
        cache.instances,
        checksum=True,
        checksum_interval=0,
        scrub_bandwidth=rate,
    )
    shutil.rmtree(os.path.join(cache.base, '.imagecache'), ignore_errors=True)
    for name in os.listdir(cache.base):
        if name.endswith('.sha1'):
            os.unlink(os.path.join(cache.base, name))
    stop = threading.Event()
    limiter = limiters.Limiter(rate, wait=stop.wait)
    means = readers.Means(limiter, stop=stop, ahead=True)
    one = scrubber.Scrubber(settings, means)
    return common.measure(lambda: [*one.run()])


def bench_sparse(options: argparse.Namespace, directory: str) -> None:
    """Measure the processor that the holes of a first scrub take."""
    size: int = options.hole
    cache = common.Cache(directory, 'sparse')
    path = cache.add('sparse', size, _ISLAND)
    common.print_title(
        f'First scrub of a hole of {size / units.Gi:g} GiB, limited and not; '
        f'medians of {options.rounds} rounds'
    )

    def share(rate: int) -> float:
        cost = first_scrub(cache, rate)
        return cost.cpu / cost.seconds

    shares = common.interleave(
        options.rounds,
        {'limited': lambda: share(8 * units.Mi), 'not': lambda: share(0)},
    )
    worst = max(shares['limited'])
    common.print_target(
        'part of a processor, limited',
        common.spread(shares['limited']),
        '<= 0.2',
        worst <= 0.2,
    )
    common.print_value(
        'that / the part without a limit',
        common.spread(common.ratios(shares['limited'], shares['not'])),
    )
    os.unlink(path)
    for tib in (1, 15):
        path = cache.add(f'giant-{tib}', tib * units.Ti, _ISLAND)
        cost = first_scrub(cache, 8 * units.Mi)
        os.unlink(path)
        common.print_value(
            f'first scrub of {tib} TiB with 4 KiB of data, limited',
            f'{cost.cpu:.2f} s of CPU, {cost.seconds:.2f} s',
        )


class _Disk:
    """A disk that is throttled as the kernel does it, in tenths of seconds."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = time.monotonic()

    def pread(self, fd: int, buffers: Any, offset: int, *flags: int) -> int:
        got = os.preadv(fd, buffers, offset, *flags)
        now = time.monotonic()
        self._free = max(self._free, now - 0.1) + got / self._rate
        if self._free > now:
            time.sleep(self._free - now + 0.1)
        return got


def _read_for(seconds: float, path: str, means: readers.Means) -> float:
    """Read a file again and again; give bytes per second."""
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    began = time.monotonic()
    read = 0
    while time.monotonic() - began < seconds:
        for piece in readers.Reader(fd, means).read(0, size, _BLOCK):
            read += piece.length
            if time.monotonic() - began >= seconds:
                break
    os.close(fd)
    return read / (time.monotonic() - began)


def bench_slow(options: argparse.Namespace, directory: str) -> None:
    """Measure what a limited reader takes of a slow disk it has for itself."""
    path = os.path.join(directory, 'slow')
    common.make_file(path, 64 * units.Mi)
    limit = 8 * units.Mi
    common.print_title(
        f'A disk that is throttled, limit 8 MiB/s, {options.seconds} s each; '
        f'medians of {options.rounds} rounds'
    )
    for rate in (8, 4, 1):

        def bare(rate: int = rate) -> float:
            limiter = limiters.Limiter(limit)
            # Of the same pieces, without any waiting.
            limiter.before = limiter.hashed = lambda _any: None  # type: ignore
            disk = _Disk(rate * units.Mi)
            means = readers.Means(limiter, pread=disk.pread)
            return _read_for(options.seconds, path, means)

        def ours(rate: int = rate) -> float:
            disk = _Disk(rate * units.Mi)
            means = readers.Means(
                limiters.Limiter(limit), ahead=True, pread=disk.pread
            )
            return _read_for(options.seconds, path, means)

        found = common.interleave(options.rounds, {'ours': ours, 'bare': bare})
        shares = common.ratios(found['ours'], found['bare'])
        median = statistics.median(shares)
        common.print_target(
            f'limited / not, of {rate} MiB/s',
            common.spread(shares),
            '>= 0.9',
            median >= 0.9,
        )
    os.unlink(path)


@contextlib.contextmanager
def _busy(cpu: int) -> Iterator[None]:
    """Keep a processor busy."""
    with subprocess.Popen(
        ['taskset', '-c', str(cpu), sys.executable, '-c', 'while True: pass']
    ) as process:
        try:
            yield
        finally:
            process.kill()


# What a scrub does, at a priority and on a processor of its own.
_LIMITED = """
import os, sys, threading, time
from nova_imagecache.scrub import hashing, limiters, readers
path, seconds = sys.argv[1], float(sys.argv[2])
os.nice(5)
os.sched_setaffinity(0, {0})
fd = os.open(path, os.O_RDONLY)
size = os.fstat(fd).st_size
stop = threading.Event()
means = readers.Means(
    limiters.Limiter(8 * 2**20, stop.wait), stop=stop, ahead=True
)
began, read = time.monotonic(), 0
while time.monotonic() - began < seconds:
    pieces = readers.Reader(fd, means).read(0, size, 4 * 2**20)
    for block in hashing.read_blocks(pieces, 4 * 2**20, ['xxh3_128']):
        read += block.length
        if time.monotonic() - began >= seconds:
            break
print('rate', read / (time.monotonic() - began))
"""


def bench_busy(options: argparse.Namespace, directory: str) -> None:
    """Measure what a limited reader reaches where a processor is busy."""
    path = os.path.join(directory, 'busy')
    common.make_file(path, 64 * units.Mi)
    common.print_title(
        f'Limit 8 MiB/s, nice 5, one processor, {options.seconds} s each; '
        f'medians of {options.rounds} rounds'
    )

    def alone() -> float:
        cost = common.run(
            sys.executable, '-P', '-c', _LIMITED, path, str(options.seconds)
        )
        return float(cost.output.split('rate')[1]) / units.Mi

    def beside() -> float:
        with _busy(0):
            return alone()

    found = common.interleave(
        options.rounds, {'alone': alone, 'beside': beside}
    )
    common.print_value('alone, MiB/s', common.spread(found['alone']))
    common.print_value(
        'beside a busy loop, MiB/s', common.spread(found['beside'])
    )
    common.print_value(
        'beside / alone',
        common.spread(common.ratios(found['beside'], found['alone'])),
    )
    os.unlink(path)


def bench_many(options: argparse.Namespace, directory: str) -> None:
    """Measure what a scrub takes for a file, of few and of many."""
    few, many = options.files
    size: int = options.file_size
    common.print_title(
        f'First scrubs of {few} and of {many} files of '
        f'{size / units.Ki:g} KiB, no limit'
    )
    cpu: list[float] = []
    seconds: list[float] = []
    memory: list[int] = []
    for count in (few, many):
        cache = common.Cache(directory, f'many-{count}')
        for number in range(count):
            with open(cache.file(str(number)), 'xb') as file:
                file.write(os.urandom(size))
        common.make_cold()
        cost = first_scrub(cache, 0)
        cpu.append(cost.cpu / count)
        seconds.append(cost.seconds / count)
        # The most so far, and many come last.
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        shutil.rmtree(cache.instances)
        common.print_value(
            f'{count} files, of each',
            f'{cpu[-1] * 1000:.2f} ms of CPU, {seconds[-1] * 1000:.2f} ms',
        )
    ratio = cpu[1] / cpu[0]
    common.print_target(
        'CPU of a file of many / of few',
        f'{ratio:.2f}',
        '<= 1.2',
        ratio <= 1.2,
    )
    grown = (memory[1] - memory[0]) * units.Ki / (many - few)
    common.print_value('memory that a file more takes', f'{grown:.0f} bytes')


_PARTS = {
    'fragments': bench_fragments,
    'sparse': bench_sparse,
    'slow': bench_slow,
    'busy': bench_busy,
    'many': bench_many,
}


def main() -> None:
    """Measure, and print what was measured."""
    parser = common.parser(__doc__, 5, list(_PARTS))
    parser.add_argument(
        '--fragments',
        type=lambda text: int(float(text) * units.Mi),
        default='8',
        help='data in islands, MiB',
    )
    parser.add_argument(
        '--hole', type=common.gib, default='2', help='of a sparse file, GiB'
    )
    parser.add_argument(
        '--seconds', type=float, default=10, help='of each measurement'
    )
    parser.add_argument(
        '--files', type=int, nargs=2, default=[10000, 60000], help='few, many'
    )
    parser.add_argument(
        '--file-size',
        type=lambda text: int(float(text) * units.Ki),
        default='4',
        help='of each of many, KiB',
    )
    options = parser.parse_args()
    with common.workspace(options.directory) as directory:
        for name in options.only:
            _PARTS[name](options, directory)


if __name__ == '__main__':
    main()
