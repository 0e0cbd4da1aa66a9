# SPDX-License-Identifier: Apache-2.0

"""What must hold of the verdict on a base file, whatever has happened."""

import collections
import dataclasses
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.content import knowledge
from nova_imagecache.content import soundness
from nova_imagecache import errors
from nova_imagecache.scrub import recalling
from nova_imagecache.scrub import schedule
from tests.histories import media
from tests.histories import papers
from tests.histories import worlds
from tests.support import base

Image = media.Image
Verdict = knowledge.Verdict
Violation = worlds.Violation

_HARMFUL = (Verdict.CORRUPT, Verdict.UNREADABLE, Verdict.DIFFERS)
_ACCUSING = (Verdict.CORRUPT, Verdict.DIFFERS)

# What may have made a file suspect, and what may have given it a new baseline.
_SUSPICIOUS = {'eio', 'sync', 'changed', 'misread', 'reboot', 'strange'}
_RENEWING = {'lost', 'replaced', 'reformed', 'changed'}
# What may have put something wrong on record.
_MISLEADING = {'damaged', 'wrong', 'eio'}


@dataclasses.dataclass
class Effects:
    """What one step did.

    :ivar product: whether it was the product that did something
    :ivar silent: whether nobody has a reason to think otherwise of any file
    :ivar whole: whether files were read from their start to their end
    :ivar faults: whether anything was made to fail, or happened meanwhile
    :ivar hidden: whether some of what is on record could not be read
    :ivar confirmed: the file that a person gave evidence of
    :ivar findings: what was found, by name
    """

    product: bool = False
    silent: bool = False
    whole: bool = False
    faults: bool = False
    hidden: bool = False
    confirmed: str | None = None
    findings: dict[str, Verdict] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Marks:
    """What is never to be forgotten of a file."""

    suspect: bool
    rebaselined: float | None

    @classmethod
    def of(cls, look: 'Look') -> 'Marks':
        found = look.papers
        if found.ledger is not None:
            return cls(found.get('suspect'), found.get('rebaselined'))
        sighting = look.sighting or {}
        return cls(bool(sighting.get('suspect')), sighting.get('rebaselined'))


@dataclasses.dataclass
class Look:
    """One file at one moment: what is so, on record, and said of it.

    :ivar sighting: what the state says, if that is of this file
    :ivar another: whether its ledger is of another file of its name
    """

    damaged: set[int]
    eio: set[int]
    papers: papers.Papers
    raw: bytes = dataclasses.field(repr=False)
    sighting: dict[str, Any] | None
    answer: soundness.Answer
    verdict: Verdict
    due: float
    another: bool

    @property
    def sound(self) -> bool:
        return not self.damaged and not self.eio

    @property
    def harmful(self) -> bool:
        return self.verdict in _HARMFUL


def look(world: media.World, image: Image, state: states.State) -> Look:
    file = base_file.BaseFile.named(world.layout, image.name)
    found = papers.Papers.of(world.layout, image.name)
    entry = recalling.entry_of(file, state)
    key = file.incarnation.key
    due = schedule.due_in(
        entry,
        world.settings.checksum_interval,
        world.now(),
        world.settings.host,
    ).due
    try:
        raw = worlds.read(file.ledger)
    except OSError:
        raw = b''
    return Look(
        image.damaged,
        {*image.eio},
        found,
        raw,
        _sighting(found, key),
        soundness.of(file, state),
        entry.known.finding.verdict,
        due,
        found.ledger is not None and not _may_be(found.get('key'), key),
    )


def _sighting(
    found: papers.Papers, key: identity.Key
) -> dict[str, Any] | None:
    for each in found.sightings:
        if each and each['key'][0] == key[0] and _may_be(each['key'], key):
            return each
    return None


def _may_be(one: Any, other: identity.Key) -> bool:
    """Whether two keys may be of one file, whatever its inode."""
    return all(
        here is None or there is None or here == there
        for here, there in zip(one[1:], other[1:], strict=True)
    )


