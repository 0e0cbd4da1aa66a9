# SPDX-License-Identifier: Apache-2.0

"""Doing what was decided, each file under its lock and asked about again."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import msgspec

from nova_imagecache.cache import base_file
from nova_imagecache.cache import batches
from nova_imagecache.cache import layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache import codes
from nova_imagecache.content import soundness
from nova_imagecache import errors
from nova_imagecache import host
from nova_imagecache.passes import decide
from nova_imagecache.passes import observed
from nova_imagecache import pools
from nova_imagecache.witnesses import testimonies

Action = decide.Action


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of the decisions.

    :ivar files: those on files in the cache, as they came out
    :ivar trash: those on files in the trash
    :ivar restored: files that are in the cache again
    :ivar problems: what could not be done, a sentence each
    :ivar notes: what somebody may want to look into, a sentence each
    :ivar shortfall: bytes that should go to make room, and cannot
    """

    files: tuple[decide.Decision, ...]
    trash: tuple[decide.Decision, ...]
    restored: tuple[base_file.BaseFile, ...] = ()
    problems: tuple[codes.Problem, ...] = ()
    notes: tuple[codes.Problem, ...] = ()
    shortfall: int = 0


def nothing(decisions: decide.Decisions) -> Done:
    """Do nothing, and give the decisions as they are."""
    return Done(
        decisions.files,
        decisions.trash,
        problems=decisions.problems,
        notes=decisions.notes,
        shortfall=decisions.shortfall,
    )


def _used(decisions: decide.Decisions) -> list[base_file.BaseFile]:
    """Give the files in the cache whose use is to be noted."""
    return [
        decision.file
        for decision in decisions.files
        if decision.used and decision.action is Action.KEEP
    ]


