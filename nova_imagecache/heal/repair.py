# SPDX-License-Identifier: Apache-2.0

"""Repairing one base file: from its bad blocks to good ones, in place.

The bad block in the ledger is the intent, and there is no other journal
(decision 0089): data with the digest of the block may be written any number of
times. So whoever is killed leaves a block that is bad, and known to be, or
good; and the next one goes on.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import threading

from nova_imagecache.cache import base_file
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import asking
from nova_imagecache.heal import combining
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import pages
from nova_imagecache.heal import patients
from nova_imagecache.heal import sources
from nova_imagecache.heal import writer
from nova_imagecache.scrub import queues

Block = outcomes.Block
Result = outcomes.Result

_ZEROS = 'zeros'
_COMBINED = 'combined'

# Of one block, and the file itself is one of them.
_MOST_COPIES = 5

# Who did not answer is not asked again for each block.
_AWAY = (sources.State.UNREACHABLE, sources.State.TIMEOUT)


@dataclasses.dataclass(frozen=True)
class Means:
    """How a file is repaired.

    :ivar rewrite: writes, with the rights that it takes
    :ivar dry_run: whether to get the data and compare it, and write nothing
    :ivar cached: whether to compare what is cached, if no block is bad
    :ivar only: the blocks to be repaired, by their number; None for all
    :ivar image: UUID of the image, where nobody has noted that
    :ivar stop: when set, no further block is begun
    :ivar progress: called with the bytes of each block that is done with
    :ivar look: called once, when there is data and before any is written, as
        until then guests may have read what is bad, and copied that
    """

    rewrite: writer.Rewrite = writer.rewrite
    clock: clocks.Clock = clocks.now
    dry_run: bool = False
    cached: bool = False
    only: frozenset[int] | None = None
    image: str | None = None
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    progress: Callable[[int], object] = lambda length: None
    look: Callable[[], object] = lambda: None


def bad_blocks(ledger: ledgers.Ledger) -> list[int]:
    """Give the blocks that a repair is for, by their number.

    Not those that may only be damage, and none past the end.
    """
    unsettled = ledgers.blocks_in(ledger.unsettled)
    return sorted(
        index
        for index, damage in ledgers.spread(ledger.bad).items()
        if damage is not ledgers.Damage.DOUBTFUL
        and index < ledger.count
        and index not in unsettled
    )


def repair(
    file: base_file.BaseFile,
    given: Sequence[sources.Source],
    means: Means | None = None,
) -> outcomes.Outcome:
    """Put good data in the place of what is bad in a base file.

    The caller has the turn to read in this cache, so that no scrub works with
    the same ledger.

    :param given: asked in this order, for what those before did not have
    :raises nova_imagecache.errors.Error: it cannot be done, or not now
    :raises OSError: the file cannot be read
    """
    return _Repair(file, given, means or Means()).run()


class _Repair:
    """One repair of one file."""

    def __init__(
        self,
        file: base_file.BaseFile,
        given: Sequence[sources.Source],
        means: Means,
    ) -> None:
        self._file = file
        self._sources = given
        self._means = means
        self._patient = patients.Patient(file)
        self._done: dict[int, Block] = {}
        self._asked = asking.Asked()
        # Blocks of which there are copies on this host.
        self._copied: set[int] = set()
        self._looked = False
        self._stopped = ''

    @property
    def _blocks(self) -> blockmap.Blocks:
        return self._patient.blocks

    def run(self) -> outcomes.Outcome:
        wanted = [
            index
            for index in bad_blocks(self._patient.ledger)
            if self._means.only is None or index in self._means.only
        ]
        if wanted or self._means.cached:
            with self._patient.opened():
                self._heal(wanted)
                if not wanted:
                    self._check_cache()
            self._remember()
        left = sum(index not in self._done for index in wanted)
        return outcomes.Outcome(
            self._file.name,
            tuple(block for _index, block in sorted(self._done.items())),
            self._asked.states,
            {each.name: each.fetched for each in self._sources},
            self._stopped,
            left if self._means.stop.is_set() else 0,
        )

    def _remember(self) -> None:
        """Have the state know as well, which outlives the ledger."""
        history = self._patient.history
        good = any(each.result.is_good for each in self._done.values())
        if history is None or not good or self._means.dry_run:
            return
        failure = queues.note_histories(
            self._file.layout,
            {self._file: history},
            states.State(),
            self._means.clock(),
        )
        if failure is not None and not self._stopped:
            self._stopped = failure

    def _heal(self, wanted: Sequence[int]) -> None:
        rest = [index for index in wanted if not self._needs_no_source(index)]
        asked: list[sources.Source] = []
        for source in self._sources:
            if source.cryptographic:
                # That costs others nothing.
                self._combine(asked)
            rest = [index for index in rest if index not in self._done]
            if not rest or self._is_over():
                break
            self._ask(source, rest)
            asked.append(source)
        self._combine(asked)
        for index in wanted:
            if index not in self._done and not self._stopped:
                self._finish(index, Result.NO_DATA)
        self._is_over()

    def _check_cache(self) -> None:
        """Find pages that are cached and wrong, over a medium that is good.

        Nothing else finds them, as files are verified past the page cache.
        """
        for index in range(self._blocks.count):
            if self._is_over() or self._means.dry_run:
                return
            if index in self._done or self._blocks.get(index) is None:
                continue
            cached = self._patient.cached(index)
            if not cached:
                continue
            length = self._patient.wanted(index).length
            whole = len(cached) == pages.count_of(length)
            if whole and self._patient.is_good(
                index, b''.join(cached.values())
            ):
                continue
            found = self._patient.read(index)
            data = pages.join(found)
            # What the medium has lost is for the next verification to find.
            if data is None or not self._patient.is_good(index, data):
                continue
            stale = self._drop_stale(index, found)
            if stale.get('stale'):
                self._finish(index, Result.WAS_GOOD, **stale)

    def _is_over(self) -> bool:
        """Whether nothing more is to be done."""
        if self._means.stop.is_set() and not self._stopped:
            self._stopped = 'it was stopped'
        return bool(self._stopped)

    def _finish(self, index: int, result: Result, **values: object) -> None:
        wanted = self._patient.wanted(index)
        self._done[index] = Block(
            index,
            wanted.start,
            wanted.end,
            result,
            self._patient.unreadable(index),
            # The other fields, by their names.
            **values,  # type: ignore[arg-type]
        )
        if result.ends:
            self._stopped = str(values.get('note') or result)
        self._means.progress(wanted.length)

    def _needs_no_source(self, index: int) -> bool:
        """Look at a block; whether it is done with without any source."""
        if self._is_over():
            return True
        digest = self._blocks.get(index)
        if digest is None:
            self._finish(
                index,
                Result.NO_DIGEST,
                note='there is no block digest that data could be compared '
                'with',
            )
            return True
        found = self._patient.read(index)
        data = pages.join(found)
        if data is not None and self._patient.is_good(index, data):
            stale = self._drop_stale(index, found)
            if self._means.dry_run:
                self._finish(index, Result.WAS_GOOD, **stale)
            else:
                self._note_good(index, Result.WAS_GOOD, **stale)
            return True
        if digest == digests.of_zeros(self._blocks.algorithm):
            zeros = bytes(self._patient.wanted(index).length)
            self._put(index, zeros, _ZEROS, '')
            return True
        return False

    def _ask(self, source: sources.Source, rest: Sequence[int]) -> None:
        """Have a source give what it has, and use what is right."""
        if source.cryptographic:
            rest = self._asked.without_weak(source, rest, self._blocks.weak)
            if not rest:
                return
        other = ''
        with contextlib.closing(self._pieces(source, rest)) as given:
            for piece in given:
                index = piece.wanted.start // self._blocks.block_size
                if index in self._done:
                    continue
                if not source.cryptographic:
                    self._copied.add(index)
                if not piece.missing and self._patient.is_good(
                    index, piece.data, source.cryptographic
                ):
                    self._put(index, piece.data, source.name, piece.origin)
                else:
                    other = piece.origin
                if self._is_over() or self._done.keys() >= {*rest}:
                    return
        if other:
            self._asked.note_other(source, other)

    def _pieces(
        self, source: sources.Source, rest: Sequence[int]
    ) -> Generator[sources.Piece, None, None]:
        base = sources.Base(
            self._file.name,
            self._file.path,
            self._blocks.size,
            self._means.image or self._patient.ledger.image,
        )
        wanted = [self._patient.wanted(index) for index in rest]
        return self._asked.pieces(source, base, wanted)

    def _combine(self, asked: Sequence[sources.Source]) -> None:
        """Put blocks together of copies on this host, none of which is good.

        One block at a time is read anew for that, so that no more of them
        have to be kept.

        :param asked: the sources that had their turn; what comes over a
            network comes once
        """
        here = [
            source
            for source in asked
            if not (source.cryptographic or source.fetched)
            and self._asked.states.get(source.name, ('', ''))[0] not in _AWAY
        ]
        for index in sorted(self._copied - self._done.keys()):
            if self._is_over():
                return
            self._copied.discard(index)
            copies, origins = [self._patient.read(index)], ['the file itself']
            for source in here:
                given = self._pieces(source, [index])
                with contextlib.closing(given):
                    room = _MOST_COPIES - len(copies)
                    for piece in itertools.islice(given, max(0, room)):
                        copies.append(
                            [
                                None if number in piece.missing else page
                                for number, page in enumerate(
                                    pages.split(piece.data)
                                )
                            ]
                        )
                        origins.append(piece.origin)
            for data in combining.combinations(copies):
                if self._patient.is_good(index, data):
                    self._put(index, data, _COMBINED, ', '.join(origins))
                    break

    def _drop_stale(
        self, index: int, good: Sequence[bytes | None]
    ) -> dict[str, object]:
        """Have the page cache forget what is wrong in a block."""
        if self._means.dry_run:
            return {}
        stale, stuck, note = self._patient.drop_stale(index, good)
        return {'stale': stale, 'stuck': stuck, 'note': note}

    def _put(self, index: int, data: bytes, source: str, origin: str) -> None:
        """Write good data, and note that the block is good."""
        told = {'source': source, 'origin': origin}
        if self._means.dry_run:
            self._finish(index, Result.POSSIBLE, **told)
            return
        if not self._looked:
            self._looked = True
            self._means.look()
        try:
            written = self._patient.write(
                index, data, self._means.rewrite, self._means.stop
            )
        except writer.Refused as error:
            result = Result(str(error.refusal))
            self._finish(index, result, note=str(error), **told)
            return
        except errors.Changed as error:
            self._finish(index, Result.CHANGED, note=str(error), **told)
            return
        except errors.NotNow as error:
            self._stopped = str(error)
            self._finish(index, Result.FAILED, note=str(error), **told)
            return
        stale = self._drop_stale(index, pages.split(data))
        self._note_good(
            index, Result.REPAIRED, written=written, **told, **stale
        )

    def _note_good(self, index: int, result: Result, **values: object) -> None:
        """Note that a block is good, or why that cannot be noted."""
        try:
            self._patient.clear(index)
        except (errors.NotNow, OSError) as error:
            reason = getattr(error, 'strerror', None) or str(error)
            self._stopped = (
                f'what is good by now cannot be noted, so the next repair '
                f'looks at it again: {reason}'
            )
            values['note'] = self._stopped
            result = Result.FAILED
        self._finish(index, result, **values)