class Judge:
    """Looks whether what is said of files can be stood by.

    :ivar counts: what was seen, and how often
    """

    def __init__(
        self, world: media.World, counts: collections.Counter[str]
    ) -> None:
        """Begin with what there is."""
        self.counts = counts
        self._world = world

    def looks(self) -> dict[str, Look]:
        try:
            state = states.load(self._world.layout)
        except errors.Error:
            state = states.State()
        return {
            name: look(self._world, image, state)
            for name, image in self._world.images.items()
        }

    def judge(
        self,
        before: dict[str, Look],
        after: dict[str, Look],
        effects: Effects,
    ) -> None:
        for name, image in self._world.images.items():
            case = Case(image, before[name], after[name], effects)
            case.check(self._world.now())
            self.counts[after[name].verdict] += 1
            marks = Marks.of(after[name])
            self.counts['suspect'] += marks.suspect
            self.counts['rebaselined'] += marks.rebaselined is not None


class Case:
    """One file in one step."""

    def __init__(
        self, image: Image, before: Look, after: Look, effects: Effects
    ) -> None:
        """Begin."""
        self._image = image
        self._before = before
        self._after = after
        self._effects = effects
        self._finding = effects.findings.get(image.name)
        # Against what it is to hold now, if it was written to meanwhile.
        self._evidence = before.papers.evidence(image.truth)
        # That it was made anew is known where it is seen to be another file
        # than one that was known well.
        sure = before.papers.get('proven') or not before.papers.get('found')
        known = (
            before.another
            and sure
            and not (before.papers.unsettled or effects.hidden)
        )
        misled = image.past & _MISLEADING or (
            'reformed' in image.past and not known
        )
        self._misled = bool(misled) and (
            before.papers.lies(image.truth) or after.papers.lies(image.truth)
        )
        self._old, self._new = Marks.of(before), Marks.of(after)
        self._suspect = self._new.suspect

    def check(self, now: clocks.Instant) -> None:
        self._check_record()
        self._check_accusations()
        if self._effects.silent:
            self._check_silence(now)
        if self._effects.product:
            self._check_evidence()
            self._check_damage()
            self._check_marks()
        if self._finding is not None:
            self._check_good()
            self._check_cleared()
            if not self._effects.faults:
                self._check_noted()

    def _fail(self, what: str) -> None:
        raise Violation(
            f'{what}: {self._image}\nbefore: {self._before}\n'
            f'after: {self._after}\n{self._effects}'
        )

    @property
    def _anew(self) -> bool:
        """Whether it rightly has a new baseline."""
        image = self._image
        if self._new.rebaselined in (None, self._old.rebaselined) and not (
            # Twice in the same moment.
            self._after.papers.get('anew')
            and self._after.papers.get('key') != self._before.papers.get('key')
        ):
            return False
        if not image.original and 'replaced' in image.past:
            return True
        data = {
            index
            for index in range(image.count)
            if any(media.block_of(image.truth, index))
        }
        return 'reformed' in image.past or data <= self._after.damaged

    def _check_record(self) -> None:
        """What is on record as damage is said, to whoever asks."""
        found, sighting = self._after.papers, self._after.sighting
        other = self._after.another or found.get('question')
        noted: Any = not other and found.bad('corrupt', 'unreadable')
        if found.ledger is None and sighting:
            noted = noted or sighting.get('damage')
        if noted and self._after.answer.soundness is soundness.Soundness.SOUND:
            self._fail('what is known to be bad is handed out')
        newer = self._before.papers.newer and self._effects.product
        if newer and self._before.raw != self._after.raw:
            self._fail('what a newer release knows is lost')

    def _check_accusations(self) -> None:
        image, before, after = self._image, self._before, self._after
        # It may be seen anew that it is another file, or not be seen any more.
        seen = self._effects.product or before.another == after.another
        if not (before.sound and after.sound and seen):
            return
        said = {after.verdict, self._finding}
        accused = said & {*_ACCUSING} and not self._misled
        if said & {*_ACCUSING}:
            # What is wrong on record stays with the copies of a file.
            image.past.add('wrong')
        doubted = Verdict.UNREADABLE in said and 'eio' not in image.past
        if 'sync' in image.past:
            doubted = False
        if (accused or doubted) and not before.harmful:
            self._fail('a sound file is accused')

    def _check_silence(self, now: clocks.Instant) -> None:
        before, after = self._before, self._after
        # Without its ledger, the state may know it by its inode.
        told = after.papers.ledger or before.sighting == after.sighting
        told = told and before.another == after.another
        if told and before.answer.soundness is not after.answer.soundness:
            self._fail('another answer for no reason')
        read = before.papers.get('read')
        recent = told and not after.another and read
        recent = recent and now.wall - read['wall'] < base.DAY
        if recent and before.due > 0 >= after.due:
            self._fail('it is read again for no reason')

    def _check_evidence(self) -> None:
        old, new = self._before.papers, self._after.papers
        lost = self._evidence - new.evidence(self._image.truth)
        if self._new.suspect and old.unsettled:
            lost -= {'sha1', *old.unsettled}
            if old.get('size') != new.get('size'):
                # Somebody still writes to it.
                lost.clear()
        if self._after.papers.sidecar is None:
            # It can be brought back.
            lost -= {'sidecar'} if 'sha1' not in lost else set()
        if lost and not (self._anew or self._after.papers.newer):
            self._fail(f'evidence is overwritten ({lost})')

    def _check_damage(self) -> None:
        before, after = self._before, self._after
        # What is damaged after it was read is found next time.
        still = before.damaged & after.damaged | before.eio & after.eio
        if noted := before.papers.bad('corrupt', 'unreadable'):
            still &= noted
        if not before.harmful or not still or self._misled or self._anew:
            return
        if before.verdict is Verdict.UNREADABLE and not self._image.eio:
            return
        if after.answer.soundness is soundness.Soundness.SOUND:
            self._fail('known damage is forgotten')

    def _check_marks(self) -> None:
        old, new, past = self._old, self._new, self._image.past
        if self._after.papers.newer or self._before.papers.newer:
            return
        if self._effects.confirmed != self._image.name:
            if old.suspect and not (new.suspect or self._anew):
                self._fail('it is suspect no more')
            if old.rebaselined and not new.rebaselined:
                self._fail('a new baseline is forgotten')
        # Whether a file is another than one that was not settled, or was
        # written to, nobody can tell.
        found = self._before.papers
        unsure = found.ledger is not None and bool(found.unsettled)
        guessed = unsure and past & {'replaced', 'reformed'}
        doubtful = guessed or past & _SUSPICIOUS
        if new.suspect and not old.suspect and not doubtful:
            self._fail('it is suspect for no reason')
        if new.rebaselined and not old.rebaselined and not past & _RENEWING:
            self._fail('it has a new baseline for no reason')

    def _check_good(self) -> None:
        if self._finding is not Verdict.GOOD or self._anew:
            return
        found = self._before.papers
        read = self._after.damaged & self._image.seen
        whole = self._evidence & {'sha1', 'sidecar'}
        told = read if whole else read & self._evidence
        if self._suspect:
            told -= found.unsettled
        if told:
            self._fail(f'blocks {told} are damaged, and it is good')
        visible = found.bad('unreadable') - {*found.digests}
        if read & visible and not self._suspect:
            self._fail(f'blocks {read & visible} were learnt unmarked')
        resized = (
            found.unsettled
            and found.ledger
            and (found.get('size') != len(self._image.truth))
        )
        vouched = self._before.another or 'sidecar' in self._evidence
        if resized and not (self._suspect or vouched):
            self._fail('it has changed its size unmarked')

    def _check_cleared(self) -> None:
        """A sound file that is compared with what is right is good."""
        before, after = self._before, self._after
        found = before.papers
        whole = self._effects.whole or found.get('started') is None
        if not (whole and before.sound and after.sound):
            return
        full = {*range(self._image.count)} <= self._evidence
        if self._misled or self._effects.faults or not full:
            return
        if self._finding is not Verdict.GOOD and not found.unsettled:
            self._fail('a file that is as it was is not good')

    def _check_noted(self) -> None:
        """The state remembers what counts when the ledger is lost."""
        after = self._after
        unusable = not after.papers.noting or after.papers.ledger is None
        if unusable or after.papers.get('question'):
            return
        noted = after.sighting or {}
        harm = str(self._finding) if self._finding in _HARMFUL else None
        said = (self._new.suspect, self._new.rebaselined, harm)
        if said != (
            noted.get('suspect'),
            noted.get('rebaselined'),
            (noted.get('damage') or {}).get('verdict'),
        ):
            self._fail(f'the state does not remember {said}')
