# SPDX-License-Identifier: Apache-2.0

"""How far the reading of base files has got, for whoever is shown that.

Apart from the reading itself, which few commands do (decision 0084).
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib

from nova_imagecache import errors

#: Called with the number of bytes that were read since the last call.
Progress = Callable[[int], object]

#: Given the number of bytes that files have, holes included, shows how far it
#: has got.
ProgressBar = Callable[[int], contextlib.AbstractContextManager[Progress]]


@contextlib.contextmanager
def no_progress_bar(total: int) -> Iterator[Progress]:
    """Show nothing."""
    yield lambda length: None


def show(progress: Progress, length: int) -> None:
    """Show progress.

    :raises nova_imagecache.errors.Error: nobody looks
    """
    try:
        progress(length)
    except OSError as error:
        # No fault of the file: nobody may be listening any more.
        raise errors.Error(
            f'progress cannot be shown: {error.strerror}'
        ) from error


def both(one: Progress, other: Progress) -> Progress:
    """Show the same progress twice."""

    def progress(length: int) -> None:
        one(length)
        other(length)

    return progress


class Course:
    """How far some files are behind us: each byte counts once, or a hole's.

    What was read of a disk is another matter: a hole is not, and what did not
    match is read twice.
    """

    def __init__(self, progress: Progress) -> None:
        """Begin before the first file."""
        self._progress = progress
        self._left = 0

    @contextlib.contextmanager
    def through(self, size: int) -> Iterator[None]:
        """Go through a file; where it is left early it is behind us too."""
        self._left = size
        yield
        self.passed(size)

    def passed(self, length: int) -> None:
        """Have so many bytes more behind us."""
        length = min(length, self._left)
        if length:
            self._left -= length
            show(self._progress, length)
