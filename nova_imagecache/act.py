# SPDX-License-Identifier: Apache-2.0

"""Doing what was decided, each file under its lock and asked about again."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import pins
from nova_imagecache.cache import removal
from nova_imagecache.cache import scan as scans
from nova_imagecache.cache import trash
from nova_imagecache.cache import uses
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache import look
from nova_imagecache.witnesses import testimony as testimonies

Action = decide.Action


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of the decisions.

    :ivar files: those on files in the cache, as they came out
    :ivar trash: those on files in the trash
    :ivar restored: files that are in the cache again
    :ivar problems: what could not be done, a sentence each
    :ivar notes: what somebody may want to look into, a sentence each
    """

    files: tuple[decide.Decision, ...]
    trash: tuple[decide.Decision, ...]
    restored: tuple[scans.CachedFile, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def nothing(decisions: decide.Decisions) -> Done:
    """Do nothing, and give the decisions as they are."""
    return Done(
        decisions.files,
        decisions.trash,
        problems=decisions.problems,
        notes=decisions.notes,
    )


class Actor:
    """Does what was decided in one pass."""

    def __init__(
        self,
        layout: layouts.Layout,
        witnesses: Sequence[testimonies.Witness],
        view: look.View,
        touch_as_root: removal.Touch | None = None,
    ) -> None:
        """Do nothing yet.

        :param witnesses: asked again at the last moment
        :param touch_as_root: what the host lends for its files
        """
        self._layout = layout
        self._witnesses = witnesses
        self._view = view
        self._touch_as_root = touch_as_root
        self._problems: list[str] = []
        # Names of bad files that somebody may be fetching anew.
        self._awaited: set[str] = set()

    def act(self, decisions: decide.Decisions) -> Done:
        """Put back, touch, remove and delete; a failure ends nothing."""
        restored: list[scans.CachedFile] = []
        returned = {
            decision.file.name: self._put_back(decision, restored)
            for decision in sorted(decisions.trash, key=_first_the_best)
            if decision.action is Action.PUT_BACK
        }
        for decision in decisions.files:
            if decision.used and decision.action is Action.KEEP:
                self._touch(decision.file.name)
        removed = removal.remove(
            self._layout,
            _chosen(decisions.files, Action.REMOVE),
            lambda files: self._objections(files, {}),
            self._view.now.wall,
        )
        deleted = removal.empty(
            self._layout,
            _chosen(decisions.trash, Action.DELETE),
            lambda files: self._objections(
                files, {file.name: trash.original(file.name) for file in files}
            ),
        )
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
        )

    def _put_back(
        self, decision: decide.Decision, restored: list[scans.CachedFile]
    ) -> decide.Decision:
        """Put a file back into the cache; give what became of the decision.

        One that is known to be bad was set aside for somebody who is fetching
        it anew, perhaps. That guest is in the list of instances by then, but
        none of its disks reads the file.
        """
        name = trash.original(decision.file.name)
        finding = knowledges.recall(self._layout, decision.file).finding
        if finding.damaged and not self._is_shown(decision.file.name):
            if decision.age < decide.FLOOR_SECONDS:
                self._awaited.add(name)
            if name in self._awaited:
                return _kept(
                    decision,
                    f'{decision.reason}; it is {finding.verdict}, and may be '
                    'on its way from the image service',
                )
        try:
            file = removal.put_back(self._layout, decision.file)
        except FileExistsError:
            return _kept(
                decision,
                f'{decision.reason}, and another file has its name in the '
                'cache by now',
            )
        except (errors.NotNow, OSError) as error:
            return self._failed(decision, 'put back', error)
        if decision.used:
            self._touch(file.name)
        restored.append(file)
        return decision

    def _is_shown(self, trashed: str) -> bool:
        """Whether more than a list of guests says that a file is used."""
        testimony = self._view.testimony
        original = trash.original(trashed)
        return original in testimony.shown or trashed in testimony.held

    def _touch(self, name: str) -> None:
        removal.touch(self._layout.file(name), self._touch_as_root)

    def _came_out(
        self,
        decision: decide.Decision,
        outcomes: Mapping[str, removal.Outcome],
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
            self._problems.append(f'{decision.file.name} {reason}')
        else:
            reason = f'not {done}: {error}'
            if isinstance(error, errors.LockBroken):
                self._problems.append(f'{decision.file.name} is {reason}')
        return _kept(decision, reason)

    def _objections(
        self, files: Collection[scans.CachedFile], trashed: Mapping[str, str]
    ) -> dict[str, str]:
        """Ask again, at the last moment, with the locks of files held.

        :param trashed: the names in the cache of files in the trash
        :returns: why some of them stay, by name
        """
        bases = {
            file.name: trashed.get(file.name, file.name) for file in files
        }
        try:
            noted = uses.used_since(self._layout, files, self._view.state)
            pinned = pins.load(self._layout) - self._view.facts.pins
        except OSError as error:
            return dict.fromkeys(bases, f'{error.strerror}')
        testimony = testimonies.ask(
            self._witnesses, sorted(set(bases.values())), again=True
        )
        if testimony.failures:
            return dict.fromkeys(bases, testimony.failures[0])
        reasons = {}
        for name, base in bases.items():
            users = testimony.users.get(base)
            if name in noted:
                reasons[name] = 'somebody has noted its use meanwhile'
            elif base in pinned:
                reasons[name] = 'somebody has pinned it meanwhile'
            elif users and not (
                name in trashed and base in self._view.facts.present
            ):
                reasons[name] = f'{min(users)} has begun to use it'
        return reasons


def _first_the_best(decision: decide.Decision) -> tuple[bool, float, str]:
    """Sort files of the same name: what is open first, then the newest."""
    return not decision.used, decision.age, decision.file.name


def _chosen(
    decisions: Iterable[decide.Decision], action: Action
) -> list[scans.CachedFile]:
    return [each.file for each in decisions if each.action is action]


def _kept(decision: decide.Decision, reason: str) -> decide.Decision:
    return dataclasses.replace(decision, action=Action.KEEP, reason=reason)
