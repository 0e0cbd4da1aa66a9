# SPDX-License-Identifier: Apache-2.0

"""Files whose holes dwarf their data: no SHA-1 is made of these."""

import os

from nova_imagecache.content import sidecars
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import keeper
from tests.support import base
from tests.support import identities
from tests.support import nodes
from tests.support import scrubbing

Verdict = scrubbing.Verdict

TOO_SPARSE = 'it has no SHA-1, as it is too sparse for one'


class GiantTest(scrubbing.ScrubTestCase):
    """A few KiB that somebody has uploaded."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('giant', data=b'boot' * 1024)
        self.path = self.node.base_path(self.name)
        # Twice the holes that are too many; more would only take longer.
        os.truncate(self.path, 2**37)

    def test_it_is_digested_without_a_sha1_and_this_is_said(self) -> None:
        self.patch(hashing.WholeFile, 'add', lambda *args: self.fail('SHA-1'))
        first = self.scrub(self.name)
        self.assertEqual(
            f'{TOO_SPARSE}; its blocks have been digested', first.note
        )
        for finding in (self.scrub(self.name), self.known(self.name).finding):
            self.assertEqual(
                (Verdict.GOOD, TOO_SPARSE), (finding.verdict, finding.note)
            )
        self.assertFalse(os.path.exists(f'{self.path}.sha1'))
        ledger = self.ledger(self.name)
        self.assertEqual((None, False), (ledger.sha1, ledger.proven))

    def test_damage_is_found_all_the_same(self) -> None:
        self.scrub(self.name)
        nodes.flip_bit(self.path)
        finding = self.scrub(self.name)
        self.assertIs(Verdict.CORRUPT, finding.verdict)

    def test_it_is_no_reason_to_read_it_again(self) -> None:
        self.node.configure(checksum=True, checksum_interval=7 * base.DAY)
        self.scrub(self.name)
        self.node.clock.advance(2 * base.DAY)
        report = self.node.run(inline=False)
        assert report.coverage is not None
        self.assertEqual(0, report.coverage.queue)
        self.assertEqual((), report.problems)

    def test_a_pass_says_it_too(self) -> None:
        self.node.configure(checksum=True)
        self.scrub(self.name)
        self.scrub(self.name)
        (file,) = self.node.run(inline=False).files
        self.assertEqual('good', file.checksum)
        self.assertIn(TOO_SPARSE, file.reason)

    def test_no_sha1_is_brought_back(self) -> None:
        self.scrub(self.name)
        keeper.restore_checksum(self.file(self.name), self.known(self.name))
        self.assertFalse(os.path.exists(f'{self.path}.sha1'))


class SparseTest(identities.IdentityTestCase):
    """As if any file were too sparse, so that small ones do."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sidecars, 'is_too_sparse', lambda stat: True)

    def test_a_checksum_that_it_has_is_compared(self) -> None:
        self.write_sidecar(self.sha1())
        finding = self.scrub(self.name)
        self.assertEqual((Verdict.GOOD, ''), (finding.verdict, finding.note))
        self.assertTrue(self.ledger(self.name).proven)

    def test_a_checksum_that_is_wrong_is_told(self) -> None:
        self.write_sidecar('f' * 40)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())

    def test_evidence_gives_it_one(self) -> None:
        self.scrub(self.name)
        finding = confirmation.confirm(
            self.node.settings, self.file(self.name), self.sha1()
        )
        self.assertEqual((Verdict.GOOD, ''), (finding.verdict, finding.note))
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_its_digests_change_with_the_algorithm(self) -> None:
        self.scrub(self.name)
        finding = self.scrub(self.name, algorithm='sha256')
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertEqual('sha256', self.ledger(self.name).algorithm)
        self.assertIs(
            Verdict.GOOD, self.scrub(self.name, algorithm='sha256').verdict
        )

    def test_digests_that_do_not_match_do_not_change(self) -> None:
        self.scrub(self.name)
        self.flip(3)
        finding = self.scrub(self.name, algorithm='sha256')
        self.assertIs(Verdict.CORRUPT, finding.verdict)
        self.assertEqual('xxh3_128', self.ledger(self.name).algorithm)
