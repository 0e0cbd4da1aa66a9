# SPDX-License-Identifier: Apache-2.0

"""Who has passed under the name of a host: pure functions.

The name is what nova.conf says, so two machines may have the same one, as
those that were made from one template. A boot that is over cannot come back:
if one does, there are two (decision 0078).
"""

from collections.abc import Sequence
import dataclasses
import datetime

from nova_imagecache import clocks
from nova_imagecache import names

# Two machines, and each of them started anew.
_KEPT = 4

# By so much may clocks differ that are believed to agree.
_APART_SECONDS = 60

# For so long it is said.
_TOLD_SECONDS = 24 * 3600


@dataclasses.dataclass(frozen=True, slots=True)
class Boot:
    """One boot of whoever has the name of a host.

    :ivar passed: its last pass
    :ivar machine: which machine it is of, where that can be told
    :ivar twin: when it was last found that it has the name together with
        another one
    """

    passed: clocks.Instant
    machine: str | None
    twin: clocks.Instant | None

    @property
    def began(self) -> float:
        """Say when it began, by its wall clock."""
        return self.passed.wall - self.passed.boottime


def _beside(this: Boot, other: Boot) -> bool:
    """Whether another machine has passed after a boot began.

    Another machine ID alone says nothing, nor does another boot ID: some
    kinds of containers have new ones each time.
    """
    return (
        this.machine is not None
        and other.machine not in (None, this.machine)
        and other.passed.wall > this.began + _APART_SECONDS
        and abs(other.began - this.began) > _APART_SECONDS
    )


def entered(
    boots: Sequence[Boot], now: clocks.Instant, machine: str | None
) -> tuple[tuple[Boot, ...], float]:
    """Add a pass to those that were made under a name.

    Its clock is compared with what it was in the last pass of the same boot:
    that of another machine says nothing of it. To add a pass again changes
    nothing.

    :param boots: in the order in which they passed
    :param machine: which machine it is, where that can be told
    :returns: likewise, and by how many seconds the clock was set since then
    """
    this = Boot(now, machine, None)
    last = others = [each for each in boots if not _is_of(each, now)]
    beside = [each for each in others if _beside(this, each)]
    for place, each in enumerate(boots):
        if _is_of(each, now):
            this = dataclasses.replace(this, twin=each.twin)
            last, beside = [each], [*boots[place + 1 :]]
    if beside:
        this = dataclasses.replace(this, twin=now)
        others = [
            dataclasses.replace(each, twin=now) if each in beside else each
            for each in others
        ]
    jump = 0.0
    if last and last[-1] not in beside:
        jump = clocks.jump(last[-1].passed, now)
    return (*others, this)[-_KEPT:], jump


def _is_of(boot: Boot, now: clocks.Instant) -> bool:
    return boot.passed.boot_id == now.boot_id


def tell_twins(
    host: str, boots: Sequence[Boot], now: clocks.Instant
) -> str | None:
    """Say that two machines have the name of a host, if they have.

    For a day after that was last seen.
    """
    twins = [
        boot
        for boot in boots
        if boot.twin is not None
        and abs(clocks.elapsed(boot.twin, now)) < _TOLD_SECONDS
    ]
    if not twins:
        return None
    passes = ' and '.join(
        f'boot ID {names.printable(boot.passed.boot_id)} passed on '
        + datetime.datetime.fromtimestamp(
            boot.passed.wall, datetime.UTC
        ).isoformat(' ', 'minutes')
        for boot in twins[-2:]
    )
    return (
        f'two machines call themselves {names.printable(host)}: {passes}; '
        'give each a name of its own, [DEFAULT]/host in nova.conf'
    )
