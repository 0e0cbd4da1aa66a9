# SPDX-License-Identifier: Apache-2.0

"""What guests notice of checksums: while they run, and when they start.

A guest that runs is a reader of 4 KiB at random places of a file of its own,
past the page cache, one read at a time. A guest that starts is an image that
is fetched from memory into the cache.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

import common
from oslo_config import cfg
from oslo_utils import units
import psutil

from nova_imagecache.conf import Settings
from nova_imagecache.fetch import images
from nova_imagecache import hook

# Makes the file cold each time, as the manual of dd has it.
_SHA1SUM = (
    'while dd if="$1" iflag=nocache count=0 status=none; do sha1sum "$1"; done'
)

_TOO_EARLY = 'the scrub ended too early; enlarge --size'


@dataclasses.dataclass(frozen=True)
class Latency:
    """What a reader has seen.

    :ivar p99: microseconds that 99 % of its reads did not exceed
    :ivar p999: likewise, of 99.9 %
    :ivar iops: its reads per second
    :ivar rate: bytes per second that were read beside it
    """

    p99: float
    p999: float
    iops: float
    rate: float = 0


def read_at_random(path: str, size: int, seconds: int) -> Latency:
    """Be a guest that reads."""
    cost = common.run(
        *('fio', '--name=guest', f'--filename={path}', f'--size={size}'),
        # A thread, so that it ends with its process.
        *('--thread', '--readonly', '--rw=randread', '--bs=4k'),
        *('--direct=1', '--ioengine=psync', '--iodepth=1', '--norandommap'),
        *('--randrepeat=0', '--time_based', f'--runtime={seconds}'),
        *('--percentile_list=99:99.9', '--output-format=json'),
    )
    job = json.loads(cost.output)['jobs'][0]['read']
    percentile = job['clat_ns']['percentile']
    return Latency(
        percentile['99.000000'] / 1000,
        percentile['99.900000'] / 1000,
        job['iops'],
    )


@contextlib.contextmanager
def hashing(path: str) -> Iterator[None]:
    """Run sha1sum over a cold file, again and again."""
    with subprocess.Popen(
        ['sh', '-c', _SHA1SUM, 'sh', path],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class Node:
    """A cache with one big base file that has a ledger."""

    def __init__(
        self, directory: str, program: common.Program, size: int
    ) -> None:
        """Make it, and scrub it once."""
        self.directory = directory
        self.program = program
        self.cache = common.Cache(directory, 'instances')
        self.base_file = self.cache.add('big', size)
        program.scrub(self.cache)


@contextlib.contextmanager
def scrubbing(node: Node) -> Iterator[psutil.Process]:
    """Start a scrub at the default limit, and suspend it.

    So that it can go on while something is measured, and not be there while
    something else is. There is no burst after a pause.
    """
    command = node.program.command(node.cache)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=node.program.env
    ) as process:
        assert process.stdout is not None
        scrub = psutil.Process(process.pid)
        try:
            # It says so once it has read for a second.
            if not process.stdout.readline().startswith(b'{"progress"'):
                raise RuntimeError('the scrub does not read')
            scrub.suspend()
            yield scrub
            if process.poll() is not None:
                raise RuntimeError(_TOO_EARLY)
        finally:
            process.terminate()
            process.send_signal(signal.SIGCONT)
            process.communicate()


@contextlib.contextmanager
def resumed(scrub: psutil.Process) -> Iterator[None]:
    """Let a scrub go on for a while, once it reads.

    A read during which it was suspended looks as if it took long, as on a busy
    disk, and then the scrub waits for seconds.

    :raises RuntimeError: it has ended
    """
    enough = scrub.io_counters().read_bytes + units.Mi
    scrub.resume()
    try:
        while scrub.io_counters().read_bytes < enough:
            if scrub.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError(_TOO_EARLY)
            time.sleep(0.01)
        yield
    finally:
        scrub.suspend()


def bench_latency(options: argparse.Namespace, node: Node) -> None:
    """Measure what a reader sees alone, beside a scrub and beside sha1sum."""
    guest = os.path.join(node.directory, 'guest')
    common.make_file(guest, options.guest_size)
    common.print_title(
        f'Random 4 KiB reader of {options.guest_size / units.Gi:g} GiB, '
        f'{options.seconds} s each; {options.rounds} interleaved rounds'
    )
    common.make_cold(node.base_file, guest)

    def alone() -> Latency:
        return read_at_random(guest, options.guest_size, options.seconds)

    def beside_sha1sum() -> Latency:
        with hashing(node.base_file):
            return alone()

    with scrubbing(node) as scrub:

        def beside_scrub() -> Latency:
            with resumed(scrub):
                before = scrub.io_counters().read_bytes
                start = time.monotonic()
                latency = alone()
                rate = (scrub.io_counters().read_bytes - before) / (
                    time.monotonic() - start
                )
            return dataclasses.replace(latency, rate=rate)

        # What comes first differs from what comes later.
        alone()
        found = common.interleave(
            options.rounds,
            {
                'alone': alone,
                'scrub': beside_scrub,
                'again': alone,
                'sha1sum': beside_sha1sum,
            },
        )
    os.unlink(guest)
    print_latencies(found, Settings('').scrub_bandwidth)


def print_latencies(found: dict[str, list[Latency]], limit: int) -> None:
    """Print what a reader has seen."""
    for key, label in (
        ('alone', 'alone'),
        ('again', 'alone again'),
        ('scrub', f'beside a scrub at {limit / units.Mi:g} MiB/s at most'),
        ('sha1sum', 'beside sha1sum of a cold file'),
    ):
        p99 = statistics.median(each.p99 for each in found[key])
        p999 = statistics.median(each.p999 for each in found[key])
        iops = statistics.median(each.iops for each in found[key])
        common.print_value(
            label,
            f'p99 {p99:.1f} us, p99.9 {p999:.1f} us, {iops:.0f} reads/s',
        )
    rates = [each.rate / units.Mi for each in found['scrub']]
    common.print_value('MiB/s that the scrub read', common.spread(rates))

    def ratios(key: str, part: str) -> list[float]:
        ours: list[float] = [getattr(each, part) for each in found[key]]
        peers: list[float] = [getattr(each, part) for each in found['alone']]
        return common.ratios(ours, peers)

    for key, label in (
        ('again', 'alone again'),
        ('sha1sum', 'sha1sum'),
        ('scrub', 'scrub'),
    ):
        common.print_value(
            f'p99.9, {label} / alone', common.spread(ratios(key, 'p999'))
        )
    for key, label in (('again', 'alone again'), ('sha1sum', 'sha1sum')):
        common.print_value(
            f'p99, {label} / alone', common.spread(ratios(key, 'p99'))
        )
    noise = common.noise(ratios('again', 'p99'))
    scrub = ratios('scrub', 'p99')
    common.print_target(
        'p99, scrub / alone',
        common.spread(scrub),
        f'<= 1.1 or noise (x {noise:.3f})',
        statistics.median(scrub) <= max(1.1, noise),
    )


def bytes_read(work: Callable[[], object]) -> int:
    """Say how many bytes are read, from disk or page cache, to do something.

    By this process; there is no other here.
    """
    counters = psutil.Process().io_counters
    # To look at the counters counts as well.
    start, before = counters().read_chars, counters().read_chars
    work()
    return int(counters().read_chars - before - (before - start))


def bench_fetch(options: argparse.Namespace, node: Node) -> None:
    """Measure how long it takes to fetch an image from memory."""
    path = node.cache.file('fetched')
    name = os.path.basename(path)
    content = os.urandom(options.image_size)
    common.print_title(
        f'Fetch of an image of {options.image_size / units.Mi:g} MiB from '
        f'memory; {options.rounds} interleaved rounds'
    )

    def write(target: str) -> None:
        with open(target, 'xb') as file:
            file.write(content)

    def fetcher(checksums: bool) -> Callable[[], object]:
        conf = cfg.ConfigOpts()
        conf([], project='nova', default_config_files=[])
        hook.register_opts(conf)
        conf.set_override('instances_path', node.cache.instances)
        group = 'image_cache'
        conf.set_override('checksum_base_images', checksums, group=group)
        return lambda: hook.cache_image(write, name, conf=conf)

    off, on = fetcher(False), fetcher(True)

    def timed(fetch: Callable[[], object]) -> float:
        os.sync()
        cost = common.measure(fetch)
        os.unlink(path)
        return cost.seconds

    with scrubbing(node) as scrub:

        def beside_scrub() -> float:
            with resumed(scrub):
                return timed(on)

        found = common.interleave(
            options.rounds,
            {
                'off': lambda: timed(off),
                'on': lambda: timed(on),
                'again': lambda: timed(off),
                'scrub': beside_scrub,
            },
        )
    for key, label in (
        ('off', 'checksums off'),
        ('again', 'checksums off again'),
        ('on', 'checksums on'),
        ('scrub', 'checksums on, beside a scrub at the default limit'),
    ):
        seconds = statistics.median(found[key])
        common.print_value(label, f'{seconds:.3f} s')
    same = common.ratios(found['again'], found['off'])
    common.print_value('off again / off', common.spread(same))
    ratios = common.ratios(found['scrub'], found['off'])
    common.print_value('on, beside a scrub / off', common.spread(ratios))
    ratios = common.ratios(found['on'], found['off'])
    noise = common.noise(same)
    common.print_target(
        'on / off',
        common.spread(ratios),
        f'1.00 within noise (x {noise:.3f})',
        1 / noise <= statistics.median(ratios) <= noise,
    )
    read = []
    for fetch in (off, on):
        read.append(bytes_read(fetch))
        headers = bytes_read(lambda: images.inspect(path))
        os.unlink(path)
    common.print_value('bytes that the format inspector reads', f'{headers}')
    common.print_value('bytes read back, off and on', f'{read[0]}, {read[1]}')
    past = max(read) - headers
    common.print_target('past the headers', f'{past}', '0', past == 0)


_PARTS = {
    'latency': bench_latency,
    'fetch': bench_fetch,
}


def main() -> None:
    """Measure, and print what was measured."""
    parser = common.parser(__doc__, 21, list(_PARTS))
    parser.add_argument(
        '--size', type=common.gib, default='2', help='of the base file, GiB'
    )
    parser.add_argument(
        '--guest-size',
        type=common.gib,
        default='1',
        help="of the guest's disk, GiB",
    )
    parser.add_argument(
        '--image-size',
        type=common.gib,
        default='0.25',
        help='of the image that is fetched, GiB',
    )
    parser.add_argument(
        '--seconds', type=int, default=2, help='that the guest reads each time'
    )
    options = parser.parse_args()
    if 'latency' in options.only and not shutil.which('fio'):
        sys.exit('fio is missing, the guest here: install it (bindep bench)')
    with common.workspace(options.directory) as directory:
        node = Node(directory, common.Program(directory), options.size)
        for name in options.only:
            _PARTS[name](options, node)


if __name__ == '__main__':
    main()
