# SPDX-License-Identifier: Apache-2.0

"""May these bytes be handed out? One answer to all (decision 0061)."""

import contextlib
import dataclasses
import enum

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache import errors


class Soundness(enum.StrEnum):
    """What is known to speak against handing out a base file.

    SOUND: nothing. It was verified, or has not been read yet.

    BAD: some of it is not what it was, or cannot be read.

    UNTOLD: what is known cannot be made out, or it is not what an earlier file
    of its image was, so it may be either. To refuse it would keep guests from
    starting for want of a record.
    """

    SOUND = 'sound'
    BAD = 'bad'
    UNTOLD = 'untold'


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whether a base file may be handed out, and why not.

    :ivar reason: ``corrupt`` or ``unreadable`` of one that is bad; a sentence
        of one of which it cannot be told; empty otherwise
    """

    soundness: Soundness
    reason: str = ''

    @property
    def is_bad(self) -> bool:
        """Whether it is known to be bad."""
        return self.soundness is Soundness.BAD

    @property
    def is_untold(self) -> bool:
        """Whether it cannot be told."""
        return self.soundness is Soundness.UNTOLD


def judge(
    known: knowledge.Knowledge, finding: knowledge.Finding | None = None
) -> Answer:
    """Say what follows from what is known of a file.

    :param finding: what has just been found, if that is news
    """
    finding = finding or known.finding
    if finding.damaged:
        return Answer(Soundness.BAD, str(finding.verdict))
    if finding.harmful:
        return Answer(Soundness.UNTOLD, finding.note)
    if known.blind or known.lost:
        why = '; '.join(known.problems) or 'what was known of it is lost'
        return Answer(Soundness.UNTOLD, why)
    return Answer(Soundness.SOUND)


def of(file: base_file.BaseFile, state: states.State | None = None) -> Answer:
    """Ask about one incarnation of a file, which itself is not read.

    :param state: what passes remember, where that was read already
    """
    known = knowledge.recall(file)
    if state is None:
        state = states.State()
        with contextlib.suppress(errors.Error, OSError):
            state = states.load(file.layout)
    return judge(known.remembering(state.sighting(file)))


def ask(layout: layouts.Layout, name: str) -> Answer:
    """Ask about the file that has a name in the cache now.

    One that is not there is fetched, so nothing speaks against it.
    """
    try:
        return of(base_file.BaseFile.named(layout, name))
    except FileNotFoundError:
        return Answer(Soundness.SOUND)
    except OSError as error:
        return Answer(
            Soundness.UNTOLD, f'it cannot be looked at: {error.strerror}'
        )
