# SPDX-License-Identifier: Apache-2.0

"""What a pass has seen, and goes by when it decides.

Pure functions of that; no clock and no I/O.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools

from oslo_utils import units

from nova_imagecache.cache import base_file
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache import names
from nova_imagecache.passes import pressure
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing

# How many bad files stay in the trash to be looked at, and of which size in
# all (decision 0090).
_INSPECTED_FILES = 3
_INSPECTED_BYTES = 64 * units.Gi


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a pass has seen, before it decides.

    :ivar files: in the cache
    :ivar trash: files in the trash
    :ivar testimony: what all witnesses say together
    :ivar others: what those have said that go by nobody else's word
    :ivar state: what earlier passes remember
    :ivar entries: what is known of the content of files, by name; a file that
        is not in it is not verified
    :ivar pins: names of files that are to stay
    :ivar last_copies: names of original base files whose images are gone from
        the image service
    :ivar space: how full the disk is, where that matters
    :ivar vetoes: reasons to remove nothing, beside what witnesses could not
        look at
    :ivar newer: names of files of which a newer release knows more than we
        can read
    :ivar least: seconds for which every unused file is kept, in the place of
        what the options say; None to go by them
    :ivar jump: seconds by which the clock was set since the last pass
    :ivar skew: seconds by which the clock of the host is ahead of that of the
        storage
    :ivar problems: what could not be looked at, a sentence each
    :ivar usable: whether there is room for what a pass writes
    """

    now: clocks.Instant
    files: Sequence[base_file.BaseFile] = ()
    trash: Sequence[base_file.BaseFile] = ()
    testimony: testimonies.Testimony = dataclasses.field(
        default_factory=testimonies.Testimony
    )
    others: tuple[testimonies.Testimony, ...] = ()
    state: states.State = dataclasses.field(default_factory=states.State)
    entries: Mapping[str, schedule.Entry] = dataclasses.field(
        default_factory=dict
    )
    pins: frozenset[str] = frozenset()
    last_copies: frozenset[str] = frozenset()
    space: pressure.Space | None = None
    vetoes: Sequence[vetoing.Veto] = ()
    newer: frozenset[str] = frozenset()
    least: int | None = None
    jump: float = 0.0
    skew: float = 0.0
    problems: Sequence[codes.Problem] = ()
    usable: bool = True

    @functools.cached_property
    def present(self) -> frozenset[str]:
        """Give the names of what is in the cache."""
        return frozenset(file.name for file in self.files)

    @functools.cached_property
    def inspected(self) -> frozenset[str]:
        """Give the names of bad files in the trash that are worth a look.

        The latest ones, and not very many (decision 0090).
        """
        bad = [file for file in self.trash if self.was_bad(file)]
        bad.sort(key=lambda file: names.trashed_at(file.name), reverse=True)
        total = 0
        found = []
        for file in bad[:_INSPECTED_FILES]:
            total += file.stat.allocated
            if total > _INSPECTED_BYTES:
                break
            found.append(file.name)
        return frozenset(found)

    def was_bad(self, file: base_file.BaseFile) -> bool:
        """Whether a file was known to be bad when it was read last."""
        sighting = self.state.sighting(file)
        return bool(sighting and sighting.damage and file.kind.is_base)

    @functools.cached_property
    def superseded(self) -> frozenset[str]:
        """Give the names of files in the trash that a QEMU has open.

        Its guest will look for a file of that name when it is started anew.
        """
        return frozenset(
            file.original
            for file in self.trash
            if file.name in self.testimony.held
        )

    @functools.cached_property
    def obstacles(self) -> tuple[vetoing.Veto, ...]:
        """Give all that keeps files which nobody is seen to use."""
        return (*self.vetoes, *self.testimony.vetoes)

    def is_last_copy(self, file: base_file.BaseFile) -> bool:
        """Whether a file cannot be had from the image service any more."""
        return bool(
            self.last_copies
            and file.kind.is_image
            and names.fingerprint(file.original) in self.last_copies
        )

    def obstacles_to(self, base_file: str) -> list[vetoing.Veto]:
        """Give those that keep a file, by the name that it had."""
        return [each for each in self.obstacles if each.keeps_file(base_file)]
