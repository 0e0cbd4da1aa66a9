# SPDX-License-Identifier: Apache-2.0

"""What the exporter takes to answer, and what a pass to leave its figures.

There is no peer: what is compared is a small cache with a large one.
"""

import argparse
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

import common
from oslo_utils import units

from nova_imagecache.cache import layouts
from nova_imagecache.conf import Settings
from nova_imagecache import names
from nova_imagecache.outlets import figures
from nova_imagecache.outlets import summaries
from nova_imagecache.passes import pipeline

_SIZE = 4 * units.Ki
_SECONDS = 0.2
_MEMORY = 64 * units.Mi


@contextlib.contextmanager
def _exporter(
    cache: common.Cache, program: common.Program
) -> Iterator[tuple[int, str]]:
    """Give the number of the process, and where its metrics are."""
    command = [
        *(sys.executable, '-P', '-m', 'nova_imagecache'),
        *('--instances-path', cache.instances, 'exporter', '--port', '0'),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=program.env
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield process.pid, line.removeprefix('Serving ').strip()
        finally:
            process.send_signal(signal.SIGTERM)


def _peak(pid: int) -> int:
    with open(f'/proc/{pid}/status') as file:
        (found,) = re.findall(r'VmHWM:\s*(\d+) kB', file.read())
    return int(found) * units.Ki


def _ask(url: str) -> float:
    start = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        if b'last_pass_timestamp_seconds' not in answer.read():
            raise RuntimeError('no pass is told')
    return time.perf_counter() - start


def _fill(cache: common.Cache, files: int) -> list[str]:
    data = os.urandom(_SIZE)
    images = [str(number) for number in range(files)]
    for image in images:
        with open(cache.file(image), 'xb') as file:
            file.write(data)
    return images


def _measure(
    label: str,
    options: argparse.Namespace,
    cache: common.Cache,
    program: common.Program,
) -> None:
    with _exporter(cache, program) as (pid, url):
        first = _ask(url)
        later = [_ask(url) for _round in range(options.rounds)]
        peak = _peak(pid)
    worst = max(first, *later)
    common.print_target(
        f'{label}, the slowest of {options.rounds + 1} answers',
        f'{1000 * worst:.1f} ms (median {1000 * statistics.median(later):.1f}'
        ')',
        '< 200 ms',
        worst < _SECONDS,
    )
    common.print_target(
        f'{label}, peak memory',
        f'{peak / units.Mi:.1f} MiB',
        '< 64 MiB',
        peak < _MEMORY,
    )


def bench_exporter(
    options: argparse.Namespace, directory: str, program: common.Program
) -> None:
    """Measure the answers of exporters over a small and a large cache."""
    common.print_title('The exporter')
    for files in options.files:
        cache = common.Cache(directory, f'exporter-{files}')
        images = _fill(cache, files)
        settings = Settings(
            instances_path=cache.instances,
            checksum=True,
            scrub_bandwidth=0,
            witnesses=('overlays',),
        )
        pipeline.Pass(settings, inline=True).run()
        costs = []
        kept = []
        # The first one takes down what the one before it has read.
        pipeline.Pass(settings).run()
        for _round in range(options.rounds):
            start = time.process_time()
            report = pipeline.Pass(settings).run()
            middle = time.process_time()
            if figures.keep(settings, report):
                raise RuntimeError('the figures cannot be kept')
            costs.append(middle - start)
            kept.append(time.process_time() - middle)
        _measure(f'{files} files', options, cache, program)
        share = statistics.median(kept) / statistics.median(costs)
        common.print_value(
            f'{files} files, CPU time to leave the figures',
            f'{1000 * statistics.median(kept):.1f} ms ({100 * share:.1f} %)',
        )
        common.print_value(
            f'{files} files, CPU time of a pass, and from the least to the '
            'most',
            f'{1000 * statistics.median(costs):.1f} ms, '
            f'{1000 * (max(costs) - min(costs)):.1f} ms',
        )
        layout = layouts.Layout.of(settings)
        summary = summaries.load(layout, settings.host)
        if summary is None:
            raise RuntimeError('there are no figures')
        summaries.put(
            layout,
            settings.host,
            dataclasses.replace(
                summary,
                images=tuple(
                    summaries.Named(names.get_cache_fname(image), image)
                    for image in images
                ),
            ),
        )
        _measure(f'{files} files by name', options, cache, program)


def main() -> None:
    """Measure, and print what was measured."""
    parser = common.parser(__doc__, 5)
    parser.add_argument('--files', type=int, nargs='+', default=[10, 10000])
    options = parser.parse_args()
    with common.workspace(options.directory) as directory:
        bench_exporter(options, directory, common.Program(directory))


if __name__ == '__main__':
    main()
