# SPDX-License-Identifier: Apache-2.0

"""How far reading has got, on a terminal and as JSON."""

from collections.abc import Iterator
import contextlib
import json
import sys
import time
from typing import Any
from typing import IO

from oslo_utils import units
import tqdm

from nova_imagecache.scrub import courses

_JSON_PROGRESS_SECONDS = 1.0


def print_json(stream: IO[str], value: Any) -> None:
    """Print one line of JSON, at once."""
    stream.write(json.dumps(value) + '\n')
    stream.flush()


def json_progress(stream: IO[str]) -> courses.ProgressBar:
    """Show how far reading has got as a line of JSON a second."""

    @contextlib.contextmanager
    def bar(total: int) -> Iterator[courses.Progress]:
        began = last = time.monotonic()
        done = 0

        def progress(length: int) -> None:
            nonlocal done, last
            done += length
            now = time.monotonic()
            if now - last < _JSON_PROGRESS_SECONDS:
                return
            last = now
            rate = done / (now - began)
            left = max(0, total - done) / rate if rate else None
            value = {
                'done': done,
                'total': total,
                'rate': round(rate),
                'seconds_left': None if left is None else round(left),
            }
            print_json(stream, {'progress': value})

        yield progress

    return bar


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[courses.Progress]:
    """Show how far reading has got, with rate and time left.

    Only on a terminal.
    """
    # Decision 0059.
    with tqdm.tqdm(
        total=total,
        desc='Reading base files',
        unit='iB',
        unit_scale=True,
        unit_divisor=units.Ki,
        disable=total == 0 or not sys.stderr.isatty(),
        file=sys.stderr,
        leave=False,
    ) as bar:
        yield bar.update
