# SPDX-License-Identifier: Apache-2.0

"""Repairing what a scrub has found bad, without a person.

Slowly, and never where it looks as if something else were wrong: a disk that
is dying is not written to all night.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import logging
import random
import threading
from typing import Any

from oslo_utils import units

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache.heal import notes
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import policies
from nova_imagecache.heal import repair
from nova_imagecache.heal import sources
from nova_imagecache.heal import writer
from nova_imagecache import names

LOG = logging.getLogger(__name__)

# Of an image that is read as a whole without a person, and for how long: what
# a fetch of nearly any image takes, so a repair is no more of a load than a
# guest of a new image; and nothing is verified in this cache meanwhile
# (decision 0094).
_MOST_BYTES = 32 * units.Gi
_MOST_SECONDS = 2 * 3600

#: Gives the sources of a node.
SourcesOf = Callable[[Settings], list[sources.Source]]


def asking(
    get_client: Callable[[], Any] | None,
    watch: sources.Watch | None = None,
) -> SourcesOf:
    """Give what gives the sources of a node.

    :param get_client: see ``heal.assembly``
    :param watch: who waits for them
    """

    def sources_of(settings: Settings) -> list[sources.Source]:
        # Here, as most scrubs repair nothing.
        from nova_imagecache.heal import assembly

        from nova_imagecache.heal.sources import streams

        whole = streams.Bounds(_MOST_BYTES, _MOST_SECONDS)
        return assembly.sources_of(
            settings, get_client=get_client, whole=whole, watch=watch
        )

    return sources_of


@dataclasses.dataclass(frozen=True)
class Healer:
    """Repairs files of one cache, one by one.

    :ivar rewrite: writes, with the rights that it takes
    :ivar stop: when set, no further block is begun; sources have their own
        :class:`~nova_imagecache.heal.sources.Watch`
    :ivar chance: gives a number from 0 to 1 at random
    :ivar pulse: called after each block, so that whoever waits can say so
    """

    settings: Settings
    rewrite: writer.Rewrite = writer.rewrite
    clock: clocks.Clock = clocks.now
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    chance: Callable[[], float] = random.random
    sources_of: SourcesOf = asking(None)  # noqa: RUF009 it holds nothing
    pulse: Callable[[], object] = lambda: None

    def heal(
        self, name: str, look: Callable[[], object] = lambda: None
    ) -> outcomes.Outcome | None:
        """Repair a file, if it is time for that.

        The caller has the turn to read in this cache.

        :param look: called before anything is written, see ``repair.Means``
        :returns: what became of it; None where it is not time, or nothing is
            known to be bad
        """
        layout = layouts.Layout.of(self.settings)
        host = self.settings.host
        account = accounts.load(layout, host)
        now = self.clock()
        before = account.files.get(name)
        if before is not None and not before.last.is_due(now):
            return None
        try:
            file = base_file.BaseFile.named(layout, name)
            ledger = knowledge.recall(file).ledger
        except OSError as error:
            LOG.warning('[P19] %s: %s', names.printable(name), error.strerror)
            return None
        if ledger is None:
            return None
        if not repair.bad_blocks(ledger):
            return self._left(file, account, now)
        outcome = self._repair(file, ledger, account, now, look)
        account = notes.counted(accounts.load(layout, host), outcome)
        if outcome.left or outcome.stopped:
            account = account.failing(
                name,
                _state(outcome),
                _message(outcome),
                outcome.sources,
                now,
                self.chance(),
                again=not outcome.repaired,
                fetched=outcome.fetched,
            )
        else:
            account = account.without(name)
        self._save(account)
        return outcome

    def _left(
        self,
        file: base_file.BaseFile,
        account: accounts.Account,
        now: clocks.Instant,
    ) -> outcomes.Outcome | None:
        """Note that a file is bad, and that no block of it is known to be."""
        if not knowledge.recall(file).finding.damaged:
            return None
        outcome = outcomes.Outcome(
            file.name,
            stopped='it is bad as a whole, and none of its blocks is known to '
            'be; fetch it anew, or see nova-imagecache confirm',
        )
        self._save(
            account.failing(
                file.name,
                _state(outcome),
                outcome.stopped,
                {},
                now,
                self.chance(),
            )
        )
        return outcome

    def _repair(
        self,
        file: base_file.BaseFile,
        ledger: ledgers.Ledger,
        account: accounts.Account,
        now: clocks.Instant,
        look: Callable[[], object],
    ) -> outcomes.Outcome:
        """Repair as much of a file as may be, and charge for it."""
        bad = repair.bad_blocks(ledger)
        refusal = policies.refusal(bad, _data_blocks(file, ledger))
        if refusal is not None:
            return outcomes.Outcome(file.name, stopped=refusal)
        chosen = frozenset(bad[: account.left(now)])
        if not chosen:
            return outcomes.Outcome(
                file.name, stopped='the budget of this host is spent'
            )
        # Before, so that one that is killed each time comes to its end too.
        begun = account.charged(len(chosen), now)
        if not self._save(begun.beginning(file.name, len(chosen))):
            return outcomes.Outcome(
                file.name, stopped='what is repaired cannot be noted'
            )
        means = repair.Means(
            self.rewrite,
            self.clock,
            only=chosen,
            stop=self.stop,
            progress=lambda _length: self.pulse(),
            look=look,
        )
        asked = account.files.get(file.name)
        waiting = {
            name
            for name, attempt in (asked.sources if asked else {}).items()
            if not attempt.is_due(now)
        }
        given = [
            source
            for source in self.sources_of(self.settings)
            if source.name not in waiting
        ]
        try:
            outcome = repair.repair(file, given, means)
        except (errors.Error, OSError) as error:
            reason = getattr(error, 'strerror', None) or str(error)
            outcome = outcomes.Outcome(file.name, stopped=reason)
        # What was written counts, whether or not this can be noted.
        with contextlib.suppress(errors.Error, OSError):
            notes.note_told(
                file.layout, self.settings.host, ledger.image, outcome, now
            )
        unspent = len(chosen) - outcome.charged
        if unspent:
            layout = layouts.Layout.of(self.settings)
            account = accounts.load(layout, self.settings.host)
            self._save(account.charged(-unspent, now))
        whole = len(chosen) == len(bad) and not outcome.left
        if whole and not outcome.stopped and _is_harmful(file):
            outcome = dataclasses.replace(
                outcome,
                stopped='its blocks are good, and it is bad as a whole; see '
                'nova-imagecache confirm',
            )
        if len(chosen) < len(bad) and not outcome.stopped:
            outcome = dataclasses.replace(
                outcome, stopped='the budget of this host is spent'
            )
        return outcome

    def _save(self, account: accounts.Account) -> bool:
        layout = layouts.Layout.of(self.settings)
        try:
            accounts.save(layout, self.settings.host, account)
        except OSError as error:
            LOG.warning('[P13] %s: %s', layout.repairs, error.strerror)
            return False
        return True


def _is_harmful(file: base_file.BaseFile) -> bool:
    return knowledge.recall(file).finding.harmful


def _data_blocks(file: base_file.BaseFile, ledger: ledgers.Ledger) -> int:
    """Count the blocks that are known to hold data."""
    try:
        blocks = ledger.load_blocks(file)
    except (errors.Error, OSError):
        return ledger.count
    return sum(blocks.holds_data(index) for index in range(blocks.count))


def _state(outcome: outcomes.Outcome) -> str:
    """Say in a stable word why a file is still bad."""
    if outcome.left:
        return str(outcome.left[0].result)
    return 'left-to-a-person' if not outcome.blocks else 'stopped'


def _message(outcome: outcomes.Outcome) -> str:
    """Say why a file is still bad."""
    if outcome.stopped:
        return outcome.stopped
    # The last one comes first, as a line of the log may be cut: those before
    # it have their data by chance.
    asked = [
        f'{name}: {text}'
        for name, (_, text) in reversed([*outcome.sources.items()])
    ]
    notes = [block.note for block in outcome.left if block.note]
    reasons = notes[:1] or asked or ['no source has its data']
    return f'{len(outcome.left)} blocks are still bad; {"; ".join(reasons)}'
