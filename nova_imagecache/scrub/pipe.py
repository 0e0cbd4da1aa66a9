# SPDX-License-Identifier: Apache-2.0

"""The pipe from the manager to the reading process: both of its ends.

The settings go through it on one line, and after that nothing does: the
reading process ends when the pipe is closed (decision 0018).
"""

import contextlib
import dataclasses
import json
import os
import threading
from typing import Any
from typing import BinaryIO

import msgspec

from nova_imagecache.conf import Settings

# Longer than any settings, and no longer than what a pipe holds.
_LINE_LIMIT = 65536


def open_with(settings: Settings) -> tuple[int, int]:
    """Open a pipe that holds settings.

    They fit into it, so this does not wait for whoever reads them.

    :returns: the end of the reading process, and ours
    :raises OSError: it cannot be opened
    """
    end, ours = os.pipe()
    line = json.dumps(dataclasses.asdict(settings)).encode() + b'\n'
    os.write(ours, line)
    return end, ours


def receive(end: BinaryIO | None) -> Settings:
    """Read the settings in the reading process.

    :param end: its standard input
    :raises ValueError: there are none
    """
    return parse(json.loads(b'' if end is None else end.readline(_LINE_LIMIT)))


def parse(values: Any) -> Settings:
    """Make settings of the values of all their fields.

    :raises ValueError: these are others, as of another release
    """
    fields = {field.name for field in dataclasses.fields(Settings)}
    if not isinstance(values, dict) or values.keys() != fields:
        raise ValueError('these are no settings')
    return msgspec.convert(values, Settings)


def set_when_closed(stop: threading.Event, end: int = 0) -> None:
    """Have an event set when the manager closes the pipe.

    :param end: the standard input of the reading process
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(end, _LINE_LIMIT):
                pass
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
