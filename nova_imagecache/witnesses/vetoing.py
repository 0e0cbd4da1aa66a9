# SPDX-License-Identifier: Apache-2.0

"""What could not be looked at, what that keeps, and the way out of it.

Pure functions. What cannot be seen is not nothing: it counts as a user, of all
that it may need and of no more (decision 0079).
"""

from collections.abc import Collection
from collections.abc import Iterable
import enum
from typing import NamedTuple

from nova_imagecache import codes
from nova_imagecache import names
from nova_imagecache.witnesses import needs

_SHOWN = 3


class Reason(enum.StrEnum):
    """Why something is kept that nobody is seen to use: a fixed list."""

    UNANSWERED = 'unanswered'
    UNREADABLE = 'unreadable'
    DAMAGED = 'damaged'
    OUT_OF_SIGHT = 'out of sight'
    MISSING_DISK = 'missing disk'
    MISSING_MOUNT = 'missing mount'
    UNSTABLE = 'unstable'
    RECORD = 'record'
    CLOCK = 'clock'
    OTHER_HOST = 'other host'


_CODES = {
    Reason.UNANSWERED: codes.Code.UNANSWERED,
    Reason.UNREADABLE: codes.Code.UNREADABLE_DISK,
    Reason.DAMAGED: codes.Code.DAMAGED_HEADER,
    Reason.OUT_OF_SIGHT: codes.Code.OUT_OF_SIGHT,
    Reason.MISSING_DISK: codes.Code.MISSING_DISK,
    Reason.MISSING_MOUNT: codes.Code.MISSING_MOUNT,
    Reason.UNSTABLE: codes.Code.UNSTABLE,
    Reason.RECORD: codes.Code.RECORD,
    Reason.CLOCK: codes.Code.CLOCK,
    Reason.OTHER_HOST: codes.Code.OTHER_HOST,
}


def code(reason: Reason) -> codes.Code:
    """Give the code of a reason."""
    return _CODES[reason]


_IGNORE = (
    'say "nova-imagecache ignore PATH" of a file that is no disk of a guest'
)

_WAYS_OUT = {
    Reason.UNANSWERED: '',
    Reason.UNREADABLE: 'make it readable to the user that this runs as, move '
    f'it away, list it in [image_cache]/ignore_paths, or {_IGNORE}',
    Reason.DAMAGED: f'mend it or move it away, or {_IGNORE}',
    Reason.OUT_OF_SIGHT: 'bring what it stands on below instances_path, list '
    f'it in [image_cache]/ignore_paths, or {_IGNORE}',
    Reason.MISSING_DISK: 'mount or restore what is missing, or delete the '
    'guest or the link',
    Reason.MISSING_MOUNT: 'mount it; if it is gone for good, delete its '
    'guests, and say "nova-imagecache forget-host" with the name of this host',
    Reason.UNSTABLE: '',
    Reason.RECORD: '',
    Reason.CLOCK: 'set both to the same time',
    Reason.OTHER_HOST: 'see "nova-imagecache status" on that host; if it is '
    'gone for good, say "nova-imagecache forget-host" with its name',
}


def way_out(reason: Reason) -> str:
    """Say what to do; empty where that is in what the matter is."""
    return _WAYS_OUT[reason]


# How many of a kind are spoken of.
_MANY = {
    Reason.UNANSWERED: '{} witnesses cannot answer',
    Reason.UNREADABLE: '{} files or directories cannot be looked at',
    Reason.DAMAGED: '{} disks have a damaged header',
    Reason.OUT_OF_SIGHT: '{} disks or links lead to what is not to be seen',
    Reason.MISSING_DISK: '{} disks or directories of guests are missing',
    Reason.MISSING_MOUNT: '{} mounts are missing',
    Reason.UNSTABLE: '{} directories change faster than they are read',
    Reason.RECORD: '{} records cannot be used',
    Reason.CLOCK: '{} clocks are wrong',
    Reason.OTHER_HOST: '{} hosts could not look at everything, or cannot say '
    'what they need',
}


class Veto(NamedTuple):
    """Something that a witness should have seen, and could not look at.

    :ivar subject: its path, or what else it is called
    :ivar problem: what is the matter with it, a clause
    :ivar keeps: what it may need (see :mod:`needs`); None for anything
    """

    reason: Reason
    subject: str
    problem: str
    keeps: needs.Needs | None = None

    def keeps_file(self, base_file: str) -> bool:
        """Whether a base file stays for it."""
        return self.keeps is None or needs.may_need(self.keeps, base_file)

    @property
    def is_narrow(self) -> bool:
        """Whether other base files may go."""
        return self.keeps is not None

    @property
    def way_out(self) -> str:
        """Say what to do; empty where that is in what the matter is."""
        return way_out(self.reason)

    def __str__(self) -> str:
        """Say so in a sentence."""
        return f'{names.printable(self.subject)}: {self.problem}'


def _sentence(group: Collection[Veto]) -> codes.Problem:
    first, *others = sorted(group, key=lambda each: each.subject)
    text = str(first)
    if others:
        shown = '; '.join(map(str, [first, *others][:_SHOWN]))
        more = len(group) - _SHOWN
        text = f'{_MANY[first.reason].format(len(group))}: {shown}'
        text += f'; and {more} more' if more > 0 else ''
    text = f'{text}; {first.way_out}' if first.way_out else text
    return codes.Problem(code(first.reason), text, first.subject)


def sentences(vetoes: Iterable[Veto]) -> tuple[codes.Problem, ...]:
    """Say each kind of veto once, with three examples and what to do."""
    groups: dict[Reason, dict[Veto, None]] = {}
    for veto in vetoes:
        groups.setdefault(veto.reason, {})[veto] = None
    return tuple(_sentence(group) for group in groups.values())
