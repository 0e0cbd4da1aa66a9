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
        others = sorted({ledger.sha1, ledger.stored} - {ledger.found, None})
        notes.append(f'its SHA-1 is {ledger.found} and not {others[0]}')
        if ledger.found == ledger.sha1:
            notes.append(
                'it has not changed since it was first read, so the stored '
                'checksum may be what is wrong'
            )
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
    :ivar problems: what cannot be read, a sentence each
    """

    stored: str | None = None
    ledger: ledgers.Ledger | None = None
    lost: bool = False
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
        if self.ledger is None or self.ledger.verified is None:
            return True
        if self.stored not in (None, self.ledger.stored):
            # Somebody has stored another checksum since.
            return True
        # A verification in the future was noted before a clock was set back.
        return not 0 <= now - self.ledger.verified < interval


def recall(layout: layouts.Layout, file: scan.CachedFile) -> Knowledge:
    """Read what is known of a file; the file itself is not read.

    A ledger that is damaged, or a checksum that cannot be read, says nothing
    of the file, good or bad; the next verification replaces it.
    """
    problems = []
    lost = False
    any_ledger = None
    try:
        any_ledger = ledgers.load_any(layout, file.name)
    except (errors.Damaged, OSError) as error:
        lost = True
        problems.append(f'the ledger of {file.name} says nothing: {error}')
    stored = None
    try:
        stored = checksum.read_stored_checksum(layout.file(file.name))
    except OSError as error:
        problems.append(f'the checksum of {file.name} cannot be read: {error}')
    incarnation = file.status.incarnation
    if any_ledger is None or any_ledger.key == incarnation.key:
        return Knowledge(stored, any_ledger, lost, tuple(problems))
    # Where birth times do not tell, this does: the checksum is that of the
    # file which was here before.
    if incarnation.born is None and any_ledger.sha1 == stored:
        stored = None
    return Knowledge(stored, None, lost, tuple(problems))
