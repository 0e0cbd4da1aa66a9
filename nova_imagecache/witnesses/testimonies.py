# SPDX-License-Identifier: Apache-2.0

"""What witnesses say, and what they say together."""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Protocol

Guests = frozenset[str]


@dataclasses.dataclass(frozen=True)
class Testimony:
    """Who uses which base file, according to one witness or to all.

    :ivar users: guests by base file: the UUID of an instance where it is
        known, else the name of the directory, or of the file, that uses it
    :ivar images: the image a base file was made from, where it is known
    :ivar aliases: UUIDs of instances by the names that others know them by
    :ivar by_list: whether this is from a list of guests, and no disk was seen
    :ivar shown: base files of which a disk, a domain or a lock shows a user;
        of all testimonies together
    :ivar held: base files that somebody uses who cannot be named
    :ivar failures: what the witness could not look at. Such a witness counts
        as having seen everything: nothing is removed on its word.
    :ivar notes: what it saw that somebody may want to look into
    """

    users: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    by_list: bool = False
    shown: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Witness(Protocol):
    """One way to learn who uses a base file."""

    def look(self, base_files: Collection[str]) -> Testimony:
        """Say who uses these files; never raises, a failure is a testimony.

        :param base_files: names of the files in question
        """
        ...

    def look_again(self, base_files: Collection[str]) -> Testimony:
        """Say who uses these files now, at the last moment before they go.

        Cheap, and only about what may have changed since :meth:`look`.
        """
        ...


def ask(
    witnesses: Sequence[Witness], base_files: Collection[str], again: bool
) -> Testimony:
    """Ask all witnesses; one that raises has failed, and ends nothing.

    :param again: whether this is the last moment
    """
    testimonies = []
    for witness in witnesses:
        question = witness.look_again if again else witness.look
        try:
            testimonies.append(question(base_files))
        # A broad net, as a host may have witnesses of its own.
        except Exception as error:
            failure = f'{type(witness).__name__} has failed: {error!r}'
            testimonies.append(Testimony(failures=(failure,)))
    return combine(testimonies)


def combine(testimonies: Sequence[Testimony]) -> Testimony:
    """Put testimonies together: one witness's word is enough for a user."""
    images: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for testimony in testimonies:
        images.update(testimony.images)
        aliases.update(testimony.aliases)
    users: dict[str, Guests] = {}
    for testimony in testimonies:
        for name, guests in testimony.users.items():
            known = frozenset(aliases.get(guest, guest) for guest in guests)
            users[name] = users.get(name, frozenset()) | known
    return Testimony(
        users,
        images,
        aliases,
        shown=frozenset(
            name
            for each in testimonies
            if not each.by_list
            for name in each.users
        ),
        held=frozenset(name for each in testimonies for name in each.held),
        failures=tuple(text for each in testimonies for text in each.failures),
        notes=tuple(text for each in testimonies for text in each.notes),
    )
