# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of a base file before it is read again."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import datetime
import enum

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import sightings
from nova_imagecache import codes
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache import errors
from nova_imagecache import measures

#: What the note of a file begins with that was to be read, and was not.
NOT_VERIFIED = 'not verified: '

# Bad ranges named in a sentence; status has them all.
_RANGES_SHOWN = 4


class Verdict(enum.StrEnum):
    """What is known of the content of a file.

    DIFFERS: an earlier file of its name, made from the same image, held other
    bytes. One of the two is bad, and it is not known which.
    """

    GOOD = 'good'
    CORRUPT = 'corrupt'
    DIFFERS = 'differs'
    UNKNOWN = 'unknown'
    UNREADABLE = 'unreadable'
    OFF = 'off'


_HARMFUL = {
    str(verdict): verdict
    for verdict in (Verdict.CORRUPT, Verdict.UNREADABLE, Verdict.DIFFERS)
}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and why, where that is worth a sentence.

    :ivar skipped: whether the file was to be read, and was not
    :ivar problem: whether somebody has to act before it can be
    :ivar contradicted: whether the file is as it was first read, and only its
        stored checksum says otherwise
    :ivar digested: whether all of it was read, and there was nothing to
        compare it with
    :ivar history: what the state is to remember, if the file was read
    """

    verdict: Verdict = Verdict.UNKNOWN
    note: str = ''
    skipped: bool = False
    problem: bool = False
    contradicted: bool = dataclasses.field(default=False, compare=False)
    digested: bool = dataclasses.field(default=False, compare=False)
    history: sightings.History | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def word(self) -> str:
        """The verdict for people, who want to know whether it was read."""
        unknown = self.verdict is Verdict.UNKNOWN
        return 'digested' if unknown and self.digested else self.verdict.value

    @property
    def damaged(self) -> bool:
        """Whether some of the file is known to be bad."""
        return self.verdict in (Verdict.CORRUPT, Verdict.UNREADABLE)

    @property
    def harmful(self) -> bool:
        """Whether guests may read what they should not."""
        return self.damaged or self.verdict is Verdict.DIFFERS

    def noting(self, note: str) -> 'Finding':
        """Give this finding with one more note."""
        notes = '; '.join(filter(None, [self.note, note]))
        return dataclasses.replace(self, note=notes)

    def postponed(self, reason: str, problem: bool = False) -> 'Finding':
        """Give this finding again, as nothing was read: bad stays bad."""
        return dataclasses.replace(
            self.noting(f'{NOT_VERIFIED}{reason}'),
            skipped=True,
            problem=problem,
        )


def _bad(ledger: ledgers.Ledger, size: int) -> list[str]:
    """Say what is bad: how much is missing, and the bytes of what is there."""
    ranges = ledger.bad_ranges
    notes = []
    if size != ledger.size and not ledger.differs:
        how = 'short' if size < ledger.size else 'long'
        off = measures.size(abs(size - ledger.size))
        notes.append(f'it is {off} too {how}')
        # The block in which it ends is bad for that alone.
        end = min(size, ledger.size)
        end -= end % ledger.block_size
        ranges = tuple(
            dataclasses.replace(each, end=min(each.end, end))
            for each in ranges
            if each.start < end
        )
    return notes + ([_ranges(ledger, ranges)] if ranges else [])


def _ranges(ledger: ledgers.Ledger, ranges: Sequence[ledgers.BadRange]) -> str:
    """Name bad ranges as dd and hexdump count bytes: from 0."""
    words = {
        ledgers.Damage.UNREADABLE: 'are unreadable',
        ledgers.Damage.CORRUPT: 'differ' if ledger.differs else 'are corrupt',
        ledgers.Damage.DOUBTFUL: 'are doubtful',
    }
    shown = [
        f'bytes {each.start}-{each.end - 1} {words[each.damage]}'
        for each in ranges[:_RANGES_SHOWN]
    ]
    more = len(ranges) - len(shown)
    return ', '.join(shown) + (f', and {more} more ranges' if more else '')


def _wrong_sha1(ledger: ledgers.Ledger, stored: str | None) -> str | None:
    """Say how the file as a whole is not what is known of it."""
    found = ledger.found
    known = (ledger.sha1, stored or ledger.stored)
    whole = ledger.proven and not ledger.damaged
    if found is None and whole and known[0] != known[1]:
        # It was read, and is what it was; but not what the checksum says.
        found = ledger.sha1
    wrong = [digest for digest in known if digest not in (None, found)]
    if found is None or not wrong:
        return None
    text = f'its SHA-1 is {found} and not {wrong[0]}'
    if found == ledger.sha1:
        # What to do is first, as a log line has no room for more.
        return (
            'only its .sha1 says so: if that is wrong, remove it, and verify '
            f'the file; it has not changed since it was first read; {text}'
        )
    return text


def _marks(ledger: ledgers.Ledger) -> Iterator[str]:
    """Say what is to be remembered of a file, whatever the verdict."""
    if ledger.suspect:
        yield (
            'suspect: it may have been damaged before anything was known of it'
        )
    if ledger.rebaselined is None:
        return
    day = datetime.datetime.fromtimestamp(
        ledger.rebaselined, datetime.UTC
    ).date()
    why = (
        'it was made anew with other bytes'
        if ledger.anew
        else 'all that was known of it was lost'
    )
    yield f'rebaselined on {day}, as {why}'


def _verdict(
    ledger: ledgers.Ledger, stored: str | None, wrong: bool
) -> Verdict:
    """Give the worst of what was found."""
    bad = {run.damage for run in ledger.bad}
    if not ledger.differs and (ledgers.Damage.CORRUPT in bad or wrong):
        return Verdict.CORRUPT
    if ledgers.Damage.UNREADABLE in bad or ledger.unreadable is not None:
        return Verdict.UNREADABLE
    if ledger.differs:
        return Verdict.DIFFERS
    compared = ledger.proven or stored in (None, ledger.stored)
    if ledger.verified is None or not compared:
        return Verdict.UNKNOWN
    return Verdict.GOOD


def judge(
    ledger: ledgers.Ledger,
    stored: str | None = None,
    sparse: bool = False,
    size: int | None = None,
) -> Finding:
    """Say what the last comparison means.

    The file must have every digest that is known of it (decision 0028).

    :param stored: its stored checksum, if it has a valid one
    :param sparse: whether it is too sparse to be given one
    :param size: bytes in the file now, where that is known
    """
    notes = []
    unreadable = ledger.unreadable
    if unreadable is not None:
        notes.append(f'it cannot be read: {unreadable}')
    if ledger.question:
        was = ', of which some was bad' if ledger.damaged else ''
        notes.append(
            f'it is to be compared with an earlier file of its name{was}'
        )
        verdict = Verdict.UNREADABLE if unreadable else Verdict.UNKNOWN
        return Finding(verdict, '; '.join(notes))
    wrong = _wrong_sha1(ledger, stored) if ledger.settled else None
    if ledger.bad:
        notes[:0] = _bad(ledger, ledger.size if size is None else size)
    if wrong:
        notes.append(wrong)
    marks = [*_marks(ledger)]
    if ledger.differs:
        notes.append(
            'an earlier file of this image held other bytes, so one of the '
            'two is bad'
        )
    if ledger.read is not None and not ledger.settled:
        notes.append(
            'it was touched or written to while it was first read, so it is '
            'to be read again'
        )
    if sparse and ledger.settled and stored is None and ledger.sha1 is None:
        notes.append('it has no SHA-1, as it is too sparse for one')
    notes += marks
    if marks or ledger.differs:
        notes.append('see nova-imagecache confirm')
    verdict = _verdict(ledger, stored, wrong is not None)
    unchanged = verdict is Verdict.CORRUPT and _is_unchanged(ledger)
    return Finding(
        verdict,
        '; '.join(notes),
        contradicted=unchanged,
        digested=ledger.read is not None,
    )


def _is_unchanged(ledger: ledgers.Ledger) -> bool:
    """Whether a file is, as a whole, what it was when it was first read."""
    return (
        ledger.proven
        and not ledger.damaged
        and ledger.found in (None, ledger.sha1)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Knowledge:
    """What earlier passes left to know about a file.

    :ivar stored: its stored checksum, if it has a valid one
    :ivar ledger: its ledger, if it has one
    :ivar older: whether the stored checksum is older than the file, and there
        is no ledger: it was another's, and is a question
    :ivar lost: whether it had a ledger that can no longer be made out
    :ivar blind: whether some of this could not be read just now: what is not
        seen may be there
    :ivar newer: whether its ledger is one that a newer release has written
    :ivar problems: what cannot be read, a sentence each
    :ivar damage: what the state remembers to be wrong with it, where there is
        no ledger to say so, or an older one
    :ivar sparse: whether it is too sparse to be given a SHA-1
    :ivar size: bytes in the file, when this was recalled
    :ivar stat: what the file was like then
    """

    stored: str | None = None
    ledger: ledgers.Ledger | None = None
    older: bool = False
    lost: bool = False
    blind: bool = False
    newer: bool = False
    problems: tuple[codes.Problem, ...] = ()
    damage: Verdict | None = None
    sparse: bool = False
    size: int | None = dataclasses.field(default=None, compare=False)
    stat: identity.Stat | None = dataclasses.field(default=None, compare=False)

    @property
    def digests(self) -> frozenset[str]:
        """The SHA-1s that the file must have: none, one, or both."""
        known = {self.stored, self.ledger.sha1 if self.ledger else None}
        return frozenset(digest for digest in known if digest is not None)

    @property
    def question(self) -> bool:
        """Whether all that is known is of an earlier file of its name."""
        return self.ledger.question if self.ledger else self.older

    @property
    def finding(self) -> Finding:
        """The last verdict."""
        if self.ledger is None:
            found = Finding(
                note='what was known of it is lost, and it is to be read again'
                if self.lost
                else 'it has not been read yet'
            )
        else:
            found = judge(self.ledger, self.stored, self.sparse, self.size)
        if self.damage is None:
            return found
        was = f'was {self.damage}'
        if self.damage is Verdict.DIFFERS:
            was = 'differed from an earlier file'
        note = f'it {was} when it was read last; see nova-imagecache confirm'
        return dataclasses.replace(found, verdict=self.damage, note=note)

    @property
    def last_good(self) -> float | None:
        """When it was compared last, if it was good, since the epoch."""
        if self.ledger is None or self.ledger.verified is None:
            return None
        good = self.finding.verdict is Verdict.GOOD
        return self.ledger.verified.wall if good else None

    @property
    def key(self) -> identity.Key | None:
        """Which incarnation it is of, where that is known."""
        if self.ledger is None or self.ledger.question:
            return None
        return self.ledger.key

    @property
    def history(self) -> sightings.History | None:
        """What the state is to remember, where it does not know better."""
        if self.ledger is None or self.damage is not None:
            return None
        return history_of(self.ledger, self.finding)

    @property
    def has_had_ledger(self) -> bool:
        """Whether there is a ledger, or one is lost, or may be there."""
        return self.ledger is not None or self.lost or self.blind

    def remembering(self, sighting: sightings.Sighting | None) -> 'Knowledge':
        """Add what the state remembers, the second place to know of damage."""
        if sighting is None:
            return self
        damage = None
        found = sighting.damage
        # Times are compared for being the same, as clocks may be set.
        if found and (self.ledger is None or found.beside == self.last_read):
            damage = _HARMFUL.get(found.verdict)
        lost = self.ledger is None and sighting.digested and not self.blind
        if not lost and damage is self.damage:
            # As it is of nearly all of thousands.
            return self
        return dataclasses.replace(self, lost=self.lost or lost, damage=damage)

    @property
    def last_read(self) -> float:
        """When the reading was that the ledger tells of, since the epoch.

        -1 where there is none.
        """
        if self.ledger is None:
            return -1.0
        last = self.ledger.attempted or self.ledger.read
        return last.wall if last else -1.0


def history_of(ledger: ledgers.Ledger, finding: Finding) -> sightings.History:
    """Give what the state is to remember of a file."""
    damage = None
    last = ledger.attempted or ledger.read
    if finding.harmful and not ledger.question:
        read = last.wall if last else 0.0
        damage = sightings.Damage(str(finding.verdict), read)
    return sightings.History(ledger.suspect, ledger.rebaselined, damage)


def _unknown(file: base_file.BaseFile, text: str) -> codes.Problem:
    return codes.Problem(codes.Code.UNKNOWN, text, file.name)


def recall(file: base_file.BaseFile) -> Knowledge:
    """Read what is known of a file; the file itself is not read.

    A ledger that is damaged says nothing of the file, good or bad; the next
    verification replaces it. What merely cannot be read is never replaced
    (decision 0029).
    """
    problems = []
    lost = False
    blind = False
    newer = False
    ledger = None
    stored = None
    try:
        ledger = ledgers.Ledger.load(file)
    except errors.Newer as error:
        blind = newer = True
        problems.append(
            _unknown(
                file, f'the ledger of {file.name} cannot be used: {error}'
            )
        )
    except errors.Damaged as error:
        lost = True
        problems.append(
            _unknown(file, f'the ledger of {file.name} says nothing: {error}')
        )
    except OSError as error:
        blind = True
        problems.append(
            _unknown(
                file,
                f'the ledger of {file.name} cannot be read: '
                f'{errors.why(error)}',
            )
        )
    try:
        stored = sidecars.load(file.sidecar)
    except OSError as error:
        blind = True
        problems.append(
            _unknown(
                file,
                f'the checksum of {file.name} cannot be read: '
                f'{errors.why(error)}',
            )
        )
    older = False
    if stored is not None and ledger is None:
        # Where there is a ledger, that tells which file they are of.
        older = sidecars.is_older(file.sidecar, file.stat)
    return Knowledge(
        stored,
        ledger,
        older,
        lost,
        blind,
        newer,
        (*problems,),
        sparse=sidecars.is_too_sparse(file.stat),
        size=file.stat.size,
        stat=file.stat,
    )
