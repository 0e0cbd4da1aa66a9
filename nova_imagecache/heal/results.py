# SPDX-License-Identifier: Apache-2.0

"""What may become of a bad block: a fixed list."""

import enum


class Result(enum.StrEnum):
    """What became of one block.

    The values are stable: they are kept in records and in metrics.

    REPAIRED: it holds good data, on the medium
    WAS_GOOD: it could be read, and was what it should be
    POSSIBLE: in a dry run: there is good data for it
    NO_DIGEST: nothing tells which data would be good
    NO_DATA: no source gave data with its digest
    INTERRUPTED: the repair was ended before it was done with the block, or
        could say so
    """

    REPAIRED = 'repaired'
    WAS_GOOD = 'was-good'
    POSSIBLE = 'possible'
    NO_DIGEST = 'no-digest'
    NO_DATA = 'no-data'
    CHANGED = 'changed'
    LINKED = 'linked'
    IMMUTABLE = 'immutable'
    READ_ONLY = 'read-only'
    NOT_PERMITTED = 'not-permitted'
    NO_SPACE = 'no-space'
    MEDIUM = 'medium'
    HUNG = 'hung'
    FAILED = 'failed'
    INTERRUPTED = 'interrupted'

    @property
    def is_good(self) -> bool:
        """Whether the block is good now."""
        return self in (Result.REPAIRED, Result.WAS_GOOD)

    @property
    def ends(self) -> bool:
        """Whether it would be the same with each other block of the file."""
        return self in _OF_THE_FILE


_OF_THE_FILE = frozenset(
    {
        Result.CHANGED,
        Result.LINKED,
        Result.IMMUTABLE,
        Result.READ_ONLY,
        Result.NOT_PERMITTED,
        Result.NO_SPACE,
        Result.HUNG,
    }
)
