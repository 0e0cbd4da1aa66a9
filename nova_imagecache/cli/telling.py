# SPDX-License-Identifier: Apache-2.0

"""Telling of damage while a scrub is still at work."""

from collections.abc import Callable
import time

from nova_imagecache.cache import layouts
from nova_imagecache.cli import measuring
from nova_imagecache.conf import Settings
from nova_imagecache import outlets
from nova_imagecache.passes import noting
from nova_imagecache.passes import pipeline

# A scrub may go on for hours; and to look at all guests takes seconds.
_AGAIN_SECONDS = 60


class Telling:
    """Tells which files are bad and whom that hits: at once, but not often."""

    def __init__(
        self,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell nothing yet."""
        self._settings = settings
        self._monotonic = monotonic
        self._untold: list[str] = []
        self._next = monotonic()

    def add(self, name: str) -> None:
        """Tell of a file, now or in a minute."""
        self._untold.append(name)
        if self._monotonic() >= self._next:
            self.tell()

    def tell(self) -> None:
        """Tell of those that are left, and note whom that hits."""
        if not self._untold:
            return
        report = pipeline.Pass(self._settings).preview().only(self._untold)
        noting.note_guests(layouts.Layout.of(self._settings), report)
        outlets.tell_damage(report)
        measuring.write(self._settings)
        self._untold.clear()
        self._next = self._monotonic() + _AGAIN_SECONDS
