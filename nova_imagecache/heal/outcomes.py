# SPDX-License-Identifier: Apache-2.0

"""What became of the bad blocks of a base file: pure functions."""

from collections.abc import Mapping
import dataclasses

from nova_imagecache.heal import results

Result = results.Result

_CHARGED = frozenset(
    {Result.REPAIRED, Result.MEDIUM, Result.HUNG, Result.FAILED}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One block that was bad.

    :ivar start: offset of its first byte
    :ivar end: offset after its last byte
    :ivar unreadable: pages of it that the medium could not read
    :ivar source: name of the source whose data it has, or would get
    :ivar origin: what that came from, for people
    :ivar written: bytes that were written
    :ivar stale: pages of it that were cached and wrong
    :ivar stuck: those of them that still are
    :ivar note: why it is not good, or what else there is to say
    """

    index: int
    start: int
    end: int
    result: Result
    unreadable: int = 0
    source: str = ''
    origin: str = ''
    written: int = 0
    stale: int = 0
    stuck: int = 0
    note: str = ''


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one file.

    :ivar blocks: those that were bad, in order
    :ivar sources: why sources gave nothing: state and message, by name
    :ivar fetched: bytes that came over a network, by source
    :ivar stopped: why nothing, or nothing more, was done; empty otherwise
    :ivar interrupted: bad blocks that it was told to stop before
    """

    name: str
    blocks: tuple[Block, ...] = ()
    sources: Mapping[str, tuple[str, str]] = dataclasses.field(
        default_factory=dict
    )
    fetched: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stopped: str = ''
    interrupted: int = 0

    @property
    def left(self) -> tuple[Block, ...]:
        """The blocks that are still bad."""
        return tuple(each for each in self.blocks if not each.result.is_good)

    @property
    def stuck(self) -> tuple[Block, ...]:
        """The blocks that are good, and wrong in the page cache."""
        return tuple(each for each in self.blocks if each.stuck)

    @property
    def repaired(self) -> int:
        """The number of blocks that were written."""
        return sum(each.result is Result.REPAIRED for each in self.blocks)

    @property
    def charged(self) -> int:
        """The number of blocks that were written, or that should have been.

        A medium that does not take data is one to stay away from.
        """
        return sum(each.result in _CHARGED for each in self.blocks)

    def result_of(self, source: str) -> str:
        """Say what came of the data that a source gave."""
        found = [each.result for each in self.blocks if each.source == source]
        if found:
            good = [each for each in found if each.is_good]
            return str((good or found)[0])
        if source in self.sources:
            return self.sources[source][0]
        return str(Result.NO_DATA)

    @property
    def written(self) -> int:
        """The number of bytes that were written."""
        return sum(each.written for each in self.blocks)
