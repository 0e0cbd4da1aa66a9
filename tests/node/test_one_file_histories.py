# SPDX-License-Identifier: Apache-2.0

"""What random histories of files and records have found, made plain."""

import os
import random
import shutil

from tests.support import scrubbing

BLOCK = scrubbing.BLOCK
COUNT = scrubbing.COUNT
SIZE = scrubbing.SIZE
CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict


class AnotherFileTest(scrubbing.OneFileTestCase):
    """Files that take the place of one of which something is known."""

    def setUp(self) -> None:
        super().setUp()
        self.record = self.node.layout.ledger(self.name)

    def replace(self, data: bytes | None = None) -> None:
        """Put another file under the name, by default the same image."""
        with open(self.path + '.part', 'wb') as file:
            file.write(self.data if data is None else data)
        os.rename(self.path + '.part', self.path)

    def copy(self) -> None:
        shutil.copy2(self.path, self.path + '.part')
        os.rename(self.path + '.part', self.path)

    def test_a_good_image_ends_the_doubt_that_a_bad_copy_raised(self) -> None:
        self.scrub_file()
        self.flip(2)
        self.copy()
        self.assertIs(Verdict.DIFFERS, self.scrub_file())
        self.replace()
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_copy_of_one_that_differs_differs_as_well(self) -> None:
        self.scrub_file()
        self.flip(2)
        for _copy in range(3):
            self.copy()
            self.assertIs(Verdict.DIFFERS, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_a_checksum_beside_digests_that_were_not_sure_accuses_nobody(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(4))
        self.go_on()
        self.replace(random.Random(8).randbytes(SIZE))
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        # One of the two images is bad, and nobody knows which.
        self.assertIs(Verdict.DIFFERS, self.scrub_file())

    def test_one_that_is_longer_has_a_ledger_that_can_be_read(self) -> None:
        self.scrub_file()
        self.replace(self.data + bytes(4 * BLOCK))
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(COUNT + 3))
        self.go_on()
        self.assertTrue(self.ledger(self.name).damaged)
        self.assertIs(Verdict.DIFFERS, self.scrub_file())
