# SPDX-License-Identifier: Apache-2.0

"""A good block out of several copies, none of which is good: pure functions.

Where a page of 4 KiB is bad in one copy, and another page in another one, all
of the block may still be there.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools

Page = bytes | None

# Each is hashed, which takes a millisecond. Eight pages of which there are two
# kinds; and any number where most of the copies agree.
_MOST_TRIES = 256


def combinations(copies: Sequence[Sequence[Page]]) -> Iterator[bytes]:
    """Put blocks together of the pages of several copies.

    The first one has of each page what most copies have; nothing where a page
    is in none of them. What is in one copy as a whole is not given.

    :param copies: of one block: its pages, and None for one that is missing
    """
    choices = [_choices(pages) for pages in zip(*copies, strict=True)]
    tried = itertools.islice(itertools.product(*choices), _MOST_TRIES)
    whole = [tuple(copy) for copy in copies]
    for pages in tried:
        if pages not in whole:
            yield b''.join(pages)


def _choices(pages: Sequence[Page]) -> list[bytes]:
    """Give what there is of one page, what most copies have first."""
    known = [page for page in pages if page is not None]
    return sorted(dict.fromkeys(known), key=lambda page: -known.count(page))
