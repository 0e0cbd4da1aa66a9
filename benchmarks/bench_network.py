# SPDX-License-Identifier: Apache-2.0

"""How long a pass takes where each request to the storage takes its time.

``instances_path`` is on a file system of our own, ``delayed.c``, that answers
each request after a millisecond and counts them. Its peer is whoever does no
more than what no pass can do without: list the directory of each guest, open
its disk and read 64 KiB of it, 16 at a time.

And how long a pass takes there that removes base files, beside one that
removes none and remembers nothing; and for how long Nova's locks are held.

And for how long the thread of a host is held that has a pass made, and how
long no other one of its threads runs, with native threads and under eventlet;
beside the same pass made in that thread.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib
from importlib import util
import os
import shutil
import statistics
import subprocess
import sys
import time
from unittest import mock

import common
import nodes
from oslo_utils import units

from nova_imagecache.cache import mounts

_SOURCE = os.path.join(os.path.dirname(__file__), 'delayed.c')
_GREEN = os.path.join(os.path.dirname(__file__), 'green.py')
_THREADS = 16
_READ = 64 * units.Ki
# As a client of NFS, for a file that has just changed (acregmin).
_TIMEOUT_SECONDS = 3
_MOUNT_SECONDS = 10
_FILES = ('disk.info', 'console.log')

Requests = dict[str, int]


def compile_file_system(directory: str) -> str:
    """Make the program of the file system; exit where that cannot be done."""
    program = os.path.join(directory, 'delayed')
    if not shutil.which('fusermount3'):
        sys.exit('fusermount3 is missing: install fuse3 (bindep bench)')
    try:
        flags = subprocess.run(
            ['pkg-config', '--cflags', '--libs', 'fuse3'],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.split()
        subprocess.run(
            ['gcc', '-O2', '-o', program, _SOURCE, *flags], check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(
            f'{_SOURCE} cannot be compiled: {error}; install gcc, pkg-config '
            'and libfuse3-dev (fuse3-devel; bindep bench)'
        )
    return program


class Storage:
    """A directory, and where it is mounted with a delay.

    :ivar behind: the directory itself
    :ivar path: the mount point
    """

    def __init__(self, behind: str, path: str) -> None:
        """Mount nothing yet."""
        self.behind = behind
        self.path = path

    def requests(self) -> Requests:
        """Say how many requests there were of each kind, and begin anew."""
        text = os.getxattr(self.path, 'user.requests').decode()
        counts = (line.split() for line in text.splitlines())
        return {kind: int(count) for kind, count in counts}

    def expire(self) -> None:
        """Have the kernel believe nothing any more of what it knows."""
        time.sleep(_TIMEOUT_SECONDS + 0.5)


@contextlib.contextmanager
def mounted(program: str, directory: str, delay: int) -> Iterator[Storage]:
    """Mount a file system.

    :param delay: of each request, in microseconds
    """
    storage = Storage(
        os.path.join(directory, 'behind'), os.path.join(directory, 'mount')
    )
    os.makedirs(storage.path)
    options = f'root={storage.behind},delay={delay},timeout={_TIMEOUT_SECONDS}'
    process = subprocess.Popen([program, '-f', '-o', options, storage.path])
    try:
        deadline = time.monotonic() + _MOUNT_SECONDS
        while not os.path.ismount(storage.path):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(
                    f'{storage.path} cannot be mounted; /dev/fuse is needed'
                )
            time.sleep(0.05)
        yield storage
    finally:
        subprocess.run(['fusermount3', '-u', '-z', storage.path], check=False)
        process.wait()


def read_bare(path: str) -> None:
    """List, open and read what each guest has, and nothing else."""

    def read(guest: str) -> None:
        os.listdir(guest)
        fd = os.open(os.path.join(guest, 'disk'), os.O_RDONLY)
        try:
            assert os.pread(fd, _READ, 0)
        finally:
            os.close(fd)

    with os.scandir(path) as entries:
        guests = [each.path for each in entries if each.name[:6] == 'guest-']
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(read, guests))


class Bench:
    """What is measured on one storage."""

    def __init__(self, storage: Storage) -> None:
        """Measure nothing yet."""
        self.storage = storage
        self.requests: dict[str, Requests] = {}

    def measure(
        self,
        name: str,
        what: str,
        before: Callable[[], None] = lambda: None,
        launcher: Sequence[str] = (),
    ) -> nodes.Values:
        """Do something when the kernel has to ask for everything.

        :param before: done before that, behind the storage
        """
        before()
        self.storage.expire()
        self.storage.requests()
        values = nodes.measure(__file__, self.storage.path, what, launcher)
        self.requests[name] = self.storage.requests()
        return values

    def print_requests(self, name: str, guests: int) -> float:
        """Say how many requests there were in the last round.

        :returns: how many a guest
        """
        found = self.requests[name]
        kinds = ', '.join(f'{count} {kind}' for kind, count in found.items())
        each = sum(found.values()) / guests
        common.print_value(
            f'{name}, requests', f'{each:.2f} a guest ({kinds})'
        )
        return each


def _seconds(found: list[nodes.Values]) -> list[float]:
    return [each['seconds'] for each in found]


def count_as_before(
    options: argparse.Namespace, program: str, directory: str, guests: int
) -> int:
    """Count the requests of a pass over so many guests that are as before."""
    behind = os.path.join(directory, 'behind')
    path = os.path.join(directory, 'mount')
    nodes.build(behind, guests, options.base_files, named=path, files=_FILES)
    nodes.age(behind)
    with mounted(program, directory, options.delay) as storage:
        bench = Bench(storage)
        for _pass in range(2):
            time.sleep(options.settle)
            nodes.measure(__file__, path, 'pass')
        bench.measure('few', 'pass')
    return sum(bench.requests['few'].values())


def bench_quiet(
    options: argparse.Namespace, program: str, directory: str
) -> None:
    """Measure passes in which nothing goes."""
    guests, base_files = options.guests, options.base_files
    common.print_title(
        f'A pass over {guests} guests and {base_files} base files, '
        f'{options.delay} us a request'
    )
    behind = os.path.join(directory, 'behind')
    path = os.path.join(directory, 'mount')
    nodes.build(behind, guests, base_files, named=path, files=_FILES)
    with mounted(program, directory, options.delay) as storage:
        bench = Bench(storage)

        def change() -> None:
            nodes.forget(behind)
            nodes.age(behind)

        found: dict[str, list[nodes.Values]] = {
            'bare': [], 'all is new': [], 'as before': []
        }  # fmt: skip
        bench.measure('the first', 'pass')
        for _round in range(options.rounds):
            # In this order: what was new is as before, but for its age.
            found['bare'].append(bench.measure('bare', 'bare'))
            found['all is new'].append(
                bench.measure('all is new', 'pass', change)
            )
            # Somebody may have changed again what had changed a moment ago.
            time.sleep(options.settle)
            nodes.measure(__file__, path, 'pass')
            found['as before'].append(bench.measure('as before', 'pass'))
        bare = _seconds(found['bare'])
        for name, each in found.items():
            common.print_value(
                f'{name}, seconds', common.spread(_seconds(each))
            )
        ratios = common.ratios(_seconds(found['all is new']), bare)
        common.print_target(
            'all is new / bare',
            common.spread(ratios),
            '1.5',
            statistics.median(ratios) <= 1.5,
        )
        common.print_value(
            'as before / bare',
            common.spread(common.ratios(_seconds(found['as before']), bare)),
        )
        bench.print_requests('bare', guests)
        new = bench.print_requests('all is new', guests)
        common.print_target(
            'all is new, requests a guest', f'{new:.2f}', '7', new <= 7
        )
        bench.print_requests('as before', guests)
        # Those for base files and records are not a guest's.
        few = guests // 10
        place = os.path.join(directory, 'few')
        fewer = count_as_before(options, program, place, few)
        more = sum(bench.requests['as before'].values())
        same = (more - fewer) / (guests - few)
        common.print_target(
            'as before, requests for one guest more',
            f'{same:.2f}',
            '1',
            round(same, 2) <= 1,
        )


def bench_removal(
    options: argparse.Namespace, program: str, directory: str
) -> None:
    """Measure passes that remove files, each on a node of its own."""
    unused = options.unused
    used = options.removal_base_files - unused
    common.print_title(
        f'A pass that removes {unused} of {used + unused} base files, '
        f'{used} guests, {options.delay} us a request'
    )
    removing, quiet, locked, requests = [], [], [], []
    for number in range(options.rounds):
        place = os.path.join(directory, f'round-{number}')
        behind = os.path.join(place, 'behind')
        path = os.path.join(place, 'mount')
        nodes.build(behind, used, used, unused, path, _FILES)
        nodes.age(behind)
        with mounted(program, place, options.delay) as storage:
            bench = Bench(storage)
            # From the first pass on they have no user.
            nodes.measure(__file__, path, 'pass')
            quiet.append(
                bench.measure('quiet', 'pass', lambda: nodes.forget(behind))  # noqa: B023
            )
            took = bench.measure('removing', 'later')
            assert took['removed'] == unused, took
            assert took['locks'], took
            removing.append(took)
            locked.append(took['locked'])
            requests.append(
                {name: sum(n.values()) for name, n in bench.requests.items()}
            )
        shutil.rmtree(place)
    common.print_value('quiet, seconds', common.spread(_seconds(quiet)))
    common.print_value('removing, seconds', common.spread(_seconds(removing)))
    ratios = common.ratios(_seconds(removing), _seconds(quiet))
    common.print_target(
        'removing / quiet',
        common.spread(ratios),
        '1.5',
        statistics.median(ratios) <= 1.5,
    )
    common.print_value(
        'requests',
        ', '.join(f'{name} {count}' for name, count in requests[-1].items()),
    )
    common.print_target(
        "a lock of Nova's was held, seconds at most",
        f'{max(locked):.3f}',
        '1',
        max(locked) <= 1,
    )


def bench_host(
    options: argparse.Namespace, program: str, directory: str
) -> None:
    """Measure what a host notices of a pass."""
    guests = options.guests
    common.print_title(
        f'A host while a pass is made over {guests} guests, '
        f'{options.delay} us a request, all is new'
    )
    behind = os.path.join(directory, 'behind')
    path = os.path.join(directory, 'mount')
    nodes.build(behind, guests, options.base_files, named=path, files=_FILES)
    modes: dict[str, tuple[str, ...]] = {'threads': (), 'eventlet': (_GREEN,)}
    if util.find_spec('eventlet') is None:
        common.print_value('eventlet', 'is not installed')
        del modes['eventlet']
    with mounted(program, directory, options.delay) as storage:
        bench = Bench(storage)

        def change() -> None:
            nodes.forget(behind)
            nodes.age(behind)

        for mode, launcher in modes.items():
            found: dict[str, list[nodes.Values]] = {'here': [], 'apart': []}
            for _round in range(options.rounds):
                for what, values in found.items():
                    values.append(
                        bench.measure(
                            f'{mode}, {what}', what, change, launcher
                        )
                    )
            for name, label, most in (
                ('seconds', 'until the report is there, seconds', None),
                ('held', "the host's thread is held, seconds", 1),
                ('ticks', 'no other thread runs, seconds at most', 0.2),
            ):
                here, apart = (
                    [each[name] for each in found[what]]
                    for what in ('here', 'apart')
                )
                label = f'{mode}: {label}'
                common.print_value(f'{label}; here', common.spread(here))
                if most is None:
                    common.print_value(f'{label}; apart', common.spread(apart))
                else:
                    common.print_target(
                        f'{label}; apart',
                        common.spread(apart),
                        f'{most}',
                        max(apart) <= most,
                    )


def main() -> None:
    """Mount, measure, and print what was measured."""
    parser = common.parser(
        __doc__, rounds=3, parts=('quiet', 'removal', 'host')
    )
    parser.add_argument('--guests', type=int, default=2000)
    parser.add_argument('--base-files', type=int, default=10)
    parser.add_argument('--removal-base-files', type=int, default=2000)
    parser.add_argument('--unused', type=int, default=260)
    parser.add_argument(
        '--delay', type=int, default=1000, help='of a request, microseconds'
    )
    parser.add_argument(
        '--settle',
        type=float,
        default=5,
        help='seconds after which a change is not new any more',
    )
    parser.add_argument('--child', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        # As with NFS, whose server dates files. Of a file system of somebody's
        # own nobody knows whose clock it is.
        with mock.patch.object(
            mounts, 'has_one_clock', autospec=True, return_value=True
        ):
            nodes.answer(options.directory, options.child, {'bare': read_bare})
        return
    with common.workspace(options.directory) as directory:
        program = compile_file_system(directory)
        for name, bench in (
            ('quiet', bench_quiet), ('removal', bench_removal),
            ('host', bench_host),
        ):  # fmt: skip
            if name in options.only:
                place = os.path.join(directory, name)
                os.mkdir(place)
                bench(options, program, place)


if __name__ == '__main__':
    main()
