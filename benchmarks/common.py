# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks of scrubbing have in common."""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NoReturn
from typing import TypeVar

from oslo_utils import units

from nova_imagecache import names

_T = TypeVar('_T')

_PIECE = 4 * units.Mi
_PAGE = 4096

_DROP_CACHES = '/proc/sys/vm/drop_caches'


def gib(text: str) -> int:
    """Read a size that is given in GiB."""
    size = int(float(text) * units.Gi)
    if size < _PAGE:
        raise ValueError(text)
    return size


def odd(text: str) -> int:
    """Read a number of rounds that has a median."""
    rounds = int(text)
    if rounds < 1 or rounds % 2 == 0:
        raise argparse.ArgumentTypeError('it must be odd')
    return rounds


def parser(
    description: str | None, rounds: int, parts: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Make a parser with the options that all have."""
    made = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    if parts:
        made.add_argument(
            '--only',
            choices=parts,
            nargs='+',
            default=list(parts),
            help='measure nothing but this',
        )
    made.add_argument('--rounds', type=odd, default=rounds, help='odd')
    made.add_argument(
        '--directory',
        # Not in the working tree, where git and others would find them.
        default='/var/tmp',
        help='temporary files go in here; it must be on a disk',
    )
    return made


def _end(_signal: int, _frame: object) -> NoReturn:
    sys.exit('ended by a signal')


@contextlib.contextmanager
def workspace(directory: str) -> Iterator[str]:
    """Give a directory that is removed in the end, whatever happens."""
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(
        prefix='nova-imagecache-bench-', dir=os.path.abspath(directory)
    ) as path:
        print_machine(path)
        yield path


def print_machine(path: str) -> None:
    """Say what is measured on."""
    found = subprocess.run(
        ['findmnt', '-no', 'FSTYPE,SOURCE', '-T', path],
        check=True,
        capture_output=True,
        text=True,
    )
    file_system = ' '.join(found.stdout.split())
    if file_system.split()[0] == 'tmpfs':
        sys.exit(f'{path} is in memory; name another with --directory')
    with open('/proc/cpuinfo') as file:
        flags = 'sha_ni' in file.read()
    load = ', '.join(f'{each:.2f}' for each in os.getloadavg())
    cold = 'drop_caches' if _can_drop() else 'fsync, POSIX_FADV_DONTNEED'
    print(
        f'{os.cpu_count()} CPUs, {"with" if flags else "without"} SHA '
        f'instructions; {file_system}; Linux {os.uname().release}; '
        f'load {load}; made cold with {cold}',
        flush=True,
    )


def make_file(path: str, size: int, data: int | None = None) -> None:
    """Write random data, spread evenly over a file that is sparse else.

    :param data: bytes of it, by default as many as the file has
    """
    data = size if data is None else data
    number = max(1, -(-data // _PIECE))
    step = max(_PIECE, size // number // _PIECE * _PIECE)
    with open(path, 'xb') as file:
        file.truncate(size)
        for index in range(number):
            file.seek(index * step)
            left = min(data - index * _PIECE, size - index * step)
            file.write(os.urandom(min(_PIECE, left)))
        file.flush()
        os.fsync(file.fileno())


def _can_drop() -> bool:
    try:
        with open(_DROP_CACHES, 'w'):
            return True
    except OSError:
        return False


def make_cold(*paths: str) -> None:
    """Have nothing of these files in the page cache."""
    os.sync()
    try:
        with open(_DROP_CACHES, 'w') as file:
            file.write('3')
    except OSError:
        for path in paths:
            with open(path, 'rb') as file_to_drop:
                fd = file_to_drop.fileno()
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def resident(path: str) -> int:
    """Say how many bytes of a file are in the page cache."""
    command = ['fincore', '--bytes', '--noheadings', '--output', 'RES', path]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(found.stdout)


def page_cache() -> int:
    """Say how many bytes the page cache of the machine has."""
    with open('/proc/meminfo') as file:
        for line in file:
            if line.startswith('Cached:'):
                return int(line.split()[1]) * units.Ki
    raise RuntimeError('there is no Cached in /proc/meminfo')


@dataclasses.dataclass(frozen=True)
class Cost:
    """What something took.

    :ivar cpu: seconds, user and system
    :ivar cached: bytes by which the page cache of the machine grew
    """

    seconds: float
    cpu: float
    cached: int
    output: str = ''


def measure(
    work: Callable[[], object], who: int = resource.RUSAGE_SELF
) -> Cost:
    """Measure something once.

    :param who: whose CPU seconds count: ours, or those of child processes
    """
    cached = page_cache()
    before = resource.getrusage(who)
    start = time.perf_counter()
    output = work()
    seconds = time.perf_counter() - start
    after = resource.getrusage(who)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(seconds, cpu, page_cache() - cached, str(output or ''))


def run(*command: str, env: Mapping[str, str] | None = None) -> Cost:
    """Run a program to its end, and measure it."""

    def work() -> str:
        process = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**(os.environ if env is None else env), 'LC_ALL': 'C'},
        )
        return process.stdout

    return measure(work, resource.RUSAGE_CHILDREN)


def interleave(
    rounds: int, works: Mapping[str, Callable[[], _T]]
) -> dict[str, list[_T]]:
    """Do several things in turn, each round beginning with another one."""
    results: dict[str, list[_T]] = {name: [] for name in works}
    order = list(works)
    for _round in range(rounds):
        for name in order:
            results[name].append(works[name]())
        order.append(order.pop(0))
    return results


def ratios(ours: Sequence[float], peers: Sequence[float]) -> list[float]:
    """Compare what was measured in the same round."""
    return [our / peer for our, peer in zip(ours, peers, strict=True)]


def noise(same: Sequence[float]) -> float:
    """Say how much two measurements of the same differ.

    Three in four of these ratios differ from 1 by less.
    """
    apart = [max(ratio, 1 / ratio) for ratio in same]
    if len(apart) < 2:
        return apart[0]
    return statistics.quantiles(apart, n=4, method='inclusive')[2]


def spread(values: Sequence[float]) -> str:
    """Give the median, the least and the greatest."""
    median = statistics.median(values)
    return f'{median:.3f} ({min(values):.3f} to {max(values):.3f})'


def print_title(title: str) -> None:
    """Say what comes now."""
    print(f'\n{title}', flush=True)


def print_value(label: str, value: str) -> None:
    """Print something that was measured."""
    print(f'  {label + ":":<52} {value}', flush=True)


def print_target(label: str, value: str, target: str, reached: bool) -> None:
    """Print a figure that has a target."""
    word = 'reached' if reached else 'NOT reached'
    print_value(label, f'{value}, target {target}: {word}')


class Cache:
    """A cache below a directory."""

    def __init__(self, directory: str, name: str) -> None:
        """Make an empty one."""
        self.instances = os.path.join(directory, name)
        self.base = os.path.join(self.instances, '_base')
        os.makedirs(self.base)

    def file(self, image: str) -> str:
        """Give the path of the base file of an image."""
        return os.path.join(self.base, names.get_cache_fname(image))

    def add(self, image: str, size: int, data: int | None = None) -> str:
        """Make a base file, as make_file() does; give its path."""
        path = self.file(image)
        make_file(path, size, data)
        return path


class Program:
    """The program nova-imagecache, for which files are always due."""

    def __init__(self, directory: str) -> None:
        """Prepare to run it.

        :param directory: for what it needs
        """
        self._config = os.path.join(directory, 'nova.conf')
        with open(self._config, 'x') as file:
            file.write('[image_cache]\nchecksum_interval_seconds = 0\n')
        self._empty = Cache(directory, 'empty')
        # As installed: byte code is there. Not of the interpreter's own
        # choice, so that nothing is left in the working tree.
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith('PYTHON') or name == 'PYTHONPATH'
        }
        self.env['PYTHONPYCACHEPREFIX'] = os.path.join(directory, 'bytecode')
        self.start_up()

    def command(self, cache: Cache, *options: str) -> list[str]:
        """Give the command that scrubs a cache; options come last."""
        return [
            # Not what the working directory has, but what we have.
            *(sys.executable, '-P', '-m', 'nova_imagecache'),
            *self.arguments(cache, *options),
        ]

    def arguments(self, cache: Cache, *options: str) -> list[str]:
        """Give the arguments of that command."""
        return [
            *(
                '--config-file',
                self._config,
                '--instances-path',
                cache.instances,
            ),
            *('scrub', '--progress', 'json', *options),
        ]

    def scrub(self, cache: Cache) -> Cost:
        """Scrub a cache without a limit."""
        command = self.command(cache, '--bandwidth', '0')
        return run(*command, env=self.env)

    def start_up(self) -> Cost:
        """Scrub an empty cache: the program is in the page cache then."""
        return self.scrub(self._empty)
