# SPDX-License-Identifier: Apache-2.0

"""What repairs a host has made, and what came of the others.

One record per host: the pace of a host is that of its disk, and each of those
that share a cache asks sources for itself.
"""

from collections.abc import Collection
from collections.abc import Mapping
import contextlib
import dataclasses
import os

from nova_imagecache.cache import hosts
from nova_imagecache.cache import layouts
from nova_imagecache.cache import records
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache import errors
from nova_imagecache.heal import policies
from nova_imagecache.heal.results import Result
from nova_imagecache import names

# Of so many files it is remembered why they are still bad.
_MOST_FILES = 1000


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One question that came to nothing, and when it is asked again.

    :ivar state: a stable word
    :ivar message: for people
    :ivar tries: how many times that was so
    :ivar at: the last time
    :ivar wait: seconds after that until it is asked again
    """

    state: str
    message: str
    tries: int
    at: clocks.Instant
    wait: float

    def is_due(self, now: clocks.Instant) -> bool:
        """Whether it is to be asked again."""
        return policies.is_over(self.at, self.wait, now)


@dataclasses.dataclass(frozen=True)
class File:
    """A file that is still bad.

    :ivar last: what came of the last repair
    :ivar sources: what came of asking each source, by its name
    """

    last: Attempt
    sources: dict[str, Attempt] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Account:
    """All repairs of one host.

    :ivar spent: blocks of the budget, at the time of the next field
    :ivar noted: when that was; None before the first repair
    :ivar files: those that are still bad, by name
    :ivar repaired: blocks in all, by the name of the source
    :ivar results: blocks in all, by what became of them
    :ivar begun: blocks of repairs of which nobody has told the end, by the
        name of the file
    :ivar fetched: bytes in all that came over a network, by source and by
        what came of them
    :ivar gone: when images were first seen to be gone from the image service,
        by their UUIDs
    :ivar told: when the image service last told of images, whatever that was,
        by their UUIDs
    :ivar unanswered: what came of the last question about an image, if that
        was no answer
    """

    spent: float = 0.0
    noted: clocks.Instant | None = None
    files: dict[str, File] = dataclasses.field(default_factory=dict)
    repaired: dict[str, int] = dataclasses.field(default_factory=dict)
    results: dict[str, int] = dataclasses.field(default_factory=dict)
    begun: dict[str, int] = dataclasses.field(default_factory=dict)
    fetched: dict[str, dict[str, int]] = dataclasses.field(
        default_factory=dict
    )
    gone: dict[str, clocks.Instant] = dataclasses.field(default_factory=dict)
    told: dict[str, clocks.Instant] = dataclasses.field(default_factory=dict)
    unanswered: Attempt | None = None

    @property
    def last_copies(self) -> frozenset[str]:
        """Give the names of original base files whose images are gone."""
        # What else another host has noted there is no UUID.
        images = filter(str.isascii, self.gone)
        return frozenset(map(names.get_cache_fname, images))

    def seeing(
        self, image: str, is_gone: bool, now: clocks.Instant
    ) -> 'Account':
        """Give the account after the image service told of an image."""
        gone = {key: when for key, when in self.gone.items() if key != image}
        if is_gone:
            gone[image] = self.gone.get(image, now)
        return dataclasses.replace(
            self.hearing(image, now), gone=_latest(gone)
        )

    def hearing(self, image: str, now: clocks.Instant) -> 'Account':
        """Give the account after an answer that says nothing of an image.

        Such as that it may not be seen, which is so for long.
        """
        return dataclasses.replace(
            self, told=_latest({**self.told, image: now})
        )

    def is_to_ask(
        self, image: str, now: clocks.Instant, chance: float
    ) -> bool:
        """Whether to ask again whether there still is an image.

        :param chance: from 0 to 1, at random
        """
        if self.unanswered is not None and not self.unanswered.is_due(now):
            return False
        told = self.told.get(image)
        return told is None or policies.is_to_ask(
            policies.since(told, now), chance
        )

    def not_answering(
        self, state: str, message: str, now: clocks.Instant, chance: float
    ) -> 'Account':
        """Give the account after a question that came to nothing.

        :param chance: from 0 to 1, at random
        """
        attempt = _again(self.unanswered, state, message, now, chance)
        return dataclasses.replace(self, unanswered=attempt)

    def left(self, now: clocks.Instant) -> int:
        """Give the number of blocks that may be repaired now."""
        return policies.left(policies.spent(self.spent, self.noted, now))

    def charged(self, blocks: int, now: clocks.Instant) -> 'Account':
        """Give the account after so many blocks more, or fewer."""
        by_now = policies.spent(self.spent, self.noted, now)
        return dataclasses.replace(
            self, spent=max(0.0, by_now + blocks), noted=now
        )

    def beginning(self, name: str, blocks: int) -> 'Account':
        """Give the account with a repair that begins.

        It is counted when its outcome is, or when it has none.
        """
        return dataclasses.replace(
            self.settled(), begun={name: blocks} if blocks else {}
        )

    def settled(self) -> 'Account':
        """Give the account with repairs that were killed in its totals.

        One repair is made at a time, so for whoever has the turn all that
        have begun are over. How far they came nobody knows: what is still bad
        is begun once more, and counted again.
        """
        results = dict(self.results)
        for blocks in self.begun.values():
            add(results, str(Result.INTERRUPTED), blocks)
        return dataclasses.replace(self, results=results, begun={})

    def without(self, name: str) -> 'Account':
        """Give the account without a file, which is good by now."""
        files = {key: each for key, each in self.files.items() if key != name}
        return dataclasses.replace(self, files=files)

    def only(self, present: Collection[str]) -> 'Account':
        """Give the account without files that have gone."""
        files = {
            key: each for key, each in self.files.items() if key in present
        }
        return dataclasses.replace(self, files=files)

    def failing(
        self,
        name: str,
        state: str,
        message: str,
        sources: Mapping[str, tuple[str, str]],
        now: clocks.Instant,
        chance: float,
        again: bool = True,
        fetched: Mapping[str, int] | None = None,
    ) -> 'Account':
        """Give the account with a file that is still bad.

        :param again: whether it is as it was; not where some of it is good
            by now
        :param sources: state and message of those that gave nothing
        :param fetched: bytes that came over a network, by source
        :param chance: from 0 to 1, at random
        """
        old = self.files.get(name)
        if old is None and len(self.files) >= _MOST_FILES:
            return self
        asked = dict(old.sources) if old else {}
        for source, (why, text) in sources.items():
            wasted = (fetched or {}).get(source, 0)
            asked[source] = _again(
                asked.get(source), why, text, now, chance, wasted
            )
        before = old.last if old and again else None
        last = _again(before, state, message, now, chance)
        files = {**self.files, name: File(last, asked)}
        return dataclasses.replace(self, files=files)


def _latest(when: dict[str, clocks.Instant]) -> dict[str, clocks.Instant]:
    """Keep the latest ones, where there are that many."""
    kept = sorted(when.items(), key=lambda each: each[1].wall)
    return dict(kept[-_MOST_FILES:])


def add(totals: dict[str, int], key: str, number: int) -> None:
    """Add to one of several totals."""
    totals[key] = totals.get(key, 0) + number


def _again(
    before: Attempt | None,
    state: str,
    message: str,
    now: clocks.Instant,
    chance: float,
    fetched: int = 0,
) -> Attempt:
    tries = before.tries + 1 if before else 1
    wait = policies.wait(tries, chance, fetched)
    # What a server says has no end, and a record has.
    said = codes.clipped(names.printable(message))
    return Attempt(state, said, tries, now, wait)


def _from_1(body: records.Values) -> records.Values:
    """Know of no image that is gone."""
    return {**body, 'gone': {}, 'unanswered': None}


def _from_2(body: records.Values) -> records.Values:
    """Tell bytes by what came of them, which nobody has noted so far."""
    fetched = body['fetched'].items()
    return {**body, 'fetched': {key: {'unknown': n} for key, n in fetched}}


def _from_3(body: records.Values) -> records.Values:
    """Know of no image when it was last told of."""
    return {**body, 'told': {}}


def _from_4(body: records.Values) -> records.Values:
    """Know of no repair that has begun."""
    return {**body, 'begun': {}}


_FORMAT = records.Format(
    'repairs',
    5,
    Account,
    {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4},
    lasting=False,
    limit=4 * 2**20,
)


def load(layout: layouts.Layout, host: str) -> Account:
    """Read what a host has noted; nothing where that is not to be had.

    It is about the pace, and what is lost of it is learnt again.
    """
    path = hosts.record_path(layout.repairs, host)
    try:
        return _FORMAT.load(path) or Account()
    except (errors.Damaged, errors.Newer, OSError):
        return Account()


def last_copies(layout: layouts.Layout) -> frozenset[str]:
    """Name the original base files whose images are gone, by all hosts.

    One that is told goes for all that share the cache.
    """
    try:
        found = sorted(os.listdir(layout.repairs))
    except OSError:
        return frozenset()
    copies: set[str] = set()
    for name in found:
        with contextlib.suppress(errors.Error, OSError):
            account = _FORMAT.load(os.path.join(layout.repairs, name))
            copies |= account.last_copies if account else frozenset()
    return frozenset(copies)


def save(layout: layouts.Layout, host: str, account: Account) -> None:
    """Note what a host has done.

    :raises OSError: it was not noted
    """
    _FORMAT.save(layout, hosts.record_path(layout.repairs, host), account)


def forget(layout: layouts.Layout, host: str) -> None:
    """Remove what a host has noted, if there is anything.

    :raises OSError: it stays
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(hosts.record_path(layout.repairs, host))


def is_due(
    account: Account, bad: Collection[str], now: clocks.Instant
) -> bool:
    """Whether one of the bad files is to be repaired now."""
    if not account.left(now):
        return False
    return any(
        name not in account.files or account.files[name].last.is_due(now)
        for name in bad
    )


def sentences(
    account: Account, bad: Collection[str], now: clocks.Instant
) -> list[codes.Problem]:
    """Say why files are still bad, and why nothing is repaired just now.

    :param bad: the names of the files that are
    """
    found = [
        codes.Problem(
            codes.Code.NOT_REPAIRED,
            f'{names.printable(name)} is not repaired: {file.last.message}',
            names.printable(name),
        )
        for name, file in sorted(account.files.items())
        if name in bad
    ]
    by_now = policies.spent(account.spent, account.noted, now)
    if bad and not policies.left(by_now):
        minutes = policies.refills_in(by_now) / 60
        found.append(
            codes.Problem(
                codes.Code.REPAIRS_PAUSE,
                f'repairs pause for {minutes:.0f} min: so many blocks of this '
                'host were repaired lately that its disk may be dying; look '
                'at the log of the kernel and at smartctl',
            )
        )
    return found
