# SPDX-License-Identifier: Apache-2.0

"""Where good data is got: one module for each kind of source."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum
import threading
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One block of a base file whose data is to be got.

    :ivar start: offset of its first byte in the base file
    :ivar length: in bytes; less than a block at the end of the file
    """

    start: int
    length: int

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        return self.start + self.length


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """What a source has for one block; nobody has compared it yet.

    A source that has several candidates gives several pieces.

    :ivar data: as long as what is wanted
    :ivar origin: what it came from, for people: a path, an image and a store
    :ivar missing: pages that could not be read, counted from 0; the data has
        zeros there
    """

    wanted: Wanted
    data: bytes
    origin: str
    missing: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Base:
    """The base file that is healed.

    :ivar name: of the file in the cache
    :ivar path: where that is
    :ivar size: in bytes
    :ivar image: UUID of the image it was made from, where that is known
    """

    name: str
    path: str
    size: int
    image: str | None


class State(enum.StrEnum):
    """Why a source gives nothing; kept with the file, and shown.

    The values are stable: they are kept in records and in metrics.

    NOT_FOUND: it is gone, or may not be seen
    GONE: whoever asked would have seen it
    """

    ABSENT = 'absent'
    UNREACHABLE = 'unreachable'
    TIMEOUT = 'timeout'
    UNAUTHORIZED = 'unauthorized'
    FORBIDDEN = 'forbidden'
    NOT_FOUND = 'not-found'
    GONE = 'gone'
    DEACTIVATED = 'deactivated'
    NO_RANGES = 'no-ranges'
    TRUNCATED = 'truncated'
    HOSTILE = 'hostile'
    OTHER_BYTES = 'other-bytes'
    WEAK_DIGEST = 'weak-digest'
    NO_SPACE = 'no-space'
    TOO_LARGE = 'too-large'
    STOPPED = 'stopped'
    UNKNOWN_IMAGE = 'unknown-image'
    NOT_CONFIGURED = 'not-configured'
    FAILED = 'failed'


class Unavailable(Exception):
    """A source has nothing of a file just now, or never.

    :ivar state: why
    """

    def __init__(self, state: State, message: str) -> None:
        """Say why, in one line that an operator can act on."""
        super().__init__(message)
        self.state = state


@dataclasses.dataclass(frozen=True)
class Watch:
    """Who waits for a source, and may have it end.

    :ivar stop: when set, nothing more is got
    :ivar pulse: called several times a second while something is got, so that
        whoever waits can say so
    """

    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    pulse: Callable[[], object] = lambda: None

    def look(self) -> None:
        """Say that it goes on, and see whether it should.

        :raises Unavailable: it should not
        """
        self.pulse()
        if self.stop.is_set():
            raise Unavailable(State.STOPPED, 'it was told to stop')


class Source(Protocol):
    """One kind of place that may have the data."""

    @property
    def name(self) -> str:
        """What it is called in reports, records and metrics."""
        ...

    @property
    def cryptographic(self) -> bool:
        """Whether only a cryptographic digest says that its data is right.

        As for what comes over a network from nobody knows whom.
        """
        ...

    @property
    def fetched(self) -> int:
        """Bytes that came over a network so far."""
        ...

    def read(self, base: Base, wanted: Sequence[Wanted]) -> Iterator[Piece]:
        """Give what there is, in any order; nothing where there is nothing.

        :param wanted: in the order of the file
        :raises Unavailable: it cannot be asked, or no more of it
        """
        ...
