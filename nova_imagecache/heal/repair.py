# SPDX-License-Identifier: Apache-2.0

"""Repairing one base file: from its bad blocks to good ones, in place.

The bad block in the ledger is the intent, and there is no other journal
(decision 0089): data with the digest of the block may be written any number of
times. So whoever is killed leaves a block that is bad, and known to be, or
good; and the next one goes on.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import os
import threading
import time

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import asking
from nova_imagecache.heal import combining
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources
from nova_imagecache.heal import writer
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import queues

Block = outcomes.Block
Result = outcomes.Result

# To write a block that was fetched is worth some waiting for the lock, and so
# is to note that it is good.
_PATIENCE_SECONDS = 5
_TRIES = 3

# After which the lock is given up between two writes, and for how long, so
# that whoever polls for it has his turn (decision 0097).
_HELD_SECONDS = 0.85
_PAUSE_SECONDS = 0.2

# Of one write, in pages: a MiB, so that none takes long on a disk that works.
_MOST_PAGES = 256

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
    """

    rewrite: writer.Rewrite = writer.rewrite
    clock: clocks.Clock = clocks.now
    dry_run: bool = False
    cached: bool = False
    only: frozenset[int] | None = None
    image: str | None = None
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    progress: Callable[[int], object] = lambda length: None


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
        self._keeper = keeper.Keeper(file, knowledge.recall(file))
        self._done: dict[int, Block] = {}
        # What the medium cannot read, so that it is tried once.
        self._unreadable: dict[int, frozenset[int]] = {}
        self._asked = asking.Asked()
        # Blocks of which there are copies on this host.
        self._copied: set[int] = set()
        self._stopped = ''

    def run(self) -> outcomes.Outcome:
        ledger, self._blocks = self._recall()
        wanted = [
            index
            for index in bad_blocks(ledger)
            if self._means.only is None or index in self._means.only
        ]
        if wanted or self._means.cached:
            fd = self._open()
            try:
                with pages.Medium(fd) as medium:
                    self._fd, self._medium = fd, medium
                    self._heal(wanted)
                    if not wanted:
                        self._check_cache()
            finally:
                os.close(fd)
            self._remember()
        return outcomes.Outcome(
            self._file.name,
            tuple(block for _index, block in sorted(self._done.items())),
            self._asked.states,
            {each.name: each.fetched for each in self._sources},
            self._stopped,
        )

    def _remember(self) -> None:
        """Have the state know as well, which outlives the ledger."""
        history = self._keeper.known.history
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

    def _recall(self) -> tuple[ledgers.Ledger, blockmap.Blocks]:
        """See what is known, and that it is known for sure.

        :raises nova_imagecache.errors.Error: it is not
        """
        known = self._keeper.known
        ledger = known.ledger
        if known.blind:
            raise errors.Blind('; '.join(known.problems))
        if ledger is None or ledger.read is None:
            raise errors.NotNow(
                'it has no block digests; what is known of it is of the file '
                'as a whole, so fetch it anew'
                if known.digests
                else 'it has not been read yet, so nothing is known of it'
            )
        if ledger.question or ledger.differs:
            raise errors.NotNow(
                'an earlier file of its image held other bytes, and it is not '
                'known which of the two is right; see nova-imagecache confirm'
            )
        if self._file.same().size != ledger.size:
            raise errors.NotNow(
                f'it was {ledger.size} bytes long when it was read, and is '
                'not now; fetch it anew'
            )
        blocks = self._keeper.recall_blocks()
        if blocks is None:
            raise errors.NotNow('its block digests are lost')
        return ledger, blocks

    def _open(self) -> int:
        fd = identity.open_regular(self._file.path)
        if identity.stat_of_fd(fd).incarnation != self._file.incarnation:
            os.close(fd)
            raise errors.Changed('another file has taken its place meanwhile')
        return fd

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
            wanted = self._wanted(index)
            cached = pages.cached(self._fd, wanted.start, wanted.length)
            if not cached:
                continue
            whole = len(cached) == pages.count_of(wanted.length)
            if whole and self._is_good(index, b''.join(cached.values())):
                continue
            found = self._medium.read(wanted.start, wanted.length)
            data = pages.join(found)
            # What the medium has lost is for the next verification to find.
            if data is None or not self._is_good(index, data):
                continue
            stale = self._drop_stale(index, found)
            if stale.get('stale'):
                self._finish(index, Result.WAS_GOOD, **stale)

    def _is_over(self) -> bool:
        """Whether nothing more is to be done."""
        if self._means.stop.is_set() and not self._stopped:
            self._stopped = 'it was stopped'
        return bool(self._stopped)

    def _wanted(self, index: int) -> sources.Wanted:
        start = index * self._blocks.block_size
        return sources.Wanted(start, self._blocks.length(index))

    def _finish(self, index: int, result: Result, **values: object) -> None:
        wanted = self._wanted(index)
        self._done[index] = Block(
            index,
            wanted.start,
            wanted.end,
            result,
            len(self._unreadable.get(index, ())),
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
        found = self._read(index)
        data = pages.join(found)
        if data is not None and self._is_good(index, data):
            stale = self._drop_stale(index, found)
            if self._means.dry_run:
                self._finish(index, Result.WAS_GOOD, **stale)
            else:
                self._note_good(index, Result.WAS_GOOD, **stale)
            return True
        if digest == digests.of_zeros(self._blocks.algorithm):
            zeros = bytes(self._wanted(index).length)
            self._put(index, zeros, _ZEROS, '')
            return True
        return False

    def _read(self, index: int) -> list[bytes | None]:
        wanted = self._wanted(index)
        skip = self._unreadable.get(index, frozenset())
        found = self._medium.read(wanted.start, wanted.length, skip)
        missing = {i for i, page in enumerate(found) if page is None}
        self._unreadable[index] = frozenset(missing)
        return found

    def _is_good(
        self, index: int, data: bytes, cryptographic: bool = False
    ) -> bool:
        """Whether data is what a block has to hold."""
        return self._blocks.matches(index, data, cryptographic)

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
                if not piece.missing and self._is_good(
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
        ledger = self._keeper.known.ledger
        noted = ledger.image if ledger else None
        base = sources.Base(
            self._file.name,
            self._file.path,
            self._blocks.size,
            self._means.image or noted,
        )
        wanted = [self._wanted(index) for index in rest]
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
            copies, origins = [self._read(index)], ['the file itself']
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
                if self._is_good(index, data):
                    self._put(index, data, _COMBINED, ', '.join(origins))
                    break

    def _put(self, index: int, data: bytes, source: str, origin: str) -> None:
        """Write good data, and note that the block is good."""
        told = {'source': source, 'origin': origin}
        if self._means.dry_run:
            self._finish(index, Result.POSSIBLE, **told)
            return
        good = pages.split(data)
        try:
            written = self._write(index, good, data)
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
        stale = self._drop_stale(index, good)
        self._note_good(
            index, Result.REPAIRED, written=written, **told, **stale
        )

    def _note_good(self, index: int, result: Result, **values: object) -> None:
        """Note that a block is good, or why that cannot be noted."""
        try:
            self._clear(index)
        except (errors.NotNow, OSError) as error:
            reason = getattr(error, 'strerror', None) or str(error)
            self._stopped = (
                f'what is good by now cannot be noted, so the next repair '
                f'looks at it again: {reason}'
            )
            values['note'] = self._stopped
            result = Result.FAILED
        self._finish(index, result, **values)

    def _write(
        self, index: int, good: Sequence[bytes | None], data: bytes
    ) -> int:
        """Write the pages that differ; give the number of bytes."""
        runs = [*_differing(self._read(index), good)]
        start = self._wanted(index).start
        written = 0
        path, inode = self._file.path, self._file.incarnation.inode
        # Who writes with other rights is started by that, which takes seconds.
        writer.prepare(self._means.rewrite, path, inode)
        while runs:
            # Everything else is done by now: others may wait for this lock.
            with self._file.guard(
                _PATIENCE_SECONDS, self._means.stop.wait
            ) as now:
                until = time.monotonic() + _HELD_SECONDS
                if now.size != self._blocks.size:
                    raise writer.Refused(
                        writer.Refusal.CHANGED, 'it has another size by now'
                    )
                while runs:
                    first, count = runs.pop(0)
                    position = first * pages.PAGE
                    part = data[position : position + count * pages.PAGE]
                    self._means.rewrite(path, inode, start + position, part)
                    written += len(part)
                    if time.monotonic() >= until:
                        break
            if runs:
                time.sleep(_PAUSE_SECONDS)
        return written

    def _drop_stale(
        self, index: int, good: Sequence[bytes | None]
    ) -> dict[str, object]:
        """Have the page cache forget what is wrong in it."""
        start = self._wanted(index).start
        if self._means.dry_run:
            return {}
        stale, left = pages.drop_stale(self._fd, start, good)
        note = ''
        if left:
            note = (
                f'{left} of its pages in the page cache are wrong, and stay '
                'there: who reads them through it reads wrong bytes until '
                'they are dropped'
            )
        elif stale:
            note = f'{stale} of its pages in the page cache were wrong'
        return {'stale': stale, 'note': note}

    def _clear(self, index: int) -> None:
        """Note that a block is good; the rest of the ledger stays."""
        for attempt in itertools.count(1):
            ledger = self._keeper.known.ledger
            if ledger is None:
                raise errors.NotNow('its ledger has gone meanwhile')
            bad = ledgers.spread(ledger.bad)
            bad.pop(index, None)
            after = dataclasses.replace(ledger, bad=ledgers.gather(bad))
            try:
                guard = self._file.guard(_PATIENCE_SECONDS)
                self._keeper.publish(after, self._blocks, guard)
            except errors.Changed:
                raise
            except errors.NotNow:
                known = knowledge.recall(self._file)
                if attempt >= _TRIES or not _is_of(known.ledger, ledger):
                    raise
                self._keeper = keeper.Keeper(self._file, known)
                blocks = self._keeper.recall_blocks()
                if blocks is None or blocks.get(index) != self._blocks.get(
                    index
                ):
                    raise
                self._blocks = blocks
            else:
                return


def _is_of(now: ledgers.Ledger | None, before: ledgers.Ledger) -> bool:
    """Whether a ledger has digests of the same blocks as another."""
    return now is not None and (now.size, now.block_size, now.algorithm) == (
        before.size,
        before.block_size,
        before.algorithm,
    )


def _differing(
    found: Sequence[bytes | None], good: Sequence[bytes | None]
) -> Iterator[tuple[int, int]]:
    """Give the pages that are not as they should be: first, and count."""
    numbers = [
        number for number, page in enumerate(good) if found[number] != page
    ]
    for run in ledgers.runs_of(numbers):
        end = run.first + run.count
        for first in range(run.first, end, _MOST_PAGES):
            yield first, min(_MOST_PAGES, end - first)