class Actor:
    """Does what was decided in one pass."""

    def __init__(
        self,
        layout: layouts.Layout,
        witnesses: Sequence[testimonies.Witness],
        facts: observed.Facts,
        touch_as_root: host.TouchAsRoot | None = None,
    ) -> None:
        """Do nothing yet.

        :param witnesses: asked again at the last moment
        :param facts: what was decided on
        :param touch_as_root: what the host lends for its files
        """
        self._layout = layout
        self._witnesses = witnesses
        self._facts = facts
        self._touch_as_root = touch_as_root
        self._problems: list[codes.Problem] = []
        self._touched = False
        # Names of bad files that somebody may be fetching anew.
        self._awaited: set[str] = set()

    def act(self, decisions: decide.Decisions) -> Done:
        """Put back, touch, remove and delete; a failure ends nothing."""
        restored: list[base_file.BaseFile] = []
        returned = {
            decision.file.name: self._put_back(decision, restored)
            for decision in sorted(decisions.trash, key=_first_the_best)
            if decision.action is Action.PUT_BACK
        }
        used = _used(decisions)
        going = _chosen(decisions.files, Action.REMOVE)
        doomed = _chosen(decisions.trash, Action.DELETE)
        try:
            removed = removal.remove(
                self._layout,
                going,
                self._objections,
                self._facts.now.wall,
                None
                if doomed or _share(used, going)
                else lambda: self._touch_once(used),
            )
            deleted = removal.empty(self._layout, doomed, self._objections)
        finally:
            # Last: the last looks would find all these files changed.
            self._touch_once(used)
        files = tuple(
            self._came_out(decision, removed, 'removed')
            for decision in decisions.files
        )
        trashed = tuple(
            returned.get(
                decision.file.name,
                self._came_out(decision, deleted, 'deleted'),
            )
            for decision in decisions.trash
        )
        return Done(
            files,
            trashed,
            tuple(restored),
            (*decisions.problems, *self._problems),
            decisions.notes,
            decisions.shortfall,
        )

    def _put_back(
        self, decision: decide.Decision, restored: list[base_file.BaseFile]
    ) -> decide.Decision:
        """Put a file back into the cache; give what became of the decision.

        One that is known to be bad may wait for its fetch (decision 0039).
        """
        name = decision.file.original
        answer = soundness.of(decision.file, self._facts.state)
        if answer.is_bad and not self._is_shown(decision.file):
            if decision.age < decide.FLOOR_SECONDS:
                self._awaited.add(name)
            if name in self._awaited:
                return _kept(
                    decision,
                    f'{decision.reason}; it is {answer.reason}, and may be '
                    'on its way from the image service',
                )
        try:
            file = removal.put_back(decision.file)
        except FileExistsError:
            return _kept(
                decision,
                f'{decision.reason}, and another file has its name in the '
                'cache by now',
            )
        except (errors.NotNow, OSError) as error:
            return self._failed(decision, 'put back', error)
        if decision.used:
            self._touch(file)
        restored.append(file)
        return decision

    def _is_shown(self, file: base_file.BaseFile) -> bool:
        """Whether more than a list of guests says that a file is used."""
        testimony = self._facts.testimony
        return file.original in testimony.shown or file.name in testimony.held

    def _touch(self, file: base_file.BaseFile) -> None:
        removal.touch(file.path, self._touch_as_root)

    def _touch_once(self, used: Sequence[base_file.BaseFile]) -> None:
        """Renew the times of files that are used, if nobody has yet."""
        if not self._touched:
            self._touched = True
            for _touched in pools.each(self._touch, used):
                pass

    def _came_out(
        self,
        decision: decide.Decision,
        outcomes: Mapping[str, batches.Outcome],
        done: str,
    ) -> decide.Decision:
        error = outcomes.get(decision.file.name)
        return (
            decision if error is None else self._failed(decision, done, error)
        )

    def _failed(
        self,
        decision: decide.Decision,
        done: str,
        error: errors.NotNow | OSError,
    ) -> decide.Decision:
        if isinstance(error, OSError):
            reason = f'cannot be {done}: {error.strerror}'
            self._problem(decision, f'{decision.file.name} {reason}')
        else:
            reason = f'not {done}: {error}'
            if isinstance(error, errors.LockBroken):
                self._problem(decision, f'{decision.file.name} is {reason}')
        return _kept(decision, reason)

    def _problem(self, decision: decide.Decision, text: str) -> None:
        self._problems.append(
            codes.Problem(codes.Code.NOT_MOVED, text, decision.file.name)
        )

    def _objections(
        self, files: Collection[base_file.BaseFile]
    ) -> dict[str, str]:
        """Ask again, at the last moment, with the locks of files held.

        :returns: why some of them stay, by name
        """
        all_of_them = [file.name for file in files]
        try:
            noted = states.used_since(self._layout, files, self._facts.state)
            pinned = pins.load(self._layout) - self._facts.pins
        except OSError as error:
            return dict.fromkeys(all_of_them, f'{error.strerror}')
        testimony = testimonies.hear_again(
            self._witnesses, sorted({file.original for file in files})
        )
        reasons = {}
        for file in files:
            users = testimony.users.get(file.original)
            obstacles = [
                str(each)
                for each in testimony.vetoes
                if each.keeps_file(file.original)
            ]
            replaced = file.trashed and file.original in self._facts.present
            if file.name in noted:
                reasons[file.name] = 'somebody has noted its use meanwhile'
            elif file.original in pinned:
                reasons[file.name] = 'somebody has pinned it meanwhile'
            elif users and not replaced:
                reasons[file.name] = f'{min(users)} has begun to use it'
            elif file.original in testimony.hosts and not replaced:
                reasons[file.name] = 'another host has begun to use it'
            elif obstacles:
                reasons[file.name] = obstacles[0]
        return reasons


def _first_the_best(decision: decide.Decision) -> tuple[bool, float, str]:
    """Sort files of the same name: what is open first, then the newest."""
    return not decision.used, decision.age, decision.file.name


def _chosen(
    decisions: Iterable[decide.Decision], action: Action
) -> list[base_file.BaseFile]:
    return [each.file for each in decisions if each.action is action]


def _share(
    some: Iterable[base_file.BaseFile], others: Iterable[base_file.BaseFile]
) -> bool:
    """Whether one of them is another name of one of the others."""
    incarnations = {file.incarnation for file in others}
    return any(file.incarnation in incarnations for file in some)


def _kept(decision: decide.Decision, reason: str) -> decide.Decision:
    return msgspec.structs.replace(decision, action=Action.KEEP, reason=reason)
