# SPDX-License-Identifier: Apache-2.0

"""The base files of a cache that is kept, and what is the matter with each."""

import enum
import random

from nova_imagecache import names
from tests.support import scrubbing

COUNT = 6
SIZE = COUNT * scrubbing.BLOCK - 777
#: The block that is bad, where one is.
BAD = 2


class Case(enum.StrEnum):
    """What has become of a file by the time the cache is kept."""

    GOOD = 'good'
    CORRUPT = 'corrupt'
    UNREADABLE = 'unreadable'
    CHANGED = 'changed'
    REBASELINED = 'rebaselined'
    BEGUN = 'begun'
    TOUCHED = 'touched'
    SHA1_ONLY = 'sha1-only'
    SHA1_WRONG = 'sha1-wrong'
    TRASHED = 'trashed'
    DIFFERS = 'differs'
    QUESTION = 'question'
    DOUBTFUL = 'doubtful'

    @property
    def file(self) -> str:
        """The name of its base file."""
        return names.get_cache_fname(self.value)

    @property
    def data(self) -> bytes:
        """What its base file held in the beginning."""
        return random.Random(self.value).randbytes(SIZE)
