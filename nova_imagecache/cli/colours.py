# SPDX-License-Identifier: Apache-2.0

"""Colours for a terminal, and for nothing else."""

import os
from typing import IO

GREEN = '1;32'
YELLOW = '1;33'
RED = '1;31'


def on_terminal(stream: IO[str], text: str, colour: str) -> str:
    """Give a text in colour, where the stream is a terminal that may have it.

    NO_COLOR in the environment says that it may not, and so does a terminal
    that has none.
    """
    plain = 'NO_COLOR' in os.environ or os.environ.get('TERM') == 'dumb'
    if plain or not stream.isatty():
        return text
    return f'\033[{colour}m{text}\033[0m'
