# SPDX-License-Identifier: Apache-2.0

"""The words that operators alert on."""

from collections.abc import Iterable
import dataclasses
from typing import Any

from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import names
from nova_imagecache.outlets import messages
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import qcow2_map
from tests.support import base

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


def bad(name: str = SHA, verdict: str = 'corrupt') -> reports.FileReport:
    extent = exposure.Extent(0, 4096, qcow2_map.Effect.READS_THROUGH)
    return reports.FileReport(
        name=name,
        kind=names.Kind.ORIGINAL,
        size=8192,
        allocated=8192,
        users=('a-guest', 'another'),
        used=True,
        image='an-image',
        age_seconds=5,
        checksum=knowledge.Verdict(verdict),
        action=decide.Action.KEEP,
        reason='used by 2 guests; bytes 0-4095 are corrupt',
        bad=(ledgers.BadRange(0, 4096, ledgers.Damage.CORRUPT),),
        exposures=(exposure.Exposure('a-guest', 'disk', (extent,)),),
        answer=soundness.Soundness.BAD,
    )


def lines(found: Iterable[messages.Message]) -> list[tuple[int, str]]:
    return [(int(each.level), each.text % each.details) for each in found]


class MessagesTest(base.TestCase):
    def report(self, **fields: Any) -> reports.Report:
        return reports.Report('/base', **fields)

    def test_a_bad_file_is_an_error_with_its_image_and_guests(self) -> None:
        self.assertEqual(
            [
                (
                    40,
                    f'Base file /base/{SHA} (image an-image) is corrupt: '
                    'used by 2 guests; bytes 0-4095 are corrupt. Guests that '
                    'read it: a-guest (reads through 4096 B), another.',
                )
            ],
            lines(messages.of_damage(self.report(files=(bad(),)))),
        )

    def test_what_is_corrupt_comes_before_what_is_unreadable(self) -> None:
        report = self.report(files=(bad('a', 'unreadable'), bad('b')))
        self.assertEqual(['b', 'a'], [file.name for file in report.bad])

    def test_a_veto_and_a_problem_are_warnings(self) -> None:
        report = self.report(vetoes=('a veto',), problems=('a problem',))
        self.assertEqual(
            [
                (30, 'Nothing is removed from the image cache: a veto'),
                (30, 'Image cache: a problem'),
            ],
            lines(messages.of_findings(report)),
        )

    def test_a_pass_ends_with_a_summary(self) -> None:
        *_others, (level, text) = lines(
            messages.of_pass(self.report(files=(bad(),)))
        )
        self.assertEqual(20, level)
        self.assertEqual(
            'Image cache /base: 1 files, 1 in use, 0 removed (0 MiB), 1 '
            'corrupt; 0 in the trash, 0 deleted (0 MiB)',
            text,
        )

    def test_a_file_whose_users_cannot_be_named_is_in_use(self) -> None:
        held = dataclasses.replace(bad(), users=())
        free = dataclasses.replace(held, used=False)
        *_others, (_level, text) = lines(
            messages.of_pass(self.report(files=(bad(), held, free)))
        )
        self.assertIn('3 files, 2 in use', text)

    def test_a_cache_that_cannot_be_read_in_time_is_said(self) -> None:
        coverage = schedule.Coverage(size=2**40, needed=2**24, limit=2**20)
        report = self.report(checksums=True, coverage=coverage)
        ((level, text),) = lines(messages.of_findings(report))
        self.assertEqual(30, level)
        self.assertIn('takes 16.0 MiB/s', text)
        self.assertIn('allows 1.0; raise one of them', text)
