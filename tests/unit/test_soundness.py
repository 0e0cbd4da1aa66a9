# SPDX-License-Identifier: Apache-2.0

"""What follows from what is known of a file."""

from typing import Any

import ddt

from nova_imagecache import codes
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from tests.support import base
from tests.support import letters
from tests.support import scrubbing

Soundness = soundness.Soundness
Verdict = knowledge.Verdict


def problems(*texts: str) -> tuple[codes.Problem, ...]:
    return tuple(codes.Problem(codes.Code.UNKNOWN, text) for text in texts)


@ddt.ddt
class JudgeTest(base.TestCase):
    @ddt.data(Verdict.GOOD, Verdict.UNKNOWN, Verdict.OFF)
    def test_what_is_not_known_to_be_bad_is_sound(
        self, verdict: Verdict
    ) -> None:
        answer = soundness.judge(
            knowledge.Knowledge(), knowledge.Finding(verdict, 'a note')
        )
        self.assertEqual(soundness.Answer(Soundness.SOUND), answer)
        self.assertEqual((False, False), (answer.is_bad, answer.is_untold))

    @ddt.data(Verdict.CORRUPT, Verdict.UNREADABLE)
    def test_damage_is_bad_and_named(self, verdict: Verdict) -> None:
        answer = soundness.judge(
            # Whatever else there is to say.
            knowledge.Knowledge(blind=True, lost=True, problems=problems('x')),
            knowledge.Finding(verdict, 'a note'),
        )
        self.assertEqual(soundness.Answer(Soundness.BAD, str(verdict)), answer)
        self.assertEqual((True, False), (answer.is_bad, answer.is_untold))

    def test_what_differs_cannot_be_told(self) -> None:
        answer = soundness.judge(
            knowledge.Knowledge(),
            knowledge.Finding(Verdict.DIFFERS, 'one of the two is bad'),
        )
        self.assertEqual(
            soundness.Answer(Soundness.UNTOLD, 'one of the two is bad'), answer
        )
        self.assertEqual((False, True), (answer.is_bad, answer.is_untold))

    @ddt.data({'blind': True}, {'lost': True})
    def test_what_cannot_be_made_out_cannot_be_told(
        self, how: dict[str, Any]
    ) -> None:
        answer = soundness.judge(knowledge.Knowledge(**how))
        self.assertEqual(
            soundness.Answer(Soundness.UNTOLD, 'what was known of it is lost'),
            answer,
        )
        known = knowledge.Knowledge(problems=problems('one', 'two'), **how)
        self.assertEqual('one; two', soundness.judge(known).reason)

    def test_a_problem_alone_is_no_reason(self) -> None:
        known = knowledge.Knowledge(problems=problems('one'))
        self.assertEqual(
            soundness.Answer(Soundness.SOUND), soundness.judge(known)
        )

    def test_without_news_what_is_known_counts(self) -> None:
        known = knowledge.Knowledge(damage=Verdict.CORRUPT, lost=True)
        self.assertEqual(
            soundness.Answer(Soundness.BAD, 'corrupt'), soundness.judge(known)
        )
        good = knowledge.Finding(Verdict.GOOD)
        self.assertIs(Soundness.UNTOLD, soundness.judge(known, good).soundness)

    def test_another_file_is_not_judged_by_the_earlier_one(self) -> None:
        bad = ledgers.gather({1: scrubbing.CORRUPT})
        ledger = letters.proven_of('abc', question=True, bad=bad)
        answer = soundness.judge(knowledge.Knowledge('f' * 40, ledger))
        self.assertEqual(soundness.Answer(Soundness.SOUND), answer)
