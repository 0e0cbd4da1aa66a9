# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of a base file before it is read again."""

import dataclasses
import datetime
import enum

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import scan
from nova_imagecache import errors
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import ledger as ledgers


# After which a file that could not be read is tried again, at the latest.
_RETRY_SECONDS = 24 * 3600


class Verdict(enum.StrEnum):
    """What is known of the content of a file."""

    GOOD = 'good'
    CORRUPT = 'corrupt'
    UNKNOWN = 'unknown'
    UNREADABLE = 'unreadable'
    OFF = 'off'


@dataclasses.dataclass(frozen=True)
class Finding:
    """A verdict, and why, where that is worth a sentence.

    :ivar skipped: whether the file was to be read, and was not
    :ivar problem: whether somebody has to act before it can be
    """

    verdict: Verdict = Verdict.UNKNOWN
    note: str = ''
    skipped: bool = False
    problem: bool = False

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


def judge(ledger: ledgers.Ledger) -> Finding:
    """Say what the last comparison means.

    The file must have every digest that is known of it. What it had at first
    counts, although somebody may have stored another checksum since; and a
    stored checksum counts, although the file may be as it was.
    """
    notes = []
    verdict = Verdict.UNKNOWN if ledger.verified is None else Verdict.GOOD
    if ledger.found is not None:
        verdict = Verdict.CORRUPT
        known = (ledger.sha1, ledger.stored)
        other = next(digest for digest in known if digest != ledger.found)
        notes.append(f'its SHA-1 is {ledger.found} and not {other}')
        if ledger.found == ledger.sha1:
            notes.append(
                'it has not changed since it was first read, so the stored '
                'checksum may be what is wrong'
            )
    if ledger.unreadable is not None:
        notes.append(f'it cannot be read: {ledger.unreadable}')
        if verdict is not Verdict.CORRUPT:
            verdict = Verdict.UNREADABLE
    if ledger.rebaselined is not None:
        day = datetime.datetime.fromtimestamp(
            ledger.rebaselined, datetime.UTC
        ).date()
        notes.append(
            f'rebaselined on {day}, as all that was known of it was lost'
        )
    return Finding(verdict, '; '.join(notes))


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What earlier passes left to know about a file.

    :ivar stored: its stored checksum, if it has a valid one
    :ivar ledger: its ledger, if it has one
    :ivar lost: whether it had a ledger that can no longer be made out
    :ivar blind: whether some of this could not be read just now: what is not
        seen may be there
    :ivar problems: what cannot be read, a sentence each
    """

    stored: str | None = None
    ledger: ledgers.Ledger | None = None
    lost: bool = False
    blind: bool = False
    problems: tuple[str, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """The digests that the file must have: none, one, or both."""
        known = {self.stored, self.ledger.sha1 if self.ledger else None}
        return frozenset(digest for digest in known if digest is not None)

    @property
    def finding(self) -> Finding:
        """The last verdict."""
        return judge(self.ledger) if self.ledger else Finding()

    def due(self, interval: int, now: float) -> bool:
        """Whether the file is to be read again.

        :param interval: seconds between two verifications
        :param now: seconds since the epoch
        """
        if self.ledger is None:
            return True
        if self.ledger.unreadable is not None:
            # A disk that fails is spared, but not forgotten.
            retry = min(interval, _RETRY_SECONDS)
            return not 0 <= now - (self.ledger.attempted or 0) < retry
        if self.ledger.verified is None:
            return True
        if self.stored not in (None, self.ledger.stored):
            # Somebody has stored another checksum since.
            return True
        # A verification in the future was noted before a clock was set back.
        return not 0 <= now - self.ledger.verified < interval


def recall(layout: layouts.Layout, file: scan.CachedFile) -> Knowledge:
    """Read what is known of a file; the file itself is not read.

    A ledger that is damaged says nothing of the file, good or bad; the next
    verification replaces it. What merely cannot be read is never replaced.
    """
    problems = []
    lost = False
    blind = False
    ledger = None
    stored = None
    try:
        ledger = ledgers.load_any(layout, file.name)
    except errors.Damaged as error:
        lost = True
        problems.append(f'the ledger of {file.name} says nothing: {error}')
    except OSError as error:
        blind = True
        problems.append(f'the ledger of {file.name} cannot be read: {error}')
    try:
        stored = checksum.read_stored_checksum(layout.file(file.name))
    except OSError as error:
        blind = True
        problems.append(f'the checksum of {file.name} cannot be read: {error}')
    incarnation = file.status.incarnation
    if ledger is not None and ledger.key != incarnation.key:
        # Where birth times do not tell, this does: the checksum is that of
        # the file which was here before.
        if incarnation.born is None and ledger.sha1 == stored:
            stored = None
        ledger = None
    return Knowledge(stored, ledger, lost, blind, tuple(problems))
