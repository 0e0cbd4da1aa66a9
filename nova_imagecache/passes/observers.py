# SPDX-License-Identifier: Apache-2.0

"""The eyes of one pass: a glance where that will do, or a close look."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.passes import foresight
from nova_imagecache.passes import look
from nova_imagecache.passes import observed
from nova_imagecache.passes import storage
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import overlays
from nova_imagecache.witnesses import panel
from nova_imagecache.witnesses import testimonies

#: Whether a glance will not do, by what was left and how late it is.
Closely = Callable[[states.State, clocks.Instant], bool]


def _by_glance(_state: states.State, _now: clocks.Instant) -> bool:
    return False


class Observer:
    """Looks for one pass over one cache; it changes nothing there."""

    def __init__(
        self,
        settings: Settings,
        layout: layouts.Layout,
        witnesses: Sequence[testimonies.Witness],
        assembly: panel.Assembly,
        clock: clocks.Clock,
    ) -> None:
        """Recall what earlier passes have found; look at nothing yet.

        :param witnesses: those beside the ones that the settings name and
            that need nobody's list
        :param assembly: makes the witnesses, with what a host lends
        """
        self._settings = settings
        self._layout = layout
        self._clock = clock
        self._assembly = assembly
        self._memory, self._unrecalled = look.recall(layout, settings)
        self._others = (
            *witnesses,
            *assembly.others(settings, layout, clock),
        )
        self._overlays = assembly.overlays(layout, self._memory, glance=True)
        self._locks = assembly.locks(settings, layout)
        self._storage = storage.Storage()

    @property
    def witnesses(self) -> tuple[testimonies.Witness, ...]:
        """Those that were asked, or are to be."""
        return (*self._others, *self._last)

    @property
    def _last(self) -> tuple[testimonies.Witness, ...]:
        """Those that go by what the others have said, in this order."""
        return (self._overlays, *self._locks)

    @property
    def has_glanced(self) -> bool:
        """Whether something was believed to be as it was."""
        return self._overlays.has_glanced

    @property
    def recalled(self) -> inventories.Inventory:
        """What was noted of the disks of guests before."""
        return self._memory.inventory

    def inventory(self) -> inventories.Inventory:
        """Give what was seen of them now."""
        return self._overlays.inventory()

    def chains_to(self, base_file: str) -> Sequence[chains.Chain]:
        """Give the disks that lead to a base file."""
        return self._overlays.chains(base_file)

    def look(
        self, with_content: bool, closely: Closely = _by_glance
    ) -> observed.Facts:
        """See what there is; by a glance where that is likely to do.

        :param with_content: whether to read what is known of the content of
            base files
        """
        now = self._clock()
        state, obstacles = look.recall_state(self._layout)
        _entered, jump = state.entered(
            self._settings.host, now, clocks.machine_id()
        )
        if closely(state, now):
            self._overlays = self._closer(jump)
        scan = scans.scan(self._layout)
        self._overlays.show(scan.files)
        facts = look.look(
            self._settings,
            scan,
            self._others,
            self._last,
            now,
            state,
            obstacles,
            with_content,
        )
        return dataclasses.replace(
            facts, problems=(*facts.problems, *self._unrecalled)
        )

    def look_closely(self, facts: observed.Facts) -> observed.Facts:
        """See everything as it is, and as it stays while it is seen."""
        if not self.has_glanced:
            return facts
        self._overlays = self._closer(facts.jump)
        return look.look_closely(self._layout, facts, self._last)

    def foresees(self, state: states.State, now: clocks.Instant) -> bool:
        """Whether files are about to go."""
        return foresight.removes(state, now, self._settings)

    def foresees_and_asks(
        self, state: states.State, now: clocks.Instant
    ) -> bool:
        """Likewise; asks the storage how late it is there, if so."""
        return self.foresees(state, now) and self.asks(state, now)

    def asks(self, _state: states.State, _now: clocks.Instant) -> bool:
        """Look closely in any case, and ask the storage how late it is."""
        self._storage = storage.ask(self._layout, self._settings.host)
        return True

    def tell_time(self, shown: float) -> None:
        """Say how late it is for the storage.

        :param shown: in seconds since the epoch, just now
        """
        self._storage = storage.tell(self._layout, self._settings.host, shown)

    def _closer(self, jump: float) -> overlays.OverlayWitness:
        return self._assembly.overlays(
            self._layout,
            self._memory,
            clock=self._storage.clock,
            settled=self._storage.settled and not jump,
            jumped=bool(jump),
        )
