# SPDX-License-Identifier: Apache-2.0

"""Another file under the name, and what an earlier one has left."""

import os

import ddt

from nova_imagecache.content import knowledge
from tests.support import base
from tests.support import identities
from tests.support import nodes
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict
WEEK = 7 * base.DAY


class OlderChecksumTest(identities.IdentityTestCase):
    """A stored checksum that is older than the file beside it."""

    def put(self, digest: str) -> None:
        self.write_sidecar(digest)
        nodes.write_after(self.path, self.data, self.sidecar)

    def test_a_file_that_has_it_is_good_when_it_is_first_read(self) -> None:
        self.put(self.sha1())
        known = self.known(self.name)
        self.assertTrue(known.question)
        self.assertIs(Verdict.UNKNOWN, known.finding.verdict)
        self.assertEqual(
            knowledge.Finding(Verdict.GOOD), self.scrub(self.name)
        )
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIsNone(self.ledger(self.name).rebaselined)

    def test_a_file_that_has_not_differs_and_the_checksum_is_kept(
        self,
    ) -> None:
        self.put('f' * 40)
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertIs(Verdict.DIFFERS, finding.verdict)
            self.assertIn(self.sha1(), finding.note)
        self.assertEqual('f' * 40, self.read_sidecar())

    def test_it_is_not_compared_with_what_was_read_in_parts(self) -> None:
        self.put('f' * 40)
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertEqual('f' * 40, self.read_sidecar())
        self.assertIs(Verdict.DIFFERS, self.scrub_file())

    def test_of_a_swap_file_it_goes_when_it_does_not_agree(self) -> None:
        self.name = 'swap_64'
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'
        self.put('f' * 40)
        finding = self.scrub(self.name)
        self.assertIn('made anew', finding.note)
        self.assertEqual(self.sha1(), self.read_sidecar())


@ddt.ddt
class FetchedAnewTest(identities.IdentityTestCase):
    """Unlinked by Nova, and fetched again with the same bytes."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, remove_unused=False)
        for _pass in range(3):
            report = self.node.run()
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.GOOD, file.checksum)
        self.learnt = self.digests()

    def fetch(self) -> None:
        nodes.write_after(self.path, self.data, self.sidecar_or_base())

    def sidecar_or_base(self) -> str:
        return self.sidecar if os.path.exists(self.sidecar) else self.path

    def verdict(self) -> Verdict:
        file = self.file_of(self.node.run(), self.name)
        self.assertNotIn('rebaselined', file.reason)
        return file.checksum

    @ddt.data((), ('sidecar',), ('ledger',))
    def test_with_any_of_it_left_it_is_good_when_it_is_first_read(
        self, lost: tuple[str, ...]
    ) -> None:
        ledger = self.node.layout.ledger(self.name)
        for what in lost:
            os.unlink(ledger if what == 'ledger' else self.sidecar)
        self.fetch()
        # What a verdict is of has gone.
        self.assertIs(Verdict.UNKNOWN, self.known(self.name).finding.verdict)
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertEqual(self.learnt, self.digests())

    def test_with_none_of_it_left_it_is_a_new_file(self) -> None:
        for path in (self.sidecar, self.node.layout.ledger(self.name)):
            os.unlink(path)
        self.fetch()
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertFalse(self.ledger(self.name).suspect)

    def test_a_checksum_is_not_brought_back_before_it_was_compared(
        self,
    ) -> None:
        os.unlink(self.sidecar)
        self.fetch()
        self.node.configure(checksum_interval=WEEK)
        self.node.run(inline=False)
        self.assertFalse(os.path.exists(self.sidecar))

    @ddt.data((), ('sidecar',), ('ledger',))
    def test_with_other_bytes_it_differs_and_nothing_is_overwritten(
        self, lost: tuple[str, ...]
    ) -> None:
        sha1 = self.read_sidecar()
        ledger = self.node.layout.ledger(self.name)
        for what in lost:
            os.unlink(ledger if what == 'ledger' else self.sidecar)
        self.data = self.data[:-1] + b'?'
        self.fetch()
        for _pass in range(3):
            self.assertIs(Verdict.DIFFERS, self.verdict())
        self.assertEqual(sha1, self.read_sidecar())
        if not lost:
            self.assertEqual(self.learnt, self.digests())

    def test_with_the_bytes_of_the_one_before_the_last_it_is_good(
        self,
    ) -> None:
        """As it is put right: one differs, and is fetched once more."""
        sound = self.data
        self.data = self.data[:-1] + b'?'
        self.fetch()
        self.assertIs(Verdict.DIFFERS, self.verdict())
        self.data = sound
        self.fetch()
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertEqual(self.learnt, self.digests())

    def test_a_copy_of_one_that_differs_does_so_too(self) -> None:
        self.data = self.data[:-1] + b'?'
        for _fetch in range(2):
            self.fetch()
            self.assertIs(Verdict.DIFFERS, self.verdict())


class NotSettledTest(identities.IdentityTestCase):
    """Fetched anew while it was not sure yet what the last one held."""

    def setUp(self) -> None:
        super().setUp()
        self.touch_while_reading(9)
        self.scrub_file()

    def settle_all_but(self, block: int) -> None:
        with self.failing_reads(block):
            self.scrub_file()
        self.assertFalse(self.ledger(self.name).settled)

    def fetch(self, data: bytes) -> None:
        nodes.write_after(self.path, data, self.path)

    def test_other_bytes_are_not_called_corrupt(self) -> None:
        self.settle_all_but(5)
        self.fetch(bytes(reversed(self.data)))
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertFalse(finding.harmful, finding)
        # It may be what was damaged on the way to another disk.
        self.assertIn('suspect', finding.note)

    def test_the_same_bytes_are_good_at_once(self) -> None:
        self.settle_all_but(5)
        self.fetch(self.data)
        self.assertEqual(
            knowledge.Finding(Verdict.GOOD), self.scrub(self.name)
        )

    def test_a_block_that_is_known_to_be_bad_stays_so(self) -> None:
        self.settle_all_but(5)
        self.flip(2)
        self.settle_all_but(5)
        self.assertEqual(CORRUPT, self.bad_blocks()[2])
        with open(self.path, 'rb') as file:
            self.fetch(file.read())
        for _scrub in range(3):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
            self.assertEqual(CORRUPT, self.bad_blocks()[2])
