# SPDX-License-Identifier: Apache-2.0

"""The words that operators alert on."""

from collections.abc import Iterable
import dataclasses
import json
import logging
from typing import Any

import msgspec
import testtools

from nova_imagecache import codes
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
from tests.support import letters

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'


def bad(name: str = SHA, verdict: str = 'corrupt') -> reports.FileReport:
    extent = exposure.Extent(512, 4608, qcow2_map.Effect.READS_THROUGH)
    finding = knowledge.Finding(knowledge.Verdict(verdict))
    return reports.FileReport(
        name=name,
        kind=names.Kind.ORIGINAL,
        size=8192,
        allocated=8192,
        users=('a-guest', 'another'),
        readers=('a-guest', 'another'),
        used=True,
        image='an-image',
        age_seconds=5,
        checksum=finding.verdict,
        action=decide.Action.KEEP,
        reason='used by 2 guests; bytes 0-4095 are corrupt',
        note='bytes 0-4095 are corrupt',
        bad=(ledgers.BadRange(0, 4096, ledgers.Damage.CORRUPT),),
        exposures=(exposure.Exposure('a-guest', 'disk', (extent,)),),
        answer=soundness.judge(knowledge.Knowledge(), finding).soundness,
    )


def lines(found: Iterable[messages.Message]) -> list[tuple[int, str]]:
    return [(int(each.level), each.line) for each in found]


def veto(text: str) -> codes.Problem:
    return codes.Problem(codes.Code.DAMAGED_HEADER, text)


class FileReportTest(base.TestCase):
    def test_one_cannot_be_changed(self) -> None:
        with testtools.ExpectedException(AttributeError):
            bad().image = None  # type: ignore[misc]

    def test_a_driver_can_have_plain_values_of_all_of_a_report(self) -> None:
        report = reports.Report('/srv/_base', (bad(),))
        (file,) = msgspec.to_builtins(report)['files']
        read = json.loads(json.dumps(file))
        self.assertEqual('corrupt', read['checksum'])
        self.assertEqual(['a-guest', 'another'], read['users'])


