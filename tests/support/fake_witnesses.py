# SPDX-License-Identifier: Apache-2.0

"""Witnesses that say what a test has them say."""

from collections.abc import Callable
from collections.abc import Collection
from typing import Any

from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing


def blind(problem: str = 'blind') -> vetoing.Veto:
    """Give the veto of a witness that sees nothing."""
    return vetoing.Veto(vetoing.Reason.UNANSWERED, 'a witness', problem)


class Raises:
    """A witness that is broken."""

    def __init__(self, when: str) -> None:
        self._when = when

    def look(
        self, base_files: Any, others: Any = None
    ) -> testimonies.Testimony:
        return self._answer('look')

    def look_again(self, base_files: Any) -> testimonies.Testimony:
        return self._answer('look_again')

    def _answer(self, name: str) -> testimonies.Testimony:
        if name == self._when:
            raise RuntimeError('broken\nwitness')
        return testimonies.Testimony()


class SaysLater:
    """A witness that sees nobody at first, and somebody at the last moment."""

    def __init__(self, later: testimonies.Testimony) -> None:
        self._later = later

    def look(
        self, base_files: Collection[str], others: Any = None
    ) -> testimonies.Testimony:
        return testimonies.Testimony()

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        return self._later


GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


class Sees:
    """A witness that sees somebody use some base files."""

    def __init__(
        self, *base_files: str, vetoes: tuple[vetoing.Veto, ...] = ()
    ):
        self._testimony = testimonies.Testimony(
            users={name: frozenset({GUEST}) for name in base_files},
            vetoes=vetoes,
        )

    def look(
        self, base_files: Any, others: Any = None
    ) -> testimonies.Testimony:
        return self._testimony

    def look_again(self, base_files: Any) -> testimonies.Testimony:
        return self._testimony


class Looks:
    """A witness that says this, and has nothing to add later."""

    def __init__(self, **testimony: Any) -> None:
        self._testimony = testimonies.Testimony(**testimony)

    def look(
        self, base_files: Any, others: Any = None
    ) -> testimonies.Testimony:
        return self._testimony

    def look_again(self, base_files: Any) -> testimonies.Testimony:
        return testimonies.Testimony()


class Meddles(Looks):
    """A witness at which something is done at the last moment."""

    def __init__(self, deed: Callable[[], object], **testimony: Any) -> None:
        super().__init__(**testimony)
        self._deed = deed

    def look_again(self, base_files: Any) -> testimonies.Testimony:
        self._deed()
        return testimonies.Testimony()
