# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of a base file before it is read again."""

from collections.abc import Sequence
import dataclasses
import datetime
import enum

from nova_imagecache.cache import base_file
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache import errors

# Bad ranges named in a sentence; status has them all.
_RANGES_SHOWN = 4


class Verdict(enum.StrEnum):
    """What is known of the content of a file."""

    GOOD = 'good'
    CORRUPT = 'corrupt'
    UNKNOWN = 'unknown'
    UNREADABLE = 'unreadable'
    OFF = 'off'


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and why, where that is worth a sentence.

    :ivar skipped: whether the file was to be read, and was not
    :ivar problem: whether somebody has to act before it can be
    """

    verdict: Verdict = Verdict.UNKNOWN
    note: str = ''
    skipped: bool = False
    problem: bool = False

    @property
    def damaged(self) -> bool:
        """Whether some of the file is known to be bad."""
        return self.verdict in (Verdict.CORRUPT, Verdict.UNREADABLE)

    def noting(self, note: str) -> 'Finding':
        """Give this finding with one more note."""
        notes = '; '.join(filter(None, [self.note, note]))
        return dataclasses.replace(self, note=notes)

    def postponed(self, reason: str, problem: bool = False) -> 'Finding':
        """Give this finding again, as nothing was read: bad stays bad."""
        return dataclasses.replace(
            self.noting(f'not verified: {reason}'),
            skipped=True,
            problem=problem,
        )


def _ranges(ranges: Sequence[ledgers.BadRange]) -> str:
    """Name bad ranges as dd and hexdump count bytes: from 0."""
    shown = [
        f'bytes {each.start}-{each.end - 1} are {each.damage}'
        for each in ranges[:_RANGES_SHOWN]
    ]
    more = len(ranges) - len(shown)
    return ', '.join(shown) + (f', and {more} more ranges' if more else '')


def _differs(ledger: ledgers.Ledger, stored: str | None) -> str | None:
    """Say how the file as a whole differs from what is known of it."""
    found = ledger.found
    known = (ledger.sha1, stored or ledger.stored)
    whole = ledger.proven and not ledger.bad
    if found is None and whole and known[0] != known[1]:
        # It was read, and is what it was; but not what the checksum says.
        found = ledger.sha1
    wrong = [digest for digest in known if digest not in (None, found)]
    if found is None or not wrong:
        return None
    text = f'its SHA-1 is {found} and not {wrong[0]}'
    if found == ledger.sha1:
        return (
            f'{text}; it has not changed since it was first read, so the '
            'stored checksum may be what is wrong'
        )
    return text


def judge(ledger: ledgers.Ledger, stored: str | None = None) -> Finding:
    """Say what the last comparison means.

    The file must have every digest that is known of it (decision 0028).

    :param stored: its stored checksum, if it has a valid one
    """
    notes = []
    verdict = Verdict.UNKNOWN if ledger.verified is None else Verdict.GOOD
    if not ledger.proven and stored not in (None, ledger.stored):
        verdict = Verdict.UNKNOWN
    bad = {run.damage for run in ledger.bad}
    differs = _differs(ledger, stored) if ledger.settled else None
    if ledgers.Damage.UNREADABLE in bad or ledger.unreadable is not None:
        verdict = Verdict.UNREADABLE
    if ledgers.Damage.CORRUPT in bad or differs:
        verdict = Verdict.CORRUPT
    if bad:
        notes.append(_ranges(ledger.bad_ranges))
    if differs:
        notes.append(differs)
    if ledger.unreadable is not None:
        notes.append(f'it cannot be read: {ledger.unreadable}')
    if ledger.read is not None and not ledger.settled:
        notes.append(
            'it was touched or written to while it was first read, so it is '
            'to be read again'
        )
    if ledger.suspect:
        notes.append(
            'suspect: it was made in an earlier boot and never digested in '
            'it, or was not the same when it was read twice at first, so it '
            'may have been damaged without a trace'
        )
    if ledger.rebaselined is not None:
        day = datetime.datetime.fromtimestamp(
            ledger.rebaselined, datetime.UTC
        ).date()
        notes.append(
            f'rebaselined on {day}, as all that was known of it was lost'
        )
    return Finding(verdict, '; '.join(notes))


@dataclasses.dataclass(frozen=True, slots=True)
class Knowledge:
    """What earlier passes left to know about a file.

    :ivar stored: its stored checksum, if it has a valid one
    :ivar ledger: its ledger, if it has one
    :ivar lost: whether it had a ledger that can no longer be made out
    :ivar blind: whether some of this could not be read just now: what is not
        seen may be there
    :ivar newer: whether its ledger is one that a newer release has written
    :ivar problems: what cannot be read, a sentence each
    """

    stored: str | None = None
    ledger: ledgers.Ledger | None = None
    lost: bool = False
    blind: bool = False
    newer: bool = False
    problems: tuple[str, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """The SHA-1s that the file must have: none, one, or both."""
        known = {self.stored, self.ledger.sha1 if self.ledger else None}
        return frozenset(digest for digest in known if digest is not None)

    @property
    def finding(self) -> Finding:
        """The last verdict."""
        if self.ledger is None:
            return Finding(note='it has not been read yet')
        return judge(self.ledger, self.stored)


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
        problems.append(f'the ledger of {file.name} cannot be used: {error}')
    except errors.Damaged as error:
        lost = True
        problems.append(f'the ledger of {file.name} says nothing: {error}')
    except OSError as error:
        blind = True
        problems.append(f'the ledger of {file.name} cannot be read: {error}')
    try:
        stored = sidecars.read_stored_checksum(file.path)
    except OSError as error:
        blind = True
        problems.append(f'the checksum of {file.name} cannot be read: {error}')
    if ledger is not None and not ledger.is_of(file):
        # Birth times may be lacking, or be of a clock that was wrong: this is
        # the checksum of the file which was here before.
        if ledger.sha1 == stored and (
            file.incarnation.born is None
            or ledger.sidecar == sidecars.key_of(file)
        ):
            stored = None
        ledger = None
    return Knowledge(stored, ledger, lost, blind, newer, tuple(problems))
