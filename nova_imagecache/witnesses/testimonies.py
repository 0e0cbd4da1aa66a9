# SPDX-License-Identifier: Apache-2.0

"""What witnesses say, and what they say together."""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple
from typing import Protocol

from nova_imagecache import codes
from nova_imagecache.witnesses import vetoing

Guests = frozenset[str]


class NamedDisk(NamedTuple):
    """A disk that somebody other than the scan knows of.

    :ivar guest: who has it
    :ivar source: what it is called
    :ivar path: where it is on this host; None where it is no file of it
    :ivar layers: paths of all that is below it, where that is known
    """

    guest: str
    source: str
    path: str | None
    layers: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Testimony:
    """Who uses which base file, according to one witness or to all.

    :ivar users: guests by base file: the UUID of an instance where it is
        known, else the name of the directory, or of the file, that uses it
    :ivar readers: those of them of which a disk or a domain shows that they
        read the file; the image of the others is the one it was made from
    :ivar images: the image a base file was made from, where it is known
    :ivar aliases: UUIDs of instances by the names that others know them by
    :ivar titles: what people call guests, by what ``users`` calls them
    :ivar by_list: whether this is from a list of guests, and no disk was seen
    :ivar shown: base files of which a disk, a domain or a lock shows a user;
        of all testimonies together
    :ivar held: base files that somebody uses who cannot be named
    :ivar hosts: other hosts by base files that they have noted to use
    :ivar below: guests by base files that their disks need which whoever
        shares ``instances_path`` can see
    :ivar beyond: guests by base files that their other disks need
    :ivar said: guests of this host by base files that they need by evidence
        other than disks
    :ivar known: what guests may need, by their UUIDs, and by the names of
        domains that have none
    :ivar expected: guests that this host has, and the names of which their
        directory has one, or none where they need not have one; None where
        nobody knows them
    :ivar disks: what the scan has to have seen, or to look at
    :ivar missing: guests by the base file that they need and that is nowhere
    :ivar vetoes: what the witness could not look at
    :ivar notes: what it saw that somebody may want to look into
    """

    users: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    readers: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    by_list: bool = False
    shown: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    hosts: Mapping[str, frozenset[str]] = dataclasses.field(
        default_factory=dict
    )
    below: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    beyond: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    said: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    known: Mapping[str, frozenset[str]] = dataclasses.field(
        default_factory=dict
    )
    expected: Mapping[str, frozenset[str]] | None = None
    disks: tuple[NamedDisk, ...] = ()
    missing: Mapping[str, Guests] = dataclasses.field(default_factory=dict)
    vetoes: tuple[vetoing.Veto, ...] = ()
    notes: tuple[codes.Problem, ...] = ()

    @property
    def out_of_sight(self) -> frozenset[str]:
        """Give the base files of which only this host can see the need.

        Not where the guest has a disk over it that others can see.
        """
        said = {
            name
            for name, guests in self.said.items()
            if guests - self.below.get(name, frozenset())
        }
        return frozenset({*self.beyond, *said})


class Witness(Protocol):
    """One way to learn who uses a base file."""

    def look(
        self, base_files: Collection[str], others: Testimony
    ) -> Testimony:
        """Say who uses these files; never raises, a failure is a veto.

        :param base_files: names of the files in question
        :param others: what the witnesses that were asked before have said
        """
        ...

    def look_again(self, base_files: Collection[str]) -> Testimony:
        """Say who uses these files now, at the last moment before they go.

        Cheap, and only about what may have changed since :meth:`look`.
        """
        ...


def hear(
    witnesses: Sequence[Witness],
    base_files: Collection[str],
    before: Sequence[Testimony] = (),
) -> list[Testimony]:
    """Ask all witnesses; one that raises has failed, and ends nothing.

    :param before: what others have said already
    :returns: that, and what these say
    """
    heard = [*before]
    for witness in witnesses:
        heard.append(_hear_one(witness, base_files, combine(heard)))
    return heard


def hear_again(
    witnesses: Sequence[Witness], base_files: Collection[str]
) -> Testimony:
    """Ask all witnesses, at the last moment; give what they say together."""
    return combine([_hear_one(each, base_files) for each in witnesses])


def _hear_one(
    witness: Witness,
    base_files: Collection[str],
    others: Testimony | None = None,
) -> Testimony:
    """Ask one witness.

    :param others: what others have said; None at the last moment
    """
    try:
        if others is None:
            return witness.look_again(base_files)
        return witness.look(base_files, others)
    # A broad net, as a host may have witnesses of its own.
    except Exception as error:
        failure = vetoing.Veto(
            vetoing.Reason.UNANSWERED,
            type(witness).__name__,
            f'it has failed: {error!r}',
        )
        return Testimony(vetoes=(failure,))


def _merge(
    each: Sequence[Mapping[str, frozenset[str]]],
    aliases: Mapping[str, str],
) -> dict[str, frozenset[str]]:
    filled = [mapping for mapping in each if mapping]
    if len(filled) < 2 and not aliases:
        return dict(*filled)
    merged: dict[str, frozenset[str]] = {}
    for mapping in filled:
        for name, words in mapping.items():
            if aliases:
                words = frozenset(aliases.get(word, word) for word in words)
            before = merged.get(name)
            merged[name] = before | words if before else words
    return merged


def combine(testimonies: Sequence[Testimony]) -> Testimony:
    """Put testimonies together: one witness's word is enough for a user."""
    images: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for testimony in testimonies:
        images.update(testimony.images)
        aliases.update(testimony.aliases)
    listed = [
        each.expected for each in testimonies if each.expected is not None
    ]
    return Testimony(
        _merge([each.users for each in testimonies], aliases),
        _merge([each.readers for each in testimonies], aliases),
        images,
        aliases,
        titles={
            guest: title
            for each in testimonies
            for guest, title in each.titles.items()
        },
        shown=frozenset(
            name
            for each in testimonies
            if not each.by_list
            for name in each.users
        ),
        held=frozenset(name for each in testimonies for name in each.held),
        hosts=_merge([each.hosts for each in testimonies], {}),
        below=_merge([each.below for each in testimonies], aliases),
        beyond=_merge([each.beyond for each in testimonies], aliases),
        said=_merge([each.said for each in testimonies], aliases),
        known=_merge([each.known for each in testimonies], {}),
        expected=_merge(listed, {}) if listed else None,
        disks=tuple(disk for each in testimonies for disk in each.disks),
        missing=_merge([each.missing for each in testimonies], aliases),
        vetoes=tuple(veto for each in testimonies for veto in each.vetoes),
        notes=tuple(text for each in testimonies for text in each.notes),
    )
