# SPDX-License-Identifier: Apache-2.0

"""What a pass leaves for the next one, and for other hosts."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from nova_imagecache.cache import hosts
from nova_imagecache.cache import image_names
from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache import codes
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.passes import observed
from nova_imagecache.scrub import keeper
from nova_imagecache.witnesses import vetoing


class Notes(NamedTuple):
    """What one host notes in one cache.

    :ivar inventory: gives what was seen of the disks of guests
    :ivar before: what was noted of them before
    """

    layout: layouts.Layout
    host: str
    inventory: Callable[[], inventories.Inventory]
    before: inventories.Inventory

    def remember(
        self,
        facts: observed.Facts,
        done: act.Done,
        kept: Sequence[decide.Decision],
    ) -> list[codes.Problem]:
        """Note what the pass has seen and done; give what could not be.

        :param kept: what was left in the cache
        """
        used = {each.file.name for each in kept if each.used}
        used |= {
            each.file.original
            for each in done.trash
            if each.used and each.action is decide.Action.PUT_BACK
        }
        gone = [
            each.file
            for each in done.files
            if each.action is decide.Action.REMOVE
        ]
        trashed = trash.scan(
            self.layout,
            (
                *facts.trash,
                *(trash.moved(file, facts.now.wall) for file in gone),
            ),
        )
        problems = self.remember_guests(facts)
        try:
            states.remember(
                self.layout,
                self.host,
                facts.now,
                [
                    *(decision.file for decision in kept),
                    *done.restored,
                    *trashed.files,
                ],
                used,
                facts.testimony.images,
                {
                    name: history
                    for name, entry in facts.entries.items()
                    if (history := entry.known.history) is not None
                },
                facts.state,
                any(
                    each.spare and each.action is decide.Action.DELETE
                    for each in done.trash
                ),
                [*map(str, vetoing.sentences(facts.obstacles))],
                frozenset(
                    each.file.name
                    for each in (*done.files, *done.trash)
                    if each.action
                    in (decide.Action.REMOVE, decide.Action.DELETE)
                ),
                adrift=decide.is_adrift(facts.skew),
            )
        except errors.NotNow as error:
            return [*problems, self._unkept(error)]
        except OSError as error:
            return [*problems, self._unkept(error.strerror)]
        image_names.forget_others(
            self.layout,
            [file.original for file in (*facts.files, *trashed.files)],
        )
        removal.tidy(
            self.layout,
            [
                *(decision.file.name for decision in kept),
                *(file.name for file in done.restored),
            ],
            trashed.strays,
            None
            if facts.vetoes or facts.jump
            else facts.now.wall - abs(facts.skew),
            ledgers.may_go,
            ledgers.outlive,
        )
        return problems

    def _unkept(self, why: object) -> codes.Problem:
        return codes.Problem(
            codes.Code.NOT_KEPT, f'{self.layout.state} cannot be kept: {why}'
        )

    def remember_guests(self, facts: observed.Facts) -> list[codes.Problem]:
        """Note what the guests of this host need, for when it is away."""
        testimony = facts.testimony
        narrow = [each for each in facts.obstacles if each.is_narrow]
        # What others could not see is theirs to say.
        wide = [
            each
            for each in facts.obstacles
            if not each.is_narrow
            and each.reason is not vetoing.Reason.OTHER_HOST
        ]
        # Of two machines of one name each sees its own guests only.
        twins = facts.state.twins(self.host, facts.now)
        kept = {
            file.original
            for file in (*facts.files, *facts.trash)
            if narrow
            and any(each.keeps_file(file.original) for each in narrow)
        }
        try:
            hosts.remember(
                self.layout,
                self.host,
                facts.now.wall,
                frozenset(testimony.below),
                testimony.out_of_sight | kept,
                complete=not wide and twins is None,
                blind=any(each in testimony.vetoes for each in wide),
            )
            inventories.save(
                self.layout,
                self.host,
                self.inventory(),
                self.before,
            )
        except (errors.Error, OSError) as error:
            return [
                codes.Problem(
                    codes.Code.NOT_KEPT,
                    'what guests of this host need cannot be noted in '
                    f'{self.layout.hosts}: {error}',
                )
            ]
        return []


def restore_checksums(
    facts: observed.Facts, kept: Sequence[decide.Decision]
) -> list[codes.Problem]:
    """Bring back stored checksums that were lost; give what could not be."""
    problems = []
    for decision in kept:
        file = decision.file
        entry = facts.entries.get(file.name)
        if entry is None:
            continue
        try:
            keeper.restore_checksum(file, entry.known)
        except errors.NotNow:
            continue
        except OSError as error:
            problems.append(
                codes.Problem(
                    codes.Code.NOT_KEPT,
                    f'the checksum of {file.name} cannot be written: '
                    f'{error.strerror}',
                    file.name,
                )
            )
    return problems
