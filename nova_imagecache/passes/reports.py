# SPDX-License-Identifier: Apache-2.0

"""What a pass saw and did, for whoever is told of it."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import msgspec

from nova_imagecache.cache import image_names
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import observed
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import chains
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import vetoing

_DAMAGE = {
    knowledge.Verdict.CORRUPT: codes.Code.CORRUPT,
    knowledge.Verdict.UNREADABLE: codes.Code.UNREADABLE,
    knowledge.Verdict.DIFFERS: codes.Code.DIFFERS,
}

_OFF = knowledge.Finding(knowledge.Verdict.OFF)


# Decision 0100.
class FileReport(msgspec.Struct, frozen=True):
    """One file in the cache; a struct of msgspec.

    :ivar size: in bytes
    :ivar allocated: bytes that it takes on the disk
    :ivar users: UUIDs of the instances that use it; where those are not
        known, names of directories or files
    :ivar readers: those of them of which a disk or a domain shows that they
        read it; the others were made from the same image
    :ivar vetoes: what keeps it though nobody is seen to use it
    :ivar image: the image it was made from, where it is known
    :ivar age_seconds: its age, or since it is in the trash
    :ivar action: what was done, or would be in a dry run
    :ivar note: what there is to say of its content: part of the reason
    :ivar contradicted: whether it is as it was first read, and only its stored
        checksum says otherwise
    :ivar bad: the bytes of it that are bad
    :ivar exposures: how its guests fare with these, where it is a raw image
    :ivar suspect: whether it may have been damaged before anything was known
        of it
    :ivar answer: whether it may be handed out; None where that was not
        looked at
    :ivar outdated: its guests whose disks are older than it, where it is
        known to hold other bytes than the file that they were made on
    :ivar used: whether anybody uses it, be it somebody who cannot be named
    :ivar trust: how far it is known to be what its image is
    :ivar last_copy: whether its image is gone from the image service
    :ivar early: whether it went, or would go, before its time to make room
    :ivar image_name: what people call its image, where that was looked up and
        is known; printable
    :ivar word: the verdict for people, who want to know what was read
    """

    name: str
    kind: names.Kind
    size: int
    allocated: int
    users: tuple[str, ...]
    image: str | None
    age_seconds: int
    checksum: knowledge.Verdict
    action: decide.Action
    reason: str
    bad: tuple[ledgers.BadRange, ...] = ()
    exposures: tuple[exposure.Exposure, ...] = ()
    suspect: bool = False
    answer: soundness.Soundness | None = None
    outdated: tuple[str, ...] = ()
    used: bool = False
    readers: tuple[str, ...] = ()
    vetoes: tuple[codes.Problem, ...] = ()
    note: str = ''
    contradicted: bool = False
    trust: ledgers.Trust | None = None
    last_copy: bool = False
    early: bool = False
    image_name: str = ''
    word: str = ''

    @property
    def code(self) -> codes.Code | None:
        """The code of what is wrong with its content, if anything is."""
        if self.contradicted:
            return codes.Code.CHECKSUM
        return _DAMAGE.get(self.checksum)


@dataclasses.dataclass(frozen=True)
class Report:
    """One pass.

    :ivar cache_dir: path of the cache
    :ivar files: every file in it, by name
    :ivar trash: every file in the trash, by the name that it has there; its
        age is the time for which it is there
    :ivar vetoes: why nothing may be removed, a sentence for each kind
    :ivar withheld: why some files may not be removed, likewise
    :ivar obstacles: both, each by itself
    :ivar vetoed_seconds: for which there was one in each pass of this host;
        None where there is none, or there was none before
    :ivar removed_seconds: since a file was last removed or deleted by anybody;
        None for never
    :ivar problems: what could not be done, a sentence each
    :ivar notes: what somebody may want to look into, a sentence each
    :ivar titles: what people call guests, by their UUIDs, where it is known
    :ivar host: name of the host that made it
    :ivar made: when, in seconds since the epoch
    :ivar dry_run: whether nothing was changed
    :ivar checksums: whether base files are to be verified
    :ivar coverage: how much of the cache is verified, as far as that was
        looked at
    :ivar repairs_due: whether a bad file is to be repaired now, without a
        person
    :ivar shortfall: bytes that should go to make room, and cannot
    :ivar began: when the pass began to look; None where there was nothing to
        do, or no way to do it
    :ivar ended: when it was through
    """

    cache_dir: str
    files: tuple[FileReport, ...] = ()
    trash: tuple[FileReport, ...] = ()
    vetoes: tuple[codes.Problem, ...] = ()
    withheld: tuple[codes.Problem, ...] = ()
    obstacles: tuple[vetoing.Veto, ...] = ()
    vetoed_seconds: float | None = None
    removed_seconds: float | None = None
    problems: tuple[codes.Problem, ...] = ()
    notes: tuple[codes.Problem, ...] = ()
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    host: str = ''
    made: float = 0.0
    dry_run: bool = False
    checksums: bool = False
    coverage: schedule.Coverage = dataclasses.field(
        default_factory=schedule.Coverage
    )
    repairs_due: bool = False
    shortfall: int = 0
    began: clocks.Instant | None = None
    ended: clocks.Instant | None = None

    def only(self, chosen: Collection[str]) -> 'Report':
        """Give the same report, on some of the files."""
        rows = [file for file in self.files if file.name in chosen]
        return dataclasses.replace(self, files=tuple(rows))

    @property
    def corrupt(self) -> tuple[FileReport, ...]:
        """The files that do not match their checksum."""
        return self._with(knowledge.Verdict.CORRUPT)

    @property
    def unreadable(self) -> tuple[FileReport, ...]:
        """The files that could not be read."""
        return self._with(knowledge.Verdict.UNREADABLE)

    @property
    def differing(self) -> tuple[FileReport, ...]:
        """The files that are not what an earlier file of the image was."""
        return self._with(knowledge.Verdict.DIFFERS)

    @property
    def bad(self) -> tuple[FileReport, ...]:
        """The files that may not be handed out, the corrupt ones first."""
        bad = [
            file
            for file in self.files
            if file.answer is soundness.Soundness.BAD
        ]
        corrupt = knowledge.Verdict.CORRUPT
        return tuple(sorted(bad, key=lambda file: file.checksum != corrupt))

    @property
    def harmful(self) -> tuple[FileReport, ...]:
        """The files that guests may be hit by, the bad ones first."""
        return (*self.bad, *self.differing)

    @property
    def outdated(self) -> tuple[FileReport, ...]:
        """The files that were made anew under guests."""
        return tuple(file for file in self.files if file.outdated)

    @property
    def removed(self) -> tuple[FileReport, ...]:
        """The files that were removed, or would be in a dry run."""
        return _which(self.files, decide.Action.REMOVE)

    @property
    def restored(self) -> tuple[FileReport, ...]:
        """The files that were put back from the trash, or would be."""
        return _which(self.trash, decide.Action.PUT_BACK)

    @property
    def deleted(self) -> tuple[FileReport, ...]:
        """The files in the trash that were deleted for good, or would be."""
        return _which(self.trash, decide.Action.DELETE)

    def _with(self, verdict: knowledge.Verdict) -> tuple[FileReport, ...]:
        return tuple(file for file in self.files if file.checksum is verdict)


def with_names(
    report: Report, images: Mapping[str, image_names.Image]
) -> Report:
    """Give the same report, with what is known of images.

    :param images: by the names of their original base files
    """
    if not images:
        return report

    def named(file: FileReport) -> FileReport:
        image = images.get(names.fingerprint(file.name))
        if image is None:
            return file
        return msgspec.structs.replace(
            file, image=file.image or image.id, image_name=image.name
        )

    return dataclasses.replace(
        report,
        files=tuple(map(named, report.files)),
        trash=tuple(map(named, report.trash)),
    )


def _which(
    files: tuple[FileReport, ...], action: decide.Action
) -> tuple[FileReport, ...]:
    return tuple(file for file in files if file.action is action)


def row(
    decision: decide.Decision,
    entry: schedule.Entry | None,
    finding: knowledge.Finding | None,
    facts: observed.Facts,
    chains_to: Callable[[str], Sequence[chains.Chain]],
    ranges: Sequence[tuple[int, int]] = (),
) -> FileReport:
    """Put together what there is to say of one file.

    :param entry: what is known of its content, if that was looked at
    :param finding: what was found in it, if anything was
    :param facts: what was decided on
    :param chains_to: gives the disks that lead to a base file
    :param ranges: bytes to look at as if they were bad
    """
    file = decision.file
    aliases = facts.testimony.aliases
    readers = facts.testimony.readers.get(file.original, frozenset())
    answer = soundness.judge(entry.known, finding) if entry else None
    ledger = entry.known.ledger if entry else None
    finding = finding or _OFF
    bad = ledger.bad_ranges if ledger else ()
    exposures: tuple[exposure.Exposure, ...] = ()
    if bad or ranges:
        ranges = [*((each.start, each.end) for each in bad), *ranges]
        exposures = tuple(
            dataclasses.replace(
                each, guest=aliases.get(each.guest, each.guest)
            )
            for each in exposure.expose(
                file.path, ranges, chains_to(file.name)
            )
        )
    outdated: tuple[str, ...] = ()
    if ledger and (ledger.anew or ledger.differs):
        guests = exposure.made_before(file.stat, chains_to(file.name))
        outdated = tuple(
            sorted({aliases.get(guest, guest) for guest in guests})
        )
    return FileReport(
        name=file.name,
        kind=file.kind,
        size=file.stat.size,
        allocated=file.stat.allocated,
        users=decision.users,
        image=decision.image or (ledger.image if ledger else None),
        age_seconds=int(decision.age),
        checksum=finding.verdict,
        action=decision.action,
        reason='; '.join(filter(None, [decision.reason, finding.note])),
        bad=bad,
        exposures=exposures,
        suspect=bool(ledger and ledger.suspect),
        trust=ledger.trust if ledger else None,
        answer=answer.soundness if answer else None,
        outdated=outdated,
        used=decision.used,
        last_copy=decision.last_copy,
        early=decision.spare
        and decision.action in (decide.Action.REMOVE, decide.Action.DELETE),
        # Of very many files these are the same.
        readers=decision.users
        if readers.issuperset(decision.users)
        else tuple(sorted(readers & {*decision.users})),
        note=finding.note,
        word=finding.word,
        contradicted=finding.contradicted,
        vetoes=()
        if decision.used
        else vetoing.sentences(facts.obstacles_to(file.original)),
    )