class MessagesTest(base.TestCase):
    def report(self, **fields: Any) -> reports.Report:
        return reports.Report('/base', **fields)

    def test_a_bad_file_is_an_error_with_its_image_and_guests(self) -> None:
        self.assertEqual(
            [
                (
                    40,
                    f'[C01] Base file /base/{SHA} (image an-image) is '
                    'corrupt: bytes 0-4095 are corrupt. Guests that read it: '
                    'a-guest (reads through 4096 B), another. See: '
                    f'nova-imagecache explain {SHA[:12]}',
                )
            ],
            lines(messages.of_damage(self.report(files=(bad(),)))),
        )

    def test_a_bad_file_of_no_known_image_and_no_guest_says_so(self) -> None:
        file = msgspec.structs.replace(bad(), image=None, users=(), readers=())
        ((_level, text),) = lines(
            messages.of_damage(self.report(files=(file,)))
        )
        self.assertIn('(image unknown)', text)
        self.assertIn('Guests that read it: none.', text)

    def test_those_that_keep_it_are_not_said_to_read_it(self) -> None:
        """As a guest that was made from the image, whose disk is flat."""
        file = msgspec.structs.replace(
            bad(), users=('a-guest', 'keeper'), readers=('a-guest',)
        )
        ((_level, text),) = lines(
            messages.of_damage(self.report(files=(file,)))
        )
        self.assertIn(
            'Guests that read it: a-guest (reads through 4096 B). Kept for 1 '
            'more.',
            text,
        )

    def test_what_keeps_all_and_what_keeps_some_is_said(self) -> None:
        report = self.report(vetoes=(veto('one'),), withheld=(veto('two'),))
        self.assertEqual(
            [
                (30, '[V07] Nothing is removed from the image cache: one'),
                (30, '[V07] Some unused files stay in the image cache: two'),
            ],
            lines(messages.of_findings(report)),
        )

    def test_a_bad_file_is_told_with_the_findings_and_the_pass(self) -> None:
        report = self.report(files=(bad(),), vetoes=(veto('a veto'),))
        damage = lines(messages.of_damage(report))
        findings = lines(messages.of_findings(report))
        self.assertEqual(damage, findings[-1:])
        self.assertEqual(2, len(findings))
        self.assertEqual(findings, lines(messages.of_pass(report))[:2])

    def test_guests_with_disks_older_than_their_base_are_an_error(
        self,
    ) -> None:
        good = msgspec.structs.replace(
            bad(verdict='good'), outdated=('a-guest', 'b\nc')
        )
        (line,) = lines(messages.of_damage(self.report(files=(good,))))
        self.assertEqual(
            (
                40,
                f'[C03] Base file /base/{SHA} was made anew with other bytes '
                'under guests whose disks are older: a-guest, b\\nc. See: '
                f'nova-imagecache explain {SHA[:12]}',
            ),
            line,
        )

    def test_what_is_corrupt_comes_before_what_is_unreadable(self) -> None:
        report = self.report(files=(bad('a', 'unreadable'), bad('b')))
        self.assertEqual(['b', 'a'], [file.name for file in report.bad])

    def test_what_differs_is_harmful_and_not_bad(self) -> None:
        report = self.report(files=(bad('a', 'differs'), bad('b')))
        self.assertEqual(['b'], [file.name for file in report.bad])
        self.assertEqual(['b', 'a'], [file.name for file in report.harmful])

    def test_who_is_hit_is_named_where_how_does_not_fit(self) -> None:
        guest = '11111111-aaaa-4aaa-8aaa-000000000001'
        file = msgspec.structs.replace(
            bad(),
            users=(guest,),
            readers=(guest,),
            image='i' * 36,
            exposures=tuple(
                dataclasses.replace(each, guest=guest)
                for each in bad().exposures
            ),
            note='bytes 0-4194303, 8388608-12582911 are corrupt',
        )
        report = reports.Report('/var/lib/nova/instances/_base', (file,))
        ((_level, line),) = lines(messages.of_damage(report))
        self.assertIn(f'Guests that read it: {guest}', line)
        self.assertIn('bytes 0-4194303', line)

    def told(self, note: str, called: str, top: str = '/var/lib/nova') -> str:
        guests = tuple(f'{number:036}' for number in range(9))
        file = msgspec.structs.replace(
            bad(), name='f' * 40, users=guests, readers=guests,
            image='i' * 36, image_name=called, note=note,
        )  # fmt: skip
        report = reports.Report(f'{top}/instances/_base', (file,))
        ((_level, line),) = lines(messages.of_damage(report))
        self.assertLessEqual(len(line.encode()), 300)
        self.assertIn('f' * 40, line)
        self.assertIn('i' * 36, line)
        self.assertIn(f'{guests[0]} and 8 more', line)
        return line

    def test_what_is_wrong_counts_more_than_what_the_image_is_called(
        self,
    ) -> None:
        note = 'bytes 3221225472-5368709119 are corrupt, it is 2 GiB too short'
        for called in ('', 'ubuntu-24.04-of-the-second-region'):
            for top in ('/var/lib/nova', f'/srv/{"x" * 200}'):
                self.assertIn(note[:50], self.told(note, called, top))

    def test_the_way_out_of_a_wrong_checksum_is_in_its_line(self) -> None:
        ledger = letters.proven_of('a' * 11, sha1='a' * 40)
        note = knowledge.judge(ledger, 'b' * 40).note
        guest = '11111111-aaaa-4aaa-8aaa-000000000001'
        file = msgspec.structs.replace(
            bad(), name='f' * 40, users=(guest,), readers=(guest,),
            image='i' * 36, image_name='ubuntu-24.04', note=note,
            contradicted=True,
        )  # fmt: skip
        report = reports.Report('/var/lib/nova/instances/_base', (file,))
        ((_level, line),) = lines(messages.of_damage(report))
        self.assertIn('[C05]', line)
        self.assertIn('if that is wrong, remove it, and verify the file', line)
        self.assertIn(guest, line)

    def test_where_there_is_room_the_image_is_told_by_its_name(self) -> None:
        self.assertIn('"debian-13"', self.told('it is bad', 'debian-13'))
        self.assertIn('corrupt. Guests', self.told('', 'debian-13'))

    def test_each_file_is_told_of_only_if_that_is_asked_for(self) -> None:
        report = self.report(files=(bad(),))
        every = {each.level for each in messages.of_pass(report)}
        self.assertIn(messages.Level.DEBUG, every)
        found = {each.level for each in messages.of_pass(report, False)}
        self.assertNotIn(messages.Level.DEBUG, found)

    def test_no_line_takes_more_than_300_bytes(self) -> None:
        guests = tuple(f'{number:036}' for number in range(1000))
        file = msgspec.structs.replace(
            bad(),
            users=guests,
            readers=guests[:500],
            image='i' * 36,
            note='bytes 0-1 are corrupt, ' * 300,
            outdated=guests,
        )
        long = veto('x' * 5000)
        report = reports.Report(
            '/var/lib/nova/instances/_base',
            files=(file,),
            vetoes=(long,),
            withheld=(long,),
            problems=(long,),
            notes=(long,),
        )
        found = lines(messages.of_findings(report))
        self.assertEqual(6, len(found))
        for _level, line in found:
            self.assertLessEqual(len(line.encode()), 300)
            self.assertIn('nova-imagecache explain ', line)
        # Who is hit comes before the rest.
        self.assertIn(f'{guests[0]} and 499 more', found[-1][1])

    def test_a_veto_and_a_problem_are_warnings(self) -> None:
        report = self.report(
            vetoes=(veto('a veto'),), problems=(veto('a problem'),)
        )
        self.assertEqual(
            [
                (30, '[V07] Nothing is removed from the image cache: a veto'),
                (30, '[V07] Image cache: a problem'),
            ],
            lines(messages.of_findings(report)),
        )

    def test_a_pass_ends_with_a_summary(self) -> None:
        *_others, (level, text) = lines(
            messages.of_pass(self.report(files=(bad(),)))
        )
        self.assertEqual(20, level)
        self.assertEqual(
            'Image cache /base: 1 file, 1 in use, 0 moved to the trash '
            '(0 B), 1 corrupt; 0 in the trash, 0 deleted (0 B)',
            text,
        )

    def test_each_file_of_cache_and_trash_is_told_to_who_debugs(self) -> None:
        trash = msgspec.structs.replace(bad(f'{SHA}.00000001'), users=())
        report = self.report(files=(bad(),), trash=(trash,))
        told = [
            text
            for level, text in lines(messages.of_pass(report))
            if level == logging.DEBUG
        ]
        rest = 'keep, used by 2 guests; bytes 0-4095 are corrupt; checksum'
        self.assertEqual(
            [
                f'{SHA} (original, image an-image): {rest} corrupt; users: '
                'a-guest, another',
                f'{SHA}.00000001 (original, image an-image): {rest} corrupt; '
                'users: ',
            ],
            told,
        )

    def test_what_was_done_is_told_as_what_would_have_been_in_a_dry_run(
        self,
    ) -> None:
        fields: dict[str, Any] = {
            'allocated': base.MIB, 'users': (), 'reason': 'why',
            'checksum': knowledge.Verdict.OFF, 'answer': None,
        }  # fmt: skip

        def file(name: str, action: decide.Action) -> reports.FileReport:
            return msgspec.structs.replace(bad(name), action=action, **fields)

        done = self.report(
            files=(file('a', decide.Action.REMOVE),),
            trash=(
                file('b', decide.Action.PUT_BACK),
                file('c', decide.Action.DELETE),
                file('d', decide.Action.DELETE),
                file('e', decide.Action.KEEP),
            ),
        )
        for report, words, summary in (
            (
                done,
                ['Moved to the trash:', 'Put back', 'Deleted', 'Deleted'],
                '1 moved to the trash (1.0 MiB), 0 corrupt; 1 in the '
                'trash, 2 deleted (2.0 MiB)',
            ),
            (
                dataclasses.replace(done, dry_run=True),
                [f'Would have {each}' for each in (
                    'moved to the trash:', 'put back', 'deleted', 'deleted',
                )],
                '0 moved to the trash (0 B), 0 corrupt; 1 in the trash, '
                '0 deleted (0 B)',
            ),
        ):  # fmt: skip
            *told, last = [
                text
                for level, text in lines(messages.of_pass(report))
                if level == logging.INFO
            ]
            self.assertEqual(
                [
                    f'{each} original file {name}: why'
                    for each, name in zip(words, 'abcd', strict=True)
                ],
                told,
            )
            self.assertIn(summary, last)

    def test_coverage_is_told_where_files_are_verified(self) -> None:
        gib = 1024 * base.MIB
        coverage = schedule.Coverage(
            size=4 * gib, digested=3 * gib, verified=2 * gib, queue=5,
            queue_size=gib,
        )  # fmt: skip
        report = self.report(checksums=True, coverage=coverage)
        *_others, (level, text) = lines(messages.of_pass(report))
        self.assertEqual(logging.INFO, level)
        self.assertEqual(
            'Image cache /base: 2.0 GiB of 4.0 GiB verified, 3.0 GiB '
            'digested; 5 files (1.0 GiB) to be read now',
            text,
        )

    def test_a_file_whose_users_cannot_be_named_is_in_use(self) -> None:
        held = msgspec.structs.replace(bad(), users=())
        free = msgspec.structs.replace(held, used=False)
        *_others, (_level, text) = lines(
            messages.of_pass(self.report(files=(bad(), held, free)))
        )
        self.assertIn('3 files, 2 in use', text)

    def test_a_cache_that_cannot_be_read_in_time_is_said(self) -> None:
        coverage = schedule.Coverage(size=2**40, needed=2**24, limit=2**20)
        report = self.report(checksums=True, coverage=coverage)
        ((level, text),) = lines(messages.of_findings(report))
        self.assertEqual(30, level)
        self.assertIn('to read 1.0 TiB once', text)
        self.assertIn('takes 16.0 MiB/s', text)
        self.assertIn('allows 1.0 MiB/s; raise one of them', text)
